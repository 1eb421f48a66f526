"""Fake quantization of what flows into a layer: grids a token or a layer, calibration, and the hook that places it."""

import copy
import dataclasses
import json
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.cases import random_tensor, refused, seeds

RECIPES = [ttq.DynamicActivation(8), ttq.DynamicActivation(3, symmetric=False), ttq.StaticActivation(4, batches=1)]


def activations(shape=(4, 5, 12), seed=0):
    return random_tensor(shape, seed).float()


def quantizing_linear(recipe):
    torch.manual_seed(0)
    linear = nn.Linear(12, 6)
    ttq.fake_quantize_input_(linear, recipe)
    linear(activations())  # calibrates
    return linear


# ---------------------------------------------------------------------------------------------------------- dynamic


@given(st.integers(2, 8), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]), seeds)
def test_every_token_has_a_grid_of_its_own(bits, symmetric, dtype, seed):
    x = (random_tensor((3, 4, 7), seed) * torch.logspace(-3, 3, 4)[:, None]).to(dtype)
    quantizer = ttq.DynamicActivation(bits, symmetric=symmetric).build()
    quantized = quantizer(x)
    assert quantized.dtype == dtype and quantized.shape == x.shape
    for token, result in zip(x.flatten(0, 1).float(), quantized.flatten(0, 1).float()):
        assert result.unique().numel() <= 2**bits
        low, high = token.min().clamp(max=0), token.max().clamp(min=0)
        step = token.abs().max() / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2**bits - 1)
        assert (result - token).abs().max() <= (0.5 if symmetric else 1) * step + 0.01 * token.abs().max()
    assert torch.equal(quantizer(x[1:]), quantized[1:])  # a token does not depend on its batch


def test_dynamic_by_hand():
    x = torch.tensor([[-3.0, 0.4, 1.6], [0.0, 6.0, 30.0], [0.0, 0.0, 0.0]])
    assert ttq.DynamicActivation(3).build()(x).tolist() == [[-3, 0, 2], [0, 10, 30], [0, 0, 0]]
    assert ttq.DynamicActivation(2, symmetric=False).build()(x[1:]).tolist() == [[0, 10, 30], [0, 0, 0]]


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_gradient_passes_straight_through_also_at_the_largest_entry(symmetric):
    """1/scale is rounded, so the largest entry may land a hair beyond the last level: it must not count as clipped."""
    x, upstream = activations((200, 12)).requires_grad_(), activations((200, 12), 1)
    ttq.DynamicActivation(4, symmetric=symmetric).build()(x).backward(upstream)
    assert torch.equal(x.grad, upstream)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_nan_shows(recipe):
    quantizer = recipe.build()
    x = activations()
    quantizer(x)
    x[0, 0, 3] = torch.nan
    assert quantizer.eval()(x)[0, 0, 3].isnan()


# ----------------------------------------------------------------------------------------------------------- static


@pytest.mark.parametrize("init", ["mse", "max", "lsq"])
def test_the_step_is_the_mean_over_the_calibration_batches_and_then_stands(init):
    quantizer = ttq.StaticActivation(4, batches=3, init=init).build()
    batches = [activations(seed=seed) * (seed + 1) for seed in range(5)]
    steps = [ttq.LSQ(4, init=init).build(batch).step.item() for batch in batches]
    for seen, batch in enumerate(batches, 1):
        quantized = quantizer(batch)
        assert quantizer.step.item() == pytest.approx(sum(steps[: min(seen, 3)]) / min(seen, 3))
        assert torch.equal(quantized, ttq.LSQ(4).with_step(quantizer.step)(batch))
    assert quantizer.observed == 3


def test_evaluation_does_not_calibrate():
    quantizer = ttq.StaticActivation(4, batches=8).build()
    with refused(RuntimeError, "not calibrated", "training mode"):
        quantizer.eval()(activations())
    quantizer.train()(activations())
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.eval()(5 * activations())
    assert quantizer.state_dict() == before


