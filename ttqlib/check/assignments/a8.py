"""Assignment 8, a knapsack of ranks and bits: the items of a weight, what is felt of an error, greedy, and the best.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw their inputs from a seed.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...allocation.knapsack import hull
from ..verdict import exercise, fail
from .asking import ask_twice
from .seeds import generator

LIBRARY = ("allocate", "allocation_front", "measure_candidates", "scipy.optimize.milp")
LIBRARY += tuple(f"ttqlib.allocation.knapsack.{name}" for name in ("climb", "hull", "repaired", "solve"))
BY_HAND = [[(1, 9), (4, 0)], [(1, 6), (3, 1)], [(1, 6), (3, 1)]]
Layers = Sequence[Sequence[tuple[int, float]]]


def rounded(tensor: Tensor, bits: int) -> Tensor:
    """Each entry at the nearest of 2^bits − 1 levels, the same to both sides of 0 and up to the largest entry."""
    most = 2 ** (bits - 1) - 1
    step = (tensor.abs().max() / most).clamp(min=1e-30)
    return (tensor / step).round() * step


@exercise
def items_by_hand(function: Callable) -> None:
    """A matrix of rank 1 whose factors round to themselves."""
    _items_agree(function, torch.tensor([[4.0, 0.0], [0.0, 1.0]]), [1], [2])


@exercise
def items(function: Callable, seed: int = 0) -> None:
    """`function(weight, ranks, bits)` must return (bytes, loss) of every rank with every number of bits."""
    draw = generator(seed, "items")
    for rows, columns in [(6, 9), (11, 4), (5, 5)]:
        _items_agree(function, torch.randn(rows, columns, generator=draw), [1, 3], [2, 3, 8])


@exercise
def felt_by_hand(function: Callable) -> None:
    """An error in the first column, one row with the input (2, 1) and the gradient (1, −1)."""
    change = torch.tensor([[0.1, 0.0], [0.0, 0.0]])
    _felt_agrees(function, change, torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, -1.0]]))


@exercise
def felt(function: Callable, seed: int = 0) -> None:
    """`function(change, inputs, gradients)` must return ½ Σ (gᵀ Δ x)² over rows, as one number."""
    draw = generator(seed, "felt")
    for rows, outputs, inputs in [(1, 3, 2), (7, 2, 5), (4, 4, 4)]:
        made = [torch.randn(*shape, generator=draw) for shape in ((outputs, inputs), (rows, inputs), (rows, outputs))]
        _felt_agrees(function, *made)


@exercise
def climb_by_hand(function: Callable) -> None:
    """The three layers of chapter 12, and 7 bytes."""
    _climb_agrees(function, BY_HAND, 7)


@exercise
def climb(function: Callable, seed: int = 0) -> None:
    """`function(layers, budget)` must return the places of the hull rule; each layer is a hull already."""
    draw = generator(seed, "climb")
    for count in (1, 2, 4, 8):
        layers = [_random_hull(draw) for _ in range(count)]
        least, most = (sum(layer[end][0] for layer in layers) for end in (0, -1))
        for budget in {least, most, (2 * least + most) // 3, (least + 2 * most) // 3}:
            _climb_agrees(function, layers, budget)


@exercise
def best_by_hand(function: Callable) -> None:
    """The three layers of chapter 12, and 7 bytes: greedy is not the best."""
    _best_agrees(function, BY_HAND, 7)


@exercise
def best(function: Callable, seed: int = 0) -> None:
    """`function(layers, budget)` must return the places of a choice that loses least; sixteen layers and more, too."""
    draw = generator(seed, "best")
    for count, items in [(1, 3), (3, 4), (5, 4), (16, 5)]:
        layers = [
            [tuple(pair) for pair in torch.randint(1, 30, (items, 2), generator=draw).tolist()] for _ in range(count)
        ]
        least = sum(min(cost for cost, _ in layer) for layer in layers)
        for extra in (0, 5 * count):
            _best_agrees(function, layers, least + extra)


# ------------------------------------------------------------------------------------------- what the checks share


def _items_agree(function: Callable, weight: Tensor, ranks: list[int], bits: list[int]) -> None:
    got = ask_twice(function, weight, ranks, bits, without=LIBRARY)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    expected = []
    for rank in ranks:
        left, right = u[:, :rank] * s[:rank].sqrt(), s[:rank, None].sqrt() * vt[:rank]
        for number in bits:
            size = -(-rank * sum(weight.shape) * number // 8) + 8
            made = rounded(left, number) @ rounded(right, number)
            expected.append((rank, number, size, float((weight - made).square().sum())))
    pairs = isinstance(got, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in got)
    if not pairs or len(got) != len(expected):
        said = f"{len(got)} entries" if isinstance(got, list | tuple) else type(got).__name__
        fail(function, f"expected a list of {len(expected)} pairs (bytes, loss), got {said}")
    for (size, loss), (rank, number, right_size, right_loss) in zip(got, expected, strict=True):
        where = f"{' × '.join(map(str, weight.shape))}, rank {rank}, {number} bits:"
        if size != right_size:
            fail(function, f"{where} bytes must be {right_size}, got {float(size):g}")
        if abs(float(loss) - right_loss) > 1e-3 * right_loss + 1e-6:
            fail(function, f"{where} the loss must be {right_loss:.4g}, got {float(loss):.4g}")


def _felt_agrees(function: Callable, change: Tensor, inputs: Tensor, gradients: Tensor) -> None:
    got = ask_twice(function, change, inputs, gradients, without=LIBRARY)
    right = sum(0.5 * float(g @ change @ x) ** 2 for x, g in zip(inputs, gradients, strict=True))
    where = f"{len(inputs)} row{'s' if len(inputs) > 1 else ''} through a weight {tuple(change.shape)}:"
    try:
        number = float(got)
    except (TypeError, ValueError, RuntimeError):
        fail(function, f"{where} expected one number, got {getattr(got, 'shape', type(got).__name__)}")
    if abs(number - right) > 1e-4 * right + 1e-9:
        fail(function, f"{where} expected {right:.4g}, got {number:.4g}")


def _random_hull(draw: torch.Generator) -> list[tuple[int, int]]:
    """A hull, and so that no two steps anywhere save the same for a byte: losses are far from round."""
    pairs = torch.randint(1, 40, (9, 2), generator=draw) * torch.tensor([1, 1009]) + torch.tensor([0, 1])
    pairs[:, 1] += torch.randint(0, 1000, (9,), generator=draw)
    costs, losses = pairs.double().numpy().T
    return [tuple(pairs[k].tolist()) for k in hull(costs, losses)]


def _climb_agrees(function: Callable, layers: Layers, budget: int) -> None:
    got = _asked(function, layers, budget)
    steps = sorted(
        ((two[1] - one[1]) / (two[0] - one[0]), number, place + 1)  # what saves most comes first
        for number, layer in enumerate(layers)
        for place, (one, two) in enumerate(pairwise(layer))
    )
    expected, spent = [0] * len(layers), sum(layer[0][0] for layer in layers)
    for _, number, place in steps:
        spent += layers[number][place][0] - layers[number][place - 1][0]
        if spent > budget:
            break
        expected[number] = place
    if got != expected:
        fail(function, f"{_said(layers)}, {budget} bytes: the hull rule stops at {expected}, got {got}")


def _best_agrees(function: Callable, layers: Layers, budget: int) -> None:
    got = _asked(function, layers, budget)
    least = {0: 0}  # bytes so far → the least loss
    for layer in layers:
        longer: dict[int, int] = {}
        for spent, lost in least.items():
            for cost, loss in layer:
                if spent + cost <= budget:
                    longer[spent + cost] = min(lost + loss, longer.get(spent + cost, lost + loss))
        least = longer
    right = min(least.values())
    chosen = [layer[place] for layer, place in zip(layers, got, strict=True)]
    spent, lost = (sum(side) for side in zip(*chosen, strict=True))
    where = f"{_said(layers)}, {budget} bytes:"
    if spent > budget:
        fail(function, f"{where} your choice {got} takes {spent} bytes, more than the budget")
    if lost > right:
        fail(function, f"{where} your choice {got} loses {lost}, the best one {right}")


def _asked(function: Callable, layers: Layers, budget: int) -> list[int]:
    got = ask_twice(function, [list(layer) for layer in layers], budget, without=LIBRARY)
    fits = isinstance(got, list | tuple) and len(got) == len(layers)
    if not fits or not all(
        type(place) is int and 0 <= place < len(layer) for place, layer in zip(got, layers, strict=True)
    ):
        said = f"{got!r}" if len(f"{got!r}") < 90 else type(got).__name__
        fail(function, f"expected a list with the place of an item for each of {len(layers)} layers, got {said}")
    return list(got)


def _said(layers: Layers) -> str:
    return f"for {[list(layer) for layer in layers]}" if len(layers) < 4 else f"for {len(layers)} layers"
