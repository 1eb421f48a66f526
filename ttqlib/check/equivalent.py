"""Equivalent scales: a pair folded, the gradient of α, a scale from the size of inputs, and the best such scale."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..quantizers.recipes import GroupRTN
from .forbidden import call_by_hand
from .verdict import answers, call, close, exercise, fail

TRIED = [number / 20 for number in range(20)]


@exercise
def scaled_pair(function: Callable) -> None:
    """`function(gain, weight, scale)` must return gain / s and W diag(s): a norm's weight and the layer behind it."""
    for seed, (outputs, inputs) in enumerate([(3, 4), (4, 4), (1, 6)]):
        draw = torch.Generator().manual_seed(seed)
        gain, weight = _random(draw, inputs), _random(draw, outputs, inputs)
        scale = _random(draw, inputs).exp()
        where = f"for a weight of {outputs} × {inputs}"
        got = call(function, gain, weight, scale)
        if not (isinstance(got, tuple | list) and len(got) == 2):
            fail(function, f"{where} expected two tensors, the gain and the weight, got {type(got).__name__}")
        close(function, got[0], gain / scale, f"{where}, of the gain,")
        close(function, got[1], weight * scale, f"{where}, of the weight,")


@exercise
def alpha_gradient(function: Callable) -> None:
    """`function(weight, effective, arriving)` must return ∂L/∂α, (in,): the step constant, nothing clipped."""
    for seed, (outputs, inputs, step) in enumerate([(3, 4, 0.5), (5, 5, 0.2), (1, 6, 1.0)]):
        draw = torch.Generator().manual_seed(seed)
        weight, arriving = _random(draw, outputs, inputs), _random(draw, outputs, inputs)
        alpha = (_random(draw, inputs) / 2).requires_grad_()
        scaled = weight * alpha.exp()
        rounded = scaled + ((scaled / step).round() * step - scaled).detach()  # straight through
        effective = rounded / alpha.exp()
        (expected,) = torch.autograd.grad(effective, alpha, arriving)
        given = weight, effective.detach(), arriving
        close(function, call_by_hand(function, *given), expected, f"for a weight of {outputs} × {inputs}")


@exercise
def awq_scale(function: Callable) -> None:
    """`function(magnitude, exponent)` must return m^p, divided so that its largest and its least have the product 1."""
    for seed, exponent in enumerate([0.5, 0.0, 0.95, 0.25]):
        magnitude = _random(torch.Generator().manual_seed(seed), 7).exp() * 5
        scale = magnitude**exponent
        expected = scale / (scale.max() * scale.min()).sqrt()
        answers(function, (magnitude, exponent), expected, f"for the exponent {exponent:g}")


@exercise
def best_exponent(function: Callable) -> None:
    """`function(weight, x, bits)` must return the p of 0, 0.05, … 0.95 whose scales lose least of the outputs."""
    for seed, (bits, large) in enumerate([(3, 40.0), (2, 10.0), (4, 100.0), (3, 1.0)]):
        draw = torch.Generator().manual_seed(seed)
        weight, x = _random(draw, 12, 16), _random(draw, 64, 16)
        x[:, :2] *= large
        try:
            got = float(torch.as_tensor(call(function, weight, x, bits)))
        except (TypeError, ValueError, RuntimeError):
            fail(function, "expected one number")
        where = f"at {bits} bits, two inputs {large:g} times as large as the others,"
        if min(abs(got - exponent) for exponent in TRIED) > 1e-6:
            fail(function, f"{where} expected one of 0, 0.05, …, 0.95, got {got:g}")
        least = min(TRIED, key=lambda exponent: _lost(weight, x, bits, exponent))
        if _lost(weight, x, bits, got) > 1.0001 * _lost(weight, x, bits, least):
            fail(function, f"{where} p = {got:g} loses more of the outputs than p = {least:g}")


def _lost(weight: Tensor, x: Tensor, bits: int, exponent: float) -> float:
    magnitude = x.abs().mean(0)
    scale = magnitude**exponent / ((magnitude**exponent).max() * (magnitude**exponent).min()).sqrt()
    rounded = GroupRTN(bits, per="channel", symmetric=False).build(weight * scale)(weight * scale) / scale
    return float((x @ (rounded - weight).T).square().sum())


def _random(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float64)
