"""One and two bits whose scale is a mean |w|: `Binary` and `Ternary`, what XTC quantizes with."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .fake_quantization import AT_ONCE, group_sizes, mean_abs, split
from .recipes import WeightRecipe
from .rounding import Rounded


@dataclass(frozen=True)
class MeanScale(WeightRecipe):
    """What `Binary` and `Ternary` share: a scale α that is a mean |w|, following the weight or learnable."""

    _: KW_ONLY
    per: str | int = "tensor"
    learnable: bool = False

    @property
    def hold(self):
        return nn.Parameter if self.learnable else None

    def follow(self, weight: Tensor) -> Tensor:
        by_rows = self.per != "tensor" and weight.ndim > 1
        cached = weight.device.type == "cpu"  # an accelerator is quicker with few large operations
        if by_rows and cached and weight.numel() > AT_ONCE and not torch.compiler.is_compiling():
            return Rounded.apply(weight, self, None)  # in blocks of rows
        return super().follow(weight)


class Binary(MeanScale):
    """sign(w) · α with α = mean|w|; sign(0) is 1, so that there are two levels and no third at 0. Code c is 2c − 1.

    Args: `learnable` makes α, which otherwise follows the latent weight, a trainable scale; `per` is as in `LSQ`.
    The gradient passes straight through to the latent weight; that of a learnable α is exact.

    Source: M. Rastegari et al., "XNOR-Net", ECCV 2016; on transformers XTC, arXiv 2206.01859.
    """

    bits: ClassVar[int] = 1
    spacing: ClassVar[int] = 2

    def initial_scales(self, weight: Tensor) -> dict[str, Tensor]:
        return {"scale": mean_abs(split(weight, self.per), group_sizes(weight, self.per))}

    def levels(self, weight: Tensor, scales: dict[str, Tensor]) -> Tensor:
        return split(weight, self.per).sign().add_(0.5).sign_()  # as where(w < 0, −1, 1), which is far slower


class Ternary(MeanScale):
    """−α, 0 or α: 0 where |w| ≤ 0.7 · mean|w|, α the mean |w| of the others; an all-zero group stays zero.

    Stored in 2 bits as the codes 1, 2 and 3. Arguments and gradients are those of `Binary`.

    Source: F. Li et al., "Ternary Weight Networks", arXiv 1605.04711.
    """

    bits: ClassVar[int] = 2
    threshold: ClassVar[float] = 0.7

    def initial_scales(self, weight: Tensor) -> dict[str, Tensor]:
        above = self._above_threshold(weight)
        return {"scale": mean_abs(split(weight, self.per) * above, above.sum(-1).clamp_min(1))}

    def levels(self, weight: Tensor, scales: dict[str, Tensor]) -> Tensor:
        return split(weight, self.per).sign() * self._above_threshold(weight)

    def _above_threshold(self, weight: Tensor) -> Tensor:
        """1 where |w| lies above the threshold, else 0: numbers, which multiply faster than booleans."""
        groups = split(weight, self.per)
        threshold = self.threshold * mean_abs(groups, group_sizes(weight, self.per))
        return groups.abs().sub_(threshold[..., None]).sign_().clamp_min_(0)