def test_calibration_resumes_from_a_checkpoint():
    recipe, batches = ttq.StaticActivation(4, batches=4), [activations(seed=seed) * (seed + 1) for seed in range(6)]
    straight, first, second = recipe.build(), recipe.build(), recipe.build()
    for batch in batches:
        straight(batch)
    for batch in batches[:2]:
        first(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second(batch)
    assert torch.equal(second.step, straight.step)


def test_the_step_learns_with_the_gradient_of_lsq():
    x, quantizer = activations().requires_grad_(), ttq.StaticActivation(3, batches=1).build()
    (quantizer(x) * activations(seed=1)).sum().backward()
    twin, y = ttq.LSQ(3, grad_scale=False).with_step(quantizer.step), activations().requires_grad_()
    (twin(y) * activations(seed=1)).sum().backward()
    assert torch.equal(x.grad, y.grad)
    torch.testing.assert_close(quantizer.scale.grad, twin.scale.grad / math.sqrt(12 * 3))


def test_a_calibration_batch_without_a_step_is_refused():
    quantizer = ttq.StaticActivation().build()
    with refused(ValueError, "calibration batch must be finite"):
        quantizer(torch.tensor([1.0, math.inf]))
    with refused(ValueError, "calibration batch must not be empty"):
        quantizer(torch.ones(0, 3))
    assert quantizer.observed == 0


def twice(quantizer, reentrant: bool | None, *calls: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the inputs and of δ, where `calls` of the quantizer come before one way back for all of them."""

    def inside(x: torch.Tensor) -> torch.Tensor:
        return quantizer(x) ** 2

    calls, outputs = [x.clone().requires_grad_() for x in calls], []
    for x in calls:
        outputs.append(inside(x) if reentrant is None else checkpoint(inside, x, use_reentrant=reentrant))
    sum((y * activations(seed=9)).sum() for y in outputs).backward()
    return [*(x.grad for x in calls), quantizer.scale.grad]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_calibrates_on_no_batch_twice(reentrant):
    plain, recomputed = (ttq.StaticActivation(3, batches=3).build() for _ in range(2))
    for seed in range(5):
        x = activations(seed=seed) * (seed + 1)
        plain.scale.grad = recomputed.scale.grad = None
        for found, expected in zip(twice(recomputed, reentrant, x), twice(plain, None, x)):
            torch.testing.assert_close(found, expected)
        assert torch.equal(recomputed.step, plain.step) and recomputed.observed == plain.observed == min(seed + 1, 3)


def test_one_layer_may_be_called_many_times_before_the_way_back():
    """As in a model whose layers share their weights: each call has the gradient of the step that it was made with."""
    quantizer, batches = ttq.StaticActivation(3, batches=2).build(), [activations(seed=s) * (s + 1) for s in range(3)]
    found = twice(quantizer, None, *batches)
    first = ttq.LSQ(3).build(batches[0]).step
    steps = [first, quantizer.step, quantizer.step]
    for x, gradient, step in zip(batches, found, steps):
        twin, x = ttq.LSQ(3, grad_scale=False).with_step(step), x.clone().requires_grad_()
        ((twin(x) ** 2) * activations(seed=9)).sum().backward()
        torch.testing.assert_close(gradient, x.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_cannot_be_recomputed_as_it_was_is_refused(reentrant):
    batches = [activations(seed=seed) * (seed + 1) for seed in range(2)]
    quantizer = ttq.StaticActivation(3, batches=2).build()
    with refused(RuntimeError, "2 calls", "torch.no_grad()", "2 batches", "model.train()"):
        twice(quantizer, reentrant, *batches)
    with torch.no_grad():  # as the message says
        quantizer = ttq.StaticActivation(3, batches=2).build()
        for x in batches:
            quantizer(x)
    quantizer.train()
    plain = copy.deepcopy(quantizer)
    for found, expected in zip(twice(quantizer, reentrant, *batches), twice(plain, None, *batches)):
        torch.testing.assert_close(found, expected)


# --------------------------------------------------------------------------------------------------- on a layer


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_layer_sees_quantized_input_and_so_does_its_copy(recipe, copier):
    linear, x = quantizing_linear(recipe), activations(seed=1)
    quantized = linear.input_quantizer(x)
    assert not torch.equal(quantized, x)
    expected = nn.functional.linear(quantized, linear.weight, linear.bias)
    twin = copier(linear)
    for layer in (linear, twin):
        assert torch.equal(layer(x), expected)
    for tensor in twin.state_dict().values():
        tensor.zero_()
    assert torch.equal(linear(x), expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_weights_and_activations_together_compile_and_export(recipe):
    torch._dynamo.reset()
    linear, x = quantizing_linear(recipe), activations()
    ttq.fake_quantize_(linear, ttq.LSQ(4))
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), linear(x))
    exported = torch.export.export(linear.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), linear(x))


@pytest.mark.parametrize("layer", [ttq.TTLinear(12, 12, rank=3), nn.Linear(12, 12)], ids=["TTLinear", "Linear"])
def test_eight_bits_change_an_output_little_and_two_bits_much(layer):
    x, errors = activations(), []
    for bits in (8, 2):
        twin = copy.deepcopy(layer)
        ttq.fake_quantize_input_(twin, ttq.DynamicActivation(bits))
        errors.append(ttq.relative_error(layer(x), twin(x)))
    assert errors[0] < 0.02 < 0.2 < errors[1]


@pytest.mark.parametrize(
    ("layer", "name"), [(ttq.TTLinear(12, 6, rank=3), "x"), (nn.Linear(12, 6), "input"), (Conv1D(6, 12), "x")]
)
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_an_input_given_by_name_is_quantized_too(layer, name, recipe):
    layer, x = copy.deepcopy(layer), activations()
    plain = layer(x)
    ttq.fake_quantize_input_(layer, recipe)
    expected = layer(x)
    assert torch.equal(layer(**{name: x}), expected) and not torch.equal(expected, plain)
    for wrong in ({}, {"no": x}):
        with refused(TypeError, type(layer).__name__, "first input", repr(name), str(sorted(wrong))):
            layer(**wrong)


def test_where_nothing_trains_no_step_does():
    for frozen in ((), ("bias",), ("weight", "bias")):
        linear = nn.Linear(12, 6)
        for name in frozen:
            getattr(linear, name).requires_grad_(False)
        assert ttq.fake_quantize_input_(linear, RECIPES[2]).input_quantizer.scale.requires_grad is (len(frozen) < 2)
    assert ttq.fake_quantize_input_(nn.ReLU(), RECIPES[2]).input_quantizer.scale.requires_grad


def test_an_input_is_not_quantized_twice():
    linear = quantizing_linear(RECIPES[0])
    with refused(ValueError, "Linear", "already", "DynamicActivation(bits=8"):
        ttq.fake_quantize_input_(linear, RECIPES[1])


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_is_a_value(recipe):
    assert type(recipe)(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    assert len({recipe, copy.copy(recipe)}) == 1


def test_bad_arguments_are_refused():
    for kind in (ttq.DynamicActivation, ttq.StaticActivation):
        with refused(ValueError, "bits must be a whole number from 2 to 8", "9"):
            kind(bits=9)
    with refused(ValueError, "batches", "whole number of at least 1", "0"):
        ttq.StaticActivation(batches=0)
    with refused(ValueError, "init must be one of", "'best'"):
        ttq.StaticActivation(init="best")
