"""Other families, more machines: what shared weights store and compute, patches as rows, the speed of workers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .verdict import answers, call, close, exercise, fail


@exercise
def numbers_and_flops(function: Callable) -> None:
    """`function(places, tokens)` must return how many numbers are stored, and the FLOPs of one pass.

    A place is (name of its weight, inputs, outputs, times): by how many such matrices each token is multiplied there, 0
    for a look-up. Places with the same name have the same weight.
    """
    cases = {
        "one matrix": ([("a", 3, 5, 1)], 1),
        "a table and its tied head": ([("words", 7, 4, 0), ("a", 4, 4, 1), ("words", 4, 7, 1)], 2),
        "one layer that runs twelve times": ([("layer", 4, 6, 12)], 3),
        "a look-up alone": ([("positions", 8, 4, 0)], 5),
        "two of eight experts": ([("router", 4, 8, 1), *((f"expert {k}", 4, 6, 0.25) for k in range(8))], 4),
        "a layer written down three times": ([("layer", 5, 5, 1)] * 3 + [("head", 5, 2, 1)], 2),
    }
    for what, (places, tokens) in cases.items():
        stored = sum({name: inputs * outputs for name, inputs, outputs, _ in places}.values())
        computed = sum(2 * tokens * inputs * outputs * times for _, inputs, outputs, times in places)
        got = call(function, list(places), tokens)
        if not isinstance(got, tuple | list) or len(got) != 2:
            fail(function, f"{what}: expected two numbers, (numbers stored, FLOPs), got {got!r}")
        for name, one, right in zip(("numbers stored", "FLOPs"), got, (stored, computed), strict=True):
            close(function, one, torch.tensor(float(right), dtype=torch.float64), f"{what}, {name}:")


@exercise
def rows_of_patches(function: Callable) -> None:
    """`function(pictures, patch)` must turn (B, C, H, W) into (B, patches, C · patch²), so that a product is enough.

    The rows, times the weight of a convolution of that kernel and stride written as a matrix, must give its outputs.
    """
    draw = torch.Generator().manual_seed(0)
    for batch, channels, height, width, patch in [(1, 1, 4, 4, 2), (2, 3, 4, 6, 2), (2, 2, 6, 3, 3), (1, 2, 3, 2, 1)]:
        pictures = torch.randn(batch, channels, height, width, generator=draw, dtype=torch.float64)
        expected = F.unfold(pictures, patch, stride=patch).transpose(1, 2)  # (B, patches, C · patch²)
        where = f"for {batch} of {channels} × {height} × {width} and patches of {patch} × {patch}"
        answers(function, (pictures, patch), expected, where)


@exercise
def samples_a_second(function: Callable) -> None:
    """`function(batch, seconds, numbers, workers, mbit)`: the samples that all workers together train on in a second.

    A worker computes `seconds` for its `batch` samples; then the float32 gradients of so many numbers go round a ring
    over links of `mbit` million bits a second.
    """
    for batch, seconds, numbers, workers, mbit in [
        (8, 0.5, 1_000_000, 1, 100),
        (8, 0.5, 1_000_000, 2, 100),
        (32, 0.25, 110_000_000, 4, 1000),
        (16, 2.0, 500_000, 8, 10_000),
    ]:
        exchange = 2 * (workers - 1) / workers * 32 * numbers / (1e6 * mbit)
        expected = torch.tensor(workers * batch / (seconds + exchange), dtype=torch.float64)
        where = f"for {workers} worker{'s' * (workers > 1)}, {numbers:,} numbers and {mbit:,} Mbit/s,"
        answers(function, (batch, seconds, numbers, workers, mbit), expected, where)
