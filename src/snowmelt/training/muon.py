"""Muon: momentum whose update of a weight matrix is made orthogonal, so that all its directions move alike.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; scaled to the size of Adam's updates as
Liu et al. 2025, "Muon is Scalable for LLM Training", so that one learning rate serves both. A convolution's kernel is a
matrix of its outputs by its inputs and places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

MOMENTUM = 0.95
ROUNDS = 5
# Of the odd polynomial that pushes all singular values towards 1, fast rather than exactly (between 0.7 and 1.2).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAM_SIZE = 0.2  # root mean square of Adam's usual updates
SMALLEST = 16  # rows and columns of what counts as a matrix


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight is a matrix, or a kernel that makes one, with at least 16 rows and columns."""
    return weight.dim() >= 2 and min(weight.shape[0], weight[0].numel()) >= SMALLEST


def orthogonalised(matrices: Tensor) -> Tensor:
    """[k, r, c] -> the same with all singular values near 1, by Newton and Schulz's iteration; zero stays zero.

    A round is x <- p(x x^T) x, and all of them together are one square matrix times x. That matrix is followed alone,
    for kernels have many more columns than rows: a third of the products.
    """
    x = matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    square = x @ x.mT
    size = square.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-7
    square = square / size**2
    identity = torch.eye(square.shape[1], device=x.device)
    a, b, c = COEFFICIENTS
    whole = identity / size
    for _ in range(ROUNDS):
        round_ = a * identity + b * square + c * square @ square
        whole = round_ @ whole
        square = round_ @ square @ round_
    result: Tensor = whole @ x
    return (result.mT if tall else result).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Updates some matrices in place; every one has its momentum from the start.

    parameters    of `is_matrix`
    weight_decay  decoupled, as AdamW's
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None
        # Those of one shape go through together.
        self._alike: dict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            self._alike[parameter.shape[0], parameter[0].numel()].append(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place; none where `found_inf` is 1, asked without waiting for the device."""
        (group,) = self.param_groups
        lr, decay = group["lr"], group["weight_decay"]
        keep = torch.tensor(True) if self.found_inf is None else self.found_inf == 0
        for (rows, columns), parameters in self._alike.items():
            updates = torch.stack([self._nesterov(each, keep).reshape(rows, columns) for each in parameters])
            size = keep * (lr * ADAM_SIZE * max(rows, columns) ** 0.5)
            for parameter, update in zip(parameters, orthogonalised(updates), strict=True):
                parameter.mul_(1 - keep * (lr * decay))
                parameter.sub_(size * update.view(parameter.shape))

    def _nesterov(self, parameter: torch.nn.Parameter, keep: Tensor) -> Tensor:
        """The gradient and the momentum that it is added to; where the step is skipped the latter stays as it is."""
        momentum: Tensor = self.state[parameter]["momentum"]
        given = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradient = torch.where(keep, given, 0.0)
        momentum.mul_(torch.where(keep, MOMENTUM, 1.0)).add_(gradient)
        return gradient + MOMENTUM * momentum
