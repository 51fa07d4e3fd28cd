"""What looks at pictures in place of a person: a frozen network that turns each into a row of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8, ValueRange, to_network, to_source

BATCH = 64


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network with all that must be known to compare its numbers.

    name        as in `--features`
    digest      SHA-256 of its weights
    dimensions  how many numbers it makes of a picture
    resize      what it does to the size of a picture
    remark      what its numbers may be compared with
    network     uint8 [B, C, H, W] on its device -> float32 [B, dimensions]
    """

    name: str
    digest: str
    dimensions: int
    resize: str
    remark: str
    network: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.no_grad()
    def features(self, batches: Iterator[Tensor]) -> Tensor:
        """Of uint8 batches [b, C, H, W]: float32 [n, dimensions] on the CPU.

        Raises SnowmeltError where a feature is not finite.
        """
        parts = [self.network(batch.to(self.device)).float().cpu() for batch in batches]
        found = torch.cat(parts) if parts else torch.zeros(0, self.dimensions)
        broken = int((~torch.isfinite(found)).any(1).sum())
        if broken:
            raise SnowmeltError(
                f"--features {self.name}: the features of {broken:,} of {len(found):,} images are not finite.",
                "Its weights are damaged: fetch them again.",
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "dimensions": self.dimensions,
            "resize": self.resize,
            "remark": self.remark,
        }


def eight_bit(pixels: Tensor, value_range: ValueRange) -> Tensor:
    """Stored pixels of any dtype as uint8: what is compared is what a PNG would hold."""
    return pixels if value_range == UINT8 else to_source(to_network(pixels, value_range), UINT8)


def three_channels(pixels: Tensor, name: str) -> Tensor:
    """uint8 [B, C, H, W] for a network that knows colour pictures only: grey is repeated, alpha is left out."""
    channels = pixels.shape[1]
    if channels > 4:
        raise SnowmeltError(
            f"--features {name} knows grey and colour pictures, and these have {channels} channels.",
            "Expected 1 to 4 channels. For others: --features fitted",
        )
    return pixels[:, :1].expand(-1, 3, -1, -1) if channels < 3 else pixels[:, :3]
