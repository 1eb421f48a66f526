"""Assignment 2, an affine quantizer that learns its step and its zero point: codes, a start, gradients, training.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw their inputs from a seed.
"""

from collections.abc import Callable, Iterator
from functools import wraps

import torch
from torch import Tensor

from ..verdict import exercise, fail
from .asking import ask, ask_twice
from .grids import Grid
from .own_work import AUTOGRAD
from .seeds import generator

LIBRARY = ("LSQ", "GroupRTN", "StaticActivation", "DynamicActivation", "fake_quantize_")
LIBRARY += tuple(f"torch.{name}" for name in ("quantize_per_tensor", "fake_quantize_per_tensor_affine"))
LIBRARY += ("torch._fake_quantize_learnable_per_tensor_affine", "torch.fake_quantize_per_channel_affine")
LIBRARY += tuple(f"ttqlib.check.assignments.grids.Grid.{name}" for name in ("codes", "back", "slopes"))
CLOSE, FIFTH = 1.05, 0.2  # a start may have 5 % more than the least error; training has to leave a fifth of the loss
NAMES = ("∂Q/∂x", "∂Q/∂δ", "∂Q/∂z")


# -------------------------------------------------------------------------------------------------------- questions


@exercise
def codes_by_hand(to_codes: Callable, from_codes: Callable) -> None:
    """Five numbers, of which two lie beyond the range, to codes and back."""
    _codes_agree(to_codes, from_codes, PAPER, GRID)


@exercise
def codes(to_codes: Callable, from_codes: Callable, seed: int = 0) -> None:
    """`to_codes(x, step, zero_point, bits)` must return uint8 codes; `from_codes(codes, step, zero_point)` values."""
    for x, grid in _grids(seed, "codes"):
        _codes_agree(to_codes, from_codes, x, grid)


@exercise
def start_by_hand(function: Callable) -> None:
    """Four numbers that lie on a grid of four levels already must find it."""
    grid = _pair(function, torch.tensor([-0.5, 1.0, 0.0, 0.5], dtype=torch.float64), 2)
    if abs(grid.step - 0.5) > 0.025 or grid.zero_point != 1:
        fail(function, f"−0.5, 1, 0 and 0.5 are the four levels of δ = 0.5 and zero point 1; got {grid}")


@exercise
def start(function: Callable, seed: int = 0) -> None:
    """`function(x, bits)` must return the step and zero point of (nearly) the least squared error, 0 being a level."""
    draw = generator(seed, "start")
    for mean, outlier, bits in [(0, 0, 4), (2.5, 0, 3), (-1, 12, 4), (1, -9, 3), (0, 7, 2), (4, -9, 4), (-4, 0, 2)]:
        x = torch.randn(20, 20, generator=draw, dtype=torch.float64) + mean
        if outlier:
            x[3, 4] = outlier
        size = 10 ** (4 * torch.rand((), generator=draw, dtype=torch.float64) - 2)
        where = (
            f"for numbers around {mean} at {bits} bits{f', one of them {outlier}' if outlier else ''}, times {size:.3g}"
        )
        grid = _pair(function, x * size, bits)
        error, least = float((grid.back(x * size) - x * size).square().sum()), _least_error(x, bits) * float(size) ** 2
        if not error <= CLOSE * least:
            fail(function, f"{where}: {grid} have a squared error {error / least - 1:.0%} above the least")
    grid = _pair(function, torch.zeros(6, dtype=torch.float64), 3)
    if not torch.equal(grid.back(torch.zeros(6)), torch.zeros(6)):
        fail(function, f"for zeros only: {grid} do not give zeros back")


@exercise
def slopes_by_hand(function: Callable) -> None:
    """∂Q/∂x and ∂Q/∂δ of five numbers, of which two lie beyond the range."""
    _slopes_agree(function, PAPER, GRID, (0, 1))


@exercise
def slopes(function: Callable, seed: int = 0) -> None:
    """`function(x, step, zero_point, bits)` must return ∂Q/∂x and ∂Q/∂δ of each entry, straight through."""
    for x, grid in _grids(seed, "slopes"):
        _slopes_agree(function, x, grid, (0, 1))


@exercise
def zero_point_slope_by_hand(function: Callable) -> None:
    """∂Q/∂z of five numbers, of which two lie beyond the range."""
    _slopes_agree(function, PAPER, GRID, (2,))


@exercise
def zero_point_slope(function: Callable, seed: int = 0) -> None:
    """`function(x, step, zero_point, bits)` must return ∂Q/∂z of each entry, straight through."""
    for x, grid in _grids(seed, "zero point slope"):
        _slopes_agree(function, x, grid, (2,))


