"""What there is to compress in a model: kinds of layers, heads, words, ties, and where channels are."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    MixtralConfig,
    MixtralForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.llama4.modeling_llama4 import Llama4Router
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.cases import Scaled, refused
from ttqlib.inventory.kinds import heads, is_embedding, is_linear, layers, row_scale, word_embeddings
from ttqlib.inventory.layout import PLAIN, Layout, layout_of
from ttqlib.inventory.ties import tied

BERT = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def mixtral() -> MixtralForCausalLM:
    torch.manual_seed(0)
    sizes = {**BERT, "num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2}
    return MixtralForCausalLM(MixtralConfig(**sizes)).eval()


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Positions(nn.Embedding):
    def forward(self, ids, past=0):
        return super().forward(torch.arange(ids.shape[-1]) + past)


@pytest.mark.parametrize(
    ("layer", "linear", "table"),
    [
        (nn.Linear(4, 3), True, False),
        (Conv1D(4, 3), True, False),
        (FalconLinear(4, 3), True, False),
        (nn.MultiheadAttention(4, 2).out_proj, True, False),
        (Doubled(4, 3), False, False),
        (nn.Embedding(4, 3), False, True),
        (Scaled(4, 3, 0, 2.0), False, True),
        (Positions(4, 3), False, False),
        (nn.Conv1d(4, 3, 2), False, False),
        (nn.LayerNorm(4), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_are_known_by_what_they_compute(layer, linear, table):
    assert (is_linear(layer), is_embedding(layer)) == (linear, table)


def test_a_router_that_is_a_linear_layer_by_name_is_none():
    assert issubclass(Llama4Router, nn.Linear)
    router = object.__new__(Llama4Router)
    assert not is_linear(router)


def test_to_look_leaves_no_trace():
    class Another(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    torch.manual_seed(0)
    state = torch.get_rng_state()
    with torch.device("meta"):
        layer = Another(5, 4)
        assert is_linear(layer)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_quantized_layer_is_still_one():
    layer = nn.Linear(4, 3)
    ttq.fake_quantize_(layer, ttq.LSQ(4))
    assert is_linear(layer)


def test_heads_are_found_by_identity_and_not_by_name():
    model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=90, dim=32, hidden_dim=64, n_layers=1, n_heads=2))
    assert model.vocab_projector in heads(model)
    model.config.tie_word_embeddings = False
    model.vocab_projector.weight = nn.Parameter(model.vocab_projector.weight.clone())
    config = ttq.plan(model, 4, 4)
    assert "vocab_projector" not in config.layers and "vocab_projector" in config.unmatched


def test_an_encoder_decoder_has_words_at_both_ends():
    sizes = {"vocab_size": 90, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
    wide = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = BartForConditionalGeneration(BartConfig(**sizes, **wide, scale_embedding=True))
    names = {name for name, module in model.named_modules() if module in word_embeddings(model)}
    assert names == {"model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"}
    assert row_scale(model.model.shared) == pytest.approx(32**0.5)
    (places,) = tied(model)
    assert {name for name, _ in places} == {*names, "lm_head"}
    assert [name for name in ttq.plan(model, 4, 4).layers if "embed" in name or name.endswith("shared")] == [
        "model.shared"
    ]


def test_images_have_no_words():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4))
    assert word_embeddings(model) == set()
    assert len(ttq.plan(model, 4, 4).layers) == 6


def test_of_a_masked_language_model_words_and_head_are_one_and_so_are_its_biases():
    groups = [sorted(name for name, _ in places) for places in tied(BertForMaskedLM(BertConfig(**BERT)))]
    assert groups == [
        ["bert.embeddings.word_embeddings", "cls.predictions.decoder"],
        ["cls.predictions", "cls.predictions.decoder"],
    ]


# ------------------------------------------------------------------------------------------------------------- experts


def test_experts_are_listed_and_planned_and_quantized_by_row():
    model = mixtral()
    name = "model.layers.0.mlp.experts"
    assert name in layers(model)
    assert name in ttq.plan(model, 4).unmatched  # a train needs a matrix
    config = ttq.plan(model, 4, 4, rest=8)
    assert config.layers[name] == ttq.LayerPlan(quantize=ttq.LSQ(4, per="channel"))
    ttq.compress_(model, config)
    experts = model.get_submodule(name)
    assert experts.parametrizations.gate_up_proj[0].scale.shape == (4 * 128, 1)  # experts × outputs
    assert experts.parametrizations.down_proj[0].scale.shape == (4 * 32, 1)


def test_experts_have_no_train():
    with refused(ValueError, "experts", "TT is for a linear layer"):
        ttq.plan(mixtral(), rules={"experts": ttq.TT(4)})


@pytest.mark.parametrize("recipe", [ttq.LSQ(4, per="channel"), ttq.Binary(per="channel"), ttq.GroupRTN(3, per=16)])
def test_an_expert_is_quantized_as_if_it_stood_alone(recipe):
    experts = mixtral().model.layers[0].mlp.experts
    alone = nn.Linear(32, 128, bias=False)
    with torch.no_grad():
        alone.weight.copy_(experts.gate_up_proj[2])
    for module, name in ((experts, "gate_up_proj"), (alone, "weight")):
        ttq.fake_quantize_(module, recipe, name)
    assert torch.equal(experts.gate_up_proj[2], alone.weight)


# ------------------------------------------------------------------------------------------------------------ channels


def test_conv1d_has_its_channels_in_columns():
    torch.manual_seed(0)
    conv, plain = Conv1D(5, 3), nn.Linear(3, 5)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(3, 5) * torch.tensor([1, 10, 100, 1000, 10000.0]))
        plain.weight.copy_(conv.weight.T)
    assert layout_of(conv, "weight") == Layout(columns=True) and layout_of(plain, "weight") == PLAIN
    for recipe in (
        ttq.LSQ(4, per="channel"),
        ttq.GroupRTN(4, per=2),
        ttq.GroupRTN(4, per=2, symmetric=False),
        ttq.Ternary(per=2),
    ):
        one, other = copy.deepcopy(conv), copy.deepcopy(plain)
        quantizers = [ttq.fake_quantize_(layer, recipe).parametrizations.weight[0] for layer in (one, other)]
        assert torch.equal(one.weight.T, other.weight)
        weights = one.parametrizations.weight.original, other.parametrizations.weight.original
        codes = [quantizer.codes(weight) for quantizer, weight in zip(quantizers, weights)]
        assert torch.equal(codes[0].T, codes[1])
        assert torch.equal(quantizers[0].decode(codes[0], quantizers[0].scales(weights[0])), one.weight)


@pytest.mark.parametrize("layout", [PLAIN, Layout(True), Layout(False, True), Layout(True, True)])
def test_a_layout_can_be_undone(layout):
    weight = torch.randn(2, 3, 5) if layout.experts else torch.randn(3, 5)
    rows = layout.rows(weight)
    assert torch.equal(layout.weight(rows, weight.shape), weight)
    assert not layout.experts or rows.ndim == 2


def test_a_copy_that_is_quantized_further_leaves_the_original_alone():
    """A weight norm is a parametrization too, and PyTorch shares the class that it makes among copies."""
    normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))
    once = nn.Linear(4, 4)
    ttq.fake_quantize_(once, ttq.LSQ(4))
    for layer, x in ((normed, torch.ones(1, 4, 5)), (once, torch.ones(1, 4))):
        expected = layer(x)
        twin = copy.deepcopy(layer)
        ttq.fake_quantize_(twin, ttq.LSQ(8), "bias")
        assert torch.equal(layer(x), expected) and "bias" in dict(layer.named_parameters())
        assert twin(x).shape == expected.shape
