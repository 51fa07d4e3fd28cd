"""The networks that published numbers are measured with: Inception-v3 and DINOv2.

Inception is torch-fidelity's, made of the weights of the original release (Heusel et al. 2017; Obukhov et al. 2020).
DINOv2 is timm's, with the resizing that torch-fidelity does before it (Oquab et al. 2023; Stein et al. 2023). Weights
are read as plain tensors: nothing in such a file is ever executed.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.base.files import disk_errors
from snowmelt.data.cache import user_cache
from snowmelt.evaluation.features.extractor import Extractor, three_channels
from snowmelt.evaluation.features.network import frozen

EXTRA = "fid"
FOLDER = "features"  # in the user's cache
DINO_SIDE, DINO_PATCH = 224, 14
DINO_OFFSET = 0.1  # added to the number of patches when positions are interpolated, as in the release of DINOv2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_MODELS = {384: "vit_small_patch14_dinov2", 768: "vit_base_patch14_dinov2", 1024: "vit_large_patch14_dinov2"}
REMARK = "comparable with published numbers of the same network, resizing, number of images and reference set"


@dataclass(frozen=True)
class Published:
    """Weights that can be fetched: their file and address, and how the SHA-256 of it begins (empty: not published)."""

    file: str
    address: str
    sha256: str = ""

    def found(self) -> Path | None:
        """Where they are, if they are on this machine: in our cache or in that of torch.hub."""
        places = (user_cache() / FOLDER, Path(torch.hub.get_dir()) / "checkpoints")
        return next((place / self.file for place in places if (place / self.file).is_file()), None)

    def path(self, name: str) -> Path:
        """The same, fetched where they are not. Raises SnowmeltError with address and hash where that fails."""
        there = self.found()
        if there is not None:
            return there
        target = user_cache() / FOLDER / self.file
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(self.address, str(target), self.sha256 or None, progress=False)
        except (urllib.error.URLError, RuntimeError, OSError) as error:
            known = f" (SHA-256 {self.sha256}...)" if self.sha256 else ""
            raise SnowmeltError(
                f"--features {name}: its weights are not on this machine and cannot be fetched: {error}.",
                f"Fetch {self.address}{known} elsewhere, then: --features PATH/{self.file}",
            ) from error
        return target


INCEPTION = Published(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
)
DINOV2 = Published(
    "dinov2_vitb14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth"
)


def inception(device: torch.device) -> Extractor:
    """`--features inception`: 2,048 numbers before the last layer; what "FID" means."""
    extra_module("torch_fidelity", EXTRA, "--features inception")  # before anything is fetched
    return of_weights(INCEPTION.path("inception"), device)


def dinov2(device: torch.device) -> Extractor:
    """`--features dinov2`: the 768 numbers of ViT-B/14's class token."""
    extra_module("torch_fidelity", EXTRA, "--features dinov2")
    extra_module("timm", EXTRA, "--features dinov2")
    return of_weights(DINOV2.path("dinov2"), device)


def of_weights(path: Path, device: torch.device) -> Extractor:
    """The network whose published weights a file holds: what it is is seen from the names in it.

    Raises SnowmeltError where it is neither, or is damaged.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # what is no such file fails in the reader in any way whatever
        raise SnowmeltError(
            f"--features {path}: this file cannot be read as weights ({type(error).__name__}).",
            "Expected the published weights of Inception or DINOv2, or a network that `snowmelt eval` has written.",
        ) from error
    if isinstance(weights, Mapping) and "Mixed_7c.branch_pool.conv.weight" in weights:
        network = _inception_of(weights, path)
        return _extractor("inception", digest, 2048, "to 299 x 299, bilinear as in TensorFlow 1", network, device)
    if isinstance(weights, Mapping) and {"cls_token", "blocks.0.ls1.gamma"} <= weights.keys():
        network, width = _dino_of(weights, path)
        return _extractor("dinov2", digest, width, "to 224 x 224, bilinear as in TensorFlow 1", network, device)
    raise SnowmeltError(
        f"--features {path}: these are weights of neither Inception-v3 nor DINOv2.",
        f"Expected {INCEPTION.file} or a dinov2_vit*14_pretrain.pth.",
    )


def _extractor(
    name: str, digest: str, dimensions: int, resize: str, network: nn.Module, device: torch.device
) -> Extractor:
    module = frozen(network).to(device)
    return Extractor(name, digest, dimensions, resize, REMARK, lambda x: module(three_channels(x, name)), device)


class _First(nn.Module):
    """A network of torch-fidelity, which gives a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x)[0]
        return found


def _inception_of(weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    library = extra_module("torch_fidelity", EXTRA, f"--features {path}")
    # The library would unpickle the file whatever is in it: it is given what has been read as tensors.
    with tempfile.TemporaryDirectory() as folder:
        safe = Path(folder) / "weights.pth"
        torch.save(dict(weights), safe)
        with _fitting(path):
            return _First(library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(safe)))


class _Dino(nn.Module):
    """uint8 [B, 3, H, W] -> the class token [B, d], with torch-fidelity's resizing."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, resize: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.resize = network, resize
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resize(x.float(), size=(DINO_SIDE, DINO_SIDE), align_corners=False)
        found: Tensor = self.network((x - self.mean) / self.std)
        return found


def _dino_of(weights: Mapping[str, Tensor], path: Path) -> tuple[nn.Module, int]:
    timm = extra_module("timm", EXTRA, f"--features {path}")
    extra_module("torch_fidelity", EXTRA, f"--features {path}")
    resizing = extra_module("torch_fidelity.interpolate_compat_tensorflow", EXTRA, f"--features {path}")
    with _fitting(path):
        width = weights["cls_token"].shape[-1]
        if width not in DINO_MODELS:
            raise SnowmeltError(f"--features {path}: DINOv2 of width {width} is not known.", "Expected S, B or L.")
        network = timm.create_model(DINO_MODELS[width], pretrained=False, num_classes=0, img_size=DINO_SIDE)
        kept = {key: value for key, value in weights.items() if key not in ("mask_token", "pos_embed")}
        network.load_state_dict({**kept, "pos_embed": _positions(weights["pos_embed"])})
    return _Dino(network, resizing.interpolate_bilinear_2d_like_tensorflow1x), width


def _positions(learned: Tensor) -> Tensor:
    """Positions of the class token and a square of patches, [1, 1 + n^2, d], for the patches of DINO_SIDE."""
    token, patches = learned[:, :1], learned[:, 1:]
    before, after = math.isqrt(patches.shape[1]), DINO_SIDE // DINO_PATCH
    square = patches.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    if before != after:
        scale = (after + DINO_OFFSET) / before
        square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, square.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """A network that refuses the weights is the file's fault."""
    try:
        yield
    except (RuntimeError, KeyError, AttributeError) as error:
        raise SnowmeltError(
            f"--features {path}: the weights do not fit their network.", "The file is incomplete: fetch it again."
        ) from error