@exercise
def backward_by_hand(function: Callable) -> None:
    """The values of five numbers, and the gradients of their sum."""
    _backward_agrees(function, PAPER, GRID, torch.ones_like(PAPER))


@exercise
def backward(function: Callable, seed: int = 0) -> None:
    """`function(x, step, zero_point, bits)`, all tensors but the bits, must carry the three gradients backwards."""
    draw = generator(seed, "backward")
    for x, grid in _grids(seed, "backward values"):
        latent = grid._replace(zero_point=grid.zero_point + float(torch.rand((), generator=draw)) * 0.8 - 0.4)
        _backward_agrees(function, x, latent, torch.randn(x.shape, generator=draw, dtype=x.dtype))


@exercise
def trained(function: Callable, seed: int = 0) -> None:
    """`function(inputs, targets, weight, step, zero_point, bits)` must return the last three, trained."""
    draw, shares = generator(seed, "training"), []
    for _ in range(3):
        inputs = torch.randn(100, 12, generator=draw, dtype=torch.float64)
        inputs = inputs + torch.randn(100, 1, generator=draw, dtype=torch.float64)  # what all inputs share
        weight = torch.randn(12, 16, generator=draw, dtype=torch.float64) + 1.5
        first = Grid(weight.abs().max() / 3, torch.tensor(2.0, dtype=torch.float64), 2)  # half of its levels are wasted
        given = (inputs, inputs @ weight, weight, first.step, first.zero_point, first.bits)
        after, grid = _ended(function, ask(function, *given, without=LIBRARY), weight, first)
        losses = [(inputs @ (g.back(w) - weight)).square().sum() for w, g in ((after, grid), (weight, first))]
        shares.append(float(losses[0] / losses[1]))
    if not sum(shares) / 3 <= FIFTH:
        fail(
            function,
            f"of the loss {sum(shares) / 3:.0%} is left on average over three problems, expected a fifth or less",
        )


# ------------------------------------------------------------------------------------------- what the checks share

GRID = Grid(0.5, 2, 3)
PAPER = torch.tensor([0.9, -0.3, 0.2, 3.0, -1.7], dtype=torch.float64)


def _grids(seed: int, question: str) -> Iterator[tuple[Tensor, Grid]]:
    """Random numbers and grids for them; a few in ten lie beyond the range, on either side."""
    draw = generator(seed, question)
    for bits, shape in [(3, (40,)), (2, (12, 7)), (8, (5, 6, 4)), (4, (1,)), (4, (60,))]:
        highest = 2**bits - 1
        zero_point = int(torch.randint(1, highest, (), generator=draw))
        step = 10 ** (2 * float(torch.rand((), generator=draw)) - 1.5)
        places = torch.rand(shape, generator=draw, dtype=torch.float64) * 1.8 * highest - 0.4 * highest
        yield (places - zero_point) * step, Grid(step, zero_point, bits)


def _like(function: Callable, got, wanted: Tensor, what: str) -> Tensor:
    """`got`, if it is a tensor of this shape and dtype."""
    found = (got.dtype, tuple(got.shape)) if isinstance(got, Tensor) else type(got).__name__
    expected = (wanted.dtype, tuple(wanted.shape))
    if found != expected:
        shown = f"a tensor of {found[0]} and shape {found[1]}" if isinstance(found, tuple) else found
        fail(function, f"{what}: expected a tensor of {expected[0]} and shape {expected[1]}, got {shown}")
    return got


def _agree(function: Callable, got, wanted: Tensor, what: str, x: Tensor, grid: Grid) -> None:
    """The check fails with the first entry that differs, and says where in the range it lies."""
    got = _like(function, got, wanted, what).detach()
    wrong = ~torch.isclose(got.double(), wanted.double(), rtol=1e-5, atol=1e-7)
    if wrong.any():
        number, right, came = (float(values[wrong][0]) + 0.0 for values in (x, wanted, got))  # no −0
        where = f"x = {number:.4g}, {grid.place(x[wrong][0])} of {grid}"
        fail(function, f"{what} of {where}: expected {right:.4g}, got {came:.4g}")


def _codes_agree(to_codes: Callable, from_codes: Callable, x: Tensor, grid: Grid) -> None:
    wanted = grid.codes(x).to(torch.uint8)
    _agree(to_codes, ask_twice(to_codes, x, *grid, without=LIBRARY), wanted, "the code", x, grid)
    got = ask_twice(from_codes, wanted, grid.step, grid.zero_point, without=LIBRARY)
    if not (isinstance(got, Tensor) and got.is_floating_point()):
        fail(from_codes, f"expected a floating-point tensor, got {getattr(got, 'dtype', type(got).__name__)}")
    _agree(from_codes, got.to(x.dtype), grid.back(x), "what comes back of the code", x, grid)


