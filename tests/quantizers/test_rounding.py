"""Rounding in pieces gives what rounding at once gives; its gradients are autograd's, and nothing is kept for them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ttqlib as ttq
from tests.cases import random_tensor, seeds
from ttqlib.quantizers import rounding
from ttqlib.quantizers.fake_quantization import join, split
from ttqlib.quantizers.rounding import Rounded, ScaledRounding, round_rows

RECIPES = [
    ttq.GroupRTN(3, per=4, symmetric=False),
    ttq.GroupRTN(2, per=5),
    ttq.GroupRTN(4, per="channel", symmetric=False),
    ttq.GroupRTN(3, per="tensor"),
    ttq.LSQ(3, per=4, init="max"),
    ttq.Ternary(per="channel"),
]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=str)


def at_once(weight, recipe):
    scales = recipe.initial_scales(weight)
    return join(recipe.levels(weight, scales) * scales["scale"][..., None], weight.shape)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(rounding, "PIECE", 30)  # three rows of the matrices below


@each_recipe
def test_in_pieces_as_at_once(recipe):
    weight = random_tensor((11, 10)).float()
    assert torch.equal(round_rows(weight, recipe), at_once(weight, recipe))
    scales = recipe.initial_scales(weight * 0.7)
    expected = join(recipe.levels(weight, scales) * scales["scale"][..., None], weight.shape)
    assert torch.equal(round_rows(weight, recipe, scales), expected)


@pytest.mark.parametrize("shape", [(10,), (7, 10), (3, 2, 5)])
def test_group_rtn_keeps_nothing_for_a_gradient_that_passes_straight_through(shape):
    recipe, weight = ttq.GroupRTN(3, per=4, symmetric=False), random_tensor(shape).float().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        quantized = recipe.fake_quantize(weight, recipe.initial_scales(weight.detach()))
    assert kept == [] and torch.equal(quantized, at_once(weight.detach(), recipe).reshape(shape))
    grad = random_tensor(shape, 1).float()
    assert torch.equal(torch.autograd.grad(quantized, weight, grad)[0], grad)


def test_a_nan_stays():
    recipe, weight = ttq.GroupRTN(3, per=4), torch.ones(2, 4)
    scales = recipe.initial_scales(weight)
    weight[0, 1] = torch.nan
    assert Rounded.apply(weight, recipe, scales).isnan().sum() == 1


# ------------------------------------------------------------------------------------------------------------ scaled


def by_autograd(weight, columns, rows, recipe):
    """The same, of differentiable operations, but for the rounding itself, whose residual is held fixed."""
    scaled = weight * rows.exp()[:, None] * columns.exp()
    if recipe is None:
        return scaled
    if not recipe.spans:
        return scaled + (at_once(scaled, recipe) - scaled).detach()
    groups = split(scaled, recipe.per)
    if recipe.symmetric:
        step = groups.abs().amax(-1, keepdim=True) / (2 ** (recipe.bits - 1) - 1)
    else:
        low, high = (bound(-1, keepdim=True) for bound in (groups.amin, groups.amax))
        step = (high.clamp_min(0) - low.clamp_max(0)) / (2**recipe.bits - 1)
    residual = (split(at_once(scaled.detach(), recipe), recipe.per) - groups) / step  # what rounding adds, in steps
    return join(groups + step * residual.detach(), scaled.shape)


@pytest.mark.parametrize("recipe", [None, *RECIPES], ids=str)
def test_gradients_of_scales_are_those_of_autograd(recipe):
    weight = random_tensor((11, 10))
    columns, rows = (random_tensor((n,), n).mul(0.3).requires_grad_() for n in (10, 11))
    expected, found = (make(weight, columns, rows, recipe) for make in (by_autograd, ScaledRounding.apply))
    torch.testing.assert_close(found, expected)
    grad = random_tensor((11, 10), 5)
    for one, other in zip(*(torch.autograd.grad(made, (columns, rows), grad) for made in (found, expected))):
        torch.testing.assert_close(one, other)


@given(seeds, st.floats(-1, 1))
def test_a_scale_common_to_all_scales_the_result_and_its_gradient_says_so(seed, common):
    recipe, weight = ttq.GroupRTN(3, per=5, symmetric=False), random_tensor((6, 10), seed)
    columns, rows = torch.full((10,), common, dtype=torch.float64, requires_grad=True), weight.new_zeros(6)
    quantized = ScaledRounding.apply(weight, columns, rows, recipe)
    torch.testing.assert_close(quantized, at_once(weight, recipe) * columns[0].detach().exp(), rtol=1e-5, atol=1e-7)
    grad = random_tensor((6, 10), seed + 1)
    (found,) = torch.autograd.grad(quantized, columns, grad)
    torch.testing.assert_close(found.sum(), (grad * quantized).sum())


def test_with_a_step_that_stands_still_the_gradient_is_the_error_at_work():
    """Consumers' columns times e^α, the producer's channel by e^−α: the sum of both ways is −⟨G, Q − W⟩ of a column."""
    recipe, weight = ttq.GroupRTN(3, per=5, symmetric=False), random_tensor((6, 10))
    recipe = type("Still", (ttq.GroupRTN,), {"spans": False})(3, per=5, symmetric=False)
    x, target = random_tensor((4, 10), 1), random_tensor((4, 6), 2)
    alpha = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    quantized = ScaledRounding.apply(weight, alpha, weight.new_zeros(6), recipe)
    loss = ((x * (-alpha).exp()) @ quantized.T - target).square().sum()
    (found,) = torch.autograd.grad(loss, alpha)
    plain = quantized.detach().requires_grad_()
    (grad,) = torch.autograd.grad((x @ plain.T - target).square().sum(), plain)
    torch.testing.assert_close(found, -(grad * (plain - weight)).sum(0).detach())
