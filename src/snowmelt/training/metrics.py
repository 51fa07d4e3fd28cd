"""What a run writes down: one JSON line every so many steps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.device import widest
from snowmelt.base.files import atomic_file, disk_errors
from snowmelt.training.distributed import World

QUARTERS = 4


class Meters:
    """Running sums on the training device; nothing is read back before a row is written.

    Sums are of float64 where the device has it.
    Quarters divide a batch by where its noise levels fall in the training density, from clean to noise.
    """

    def __init__(self, device: torch.device) -> None:
        self.dtype = widest(device)
        self.sums = torch.zeros(QUARTERS, device=device, dtype=self.dtype)
        self.counts = torch.zeros(QUARTERS, device=device, dtype=self.dtype)
        # Sum of the gradient norm over the steps that were taken; their number; the number skipped; skipped in a row.
        self.steps = torch.zeros(4, device=device, dtype=self.dtype)

    @torch.no_grad()
    def add_losses(self, losses: Tensor, quarter: Tensor) -> None:
        """Add per-sample losses [B] that fell into the given quarters [B] int64; those not finite are left out."""
        finite = torch.isfinite(losses)
        self.sums.index_add_(0, quarter, losses.to(self.dtype).nan_to_num(0.0, 0.0, 0.0))
        self.counts.index_add_(0, quarter, finite.to(self.dtype))

    @torch.no_grad()
    def add_step(self, norm: Tensor, skipped: Tensor) -> None:
        """Add one step's gradient norm, and whether it was skipped."""
        taken = 1 - skipped
        self.steps[0] += norm.nan_to_num(0.0, 0.0, 0.0) * taken
        self.steps[1] += taken
        self.steps[2] += skipped
        self.steps[3] = (self.steps[3] + 1) * skipped

    def gather(self, world: World) -> None:
        """Give the leading process the sums of all; the others begin anew."""
        for tensor in (self.sums, self.counts):
            world.sum(tensor)
            if not world.leads:
                tensor.zero_()

    @property
    def skipped_in_row(self) -> int:
        """How many of the latest steps were skipped without one between (waits for the device)."""
        return int(self.steps[3])

    def read(self) -> tuple[dict[str, float | None], int]:
        """(loss, loss_q0 ... loss_q3, grad_norm; steps skipped since the last reading), and start anew."""
        sums, counts, (norm, taken, skipped, _) = self.sums.tolist(), self.counts.tolist(), self.steps.tolist()
        row: dict[str, float | None] = {"loss": _ratio(sum(sums), sum(counts))}
        row |= {f"loss_q{i}": _ratio(sums[i], counts[i]) for i in range(QUARTERS)}
        row["grad_norm"] = _ratio(norm, taken)
        self.sums.zero_()
        self.counts.zero_()
        self.steps[:3] = 0
        return row, int(skipped)

    def state(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint between two rows."""
        return {"sums": self.sums, "counts": self.counts, "steps": self.steps}

    def load_state(self, state: dict[str, Tensor], world: World) -> None:
        """The inverse of `state`, which holds the sums of all processes together: they are the leading one's now."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        if not world.leads:
            self.sums.zero_()
            self.counts.zero_()


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


class MetricsFile:
    """`metrics.jsonl`, appended a line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: dict[str, Any]) -> None:
        """Write one row; it is on its way to the disk when this returns."""
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_back(self, step: int) -> None:
        """Drop the rows after `step`, which a resumed run writes again, and lines that are not whole."""
        rows = [row for row in read_metrics(self.path) if row.get("step", 0) <= step]
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; lines that are not whole, as the last one may be, are left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no UTF-8
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
