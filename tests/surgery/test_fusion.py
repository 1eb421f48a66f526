"""A fused model is the compressed one, in value; it is plain PyTorch; and it forgets that it had a plan."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.utils import logging

import ttqlib as ttq
from tests.cases import random_tensor, refused, seeds
from tests.models.test_intent_slot_model import tiny
from tests.surgery.test_compress import BERT, IDS, MASK, SIZES, bert, distilbert

CLOSE = {torch.float64: 1e-10, torch.float32: 1e-4}  # as the suite claims, relative to the largest entry
BATCHES = [(), (0,), (1,), (7,), (2, 3), (3, 0, 2)]
QUANTIZERS = [None, ttq.LSQ(4), ttq.LSQ(3, per="channel"), ttq.Binary(), ttq.Ternary()]
dtypes = st.sampled_from(list(CLOSE))


@pytest.fixture(autouse=True)
def quiet():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def fused(layer: nn.Module) -> nn.Module:
    """What becomes of a single layer."""
    return ttq.fuse_(nn.Sequential(copy.deepcopy(layer)))[0]


def assert_equal(actual: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    if expected.numel():
        tolerance = tolerance or CLOSE[expected.dtype]
        assert (actual - expected).abs().max() <= tolerance * max(1e-3, expected.abs().max())


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------------- single layers


@st.composite
def tt_linears(draw):
    n, m, rank = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 60))
    modes = [ttq.factorize(size, draw(st.integers(1, 3))) for size in (n, m)]
    torch.manual_seed(draw(seeds))
    layer = ttq.TTLinear(n, m, rank, *modes, bias=draw(st.booleans()), dtype=draw(dtypes))
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    quantizer = draw(st.sampled_from(QUANTIZERS))
    if quantizer is not None:
        for k in range(layer.order):
            ttq.fake_quantize_(layer, quantizer, f"core{k}")
    return layer.train(draw(st.booleans()))


@given(tt_linears(), st.sampled_from(BATCHES))
def test_a_linear_layer_becomes_the_cheaper_of_two_thin_ones_and_a_dense_one(layer, batch):
    plain = fused(layer)
    x = random_tensor((*batch, layer.in_features)).to(layer.core0.dtype)
    assert_equal(plain(x), layer(x))
    n, m, rank = layer.in_features, layer.out_features, layer.ranks[len(layer.in_modes)]
    parts = [part for part in plain.modules() if type(part) is nn.Linear]
    inner = rank + (layer.bias is not None)  # the bias is one more rank
    inner += -inner % 16 if -inner % 16 <= inner / 3 else 0  # and zeros fill up to 16, 32, … where that is near
    assert len(parts) == (2 if inner * (n + m) < n * m else 1) and plain.training == layer.training
    if len(parts) == 2:
        assert [tuple(part.weight.shape) for part in parts] == [(inner, n), (m, inner)]
        assert [part.bias is not None for part in parts] == [layer.bias is not None, False]
        assert numbers(plain) == inner * (n + m) + (0 if layer.bias is None else inner)
    else:
        assert numbers(plain) == n * m + (0 if layer.bias is None else m)


def test_the_bias_rides_along_exactly():
    layer = ttq.TTLinear(24, 30, 2)
    nn.init.normal_(layer.bias, std=100)
    first, second = fused(layer)
    assert torch.equal(first(torch.randn(5, 24))[:, -1], torch.ones(5))
    assert torch.equal(second.weight[:, -1], layer.bias)
    assert_equal(nn.Sequential(first, second)(torch.zeros(3, 24)), layer.bias.expand(3, -1))


@pytest.mark.parametrize(("rank", "width"), [(2, 3), (10, 11), (11, 16), (30, 32), (31, 32), (32, 33), (35, 48)])
def test_ranks_are_filled_up_to_a_multiple_of_16_that_is_near(rank, width):
    layer = ttq.TTLinear(144, 160, rank)
    nn.init.normal_(layer.bias)
    first, second = fused(layer)
    assert first.out_features == second.in_features == width
    assert not first.weight[rank:].any() and not second.weight[:, rank + 1 :].any()
    x = torch.randn(5, 144)
    assert_equal(second(first(x)), layer(x))


@st.composite
def ttm_embeddings(draw):
    count, width, parts = draw(st.integers(1, 200)), draw(st.integers(1, 40)), draw(st.integers(1, 4))
    torch.manual_seed(draw(seeds))
    layer = ttq.TTMEmbedding(
        count,
        width,
        draw(st.integers(1, 30)),
        ttq.factorize(count, parts),
        ttq.factorize(width, parts)[::-1],
        padding_idx=draw(st.none() | st.integers(-count, count - 1)),
        dtype=draw(dtypes),
        scale=draw(st.sampled_from([1.0, 4.0])),
    )
    quantizer = draw(st.sampled_from(QUANTIZERS))
    if quantizer is not None:
        for k in range(layer.order):
            ttq.fake_quantize_(layer, quantizer, f"core{k}")
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [2, 24])
def test_weight_and_bias_of_fused_layers_can_be_read(bias, rank):
    layer = ttq.TTLinear(24, 36, rank, bias=bias)
    if bias:
        nn.init.normal_(layer.bias)
    for quantized in (False, True):
        if quantized:
            ttq.fake_quantize_input_(layer, ttq.DynamicActivation(8))
        plain = fused(layer)
        assert_equal(plain.weight, layer.weight)
        assert (plain.bias is None) == (not bias)
        if bias:
            assert_equal(plain.bias, layer.bias)


@given(ttm_embeddings(), st.sampled_from(BATCHES), seeds, st.sampled_from([torch.int64, torch.int32]))
def test_an_embedding_becomes_two_small_tables_or_its_own(layer, shape, seed, dtype):
    plain = fused(layer)
    ids = torch.randint(layer.num_embeddings, shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert_equal(plain(ids), layer(ids))
    every = torch.arange(layer.num_embeddings)
    assert_equal(plain(every), layer(every))
    if isinstance(plain, nn.Embedding):
        assert plain.padding_idx == layer.padding_idx
    else:
        assert isinstance(plain, ttq.HalfMergedEmbedding)
        assert numbers(plain) < layer.num_embeddings * layer.embedding_dim


def test_both_forms_of_an_embedding_occur():
    kinds = [type(fused(ttq.TTMEmbedding(60, 24, rank))) for rank in (2, 40)]
    assert kinds == [ttq.HalfMergedEmbedding, nn.Embedding]
    assert type(fused(ttq.TTMEmbedding(60, 24, 2, (60,), (24,)))) is nn.Embedding  # one core is the table


def test_the_train_is_cut_where_the_two_tables_are_smallest():
    layer = ttq.TTMEmbedding(1000, 64, 8, (20, 10, 5), (4, 4, 4))
    # after the first core 20·4·8 + 50·16·8 numbers, after the second 200·16·8 + 5·4·8
    assert numbers(fused(layer)) == 20 * 4 * 8 + 50 * 16 * 8


def test_the_padding_row_passes_no_gradient_after_fusion_either():
    layer = ttq.TTMEmbedding(60, 24, 2, padding_idx=4)
    plain = fused(layer)
    for ids, reached in ([4, 4], False), ([4, 5], True):
        plain.zero_grad()
        plain(torch.tensor(ids)).sum().backward()
        assert any(parameter.grad.any() for parameter in plain.parameters()) == reached
    assert_equal(plain(torch.tensor([4])), layer(torch.tensor([4])))


def test_ids_outside_the_table_are_refused_although_padding_has_rows_for_them():
    embedding = fused(ttq.TTMEmbedding(59, 24, 2, (4, 4, 4), (4, 3, 2)))
    assert embedding(torch.tensor([58])).shape == (1, 24)
    for bad in (59, 63, 64, -1):
        with refused(IndexError, "ids must lie in 0 … 58", str(bad)):
            embedding(torch.tensor([[0, bad, 5]]))


def test_the_table_is_never_built():
    layer = ttq.TTMEmbedding(300_000, 768, 20)
    model, ids = nn.Sequential(layer), torch.randint(300_000, (4, 32))
    table = 4 * 300_000 * 768
    assert ttq.peak_bytes(lambda: ttq.fuse_(model)) < table / 10
    assert ttq.parameter_bytes(model) < table / 30
    assert ttq.peak_bytes(lambda: model(ids)) < table / 30


def test_what_is_fused_shares_no_memory_with_the_layer_it_came_from():
    linear, embedding = ttq.TTLinear(24, 24, 3, (24,), (24,)), ttq.TTMEmbedding(60, 24, 3, (10, 6), (4, 6))
    linear.eval(), embedding.eval()
    x, ids = torch.randn(3, 24), torch.arange(60)
    with torch.no_grad():
        expected = linear(x), embedding(ids)  # which fills the layer's cache of its two sides
        plain = ttq.fuse_(nn.ModuleList([linear, embedding]))
        for parameter in plain.parameters():
            parameter.zero_()
        assert torch.equal(linear(x), expected[0]) and torch.equal(embedding(ids), expected[1])


def test_half_precision_stays_half():
    layer = ttq.TTLinear(24, 24, 3, dtype=torch.bfloat16)
    plain, x = fused(layer), torch.randn(5, 24, dtype=torch.bfloat16)
    assert_equal(plain(x), layer(x), tolerance=0.02)
    assert fused(ttq.TTMEmbedding(60, 24, 3, dtype=torch.float16)).prefixes.weight.dtype is torch.float16


def test_a_lone_layer_cannot_be_replaced_in_place():
    with refused(ValueError, "fuse_ replaces layers inside a model", "TTLinear"):
        ttq.fuse_(ttq.TTLinear(4, 4, 2))


# ----------------------------------------------------------------------------------------------------- whole models


def loud(model: nn.Module) -> nn.Module:
    """Larger weights than those of a fresh model, whose logits hardly depend on its input."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model.eval()


