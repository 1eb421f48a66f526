"""One bit and two: binary and ternary weights, inputs token by token, and what is left for the words."""

from collections.abc import Callable

import torch
from torch import Tensor

from .verdict import answers, call, counts, exercise, fail


@exercise
def binary_rows(function: Callable) -> None:
    """`function(weight)` must return two levels for each row, −α and α, with the α of the least squared error."""
    spread = torch.tensor([[0.01], [1.0], [100.0]], dtype=torch.float64)
    some_zeros = torch.tensor([[0.5, 0.0, -0.25, 0.0], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    cases = {
        "rows of equal size": _random(0, 6, 40),
        "rows of different sizes": _random(1, 3, 40) * spread,
        "rows that are mostly positive": _random(2, 5, 30) + 1,
        "rows with zeros among their entries": some_zeros,
        "a row of zeros": torch.cat([_random(3, 2, 4), torch.zeros(1, 4, dtype=torch.float64)]),
        "a single column": _random(4, 5, 1),
    }
    for kind, weight in cases.items():
        signs = torch.where(weight < 0, -1.0, 1.0)
        expected = weight.abs().mean(1, keepdim=True) * signs
        got = call(function, weight)
        if not isinstance(got, Tensor) or got.shape != weight.shape:
            shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            fail(function, f"for {kind} expected a tensor of shape {tuple(weight.shape)}, got {shape}")
        if got.isnan().any():
            fail(function, f"for {kind} some of the result is not a number")
        if len(third := [row for row in got if len(row.abs().unique()) > 1]):
            fail(function, f"for {kind} a row holds more than −α and α: {third[0].unique()[:4].tolist()}")
        if ((got > 0) != (expected > 0)).any():
            fail(function, f"for {kind} a sign is wrong; that of 0 counts as +")
        answers(function, (weight,), expected, f"for {kind}")


@exercise
def best_ternary(function: Callable) -> None:
    """`function(w)` must return, of all arrays that hold −α, 0 and α only, the closest to w."""
    weights = [*_random(0)[:3], _random(1)[0] ** 3, _random(2).flatten() + 1]
    weights += [
        torch.tensor([3.0, -3.0, 3.0]).double(),
        torch.zeros(5).double(),
        torch.tensor([1.0, 0.1, -0.1]).double(),
    ]
    for w in weights:
        got = call(function, w)
        if not isinstance(got, Tensor) or got.shape != w.shape:
            fail(function, f"expected a tensor of shape {tuple(w.shape)}, got {getattr(got, 'shape', type(got))}")
        sizes = got.abs()[got != 0]
        if not got.isfinite().all() or (len(sizes) and sizes.max() > 1.00001 * sizes.min()):
            fail(function, f"expected the values −α, 0 and α only, got {got.unique()[:5].tolist()}")
        sums = w.abs().sort(descending=True).values.cumsum(0)  # the k largest kept: α is their mean
        least = w.square().sum() - (sums.square() / torch.arange(1, len(w) + 1)).max()
        error = (got - w).square().sum()
        if error > least + 1e-10 * w.square().sum():
            above = f"{float(error / least - 1):.2g} of it above the least" if least > 1e-9 else "where 0 is possible"
            fail(function, f"the squared error is {float(error):.4g}, {above}")


@exercise
def quantize_tokens(function: Callable) -> None:
    """`function(x, bits)` must round each token of x, (tokens, features), on a symmetric grid of its own range."""
    sizes = torch.tensor([[1.0], [30.0], [0.02]], dtype=torch.float64)
    cases = {
        "tokens of equal size": (_random(0, 4, 50), 8),
        "an outlier in one token": (_random(1, 3, 50) * sizes, 8),
        "4 bits": (_random(2, 3, 50), 4),
        "2 bits": (_random(3, 3, 20), 2),
        "a token of zeros": (torch.cat([_random(4, 2, 8), torch.zeros(1, 8, dtype=torch.float64)]), 8),
        "a token whose largest entry is negative": (torch.tensor([[-2.0, 0.5, 1.0], [3.0, -0.4, 0.1]]).double(), 4),
    }
    for kind, (x, bits) in cases.items():
        steps = x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        expected = torch.where(steps > 0, (x / steps).round() * steps, 0.0)
        got = call(function, x, bits)
        if isinstance(got, Tensor) and got.isnan().any():
            fail(function, f"for {kind} some of the result is not a number: such a token has no step")
        answers(function, (x, bits), expected, f"for {kind}")


@exercise
def words_rank(function: Callable) -> None:
    """`function(dense, ratio, others, shape)` must return the largest rank of the words, or 0 where none fits.

    A model of `dense` bytes is to become `ratio` times smaller. All but the words take `others` bytes; words of rank r
    are two thin matrices of `shape` = (rows, columns), in one byte a number.
    """
    minilm = (90_852_880, 30_522, 384)
    cases = [(minilm[0], ratio, 1_800_000, minilm[1:]) for ratio in (20, 32, 40)]
    cases += [
        (1_000_000, 10, 40_000, (900, 100)),
        (1_000_000, 10, 99_000, (900, 100)),
        (1_000_000, 10, 98_999, (900, 99)),
    ]
    cases += [(1_000_000, 50, 30_000, (900, 100)), (1_000_001, 3, 100, (7, 4))]
    for dense, ratio, others, (rows, columns) in cases:
        left = dense // ratio - others
        expected = max(0, left // (rows + columns))
        where = f"for {dense:,} bytes, {ratio}×, {others:,} bytes of others and a table of {rows:,} × {columns}"
        counts(function, (dense, ratio, others, (rows, columns)), expected, where, whole=True)


def _random(seed: int, rows: int = 50, columns: int = 40) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
