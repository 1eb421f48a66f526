"""Groups of layers, settings and costs of the app, as the library has them in its plan, report and folder."""

import json
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ttqlib as ttq
from tests.chapters import ROOT
from tests.explore.models import BUILT, bare
from ttqlib.explore import Machine, plan_cost
from ttqlib.explore.app.costs import TRAINED, Weigher
from ttqlib.explore.app.layers import CORES, FORMATS, Layers, Setting
from ttqlib.explore.app.sources import known

WEIGHERS = {family: Weigher(bare(family)) for family in BUILT}
GROUPS = {
    "bert": {"words": 1, "positions": 1, "attention": 8, "feed-forward": 4, "heads": 2, "other tables": 1},
    "roberta": {"words": 1, "positions": 1, "attention": 8, "feed-forward": 4, "heads": 1, "other tables": 1},
    "llama": {"words": 1, "attention": 8, "feed-forward": 6},
    "gpt2": {"words": 1, "positions": 1, "attention": 4, "feed-forward": 4},
}
SETTINGS = st.builds(Setting, st.sampled_from(FORMATS), st.integers(1, 9), st.sampled_from([1, 2, 4, 7, 8, 32]))


@st.composite
def plans(draw):
    """A family, and a plan of it in which some layers have settings of their own."""
    family = draw(st.sampled_from(list(BUILT)))
    layers = WEIGHERS[family].layers
    chosen = {}
    for name in draw(st.lists(st.sampled_from(list(layers.all)), unique=True, max_size=6)):
        setting = draw(SETTINGS)
        form = setting.form if setting.form in layers.formats([name]) else "dense"
        chosen[name] = layers.layer_plan(name, Setting(form, setting.rank if form in CORES else None, setting.bits))
    return family, layers.plan(chosen, draw(st.sampled_from([8, 16, 32])))


@pytest.mark.parametrize("family", BUILT)
def test_layers_are_grouped_by_what_they_are(family):
    layers = WEIGHERS[family].layers
    assert {group: len(names) for group, names in layers.groups.items()} == GROUPS[family]
    assert sorted(name for names in layers.groups.values() for name in names) == sorted(layers.all)


@settings(max_examples=40, phases=[Phase.generate])  # to make a failing plan smaller takes minutes
@given(plans())
def test_a_cost_is_that_of_the_library_to_the_byte(case):
    family, plan = case
    cost, other = WEIGHERS[family].cost(plan), plan_cost(bare(family), plan)
    generation = len(bare(family).generation_config.to_json_string()) if bare(family).can_generate() else 0
    assert cost.stored_bytes == other.stored_bytes + generation  # of which the older function knows nothing
    assert cost.flops == other.flops
    compressed = ttq.compress_(bare(family), plan, init="random")
    assert cost.parameters == ttq.count_parameters(compressed)
    assert sum(cost.layers.values()) == sum(cost.parts[group] for group in WEIGHERS[family].layers.groups)
    assert cost.training_bytes == TRAINED * cost.parameters


@pytest.mark.parametrize("family", BUILT)
def test_a_cost_is_that_of_the_folder(family, tmp_path):
    layers, model = WEIGHERS[family].layers, BUILT[family]()
    plan = layers.plan({}, 8)
    for number, names in enumerate(layers.groups.values()):
        form = [form for form in layers.formats(names) if form != "as the rest"][
            number % len(layers.formats(names)) - 1
        ]
        plan = layers.turned(plan, names, form=form, bits=1 + number, **({"rank": 3} if form in CORES else {}))
    ttq.save(ttq.compress_(model, plan, init="random"), tmp_path)
    assert WEIGHERS[family].cost(plan).stored_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


@settings(max_examples=40, phases=[Phase.generate])  # to make a failing plan smaller takes minutes
@given(plans())
def test_a_plan_has_the_order_and_the_leftovers_of_the_library(case):
    family, plan = case
    if plan.layers:
        rules = {f"^{name}$": layer for name, layer in plan.layers.items()}
        assert ttq.plan(bare(family), rules=rules, rest=plan.rest) == plan