def answers(model: nn.Module) -> torch.Tensor:
    output = model(IDS % model.config.vocab_size, attention_mask=MASK)
    return torch.cat([values.flatten(1) for values in output.values()], dim=1)


PLANS = {
    "float cores": {"rank": 4},
    "quantized": {"rank": 4, "bits": 4, "rest": 8},
    "half rest": {"rank": 4, "bits": 1, "rest": 16},
    "dense weights": {"bits": 3, "rest": 8},
    "dynamic activations": {"rank": 4, "bits": 4, "activations": ttq.DynamicActivation(4)},
    "static activations": {"rank": 4, "rest": 8, "activations": ttq.StaticActivation(4, batches=1)},
    "dense with activations": {"bits": 4, "activations": ttq.DynamicActivation(4)},
}


def compressed(make=bert, dtype=torch.float64, **options) -> nn.Module:
    model = loud(make().to(dtype))
    ttq.compress_(model, ttq.plan(model, **options)).train()
    with torch.no_grad():
        answers(model)  # calibrates activations
    return model.eval()


def is_plain(model: nn.Module) -> bool:
    trains = any(isinstance(part, ttq.TTLinear | ttq.TTMEmbedding) for part in model.modules())
    return not trains and not any(map(parametrize.is_parametrized, model.modules()))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("make", [bert, distilbert, tiny])
