"""The plan builder: its bytes are those of a real folder, its accuracies those of rows, its code makes its plan."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq
from ttqlib.explore import (
    GROUPS,
    Choice,
    GroupPlan,
    MeasuredPlans,
    PlanBuilder,
    chosen_by,
    plan_by_groups,
    plan_cost,
    plan_figure,
    plan_text,
    skeleton,
)

ROOT = Path(__file__).parents[2]
SIZE = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": 90}
SIZE |= {"max_position_embeddings": 16, "type_vocab_size": 1}


def build(names: str = "label", device: str = "cpu") -> ttq.IntentSlotModel:
    labels = {"intents": [f"{names} {n}" for n in range(3)], "slots": [f"{names} {n}" for n in range(5)]}
    with torch.device(device):
        return ttq.IntentSlotModel(BertConfig(**SIZE, **labels))


uniform = GroupPlan.uniform
PAIRED = Choice(), Choice(6, cores=2), Choice(6, cores=2)  # positions, attention, feed-forward
MIXED = GroupPlan(Choice(5, 2, 2), Choice(bits=2), Choice(bits=3), Choice(3, 4, 2), Choice(bits=4), rest=8)
PLANS = [GroupPlan(), GroupPlan(rest=16), uniform(2), uniform(3, 2, 4, 8), uniform(4, 1, rest=16), MIXED]
PLANS += [uniform(2, 8, 2, 8, sides=1), uniform(5, 4, 8, sides=2), GroupPlan(heads=Choice(bits=1))]


def saved_bytes(model, config, folder) -> int:
    ttq.save(ttq.compress_(model, config, init="random"), folder)
    return sum(file.stat().st_size for file in folder.iterdir())


# ------------------------------------------------------------------------------------------------------------- plans


def test_a_group_gets_its_choice_and_what_is_in_none_the_rest():
    model = build()
    choices = {"words": Choice(4, 2, cores=2), "feed-forward": Choice(3, 1), "heads": Choice(bits=4)}
    config = plan_by_groups(model, GROUPS, choices, rest=16)
    assert config.rest == 16 and not any("attention" in name for name in config.layers)
    assert "bert.embeddings.position_embeddings" in config.unmatched
    assert config.layers["bert.embeddings.word_embeddings"] == ttq.LayerPlan(
        ttq.TTM(4, ttq.factorize(90, 2), ttq.factorize(48, 2)[::-1]), ttq.LSQ(2)
    )
    assert config.layers["bert.encoder.layer.0.output.dense"] == ttq.LayerPlan(ttq.TT(3), ttq.Binary())
    assert config.layers["slot_head"] == ttq.LayerPlan(quantize=ttq.LSQ(4, per="channel"))
    assert ttq.report(ttq.compress_(model, config)).total.ratio > 1


def test_every_layer_of_a_model_belongs_to_one_group():
    small = {**SIZE, "num_hidden_layers": 2}
    for model in (build(), BertForSequenceClassification(BertConfig(**small))):
        layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
        fitting = {name: [group for group, words in GROUPS.items() if re.search(words, name)] for name in layers}
        assert all(len(groups) == 1 for name, groups in fitting.items() if "token_type" not in name), fitting


def test_cores_a_side_multiply_out_to_the_layer():
    choices = {"feed-forward": Choice(3, cores=2)}
    form = plan_by_groups(build(), GROUPS, choices).layers["bert.encoder.layer.0.output.dense"].format
    assert (math.prod(form.in_modes), math.prod(form.out_modes)) == (96, 48)
    assert len(form.in_modes) == len(form.out_modes) == 2


def test_a_choice_for_an_unknown_group_is_refused_and_no_choice_is_no_plan():
    with pytest.raises(ValueError, match="among words, positions, attention, feed-forward, heads, got 'tails'"):
        plan_by_groups(build(), GROUPS, {"tails": Choice(3)})
    assert plan_by_groups(build(), GROUPS, {"heads": Choice()}, rest=8) == ttq.TTQConfig(rest=8)


@pytest.mark.parametrize("chosen", PLANS, ids=str)
def test_the_line_of_python_makes_the_same_plan(chosen):
    model, made = build(), {}
    exec(chosen.code(model), {"ttq": ttq, "model": model}, made)
    assert made["config"] == chosen.config(model) and "\n" not in chosen.code(model)


def test_the_line_of_python_fits_a_deeper_model():
    deeper, made = ttq.IntentSlotModel(BertConfig(**{**SIZE, "num_hidden_layers": 3}, intents=["a"], slots=["b"])), {}
    exec(MIXED.code(build()), {"ttq": ttq, "model": deeper}, made)
    assert made["config"] == MIXED.config(deeper)


@pytest.mark.parametrize("chosen", PLANS, ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_computed_bytes_are_those_of_the_folder(chosen, device, tmp_path):
    model = build(device=device)
    before = {name: id(tensor) for name, tensor in model.named_parameters()}
    config = chosen.config(model)
    cost = plan_cost(model, config)
    assert cost.stored_bytes == saved_bytes(build(), config, tmp_path)
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == before and not hasattr(
        model, "ttq_config"
    )
    assert cost.flops == ttq.report(ttq.compress_(build(), config, init="random")).total.flops


def test_the_parts_of_a_folder_follow_their_choices():
    model, plain = build(device="meta"), plan_cost(build(device="meta"), ttq.TTQConfig()).parts
    assert list(plain) == [*GROUPS, "rest", "files"] and min(plain.values()) > 0
    for group in GROUPS:
        config = GroupPlan(**{group.replace("-", "_"): Choice(bits=2)}).config(model)
        smaller = {part for part, size in plan_cost(model, config).parts.items() if size < plain[part]}
        assert smaller == {group}


def test_atis_py_makes_the_same_plans():
    import atis
    from runs import parse

    for told, chosen in {
        "--rank 4": uniform(4),
        "--rank 4 --bits 2 --rest 8 --dense-bits heads=4 positions=4": uniform(4, 2, 4, 8),
        "--rank 6 --bits 1 --rest 16": uniform(6, 1, rest=16),
        "--rank 6 --sides 2 --ranks words=9": GroupPlan(Choice(9, cores=2), *PAIRED),
    }.items():
        settings, _ = parse(atis.Atis, [*told.split(), "--hidden", "64"])
        with torch.device("meta"):
            bare = atis.new_model(settings, 90, ["a"], ["b"])
        assert chosen.config(bare) == atis.plan(bare, settings)


# -------------------------------------------------------------------------------------------------------------- rows


def row(chosen: GroupPlan, intents: float, slots: float, method="tt", seeds=(0,), split="validation", **more) -> dict:
    """A row as experiments/atis.py writes it, of a model whose labels have longer names."""
    model = build("a longer name", "meta")
    config = chosen.config(model)
    metrics = {"intent_accuracy": {"mean": intents, "sd": None}, "slot_f1": {"mean": slots, "sd": 0.5}}
    stored, dense = plan_cost(model, config).stored_bytes, plan_cost(model, ttq.TTQConfig()).stored_bytes
    return {
        "split": split,
        "method": method,
        "rank": chosen.attention.rank,
        "bits": chosen.attention.bits,
        "seeds": list(seeds),
        "settings": {"hidden": 48} | more,
        "metrics": metrics,
        "stored_bytes": stored,
        "ratio": round(dense / stored, 2),
        "plan": config.to_dict(),
    }


DENSE = GroupPlan()
ROWS = [
    row(DENSE, 90.0, 89.0, "dense") | {"plan": None, "stored_bytes": 1},  # an older row
    row(DENSE, 97.0, 95.0, "dense", seeds=(0, 1, 2)),
    row(DENSE, 11.0, 11.0, "dense", split="test"),
    row(uniform(2), 91.0, 90.0),
    row(uniform(8), 95.0, 94.0, seeds=(0, 1, 2)),
    row(uniform(8), 96.0, 96.0, learning_rate=1),
    row(uniform(8, 2, 4, 8), 94.0, 93.0, "tt-qat"),
    row(uniform(8, 2, 4, 8), 50.0, 30.0, "tt-ptq", seeds=(0, 1, 2)),
    row(uniform(8, 8, 4, 8), 96.0, 95.0, "tt-qat"),
    row(MIXED, 92.0, 91.0, "tt-qat"),
    row(uniform(3), 12.0, 12.0, split="test"),
    row(uniform(4), 13.0, 13.0, hidden=16),
]


@pytest.fixture(scope="module")
def plans():
    return MeasuredPlans(build(device="meta"), ROWS)


def test_the_names_of_labels_need_not_be_known(plans):
    for known in plans.rows[3:10]:
        assert plans.stored_bytes(ttq.TTQConfig.from_dict(known["plan"])) == known["stored_bytes"]
    assert plans.stored_bytes(ttq.TTQConfig()) > plan_cost(plans.model, ttq.TTQConfig()).stored_bytes


def test_what_was_measured_is_found_by_its_plan(plans):
    measured = [DENSE, uniform(2), uniform(8), uniform(8, 2, 4, 8), uniform(8, 8, 4, 8), MIXED]
    assert len(plans.known) == len(measured) and all(plans.row(chosen) for chosen in measured)
    point = plans.point(uniform(8))
    assert (point.metrics, point.source) == ({"intent_accuracy": 95.0, "slot_f1": 94.0}, "measured, 3 seeds")
    assert plans.point(uniform(8, 2, 4, 8)).source == "measured, 1 seed"
    assert plans.point(uniform(8, 2, 4, 8)).metrics["slot_f1"] == 93.0  # and not that of the control
    assert point.stored_bytes == ROWS[4]["stored_bytes"] and round(point.ratio, 2) == ROWS[4]["ratio"]
    assert str(point).endswith("fewer FLOPs | intent accuracy 95.0 %, slot F1 94.0 %, measured, 3 seeds")
    assert plans.point(DENSE).ratio == plans.point(DENSE).flops_ratio == 1


def test_between_neighbours_it_interpolates_and_says_so(plans):
    point = plans.point(uniform(4))
    assert point.source == "interpolated between ranks 2 and 8"
    assert point.metrics == {"intent_accuracy": pytest.approx(93.0), "slot_f1": pytest.approx(92.0)}  # halfway in logs
    point = plans.point(uniform(8, 4, 4, 8))
    assert point.source == "interpolated between 2 and 8 bits" and point.metrics["slot_f1"] == pytest.approx(94.0)


OUTSIDE = [uniform(9), uniform(1), uniform(8, 1, 4, 8), uniform(8, 2, 4, 16), uniform(8, sides=2)]
OUTSIDE += [replace(uniform(8), words=Choice(4, cores=2)), replace(uniform(4), words=Choice(2, cores=2))]


@pytest.mark.parametrize("chosen", OUTSIDE, ids=str)
def test_beyond_what_was_measured_it_says_that_nothing_is_known(plans, chosen):
    point = plans.point(chosen)
    assert (point.metrics, point.source) == (None, "not measured") and str(point).endswith("FLOPs | not measured")


def test_without_a_dense_row_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="no row of method 'dense'"):
        MeasuredPlans(build(device="meta"), ROWS[3:]).point(uniform(2))


def test_real_rows_are_found_and_their_folders_foretold():
    results = ROOT / "data" / "results"
    rows, memory = (json.loads((results / f"{name}.json").read_text())["rows"] for name in ("atis", "memory"))
    sizes = next(row["settings"] for row in memory if row["task"] == "atis")
    plans = MeasuredPlans(skeleton(sizes), rows)
    assert len(plans.known) > 10
    for row in plans.known.values():
        assert plans.stored_bytes(ttq.TTQConfig.from_dict(row["plan"])) == row["stored_bytes"]
    headline = GroupPlan(Choice(48, 2, 2), Choice(bits=2), Choice(24, 2, 2), Choice(24, 2, 2), Choice(bits=4), rest=8)
    assert plans.point(headline).source == "measured, 3 seeds"


# ------------------------------------------------------------------------------------------------------------ widget


def values_of(builder: PlanBuilder) -> list[tuple[str, list]]:
    return [(name, [value for _, value in control._options_full]) for name, control in builder.controls.items()]


def test_controls_stand_where_they_were_told_and_every_position_is_drawn(plans):
    for start in (DENSE, MIXED, uniform(8, 2, 4, 8), uniform(60, sides=1)):
        start = replace(start, words=replace(start.words, rank=start.words.rank and 4))
        start = replace(start, feed_forward=replace(start.feed_forward, rank=start.feed_forward.rank and 8))
        assert PlanBuilder(plans, start).chosen == start
    builder = PlanBuilder(plans, uniform(8, 2, 4, 8))
    assert all(control.description for control in builder.controls.values())
    assert all(not getattr(control, "continuous_update", False) for control in builder.controls.values())
    told = set()
    for name, values in values_of(builder):
        for value in values:
            builder.controls[name].value = value
            assert builder.readout.value == plan_text(plans, chosen_by(builder.values))
            told.add(builder.readout.value)
    assert len(told) > 40


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (uniform(7, 2, 4, 8), "start: words TT-rank must be one of 4, 8, 12, .*, got 7"),
        (uniform(8, 5, 4, 8), "start: words bits must be one of 1, 2, 3, 4, 8, float32, got 5"),
        (
            uniform(8, 2, 4, 8, sides=5),
            "start: attention must be one of matrix, low rank, 2 cores a side, 3 cores a side, got 5",
        ),
        (replace(DENSE, rest=12), "start: bits of the rest must be one of 8, 16, 32, got 12"),
    ],
)
def test_a_start_that_no_control_offers_is_refused(plans, start, said):
    with pytest.raises(ValueError, match=said):
        PlanBuilder(plans, start)


def test_gaps_to_the_dense_model_are_read_out_where_they_are_known(plans):
    text = plan_text(plans, uniform(8, 2, 4, 8))
    assert text.endswith("behind the dense model: intent accuracy 3.0, slot F1 2.0") and "kB: words 0." in text
    assert "behind" not in plan_text(plans, uniform(9))


def test_a_matrix_has_no_rank_to_move(plans):
    builder = PlanBuilder(plans, uniform(8))
    assert not builder.controls["words rank"].disabled
    builder.controls["words format"].value = 0
    assert builder.controls["words rank"].disabled and builder.chosen.words == Choice()


def test_the_button_gives_the_plan_and_a_move_takes_it_back(plans):
    builder = PlanBuilder(plans, uniform(8, 2, 4, 8))
    assert builder.code.value == builder.json.value == ""
    builder.controls["attention rank"].value = 4
    builder.button.click()
    config, made = ttq.TTQConfig.from_dict(json.loads(builder.json.value)), {}
    exec(builder.code.value, {"ttq": ttq, "model": plans.model}, made)
    assert config == made["config"] == builder.chosen.config(plans.model)
    attention = {layer.format.rank for name, layer in config.layers.items() if "attention" in name}
    assert attention == {4} and ttq.compress_(build(), config).ttq_config == config
    builder.controls["rest"].value = 16
    assert builder.code.value == builder.json.value == ""


def test_the_figure_rings_what_is_known_and_draws_a_line_where_it_is_not(plans):
    intents, slots = plan_figure(plans, uniform(8, 2, 4, 8)).axes
    (ring,) = (line for line in slots.get_lines() if line.get_label() == "chosen")
    assert ring.get_xydata().tolist() == [[plans.point(uniform(8, 2, 4, 8)).ratio, 93.0]]
    assert intents.get_ylabel() == "intent accuracy, %" and slots.get_ylabel() == "slot F1, %"
    points = {bars.get_label(): bars.lines[0] for bars in slots.containers}
    pilots, results = points["measured, fewer seeds"], points["measured, 3 seeds"]
    assert pilots.get_markerfacecolor() == "none" != results.get_markerfacecolor()
    assert 93.0 in pilots.get_ydata() and 94.0 in results.get_ydata()
    (axes, _) = plan_figure(plans, uniform(1)).axes
    (line,) = (line for line in axes.get_lines() if line.get_label() == "chosen, not measured")
    assert set(line.get_xdata()) == {plans.point(uniform(1)).ratio}
