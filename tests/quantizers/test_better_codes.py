"""Clipping, GPTQ and learned rounding of one weight: each is better than round-to-nearest where it says it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import ttqlib as ttq
from tests.cases import random_tensor, seeds
from ttqlib.quantizers.clipping import clipped_scales
from ttqlib.quantizers.gptq import compensated
from ttqlib.quantizers.learned_rounding import LearnedRounding, Nudged
from ttqlib.quantizers.recipes import WeightQuantizer

PERS = ["tensor", "channel", 5, 8]
recipes = st.builds(ttq.GroupRTN, st.integers(2, 5), per=st.sampled_from(PERS), symmetric=st.booleans())
RECIPES = [ttq.GroupRTN(bits, per=per, symmetric=how) for bits in (2, 3) for per in PERS for how in (True, False)]
ROWS, COLUMNS = 12, 24


def correlated(seed: int = 0, columns: int = COLUMNS) -> torch.Tensor:
    """Second moments of inputs that go together, some of them many times as large as others."""
    inputs = random_tensor((3 * columns, 6), seed) @ random_tensor((6, columns), seed + 1)
    inputs = (inputs + random_tensor(inputs.shape, seed + 2)) * random_tensor((columns,), seed + 3).exp()
    return inputs.T @ inputs / len(inputs)


def heavy(seed: int = 0, shape=(ROWS, COLUMNS)) -> torch.Tensor:
    """A weight with a few large entries, in float32."""
    return random_tensor(shape, seed).pow(3).float()


def cost(error: torch.Tensor, moments: torch.Tensor) -> float:
    """What errors of a weight cost at the outputs."""
    return torch.einsum("ri,ij,rj->", error.double(), moments, error.double()).item()


def on_grid(recipe, weight, scales) -> torch.Tensor:
    return recipe.fake_quantize(weight, scales)


# ------------------------------------------------------------------------------------------------------- clipping


@given(recipes, seeds)
@settings(max_examples=30)
def test_clipping_never_costs_more_than_the_whole_range(recipe, seed):
    weight = heavy(seed)
    whole, clipped = recipe.initial_scales(weight), clipped_scales(recipe, weight)
    error, wide = (on_grid(recipe, weight, scales) - weight for scales in (clipped, whole))
    assert error.square().sum() <= wide.square().sum() * (1 + 1e-6)
    assert (clipped["scale"] <= whole["scale"]).all()
    assert clipped.keys() == whole.keys() and all(clipped[name].shape == whole[name].shape for name in whole)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_clipping_pays_where_a_few_weights_are_large(recipe):
    weight = heavy()
    error, wide = (
        (on_grid(recipe, weight, scales) - weight).square().sum().item()
        for scales in (clipped_scales(recipe, weight), recipe.initial_scales(weight))
    )
    assert error < 0.98 * wide


def test_weights_that_fill_their_grid_are_not_clipped():
    """Factor 1 is round-to-nearest: a weight on the grid costs nothing there, and nowhere else."""
    recipe = ttq.GroupRTN(3, per=8, symmetric=False)
    weight = torch.arange(8.0).sub(3).mul(0.5).repeat(4, 1)
    for moments in (None, torch.eye(8)):
        assert torch.equal(clipped_scales(recipe, weight, moments)["scale"], recipe.initial_scales(weight)["scale"])


@pytest.mark.parametrize("per", PERS)
def test_equal_independent_inputs_count_as_the_weights_do(per):
    recipe, weight = ttq.GroupRTN(3, per=per, symmetric=False), heavy()
    plain, informed = (clipped_scales(recipe, weight, moments) for moments in (None, 2 * torch.eye(COLUMNS)))
    torch.testing.assert_close(informed["scale"], plain["scale"])


@pytest.mark.parametrize("per", ["tensor", "channel", COLUMNS])
def test_what_pays_at_the_outputs_is_found_there(per):
    """Where a group is a whole row, what is minimized is the error of the outputs itself."""
    recipe, weight, moments = ttq.GroupRTN(3, per=per, symmetric=False), heavy(), correlated()
    by_inputs, by_weights, whole = (
        cost(on_grid(recipe, weight, scales) - weight, moments)
        for scales in (
            clipped_scales(recipe, weight, moments),
            clipped_scales(recipe, weight),
            recipe.initial_scales(weight),
        )
    )
    assert by_inputs <= min(by_weights, whole)
    assert by_inputs < 0.95 * max(by_weights, whole)


def test_the_best_clip_of_the_weights_can_be_worse_at_the_outputs_than_none():
    """The one large weight has the one large input: to clip it is best for the seven others, and fatal."""
    recipe = ttq.GroupRTN(2, per=8, symmetric=True)
    weight = torch.tensor([[2.0, 1.0, -1.0, 0.9, -0.9, 1.1, -1.1, 1.0]])
    moments = torch.diag(torch.tensor([100.0, *[1.0] * 7]))
    by_weights, whole, by_inputs = (
        cost(on_grid(recipe, weight, scales) - weight, moments.double())
        for scales in (
            clipped_scales(recipe, weight),
            recipe.initial_scales(weight),
            clipped_scales(recipe, weight, moments),
        )
    )
    assert by_weights > 2 * whole >= 2 * by_inputs


def test_a_last_group_that_is_shorter_has_its_own_moments():
    recipe, weight, moments = ttq.GroupRTN(2, per=16), heavy(), correlated()
    found = clipped_scales(recipe, weight, moments)["scale"]
    alone = clipped_scales(recipe, weight[:, 16:], moments[16:, 16:])["scale"]
    torch.testing.assert_close(found[:, 1:], alone)


# ----------------------------------------------------------------------------------------------------------- GPTQ


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_gptq_is_round_to_nearest_where_inputs_are_independent(recipe):
    weight, scales = heavy(), recipe.initial_scales(heavy())
    moments = torch.diag(random_tensor((COLUMNS,)).exp())
    assert torch.equal(compensated(recipe, weight, scales, moments), on_grid(recipe, weight, scales))


@given(recipes, seeds)
@settings(max_examples=30)
def test_gptq_costs_less_where_they_go_together(recipe, seed):
    weight, moments = heavy(seed), correlated(seed)
    scales = recipe.initial_scales(weight)
    found = compensated(recipe, weight, scales, moments)
    assert torch.equal(on_grid(recipe, found, scales), found)  # it lies on the very grid
    assert cost(found - weight, moments) < cost(on_grid(recipe, weight, scales) - weight, moments)


def test_two_weights_by_hand():
    """Inputs that are always equal: 0.4 and 0.4 are 0 and 0 by themselves, but together 0.8, and that is 1 and 0."""
    recipe, weight = ttq.GroupRTN(3, per=3), torch.tensor([[0.4, 0.4, 3.0]])
    moments = torch.tensor([[1.01, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    scales = recipe.initial_scales(weight)  # a step of 1
    assert on_grid(recipe, weight, scales).tolist() == [[0.0, 0.0, 3.0]]
    assert compensated(recipe, weight, scales, moments).tolist() == [[0.0, 1.0, 3.0]]


def test_the_errors_of_a_block_of_columns_move_all_that_come_after():
    """More columns than are taken at once, against each column's best answer in turn, solved anew every time."""
    recipe, columns = ttq.GroupRTN(3, per=32, symmetric=False), 150
    weight, moments = heavy(1, (3, columns)), correlated(1, columns)
    scales = recipe.initial_scales(weight)
    free, damped = weight.double().clone(), moments + 0.01 * moments.diagonal().mean() * torch.eye(columns)
    left = moments.diagonal().argsort(descending=True, stable=True).tolist()
    while left:
        first, *left = left
        error = free[:, first] - on_grid(recipe, free.float(), scales)[:, first]
        free[:, first] -= error
        if left:
            solved = torch.linalg.solve(damped[left][:, left], damped[left, first].double())
            free[:, left] += torch.outer(error, solved)
    agree = (compensated(recipe, weight, scales, moments) - free.float()).abs() < 1e-5
    assert agree.float().mean() > 0.99  # all but what lies on the edge between two levels


