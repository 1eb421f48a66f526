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


def stored_bytes(function: Callable) -> None:
    """`function(shapes, bits)` must return the bytes of packed codes and one float32 step size for each array."""
    for shapes, bits in [([(1, 8, 10)], 4), ([(1, 3, 3), (3, 5, 1)], 3), ([(7,), (7,), (7,)], 1), ([], 4), ([(6,)], 8)]:
        expected = sum(-(-torch.Size(shape).numel() * bits // 8) + 4 for shape in shapes)
        got = _call(function, shapes, bits)
        if got != expected or isinstance(got, bool):
            _fail(function, f"for shapes {shapes} at {bits} bits expected {expected} bytes, got {got!r}")
    _passed(function)


def mean_pool(function: Callable) -> None:
    """`function(states, mask)` must return the mean over the tokens whose mask is 1, for each sentence."""
    generator = torch.Generator().manual_seed(0)
    for lengths, padded in [((4, 4), 4), ((3, 1, 5), 5), ((2, 6), 9)]:
        states = torch.randn(len(lengths), padded, 8, generator=generator, dtype=torch.float64)
        mask = (torch.arange(padded) < torch.tensor(lengths)[:, None]).long()
        expected = torch.stack([row[:length].mean(0) for row, length in zip(states, lengths, strict=True)])
        got = _call(function, states.clone(), mask.clone())
        _close(function, got, expected, f"for sentences of {_and(lengths)} tokens, padded to {padded},")
    _passed(function)


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


def tt_forward(function: Callable) -> None:
    """`function(x, cores, order)` must return x W for the W whose first `order` cores hold the input modes."""
    for seed, (inputs, outputs, rank) in enumerate([((2, 3), (4,), 2), ((2, 2, 3), (3, 2, 2), 3), ((5,), (3, 4), 3)]):
        cores = _random_cores(inputs + outputs, rank, seed)
        weight = tt_to_tensor(cores).reshape(torch.Size(inputs).numel(), -1)
        for rows in (1, 4):
            x = torch.randn(rows, len(weight), dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
            got = _call(function, x, cores, len(inputs))
            _close(function, got, x @ weight, f"for {rows} rows, input modes {inputs} and output modes {outputs}")
    modes = (40,) * 6  # its weight has 4 · 10⁹ entries: building it cannot work
    cores, x = _random_cores(modes, rank=1), torch.ones(1, 40**3, dtype=torch.float64)
    sums = [core.sum() for core in cores[:3]]
    got = _call(function, x, cores, 3)
    expected = (sums[0] * sums[1] * sums[2] * tt_to_tensor(cores[3:])).reshape(1, -1)
    _close(function, got, expected, "for 64,000 inputs and outputs at rank 1")
    _passed(function)


def core_scale(function: Callable) -> None:
    """`function(ranks, std)` must return the standard deviation of core entries that gives W entries of `std`."""
    for ranks, std in [((1, 1), 0.5), ((1, 4, 1), 0.5), ((1, 12, 30, 30, 30, 12, 1), 0.02), ((1, 2, 3, 2, 1), 1.0)]:
        got = _call(function, ranks, std)
        expected = torch.tensor(ranks, dtype=torch.float64)
        expected = (std / expected.prod().sqrt()) ** (1 / (len(ranks) - 1))
        _close(function, got, expected, f"for ranks {ranks} and std {std}")
    _passed(function)


def core_gradient(function: Callable) -> None:
    """`function(cores, gradient, k)` must return the gradient of core k, given that of the whole tensor."""
    for seed, modes in enumerate([(2, 3, 4), (3, 2, 2, 4), (5, 4)]):
        cores = [core.requires_grad_() for core in _random_cores(modes, rank=3, seed=seed)]
        gradient = torch.randn(modes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        tt_to_tensor(cores).backward(gradient)
        for k, core in enumerate(cores):
            got = _call(function, [core.detach() for core in cores], gradient, k)
            _close(function, got, core.grad, f"for core {k} of a {_by(modes)} train")
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


def _and(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _by(modes: Sequence[int]) -> str:
    return " × ".join(map(str, modes))
