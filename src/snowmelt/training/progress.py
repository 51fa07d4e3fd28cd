"""What a person sees while a model trains: a live line on a terminal, a plain one every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import disk_errors
from snowmelt.training.distributed import World

PLAIN_SECONDS, READING_SECONDS = 5.0, 3.0


@dataclass(frozen=True)
class Standing:
    """Where training stands.

    part          share of the budget that is spent, 0 to 1
    flop_per_second, peak  of training, and of matrix products on its devices; None while they are not known
    seconds_left  estimate, or None while there is none
    """

    step: int
    images: int
    part: float
    loss: float | None
    images_per_second: float | None
    seconds_left: float | None
    flop_per_second: float | None = None
    peak: float | None = None

    def __str__(self) -> str:
        loss = "-" if self.loss is None else f"{self.loss:.4f}"
        rate = "-" if self.images_per_second is None else f"{self.images_per_second:,.0f}"
        return (
            f"step {self.step:,}  {self.images:,} images  loss {loss}  {rate} images/s{self._arithmetic()}  "
            f"{duration(self.seconds_left)} left"
        )

    def _arithmetic(self) -> str:
        if self.flop_per_second is None or self.peak is None:
            return ""
        unit, name = (1e12, "TFLOP/s") if self.peak >= 1e12 else (1e9, "GFLOP/s")
        return f"  {self.flop_per_second / unit:,.0f} of {self.peak / unit:,.0f} {name}"


class Reporter:
    """Speaks to the user and to the run's log.txt."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, tensorboard: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet
        self._board = BoardWriter() if tensorboard else None
        self.leads = True
        self._log: Path | None = None
        self._early: list[str] = []
        self._last = 0.0
        self._read: float | None = None
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True, emoji=False)
        self._live: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._live = Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=self._console)
            self._task = self._live.add_task("starting", total=1.0)

    def follow(self, world: World) -> None:
        """Be silent in every process but the first."""
        self.leads = world.leads
        if not world.leads:
            self._quiet, self._live, self._board = True, None, None

    def open_log(self, path: Path) -> None:
        """From now on notes also go to this file; those so far are put into it."""
        if not self.leads:
            return
        self._log = path
        if self._board is not None:
            self._board.open(path.parent / "tensorboard")
        self._write(self._early)
        self._early = []

    def note(self, text: str) -> None:
        """Tell the user a sentence."""
        if self._log is None:
            self._early.append(text)
        else:
            self._write([text])
        if not self._quiet:
            self._console.print(text, markup=False)

    def show(self, standing: Standing, last: bool = False) -> None:
        """Show where training stands, if it is time to."""
        if self._quiet:
            return
        if self._live is not None:
            if not self._live.live.is_started:
                self._live.start()
            self._live.update(self._task, completed=standing.part, description=str(standing))
            return
        now = time.monotonic()
        if last or now - self._last >= PLAIN_SECONDS:
            self._last = now
            print(f"{standing.part:4.0%}  {standing}", file=self._stream, flush=True)

    def passing(self, text: str) -> None:
        """Tell the user something that is not worth keeping."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def reading(self, done: int, total: int) -> None:
        """Tell how much of the data has been read, where that takes long enough to be told."""
        now = time.monotonic()
        self._read = now if self._read is None else self._read
        if now - self._read >= READING_SECONDS:
            self._read = now
            self.passing(f"reading images: {done / total:.0%}")

    def resumed(self, step: int) -> None:
        """Forget rows of later steps."""
        if self._board is not None:
            self._board.resumed = step

    def row(self, row: dict[str, Any]) -> None:
        """Pass a row of metrics on to TensorBoard, if that was asked for."""
        if self._board is not None:
            self._board.add(row)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._board is not None:
            self._board.close()
        if self._live is not None and self._live.live.is_started:
            self._live.stop()

    def _write(self, lines: list[str]) -> None:
        if self._log is not None and lines:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with disk_errors(self._log), self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{stamp}  {line}\n" for line in lines)


class BoardWriter:
    """A run's metrics as TensorBoard events, in `tensorboard/` of its folder.

    resumed  the step that the run was resumed at; 0 for a new one
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SnowmeltError(
                "--log tensorboard needs TensorBoard, which is not installed.", "pip install 'snowmelt[log]'"
            ) from error
        self._make = SummaryWriter
        self.resumed = 0
        self._folder = Path()
        self._writer: Any = None

    def open(self, folder: Path) -> None:
        """Write into this folder."""
        self._folder = folder

    def add(self, row: dict[str, Any]) -> None:
        """Write every number of a row under its name."""
        if self._writer is None:
            # What a killed process wrote of later steps is not shown any more.
            self._writer = self._make(str(self._folder), purge_step=self.resumed + 1)
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush what has been written."""
        if self._writer is not None:
            self._writer.close()


def duration(seconds: float | None) -> str:
    """Seconds as h:mm:ss, or m:ss under an hour."""
    if seconds is None:
        return "?"
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