def test_inputs_that_are_never_there_do_no_harm():
    recipe, weight = ttq.GroupRTN(3, per=8), heavy()
    moments = correlated()
    moments[5] = moments[:, 5] = 0
    scales = recipe.initial_scales(weight)
    assert compensated(recipe, weight, scales, moments).isfinite().all()
    nothing = compensated(recipe, weight, scales, torch.zeros_like(moments))
    assert torch.equal(nothing, on_grid(recipe, weight, scales))


# ------------------------------------------------------------------------------------------------ learned rounding


@given(recipes, seeds)
@settings(max_examples=30)
def test_learned_rounding_begins_as_round_to_nearest(recipe, seed):
    weight = heavy(seed)
    quantizer = recipe.build(weight)
    learner = LearnedRounding(quantizer, weight)
    assert torch.equal(learner(weight), quantizer(weight))
    learned, scales = learner.learned(), quantizer.scales(weight)
    assert all(torch.equal(learned[name], scales[name]) for name in scales) and learned.keys() == scales.keys()


@given(recipes, seeds)
@settings(max_examples=30)
def test_what_was_learned_lies_on_a_grid_of_as_many_levels(recipe, seed):
    weight = heavy(seed)
    learner = LearnedRounding(recipe.build(weight), weight)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)), alpha=0.4)
        learner.keep_inside_()
        found = learner(weight)
    quantizer = WeightQuantizer(recipe, learner.learned())
    assert learner.offset.abs().max() <= 0.5
    torch.testing.assert_close(quantizer(found), found, rtol=1e-6, atol=0)
    codes, scales = quantizer.codes(found), quantizer.scales(found)
    assert codes.max() < 2**recipe.bits
    assert torch.equal(quantizer.decode(codes, scales), quantizer(found))
    if not recipe.symmetric:
        assert scales["zero_point"].max() < 2**recipe.bits


