"""Assignment 1, the arithmetic of trains: products, norms, rounding and its bounds, all from cores.

Each check tries trains that are small enough to be multiplied out and one that is far too long for it. A check whose
name ends in `_by_hand` has one case that fits on paper.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor

from ...tensors.shapes import clip_ranks
from ...tensors.tensor_train import core_ranks, tt_to_tensor
from ..verdict import as_cores, by, close, exercise, fail
from .asking import ask_twice
from .seeds import generator

LONG = (3,) * 40  # modes of a tensor with 10¹⁹ entries
LIBRARY = (
    "tt_to_tensor",
    "tt_svd",
    "tt_matrix",
    "tt_matrix_to_matrix",
    "singular_values",
    "tt_error_bound",
    "tt_ranks",
)
LIBRARY += ("canonical_form", "rotate_bonds", "balance_norms", "relative_error")


@exercise
def multiply(function: Callable, seed: int = 0) -> None:
    """`function(a, b)` must return cores of the train whose entries are those of `a` times those of `b`."""
    draw = generator(seed, "multiply")
    for modes in (*short_modes(draw), LONG):
        a, b = (train(draw, modes, rank) for rank in (3, 2))
        product = cores_from(function, a, b, modes=modes)
        allowed = [r * s for r, s in zip(core_ranks(a), core_ranks(b), strict=True)]
        if any(rank > most for rank, most in zip(core_ranks(product), allowed, strict=True)):
            fail(function, f"for {by_short(modes)} trains the ranks multiply to {tuple(allowed)} at most")
        for index in indices(draw, modes):
            close(function, entry(product, index), entry(a, index) * entry(b, index), f"at index {index}:")


@exercise
def multiply_by_hand(function: Callable) -> None:
    """The train of i + j times itself must have the entries (i + j)²."""
    a = sum_train()
    product = cores_from(function, a, a, modes=(3, 3))
    close(function, tt_to_tensor(product), torch.tensor([[0.0, 1, 4], [1, 4, 9], [4, 9, 16]]).double(), "(i + j)²:")


# ------------------------------------------------------------------------------------------- what the checks share


def train(draw: torch.Generator, modes: Sequence[int], rank: int) -> list[Tensor]:
    """Random cores (r_{k-1}, n_k, r_k) in float64 whose tensor has entries of about 1, however many modes it has."""
    ranks = clip_ranks(modes, rank)
    shapes = list(zip(ranks, modes, ranks[1:], strict=False))
    return [torch.randn(shape, generator=draw, dtype=torch.float64) / sqrt(shape[0]) for shape in shapes]


def short_modes(draw: torch.Generator) -> list[tuple[int, ...]]:
    """Modes of three tensors: 2, 3 and 4 axes, of 2 to 5 values each, not all equal."""
    sizes = [torch.randint(2, 6, (order,), generator=draw).tolist() for order in (2, 3, 4)]
    return [tuple(modes[:-1]) + (modes[0] + 1,) for modes in sizes]


def indices(draw: torch.Generator, modes: Sequence[int]) -> list[tuple[int, ...]]:
    """A few places of a tensor: its corners and some drawn at random."""
    drawn = [tuple(int(torch.randint(mode, (), generator=draw)) for mode in modes) for _ in range(6)]
    return [(0,) * len(modes), tuple(mode - 1 for mode in modes), *drawn]


def entry(cores: Sequence[Tensor], index: Sequence[int]) -> Tensor:
    """One entry of the tensor that the cores stand for."""
    row = cores[0].new_ones(1, 1)
    for core, i in zip(cores, index, strict=True):
        row = row @ core[:, i]
    return row[0, 0]


def sum_train() -> list[Tensor]:
    """The cores of the 3 × 3 tensor i + j, as chapter 1 writes them."""
    n, one = torch.arange(3.0, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    return [torch.stack([n, one], dim=-1)[None], torch.stack([one, n])[..., None]]


def cores_from(function: Callable, *arguments, modes: Sequence[int]) -> list[Tensor]:
    """What the student's function says, if that is a train with these modes in the dtype of its arguments."""
    cores = as_cores(function, ask_twice(function, *arguments, without=LIBRARY), modes)
    kind = arguments[0][0].dtype
    if any(core.dtype != kind for core in cores):
        fail(function, f"expected cores in {kind}, as it was given, got {cores[0].dtype}")
    return cores


def by_short(modes: Sequence[int]) -> str:
    """Modes as words."""
    return by(modes) if len(modes) < 6 else f"{len(modes)}-mode"
