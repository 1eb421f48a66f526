"""What it takes to run a layer: its work, and its form for deployment."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch.nn.functional import linear

from .verdict import call, close, counts, exercise, fail


@exercise
def largest_rank(function: Callable) -> None:
    """`function(inputs, outputs)` must return the largest rank at which two thin layers multiply less than one."""
    for inputs, outputs in [(768, 768), (768, 3072), (3072, 768), (4, 4), (7, 5), (384, 30522), (3, 1), (1, 1)]:
        expected = max(rank for rank in range(inputs + 1) if rank * (inputs + outputs) < inputs * outputs)
        counts(function, (inputs, outputs), expected, f"for {inputs} → {outputs}", whole=True)


@exercise
def compute_bound_rows(function: Callable) -> None:
    """`function(inputs, outputs, balance)` must return from how many rows on computing is the bound.

    That is the least number of rows for which a dense float32 layer has `balance` FLOPs a byte, or None where no number
    is enough.
    """
    cases = [(768, 768, 10.0), (768, 768, 1.0), (768, 3072, 30.0), (64, 64, 15.5), (64, 64, 15.75)]
    for inputs, outputs, balance in [*cases, (64, 64, 16.0), (64, 64, 40.0)]:
        # 2 B n m / 4 (B (n + m) + n m) ≥ balance
        gained = 2 * inputs * outputs - 4 * Fraction(balance) * (inputs + outputs)
        expected = None if gained <= 0 else -int(-4 * Fraction(balance) * inputs * outputs // gained)
        where = f"for {inputs} → {outputs} and {balance:g} FLOPs a byte"
        if expected is not None:
            counts(function, (inputs, outputs, balance), expected, where, whole=True)
        elif (got := call(function, inputs, outputs, balance)) is not None:
            fail(function, f"{where} expected None, got {got!r}")


@exercise
def ride_along(function: Callable) -> None:
    """`function(u, v, bias)` must return the weight and bias of a layer, and the weight of a second one without bias.

    As `nn.Linear` keeps weights: (outputs, inputs). One after the other they compute x u v + bias.
    """
    generator, double = torch.Generator().manual_seed(0), {"dtype": torch.float64}
    for inputs, rank, outputs in [(6, 2, 5), (4, 1, 9), (8, 3, 3)]:
        where = f"for u of shape {(inputs, rank)} and v of shape {(rank, outputs)}"
        u = torch.randn(inputs, rank, generator=generator, **double)
        v = torch.randn(rank, outputs, generator=generator, **double)
        bias, x = (torch.randn(*shape, generator=generator, **double) for shape in ((outputs,), (7, inputs)))
        got = call(function, u, v, bias)
        if not isinstance(got, tuple | list) or len(got) != 3:
            fail(function, f"{where} expected three tensors: weight, bias, second weight")
        shapes = {"weight": (rank + 1, inputs), "bias": (rank + 1,), "second weight": (outputs, rank + 1)}
        for tensor, (name, shape) in zip(got, shapes.items(), strict=True):
            if tuple(getattr(tensor, "shape", ())) != shape:
                fail(function, f"{where} the {name} must have shape {shape}")
        weight, first_bias, second = (torch.as_tensor(tensor, dtype=x.dtype) for tensor in got)
        close(function, linear(linear(x, weight, first_bias), second), x @ u @ v + bias, f"{where} the two layers:")
