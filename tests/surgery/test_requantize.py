"""`requantized`: other quantizers on the same latent weights, in a copy."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import ttqlib as ttq
from tests.cases import refused

SIZES = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
INPUTS = {"input_ids": torch.tensor([[2, 7, 5], [9, 3, 1]])}
EIGHT = ttq.DynamicActivation(8)


def bert() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, initializer_range=0.3)).eval()


def compressed(model: nn.Module, **plan) -> nn.Module:
    model = copy.deepcopy(model)
    return ttq.compress_(model, ttq.plan(model, **plan))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**INPUTS).logits


TERNARY = {"quantize": ttq.Ternary(per="channel"), "rest": 8, "activations": EIGHT}
CASES = [
    (TERNARY, {"bits": 1, "rest": 8}),
    ({"bits": 1}, TERNARY),
    ({"bits": 4, "activations": EIGHT}, {"bits": 1, "activations": ttq.DynamicActivation(4)}),
    ({"rank": 4, "bits": 4, "rest": 8}, {"rank": 4, "bits": 2, "rest": 16}),
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_it_is_what_compress_makes_of_the_latent_weights(before, after, tmp_path):
    model = bert()
    student = compressed(model, **before)
    was = {name: tensor.clone() for name, tensor in student.state_dict().items()}, logits(student)
    other = ttq.requantized(student, ttq.plan(model, **after))
    fresh = compressed(model, **after)
    assert other.ttq_config == fresh.ttq_config and torch.equal(logits(other), logits(fresh))
    assert not torch.equal(logits(other), was[1])  # the control
    assert torch.equal(logits(student), was[1])
    assert all(torch.equal(tensor, was[0][name]) for name, tensor in student.state_dict().items())
    other.save_pretrained(tmp_path)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path).eval()), logits(fresh))


def test_trained_latent_weights_go_on_and_share_no_memory():
    student = compressed(bert(), **TERNARY)
    latent = student.bert.encoder.layer[0].output.dense.parametrizations.weight.original
    with torch.no_grad():
        latent.neg_()
    other = ttq.requantized(student, ttq.plan(bert(), bits=1, rest=8))
    assert torch.equal(other.bert.encoder.layer[0].output.dense.parametrizations.weight.original, latent)
    addresses = {tensor.data_ptr() for tensor in student.parameters()}
    assert addresses.isdisjoint(tensor.data_ptr() for tensor in other.parameters())


def test_tied_weights_stay_tied():
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "n_positions": 16, "n_embd": 24, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    student = compressed(model, bits=2)
    other = ttq.requantized(student, ttq.plan(model, bits=1))
    words, head = (part.parametrizations.weight.original for part in (other.transformer.wte, other.lm_head))
    assert words is head and torch.equal(logits(other), logits(compressed(model, bits=1)))


def test_a_plan_that_does_not_fit_and_weights_of_others_are_refused():
    model = bert()
    student = compressed(model, rank=4, bits=4)
    with refused(ValueError, "tensor train already, of other ranks"):
        ttq.requantized(student, ttq.plan(model, rank=5, bits=2))
    student = compressed(model, bits=4)
    parametrize.register_parametrization(student.bert.encoder.layer[0].output.dense, "bias", nn.Tanh())
    with refused(ValueError, "bert.encoder.layer.0.output.dense", "parametrization of another kind"):
        ttq.requantized(student, ttq.plan(model, bits=1))
