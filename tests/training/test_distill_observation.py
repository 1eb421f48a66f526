"""What a forward pass shows: hidden states, and attention as it is before dropout, whatever computes it."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AttentionInterface,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    T5Config,
    T5EncoderModel,
)

import ttqlib as ttq
from tests.cases import refused
from ttqlib.training.observation import RECORDED, observe, recorded_attention, records_attention

SIZES = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16}
INPUTS = {
    "input_ids": torch.tensor([[2, 7, 96, 3, 5], [2, 9, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
REAL = INPUTS["attention_mask"].bool()
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {**SIZES, **SPECIAL, "num_attention_heads": 4, "num_key_value_heads": 2}  # grouped queries
GEMMA = {**DECODER, "head_dim": 8, "query_pre_attn_scalar": 8}  # heads · size of a head is not the hidden size
WINDOW = {"layer_types": ["sliding_attention", "full_attention"]}
T5 = {"vocab_size": 97, "d_model": 24, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 2}
GPT2 = {"vocab_size": 97, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2}
GPT2 |= SPECIAL


def build(kind: str, num_labels: int = 2, **options):
    torch.manual_seed(0)
    models = {
        "bert": (BertForSequenceClassification, BertConfig, SIZES),
        "distilbert": (DistilBertForSequenceClassification, DistilBertConfig, SIZES),
        "albert": (AlbertForSequenceClassification, AlbertConfig, {**SIZES, "embedding_size": 16}),
        "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
        "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config, SIZES),
        "llama": (LlamaForCausalLM, LlamaConfig, DECODER),
        "mistral": (MistralForSequenceClassification, MistralConfig, {**DECODER, "sliding_window": 3}),
        "gemma2": (Gemma2ForCausalLM, Gemma2Config, {**GEMMA, **WINDOW, "sliding_window": 3}),
        "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {**GEMMA, **WINDOW, "sliding_window": 3}),
        "modernbert": (
            ModernBertForSequenceClassification,
            ModernBertConfig,
            {**SIZES, **SPECIAL, **WINDOW, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 2},
        ),
        "t5": (T5EncoderModel, T5Config, T5),
        "gpt_oss": (GptOssForCausalLM, GptOssConfig, {**DECODER, "head_dim": 6, "num_local_experts": 2}),
    }
    model, config, sizes = models[kind]
    if kind == "gemma2":  # low enough to show
        sizes = {**sizes, "attn_logit_softcapping": 0.5}
    return model._from_config(config(**sizes, num_labels=num_labels, initializer_range=0.3), **options)


# The widths of what lies side by side: of queries, and of keys and values.
WIDTHS = {"gemma2": (32, 16), "gemma3": (32, 16), "llama": (24, 12), "mistral": (24, 12)}


@pytest.mark.parametrize("padded", [True, False], ids=["padding", "no mask"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "albert", "gpt2", *WIDTHS, "modernbert", "t5"])
def test_the_recorded_attention_is_the_models_own(kind, padded):
    """Grouped queries, sliding windows, capped scores and relative positions included."""
    model, eager = build(kind).eval(), build(kind, attn_implementation="eager").eval()
    inputs = INPUTS if padded else {"input_ids": INPUTS["input_ids"].clamp(3)}
    real = inputs.get("attention_mask", torch.ones(2, 5)).bool()
    with torch.no_grad():
        with recorded_attention(model):
            seen = observe(model, inputs)
        expected = eager(**inputs, output_attentions=True, output_hidden_states=True)
    assert len(seen.attentions) == 2 and len(seen.hidden_states) == 3
    for recorded, maps in zip(seen.attentions, expected.attentions):
        ours = recorded.scores().softmax(-1)
        torch.testing.assert_close(ours.transpose(1, 2)[real], maps.transpose(1, 2)[real])
        widths = [recorded.side_by_side(name).shape for name in ("query", "key", "value")]
        queries, keys = WIDTHS.get(kind, (24, 24))
        assert widths == [(2, 5, queries), (2, 5, keys), (2, 5, keys)]
    for ours, theirs in zip(seen.hidden_states, expected.hidden_states):
        torch.testing.assert_close(ours[real], theirs[real])
    assert torch.equal(seen.mask, real) and set(seen.logits) == (set() if kind == "t5" else {"logits"})
    assert seen.loss is None


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3", "modernbert"])
def test_a_window_hides_keys_that_are_real(kind):
    """The control of the test above: its sentences are longer than the windows."""
    with torch.no_grad(), recorded_attention(model := build(kind).eval()):
        first = observe(model, INPUTS).attentions[0]
    assert first.mask[0, 0, 4].tolist() == [False, False, kind != "modernbert", True, True]


def test_capped_attention_has_its_dropout():
    model = build("gemma2")
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    with recorded_attention(model), torch.no_grad():
        for mode, same in ((True, False), (False, True)):
            once, again = (observe(model.train(mode), INPUTS).logits["logits"] for _ in range(2))
            assert torch.equal(once, again) is same


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
    assert not records_attention(build("gpt_oss"))  # a sink takes a share of each softmax
    query = torch.ones(1, 2, 3, 4)
    with refused(ValueError, "attention of a Identity", "cannot be recorded", "s_aux"):
        AttentionInterface()[RECORDED](torch.nn.Identity(), query, query, query, None, s_aux=torch.ones(2))


def checkpointing(model, reentrant: bool):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    return model.train()


def test_reentrant_checkpointing_would_lose_the_gradient_of_recorded_attention():
    model = checkpointing(build("bert"), reentrant=True)
    with recorded_attention(model), refused(ValueError, "reentrant", '{"use_reentrant": False}'):
        observe(model, INPUTS)
    assert len(observe(model, INPUTS).hidden_states) == 3  # without attention it may be


def test_attention_is_recorded_once_under_checkpointing():
    model = checkpointing(build("bert"), reentrant=False)
    with recorded_attention(model):
        seen = observe(model, INPUTS)
        sum(one.scores().sum() for one in seen.attentions).backward()
    assert len(seen.attentions) == 2
    assert all(layer.attention.self.query.weight.grad.any() for layer in model.bert.encoder.layer)


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
