"""The rows of a result file as markdown tables, a plot and a picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.time_to_quality import data, pictures
from benchmarks.time_to_quality.row import sampled

# What makes a row one of its own; rows of different protocols must not be compared.
PROTOCOL = ("against", "judge_sha256", "n")
KEY = ("system", "options", "minutes", "seed", "rate", "evaluations", *PROTOCOL)
MATMUL = [f"matmul_{when}_{what}" for what in ("training", "sampling") for when in ("before", "after")]
STEADY = 1.15  # the most that the machine's speed may change within a table, without a warning


def drawing_seconds(row: dict) -> float:
    """What its images took, without imports and loading; in old rows of peers with them."""
    return row.get("draw_s", row["sample_s"])


def taken(row: dict) -> int:
    """Evaluations that its sampler took: guidance may leave a few of those that it might."""
    return row.get("evaluations_taken", row["evaluations"])


def read(path: Path) -> list[dict]:
    """The rows of a result file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def name(row: dict) -> str:
    """What a training is called."""
    rate = "" if row["rate"] is None else f"-rate{row['rate']:g}"
    return f"{row['system']}{rate}-{row['minutes']:g}min-seed{row['seed']}"


def folder(cache: Path, row: dict) -> Path:
    """Where its log and samples are."""
    return cache / f"{name(row)}-{row['against']}-{row['judge']}"


def write(rows: list[dict], asked: list[str] | None, cache: Path, out: Path) -> None:
    """Print the tables of each protocol and draw its pictures.

    asked  the systems to show; the first of them is what the others are compared with. None: all, as they were run
    """
    names = asked or list(dict.fromkeys(row["system"] for row in rows))
    rows = [row for row in rows if row["system"] in names]
    for protocol in dict.fromkeys(tuple(row[part] for part in PROTOCOL) for row in rows):
        chosen = [row for row in rows if tuple(row[part] for part in PROTOCOL) == protocol]
        against, _, n = protocol
        of = "10,000 test images" if against == "test" else "5,000 held-out training images"
        print(f"\n{n:,} samples against {of}, judged by {chosen[0]['judge']}")
        print(f"\n{summary(chosen, names)}\n\n{table(chosen)}")
        print("".join(f"\n{sentence}" for sentence in warnings(chosen)))
        for path in draw(chosen, names, cache, out):
            print(path)


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that differ in their seed only.

    first  those of the system that it is compared with, of as many evaluations where it has them
    tuned  whether its learning rate is the best of several
    """

    system: str
    rows: list[dict]
    first: list[dict]
    tuned: bool = False

    @property
    def label(self) -> str:
        """What it is called."""
        return self.system + ", tuned" * self.tuned

    @property
    def repeats(self) -> bool:
        """Whether it is the best of several rates, and that is the recipe's own, which has a line already."""
        return self.tuned and self.head["rate"] is None

    @cached_property
    def head(self) -> dict:
        """The row of the first seed."""
        return min(self.rows, key=lambda row: row["seed"])

    def mean(self, value: Callable[[dict], float]) -> float:
        """Over the seeds."""
        return statistics.fmean(map(value, self.rows))

    def spread(self, value: Callable[[dict], float]) -> float:
        """Standard deviation over the seeds; 0 for one."""
        return statistics.stdev(map(value, self.rows)) if len(self.rows) > 1 else 0.0

    def text(self, key: str, digits: int, factor: float = 1) -> str:
        """Mean ± spread."""

        def value(row: dict) -> float:
            return factor * row[key]

        plain = f"{self.mean(value):.{digits}f}"
        return f"{plain} ± {self.spread(value):.{digits}f}" if len(self.rows) > 1 else plain

    def difference(self, key: str, digits: int, factor: float = 1) -> str:
        """From the first system, paired by seed: the mean ± its standard error."""
        theirs = {row["seed"]: row[key] for row in self.first}
        pairs = [factor * (row[key] - theirs[row["seed"]]) for row in self.rows if row["seed"] in theirs]
        if not pairs or self.first == self.rows:
            return ""
        error = f" ± {statistics.stdev(pairs) / math.sqrt(len(pairs)):.{digits}f}" if len(pairs) > 1 else ""
        return f"{statistics.fmean(pairs):+.{digits}f}{error}"


