"""Learned rounding: each weight is told, by training, whether to go up or down, and each group how much to clip.

Round-to-nearest is right for a weight alone, not for the outputs that many weights make together. `LearnedRounding`
adds an offset of at most half a step to each weight before it is rounded, so that it may end on either side, and moves
both ends of each group's range by a factor. All of that trains on what a layer or a block of layers answers. What it
has learned is a weight on an ordinary grid, which costs no bit more and nothing when it is used.

Source: W. Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs" (SignRound,
arXiv 2309.05516).
"""

import torch
from torch import Tensor, nn

from ..inventory.layout import Layout
from .fake_quantization import join, split, straight_through
from .recipes import GroupRTN, WeightQuantizer

NARROWEST = 0.1  # the least that the factor of an end may be


class Nudged(torch.autograd.Function):
    """δ · clip(round(w/δ + v), lowest, lowest + 2^b − 1), with the straight-through gradients of v, δ and `lowest`.

    Inside the range: δ of v, and round(…) − w/δ of δ. Outside, the limit of δ and δ of `lowest`, 0 of v. Use:
    `Nudged.apply(w, v, step, lowest, spread)` with w and v (rows, groups, size), step and lowest (rows, groups, 1),
    `spread` = 2^b − 1. The weight is frozen. Nothing of its size is kept but w and v themselves: the way back counts
    the levels again.
    """

    @staticmethod
    def forward(ctx, w: Tensor, v: Tensor, step: Tensor, lowest: Tensor, spread: int) -> Tensor:
        ctx.save_for_backward(w, v, step, lowest)
        ctx.spread = spread
        return Nudged.levels(w, v, step, lowest, spread) * step

    @staticmethod
    def levels(w: Tensor, v: Tensor, step: Tensor, lowest: Tensor, spread: int) -> Tensor:
        return (w * step.reciprocal()).add_(v).round_().clamp_(lowest, lowest + spread)

    @staticmethod
    def backward(ctx, grad: Tensor):
        w, v, step, lowest = ctx.saved_tensors
        u = w * step.reciprocal()
        nudged = (u + v).round_()
        inside = (nudged >= lowest) & (nudged <= lowest + ctx.spread)
        levels = nudged.clamp_(lowest, lowest + ctx.spread)
        grad_step = (grad * (levels - u * inside)).sum(-1, keepdim=True)
        grad_lowest = (grad * ~inside).sum(-1, keepdim=True) * step
        return None, grad * inside * step, grad_step, grad_lowest, None


class LearnedRounding(nn.Module):
    """A parametrization that stands in for a `WeightQuantizer` of `GroupRTN` while rounding is learned.

    Parameters: `offset` v, from −0.5 to 0.5, of the weight's groups; `low` and `high`, (rows, groups), the factors of
    the two ends of each range (a symmetric grid has one range, and `high` alone). As it begins it gives what the
    quantizer gives, bit for bit. It may also widen a range: the one that it begins with may be clipped.
    """

    def __init__(self, quantizer: WeightQuantizer, weight: Tensor):
        super().__init__()
        self.recipe: GroupRTN = quantizer.recipe
        self.layout: Layout = quantizer.layout
        self.begun = quantizer.scales(weight)
        self.offset = nn.Parameter(torch.zeros_like(split(self.layout.rows(weight.detach()), self.recipe.per)))
        ends = torch.ones_like(self.begun["scale"])
        self.high = nn.Parameter(ends)
        self.low = None if self.recipe.symmetric else nn.Parameter(ends.clone())

    def grid(self) -> tuple[Tensor, Tensor]:
        """Step and lowest level of each group, as they are now: whole numbers, with the gradients of both ends."""
        spread, step, lowest = 2**self.recipe.bits - 1, self.begun["scale"], self.recipe.lowest(self.begun)
        if self.low is None:
            return step * self.high, torch.full_like(step, lowest)
        lowest = lowest[..., 0]
        bottom, top = lowest * self.low, (lowest + spread) * self.high  # in steps as they were
        moved = ((top - bottom) / spread).clamp_min(1e-3)
        place = bottom / moved
        return step * moved, straight_through(place.detach().round().clamp(-spread, 0), place)

    def forward(self, weight: Tensor) -> Tensor:
        rows = self.layout.rows(weight)
        step, lowest = (entry[..., None] for entry in self.grid())
        groups = split(rows, self.recipe.per)
        rounded = Nudged.apply(groups.detach(), self.offset, step, lowest, 2**self.recipe.bits - 1)
        return self.layout.weight(join(rounded, rows.shape), weight.shape).to(weight.dtype)

    @torch.no_grad()
    def keep_inside_(self) -> None:
        """Bring what an optimizer has moved too far back to what is allowed."""
        self.offset.clamp_(-0.5, 0.5)
        for end in (self.low, self.high):
            if end is not None:
                end.clamp_min_(NARROWEST)

    @torch.no_grad()
    def learned(self) -> dict[str, Tensor]:
        """The scales, and zero points, that it has come to, as `GroupRTN.initial_scales` gives them."""
        step, lowest = self.grid()
        scales = {"scale": step.clone()}
        return scales if self.recipe.symmetric else scales | {"zero_point": (-lowest).to(torch.uint8)}