def _slopes_agree(function: Callable, x: Tensor, grid: Grid, which: tuple[int, ...]) -> None:
    got = ask_twice(function, x, *grid, without=(*LIBRARY, *AUTOGRAD))
    if len(which) > 1 and not (isinstance(got, tuple | list) and len(got) == len(which)):
        fail(function, f"expected {' and '.join(NAMES[k] for k in which)}, in this order, got {type(got).__name__}")
    for one, k in zip(got if len(which) > 1 else [got], which, strict=True):
        _agree(function, one, grid.slopes(x)[k], NAMES[k], x, grid)


def _backward_agrees(function: Callable, x: Tensor, grid: Grid, gradient: Tensor) -> None:
    """Values and gradients, though the function was called with something else between its forward and its backward."""

    @wraps(function)
    def there_and_back(x, step, zero_point):
        leaves = [value.clone().requires_grad_() for value in (x, step, zero_point)]
        value = function(*leaves, grid.bits)
        function(x.flip(0) * 3, step / 2, zero_point + 1, grid.bits)
        if not (isinstance(value, Tensor) and value.shape == x.shape and value.requires_grad):
            return value, None
        value.backward(gradient)
        return value.detach(), [leaf.grad for leaf in leaves]

    leaves = [x, *(torch.tensor(float(number), dtype=x.dtype) for number in grid[:2])]
    value, got = ask(there_and_back, *leaves, without=LIBRARY)
    _agree(function, value, grid.back(x), "the value", x, grid)
    if got is None:
        fail(function, "its value has no gradient: nothing in it depends on x, δ and z for autograd")
    for name, found, leaf, slope in zip(NAMES, got, leaves, grid.slopes(x), strict=True):
        of_loss, wanted = name.replace("Q", "L"), gradient * slope
        if found is None:
            fail(function, f"{of_loss} is None: no gradient arrives")
        if leaf is x:
            _agree(function, found, wanted, "∂L/∂x (∂L/∂Q times ∂Q/∂x)", x, grid)
        elif not torch.isclose(found, wanted.sum(), rtol=1e-5, atol=1e-7):
            sums = f"expected the sum over all entries of ∂L/∂Q · {name}, {float(wanted.sum()):.4g}"
            fail(function, f"{of_loss} for {grid}: {sums}, got {float(found):.4g}")


def _pair(function: Callable, x: Tensor, bits: int) -> Grid:
    """The step and the zero point that the function chooses for x."""
    got = ask_twice(function, x, bits, without=LIBRARY)
    try:
        step, zero_point = (float(number) for number in got)
    except (TypeError, ValueError, RuntimeError):
        fail(function, f"expected two numbers, the step and the zero point, got {type(got).__name__}")
    if not 0 < step < torch.inf:
        fail(function, f"a step is positive and finite, got {step}")
    if zero_point not in range(2**bits):
        fail(function, f"the zero point is a code, a whole number from 0 to {2**bits - 1}, got {zero_point:.4g}")
    return Grid(step, int(zero_point), bits)


def _least_error(x: Tensor, bits: int) -> float:
    """The least squared error that any zero point has with any of many steps."""
    highest, errors = 2**bits - 1, []
    widest = (x.max().clamp(min=0) - x.min().clamp(max=0)) / highest
    for step in widest * torch.logspace(-1.2, 0.4, 160, dtype=x.dtype):
        zero_points = torch.arange(2.0**bits, dtype=x.dtype)[:, None]
        levels = ((x.flatten() / step).round() + zero_points).clamp(0, highest) - zero_points
        errors.append((step * levels - x.flatten()).square().sum(1).min())
    return float(min(errors))


def _ended(function: Callable, got, weight: Tensor, first: Grid) -> tuple[Tensor, Grid]:
    """The weight and the grid that training has ended with, if they are such and all three have moved."""
    if not (isinstance(got, tuple | list) and len(got) == 3):
        fail(function, f"expected the weight, the step and the zero point, got {type(got).__name__}")
    wanted = (weight, first.step, first.zero_point)
    for name, one, start_value in zip(("the weight", "the step", "the zero point"), got, wanted, strict=True):
        one = _like(function, one, start_value, name).detach()
        if not one.isfinite().all():
            fail(function, f"{name} is not finite any more")
        if torch.equal(one, start_value):
            fail(function, f"{name} has not moved: all three are to be trained")
    after, step, zero_point = (one.detach() for one in got)
    if step <= 0:
        fail(function, f"a step is positive, got {float(step):.3g}")
    if not -0.5 <= float(zero_point) <= 2**first.bits - 0.5:
        fail(
            function,
            f"0 has to stay a level: the zero point lies from 0 to {2**first.bits - 1}, got {float(zero_point):.3g}",
        )
    return after, Grid(step, zero_point, first.bits)
