"""The linear layer of assignment 3, as its checks know it: random cores, the dense weight, the cost of each order."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ...tensors.tensor_train import tt_matrix_to_matrix

ORDERS = ("left to right", "right to left", "weight first")


def random_layer(draw: torch.Generator, inputs: Sequence[int], outputs: Sequence[int], rank: int) -> list[Tensor]:
    """Random cores (r_{k-1}, n_k, m_k, r_k) in float64; the bonds have the sizes rank, rank + 1, …"""
    ranks = (1, *range(rank, rank + len(inputs) - 1), 1)
    shapes = zip(ranks, inputs, outputs, ranks[1:], strict=False)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]


def dense(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """x W, by way of W."""
    return x @ tt_matrix_to_matrix(list(cores))


def gradients(x: Tensor, gradient: Tensor, cores: Sequence[Tensor]) -> list[Tensor]:
    """∂L/∂x and then ∂L/∂G_k of every core, for this ∂L/∂y."""
    leaves = [value.clone().requires_grad_() for value in (x, *cores)]
    return list(torch.autograd.grad(dense(leaves[0], leaves[1:]), leaves, gradient))


def costs(inputs: Sequence[int], outputs: Sequence[int], ranks: Sequence[int], rows: int) -> dict[str, int]:
    """FLOPs of each order, 2 for a multiply-add."""
    core = [r * n * m * s for r, n, m, s in zip(ranks, inputs, outputs, ranks[1:], strict=False)]
    left = right = merging = 0
    for k, size in enumerate(core):
        left += 2 * rows * prod(outputs[:k]) * prod(inputs[k + 1 :]) * size
        right += 2 * rows * prod(inputs[:k]) * prod(outputs[k + 1 :]) * size
        merging += 2 * prod(inputs[:k]) * prod(outputs[:k]) * size if k else 0
    return dict(zip(ORDERS, (left, right, merging + 2 * rows * prod(inputs) * prod(outputs)), strict=True))
