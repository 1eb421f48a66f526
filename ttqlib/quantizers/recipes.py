"""Weight quantizers: recipes, and the parametrization they make, for a TT core and a dense weight alike.

One and two bits whose scale is a mean |w| are in `mean_scales`.

A recipe such as `LSQ(bits=4)` says how to quantize. Its `build` makes the module that `torch.nn.utils.parametrize` puts
between the latent weight, which trains, and the layer, which sees a few levels only: see `fake_quantize_`.
"""

from dataclasses import KW_ONLY, dataclass
from math import isfinite, sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..inventory.layout import PLAIN, Layout
from .fake_quantization import (
    Built,
    LearnedStep,
    check_bits,
    check_finite,
    check_init,
    check_per,
    clip_range,
    group_sizes,
    initial_step,
    join,
    keep,
    min_max,
    positive,
    split,
    straight_through,
    to_levels,
    widen,
)
from .rounding import Rounded


class WeightRecipe:
    """What the recipes share: frozen dataclasses that hold no tensors; the module that one builds does.

    Every recipe knows `bits`, 1 to 8, and `per` (see `LSQ`). `hold` makes a tensor of the module of a scale, trainable
    or not; where it is None, scales follow the weight. A recipe of your own says `initial_scales` and `levels`, and
    where code 0 is another level than −2^(bits − 1) also `lowest`; `ttq.register` lets files name it.
    """

    hold: ClassVar = nn.Parameter
    spacing: ClassVar[int] = 1  # code c stands for the level lowest + spacing · c
    spans: ClassVar[bool] = False  # whether the grid of a group spans the range of its weights

    def __post_init__(self):
        keep(self, per=check_per("per", self.per))

    def build(self, weight: Tensor, layout: Layout = PLAIN) -> "WeightQuantizer":
        """The module for this `weight`, scales started from it; on a meta tensor they are placeholders to load into.

        `layout` says where the channels of `weight` are. The scales of a frozen weight are frozen too.

        Raises:
            TypeError: `weight` is not a floating-point tensor.
            ValueError: it is empty or holds NaN or infinity.
        """
        check_finite("weight", weight)
        quantizer = WeightQuantizer(self, self.initial_scales(layout.rows(weight.detach())), layout)
        frozen = isinstance(weight, nn.Parameter) and not weight.requires_grad
        return quantizer.requires_grad_(not frozen)

    def initial_scales(self, weight: Tensor) -> dict[str, Tensor]:
        """The "scale" of each group, of shape () per tensor, else (rows, groups); on some grids a "zero_point" too."""
        raise NotImplementedError

    def levels(self, weight: Tensor, scales: dict[str, Tensor]) -> Tensor:
        """The level of each weight, in groups, as a whole floating-point number: here the nearest that has a code."""
        return to_levels(split(weight, self.per), scales["scale"][..., None], self.lowest(scales), self.bits)

    def lowest(self, scales: dict[str, Tensor]) -> Tensor | int:
        """The level that code 0 stands for."""
        return clip_range(self.bits)[0]

    def fake_quantize(self, weight: Tensor, scales: dict[str, Tensor]) -> Tensor:
        """level × scale, in the shape and dtype of `weight`. Here with the gradient passed straight through to it."""
        quantized = self.levels(weight.detach(), scales) * scales["scale"][..., None]
        return straight_through(join(quantized, weight.shape), weight)

    def follow(self, weight: Tensor) -> Tensor:
        """The same with the scales that `weight` has now."""
        return self.fake_quantize(weight, self.initial_scales(weight.detach()))


@dataclass(frozen=True)
class LSQ(WeightRecipe):
    """Learned step size: Q(x, δ, b) = δ · round(clip(x/δ, −2^(b−1), 2^(b−1) − 1)) with a trainable δ.

    Sources: arXiv 2306.01076; S. K. Esser et al., "Learned Step Size Quantization", ICLR 2020.

    Args:
        bits: b, from 2 to 8. One bit is `Binary`.
        init: where δ starts. "mse" searches for the least squared error; "max" is max|x| / Qp, which clips nothing;
            "lsq" is 2 · mean|x| / √Qp, as Esser et al. have it. Qp = 2^(b−1) − 1.
        grad_scale: multiply the gradient of δ by 1/√(N · Qp), N the number of weights that share it (Esser, §2.2), on
            the average where the last group of a row is shorter.
        per: "tensor", "channel" or a number of weights, the group size. A weight is read as the matrix
            `weight.flatten(1)`, turned first where a layer has its outputs along another axis (`Layout`). A channel is
            a row of it: an output of `nn.Linear`, a left rank index of a core. Groups run along a row; where the size
            does not divide, the last is shorter.

    Raises:
        ValueError: anything else.
    """

    bits: int
    _: KW_ONLY
    init: str = "mse"
    grad_scale: bool = True
    per: str | int = "tensor"

    def __post_init__(self):
        keep(self, bits=check_bits(self.bits))
        check_init(self.init)
        super().__post_init__()

    def with_step(self, step: float | Tensor) -> "WeightQuantizer":
        """The module with a given δ: one number, or for channels and groups a tensor of shape (rows, groups).

        Raises:
            ValueError: a δ that is not positive and finite, or of another number of axes.
        """
        step = torch.as_tensor(step, dtype=None if isinstance(step, Tensor) else torch.float32).detach().clone()
        axes = 0 if self.per == "tensor" else 2
        if step.ndim != axes or not all(isfinite(s) and s > 0 for s in step.flatten().tolist()):
            raise ValueError(f"step must be positive and have {axes} axes for per={self.per!r}, got {step.tolist()}")
        return WeightQuantizer(self, {"scale": step})

    def initial_scales(self, weight: Tensor) -> dict[str, Tensor]:
        groups, count = split(weight, self.per), group_sizes(weight, self.per)
        return {"scale": initial_step(groups, count, self.bits, self.init)}

    def fake_quantize(self, weight: Tensor, scales: dict[str, Tensor], *, sharing: float | None = None) -> Tensor:
        """Q(x, δ, b). `sharing` says how many weights have one δ, where `weight` holds but some of them."""
        (lowest, highest), step = clip_range(self.bits), scales["scale"]
        sharing = sharing or weight.numel() / step.numel()
        factor = 1 / sqrt(sharing * highest) if self.grad_scale else 1.0
        if self.per == "tensor":  # no views: for a small core they would cost a third of the time
            return LearnedStep.apply(widen(weight), step, lowest, highest, factor).to(weight.dtype)
        quantized = LearnedStep.apply(split(weight, self.per), step[..., None], lowest, highest, factor)
        return join(quantized, weight.shape).to(weight.dtype)


