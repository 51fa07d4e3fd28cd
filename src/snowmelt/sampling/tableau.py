"""A sampler is a table of numbers, and one loop runs them all.

    D_k = D(x_k, level_k)
    x_{k+1} = sum_i a_{k,i} x_{k-i} + sum_j b_{k,j} D_{k-j} + c_k z_k

Tables are written at the canonical scale alpha^2 + sigma^2 = 1. They depend on a schedule through log-SNR alone, so
one table serves every schedule: `bound` rescales its coefficients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import read_json, write_text
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.guidance import learned_variance
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

MAX_TERMS = 4
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class Row:
    """One row of a table.

    a     1 to 4 coefficients of the states x_k, x_{k-1}, ...
    b     0 to 4 coefficients of the outputs D_k, D_{k-1}, ... of the rows that evaluate; empty evaluates nothing
    c     standard deviation of fresh noise, >= 0
    done  False for an inner stage, whose state is not yet a point of the trajectory
    c_hi  with a learned variance: the noise is c^(1-f) c_hi^f, f in [0, 1] from the network
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    c: float = 0.0
    done: bool = True
    c_hi: float | None = None


@dataclass(frozen=True)
class Tableau:
    """A whole sampler: K rows between K + 1 levels (alpha, sigma). levels[k] is what row k's denoiser is told.

    exempt  why the noise it adds is meant to differ from its levels' (a larger variance, say); empty if it is not
    """

    name: str
    levels: tuple[tuple[float, float], ...]
    rows: tuple[Row, ...]
    exempt: str = ""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def evaluations(self) -> int:
        """How many times the denoiser is called."""
        return sum(bool(row.b) for row in self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether any row adds noise."""
        return any(row.c > 0 or row.c_hi is not None for row in self.rows)

    @property
    def level(self) -> Level:
        """All K + 1 levels as one batch."""
        return Level(*torch.tensor(self.levels, dtype=torch.float64).unbind(1))

    @property
    def log_snr(self) -> Tensor:
        """[K + 1] float64 log-SNRs of the levels."""
        return self.level.log_snr

    @property
    def stops(self) -> Tensor:
        """[N + 1] float64 log-SNRs of its grid: where it starts and where rows are done, inner stages left out."""
        done = torch.tensor([True, *(row.done for row in self.rows)])
        return self.log_snr[done]

    def bound(self, schedule: Schedule) -> Tableau:
        """The same sampler at the schedule's own scale: x there is g times the x of this table.

        A coefficient into level k + 1 from a state at level j is multiplied by g_{k+1}/g_j; D has no scale, so its
        coefficient and the noise's are multiplied by g_{k+1}. From the canonical scale g is sqrt(alpha^2 + sigma^2).
        """
        levels = schedule.at_log_snr(self.log_snr)
        scale: list[float] = (levels.scale / self.level.scale).tolist()
        if not all(map(math.isfinite, scale)):
            raise SnowmeltError(f"Schedule {schedule.name!r} has no level of pure noise, and the table starts there.")
        rows = []
        for k, row in enumerate(self.rows):
            g = scale[k + 1]
            rows.append(
                replace(
                    row,
                    a=tuple(a * g / scale[k - i] for i, a in enumerate(row.a)),
                    b=tuple(b * g for b in row.b),
                    c=row.c * g,
                    c_hi=None if row.c_hi is None else row.c_hi * g,
                )
            )
        pairs = zip(levels.alpha.tolist(), levels.sigma.tolist(), strict=True)
        return replace(self, levels=tuple(pairs), rows=tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values in full float64 precision."""
        rows = []
        for row in self.rows:
            plain: dict[str, Any] = {"a": list(row.a), "b": list(row.b), "c": row.c, "done": row.done}
            rows.append(plain if row.c_hi is None else {**plain, "c_hi": row.c_hi})
        whole = {"name": self.name, "levels": [list(level) for level in self.levels], "rows": rows}
        return {**whole, "exempt": self.exempt} if self.exempt else whole

    @staticmethod
    def from_json(value: Any, where: str = "the table") -> Tableau:
        """The inverse of `to_json`; anything else is an error that says what is wrong in `where`."""
        try:
            rows = tuple(
                Row(
                    a=tuple(map(_number, row["a"])),
                    b=tuple(map(_number, row["b"])),
                    c=_number(row.get("c", 0.0)),
                    done=_flag(row.get("done", True)),
                    c_hi=None if row.get("c_hi") is None else _number(row["c_hi"]),
                )
                for row in value["rows"]
            )
            levels = tuple((_number(alpha), _number(sigma)) for alpha, sigma in value["levels"])
            return Tableau(str(value["name"]), levels, rows, str(value.get("exempt", "")))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = {KeyError: f"it has no {error}", ValueError: str(error)}.get(type(error), "it is built otherwise")
            raise SnowmeltError(
                f"{where} is not a sampler table: {reason}.",
                'Expected {"name": "", "levels": [[alpha, sigma], ...], "rows": [{"a": [], "b": [], "c": 0}, ...]}.',
            ) from error


def folded(tableau: Tableau) -> Tableau:
    """The same sampler with every row that evaluates nothing made part of the row before it, except a first one.

    For tables whose rows use the newest state alone. Two draws become one of the same law.
    """
    levels, rows = [tableau.levels[0]], list[Row]()
    for row, level in zip(tableau.rows, tableau.levels[1:], strict=True):
        if len(row.a) > 1:
            raise ValueError("rows that use older states cannot be folded")
        if row.b or not rows:
            levels.append(level)
            rows.append(row)
            continue
        (a,), before = row.a, rows[-1]
        rows[-1] = Row(
            tuple(a * x for x in before.a), tuple(a * x for x in before.b), math.hypot(a * before.c, row.c), row.done
        )
        levels[-1] = level
    return replace(tableau, levels=tuple(levels), rows=tuple(rows))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def load_tableau(path: Path) -> Tableau:
    """Read a table that was written as JSON."""
    return Tableau.from_json(read_json(path), str(path))


def save_tableau(tableau: Tableau, path: Path) -> None:
    """Write a table as JSON that `load_tableau` reads back exactly."""
    write_text(path, json.dumps(tableau.to_json(), allow_nan=False) + "\n")


Hook = Callable[[int, Tensor, Level, Tensor | None], Tensor | None]


def execute(
    tableau: Tableau,
    denoiser: Denoiser,
    x: Tensor,
    draw: Callable[[int], Tensor],
    cond: Condition | None = None,
    on_row: Hook | None = None,
) -> Tensor:
    """Run a table that is bound to the denoiser's schedule, from x [B, *S] at its first level to its last.

    draw    k -> z_k, standard normal noise of x's shape, asked for only where a row adds noise
    on_row  called as on_row(k, x_{k+1}, its level, z_k or None) after every row; what it returns replaces x_{k+1}

    Differentiable; callers choose `torch.no_grad`.
    """
    levels = _on_batch(tableau.levels, len(x))
    states, outputs = [x], list[Tensor]()
    for k, row in enumerate(tableau.rows):
        fraction = None
        if row.b:
            if row.c_hi is None:
                D = denoiser(states[0], levels[k], cond)
            else:
                D, fraction = learned_variance(denoiser).with_variance(states[0], levels[k], cond)
            outputs = [D, *outputs[: MAX_TERMS - 1]]
        x = _combine(row.a, states, row.b, outputs)
        z = draw(k) if row.c > 0 else None
        if z is not None:
            x = x + z * (row.c if fraction is None else row.c ** (1 - fraction) * (row.c_hi or 0.0) ** fraction)
        if on_row is not None:
            replaced = on_row(k, x, levels[k + 1], z)
            x = x if replaced is None else replaced
        states = [x, *states[: MAX_TERMS - 1]]
    return x


def _combine(a: tuple[float, ...], states: list[Tensor], b: tuple[float, ...], outputs: list[Tensor]) -> Tensor:
    """sum a_i x_i + sum b_j D_j."""
    terms = [(c, t) for c, t in [*zip(a, states, strict=False), *zip(b, outputs, strict=False)] if c != 0]
    if not terms:
        return torch.zeros_like(states[0])
    coefficient, tensor = terms[0]
    total = tensor if coefficient == 1 else tensor * coefficient
    for coefficient, tensor in terms[1:]:
        total = torch.add(total, tensor, alpha=coefficient)
    return total


def _on_batch(levels: tuple[tuple[float, float], ...], batch: int) -> list[Level]:
    table = torch.tensor(levels, dtype=torch.float64)
    return [Level(alpha.expand(batch), sigma.expand(batch)) for alpha, sigma in table]


def _check(tableau: Tableau) -> None:
    """Refuse a table that could not be run: wrong counts, history that does not exist, numbers that are none."""
    rows, levels = tableau.rows, tableau.levels
    if not 1 <= len(rows) <= MAX_ROWS or len(levels) != len(rows) + 1:
        raise ValueError(f"a table has K >= 1 rows and K + 1 levels, not {len(rows)} and {len(levels)}")
    if not all(math.isfinite(n) and n >= 0 for level in levels for n in level) or (0.0, 0.0) in levels:
        raise ValueError("levels must be finite and not negative, and not both zero")
    evaluated = 0
    for k, row in enumerate(rows):
        evaluated += bool(row.b)
        if not 1 <= len(row.a) <= min(MAX_TERMS, k + 1):
            raise ValueError(f"row {k} has {len(row.a)} a's; 1 to {min(MAX_TERMS, k + 1)} states exist by then")
        if len(row.b) > min(MAX_TERMS, evaluated):
            raise ValueError(f"row {k} has {len(row.b)} b's; at most {min(MAX_TERMS, evaluated)} outputs exist by then")
        numbers = [*row.a, *row.b, row.c, 0.0 if row.c_hi is None else row.c_hi]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"row {k} has a number that is not finite")
        if row.c < 0 or (row.c_hi is not None and (row.c_hi < row.c or not row.b)):
            raise ValueError(f"row {k} needs 0 <= c <= c_hi, and c_hi only where the denoiser is evaluated")
