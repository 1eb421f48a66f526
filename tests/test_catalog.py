"""Recipes and schedules of one's own: registered, saved, read again; and what `register` refuses."""

import re
from dataclasses import dataclass

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq
from tests.cases import refused
from tests.chapters import ROOT
from ttqlib.plans.configs import QUANTIZERS
from ttqlib.training.schedules import SCHEDULES

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 30}
IDS = torch.tensor([[1, 5, 9, 2]])


def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(vocab_size=16, max_position_embeddings=8, **SIZES)).eval()


@pytest.fixture
def told(monkeypatch):
    """What docs/extend.md defines; the catalogs are as before afterwards."""
    for catalog in (QUANTIZERS, SCHEDULES):
        monkeypatch.setattr(catalog, "kinds", dict(catalog.kinds))
    names = {"__name__": "docs"}
    torch.manual_seed(0)
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extend.md").read_text("utf-8"), re.M | re.S):
        exec(block, names)
    return names


def test_the_documented_recipe_quantizes(told):
    weight = told["layer"].parametrizations.weight.original
    quantizer = told["ShiftScales"](4, per=64).build(weight)
    scales = quantizer.scales(weight)["scale"]
    assert torch.equal(scales.log2(), scales.log2().round()) and scales.shape == (256, 4)
    assert torch.equal(told["shifted"], quantizer(weight))
    assert torch.equal(told["model"][0].weight, told["shifted"])
    assert 0 < ttq.relative_error(weight, told["shifted"]) < 0.2


def test_a_model_under_a_registered_recipe_is_saved_and_read(told, tmp_path):
    model = bert()
    recipe = told["ShiftScales"](4, per=8)
    ttq.compress_(model, ttq.plan(model, rules={"query": recipe}))
    ttq.save(model, tmp_path / "model")
    again = ttq.load(tmp_path / "model")
    assert again.ttq_config == model.ttq_config and recipe in [
        layer.quantize for layer in again.ttq_config.layers.values()
    ]
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    del QUANTIZERS.kinds["ShiftScales"]
    with refused(ValueError, "type must be one of LSQ, Binary", "got 'ShiftScales'", "ttq.register"):
        ttq.load(tmp_path / "model")


def test_a_model_is_distilled_by_the_documented_schedule(told):
    (stage,) = told["schedule"].stages({0: 0, 1: 1})
    assert (stage.name, stage.steps) == ("last state", 200)
    student, teacher = bert(), bert()
    with torch.no_grad():
        seen = [
            ttq.observe(one, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}) for one in (student, teacher)
        ]
    expected = ttq.hidden_mse(seen[0].hidden_states[-1], seen[1].hidden_states[-1], seen[0].mask)
    assert stage.matches[0].parts(*seen) == {"last": expected}


def test_a_cell_that_is_run_again_replaces_its_class(told):
    first = told["OnlyTheEnd"]
    again = ttq.register(
        dataclass(frozen=True)(type("OnlyTheEnd", (ttq.LogitsOnly,), {"__module__": first.__module__}))
    )
    assert again is not first
    assert type(ttq.Schedule.from_dict({"type": "OnlyTheEnd", "steps": 3})) is again
    with refused(ValueError, "a file cannot hold", "OnlyTheEnd", "ttq.register"):
        first(3).to_dict()


def test_what_cannot_be_registered_is_refused():
    class Open(ttq.WeightRecipe):
        pass

    @dataclass
    class Changeable(ttq.WeightRecipe):
        bits: int = 3

    for kind in (Open, Changeable):
        with refused(ValueError, f"{kind.__name__} must be a frozen dataclass", "@dataclass(frozen=True)"):
            ttq.register(kind)
    with refused(ValueError, "the name LSQ is taken, by ttqlib.quantizers.recipes"):
        ttq.register(type("LSQ", (ttq.Binary,), {"__module__": "mine"}))
    for nothing in (int, ttq.LSQ(4), ttq.TT):
        with refused(TypeError, "extends ttq.ActivationRecipe or ttq.Schedule or ttq.WeightRecipe"):
            ttq.register(nothing)
