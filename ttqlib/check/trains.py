"""Cores, trains and layers made of them."""

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor

from ..tensors.tensor_train import core_ranks, tt_to_tensor
from .forbidden import call_by_hand, call_small
from .verdict import answers, as_cores, by, call, close, counts, exercise, fail, random_cores

# The full tensor of such a train has 16 · 10¹² entries, and half of the train multiplied out fits in no memory either.
HUGE = (2000,) * 4


@exercise
def tt_entry(function: Callable) -> None:
    """`function(cores, index)` must return the one entry of the tensor that `cores` stand for, from a few products."""
    for seed, modes in enumerate([(2, 3, 4), (5, 5), (3, 2, 2, 4)]):
        cores = random_cores(modes, rank=3, seed=seed)
        full = tt_to_tensor(cores)
        for index in [(0,) * len(modes), tuple(m - 1 for m in modes), tuple(m // 2 for m in modes)]:
            answers(function, (cores, index), full[index], f"at index {index} of a {by(modes)} train")
    cores, index = random_cores(HUGE, rank=5), (1999, 0, 1234, 7)
    answers(function, (cores, index), _entry(cores, index), f"at index {index} of a {by(HUGE)} train")


def _entry(cores: Sequence[Tensor], index: Sequence[int]) -> Tensor:
    return reduce(torch.matmul, [core[:, i] for core, i in zip(cores, index, strict=True)])[0, 0]


@exercise
def tt_storage(function: Callable) -> None:
    """`function(modes, rank)` must return how many numbers a train needs, useless ranks clipped."""
    for modes, rank in [((10, 10, 10), 2), ((2,) * 10, 5), ((12, 8, 8, 8, 8, 12), 30), ((7, 3), 100), ((4, 4, 4), 1)]:
        expected = sum(core.numel() for core in random_cores(modes, rank))
        counts(function, (modes, rank), expected, f"for modes {modes} and rank {rank}", whole=True)


@exercise
def tt_add(function: Callable) -> None:
    """`function(a, b)` must return cores of the sum of two trains, built from their cores alone."""
    for seed, modes in enumerate([(2, 3, 4), (5, 4), (2, 2, 2, 2, 2), HUGE]):
        a, b = random_cores(modes, rank=2, seed=seed), random_cores(modes, rank=1, seed=seed + 100)
        cores = as_cores(function, call(function, a, b), modes)
        same = [torch.as_tensor(core, dtype=torch.float64) for core in cores]  # torch.zeros makes float32
        got, expected = _sampled(same), _sampled(a) + _sampled(b)
        close(function, got, expected, f"for two {by(modes)} trains")
        largest = [r + s for r, s in zip(core_ranks(a), core_ranks(b), strict=True)][1:-1]
        if any(rank > limit for rank, limit in zip(core_ranks(cores)[1:-1], largest, strict=True)):
            fail(function, f"ranks add up to {largest} for {by(modes)} trains, got {list(core_ranks(cores)[1:-1])}")


def _sampled(cores: Sequence[Tensor]) -> Tensor:
    """The tensor, of a train with long modes its corners and middles: every entry at their first, fifth … index."""
    return tt_to_tensor([core[:, :: max(1, core.shape[1] // 4)] for core in cores])


@exercise
def digits(function: Callable) -> None:
    """`function(number, modes)` must return the mixed-radix digits of a number, the first the most significant."""
    for modes in [(2, 2, 2), (32, 31, 31), (3, 4), (7,), (5, 4, 3, 2)]:
        total = prod(modes)
        for number in sorted({0, 1, total // 2, total - 1}):
            got = call(function, number, modes)
            if not isinstance(got, tuple):
                fail(function, f"expected a tuple of ints for {number} in modes {modes}, got {got!r}")
            expected = tuple(int(d) for d in torch.unravel_index(torch.tensor(number), modes))
            if got != expected:
                fail(function, f"for {number} in modes {modes} expected {expected}, got {got!r}")
            if not all(type(digit) is int for digit in got):
                fail(function, f"expected digits that are ints for {number} in modes {modes}, got {got!r}")


@exercise
def embedding_row(function: Callable) -> None:
    """`function(cores, index)` must return one row of a TT-matrix without building the table."""
    for seed, (rows, columns) in enumerate([((2, 3), (2, 2)), ((4, 3, 5), (2, 3, 2)), ((1000, 1000, 1000), (4, 4, 4))]):
        cores = random_cores([r * c for r, c in zip(rows, columns, strict=True)], rank=3, seed=seed)
        cores = [core.reshape(len(core), r, c, -1) for core, r, c in zip(cores, rows, columns, strict=True)]
        total = torch.Size(rows).numel()
        for index in sorted({0, total // 3, total - 1}):  # the last table has 64 · 10⁹ entries: building it cannot work
            picked = [core[:, d] for core, d in zip(cores, torch.unravel_index(torch.tensor(index), rows), strict=True)]
            expected = tt_to_tensor(picked).flatten()
            answers(function, (cores, index), expected, f"for row {index} of a table with {by(rows)} rows")


@exercise
def interleave(function: Callable) -> None:
    """`function(matrix, row_modes, column_modes)` must return the tensor whose mode k pairs row and column mode k."""
    cases = [((2, 2), (2, 2)), ((2, 3), (4, 5)), ((3, 2, 2), (2, 2, 5)), ((2, 3, 2, 2), (3, 1, 2, 2)), ((4,), (3,))]
    for seed, (rows, columns) in enumerate(cases):
        generator, matrix, expected = torch.Generator().manual_seed(seed), 0, 0
        for _ in range(2):  # each Kronecker product becomes an outer product of its factors, their sum a sum of those
            factors = [torch.randn(m, n, generator=generator) for m, n in zip(rows, columns, strict=True)]
            matrix = matrix + reduce(torch.kron, factors)
            expected = expected + tt_to_tensor([factor.reshape(1, -1, 1) for factor in factors])
        where = f"for a sum of Kronecker products with row modes {rows} and column modes {columns}"
        answers(function, (matrix, rows, columns), expected, where)


@exercise
def tt_forward(function: Callable) -> None:
    """`function(x, cores, order)` must return x W for the W whose first `order` cores hold the input modes."""
    for seed, (inputs, outputs, rank) in enumerate([((2, 3), (4,), 2), ((2, 2, 3), (3, 2, 2), 3), ((5,), (3, 4), 3)]):
        cores = random_cores(inputs + outputs, rank, seed)
        weight = tt_to_tensor(cores).reshape(torch.Size(inputs).numel(), -1)
        for rows in (1, 4):
            x = torch.randn(rows, len(weight), dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
            where = f"for {rows} rows, input modes {inputs} and output modes {outputs}"
            answers(function, (x, cores, len(inputs)), x @ weight, where)
    cores, x, expected = _huge()
    close(function, call_small(function, x, cores, 3, whole="the weight"), expected, "for a million inputs and outputs")


@exercise
def core_scale(function: Callable) -> None:
    """`function(ranks, std)` must return the standard deviation of core entries that gives W entries of `std`."""
    for ranks, std in [((1, 1), 0.5), ((1, 4, 1), 0.5), ((1, 12, 30, 30, 30, 12, 1), 0.02), ((1, 2, 3, 2, 1), 1.0)]:
        spread = torch.tensor(ranks, dtype=torch.float64).prod().sqrt()
        expected = (std / spread) ** (1 / (len(ranks) - 1))
        for given in (ranks, list(ranks)):
            answers(function, (given, std), expected, f"for ranks {ranks} and std {std}")


@exercise
def core_gradient(function: Callable) -> None:
    """`function(cores, gradient, k)` must return the gradient of core k, given that of the whole tensor."""
    long = (2, 3, *(1,) * 30, 4, 2)  # more modes and bonds than there are letters
    for seed, modes in enumerate([(2, 3, 4), (3, 2, 2, 4), (5, 4), long]):
        cores = [core.requires_grad_() for core in random_cores(modes, rank=3, seed=seed)]
        gradient = torch.randn(modes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        tt_to_tensor(cores).backward(gradient)
        train = f"a train of {len(modes)} cores" if modes is long else f"a {by(modes)} train"
        for k, core in enumerate(cores):
            got = call_by_hand(function, [core.detach() for core in cores], gradient, k)
            close(function, got, core.grad, f"for core {k} of {train}")


def _huge() -> tuple[list[Tensor], Tensor, Tensor]:
    """Cores of rank 1 for a million inputs and outputs, one row of ones, and what comes out of it."""
    cores, x = random_cores((100,) * 6, rank=1), torch.ones(1, 100**3, dtype=torch.float64)
    sums = [core.sum() for core in cores[:3]]
    return cores, x, (sums[0] * sums[1] * sums[2] * tt_to_tensor(cores[3:])).reshape(1, -1)
