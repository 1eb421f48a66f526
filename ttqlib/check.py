"""The checks behind the exercises: each takes the reader's function, tries it on random inputs and says what is wrong.

A failed check is one plain line, without a traceback. Checks test what the result must satisfy, so any correct way to
write the function passes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .shapes import clip_ranks
from .tensor_train import core_ranks, tt_to_tensor


class CheckFailed(AssertionError):
    """An exercise is not solved yet; the message says what was expected and what came."""

    def _render_traceback_(self) -> list[str]:  # IPython shows these lines instead of a traceback
        return [f"CheckFailed: {self}"]


def tt_entry(function: Callable) -> None:
    """`function(cores, index)` must return the one entry of the tensor that `cores` stand for."""
    for seed, modes in enumerate([(2, 3, 4), (5, 5), (3, 2, 2, 4)]):
        cores = _random_cores(modes, rank=3, seed=seed)
        full = tt_to_tensor(cores)
        for index in [(0,) * len(modes), tuple(m - 1 for m in modes), tuple(m // 2 for m in modes)]:
            got = _call(function, cores, index)
            _close(function, got, full[index], f"at index {index} of a {_by(modes)} train")
    _passed(function)


def tt_storage(function: Callable) -> None:
    """`function(modes, rank)` must return how many numbers a train needs, useless ranks clipped."""
    for modes, rank in [((10, 10, 10), 2), ((2,) * 10, 5), ((12, 8, 8, 8, 8, 12), 30), ((7, 3), 100), ((4, 4, 4), 1)]:
        expected = sum(core.numel() for core in _random_cores(modes, rank))
        got = _call(function, modes, rank)
        if got != expected:
            _fail(function, f"for modes {modes} and rank {rank} expected {expected}, got {got!r}")
    _passed(function)


def tt_add(function: Callable) -> None:
    """`function(a, b)` must return cores of the sum of two trains, built from their cores alone."""
    for seed, modes in enumerate([(2, 3, 4), (5, 4), (2, 2, 2, 2, 2)]):
        a, b = _random_cores(modes, rank=2, seed=seed), _random_cores(modes, rank=1, seed=seed + 100)
        before = [core.clone() for core in (*a, *b)]
        cores = _cores(function, _call(function, a, b), modes)
        if not all(map(torch.equal, before, (*a, *b))):
            _fail(function, "the cores it was given must stay as they were")
        _close(function, tt_to_tensor(cores), tt_to_tensor(a) + tt_to_tensor(b), f"for two {_by(modes)} trains")
        largest = [r + s for r, s in zip(core_ranks(a), core_ranks(b), strict=True)][1:-1]
        if any(rank > limit for rank, limit in zip(core_ranks(cores)[1:-1], largest, strict=True)):
            _fail(function, f"ranks add up to {largest} for {_by(modes)} trains, got {list(core_ranks(cores)[1:-1])}")
    _passed(function)


def digits(function: Callable) -> None:
    """`function(number, modes)` must return the mixed-radix digits of a number, the first the most significant."""
    for modes in [(2, 2, 2), (32, 31, 31), (3, 4), (7,)]:
        total = 1
        for mode in modes:
            total *= mode
        for number in {0, 1, total // 2, total - 1}:
            got = _call(function, number, modes)
            expected = tuple(int(d) for d in torch.unravel_index(torch.tensor(number), modes))
            if not isinstance(got, Sequence) or tuple(int(d) for d in got) != expected:
                _fail(function, f"for {number} in modes {modes} expected {expected}, got {got!r}")
    _passed(function)


def embedding_row(function: Callable) -> None:
    """`function(cores, index)` must return one row of a TT-matrix without building the table."""
    for seed, (rows, columns) in enumerate([((2, 3), (2, 2)), ((4, 3, 5), (2, 3, 2)), ((1000, 1000, 1000), (4, 4, 4))]):
        cores = _random_cores([r * c for r, c in zip(rows, columns, strict=True)], rank=3, seed=seed)
        cores = [core.reshape(len(core), r, c, -1) for core, r, c in zip(cores, rows, columns, strict=True)]
        total = torch.Size(rows).numel()
        for index in {0, total // 3, total - 1}:  # the last table has 64 · 10⁹ entries: building it cannot work
            picked = [core[:, d] for core, d in zip(cores, torch.unravel_index(torch.tensor(index), rows), strict=True)]
            expected = tt_to_tensor(picked).flatten()
            got = _call(function, cores, index)
            _close(function, got, expected, f"for row {index} of a table with {_by(rows)} rows")
    _passed(function)


def interleave(function: Callable) -> None:
    """`function(matrix, row_modes, column_modes)` must return the tensor whose mode k pairs row and column mode k."""
    for seed, (rows, columns) in enumerate([((2, 2), (2, 2)), ((2, 3), (4, 5)), ((3, 2, 2), (2, 2, 5))]):
        generator = torch.Generator().manual_seed(seed)
        factors = [torch.randn(m, n, generator=generator) for m, n in zip(rows, columns, strict=True)]
        matrix = factors[0]
        for factor in factors[1:]:
            matrix = torch.kron(matrix, factor)
        expected = factors[0].flatten()  # a Kronecker product becomes an outer product of its factors
        for factor in factors[1:]:
            expected = expected.unsqueeze(-1) * factor.flatten()
        got = _call(function, matrix, rows, columns)
        _close(function, got, expected, f"for a Kronecker product with row modes {rows} and column modes {columns}")
    _passed(function)


def _random_cores(modes: Sequence[int], rank: int, seed: int = 0) -> list[Tensor]:
    generator, ranks = torch.Generator().manual_seed(seed), clip_ranks(modes, rank)
    shapes = zip(ranks, modes, ranks[1:], strict=False)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _call(function: Callable, *arguments):
    try:
        return function(*arguments)
    except NotImplementedError:
        problem = "not written yet"
    except Exception as error:
        problem = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    _fail(function, problem)


def _cores(function: Callable, cores, modes: Sequence[int]) -> list[Tensor]:
    """`cores` if they are a list of chained cores with these modes; else the check fails."""
    shapes = [tuple(getattr(core, "shape", ())) for core in cores] if isinstance(cores, Sequence) else []
    chained = len(shapes) == len(modes) and all(len(s) == 3 and s[1] == m for s, m in zip(shapes, modes, strict=True))
    if chained:
        bonds = [1, *(s[2] for s in shapes)]
        chained = bonds[-1] == 1 and all(s[0] == left for s, left in zip(shapes, bonds, strict=False))
    if not chained:
        _fail(function, f"expected cores (r, n, r') that fit together, with modes {tuple(modes)}; got shapes {shapes}")
    return list(cores)


def _close(function: Callable, got, expected: Tensor, where: str) -> None:
    try:
        got = torch.as_tensor(got, dtype=expected.dtype)
    except (TypeError, ValueError, RuntimeError):
        _fail(function, f"{where} expected a tensor of shape {tuple(expected.shape)}, got {type(got).__name__}")
    if got.shape != expected.shape:
        _fail(function, f"{where} expected shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    if not torch.allclose(got, expected, rtol=1e-5, atol=1e-7):
        _fail(function, f"{where} the values are off by up to {float((got - expected).abs().max()):.3g}")


def _fail(function: Callable, problem: str):
    raise CheckFailed(f"{getattr(function, '__name__', 'your function')}: {problem}") from None


def _passed(function: Callable) -> None:
    print(f"{function.__name__}: correct")


def _by(modes: Sequence[int]) -> str:
    return " × ".join(map(str, modes))
