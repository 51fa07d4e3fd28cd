"""Writing samples: image files or an array, a grid to look at, and a line about each."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file, free_name, make_folder, quoted, write_text
from snowmelt.base.words import printable
from snowmelt.image.codec import UINT8, to_source
from snowmelt.image.grid import image_grid
from snowmelt.image.png import WRITABLE, save_png
from snowmelt.model.asked import Asked
from snowmelt.sampling.plan import SamplePlan
from snowmelt.training.progress import PLAIN_SECONDS

LIST, GRID = "samples.jsonl", "grid.png"
ON_GRID = 256
_OURS = re.compile(r"\d{6,}\.png|samples\.(jsonl|npy|npz)|grid\.png")


class SampleWriter:
    """Takes samples batch by batch and leaves a folder that says how each was made.

    form       png, npz or npy
    about      more for the record
    overwrite  whether a folder that already holds samples may be written into
    """

    def __init__(
        self,
        folder: Path,
        plan: SamplePlan,
        form: str,
        overwrite: bool,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        spec = plan.model.images
        if form == "png" and (spec.value_range.dtype, spec.channels) not in WRITABLE:
            raise SnowmeltError(
                f"A PNG cannot hold this model's images ({spec.channels} channels, {spec.value_range.dtype}).",
                "Add --format npz.",
            )
        # What lies there under our names: of an earlier call, or of somebody else's.
        there = [path.name for path in sorted(folder.glob("*")) if _OURS.fullmatch(path.name)]
        if there and not overwrite:
            what = "samples" if LIST in there else there[0]
            another = f"Choose another place, as in --out {quoted(free_name(folder))}, or add --overwrite."
            raise SnowmeltError(f"{folder} already holds {what}.", another)
        self._stale = _listed(folder) & set(there)
        self.folder, self.form, self._value_range = folder, form, spec.value_range
        self._about = {**plan.about, "model": plan.model.digest, **(about or {})}
        self._rows: list[dict[str, Any]] = []
        self._seeds: Sequence[int] = ()
        self._asked: Asked | None = None
        self._each: Sequence[Mapping[str, Any]] | None = None
        self._kept: list[np.ndarray[Any, Any]] = []
        self._grid: list[Tensor] = []

    def __enter__(self) -> SampleWriter:
        make_folder(self.folder)
        return self

    def track(
        self,
        batches: Iterable[Tensor],
        seeds: Sequence[int],
        asked: Asked,
        each: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Tensor]:
        """The batches one by one, with a progress bar on a terminal and a line every few seconds elsewhere.

        each  what is recorded of a sample in place of its seed
        """
        self._seeds, self._asked, self._each = seeds, asked, each
        console = Console(file=sys.stdout, highlight=False)
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
        done, last = 0, time.monotonic()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=len(seeds))
            for images in batches:
                done += len(images)
                progress.advance(task, len(images))
                if not console.is_terminal and done < len(seeds) and time.monotonic() - last >= PLAIN_SECONDS:
                    last = time.monotonic()
                    print(f"{done:,} of {len(seeds):,} images", flush=True)
                yield images

    def add(self, x: Tensor) -> None:
        """Write samples in [-1, 1], [b, C, H, W]."""
        images = to_source(x, self._value_range)
        if sum(map(len, self._grid)) < ON_GRID:
            self._grid.append(to_source(x, UINT8))
        if self.form != "png":
            self._kept.append(images.permute(0, 2, 3, 1).contiguous().numpy())
        for image in images:
            number = len(self._rows)
            own = {"seed": self._seeds[number]} if self._each is None else self._each[number]
            row: dict[str, Any] = {"file": self._name(number), **own, **self._about}
            if self._asked is not None:
                row |= self._asked.record(number)
            if self.form == "png":
                text = {key: printable(str(value)) for key, value in row.items() if key != "file"}
                save_png(self.folder / row["file"], _channels_last(image), text)
            self._rows.append(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was drawn is listed, even if sampling was cut short; what it replaces is removed last."""
        if not self._rows:
            return
        if len(self._rows) < len(self._seeds):
            print(f"{len(self._rows):,} of {len(self._seeds):,} images are in {self.folder}.")
        if self.form != "png":
            self._save_array(np.concatenate(self._kept))
        shown = torch.cat(self._grid)[:ON_GRID]
        save_png(self.folder / GRID, image_grid(shown))
        write_text(self.folder / LIST, "".join(json.dumps(row) + "\n" for row in self._rows))
        for name in self._stale - {row["file"] for row in self._rows}:
            (self.folder / name).unlink(missing_ok=True)

    def _name(self, number: int) -> str:
        return f"{number:06d}.png" if self.form == "png" else f"samples.{self.form}"

    def _save_array(self, array: np.ndarray[Any, Any]) -> None:
        with atomic_file(self.folder / f"samples.{self.form}") as temporary, temporary.open("wb") as file:
            if self.form == "npy":
                # Given a file itself, NumPy writes past Python and does not say that a disk is full.
                writer: Any = SimpleNamespace(write=file.write)
                np.save(writer, array)
            elif self._asked is None or self._asked.labels is None:
                np.savez_compressed(file, array)
            else:
                np.savez_compressed(file, array, np.array(self._asked.labels[: len(array)]))


def grid_drawn_by(folder: Path, digest: str) -> Path | None:
    """The grid of the samples in a folder, if the model with these weights drew them all."""
    return folder / GRID if _of_list(folder, "model") == {digest} else None


def _listed(folder: Path) -> set[str]:
    """The files that an earlier list of samples names; only those are ours to remove."""
    return _of_list(folder, "file")


def _of_list(folder: Path, key: str) -> set[str]:
    """What the list of samples says under a key; nothing where there is none, or one that is not ours."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
        return {str(json.loads(line)[key]) for line in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _channels_last(image: Tensor) -> np.ndarray[Any, Any]:
    return image.permute(1, 2, 0).numpy()
