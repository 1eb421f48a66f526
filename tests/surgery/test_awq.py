"""AWQ: scales of channels chosen by outputs on real inputs, and folded into the layers before."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import ttqlib as ttq
from tests.cases import refused
from tests.surgery.test_codes import RECIPE, batches, gpt2, ids, llama
from ttqlib.surgery.blocks import blocks

PLAN = {"proj|c_attn|c_fc": RECIPE}


def with_outliers(model: nn.Module) -> nn.Module:
    """A few channels between norm and linear layers thirty times as large, as trained language models have them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and ("norm" in name or "ln_" in name):
                parameter[:3] *= 30
    return model


def scaled(model: nn.Module) -> nn.Module:
    """A copy after `awq_`."""
    model = copy.deepcopy(model)
    return ttq.awq_(model, ttq.equivalent_groups(model), ttq.plan(model, rules=PLAN), batches())


def lost(model: nn.Module) -> dict[str, float]:
    """What rounding costs the outputs of each layer of the first block, E‖(Q − W) x‖² / E‖W x‖²."""
    model = ttq.compress_(copy.deepcopy(model), ttq.plan(model, rules=PLAN))
    block = next(iter(blocks(model, batches(), "test")))
    seen, found = block.seen(), {}
    for weight in block.weights():
        rows, moments = weight.rows, seen[weight.name].moments.float()
        error = RECIPE.fake_quantize(rows, weight.quantizer.scales(weight.latent)) - rows
        found[weight.name] = (((error @ moments) * error).sum() / ((rows @ moments) * rows).sum()).item()
    return found


@pytest.mark.parametrize("build", [llama, gpt2])
def test_the_model_answers_as_before_and_the_layers_behind_its_norms_lose_less(build):
    model = with_outliers(build())
    better = scaled(model)
    with torch.no_grad():
        torch.testing.assert_close(better(input_ids=ids()).logits, model(input_ids=ids()).logits, rtol=1e-3, atol=1e-3)
    before, after = lost(model), lost(better)
    behind = [name for name in before if name.split(".")[-1] in ("q_proj", "gate_proj", "c_attn", "c_fc")]
    assert len(behind) == 2 and all(after[name] < 0.6 * before[name] for name in behind)
    assert after.keys() == before.keys() and sum(after.values()) < sum(before.values())


def test_values_and_up_take_back_scales_as_well():
    """Of those the layer behind loses no more than before, and one that can gain does."""
    model = llama()
    before, after = lost(model), lost(scaled(model))
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        assert after[name] <= before[name] * 1.001
    assert after["mlp.down_proj"] < before["mlp.down_proj"]


def test_it_leaves_a_plain_model_with_other_numbers_in_the_same_layers():
    model = llama()
    better = scaled(model)
    assert {n: type(m) for n, m in better.named_modules()} == {n: type(m) for n, m in model.named_modules()}
    assert all(parameter.requires_grad for parameter in better.parameters())
    moved = [name for name, one in better.named_parameters() if not torch.equal(one, model.get_parameter(name))]
    assert "model.layers.1.input_layernorm.weight" in moved and "model.norm.weight" not in moved


def test_what_it_leaves_is_compressed_clipped_rounded_and_saved(tmp_path):
    model = scaled(with_outliers(llama()))
    ttq.compress_(model, ttq.plan(model, rules=PLAN))
    ttq.gptq_(ttq.clip_(model, batches()), batches()).save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(input_ids=ids()).logits, model(input_ids=ids()).logits)


def test_a_plan_that_rounds_nothing_leaves_nothing_to_scale():
    model = llama()
    with refused(ValueError, "no groups"):
        ttq.awq_(model, ttq.equivalent_groups(model), ttq.TTQConfig(), batches())