def test_gradients_are_straight_through():
    """Against autograd, with a rounding whose gradient is 1."""
    w, v = heavy(2).unflatten(1, (-1, 8)), random_tensor((ROWS, 3, 8)).float().clamp(-0.5, 0.5)
    step = random_tensor((ROWS, 3, 1), 4).float().abs() * 0.2 + 0.1
    lowest = torch.full_like(step, -3.0)

    def by_autograd(v, step, lowest):
        u = w / step + v
        return ((u.round() - u).detach() + u).clamp(lowest, lowest + 7) * step

    inputs = [tensor.clone().requires_grad_() for tensor in (v, step, lowest)]
    outputs = by_autograd(*inputs), Nudged.apply(w, *inputs, 7)
    weights = random_tensor(w.shape, 9).float()
    expected, found = (torch.autograd.grad((output * weights).sum(), inputs) for output in outputs)
    torch.testing.assert_close(outputs[1], outputs[0])
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_layer_learns_to_round_for_its_outputs():
    """And without a step nothing is gained."""
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8, bias=False), (random_tensor((64, 4)) @ random_tensor((4, 16), 1)).float()
    target = layer(x).detach()
    ttq.fake_quantize_(layer, ttq.GroupRTN(2, per=8, symmetric=False))
    quantizer, latent = layer.parametrizations.weight[0], layer.parametrizations.weight.original

    def error() -> torch.Tensor:
        return (layer(x) - target).square().mean()

    before = error().item()
    learner = layer.parametrizations.weight[0] = LearnedRounding(quantizer, latent)
    assert error().item() == before
    for step in range(60):
        gradients = torch.autograd.grad(error(), list(learner.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(learner.parameters(), gradients):
                parameter.sub_(gradient.sign(), alpha=(1 - step / 60) / 60)
        learner.keep_inside_()
    assert error().item() < 0.5 * before
    assert parametrize.is_parametrized(layer)
