"""What a forward pass shows: hidden states, and attention as it is before dropout, whatever computes it."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import ttqlib as ttq
from tests.cases import refused
from ttqlib.observation import RECORDED, observe, recorded_attention, records_attention

SIZES = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16}
INPUTS = {
    "input_ids": torch.tensor([[2, 7, 96, 3, 5], [2, 9, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
REAL = INPUTS["attention_mask"].bool()
GPT2 = {"vocab_size": 97, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def build(kind: str, num_labels: int = 2, **options):
    torch.manual_seed(0)
    models = {
        "bert": (BertForSequenceClassification, BertConfig, SIZES),
        "distilbert": (DistilBertForSequenceClassification, DistilBertConfig, SIZES),
        "albert": (AlbertForSequenceClassification, AlbertConfig, {**SIZES, "embedding_size": 16}),
        "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
        "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config, SIZES),
    }
    model, config, sizes = models[kind]
    return model._from_config(config(**sizes, num_labels=num_labels, initializer_range=0.3), **options)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "albert", "gpt2"])
def test_the_recorded_attention_is_the_models_own(kind):
    model, eager = build(kind).eval(), build(kind, attn_implementation="eager").eval()
    with torch.no_grad():
        with recorded_attention(model):
            seen = observe(model, INPUTS)
        expected = eager(**INPUTS, output_attentions=True, output_hidden_states=True)
    assert len(seen.attentions) == 2 and len(seen.hidden_states) == 3
    for recorded, maps in zip(seen.attentions, expected.attentions):
        ours = recorded.scores().masked_fill(~REAL[:, None, None], -1e30).softmax(-1)
        torch.testing.assert_close(ours.transpose(1, 2)[REAL], maps.transpose(1, 2)[REAL])
        assert recorded.side_by_side("value").shape == (2, 5, 24)
    for ours, theirs in zip(seen.hidden_states, expected.hidden_states):
        torch.testing.assert_close(ours[REAL], theirs[REAL])
    assert torch.equal(seen.mask, REAL) and set(seen.logits) == {"logits"} and seen.loss is None


def test_dropout_spoils_the_maps_that_a_model_returns_and_not_the_recorded_ones():
    eager = build("bert", attn_implementation="eager").train()
    assert (eager(**INPUTS, output_attentions=True).attentions[0][0] == 0).any()  # whose logarithm is −∞
    with recorded_attention(eager):
        recorded = observe(eager, INPUTS).attentions[0]
    assert (recorded.scores()[0].softmax(-1) > 0).all()


def test_on_a_cpu_attention_is_computed_in_float32_under_autocast_too(monkeypatch):
    kernel, seen = torch.nn.functional.scaled_dot_product_attention, []

    def watched(query, *others, **options):
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return kernel(query, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model = build("bert").eval()
    with recorded_attention(model), torch.no_grad():
        exact = observe(model, INPUTS).logits["logits"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            observation = observe(model, INPUTS)
    assert seen == [(torch.float32, False)] * 4 and observation.attentions[0].query.dtype == torch.bfloat16
    torch.testing.assert_close(observation.logits["logits"].float(), exact, rtol=0.05, atol=0.05)


def test_models_get_their_own_attention_back():
    eager, sdpa = build("bert", attn_implementation="eager"), build("bert")
    with pytest.raises(KeyError), recorded_attention(eager, sdpa):
        assert {model.config._attn_implementation for model in (eager, sdpa)} == {RECORDED}
        raise KeyError
    assert [model.config._attn_implementation for model in (eager, sdpa)] == ["eager", "sdpa"]
    assert observe(sdpa, INPUTS).attentions == ()


def test_observing_leaves_no_hooks_behind():
    model = build("bert")
    counts = []
    for _ in range(3):
        with recorded_attention(model):
            observe(model, INPUTS)
        counts.append(sum(len(module._forward_hooks) for module in model.modules()))
    assert counts[1] == counts[2]  # the first call installs those of transformers


def test_without_a_mask_all_tokens_are_real():
    seen = observe(build("bert"), {"input_ids": INPUTS["input_ids"], "labels": torch.tensor([0, 1])})
    assert seen.mask.all() and seen.mask.shape == (2, 5) and seen.loss.isfinite()


def test_attention_of_another_kind_cannot_be_recorded():
    assert records_attention(build("bert")) and not records_attention(build("deberta"))


def test_what_cannot_be_observed_is_refused():
    model = build("bert")
    with refused(ValueError, "no hidden_states", "logits"):
        observe(lambda output_hidden_states, **inputs: model(**inputs), INPUTS)

    def twice(**inputs):
        model(**inputs)
        return model(**inputs)

    with recorded_attention(model), refused(ValueError, "4 attentions", "2 layers"):
        observe(twice, INPUTS)


def test_a_tensor_train_model_is_observed_too():
    model = build("bert").eval()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=4))
    with recorded_attention(model):
        assert len(observe(model, INPUTS).attentions) == 2