def test_a_fused_model_answers_as_the_compressed_one(make, options, dtype):
    model = compressed(make, dtype, **options)
    expected = answers(model)
    plain = ttq.fuse_(copy.deepcopy(model))
    assert is_plain(plain) and not is_plain(model)
    tolerance = 0.2 if "activations" in options and dtype is torch.float32 else None  # a last bit tips a rounding
    assert_equal(answers(plain), expected, tolerance)


def test_the_values_are_those_that_layers_see_not_the_latent_ones():
    model = compressed(rank=4, bits=2, rest=8)
    latent = ttq.compress_(loud(bert().double()), ttq.plan(bert(), rank=4))
    assert (answers(ttq.fuse_(latent)) - answers(model)).abs().max() > 0.01
    seen, plain = model.classifier.weight, ttq.fuse_(copy.deepcopy(model)).classifier.weight
    assert torch.equal(plain, seen) and not torch.equal(plain, model.classifier.parametrizations.weight.original)


def test_a_copy_is_fused_and_the_model_stays_whole():
    """All deep copies of a quantized layer share one class, and `remove_parametrizations` takes the weight from it."""
    model = compressed(rank=4, bits=4, rest=8)
    twin, expected = copy.deepcopy(model), answers(model)
    ttq.fuse_(copy.deepcopy(model))
    for kept in (model, twin):
        assert torch.equal(answers(kept), expected)
        assert ttq.stored_sizes(kept)["classifier"] > 0 and kept.hf_quantizer is not None
    broken = copy.deepcopy(model)
    parametrize.remove_parametrizations(broken.classifier, "weight")
    with pytest.raises(AttributeError):
        answers(model)