def groups(rows: list[dict], names: list[str], minutes: float) -> list[Group]:
    """The lines of a summary: each system with its own rate and, where others were tried, with the best of all."""

    def of(system: str, evaluations: int) -> dict[float | None, list[dict]]:
        by_rate: dict[float | None, list[dict]] = {}
        for row in rows:
            if (row["system"], row["evaluations"], row["minutes"]) == (system, evaluations, minutes):
                by_rate.setdefault(row["rate"], []).append(row)
        return by_rate

    def counts(system: str) -> list[int]:
        found = {row["evaluations"] for row in rows if (row["system"], row["minutes"]) == (system, minutes)}
        return sorted(found, reverse=True)

    first = {}
    for count in counts(names[0]):
        by_rate = of(names[0], count)
        first[count] = by_rate.get(None) or next(iter(by_rate.values()))
    result = []
    for system in names:
        for count in counts(system):
            by_rate = of(system, count)
            compared = first.get(count) or next(iter(first.values()), [])
            if None in by_rate:
                result.append(Group(system, by_rate[None], compared))
            if set(by_rate) != {None}:
                best = min(by_rate.values(), key=lambda group: statistics.fmean(row["fd"] for row in group))
                result.append(Group(system, best, compared, tuned=True))
    return result


def summary(rows: list[dict], names: list[str]) -> str:
    """One line a system, budget and number of evaluations: mean ± standard deviation over the seeds."""
    head = (
        "system", "minutes", "evaluations", "learning rate", "seeds", "parameters", "images seen", "FD",
        f"FD less {names[0]}'s", "FD at infinity", "KID x 1000", f"KID less {names[0]}'s", "precision", "recall",
        "density", "coverage", "drawn/s",
    )  # fmt: skip
    lines = []
    for minutes in sorted({row["minutes"] for row in rows}):
        found = groups(rows, names, minutes)
        for group in found:
            if group.repeats:
                continue
            lines.append((
                group.label + (" (told the class)" if group.head.get("conditional") else ""),
                f"{minutes:g}",
                group.head["evaluations"],
                f"{group.head['learning_rate']:g}",
                len(group.rows),
                f"{group.head['parameters'] / 1e6:.1f}M",
                f"{group.mean(lambda row: row['images_seen']):,.0f}",
                group.text("fd", 2),
                group.difference("fd", 2),
                group.text("fd_at_infinity", 2),
                group.text("kid", 2, 1000),
                group.difference("kid", 2, 1000),
                *(group.text(key, 3) for key in ("precision", "recall", "density", "coverage")),
                f"{group.mean(lambda row: row['n'] / drawing_seconds(row)):.1f}",
            ))  # fmt: skip
        floor = found[0].head["floor"]
        blank = [""] * 5
        lines.append((
            "as many real images", f"{minutes:g}", *blank, f"{floor['fd']:.2f}", "", f"{floor['fd_at_infinity']:.2f}",
            f"{1000 * floor['kid']:.2f}", "", *(f"{floor[key]:.3f}" for key in ("precision", "recall", "density")),
            f"{floor['coverage']:.3f}", "",
        ))  # fmt: skip
    return _markdown(head, lines)


def table(rows: list[dict]) -> str:
    """One line a row, after ± the standard error that samples and reference have as samples."""
    head = (
        "system", "minutes", "seed", "evaluations", "learning rate", "steps", "trained on/s", "training GFLOP/s",
        "share of matmul", "train wall s", "peak MB", "drawn/s", "sampling GFLOP/s", "share of matmul", "FD",
        "FD at infinity", "KID x 1000", "precision", "recall", "density", "coverage", "matmul GFLOP/s",
    )  # fmt: skip
    lines = []
    for row in sorted(rows, key=lambda row: (row["minutes"], row["evaluations"], row["fd"])):
        training = 3 * row["forward_flop"] * row["images_per_s"] / 1e9
        sampling = row.get("sampling_flop", row["forward_flop"]) * taken(row) * row["n"] / drawing_seconds(row) / 1e9
        rates = [row[key] for key in MATMUL]
        lines.append((
            row["system"] + (f" `{row['options']}`" if row["options"] else ""),
            f"{row['minutes']:g}",
            row["seed"],
            row["evaluations"],
            f"{row['learning_rate']:g}",
            f"{row['steps']:,}",
            f"{row['images_per_s']:.1f}",
            f"{training:.1f}",
            f"{training / statistics.fmean(rates[:2]):.0%}",
            f"{row['train_s']:.0f}",
            max(row["training_peak_mb"], row["sampling_peak_mb"]),
            f"{row['n'] / drawing_seconds(row):.1f}",
            f"{sampling:.1f}",
            f"{sampling / statistics.fmean(rates[2:]):.0%}",
            *(f"{row[key]:.2f} ± {row[f'{key}_error']:.2f}" for key in ("fd", "fd_at_infinity")),
            f"{1000 * row['kid']:.2f} ± {1000 * row['kid_error']:.2f}",
            *(f"{row[key]:.3f} ± {row[f'{key}_error']:.3f}" for key in ("precision", "recall", "density", "coverage")),
            ", ".join(f"{rate:.0f}" for rate in rates),
        ))  # fmt: skip
    return _markdown(head, lines)


