"""What the tests of the library share: small random examples, and how its errors must read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

seeds = st.integers(0, 2**32 - 1)
ranks = st.integers(1, 6)

# The relative error that decomposing and rebuilding in a dtype may cost.
ROUNDING = {torch.bfloat16: 0.03, torch.float16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}


def mode_lists(least: int, most: int, largest: int = 5) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, largest), min_size=least, max_size=most)


def random_tensor(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_train(modes: Sequence[int], ranks: Sequence[int], seed: int = 0) -> list[Tensor]:
    return [random_tensor((ranks[k], mode, ranks[k + 1]), seed + k) for k, mode in enumerate(modes)]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@contextmanager
def refused(kind: type[Exception], *parts: str) -> Iterator[None]:
    """The block must fail with one line that mentions every one of `parts`."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


class Scale(nn.Module):
    """A parametrization with a parameter of its own, as a quantizer has."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, core: Tensor) -> Tensor:
        return core * self.factor.to(core.dtype)


class Double(nn.Module):
    """A parametrization that holds nothing."""

    def forward(self, core: Tensor) -> Tensor:
        return 2 * core


class InvertibleDouble(Double):
    def right_inverse(self, core: Tensor) -> Tensor:
        return core / 2


class Scaled(nn.Embedding):
    """Rows times a number, as BART and Gemma have it."""

    def __init__(self, rows, width, padding_idx, embed_scale=1.0):
        super().__init__(rows, width, padding_idx)
        self.embed_scale = embed_scale

    def forward(self, ids):
        return super().forward(ids) * self.embed_scale
