"""Muon: momentum whose update of a weight matrix is made orthogonal, so that all its directions move alike.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; scaled to the size of Adam's updates as
Liu et al. 2025, "Muon is Scalable for LLM Training", so that one learning rate serves both. A convolution's kernel is a
matrix of its outputs by its inputs and places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

MOMENTUM = 0.95
ROUNDS = 5
# Of the odd polynomial that pushes all singular values towards 1, fast rather than exactly (between 0.7 and 1.2).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAM_SIZE = 0.2  # root mean square of Adam's usual updates
AT_A_TIME = 2**20  # numbers of the matrices that are updated together
SMALLEST = 16  # rows and columns of what counts as a matrix


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight is a matrix, or a kernel that makes one, with at least 16 rows and columns."""
    return weight.dim() >= 2 and min(weight.shape[0], weight[0].numel()) >= SMALLEST


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """[r, c] each -> the same with all singular values near 1, by Newton and Schulz's iteration; zero stays zero.

    A round is x <- p(x x^T) x, and all rounds together are one square matrix times x. That one is followed alone, and
    those of as many rows together: kernels have many more columns than rows.
    """
    wide = [each.mT if each.shape[0] > each.shape[1] else each for each in matrices]
    alike = defaultdict[int, list[int]](list)
    for place, each in enumerate(wide):
        alike[len(each)].append(place)
    found = list(wide)
    for rows, places in alike.items():
        rounds = _rounds(torch.stack([wide[place] @ wide[place].mT for place in places]).float(), rows)
        for place, whole in zip(places, rounds.to(wide[places[0]].dtype).unbind(), strict=True):
            found[place] = whole @ wide[place]
    return [x.mT if len(before) > before.shape[1] else x for x, before in zip(found, matrices, strict=True)]


def _rounds(square: Tensor, rows: int) -> Tensor:
    """x x^T of some matrices, [k, r, r] -> what all rounds together multiply each by."""
    size = square.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-7
    square = square / size**2
    a, b, c = COEFFICIENTS
    linear = a * torch.eye(rows, device=square.device)
    whole = None
    for left in reversed(range(ROUNDS)):
        round_ = torch.baddbmm(b * square, square, square, alpha=c).add_(linear)
        whole = round_ if whole is None else round_ @ whole
        if left > 0:
            square = round_ @ square @ round_
    assert whole is not None
    return whole / size


class Muon:
    """Updates some matrices in place; every one has its momentum from the start.

    parameters    of `is_matrix`
    weight_decay  decoupled, as AdamW's
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self.state: dict[Tensor, dict[str, Tensor]] = {
            each: {"momentum": torch.zeros_like(each)} for each in parameters
        }

    @torch.no_grad()
    def step(self, lr: float | Tensor, skipped: Tensor) -> None:
        """One update from the gradients, in place of which it is made; none where `skipped` is 1, asked without waiting
        for the device.
        """
        keep = 1 - skipped
        if keep.device.type == "cpu" and keep == 0:
            return
        for parameters in _parts(self.state):
            self._update(parameters, lr, keep)

    def _update(self, parameters: list[Tensor], lr: float | Tensor, keep: Tensor) -> None:
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        momenta = [self.state[each]["momentum"] for each in parameters]
        if keep.device.type != "cpu":
            gradients = [torch.where(keep > 0, each, 0.0) for each in gradients]
        torch._foreach_mul_(momenta, 1 - keep * (1 - MOMENTUM))
        torch._foreach_add_(momenta, gradients)
        torch._foreach_add_(gradients, momenta, alpha=MOMENTUM)
        turned = orthogonalised([_matrix(each) for each in gradients])
        steps = [_as(each, like) for each, like in zip(turned, parameters, strict=True)]
        torch._foreach_mul_(steps, [ADAM_SIZE * max(each.shape) ** 0.5 for each in turned])
        torch._foreach_mul_(steps, lr)
        if keep.device.type != "cpu":
            torch._foreach_mul_(steps, keep)
        if self.weight_decay > 0:
            torch._foreach_mul_(parameters, 1 - keep * (lr * self.weight_decay))
        torch._foreach_sub_(parameters, steps)


def _parts(matrices: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Some at a time, so that a step of a large network needs little memory beside it."""
    part: list[Tensor] = []
    for each in matrices:
        if part and sum(other.numel() for other in part) + each.numel() > AT_A_TIME:
            yield part
            part = []
        part.append(each)
    if part:
        yield part


def _matrix(weight: Tensor) -> Tensor:
    """A kernel as outputs by places and inputs, which is how channels-last memory has it; a matrix as it is."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten(1)


def _as(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_matrix`."""
    if like.dim() != 4:
        return matrix.view(like.shape)
    outputs, inputs, height, width = like.shape
    return matrix.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
