"""Plans: one line or rules, what stays out, JSON there and back, and what is refused."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2Model

import ttqlib as ttq
from tests.cases import refused
from tests.chapters import ROOT
from ttqlib.plans.groups import shared_over_layers

HEADLESS = {"bert.embeddings.position_embeddings", "bert.embeddings.token_type_embeddings"}
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(vocab_size=97, max_position_embeddings=16, **SMALL))


def gpt2() -> GPT2Model:
    return GPT2Model(
        GPT2Config(vocab_size=90, n_embd=24, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1)
    )


def test_one_line_gives_formats_quantizers_and_the_rest():
    config = ttq.plan(bert(), rank=4, bits=2, rest=8)
    formats = {name: layer.format for name, layer in config.layers.items()}
    assert formats.pop("bert.embeddings.word_embeddings") == ttq.TTM(4)
    assert set(formats.values()) == {ttq.TT(4)} and len(formats) == 6
    assert {layer.quantize for layer in config.layers.values()} == {ttq.LSQ(2)}
    assert config.rest == 8
    assert set(config.unmatched) == {*HEADLESS, "bert.pooler.dense", "classifier"}


def test_the_bits_choose_the_quantizer():
    quantizers = {
        bits: {layer.quantize for layer in ttq.plan(bert(), rank=4, bits=bits).layers.values()} for bits in (32, 8, 1)
    }
    assert quantizers == {32: {None}, 8: {ttq.LSQ(8)}, 1: {ttq.Binary()}}


def test_without_a_rank_layers_stay_dense_and_are_quantized_per_channel():
    config = ttq.plan(bert(), bits=1)
    assert {layer.format for layer in config.layers.values()} == {None}
    assert {layer.quantize for layer in config.layers.values()} == {ttq.Binary(per="channel")}
    with refused(ValueError, "give a rank, bits below 32, or rules", "ttq.TTQConfig(rest=8)"):
        ttq.plan(bert())


def test_a_lone_layer_has_no_name_for_a_plan():
    with refused(ValueError, "a lone Linear", "put it into one"):
        ttq.plan(nn.Linear(64, 64), rank=2)


def test_bits_are_whole_numbers():
    for bits in (1.0, 4.0, True):
        with refused(ValueError, "bits must be one of 1 … 8 or 32"):
            ttq.plan(bert(), bits=bits)


def test_a_plan_of_activations_leaves_out_what_pytorchs_attention_reads():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1).eval()
    config = ttq.plan(model, bits=4, activations=ttq.DynamicActivation(8))
    assert config.layers["layers.0.self_attn.out_proj"].activations is None
    assert ttq.compress_(model, config)(torch.randn(2, 3, 16)).isfinite().all()


def test_activations_are_for_linear_layers_only():
    config = ttq.plan(bert(), rank=4, activations=ttq.DynamicActivation(8))
    assert config.layers["bert.embeddings.word_embeddings"].activations is None
    assert config.layers["bert.encoder.layer.0.output.dense"].activations == ttq.DynamicActivation(8)


def test_the_first_rule_that_matches_wins_and_the_others_fill_in():
    own = ttq.LayerPlan(ttq.TT(2), ttq.Ternary())
    config = ttq.plan(
        bert(),
        rules={"query": own, "key": None, "attention": ttq.TT(3), "word": ttq.TTM(5), "classifier": ttq.LSQ(8)},
        quantize=ttq.LSQ(4),
    )
    attention = "bert.encoder.layer.0.attention."
    assert config.layers == {
        "bert.embeddings.word_embeddings": ttq.LayerPlan(ttq.TTM(5), ttq.LSQ(4)),
        attention + "self.query": own,
        attention + "self.value": ttq.LayerPlan(ttq.TT(3), ttq.LSQ(4)),
        attention + "output.dense": ttq.LayerPlan(ttq.TT(3), ttq.LSQ(4)),
        "classifier": ttq.LayerPlan(None, ttq.LSQ(8)),
    }
    feed_forward = {"bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"}
    assert set(config.unmatched) == {*HEADLESS, *feed_forward, "bert.pooler.dense"}  # a None was meant, no rule was not


def test_conv1d_of_gpt2_counts_as_linear():
    config = ttq.plan(gpt2(), rank=2)
    assert config.layers["h.0.attn.c_attn"].format == ttq.TT(2) and config.layers["wte"].format == ttq.TTM(2)
    assert config.unmatched == ("wpe",)


PLANS = {
    "one line": lambda: ttq.plan(bert(), rank=4, bits=3, rest=16),
    "binary": lambda: ttq.plan(bert(), bits=1, rest=8),
    "modes": lambda: ttq.TTQConfig({"a.b": ttq.TT(3, [4, 6], (6, 4)), "c": ttq.TTM(2, [5, 5], [4, 6])}),
    "quantizers": lambda: ttq.TTQConfig(
        {"a": ttq.GroupRTN(4, per=32, symmetric=False), "b": ttq.Ternary(per=16), "c": ttq.LSQ(2, init="max")}
    ),
    "activations": lambda: ttq.plan(bert(), rank=4, activations=ttq.StaticActivation(4, batches=3)),
    "words": lambda: ttq.TTQConfig({"a": ttq.LayerPlan(ttq.TT(2), "rest", "float"), "b": "float"}, rest=8),
    "ranks by bond": lambda: ttq.TTQConfig({"a": ttq.TT([1, 2, 4, 3, 2, 2, 1])}),
    "nothing": ttq.TTQConfig,
}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_json_there_and_back_gives_an_equal_plan(make):
    config = make()
    text = json.dumps(config.to_dict())
    again = ttq.TTQConfig.from_dict(json.loads(text))
    assert again == config
    assert json.dumps(again.to_dict()) == text
    assert replace(config, unmatched=("other",)) != again


def test_json_by_hand_may_leave_out_what_has_a_default():
    layers = {"a": {"format": {"type": "TT", "rank": 4}, "quantize": {"type": "LSQ", "bits": 3}}, "b": {}}
    expected = ttq.TTQConfig({"a": ttq.LayerPlan(ttq.TT(4), ttq.LSQ(3)), "b": ttq.LayerPlan()})
    assert ttq.TTQConfig.from_dict({"layers": layers}) == expected
    assert ttq.TTQConfig.from_dict({}) == ttq.TTQConfig()


def test_plans_of_earlier_versions_are_read():
    """They have no format, and call `per` of a `GroupRTN` its group_size."""
    recipe = {"type": "GroupRTN", "bits": 4, "group_size": 32, "symmetric": False}
    old = {"layers": {"a": {"quantize": recipe}}, "rest": 8, "unmatched": ["b"]}
    expected = ttq.TTQConfig({"a": ttq.GroupRTN(4, per=32, symmetric=False)}, rest=8, unmatched=("b",))
    assert ttq.TTQConfig.from_dict(old) == expected


@pytest.mark.parametrize("study", ["atis", "glue", "memory"])
def test_every_plan_of_our_results_is_read(study):
    rows = json.loads((ROOT / "data" / "results" / f"{study}.json").read_text(encoding="utf-8"))["rows"]
    plans = [row["plan"] for row in rows if row.get("plan")]
    again = [json.loads(json.dumps(ttq.TTQConfig.from_dict(plan).to_dict())) for plan in plans]
    assert plans and again == [{"format": 1, **plan} for plan in plans]


@pytest.mark.parametrize("recipe", [ttq.LSQ, ttq.GroupRTN, ttq.DynamicActivation, ttq.StaticActivation])
def test_a_recipe_takes_all_but_bits_by_keyword(recipe):
    assert recipe(4).bits == 4
    with pytest.raises(TypeError, match="positional argument"):
        recipe(4, "channel")
    with pytest.raises(TypeError, match="positional argument"):
        ttq.Binary("channel")


def test_without_quantizers_only_the_formats_stay():
    config = ttq.plan(bert(), rules={"query": ttq.TT(2), "key": ttq.LSQ(4)}, rest=8, quantize=ttq.LSQ(2))
    formats = config.without_quantizers()
    assert formats.layers == {"bert.encoder.layer.0.attention.self.query": ttq.LayerPlan(ttq.TT(2))}
    assert formats.rest == 32 and formats.unmatched == config.unmatched


def test_rules_say_float_and_rest_apart_from_what_they_leave_open():
    rules = {"query": "float", "key": "rest", "value": ttq.LayerPlan(ttq.TT(2), activations="float"), "pooler": None}
    eight = ttq.DynamicActivation(8)
    config = ttq.plan(bert(), rules=rules, quantize=ttq.LSQ(2), activations=eight)
    query, key, value = (config.layers[f"bert.encoder.layer.0.attention.self.{name}"] for name in list(rules)[:3])
    assert query == ttq.LayerPlan(quantize="float", activations=eight)
    assert key == ttq.LayerPlan(quantize="rest", activations=eight)
    assert value == ttq.LayerPlan(ttq.TT(2), ttq.LSQ(2), "float")
    assert "bert.pooler.dense" not in config.layers and "bert.pooler.dense" not in config.unmatched


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ttq.LayerPlan(8), "format of a layer must be one of TT, TTM, Shared, None, got 8"),
        (lambda: ttq.LayerPlan("float"), "format of a layer must be one of TT, TTM, Shared, None, got 'float'"),
        (
            lambda: ttq.LayerPlan(quantize=4),
            "quantize of a layer must be one of LSQ, Binary, Ternary, GroupRTN, 'float'",
        ),
        (lambda: ttq.LayerPlan(quantize="int4"), "'float', 'rest', None, got 'int4'"),
        (lambda: ttq.LayerPlan(activations="rest"), "DynamicActivation, StaticActivation, 'float', None, got 'rest'"),
        (lambda: ttq.LayerPlan(activations=ttq.LSQ(4)), "activations of a layer must be one of"),
        (lambda: ttq.TT([1, 0, 1]), "every entry of rank"),
        (lambda: ttq.TT("4"), "rank must be a whole number"),
    ],
)
def test_what_no_layer_can_get_is_refused(make, says):
    with refused(ValueError, says):
        make()


REFUSED = {
    "rest": (lambda m: ttq.plan(m, rank=4, rest=4), "rest must be one of 32, 16, 8 bits, got 4"),
    "bits": (lambda m: ttq.plan(m, rank=4, bits=16), "bits must be one of 1 … 8 or 32, got 16"),
    "bool bits": (lambda m: ttq.plan(m, rank=4, bits=True), "got True"),
    "both": (lambda m: ttq.plan(m, rank=4, rules={"query": ttq.TT(2)}), "give either rank and bits, or rules"),
    "twice": (lambda m: ttq.plan(m, rank=4, bits=4, quantize=ttq.LSQ(2)), "give either bits or quantize"),
    "idle": (lambda m: ttq.plan(m, rules={"quary": ttq.TT(2)}), "'quary'"),
    "shadowed": (lambda m: ttq.plan(m, rules={"self": ttq.TT(2), "query": ttq.TT(3)}), "'query'"),
    "kind": (lambda m: ttq.plan(m, rules={"embeddings": ttq.TT(2)}), "'embeddings' gives TT to bert.embeddings.word"),
    "other kind": (lambda m: ttq.plan(m, rules={"query": ttq.TTM(2)}), "TTM is for an embedding"),
    "value": (
        lambda m: ttq.plan(m, rules={"query": 4}),
        "rule 'query' must be a TT, a TTM, a Shared, a weight",
    ),
    "large": (lambda m: ttq.plan(m, rank=500), "nothing that gets smaller at rank 500"),
    "no layers": (lambda m: ttq.plan(nn.ReLU(), bits=4), "ReLU has no layers to compress"),
}


@pytest.mark.parametrize(("call", "says"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_plan_is_refused(call, says):
    with refused(ValueError, says):
        call(bert())


def damaged(**changes):
    data = ttq.plan(bert(), rank=4, bits=2).to_dict()
    layer = data["layers"]["bert.encoder.layer.0.output.dense"]
    for side, values in changes.items():
        layer[side] = {**layer.get(side, {}), **values}
    return data


BROKEN = {
    "unknown type": (
        damaged(format={"type": "os.system"}),
        "format of bert.encoder.layer.0.output.dense: type must be",
    ),
    "no type": (damaged(activations={"bits": 8}), "got None"),
    "negative bits": (damaged(quantize={"bits": -2}), "bits must be a whole number from 2 to 8, got -2"),
    "rank as text": (damaged(format={"rank": "4"}), "rank must be a whole number of at least 1, got '4'"),
    "extra field": (damaged(quantize={"path": "../x"}), "unknown fields ['path']"),
    "modes": (damaged(format={"in_modes": [4, -6]}), "every entry of in_modes"),
    "side": (damaged(other={"type": "TT"}), "unknown fields ['other']"),
    "no rank": ({"layers": {"a": {"format": {"type": "TT"}}}}, "format of a (TT) lacks the fields ['rank']"),
    "two names": ({"layer": {}}, "a plan has the unknown fields ['layer']"),
    "another format": ({"format": 2}, "the format of a plan must be 1, got 2"),
    "no format": ({"format": True}, "the format of a plan must be 1, got True"),
    "layers": ({"layers": [], "rest": 32, "unmatched": []}, "layers must be an object, got list"),
    "layer": ({"layers": {"a": 4}, "rest": 32, "unmatched": []}, "the plan of a must be an object, got int"),
    "rest": ({"layers": {}, "rest": -8, "unmatched": []}, "rest must be one of"),
    "unmatched": ({"layers": {}, "rest": 32, "unmatched": 4}, "unmatched must be a list of names"),
    "wrong side": (
        {
            "layers": {"a": {"format": {"type": "Binary", "per": "tensor", "learnable": False}}},
            "rest": 32,
            "unmatched": [],
        },
        "format of a: type must be one of TT, TTM",
    ),
    "word": ({"layers": {"a": {"quantize": "int4"}}}, "quantize of a layer must be one of"),
    "list": ([], "a plan must be an object, got list"),
}


@pytest.mark.parametrize(("data", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plan_is_refused(data, says):
    with refused(ValueError, says):
        ttq.TTQConfig.from_dict(data)


def test_recipes_of_a_plan_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        ttq.TT(3).rank = 4


def test_the_same_matrix_of_all_layers_shares_what_a_plan_of_low_ranks_gave_it():
    model = gpt2()
    config = ttq.plan(model, rules={r"c_attn": ttq.LayerPlan(ttq.TT(4, (24,), (72,)), ttq.LSQ(2)), "wte": ttq.TTM(3)})
    made = shared_over_layers(model, config, "both")
    assert made.layers["h.0.attn.c_attn"] == ttq.LayerPlan(ttq.Shared(4, "both", "attn.c_attn"), ttq.LSQ(2))
    assert made.layers["wte"] == config.layers["wte"] and made.unmatched == config.unmatched
    with refused(ValueError, "none of the layers h is a ttq.TT"):
        shared_over_layers(model, ttq.plan(model, bits=4), "both")
