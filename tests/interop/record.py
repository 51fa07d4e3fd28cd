"""Writes `recorded.json`: what other libraries' networks compute, to be compared with without installing them.

    python tests/interop/record.py GUIDED_DIFFUSION PYTORCH_DIFFUSION

GUIDED_DIFFUSION   a checkout of github.com/openai/guided-diffusion (MIT)
PYTORCH_DIFFUSION  a checkout of github.com/pesser/pytorch_diffusion (MIT)

denoising-diffusion-pytorch (MIT, pip) must be importable. Weights are drawn by their names, inputs by a seed, so that
only names, shapes and outputs are written.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock, patch

import torch
from recorded_models import INPUT_SIZE, SAMPLES, TIMES, drawn, given
from torch import nn

torch.set_num_threads(1)
LUCID_STEPS = 20


def recorded(network: nn.Module, labels: bool = False, prefix: str = "", channels: int = 3) -> dict:
    """Names, shapes, and the output for a few times."""
    shapes = {prefix + name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in drawn(shapes).items()})
    network.eval().requires_grad_(False)
    x, times, label = given(channels)
    out = network(x, times, label) if labels else network(x, times)
    return {"shapes": shapes, "output": rounded(out)}


def rounded(tensor: torch.Tensor) -> list[float]:
    """Its numbers, as precise as they are."""
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


def guided(folder: Path) -> dict:
    sys.path.insert(0, str(folder))
    from guided_diffusion.unet import UNetModel

    common = {"image_size": INPUT_SIZE, "in_channels": 3, "model_channels": 32, "num_res_blocks": 1}
    cases = {
        "adm-new": {
            "out_channels": 6,
            "attention_resolutions": (2, 4),
            "channel_mult": (1, 2, 2),
            "num_classes": 4,
            "num_head_channels": 16,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
            "use_new_attention_order": True,
        },
        "adm-legacy": {
            "out_channels": 3,
            "attention_resolutions": (2,),
            "channel_mult": (1, 2),
            "num_head_channels": 16,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
        },
        "improved-legacy": {
            "out_channels": 6,
            "attention_resolutions": (1, 2),
            "channel_mult": (1, 2, 3),
            "num_heads": 4,
            "use_scale_shift_norm": True,
        },
        # The 512 pixel models begin at half the base width.
        "half-first": {
            "out_channels": 3,
            "model_channels": 64,
            "attention_resolutions": (),
            "channel_mult": (0.5, 1, 1),
            "num_heads": 2,
        },
    }
    found = {}
    for name, case in cases.items():
        network = UNetModel(**{**common, **case})
        found[name] = recorded(network, labels="num_classes" in case)
        if name.startswith("adm"):
            found[name]["sampled"] = guided_samples(network, case)
    return found


def guided_samples(network: nn.Module, case: dict) -> list[float]:
    """Twenty steps of DDIM on their linear schedule, clipped."""
    from guided_diffusion import gaussian_diffusion as theirs
    from guided_diffusion.respace import SpacedDiffusion, space_timesteps

    learned = case["out_channels"] == 6
    diffusion = SpacedDiffusion(
        use_timesteps=space_timesteps(1000, "ddim20"),
        betas=theirs.get_named_beta_schedule("linear", 1000),
        model_mean_type=theirs.ModelMeanType.EPSILON,
        model_var_type=theirs.ModelVarType.LEARNED_RANGE if learned else theirs.ModelVarType.FIXED_LARGE,
        loss_type=theirs.LossType.MSE,
    )
    start, _, labels = given()
    told = {"y": labels[:SAMPLES]} if "num_classes" in case else {}
    shape = (SAMPLES, 3, INPUT_SIZE, INPUT_SIZE)
    samples = diffusion.ddim_sample_loop(
        network, shape, noise=start[:SAMPLES], model_kwargs=told, device="cpu", clip_denoised=True
    )
    return rounded(samples)


def ported(folder: Path) -> dict:
    spec = importlib.util.spec_from_file_location("pesser_model", folder / "pytorch_diffusion" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model(
        ch=32,
        out_ch=3,
        ch_mult=(1, 2, 2),
        num_res_blocks=1,
        attn_resolutions=(INPUT_SIZE // 2,),
        in_channels=3,
        resolution=INPUT_SIZE,
    )
    return {"ddpm-port": recorded(model)}


def lucid() -> dict:
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils", "accelerate"):
        sys.modules.setdefault(name, MagicMock(spec=ModuleType))
    sys.modules["accelerate"].Accelerator = object
    sys.modules["torchvision"].transforms, sys.modules["torchvision"].utils = MagicMock(), MagicMock()
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import GaussianDiffusion, Unet

    found = {}
    for name, unet, diffusion in (
        ("lucidrains", {"dim": 16, "dim_mults": (1, 2, 4)}, {"objective": "pred_v"}),
        (
            "lucidrains-full",
            {"dim": 16, "init_dim": 24, "dim_mults": (1, 2), "channels": 1, "full_attn": (True, False)}
            | {"attn_heads": (2, 4), "attn_dim_head": (8, 16)},
            {"objective": "pred_noise", "beta_schedule": "cosine", "min_snr_loss_weight": True, "timesteps": 40},
        ),
        ("lucidrains-x0", {"dim": 8, "dim_mults": (1,)}, {"objective": "pred_x0", "beta_schedule": "linear"}),
    ):
        network = Unet(**unet)
        whole = GaussianDiffusion(network, image_size=INPUT_SIZE, **diffusion)
        buffers = {key: tensor.tolist() for key, tensor in whole.named_buffers() if "." not in key}
        wanted = ("betas", "alphas_cumprod", "loss_weight")
        kept = {key: [float(f"{value:.9g}") for value in buffers[key]] for key in wanted}
        found[name] = {**recorded(network, prefix="model.", channels=network.channels), "buffers": kept}
        steps = GaussianDiffusion(network, image_size=INPUT_SIZE, **diffusion, sampling_timesteps=LUCID_STEPS)
        start = given(network.channels)[0][:SAMPLES]
        with patch("torch.randn", return_value=start):
            found[name]["sampled"] = rounded(2 * steps.ddim_sample(start.shape) - 1)
    return found


if __name__ == "__main__":
    result = {**guided(Path(sys.argv[1])), **ported(Path(sys.argv[2])), **lucid(), "times": TIMES}
    path = Path(__file__).parent / "recorded.json"
    path.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path, path.stat().st_size)
