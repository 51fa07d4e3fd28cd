"""What a network is told besides the image and the noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Conditions of a batch; each is optional, per sample, and absent where it is None.

    label         [B] int64: class indices
    values        [B, V] float32: continuous values
    image         [B, C, H, W] float32 in [-1, 1]: an image to start from (super-resolution, colourisation)
    augmentation  [B, A] float32: what was done to the training image; zero means "nothing" (Karras et al. 2022)
    null          [B] bool: True where label, values and image are withheld (classifier-free guidance,
                  Ho & Salimans 2022); None withholds nothing. The augmentation is never withheld.
    """

    label: Tensor | None = None
    values: Tensor | None = None
    image: Tensor | None = None
    augmentation: Tensor | None = None
    null: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """Apply `function` to every tensor that is present."""
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return Condition(**{name: None if value is None else function(value) for name, value in present.items()})

    def __getitem__(self, index: slice | Tensor) -> Condition:
        """The conditions of some of the samples."""
        return self.map(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> Condition:
        """The same conditions on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def withheld(self, batch: int, device: torch.device) -> Condition:
        """The same conditions with all of them withheld: what guidance compares with."""
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return Condition(**{**present, "null": torch.ones(batch, dtype=torch.bool, device=device)})


def stack(conditions: list[Condition], sizes: list[int], device: torch.device) -> Condition:
    """Concatenate the conditions of several batches of the given sizes; all must carry the same fields."""
    joined: dict[str, Tensor | None] = {}
    for field in fields(Condition):
        parts = [getattr(condition, field.name) for condition in conditions]
        if all(part is None for part in parts):
            joined[field.name] = None
        elif field.name == "null":
            blank = [torch.zeros(size, dtype=torch.bool, device=device) for size in sizes]
            joined["null"] = torch.cat([b if part is None else part for b, part in zip(blank, parts, strict=True)])
        elif any(part is None for part in parts):
            raise ValueError(f"some of the conditions to stack have no {field.name}")
        else:
            joined[field.name] = torch.cat(parts)
    return Condition(**joined)
