"""The affine grid of assignment 2, as its checks know it: codes, values and the slopes of both."""

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """2^bits levels, `step` apart, of which the one with the code `zero_point` is 0."""

    step: float | Tensor
    zero_point: float | Tensor
    bits: int

    def __str__(self) -> str:
        return f"δ = {float(self.step):.3g}, zero point {float(self.zero_point):.3g} and {self.bits} bits"

    def codes(self, x: Tensor) -> Tensor:
        return ((x / self.step).round() + round(float(self.zero_point))).clamp(0, 2**self.bits - 1)

    def back(self, x: Tensor) -> Tensor:
        return self.step * (self.codes(x) - round(float(self.zero_point)))

    def beyond(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries lie below the lowest level, and which above the highest."""
        codes = x / self.step + round(float(self.zero_point))
        return codes < 0, codes > 2**self.bits - 1

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∂Q/∂x, ∂Q/∂δ and ∂Q/∂z of each entry, straight through both roundings."""
        saturated = torch.stack(self.beyond(x)).any(0)
        u = x / self.step
        of_step = torch.where(saturated, self.codes(x) - round(float(self.zero_point)), u.round() - u)
        return (~saturated).to(x.dtype), of_step, -self.step * saturated.to(x.dtype)

    def place(self, x: Tensor) -> str:
        """Where one entry lies, in words."""
        (below, above), code = self.beyond(x), float(x / self.step) + round(float(self.zero_point))
        if not below and not above:
            return "inside the range"
        near = "less than half a step " if -0.5 < code < 2**self.bits - 0.5 else ""
        return f"{near}{'below' if below else 'above'} the range"
