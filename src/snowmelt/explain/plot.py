"""Line plots as SVG that follows the page's colours, and what changes of them from one stop of a slider to the next."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 12, 38
MOST_TICKS = 6
_numbers = count()  # ids are of one process, so that figures of one page never share one

# What changes at a stop: id of an element -> attribute (or "text") -> value.
Change = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Panel:
    """A part of a figure: its HTML at the first stop, and what changes at every stop; no changes if it is still."""

    html: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A line through (x, y); one list of ys, or one a stop of the slider.

    kind  a class of the page's style: c0 to c5 colours, `thin`, `dashed`, `dots`, `fill`
    """

    name: str
    x: Sequence[float]
    y: Sequence[float] | Sequence[Sequence[float]]
    kind: str = "c0"


@dataclass(frozen=True)
class Axis:
    """One axis: its words, ends and whether it is logarithmic."""

    words: str
    low: float
    high: float
    log: bool = False

    def part(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1; NaN for what a logarithm does not know."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.nan if value <= 0 else math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            if len(powers) < 3:
                between = [m * 10.0**power for power in range(powers.start - 1, powers.stop + 1) for m in (1, 2, 5)]
                return [value for value in between if self.low <= value <= self.high]
            every = max(1, math.ceil(len(powers) / MOST_TICKS))
            return [10.0**power for power in powers if power % every == 0]
        rough = (self.high - self.low) / (MOST_TICKS - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(words: str, values: Sequence[float], log: bool = False, room: float = 0.05) -> Axis:
    """An axis around the values, with some room at both ends."""
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = min(kept), max(kept)
    if log:
        stretch = max(high / low, 1.01) ** room
        return Axis(words, low / stretch, high * stretch, log=True)
    more = room * ((high - low) or 1.0)
    return Axis(words, low - more, high + more)


@dataclass(frozen=True)
class Mark:
    """A vertical line: where it stands at each stop of the slider."""

    name: str
    places: Sequence[float]
    kind: str = "mark"


def plot(curves: Sequence[Curve], x: Axis, y: Axis, alt: str, marks: Sequence[Mark] = ()) -> Panel:
    """The curves on their axes; `alt` says in words what the plot shows."""
    parts = [*_frame(x, y)]
    stops = max([1, *(len(each.y) for each in curves if _moves(each)), *(len(mark.places) for mark in marks)])
    changes: list[Change] = [{} for _ in range(stops)]
    for curve in curves:
        name, ys = f"p{next(_numbers)}", curve.y if _moves(curve) else [curve.y]
        paths = [_path(curve.x, each, x, y, curve.kind) for each in ys]  # type: ignore[arg-type]
        parts.append(f'<path id="{name}" class="curve {curve.kind}" d="{paths[0]}"/>')
        if _moves(curve):
            for change, path in zip(changes, paths, strict=True):
                change[name] = {"d": path}
    for mark in marks:
        name = f"p{next(_numbers)}"
        moved = [f"translate({_across(x, value):.1f} 0)" for value in mark.places]
        line = f'<path class="mark {mark.kind}" d="M0 {TOP}V{HEIGHT - BOTTOM}"/>'
        parts.append(f'<g id="{name}" transform="{moved[0]}">{line}</g>')
        for change, place in zip(changes, moved, strict=True):
            change[name] = {"transform": place}
    both: list[Curve | Mark] = [*curves, *marks]
    named = [(each.name, each.kind) for each in both if each.name]
    keys = "".join(f'<li class="{kind}"><i></i>{html.escape(name)}</li>' for name, kind in named)
    svg = (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}">'
        f"{''.join(parts)}</svg>"
    )
    whole = f'<div class="panel">{svg}<ul class="key">{keys}</ul></div>'
    return Panel(whole, tuple(changes) if stops > 1 else ())


def _moves(curve: Curve) -> bool:
    return len(curve.y) > 0 and not isinstance(curve.y[0], int | float)


def _across(x: Axis, value: float) -> float:
    return LEFT + min(max(x.part(value), 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _path(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis, kind: str) -> str:
    """The d of a path; it is broken where a value is not finite, and cut at the frame."""
    words, pen = [], "M"
    for a, b in zip(xs, ys, strict=True):
        part = y.part(b)
        if not math.isfinite(part):
            pen = "M"
            continue
        high = TOP + (1 - min(max(part, -0.02), 1.02)) * (HEIGHT - TOP - BOTTOM)
        words.append(f"{pen}{_across(x, a):.1f} {high:.1f}")
        pen = "L"
        if "dots" in kind.split():
            words.append("h0")
            pen = "M"
    return "".join(words)


def _frame(x: Axis, y: Axis) -> list[str]:
    """Grid lines, numbers and the words of the axes."""
    parts, bottom = [], HEIGHT - BOTTOM
    for value in x.ticks():
        place = _across(x, value)
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 14}" text-anchor="middle">{_label(value)}</text>')
    for value in y.ticks():
        place = TOP + (1 - y.part(value)) * (bottom - TOP)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{place + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(x.words)}</text>')
    turned = f'transform="translate(10 {half}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{html.escape(y.words)}</text>')
    return parts


def _label(value: float) -> str:
    """A tick's number, with a minus sign that is one."""
    size = abs(value)
    text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if size and not 1e-3 <= size < 1e5 else f"{value:g}"
    if abs(value) < 1e-12:
        text = "0"
    return text.replace("-", "−")
