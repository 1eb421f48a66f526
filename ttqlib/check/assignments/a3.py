"""Assignment 3, a linear layer whose weight is an interleaved TT-matrix: costs of its orders, forward, gradients.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw their inputs from a seed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from math import prod

import torch
from torch import Tensor

from ...measures.clock import peak_bytes
from ..verdict import close, exercise, fail
from .asking import ask, ask_twice
from .interleaved import ORDERS, costs, dense, gradients, random_layer
from .own_work import AUTOGRAD
from .seeds import generator

LIBRARY = ("flops", "TTLinear", "TTMEmbedding", "tt_matrix_to_matrix", "tt_matrix", "tt_to_tensor")
LIBRARY += tuple(f"ttqlib.check.assignments.interleaved.{name}" for name in ("costs", "dense", "gradients"))


# -------------------------------------------------------------------------------------------------------- questions


@exercise
def left_to_right_by_hand(function: Callable) -> None:
    """Two cores, one row: 48 FLOPs each."""
    _number(function, ((2, 3), (2, 2), (1, 2, 1), 1), 96)


@exercise
def left_to_right(function: Callable, seed: int = 0) -> None:
    """`function(in_modes, out_modes, ranks, rows)` must return the FLOPs of this order."""
    for shape in _shapes(seed, "left to right"):
        _number(function, shape, costs(*shape)["left to right"])


@exercise
def cheapest_by_hand(function: Callable) -> None:
    """Two layers of two cores: for one row and for many."""
    for rows in (1, 100):
        _cheapest(function, ((2, 3), (2, 2), (1, 2, 1), rows))


@exercise
def cheapest(function: Callable, seed: int = 0) -> None:
    """`function(in_modes, out_modes, ranks, rows)` must return the name of the cheapest order, and its FLOPs."""
    for shape in _shapes(seed, "cheapest"):
        for rows in (shape[3], 1, 10_000):
            _cheapest(function, (*shape[:3], rows))


@exercise
def forward_by_hand(function: Callable) -> None:
    """The Kronecker product of chapter 2, as two cores of rank 1."""
    _close(function, (KRONECKER_X, KRONECKER), torch.tensor([[1.0, 7, 2, 10]]).double(), "on paper y is (1, 7, 2, 10):")


@exercise
def forward(function: Callable, seed: int = 0) -> None:
    """`function(x, cores)` must return x W without building W."""
    for x, cores, where in _layers(seed, "forward"):
        _close(function, (x, cores), dense(x, cores), where)


@exercise
def core_gradient_by_hand(function: Callable) -> None:
    """The gradients of both factors of a Kronecker product, where the loss is the last output."""
    for k, wanted in enumerate([[[0.0, 1], [0, 2]], [[0.0, 2], [0, 8]]]):
        given = (KRONECKER_X, LAST, KRONECKER, k)
        _close(
            function,
            given,
            torch.tensor(wanted).double()[None, ..., None],
            f"on paper the gradient of core {k} is {wanted}:",
        )


@exercise
def core_gradient(function: Callable, seed: int = 0) -> None:
    """`function(x, gradient, cores, k)` must return ∂L/∂G_k for ∂L/∂y = `gradient`, no matrix n × m being built."""
    draw = generator(seed, "gradients of outputs")
    for x, cores, where in _layers(seed, "core gradient"):
        gradient = torch.randn(dense(x, cores).shape, generator=draw, dtype=x.dtype)
        _, *wanted = gradients(x, gradient, cores)
        for k in range(len(cores)):
            _close(function, (x, gradient, cores, k), wanted[k], f"for core {k}, {where}")


@exercise
def input_gradient_by_hand(function: Callable) -> None:
    """The gradient of x, where the loss is the last output: the last column of the Kronecker product."""
    _close(function, (LAST, KRONECKER), torch.tensor([[2.0, 2, 4, 4]]).double(), "on paper it is (2, 2, 4, 4):")


@exercise
def input_gradient(function: Callable, seed: int = 0) -> None:
    """`function(gradient, cores)` must return ∂L/∂x for ∂L/∂y = `gradient`, without building W."""
    draw = generator(seed, "gradients of outputs")
    for x, cores, where in _layers(seed, "input gradient"):
        gradient = torch.randn(dense(x, cores).shape, generator=draw, dtype=x.dtype)
        _close(function, (gradient, cores), gradients(x, gradient, cores)[0], where)


@exercise
def descent_by_hand(function: Callable) -> None:
    """One core, which is the whole weight."""
    given = (torch.tensor([[1.0, 0]]).double(), torch.zeros(1, 2).double(), KRONECKER[:1], 0.5)
    _descends(
        function,
        given,
        [torch.tensor([[0.5, 1], [3, 4]]).double()[None, ..., None]],
        "on paper it is [[0.5, 1], [3, 4]]:",
    )


@exercise
def descent(function: Callable, seed: int = 0) -> None:
    """`function(x, targets, cores, rate)` must return the cores after one step of gradient descent."""
    draw = generator(seed, "targets")
    for x, cores, where in _layers(seed, "descent"):
        y = dense(x, cores)
        targets, rate = torch.randn(y.shape, generator=draw, dtype=x.dtype), 0.1 * float(torch.rand((), generator=draw))
        _, *slopes = gradients(x, 2 * (y - targets) / y.numel(), cores)
        stepped = [core - rate * slope for core, slope in zip(cores, slopes, strict=True)]
        _descends(function, (x, targets, cores, rate), stepped, where)


# ------------------------------------------------------------------------------------------- what the checks share

KRONECKER = [
    torch.tensor([[1.0, 2], [3, 4]]).double()[None, ..., None],
    torch.tensor([[1.0, 1], [0, 1]]).double()[None, ..., None],
]
KRONECKER_X = torch.tensor([[1.0, 0, 0, 2]]).double()
LAST = torch.tensor([[0.0, 0, 0, 1]]).double()
THIN = ((6, 9, 8), (7, 6, 10))  # modes of a weight that is far larger than anything a layer has to hold


def _shapes(seed: int, question: str) -> Iterator[tuple]:
    """Modes, ranks and rows of layers with one to four cores, all drawn at random."""
    draw = generator(seed, question)
    for order in (2, 3, 1, 4, 3):
        inputs, outputs, bonds = (torch.randint(2, 9, (order,), generator=draw).tolist() for _ in range(3))
        yield inputs, outputs, [1, *bonds[1:], 1], int(torch.randint(1, 40, (), generator=draw))


def _layers(seed: int, question: str) -> Iterator[tuple[Tensor, list[Tensor], str]]:
    """Inputs, cores, and words for them; the last is so large that holding its dense weight shows."""
    draw = generator(seed, question)
    sizes = [torch.randint(2, 6, (2, order), generator=draw).tolist() for order in (2, 3, 1, 4)]
    for rows, (inputs, outputs) in zip((3, 1, 2, 4, 2), [*sizes, THIN], strict=True):
        x = torch.randn(rows, prod(inputs), generator=draw, dtype=torch.float64)
        where = f"for {rows} row{'s' * (rows > 1)}, input modes {tuple(inputs)} and output modes {tuple(outputs)}:"
        yield x, random_layer(draw, inputs, outputs, 2), where


def _number(function: Callable, shape: tuple, wanted: int) -> None:
    got = ask_twice(function, *shape, without=LIBRARY)
    if isinstance(got, bool) or not isinstance(got, int | float) or got != wanted:
        fail(function, f"{_words(shape)} expected {wanted:,} FLOPs, got {_shown(got)}")


def _cheapest(function: Callable, shape: tuple) -> None:
    got = ask_twice(function, *shape, without=LIBRARY)
    if not (isinstance(got, tuple | list) and len(got) == 2 and got[0] in ORDERS):
        fail(function, f"expected one of the names {', '.join(ORDERS)}, and its FLOPs, got {_shown(got)}")
    every = costs(*shape)
    if got[1] != every[got[0]]:
        fail(function, f"{_words(shape)} {got[0]} takes {every[got[0]]:,} FLOPs, got {_shown(got[1])}")
    if got[1] > min(every.values()):
        fail(
            function,
            f"{_words(shape)} {got[0]} takes {got[1]:,} FLOPs, but another order takes {min(every.values()):,}",
        )


def _words(shape: tuple) -> str:
    inputs, outputs, ranks, rows = shape
    return f"for modes {tuple(inputs)} and {tuple(outputs)}, ranks {tuple(ranks)} and {rows} row{'s' * (rows > 1)}:"


def _shown(got) -> str:
    return f"{got:,}" if isinstance(got, int) else repr(got)[:60]


def _ask(function: Callable, *arguments, modes: tuple[Sequence[int], Sequence[int]], where: str):
    """What the function says; the check fails where its tensors have ever held as much as the dense weight does."""
    held, weight = [], 8 * prod(modes[0]) * prod(modes[1])

    @wraps(function)
    def watched(*given):
        got = []
        held.append(peak_bytes(lambda: got.append(function(*given))))
        return got[0]

    got = ask_twice(watched, *arguments, without=(*LIBRARY, *AUTOGRAD))
    if modes == THIN and max(held) >= weight:
        most = f"it held {max(held):,} bytes at once, the dense weight takes {weight:,}"
        fail(function, f"{where} {most}: never build a matrix of inputs × outputs")
    return got


def _close(function: Callable, given: tuple, wanted: Tensor, where: str) -> None:
    cores = next(part for part in given if isinstance(part, list))
    modes = tuple(core.shape[1] for core in cores), tuple(core.shape[2] for core in cores)
    got = _ask(function, *given, modes=modes, where=where)
    _like(function, got, wanted, where)


def _like(function: Callable, got, wanted: Tensor, where: str) -> None:
    if isinstance(got, Tensor) and got.dtype != wanted.dtype:
        fail(function, f"{where} expected {wanted.dtype}, as it was given, got {got.dtype}")
    close(function, got, wanted, where)


def _descends(function: Callable, given: tuple, wanted: list[Tensor], where: str) -> None:
    got = ask(function, *given, without=(*LIBRARY, *AUTOGRAD))
    if not (isinstance(got, tuple | list) and len(got) == len(wanted)):
        fail(function, f"{where} expected a list of {len(wanted)} cores, got {type(got).__name__}")
    for k, (one, right) in enumerate(zip(got, wanted, strict=True)):
        _like(function, one, right, f"{where} core {k}{' (less its gradient at the old cores)' * (k > 0)},")
