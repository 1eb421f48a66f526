"""Plans and surgery on models of several families: what is replaced, what stays, what is refused."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

import ttqlib as ttq

SIZES = {"vocab_size": 97, "max_position_embeddings": 16, "num_labels": 3}
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
DISTIL = {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
IDS = torch.tensor([[2, 7, 96, 3, 0], [2, 9, 3, 0, 0]])
MASK = (IDS != 0).long()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, **BERT)).eval()


def distilbert() -> DistilBertForSequenceClassification:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig(**SIZES, **DISTIL)).eval()


def kinds(model) -> dict[type, int]:
    counts: dict[type, int] = {}
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Embedding, ttq.TTLinear, ttq.TTMEmbedding):
            counts[type(module)] = counts.get(type(module), 0) + 1
    return counts


@pytest.mark.parametrize("make", [bert, distilbert])
def test_a_plan_takes_linear_layers_and_words_and_leaves_heads_and_positions(make):
    model = make()
    config = ttq.plan(model, rank=4)
    assert sum(isinstance(recipe, ttq.TT) for recipe in config.layers.values()) == 12  # six a layer
    (words,) = [name for name, recipe in config.layers.items() if isinstance(recipe, ttq.TTM)]
    assert words.endswith("word_embeddings") and config.layers[words] == ttq.TTM(rank=4)
    assert not any("classifier" in name or "pooler" in name or "position" in name for name in config.layers)


def test_layers_that_would_grow_stay_out():
    kept = ttq.plan(bert(), rank=10).layers  # cores of rank 10 are larger than a 24 × 24 matrix
    assert len(kept) == 5 and not any("attention" in name for name in kept)
    assert list(ttq.plan(bert(), rank=13).layers) == ["bert.embeddings.word_embeddings"]
    with pytest.raises(ValueError, match="nothing in BertForSequenceClassification gets smaller at rank 500"):
        ttq.plan(bert(), rank=500)


@pytest.mark.parametrize("make", [bert, distilbert])
def test_at_full_rank_a_compressed_model_answers_as_before(make):
    model = make().double()
    expected = model(IDS, attention_mask=MASK).logits
    config = ttq.TTQConfig({name: type(recipe)(rank=10**6) for name, recipe in ttq.plan(model, 4).layers.items()})
    assert ttq.compress_(model, config) is model
    assert kinds(model)[ttq.TTLinear] == 12 and kinds(model)[ttq.TTMEmbedding] == 1
    assert torch.allclose(model(IDS, attention_mask=MASK).logits, expected, atol=1e-10)
    low = make().double()
    ttq.compress_(low, ttq.plan(low, rank=1))
    assert not torch.allclose(low(IDS, attention_mask=MASK).logits, expected, atol=1e-4)


def test_random_cores_have_the_scale_of_the_weights_they_replace():
    model = bert()
    std = model.bert.encoder.layer[0].intermediate.dense.weight.std()
    ttq.compress_(model, ttq.plan(model, rank=8), init="random")
    layer = model.bert.encoder.layer[0].intermediate.dense
    assert 0.6 < layer.to_linear().weight.std() / std < 1.6
    assert torch.equal(layer.bias, torch.zeros(48))


def test_modes_of_a_recipe_reach_the_layer():
    model = nn.Sequential(nn.Linear(24, 24))
    ttq.compress_(model, ttq.TTQConfig({"0": ttq.TT(rank=2, in_modes=(4, 6), out_modes=(6, 4))}))
    assert (model[0].in_modes, model[0].out_modes) == ((4, 6), (6, 4))


def test_mode_and_dtype_stay():
    model = bert().to(torch.bfloat16)
    ttq.compress_(model, ttq.plan(model, rank=4))
    layer = model.bert.encoder.layer[1].output.dense
    assert layer.core0.dtype is torch.bfloat16 and not layer.training


REFUSED = [
    ({"nowhere": ttq.TT(2)}, "'nowhere', which is no layer"),
    (
        {"bert.embeddings.word_embeddings": ttq.TT(2)},
        "TT is for Linear, but bert.embeddings.word_embeddings is of type Embedding",
    ),
    ({"classifier": ttq.TTM(2)}, "TTM is for Embedding, but classifier is of type Linear"),
    ({"bert.pooler.dense": ttq.TT(2, in_modes=(5, 4))}, "multiplies out to 20"),
]


@pytest.mark.parametrize(("layers", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(layers, says):
    model = bert()
    before = copy.deepcopy(model.state_dict())
    config = ttq.TTQConfig({"bert.encoder.layer.0.output.dense": ttq.TT(2), **layers})
    with pytest.raises(ValueError) as caught:
        ttq.compress_(model, config)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert before.keys() == model.state_dict().keys()


def test_a_tied_weight_is_refused():
    model = bert()
    model.classifier = nn.Linear(24, 97, bias=False)
    model.classifier.weight = model.get_input_embeddings().weight
    with pytest.raises(ValueError, match=r"word_embeddings\.weight and classifier\.weight are one tied weight: untie"):
        ttq.compress_(model, ttq.plan(model, rank=4))


def test_compressing_twice_is_refused():
    model = bert()
    config = ttq.plan(model, rank=4)
    ttq.compress_(model, config)
    with pytest.raises(ValueError, match=r"but .* is of type TT"):
        ttq.compress_(model, config)


@pytest.mark.parametrize("rank", [0, -1, 1.5, "4", True])
def test_bad_ranks_are_refused(rank):
    for call in (lambda: ttq.TT(rank), lambda: ttq.TTM(rank), lambda: ttq.plan(bert(), rank)):
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
            call()


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="init must be 'svd' or 'random', got 'zeros'"):
        ttq.compress_(bert(), ttq.TTQConfig(), init="zeros")
