"""How a check calls a student's function: guarded, with its arguments watched, and more than once."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..verdict import CheckFailed, call, fail
from .memory import limited_memory
from .own_work import without_library


def ask(function: Callable, *arguments, without: Sequence[str] = ()):
    """What a student's function says of these arguments; the check fails where it does what no answer may do.

    It may not raise, not change its arguments, not fill the memory, and not call what `without` names (see
    `without_library`).

    Raises:
        CheckFailed: in one line, with the reason.
    """
    if not callable(function):
        raise CheckFailed(f"expected a function, got {type(function).__name__}")
    given = copy.deepcopy(arguments)
    try:
        with without_library(*without), limited_memory():
            got = function(*given)
    except CheckFailed as refused:
        fail(function, str(refused))
    except NotImplementedError:
        fail(function, "not written yet")
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            fail(function, "asked for more memory than there is: what it builds grows too fast, work core by core")
        fail(function, f"raised {type(error).__name__}: {' '.join(str(error).split())}")
    if not same(given, arguments):
        fail(function, "what it was given must stay as it was: it changed its arguments")
    return got


def ask_twice(function: Callable, *arguments, without: Sequence[str] = ()):
    """As `ask`, and the check fails where a second call with the same arguments says something else."""
    first, second = (ask(function, *arguments, without=without) for _ in range(2))
    if not same(first, second):
        fail(function, "called twice with the same arguments, it gave two answers: what does it keep between calls?")
    return second


def call_without(function: Callable, *arguments, without: Sequence[str]):
    """As `call`, and the check fails where the function calls what `without` names."""
    try:
        with without_library(*without):
            return call(function, *arguments)
    except CheckFailed as refused:
        fail(function, str(refused).removeprefix(f"{getattr(function, '__name__', 'your function')}: "))


def same(one, other) -> bool:
    """Whether two arguments hold the same: tensors bit for bit (also where both are NaN), and whatever holds them."""
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan())
    if isinstance(one, torch.nn.Module):
        return type(one) is type(other) and same(one.state_dict(), other.state_dict())
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)