def warnings(rows: list[dict]) -> list[str]:
    """What keeps rows from being compared."""
    found = []
    rates = [row[key] for row in rows for key in MATMUL]
    if max(rates) > STEADY * min(rates):
        found.append(
            f"WARNING: the machine's speed was not constant ({min(rates):.0f} to {max(rates):.0f} GFLOP/s): minutes of "
            "different rows are not the same amount of work."
        )
    for what, key in (
        ("threads", "threads"),
        ("versions of torch", "torch"),
        ("states of Snowmelt's source", "source"),
    ):
        values = {row[key] for row in rows if key in row}
        if len(values) > 1:
            found.append(f"WARNING: these rows are of different {what}: {', '.join(sorted(map(str, values)))}.")
    return found


def draw(rows: list[dict], names: list[str], cache: Path, out: Path) -> list[Path]:
    """Quality over minutes; and for each budget the samples of the first seed, beside real ones."""
    out.mkdir(parents=True, exist_ok=True)
    head = rows[0]
    kind = f"{head['against']}-{head['judge']}-n{head['n']}"
    by_minutes = {minutes: groups(rows, names, minutes) for minutes in sorted({row["minutes"] for row in rows})}
    curve_file = out / f"quality-{kind}.png"
    pictures.over_minutes(
        _curves(by_minutes),
        head["floor"]["fd"],
        f"{head['n']:,} samples, {head['threads']} thread{'s' * (head['threads'] != 1)}",
        curve_file,
    )
    written = [curve_file]
    real = data.load(data.TEST)[0]
    for minutes, found in by_minutes.items():
        shown = [group for group in found if not group.repeats]
        panels = [("real images", f"the test set; as many score FD {head['floor']['fd']:.2f}", real)]
        for group in shown:
            row = group.head
            path = folder(cache, row) / sampled(row["n"], row["evaluations"])[1]
            if path.exists():
                with np.load(path) as stored:
                    subtitle = f"{row['images_seen']:,} images seen, FD {row['fd']:.2f}"
                    panels.append((f"{group.label}, {_evaluations(row)}", subtitle, stored["samples"]))
        if len(panels) == len(shown) + 1:
            written.append(out / f"samples-{minutes:g}min-{kind}.png")
            pictures.side_by_side(panels, written[-1])
        else:
            print(f"{minutes:g} minutes: no picture of the samples, of which some are not in {cache} any more")
    return written


def _curves(by_minutes: dict[float, list[Group]]) -> list[pictures.Curve]:
    points: dict[str, list[tuple[float, Group]]] = {}
    for minutes, found in by_minutes.items():
        for group in found:
            points.setdefault(f"{group.label}, {_evaluations(group.head)}", []).append((minutes, group))
    return [
        pictures.Curve(
            label,
            [minutes for minutes, _ in each],
            [group.mean(_distance) for _, group in each],
            [group.spread(_distance) for _, group in each],
        )
        for label, each in points.items()
        if not all(group.repeats for _, group in each)
    ]


def _distance(row: dict) -> float:
    return row["fd"]


def _evaluations(row: dict) -> str:
    return f"{row['evaluations']} evaluation{'s' * (row['evaluations'] != 1)}"


def _markdown(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    texts = [[str(cell) for cell in line] for line in (head, *lines)]
    texts.insert(1, ["---"] * len(texts[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)
