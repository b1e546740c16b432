"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, orthogonalised matrix by matrix.

`torch.optim.Muon` takes one matrix at a time, and always in bf16. Here all matrices of a shape are orthogonalised at
once, since LSTMs have many small ones, and in the precision of the training.

Shapes: N matrices of m x n, m <= n.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
UPDATE_RMS = 0.2
"""Root mean square of the entries of an update at a learning rate of 1: about AdamW's, so that learning rates and
weight decay mean the same for both (Liu et al. 2025, arXiv 2502.16982, section 2.2)."""
ITERATIONS = 3
"""Jordan takes five, from a looser bound of the largest singular value."""
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
"""Jordan's polynomial: in few iterations it brings singular values between 0.7 and 1.2, rather than to 1."""
LSTM_GATES = 4


def matrices_of(model: nn.Module) -> dict[str, int]:
    """The weights that Muon is for, by name, and how many matrices each is.

    Those of hidden layers: not the head, not the first layer of a stem, no vector. The weights of a convolution are
    one matrix, channels out x the rest; those of an LSTM one for each gate.
    """
    recurrent = {
        id(weight) for module in model.modules() if isinstance(module, nn.LSTM) for weight in module.parameters()
    }
    gates = {
        name: LSTM_GATES if id(weight) in recurrent else 1
        for name, weight in model.named_parameters()
        if weight.ndim >= 2 and not name.startswith("head.")
    }
    in_stem = [name for name in gates if name.startswith("stem.")]
    weights = dict(model.named_parameters())
    return {
        name: count
        for name, count in gates.items()
        if name not in in_stem[:1] and min(_rows_and_columns(weights[name], count)) > 1
    }


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, each matrix of it orthogonalised, and decoupled weight decay.

    A group's `gates` says how many matrices each of its weights is. A step overwrites the gradients.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], dtype: torch.dtype) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "gates": 1})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure
        """Change the weights that have a gradient."""
        by_shape: dict[tuple[int, int], list[_Update]] = defaultdict(list)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    update = _Update.of(weight, self._momentum(weight), group)
                    by_shape[update.shape].append(update)
        for updates in by_shape.values():
            matrices = orthogonalised(torch.cat([update.matrices.to(self._dtype) for update in updates]))
            counts = [len(update.matrices) for update in updates]
            for update, part in zip(updates, torch.split(matrices, counts), strict=True):
                update.apply(part)

    def _momentum(self, weight: Tensor) -> Tensor:
        """Nesterov's, in the memory of the gradient."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp_(momentum, MOMENTUM)

    def flops(self) -> int:
        """Floating point operations of a step's products, two per multiply-add."""
        total = 0
        for (m, n), N in self._shapes().items():
            in_m, with_n = ITERATIONS, 2 * ITERATIONS  # products of m x m matrices, and those that the m x n are in
            if _is_factored(m, n, self._dtype):
                in_m, with_n = ITERATIONS + 3 * (ITERATIONS - 1), 2
            total += N * 2 * m * m * (in_m * m + with_n * n)
        return total

    def scratch_bytes(self) -> int:
        """What a step holds for a while, of the shape that takes the most."""
        entries = 0
        for (m, n), N in self._shapes().items():
            if _is_factored(m, n, self._dtype):
                each = max(m * n + 5 * m * m, 2 * m * n + m * m)  # while the factor is made, and where it is applied
            else:
                each = 2 * m * n + 2 * m * m
            entries = max(entries, N * each)
        return entries * self._dtype.itemsize

    def _shapes(self) -> Counter[tuple[int, int]]:
        """How many matrices of each shape there are."""
        found: Counter[tuple[int, int]] = Counter()
        for group in self.param_groups:
            for weight in group["params"]:
                m, n = sorted(_rows_and_columns(weight, group["gates"]))
                found[m, n] += group["gates"]
        return found


@dataclass(frozen=True)
class _Update:
    """Of one weight; `matrices` (gates x m x n) are transposed where they have more rows than columns."""

    weight: Tensor
    matrices: Tensor
    is_tall: bool
    rate: float
    decay: float

    @classmethod
    def of(cls, weight: Tensor, momentum: Tensor, group: dict[str, Any]) -> "_Update":
        rows, columns = _rows_and_columns(weight, group["gates"])
        matrices, is_tall = momentum.reshape(-1, rows, columns), rows > columns
        return cls(weight, matrices.mT if is_tall else matrices, is_tall, group["lr"], group["weight_decay"])

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.matrices.shape[1:]
        return m, n

    def apply(self, orthogonal: Tensor) -> None:
        """Change the weight."""
        change = (orthogonal.mT if self.is_tall else orthogonal).reshape(self.weight.shape)
        self.weight.mul_(1 - self.rate * self.decay)
        self.weight.add_(change, alpha=-self.rate * UPDATE_RMS * math.sqrt(self.shape[1]))


def orthogonalised(x: Tensor) -> Tensor:
    """N x m x n matrices with the same singular vectors, and singular values near 1; overwrites those given."""
    _, m, n = x.shape
    x.div_(x.norm(dim=(1, 2), keepdim=True).clamp_(min=1e-7))
    gram = x @ x.mT  # N x m x m
    # The fourth root of the sum of s^4 over the singular values s: nearer to the largest one than the norm is.
    bound = gram.norm(dim=(1, 2), keepdim=True).sqrt_().clamp_(min=1e-7)
    x.div_(bound)
    gram.div_(bound.square())
    if _is_factored(m, n, x.dtype):
        return _factor(gram) @ x
    for iteration in range(ITERATIONS):
        gram = x @ x.mT if iteration else gram
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC), x, beta=LINEAR)
    return x


def _factor(gram: Tensor) -> Tensor:
    """What all iterations multiply x by, from x @ x.mT (N x m x m). Polynomials of one matrix commute."""
    factor = None
    for left in reversed(range(ITERATIONS)):
        step = torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC)
        step.diagonal(dim1=1, dim2=2).add_(LINEAR)
        factor = step if factor is None else step @ factor
        if left:
            gram = step @ gram @ step
    assert factor is not None
    return factor


def _is_factored(m: int, n: int, dtype: torch.dtype) -> bool:
    """Whether only products of m x m are iterated: for long matrices half of the arithmetic. bf16 is too coarse."""
    return 2 * n > 3 * m and dtype == torch.float32


def _rows_and_columns(weight: Tensor, gates: int) -> tuple[int, int]:
    return len(weight) // gates, math.prod(weight.shape[1:])
