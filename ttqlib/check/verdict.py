"""What every check is made of: calling the reader's function, and one plain line that says what is wrong."""

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index

import torch
from torch import Tensor

from ..tensors.shapes import clip_ranks


class CheckFailed(AssertionError):
    """An exercise is not solved yet; the message says what was expected and what came."""

    def _render_traceback_(self) -> list[str]:  # IPython shows these lines instead of a traceback
        return [f"CheckFailed: {self}"]


def exercise(check: Callable[..., None]) -> Callable[..., None]:
    """A check that says "correct" where it finds nothing to fail the reader's function for."""

    @wraps(check)
    def checked(function: Callable, **settings) -> None:
        check(function, **settings)
        print(f"{getattr(function, '__name__', 'your function')}: correct")

    return checked


def random_cores(modes: Sequence[int], rank: int, seed: int = 0) -> list[Tensor]:
    """Cores (r_{k-1}, n_k, r_k) in float64, of ranks that the modes can use."""
    generator, ranks = torch.Generator().manual_seed(seed), clip_ranks(modes, rank)
    shapes = zip(ranks, modes, ranks[1:], strict=False)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def call(function: Callable, *arguments):
    """What the reader's function says; the check fails where it raises, or changes tensors or lists it was given."""
    before = [_copied(argument) for argument in arguments]
    try:
        got = function(*arguments)
    except NotImplementedError:
        fail(function, "not written yet")
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            fail(function, "asked for more memory than there is: work with the cores, build nothing of full size")
        fail(function, f"raised {type(error).__name__}: {' '.join(str(error).split())}")
    if not all(map(_same, before, arguments)):
        fail(function, "what it was given must stay as it was: change a copy")
    return got


def _copied(value):
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _same(before, after) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return before is after or before == after


def as_cores(function: Callable, cores, modes: Sequence[int]) -> list[Tensor]:
    """`cores` if they are a list of chained cores with these modes; else the check fails."""
    shapes = [tuple(getattr(core, "shape", ())) for core in cores] if isinstance(cores, Sequence) else []
    chained = len(shapes) == len(modes) and all(len(s) == 3 and s[1] == m for s, m in zip(shapes, modes, strict=True))
    if chained:
        bonds = [1, *(s[2] for s in shapes)]
        chained = bonds[-1] == 1 and all(s[0] == left for s, left in zip(shapes, bonds, strict=False))
    if not chained:
        fail(function, f"expected cores (r, n, r') that fit together, with modes {tuple(modes)}; got shapes {shapes}")
    return list(cores)


def answers(function: Callable, arguments: tuple, expected: Tensor, where: str) -> None:
    """What the function says of these arguments must be `expected`, up to rounding."""
    close(function, call(function, *arguments), expected, where)


def counts(function: Callable, arguments: tuple, expected: int | None, where: str, whole: bool = False) -> None:
    """What the function says of these arguments must be this number; if `whole`, of a kind that can count places."""
    got = call(function, *arguments)
    try:
        number = index(got) if whole else got
    except TypeError:
        number = None
    if isinstance(got, bool) or number != expected:
        kind = "the whole number " if whole and isinstance(got, float) else ""
        fail(function, f"{where} expected {kind}{expected}, got {got!r}")


def close(function: Callable, got, expected: Tensor, where: str) -> None:
    """The check fails where `got` has not the shape of `expected`, or not its values, up to rounding."""
    try:
        got = torch.as_tensor(got, dtype=expected.dtype)
    except (TypeError, ValueError, RuntimeError):
        fail(function, f"{where} expected a tensor of shape {tuple(expected.shape)}, got {type(got).__name__}")
    if got.shape != expected.shape:
        fail(function, f"{where} expected shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    if torch.allclose(got, expected, rtol=1e-5, atol=1e-7):
        return
    both = "" if expected.ndim else f": expected {float(expected):.6g}, got {float(got):.6g}"
    fail(function, f"{where} the values are off by up to {float((got - expected).abs().max()):.3g}{both}")


def fail(function: Callable, problem: str):
    """Raise CheckFailed, in one line and without the error behind it."""
    raise CheckFailed(f"{getattr(function, '__name__', 'your function')}: {problem}") from None


def listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def by(modes: Sequence[int]) -> str:
    return " × ".join(map(str, modes))
