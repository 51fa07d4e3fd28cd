"""Which of another library's tensors is which of ours: a table that is read in one direction and written in the other.

Every format is a list of rules. Reading takes all of their tensors and fills all of ours; writing is the inverse, so
that a model that is written and read again has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError

MOST_SHOWN = 5


@dataclass(frozen=True)
class Form:
    """How a tensor is laid out elsewhere: `read` brings theirs into our layout, `write` is the inverse."""

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """One tensor of theirs.

    ours    the tensor of ours that it fills
    theirs  its name there
    rows    (first, last + 1) of the rows of ours that it fills; None: all of them
    form    its layout there
    """

    ours: str
    theirs: str
    rows: tuple[int, int] | None = None
    form: Form | None = None


def read_tensors(
    rules: Sequence[Rule], theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Our tensors out of theirs, float32.

    expected  tensors of our names and shapes, on any device (meta: nothing is allocated)
    Raises SnowmeltError where one of theirs is missing, unexpected or of another shape.
    """
    missing = [rule.theirs for rule in rules if rule.theirs not in theirs]
    extra = sorted(set(theirs) - {rule.theirs for rule in rules})
    _refuse([f"missing {name}" for name in missing] + [f"unexpected {name}" for name in extra], where)
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    wrong = []
    for rule in rules:
        shape = list(expected[rule.ours].shape)
        if rule.rows is not None:
            shape[0] = rule.rows[1] - rule.rows[0]
        try:
            piece = rule.form.read(theirs[rule.theirs]) if rule.form else theirs[rule.theirs]
        except (RuntimeError, IndexError):  # a layout that the tensor's shape does not allow
            piece = theirs[rule.theirs]
        if list(piece.shape) != shape:
            wrong.append(f"{rule.theirs} is {list(theirs[rule.theirs].shape)}, where {shape} fits")
        pieces.setdefault(rule.ours, []).append((rule.rows[0] if rule.rows else 0, piece))
    _refuse(wrong, where)
    _refuse([f"nothing for {name}" for name in expected if name not in pieces], where)
    return {name: _joined(parts) for name, parts in pieces.items()}


def write_tensors(rules: Sequence[Rule], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors out of ours: the inverse of `read_tensors`."""
    theirs = {}
    for rule in rules:
        rows = ours[rule.ours] if rule.rows is None else ours[rule.ours][slice(*rule.rows)]
        theirs[rule.theirs] = (rule.form.write(rows) if rule.form else rows).contiguous()
    return theirs


def _joined(parts: list[tuple[int, Tensor]]) -> Tensor:
    """The pieces of one tensor in the order of their rows; a copy, so that the file's memory can go."""
    ordered = [piece.float() for _, piece in sorted(parts, key=lambda part: part[0])]
    return torch.cat(ordered) if len(ordered) > 1 else ordered[0].clone(memory_format=torch.contiguous_format)


def _refuse(faults: list[str], where: str) -> None:
    if faults:
        more = f" and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
        raise SnowmeltError(f"{where} does not fit its network: {'; '.join(faults[:MOST_SHOWN])}{more}.")


# A convolution of kernel size 1 is a matrix: [O, I, 1] and [O, I, 1, 1] there, [O, I] here.
POINTWISE_1D = Form(lambda tensor: tensor.squeeze(2), lambda tensor: tensor[:, :, None])
POINTWISE_2D = Form(lambda tensor: tensor.squeeze(3).squeeze(2), lambda tensor: tensor[:, :, None, None])


def _swap_halves(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1)


# The first matrix behind sinusoids that stand there as [cos, sin] and here as [sin, cos], or the other way round.
SWAPPED_SINUSOIDS = Form(_swap_halves, _swap_halves)


def heads_outside(heads: int) -> Form:
    """Rows ordered (head, {query, key, value}, channel) there and ({query, key, value}, head, channel) here."""
    return Form(lambda tensor: _swap_leading(tensor, heads, 3), lambda tensor: _swap_leading(tensor, 3, heads))


def _swap_leading(tensor: Tensor, outer: int, inner: int) -> Tensor:
    """Rows ordered (outer, inner, rest) as (inner, outer, rest)."""
    return tensor.reshape(outer, inner, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