@pytest.mark.parametrize(("family", "form", "bits"), list(product(BUILT, FORMATS, (1, 4, 32))))
def test_a_setting_is_read_back(family, form, bits):
    layers = WEIGHERS[family].layers
    for name in layers.all:
        if form in layers.formats([name]):
            rank, width = (5 if form in CORES else None), 32 if form == "as the rest" else bits
            setting = Setting(form, rank, width)
            assert layers.setting(layers.plan({name: layers.layer_plan(name, setting)}, 8), name) == setting


def test_a_turn_changes_one_thing_and_a_group_tells_where_it_is_mixed():
    layers = WEIGHERS["bert"].layers
    names = layers.groups["attention"]
    plan = layers.turned(layers.plan({}, 8), names, form="train of 2")
    assert layers.common(plan, names) == Setting("train of 2", 16, 32)
    plan = layers.turned(plan, names, bits=2)
    plan = layers.turned(plan, names[:1], form="dense")
    assert layers.common(plan, names) is None and layers.setting(plan, names[0]) == Setting("dense", None, 2)
    assert layers.setting(layers.turned(plan, names, rank=9), names[1]) == Setting("train of 2", 9, 2)
    assert layers.turned(layers.plan({}, 8), names, rank=9, bits=2) == layers.plan({}, 8)  # it belongs to the rest
    assert layers.turned(plan, names, form="as the rest") == layers.plan({}, 8)


def test_inputs_keep_their_quantizer():
    layers, (name, *_) = WEIGHERS["bert"].layers, WEIGHERS["bert"].layers.groups["attention"]
    given_ = ttq.LayerPlan(ttq.TT(3), ttq.LSQ(2), ttq.DynamicActivation(8))
    plan = layers.turned(layers.plan({name: given_}, 8), [name], bits=4)
    assert plan.layers[name] == ttq.LayerPlan(ttq.TT(3), ttq.LSQ(4), ttq.DynamicActivation(8))


def test_the_model_stays_as_it_is():
    model = bare("roberta")
    before = {name: (id(p), p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    weigher = Weigher(model)
    weigher.cost(weigher.layers.turned(weigher.layers.plan({}, 8), weigher.layers.all, form="dense", bits=2))
    assert {name: (id(p), p.shape) for name, p in model.named_parameters(remove_duplicate=False)} == before
    assert not hasattr(model, "ttq_config") and "ParametrizedLinear" not in repr(model)


def rows(name):
    return json.loads((ROOT / "data" / "results" / f"{name}.json").read_text())["rows"]


def test_memory_to_train_is_what_was_counted():
    weigher, kept = Weigher(known()["atis"].bare()), [row for row in rows("memory") if row["task"] == "atis"]
    assert len(kept) == 3
    for row in kept:
        plan = ttq.TTQConfig.from_dict(row["plan"] or ttq.TTQConfig().to_dict())
        assert weigher.cost(plan).training_bytes == row["metrics"]["kept_bytes"]["mean"]


def test_foretold_times_compare_as_measured_ones_do():
    weigher = Weigher(known()["bert-base"].bare())
    trains = ttq.plan(weigher.model, rank=30)
    machine = Machine(flops=200e9, bytes=20e9)
    foretold = weigher.cost(ttq.TTQConfig()).seconds(machine) / weigher.cost(trains).seconds(machine)
    took = {
        row["method"]: row["metrics"]["milliseconds"]["mean"]
        for row in rows("speed")
        if row["task"] == "bert-base 1×128"
    }
    assert (
        1 < took["dense"] / took["fused"] < foretold < 3 * took["dense"] / took["fused"]
    )  # it is what is best, not what is


def test_layers_of_a_model_without_a_config_have_groups_too():
    import torch

    layers = Layers(torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 6)))
    assert layers.groups == {"feed-forward": ("1",), "other tables": ("0",)}
