"""AWQ: scales that norms take back, found by trying, chosen by outputs on real inputs."""

import copy

import pytest
import torch
from torch import nn

import ttqlib as ttq
from tests.cases import refused
from tests.surgery.test_codes import RECIPE, batches, compressed, gpt2, ids, llama
from tests.surgery.test_compress import bert
from ttqlib.quantizers.parametrizing import latent_weights
from ttqlib.surgery.awq import norm_groups
from ttqlib.surgery.blocks import blocks


def with_outliers(model: nn.Module) -> nn.Module:
    """A few channels between norm and linear layers thirty times as large, as trained language models have them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and ("norm" in name or "ln_" in name):
                parameter[:3] *= 30
    return model


def lost(model: nn.Module) -> list[float]:
    """What the layers behind norms lose of their outputs, E‖(Q − W) x‖² / E‖W x‖², for each norm of the first block."""
    found = []
    block = next(iter(blocks(model, batches(), "test")))
    for _, weights in norm_groups(block):
        moments = block.seen()[weights[0].name].moments.float()
        pairs = [(weight.quantizer(weight.latent).detach(), weight.latent.detach()) for weight in weights]
        pairs = [[weight.quantizer.layout.rows(one) for one in pair] for weight, pair in zip(weights, pairs)]
        error, whole = (sum(((w @ moments) * w).sum() for w in ws) for ws in zip(*((q - w, w) for q, w in pairs)))
        found.append((error / whole).item())
    return found


@pytest.mark.parametrize("rest", [32, 16, 8])
@pytest.mark.parametrize("build", [llama, gpt2])
def test_the_latent_model_computes_what_it_did_and_the_layers_lose_less(build, rest):
    model = with_outliers(build())
    plan = ttq.plan(model, rest=rest, rules={"proj|c_attn|c_fc": RECIPE})
    plain, better = (ttq.compress_(copy.deepcopy(model), plan) for _ in range(2))
    before = lost(plain)
    assert ttq.awq_(better, batches()) is better
    with torch.no_grad(), latent_weights(better):
        torch.testing.assert_close(better(input_ids=ids()).logits, model(input_ids=ids()).logits, rtol=1e-3, atol=1e-4)
    assert len(before) == 2 and all(after < 0.6 * one for one, after in zip(before, lost(better)))
    moved = [name for name, one in better.named_parameters() if not torch.equal(one, plain.get_parameter(name))]
    assert any("norm" in name or "ln_" in name for name in moved)


def test_the_norms_of_a_decoder_are_found():
    groups = list(norm_groups(next(iter(blocks(compressed(llama()), batches(4), "test")))))
    assert [[weight.name for weight in weights] for _, weights in groups] == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
    ]


def test_looking_for_them_changes_nothing():
    model = compressed(llama())
    before = copy.deepcopy(model.state_dict())
    list(norm_groups(next(iter(blocks(model, batches(4), "test")))))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_norm_that_a_residual_reads_too_has_no_scale():
    model = bert()
    words = torch.randint(model.config.vocab_size, (8, 10))
    plan = ttq.plan(model, rules={"layer": RECIPE})
    with refused(ValueError, "no norm of this", "behind it"):
        ttq.awq_(ttq.compress_(model, plan), [{"input_ids": words}])
