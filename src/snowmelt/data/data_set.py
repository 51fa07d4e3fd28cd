"""A data set that is ready to train on: its pictures, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.images import Images
from snowmelt.data.report import ScanReport
from snowmelt.image.codec import ValueRange, to_network
from snowmelt.model.condition import Condition
from snowmelt.model.condition_spec import ConditionSpec


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures, and what is known of each.

    images  [n, C, H, W] uint8, uint16 or float32
    labels  [n] int64, indices into the class names, or None
    values  [n, V] float64 in the user's units, or None
    pairs   [n, C', H, W]: the picture that each is to be made from, or None
    named   what picture i is called: a relative POSIX path or a number
    """

    images: Images
    labels: Tensor | None = None
    values: Tensor | None = None
    pairs: Images | None = None
    named: Callable[[int], str] = str

    @property
    def resident(self) -> bool:
        """Whether to take pictures costs no more than to copy them."""
        return self.images.resident and (self.pairs is None or self.pairs.resident)

    def take(self, places: Tensor, spec: ConditionSpec) -> tuple[Tensor, Condition | None]:
        """Pictures [b, C, H, W] by places [b] and what the network is told of them, nothing withheld.

        In place of one that turns out to be unreadable, or whose pair does, stands the next with all that is its own.
        """
        places = places.clone()
        pixels, paired, failed = self._attempt(places)
        for _ in range(len(self.images)):
            if not failed:
                break
            places[failed] = (places[failed] + 1) % len(self.images)
            pixels[failed], instead, again = self._attempt(places[failed])
            if paired is not None and instead is not None:
                paired[failed] = instead
            failed = [failed[place] for place in again]
        if failed:
            raise SnowmeltError("No image can be read together with its pair any more.")
        return pixels, self.condition(places, spec, paired)

    def _attempt(self, places: Tensor) -> tuple[Tensor, Tensor | None, list[int]]:
        """Pictures, their pairs, and which of them cannot be used."""
        pixels, failed = self.images.attempt(places)
        if self.pairs is None:
            return pixels, None, failed
        paired, more = self.pairs.attempt(places)
        return pixels, paired, sorted({*failed, *more})

    def condition(self, places: Tensor, spec: ConditionSpec, paired: Tensor | None = None) -> Condition | None:
        """What the network is told of some of them, nothing withheld; None where nothing is known.

        paired  their pairs, where they are at hand
        """
        if self.pairs is not None and paired is None:
            paired = self.pairs[places]
        if self.labels is None and self.values is None and paired is None:
            return None
        return Condition(
            label=None if self.labels is None else self.labels[places],
            values=None if self.values is None else spec.normalised(self.values[places]),
            image=None if paired is None or spec.pair is None else to_network(paired, spec.pair.value_range),
        )


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in the dtype of its source; `snowmelt.image.codec.to_network` makes [-1, 1] of it.

    training     what is trained on
    holdout      never trained on; may be empty
    value_range  what the stored values mean
    conditions   what the values and the pairs mean
    fingerprint  of all that is trained on: a resumed run checks that it is the same
    known_by     what images, those of a test split and pairs were told apart by, for the fingerprint and for what is
                 held out: see data.decoded
    """

    name: str
    training: Split
    holdout: Split
    class_names: tuple[str, ...] | None
    value_range: ValueRange
    conditions: ConditionSpec
    report: ScanReport
    fingerprint: str
    known_by: Mapping[str, str] = field(default_factory=dict)