@dataclass(frozen=True)
class GroupRTN(WeightRecipe):
    """Weight-only round-to-nearest: each group of weights on a grid of 2^bits levels that spans its range.

    Nothing trains: the scales that `build` finds stay. Symmetric: δ = max|w| / Qp, levels −2^(b−1) … Qp = 2^(b−1) − 1.
    Asymmetric: δ = (max − min) / (2^b − 1), the range widened to hold 0, and a zero point, the code 0 … 2^b − 1 that
    stands for 0. The gradient passes straight through. `per` is as in `LSQ`.

    Source: Z. Yao et al., "ZeroQuant", NeurIPS 2022 (arXiv 2206.01861), groups of weights without training.

    Raises:
        ValueError: `bits` outside 2 … 8, or another `per`.
    """

    hold: ClassVar = nn.Buffer
    spans: ClassVar[bool] = True
    bits: int
    _: KW_ONLY
    per: str | int = 128
    symmetric: bool = True

    def __post_init__(self):
        keep(self, bits=check_bits(self.bits))
        super().__post_init__()

    def initial_scales(self, weight: Tensor) -> dict[str, Tensor]:
        scale, lowest = min_max(split(weight, self.per), self.bits, self.symmetric)
        return {"scale": scale} if self.symmetric else {"scale": scale, "zero_point": (-lowest).to(torch.uint8)}

    def fake_quantize(self, weight: Tensor, scales: dict[str, Tensor]) -> Tensor:
        return Rounded.apply(widen(weight), self, scales).to(weight.dtype)  # straight through, and nothing is kept

    def lowest(self, scales: dict[str, Tensor]) -> Tensor | int:
        return super().lowest(scales) if self.symmetric else -widen(scales["zero_point"])[..., None]


class WeightQuantizer(Built):
    """Gives a layer level × scale in place of the latent weight; holds the scales that do not follow that weight.

    `codes` and `scales` are what a file stores; `decode` makes of them exactly what `forward` gives.

    PyTorch shares the class of a parametrized layer with its copies, so that `remove_parametrizations` on one breaks
    the others: make plain layers anew from their effective weights instead.
    """

    def __init__(self, recipe: WeightRecipe, scales: dict[str, Tensor], layout: Layout = PLAIN):
        super().__init__(recipe)
        self.layout = layout
        self.held = tuple(scales) if recipe.hold else ()
        for name in self.held:
            setattr(self, name, recipe.hold(scales[name]))
        self.registered = False  # whether it stands on a weight already, whose scales it was fitted to

    def forward(self, weight: Tensor) -> Tensor:
        rows = self.layout.rows(weight)
        quantized = self.recipe.fake_quantize(rows, self.scales(weight)) if self.held else self.recipe.follow(rows)
        return self.layout.weight(quantized, weight.shape)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """The latent weight for an assigned one: itself, with the scales started anew from it.

        `register_parametrization` calls this once; that call leaves the scales as the module was made with.
        """
        if self.registered and self.held:
            check_finite("weight", weight)
            for name, value in self.recipe.initial_scales(self.layout.rows(weight)).items():
                getattr(self, name).copy_(value)
        self.registered = True
        return weight

    @property
    def step(self) -> Tensor:
        """δ, the scale that the module holds, as it is applied: |scale| + tiny."""
        return positive(self.scale)

    def scales(self, weight: Tensor) -> dict[str, Tensor]:
        """What turns codes into weights; shapes as in `initial_scales`, a zero point fits into `bits` bits."""
        if not self.held:
            return self.recipe.initial_scales(self.layout.rows(weight.detach()))
        return {name: self.step if name == "scale" else getattr(self, name) for name in self.held}

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """Each weight's level as an integer 0 … 2^bits − 1, counted from the lowest: uint8, of the shape of `weight`.

        Raises:
            ValueError: the weight holds NaN or infinity, which no code stands for.
        """
        check_finite("weight", weight)
        scales, rows = self.scales(weight), self.layout.rows(weight)
        codes = (self.recipe.levels(rows, scales) - self.recipe.lowest(scales)) / self.recipe.spacing
        return self.layout.weight(join(codes, rows.shape), weight.shape).to(torch.uint8)

    @torch.no_grad()
    def decode(self, codes: Tensor, scales: dict[str, Tensor]) -> Tensor:
        """The weight that `codes` and `scales` stand for, in the dtype of the scales."""
        scale, recipe, rows = scales["scale"][..., None], self.recipe, self.layout.rows(codes)
        levels = split(rows.to(scale.dtype), recipe.per) * recipe.spacing + recipe.lowest(scales)
        return self.layout.weight(join(levels * scale, rows.shape), codes.shape)
