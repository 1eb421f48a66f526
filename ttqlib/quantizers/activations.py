"""Activation quantizers: fake quantization of what flows into a layer, put there by a forward pre-hook.

Low-precision arithmetic needs both factors of a product in few bits. Weights stand still, so `recipes` can look at
them at leisure; activations are seen one batch at a time, hence two recipes: scales found anew for every token, or
one step size, calibrated on the first batches and then trained.
"""

from dataclasses import KW_ONLY, dataclass
from inspect import signature
from math import sqrt

import torch
from torch import Tensor, nn

from ..tensors.shapes import whole_number
from .fake_quantization import (
    Built,
    LearnedStep,
    check_bits,
    check_finite,
    check_init,
    clip_range,
    initial_step,
    keep,
    min_max,
    positive,
    split,
    straight_through,
    to_levels,
    widen,
)


class ActivationRecipe:
    """What the recipes share: frozen dataclasses that hold no tensors; the module that one builds may."""

    bits: int

    def build(self) -> nn.Module:
        """The module that fake-quantizes: (..., features) to the same shape and dtype. It knows its `recipe`."""
        raise NotImplementedError


@dataclass(frozen=True)
class DynamicActivation(ActivationRecipe):
    """Every token on a grid of its own range: the last axis of an input (..., features) shares one scale.

    Symmetric: δ = max|x| / Qp. Asymmetric: δ = (max − min) / (2^b − 1), the range widened to hold 0, with an integer
    zero point. Nothing is clipped, trained or stored; the gradient passes straight through.

    Source: Z. Yao et al., "ZeroQuant", NeurIPS 2022 (arXiv 2206.01861), where every token has its own scale.

    Raises:
        ValueError: `bits` outside 2 … 8.
    """

    bits: int = 8
    _: KW_ONLY
    symmetric: bool = True

    def __post_init__(self):
        keep(self, bits=check_bits(self.bits))

    def build(self) -> "DynamicActivationQuantizer":
        return DynamicActivationQuantizer(self)


@dataclass(frozen=True)
class StaticActivation(ActivationRecipe):
    """One step size δ for all that flows into a layer: the Q(x, δ, b) of `LSQ`, calibrated, then trained.

    Args:
        bits: from 2 to 8.
        batches: on how many batches δ is calibrated. They are the first that are seen in training mode; each is
            quantized with the mean of the steps found so far.
        init: how a batch finds its step, as in `LSQ`.
        grad_scale: multiply the gradient of δ by 1/√(features · Qp), as Esser et al. (2020, §2.2) do.

    Raises:
        ValueError: `bits` outside 2 … 8, `batches` below 1, or an unknown `init`.
    """

    bits: int = 8
    _: KW_ONLY
    batches: int = 8
    init: str = "mse"
    grad_scale: bool = True

    def __post_init__(self):
        keep(self, bits=check_bits(self.bits), batches=whole_number("batches", self.batches))
        check_init(self.init)

    def build(self) -> "StaticActivationQuantizer":
        return StaticActivationQuantizer(self)