def test_fusing_is_in_place_and_once_is_enough():
    model = compressed(rank=4, bits=4, rest=8).train()
    layer_norm = model.bert.embeddings.LayerNorm
    assert ttq.fuse_(model) is model and model.bert.embeddings.LayerNorm is layer_norm
    assert all(part.training for part in model.modules())
    expected = answers(model.eval())
    assert torch.equal(answers(ttq.fuse_(model)), expected)


def test_an_uncompressed_model_stays_as_it_is(tmp_path):
    model = bert()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.named_parameters()}
    ttq.fuse_(model).save_pretrained(tmp_path)
    assert all(
        id(tensor) == before[name][0] and torch.equal(tensor, before[name][1])
        for name, tensor in model.named_parameters()
    )


def test_quantizers_of_activations_stay_in_front():
    model = compressed(rank=4, activations=ttq.DynamicActivation(4))
    ttq.fuse_(model)
    (quantizer, *thin) = model.bert.encoder.layer[0].output.dense
    assert isinstance(quantizer.recipe, ttq.DynamicActivation) and [type(part) for part in thin] == [nn.Linear] * 2
    assert torch.randn(3, 48).double().unique().numel() > quantizer(torch.randn(1, 48).double()).unique().numel()


def test_everything_in_a_fused_model_trains():
    model = ttq.fuse_(compressed(tiny, torch.float32, rank=4, bits=4, rest=8)).train()
    labels = {"intent_labels": torch.tensor([1, 2]), "slot_labels": IDS % 4}
    model(IDS % 50, MASK, token_type_ids=(IDS > 8).long(), **labels).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_layer_in_two_places_stays_one_and_tied_weights_stay_tied():
    layer = ttq.TTLinear(24, 24, 3)
    model = ttq.fuse_(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)}))
    assert model["a"] is model["b"][0] and isinstance(model["a"], nn.Sequential)
    tied = BertForMaskedLM(BertConfig(**{**SIZES, "num_labels": 2}, **BERT)).eval()
    ttq.compress_(tied, ttq.plan(tied, rules={r"encoder\.": ttq.TT(4)}))
    ttq.fuse_(tied)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


# ------------------------------------------------------------------------------------------------------- its papers


def test_the_plan_is_gone():
    for model in (compressed(rank=4, bits=4), compressed(bits=4)):
        ttq.fuse_(model)
        assert not hasattr(model, "ttq_config") and getattr(model, "hf_quantizer", None) is None
        assert not hasattr(model.config, "quantization_config")
        with refused(ValueError, "has no plan"):
            ttq.save(model, "nowhere")


def test_a_loaded_model_is_fused_like_a_trained_one(tmp_path):
    model = compressed(dtype=torch.float32, rank=4, bits=4, rest=8)
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert_equal(answers(ttq.fuse_(loaded)), answers(model))
    assert not hasattr(loaded.config, "quantization_config") and getattr(loaded, "hf_quantizer", None) is None
    assert is_plain(loaded) and loaded.double().dtype is torch.float64


@pytest.mark.parametrize(
    "copied", [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_model_whose_layers_changed_their_kind_refuses_to_be_saved(copied, tmp_path):
    model = copied(ttq.fuse_(compressed(rank=4, bits=4)))
    for part in (model, model.bert):
        with refused(ValueError, "save the compressed model, before ttq.fuse_", "ttq.export_onnx"):
            part.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_whose_layers_kept_their_kind_is_saved_as_any_model(tmp_path):
    model = ttq.fuse_(compressed(dtype=torch.float32, bits=3, rest=8))
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    loaded = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(answers(loaded), answers(model))


def test_a_report_adds_up_to_the_file_of_a_fused_model(tmp_path):
    model = ttq.fuse_(compressed(rank=4, bits=4, rest=8))
    report = ttq.report(model)
    save_file(model.state_dict(), tmp_path / "plain.safetensors", {"format": "pt"})
    assert report.total.stored_bytes == (tmp_path / "plain.safetensors").stat().st_size
    assert report.total.parameters == numbers(model)
    flops = {row.layer: row.flops for row in report.rows}
    assert flops["bert.encoder.layer.0.output.dense.0"] == 2 * 128 * 48 * (4 + 1)  # the bias is a rank
    assert flops["bert.embeddings.word_embeddings"] == 2 * 128 * 24 * 4 and "word_embeddings" in str(report)
    assert "HalfMergedEmbedding(" in repr(model) and "97, 24, padding_idx=0, rank=4" in repr(model)
