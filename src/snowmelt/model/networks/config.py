"""What a network is made of, as plain frozen data that travels in a model's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from snowmelt.base.errors import SnowmeltError, unknown_name

TimeConvention = Literal["ddpm", "adm", "vaswani", "fourier"]
Resampling = Literal["conv-asymmetric", "conv", "resblock"]
DecoderAttention = Literal["all", "last"]
Initialization = Literal["ddpm", "adm", "edm", "lecun"]

# No published network comes near these; a number beyond them is a slip of the keyboard or a hostile file.
MAX_WIDTH = 16_384
MAX_DEPTH = 256
MAX_CLASSES = 1_000_000
MAX_LEVELS = 10


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What every network has: the two ends, and the conditions that it can be given.

    in_channels     channels of the noisy image
    out_channels    channels of the output (twice the image's where the variance is learned)
    num_classes     number of classes a label may have; 0: the network takes no label
    value_dim       length of the vector of continuous values; 0: none
    augment_dim     length of the vector that says how a training image was augmented; 0: none
    image_channels  channels of a conditioning image, concatenated to the input; 0: none
    dropout         probability that a hidden activation is dropped in training
    """

    in_channels: int = 3
    out_channels: int = 3
    num_classes: int = 0
    value_dim: int = 0
    augment_dim: int = 0
    image_channels: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        self._within("in_channels", 1, MAX_WIDTH)
        self._within("out_channels", 1, MAX_WIDTH)
        self._within("num_classes", 0, MAX_CLASSES)
        for name in ("value_dim", "augment_dim", "image_channels"):
            self._within(name, 0, MAX_WIDTH)
        if not 0 <= self.dropout < 1:
            raise SnowmeltError(f"dropout is a probability in [0, 1), not {self.dropout}.")

    def _within(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                raise SnowmeltError(f"{name} must be between {low} and {high}, not {number}.")

    def _check_types(self) -> None:
        """A configuration may come from a file, so its types are checked when it is made."""
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                raise SnowmeltError(f"{name} must be {_describe(hint)}, not {value!r}.")


@dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig):
    """The U-Net of Ho et al. 2020, of Dhariwal & Nichol 2021, of Karras et al. 2022 (DDPM++), or between them.

    channels             channels at full resolution
    multipliers          one factor on `channels` a level; each further level has half the resolution
    blocks               residual blocks a level in the encoder; the decoder has one more
    attention            levels with self-attention, 0 = full resolution
    decoder_attention    attention after "all" of such a level's decoder blocks or the "last" one only (EDM)
    middle_attention     attention between the two residual blocks at the bottom
    heads                attention heads, unless head_channels is given
    head_channels        channels a head; the number of heads then grows with the width (ADM)
    time                 how the noise level is turned into sinusoids (see embedding.py)
    time_channels        number of sinusoids; None: `channels`
    embedding_channels   width of the noise embedding; None: 4 `channels`
    condition_first      True: conditions join the sinusoids before the embedding MLP (EDM); False: its output (ADM)
    max_groups           GroupNorm's groups: the largest divisor of the channels up to this many,
    min_group_channels   and with at least this many channels each. 1 would make it an instance norm where there are
                         few channels, which removes a noise embedding that is added before it
    norm_eps             GroupNorm's epsilon
    scale_shift          the embedding scales and shifts the second norm (ADM) instead of being added before it
    skip_scale           factor on every residual sum (DDPM++: sqrt(1/2))
    resample             "conv-asymmetric": stride-2 conv padded right and below, nearest + conv (DDPM);
                         "conv": the same, padded on all sides (iDDPM); "resblock": 2x2 mean and nearest inside residual
                         blocks (ADM, DDPM++)
    resample_projection  a resampling block's shortcut has a 1x1 convolution even where the width stays (DDPM++)
    init                 weights at the start: "ddpm", "adm", "edm" or "lecun" (see init.py)
    patch_size           p > 1: p x p pixels are folded into channels at the input and back at the output, so
                         nothing is computed at full resolution
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    decoder_attention: DecoderAttention = "all"
    middle_attention: bool = True
    heads: int = 1
    head_channels: int | None = None
    time: TimeConvention = "ddpm"
    time_channels: int | None = None
    embedding_channels: int | None = None
    condition_first: bool = False
    max_groups: int = 32
    min_group_channels: int = 4
    norm_eps: float = 1e-6
    scale_shift: bool = False
    skip_scale: float = 1.0
    resample: Resampling = "conv-asymmetric"
    resample_projection: bool = False
    init: Initialization = "ddpm"
    patch_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "multipliers", "heads", "max_groups", "min_group_channels"):
            self._within(name, 1, MAX_WIDTH)
        self._within("blocks", 1, MAX_DEPTH)
        self._within("patch_size", 1, 64)
        for name in ("head_channels", "time_channels", "embedding_channels"):
            if getattr(self, name) is not None:
                self._within(name, 1, MAX_WIDTH)
        if not 1 <= len(self.multipliers) <= MAX_LEVELS:
            raise SnowmeltError(f"multipliers must name 1 to {MAX_LEVELS} levels, not {len(self.multipliers)}.")
        if any(not 0 <= level < len(self.multipliers) for level in self.attention):
            raise SnowmeltError(
                f"attention names levels from 0 to {len(self.multipliers) - 1}, not {list(self.attention)}."
            )
        if not 0 < self.norm_eps < 1:
            raise SnowmeltError(f"norm_eps must be between 0 and 1, not {self.norm_eps}.")
        if not 0 < self.skip_scale <= 1:
            raise SnowmeltError(f"skip_scale must be above 0 and at most 1, not {self.skip_scale}.")
        for level, width in enumerate(self.widths):
            if width > MAX_WIDTH:
                raise SnowmeltError(f"level {level} would have {width} channels; at most {MAX_WIDTH} are allowed.")
            attends = level in self.attention or (self.middle_attention and level == len(self.widths) - 1)
            if attends and width % (self.head_channels or self.heads):
                unit = f"head_channels ({self.head_channels})" if self.head_channels else f"heads ({self.heads})"
                raise SnowmeltError(f"{unit} must divide the {width} channels of level {level}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return self.patch_size << (len(self.multipliers) - 1)

    def heads_of(self, width: int) -> int:
        """Number of attention heads where there are `width` channels."""
        return width // self.head_channels if self.head_channels else self.heads


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(NetworkConfig):
    """The diffusion transformer of Peebles & Xie 2023, with normalised queries and keys.

    patch_size  side of the square of pixels that makes one token
    width       channels of a token, a multiple of 4 (two axes, sine and cosine)
    depth       number of blocks
    heads       attention heads; they divide the width
    mlp_ratio   hidden width of a block's MLP over `width`
    """

    patch_size: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within("patch_size", 1, 64)
        self._within("width", 4, MAX_WIDTH)
        self._within("depth", 1, MAX_DEPTH)
        self._within("heads", 1, MAX_WIDTH)
        if self.width % 4 or self.width % self.heads:
            raise SnowmeltError(f"width must be a multiple of 4 and of heads ({self.heads}), not {self.width}.")
        if not 0 < self.mlp_ratio <= 64:
            raise SnowmeltError(f"mlp_ratio must be above 0 and at most 64, not {self.mlp_ratio}.")


@dataclass(frozen=True, kw_only=True)
class LinearUNetConfig(NetworkConfig):
    """The U-Net of lucidrains' denoising-diffusion-pytorch: RMS norms, and attention linear in the number of pixels.

    time_channels  number of sinusoids; the embedding has four times as many
    widths         channels at full resolution, at each level below it, and in the middle
    heads          attention heads at each level; the middle has the last
    head_channels  channels of each head, likewise
    full           levels with ordinary attention; the middle has it always
    memory         learned keys and values of each attention
    """

    time_channels: int = 64
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    heads: tuple[int, ...] = (4, 4, 4, 4)
    head_channels: tuple[int, ...] = (32, 32, 32, 32)
    full: tuple[int, ...] = (3,)
    memory: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("time_channels", "widths", "heads", "head_channels"):
            self._within(name, 1, MAX_WIDTH)
        self._within("memory", 0, MAX_WIDTH)
        levels = len(self.widths) - 1
        if not 1 <= levels <= MAX_LEVELS or (len(self.heads), len(self.head_channels)) != (levels, levels):
            raise SnowmeltError(f"widths must be one more than heads and head_channels, of 1 to {MAX_LEVELS} levels.")
        if any(not 0 <= level < levels for level in self.full):
            raise SnowmeltError(f"full names levels from 0 to {levels - 1}, not {list(self.full)}.")
        if self.num_classes or self.value_dim or self.image_channels or self.augment_dim:
            raise SnowmeltError("A linear-unet is told the noise level only: no class, value, image or augmentation.")

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return 1 << (len(self.widths) - 2)


AnyConfig = UNetConfig | TransformerConfig | LinearUNetConfig
KINDS: dict[str, type[UNetConfig] | type[TransformerConfig] | type[LinearUNetConfig]] = {
    "unet": UNetConfig,
    "transformer": TransformerConfig,
    "linear-unet": LinearUNetConfig,
}


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """The configuration as JSON values, with its "kind"; `config_from_dict` is the inverse."""
    kind = next(name for name, cls in KINDS.items() if type(config) is cls)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return {"kind": kind, **values}


def config_from_dict(values: Mapping[str, Any]) -> AnyConfig:
    """The configuration that `values` describe; keys left out take their defaults.

    Raises SnowmeltError naming the key that is unknown, of the wrong type, or out of range.
    """
    kind = values.get("kind")
    if not isinstance(kind, str):
        raise SnowmeltError(f"A network needs a 'kind', one of {', '.join(KINDS)}; found {kind!r}.")
    if kind not in KINDS:
        raise unknown_name("kind of network", kind, KINDS)
    cls = KINDS[kind]
    known = [field.name for field in fields(cls)]
    for key in values:
        if key not in known and key != "kind":
            raise unknown_name(f"setting of a {kind} network:", str(key), known)
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "kind"
    }
    return cls(**settings)


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`, one of those that the configurations above use."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    """`hint` in words, for an error message."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) is UnionType:
        return " or ".join(_describe(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of whole numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}[hint]