class DynamicActivationQuantizer(Built):
    """Maps (..., features) to the same shape and dtype, 2^bits levels a token."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = widen(x.detach())
        scale, lowest = min_max(tokens, self.recipe.bits, self.recipe.symmetric)
        scale = scale[..., None]
        lowest = lowest if self.recipe.symmetric else lowest[..., None]
        return straight_through(to_levels(tokens, scale, lowest, self.recipe.bits) * scale, x)


class StaticActivationQuantizer(Built):
    """Q(x, δ, b) of an input of any shape. δ is the parameter `scale`, read as |scale| + tiny.

    The buffer `observed` counts calibration batches, so that a checkpoint resumes in the middle of calibration. Under
    `torch.compile` and `torch.export` nothing is calibrated: do that first. Under data parallelism every process
    must calibrate at the same time; the mean of their steps is taken. What checkpointing computes once more, on the
    way back, is no new batch.

    Raises:
        RuntimeError: used in eval mode before it has seen a batch in training mode; or checkpointing computes once
            more one of several calls that δ was calibrated on, each of which had another δ.
        ValueError: a calibration batch is empty or holds NaN or infinity.
    """

    def __init__(self, recipe: StaticActivation):
        super().__init__(recipe)
        self.scale = nn.Parameter(torch.tensor(torch.nan))  # whatever escapes the check below shows
        self.observed = nn.Buffer(torch.tensor(0))
        self._moves = 0  # how often calibration has moved δ since the last way back, or call of `train`

    @property
    def step(self) -> Tensor:
        """δ as it is applied; NaN until calibration begins."""
        return positive(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self._calibrate(x)
        lowest, highest = clip_range(self.recipe.bits)
        factor = 1 / sqrt(x.shape[-1] * highest) if self.recipe.grad_scale else 1.0
        step = positive(self.scale.clone())  # calibration may write to `scale` before this call's way back
        return LearnedStep.apply(widen(x), step, lowest, highest, factor).to(x.dtype)

    def train(self, mode: bool = True) -> "StaticActivationQuantizer":
        self._moves = 0
        return super().train(mode)

    @torch.no_grad()
    def _calibrate(self, x: Tensor) -> None:
        """Make δ the mean over the batches seen so far, as long as there are to be more of them."""
        if x.is_meta:
            return
        if torch._C._current_graph_task_id() != -1:  # on the way back: torch.utils.checkpoint itself asks in this way
            self._check_recomputed()
        elif self.training and self.observed < self.recipe.batches:
            check_finite("the calibration batch", x)
            step = _mean_over_processes(initial_step(split(x, "tensor"), x.numel(), self.recipe.bits, self.recipe.init))
            self.observed += 1
            self._moves += 1
            self.scale.copy_(step if self.observed == 1 else self.step + (step - self.step) / self.observed)
        elif not self.observed:
            raise RuntimeError("this StaticActivation is not calibrated: run some batches in training mode first")

    def _check_recomputed(self) -> None:
        """A call that is computed once more has δ as it was then, if calibration has not moved it since."""
        if self._moves > 1:
            raise RuntimeError(
                f"checkpointing recomputes one of {self._moves} calls that this StaticActivation was calibrated on: "
                f"calibrate before, with {self.recipe.batches} batches in training mode under torch.no_grad(), then "
                "call model.train()"
            )
        self._moves = 0


def fake_quantize_input_(layer: nn.Module, recipe: ActivationRecipe) -> nn.Module:
    """Fake-quantize the first input of `layer` in place, by its new submodule `input_quantizer`; returns the layer.

    The input may be given by its name as well. Where nothing of the layer trains, neither does δ.

    Raises:
        ValueError: the layer has an input quantizer already.
    """
    if hasattr(layer, "input_quantizer"):
        raise ValueError(f"this {type(layer).__name__} quantizes its input already: {layer.input_quantizer.recipe}")
    trains = [parameter.requires_grad for parameter in layer.parameters()]
    layer.input_quantizer = recipe.build()
    if trains and not any(trains):
        layer.input_quantizer.requires_grad_(False)
    layer.register_forward_pre_hook(_quantize_first_input, with_kwargs=True)
    return layer


def _quantize_first_input(layer: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
    """A function of this module, and not a closure, so that copies and pickles of a layer use their own quantizer."""
    if inputs:
        first, *others = inputs
        return (layer.input_quantizer(first), *others), named
    name = next(iter(signature(layer.forward).parameters))
    if name not in named:
        raise TypeError(f"this {type(layer).__name__} must be given its first input, {name!r}, got {sorted(named)}")
    return inputs, {**named, name: layer.input_quantizer(named[name])}


def _mean_over_processes(step: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return step
    torch.distributed.all_reduce(step)
    return step / torch.distributed.get_world_size()
