"""`snowmelt convert`: other people's checkpoints in, ours out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import PREDICTION_ALIASES, Whole, parse_size


def convert(
    source: Path,
    destination: Path,
    *,
    from_: Annotated[str, Parameter(name="--from")] = "auto",
    to: Literal["snowmelt", "diffusers"] = "snowmelt",
    size: Annotated[str | None, Parameter(alias=("--resolution", "--image_size"))] = None,
    predict: Annotated[str | None, Parameter(alias="--prediction_type")] = None,
    schedule: str | None = None,
    noise_levels: Whole | None = None,
    clock: str | None = None,
    heads: Whole | None = None,
    head_channels: Whole | None = None,
    qkv: Literal["legacy", "new"] | None = None,
    null_class: Annotated[bool, Parameter(negative="")] = False,
    weights: Literal["ema", "raw"] = "ema",
    class_: Annotated[str | None, Parameter(name="--class")] = None,
) -> None:
    """Read a model of another library as one of ours, or write ours for diffusers. No file's code is ever run.

    Parameters
    ----------
    source
        A file or folder of another library, or hf:USER/REPO; with --to diffusers a run or model of ours.
    destination
        The folder to write, which must not exist.
    from_
        The format of SOURCE: edm, diffusers, guided-diffusion, ddpm-port, lucidrains, or auto.
    to
        snowmelt: a model folder of ours; diffusers: a folder for DDPMPipeline.from_pretrained.
    size
        Pixels of its images, where the file does not say: 64, or 64x96 (height x width).
    predict
        What it predicts, where the file does not say: eps, x0, v.
    schedule
        Its noise schedule, where the file does not say: linear, cosine, ...
    noise_levels
        The number of its noise levels, where the file does not say.
    clock
        What its network is told of the noise: index or rescaled-index (0 to 1000 whatever the number of levels).
    heads
        Its attention heads, where they are as many everywhere and the file does not say.
    head_channels
        Channels of each of its attention heads, instead of --heads.
    qkv
        How its attention's rows are ordered: legacy (each head's query, key and value together) or new.
    null_class
        Its last class is no class, but stands for one that is withheld.
    weights
        With --to diffusers, ema: the average; raw: the last step's.
    class_
        With --to diffusers, write a pipeline of one class, or of `none`: DDPMPipeline cannot be told a class.
    """
    from snowmelt.base.files import quoted
    from snowmelt.interop.convert import export_diffusers, import_model
    from snowmelt.interop.foreign import Told
    from snowmelt.report.card import card_of

    told = {
        "size": parse_size(size),
        "predict": PREDICTION_ALIASES.get(predict or "", predict),
        "schedule": schedule,
        "noise_levels": noise_levels,
        "clock": clock,
        "heads": heads,
        "head_channels": head_channels,
        "qkv": qkv,
        "null_class": null_class,
    }
    if to == "diffusers" and from_ != "auto":
        raise SnowmeltError("--from would do nothing with --to diffusers: SOURCE is known by itself.", "Leave it out.")
    if to == "diffusers":
        made = export_diffusers(source, destination, weights, Told.of(told), class_, card_of(source, weights))
        for note in made.notes:
            print(f"Note: {note}.")
        if made.classes:
            print(f"Next: the code in {destination / 'README.md'}")
            return
        code = f"from diffusers import DDPMPipeline; DDPMPipeline.from_pretrained({str(destination)!r})"
        print(f"Next: python -c {quoted(f'{code}(num_inference_steps={made.steps}).images[0].show()')}")
        return
    for name, given in (("--weights", weights != "ema"), ("--class", class_ is not None)):
        if given:
            raise SnowmeltError(f"{name} would do nothing without --to diffusers: all is read.", "Leave it out.")
    found = import_model(source, destination, Told.of(told), from_)
    config = found.config
    images = config.images
    kinds = " and ".join(found.weights)
    print(f"{found.origin['format']}: {images.height}x{images.width}, {images.channels} channels; weights: {kinds}")
    print(
        f"Predicts {config.denoiser['prediction']} on the {config.denoiser['schedule']['name']} schedule; "
        f"drawn by {config.sampler.name} in {config.sampler.steps} steps"
    )
    for note in found.notes:
        print(f"Note: {note}.")
    print(f"Next: snowmelt sample {quoted(destination)} -n 16")
