"""Ranks and bits for a budget: what training takes, the hull of items, the loss that is felt, the fewest bytes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch

from ..allocation.knapsack import hull
from .verdict import answers, call, close, exercise, fail


@exercise
def training_costs(function: Callable) -> None:
    """`function(numbers, workers)` must return bytes in memory of one worker, and bytes that it sends at each step.

    Memory: float32 weights, their gradients, and the two moments of Adam. Sent: gradients, by a ring all-reduce.
    """
    for numbers, workers in [(1_000, 2), (1_000, 4), (882_050, 8), (5_000, 1)]:
        expected = torch.tensor([16 * numbers, 8 * numbers * (workers - 1) / workers], dtype=torch.float64)
        where = f"for {numbers:,} numbers and {workers} worker{'s' if workers > 1 else ''},"
        got = call(function, numbers, workers)
        if not isinstance(got, tuple | list) or len(got) != 2:
            fail(function, f"{where} expected two numbers, (bytes in memory, bytes sent), got {got!r}")
        for name, one, right in zip(("bytes in memory", "bytes sent"), got, expected, strict=True):
            close(function, one, right, f"{where} {name}:")


@exercise
def lower_hull(function: Callable) -> None:
    """`function(items)` must return the pairs (bytes, loss) on the lower convex hull, from the cheapest on."""
    cases = [
        ([(0, 10), (6, 8), (10, 0)], "an item above the line between two others"),
        ([(2, 5), (1, 9), (4, 3), (3, 5)], "unsorted items"),
        ([(1, 6), (2, 4), (3, 2), (4, 2)], "items on one straight line, and one that saves nothing"),
        ([(5, 1), (3, 1), (3, 4)], "items of equal bytes, and of equal loss"),
        ([(7, 7)], "one item"),
    ]
    draw = torch.Generator().manual_seed(0)
    for number in range(6):
        pairs = torch.randint(1, 40, (8 + number, 2), generator=draw).tolist()
        cases.append(([tuple(pair) for pair in pairs], f"{len(pairs)} random items"))
    for items, what in cases:
        costs, losses = (torch.tensor(side, dtype=torch.float64).numpy() for side in zip(*items, strict=True))
        expected = [items[k] for k in hull(costs, losses)]
        got = call(function, list(items))
        if not _pairs(got) or [tuple(pair) for pair in got] != expected:
            fail(function, f"{what}, {items}: expected {expected}, got {got!r}")


def _pairs(got) -> bool:
    return isinstance(got, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in got)


@exercise
def predicted_kl(function: Callable) -> None:
    """`function(logits, change)` must return the mean over rows of ½ (Σ p δ² − (Σ p δ)²), p the softmax of logits."""
    draw = torch.Generator().manual_seed(0)
    for rows, classes in [(1, 2), (3, 2), (4, 5)]:
        logits, change = torch.randn(2, rows, classes, generator=draw, dtype=torch.float64)
        p = logits.softmax(-1)
        expected = 0.5 * ((p * change**2).sum(-1) - (p * change).sum(-1) ** 2).mean()
        answers(function, (logits, change), expected, f"for {rows} sentence{'s' * (rows > 1)} and {classes} classes")
    same = torch.full((2, 3), 0.5, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    answers(
        function, (torch.randn(2, 3, generator=draw, dtype=torch.float64), same), zero, "where all logits grow alike"
    )


@exercise
def fewest_bytes(function: Callable) -> None:
    """`function(layers, allowed)` must return the place of one item in each layer: least bytes, no more loss.

    A layer is a list of pairs (bytes, loss). Where no choice loses so little, None is wanted.
    """
    for layers, allowed in _instances():
        best = min(
            (sum(item[0] for item in choice) for choice in product(*layers) if _lost(choice) <= allowed + 1e-9),
            default=None,
        )
        got, where = call(function, [list(layer) for layer in layers], allowed), f"for {layers} and a loss of {allowed}"
        if best is None:
            if got is not None:
                fail(function, f"{where}: no choice loses so little, expected None, got {got!r}")
            continue
        if not _places(got, layers):
            fail(function, f"{where}: expected the place of an item for each of {len(layers)} layers, got {got!r}")
        choice = [layer[place] for layer, place in zip(layers, got, strict=True)]
        if _lost(choice) > allowed + 1e-9:
            fail(function, f"{where}: your choice {list(got)} loses {_lost(choice)}, more than is allowed")
        if (spent := sum(item[0] for item in choice)) > best:
            fail(function, f"{where}: your choice {list(got)} takes {spent} bytes, {best} are enough")


def _instances() -> Iterator[tuple[list, int]]:
    yield [[(1, 9), (4, 0)], [(1, 6), (3, 1)], [(1, 6), (3, 1)]], 11
    yield [[(1, 9), (4, 0)], [(1, 6), (3, 1)], [(1, 6), (3, 1)]], 1
    yield [[(0, 10), (6, 8), (10, 0)], [(2, 3), (5, 1)]], 11
    draw = torch.Generator().manual_seed(1)
    for _ in range(12):
        count = int(torch.randint(2, 5, (), generator=draw))
        layers = [[tuple(pair) for pair in torch.randint(1, 30, (4, 2), generator=draw).tolist()] for _ in range(count)]
        yield layers, int(torch.randint(8 * count, 16 * count, (), generator=draw))


def _lost(choice) -> int:
    return sum(item[1] for item in choice)


def _places(got, layers) -> bool:
    fits = isinstance(got, Sequence) and not isinstance(got, str) and len(got) == len(layers)
    return fits and all(
        isinstance(place, int) and 0 <= place < len(layer) for place, layer in zip(got, layers, strict=True)
    )
