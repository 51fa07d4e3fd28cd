"""A model of ours as the folder of a diffusers pipeline, which `DDPMPipeline.from_pretrained` runs as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import write_json, write_text
from snowmelt.image.codec import UINT8
from snowmelt.interop.card import HERE, Card, card_text
from snowmelt.interop.diffusers.files import CARD, CONFIG, GRID, INDEX, OURS, SCHEDULER, UNET, WEIGHTS
from snowmelt.interop.diffusers.names import NAMING
from snowmelt.interop.diffusers.network import InexpressibleError, write_network
from snowmelt.interop.diffusers.scheduler import write_scheduler
from snowmelt.interop.mapping import write_tensors
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.bundle import ImageSpec, Model
from snowmelt.model.networks import Transformer, UNet, UNetConfig
from snowmelt.model.tensors import save_tensors

NONE = "none"
USUAL_STEPS = 1000  # of a DDPMPipeline that is not told how many, and the most that it can take
LABEL, BIAS = "embedding.conditions.label.weight", "embedding.out.bias"


@dataclass(frozen=True)
class Pipeline:
    """The files of a pipeline, and what its user should know."""

    index: dict[str, Any]
    network: dict[str, Any]
    scheduler: dict[str, Any]
    tensors: dict[str, Tensor]
    ours: dict[str, Any]
    card: str
    grid: bytes | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> bool:
        """Whether its network is told a class, which a DDPMPipeline does not do by itself."""
        return self.network.get("num_class_embeds") is not None

    @property
    def steps(self) -> int:
        """How many its sampler takes."""
        return _steps(int(self.scheduler["num_train_timesteps"]))

    def save(self, folder: Path) -> None:
        """Write them into an existing (temporary) folder."""
        (folder / UNET).mkdir()
        write_json(folder / INDEX, self.index)
        write_json(folder / UNET / CONFIG, self.network)
        write_json(folder / SCHEDULER, self.scheduler)
        write_json(folder / OURS, self.ours)
        save_tensors(folder / UNET / WEIGHTS, self.tensors, {"format": "pt"})
        if self.grid is not None:
            (folder / GRID).write_bytes(self.grid)
        write_text(folder / CARD, self.card)


def _steps(noise_levels: int) -> int:
    """All of them, up to the thousand that a DDPMPipeline takes."""
    return min(USUAL_STEPS, noise_levels)


def write_pipeline(model: Model, class_name: str | None, card: Card, address: str = HERE) -> Pipeline:
    """The pipeline, which its card says to load from `address`.

    Raises InexpressibleError where diffusers has no words for the model, with the reason.
    """
    network, images, denoiser = model.denoiser.network, model.images, model.denoiser
    if not isinstance(network, UNet):
        kind = "a transformer" if isinstance(network, Transformer) else "a U-Net of another family"
        raise InexpressibleError(f"its network is {kind}, which UNet2DModel is not")
    config, tensors = network.config, network.state_dict()
    if class_name is not None:
        config, tensors = _of_one_class(config, tensors, images, class_name)
        images = replace(images, class_names=None)
    size = (images.height, images.width)
    if any(side % config.size_multiple for side in size):
        raise InexpressibleError(
            f"its images of {size[0]}x{size[1]} are padded to a multiple of {config.size_multiple} by its network"
        )
    scheduler = write_scheduler(
        denoiser.schedule, denoiser.prediction, denoiser.clock_name, denoiser.learned_variance, model.sampler
    )
    described = write_network(config, size)
    version = described["_diffusers_version"]
    return Pipeline(
        index={
            "_class_name": "DDPMPipeline",
            "_diffusers_version": version,
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
        network=described,
        scheduler=scheduler,
        tensors=write_tensors(unet_rules(config, NAMING), tensors),
        ours={
            "format_version": 1,
            "images": images.to_config(),
            "training": model.training,
            "digest": model.digest,
            "sampler": asdict(replace(model.sampler, guidance=1.0, class_guidance=1.0)),  # the guide is left out
        },
        card=_card(model, images, card, address),
        grid=card.grid,
        notes=tuple(_notes(model, images)),
    )


def _of_one_class(
    config: UNetConfig, tensors: dict[str, Tensor], images: ImageSpec, name: str
) -> tuple[UNetConfig, dict[str, Tensor]]:
    """The same network for one class: what it adds to the embedding is added to the embedding's last bias."""
    if images.class_names is None:
        raise SnowmeltError(f"--class {name!r}: this model was trained without classes.", "Leave --class out.")
    row = len(images.class_names) if name == NONE and NONE not in images.class_names else images.class_index(name)
    rest = {key: tensor for key, tensor in tensors.items() if key != LABEL}
    return replace(config, num_classes=0), {**rest, BIAS: tensors[BIAS] + tensors[LABEL][row]}


def _notes(model: Model, images: ImageSpec) -> list[str]:
    notes = []
    if images.class_names is not None:
        notes.append("DDPMPipeline cannot be told a class: README.md shows how to, or choose one with --class NAME")
    if model.guide is not None:
        notes.append("The weaker model that samples are led away from is left out: diffusers does not know such")
    if images.value_range != UINT8:
        span = images.value_range
        pixels = f"Its pixels are {span.dtype} from {span.low:g} to {span.high:g}"
        notes.append(f"{pixels}; the pipeline shows that as black to white")
    return notes


_USE = """```python
from diffusers import DDPMPipeline

pipeline = DDPMPipeline.from_pretrained("PATH/TO/THIS/FOLDER")
pipeline(batch_size=4, num_inference_steps={steps}).images[0].save("image.png")
```"""

_USE_CLASSED = """`DDPMPipeline` cannot be told a class; the network can. Class {none} is "no class", for guidance.

```python
import torch
from diffusers import DDPMPipeline

pipeline = DDPMPipeline.from_pretrained("PATH/TO/THIS/FOLDER")
pipeline.scheduler.set_timesteps({steps})
label = torch.tensor([0, 1, 2, 3]) % {none}
x = torch.randn(4, {channels}, {height}, {width})
with torch.no_grad():
    for t in pipeline.scheduler.timesteps:
        output = pipeline.unet(x, t, class_labels=label).sample
        x = pipeline.scheduler.step(output, t, x).prev_sample
pipeline.numpy_to_pil((x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())[0].save("image.png")
```

Classes: {names}."""


def _card(model: Model, images: ImageSpec, card: Card, address: str) -> str:
    steps = _steps(model.denoiser.schedule.steps or USUAL_STEPS)
    use = _USE.format(steps=steps)
    if images.class_names is not None:
        use = _USE_CLASSED.format(
            none=len(images.class_names),
            steps=steps,
            channels=images.channels,
            height=images.height,
            width=images.width,
            names=", ".join(f"{number} {name}" for number, name in enumerate(images.class_names)),
        )
    return card_text(model, images, card, "diffusers", use.replace(HERE, address))
