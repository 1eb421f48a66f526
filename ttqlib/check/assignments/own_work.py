"""A guard that notices where a function calls the library for what it was asked to write itself."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from types import CodeType, FrameType, FunctionType

from ..verdict import CheckFailed

PEERS = ("tensorly",)  # packages that do what is asked for; ttqlib's own calls of them are its own business


@contextmanager
def without_library(*names: str) -> Iterator[None]:
    """While this block runs, calling one of the named functions, or anything of TensorLy, fails the check.

    `names` are public names of ttqlib ("tt_svd", "TTLinear" for any of its methods) or dotted ones of another package
    ("torch.autograd.grad", "torch.fake_quantize_per_tensor_affine"). A call is seen by what is called, not by the name
    under which it was imported. It is seen, too, where the block catches the error.

    Raises:
        CheckFailed: "write it yourself: … was called".
        AttributeError: a name that does not exist.
    """
    codes, builtins = _forbidden(names)
    called = []

    def watch(frame: FrameType, event: str, function: object) -> None:
        name = None
        if event == "call":
            name = codes.get(frame.f_code) or _peer(frame)
        elif event == "c_call":
            name = builtins.get(id(function))
        if name:
            called.append(name)
            raise CheckFailed(f"write it yourself: {name} was called")  # ends the call at once, and the watch with it

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
        if called:
            raise CheckFailed(f"write it yourself: {called[0]} was called") from None


def _forbidden(names: tuple[str, ...]) -> tuple[dict[CodeType, str], dict[int, str]]:
    """The names by the code that runs when they are called; those of functions written in C by their identity."""
    codes, builtins = {}, {}
    for name in names:
        package, _, path = ("ttqlib." + name if "." not in name else name).partition(".")
        value = reduce(getattr, path.split("."), import_module(package))
        parts = [value] if not inspect.isclass(value) else list(vars(value).values())
        found = [code for part in parts if (code := _code(part))]
        codes |= dict.fromkeys(found, name)
        if not found:
            builtins[id(value)] = name
    return codes, builtins


def _code(value: Callable) -> CodeType | None:
    value = inspect.unwrap(getattr(value, "__func__", value))  # decorators share the code of their wrapper
    return value.__code__ if isinstance(value, FunctionType) else None


def _peer(frame: FrameType) -> str | None:
    """The function of one of the `PEERS` that a frame belongs to, where neither they nor ttqlib have called it."""
    package, caller = _package(frame), frame.f_back
    if package not in PEERS or frame.f_code.co_name.startswith("<"):  # "<module>": it is only imported
        return None
    while _package(caller) == "contextlib":  # which enters a `with` for whoever wrote it
        caller = caller.f_back
    return None if _package(caller) in (*PEERS, "ttqlib") else f"{package}'s {frame.f_code.co_name}"


def _package(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] if frame else ""
