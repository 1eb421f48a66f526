"""The explorer of whole-model plans: its bytes are those of a real folder, and it says what has been measured."""

import math
import time

import pytest
import torch
from transformers import BertConfig

import ttqlib as ttq
from ttqlib.explore import GROUPS, Choice, Knobs, MeasuredPlans, folder_bytes, plan_by_groups

SIZE = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": 90}
SIZE |= {"max_position_embeddings": 16, "type_vocab_size": 1}


def build(names: str = "label", device: str = "cpu") -> ttq.IntentSlotModel:
    labels = {"intents": [f"{names} {n}" for n in range(3)], "slots": [f"{names} {n}" for n in range(5)]}
    with torch.device(device):
        return ttq.IntentSlotModel(BertConfig(**SIZE, **labels))


KNOBS = [Knobs(2), Knobs(3, 2, 4, 8), Knobs(4, 1, rest=16), Knobs(2, 8, 2, 8, sides=1), Knobs(5, 4, 8, 32, sides=2)]


def saved_bytes(model, config, folder) -> int:
    ttq.save(ttq.compress_(model, config, init="random"), folder)
    return sum(file.stat().st_size for file in folder.iterdir())


# ------------------------------------------------------------------------------------------------------------- plans


def test_a_group_gets_its_choice_and_what_is_in_none_the_rest():
    model = build()
    choices = {"words": Choice(4, 2, cores=2), "encoder": Choice(3, 1), "heads": Choice(bits=4)}
    config = plan_by_groups(model, GROUPS, choices, rest=16)
    assert config.rest == 16 and config.unmatched == (
        "bert.embeddings.position_embeddings",
        "bert.embeddings.token_type_embeddings",
    )
    assert config.layers["bert.embeddings.word_embeddings"] == ttq.LayerPlan(
        ttq.TTM(4, ttq.factorize(90, 2), ttq.factorize(48, 2)[::-1]), ttq.LSQ(2)
    )
    assert config.layers["bert.encoder.layer.0.output.dense"] == ttq.LayerPlan(ttq.TT(3), ttq.Binary())
    assert config.layers["slot_head"] == ttq.LayerPlan(quantize=ttq.LSQ(4, per="channel"))
    assert ttq.report(ttq.compress_(model, config)).total.ratio > 1


def test_cores_a_side_multiply_out_to_the_layer():
    form = plan_by_groups(build(), GROUPS, {"encoder": Choice(3, cores=2)}).layers["bert.encoder.layer.0.output.dense"]
    assert (math.prod(form.format.in_modes), math.prod(form.format.out_modes)) == (96, 48)
    assert len(form.format.in_modes) == len(form.format.out_modes) == 2


def test_a_choice_for_an_unknown_group_is_refused_and_no_choice_is_no_plan():
    with pytest.raises(ValueError, match="groups among words, positions, heads, encoder, got 'tails'"):
        plan_by_groups(build(), GROUPS, {"tails": Choice(3)})
    assert plan_by_groups(build(), GROUPS, {"heads": Choice()}, rest=8) == ttq.TTQConfig(rest=8)


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_computed_bytes_are_those_of_the_folder(knobs, device, tmp_path):
    model = build(device=device)
    before = {name: id(tensor) for name, tensor in model.named_parameters()}
    config = knobs.plan(model)
    assert folder_bytes(model, config) == saved_bytes(build(), config, tmp_path)
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == before and not hasattr(
        model, "ttq_config"
    )


def test_atis_py_makes_the_same_plans():
    import atis

    for told, knobs in {
        "--rank 4": Knobs(4),
        "--rank 4 --bits 2 --rest 8 --dense-bits heads=4 positions=4": Knobs(4, 2, 4, 8),
        "--rank 6 --bits 1 --rest 16": Knobs(6, 1, rest=16),
    }.items():
        model, recipes = atis.build(atis.parse([*told.split(), "--hidden", "64"]), 90, ["a"], ["b"])
        with torch.device("meta"):
            bare = ttq.IntentSlotModel(model.config)
        assert knobs.plan(bare) == recipes


# -------------------------------------------------------------------------------------------------------------- rows


def row(knobs: Knobs | None, intents: float, slots: float, method="tt", seeds=(0,), split="validation", **more) -> dict:
    """A row as experiments/atis.py writes it, of a model whose labels have longer names."""
    model = build("a longer name", "meta")
    config = ttq.TTQConfig() if knobs is None else knobs.plan(model)
    settings = {"hidden": 48}
    if knobs is not None and knobs.own:
        settings["dense_bits"] = f"heads={knobs.own},positions={knobs.own}"
    if knobs is not None and knobs.rest != 32:
        settings["rest"] = knobs.rest
    metrics = {"intent_accuracy": {"mean": intents, "sd": None}, "slot_f1": {"mean": slots, "sd": 0.5}}
    stored, dense = folder_bytes(model, config), folder_bytes(model, ttq.TTQConfig())
    return {
        "split": split,
        "method": method,
        "rank": knobs and knobs.rank,
        "bits": knobs.bits if knobs else 32,
        "seeds": list(seeds),
        "settings": settings | more,
        "metrics": metrics,
        "stored_bytes": stored,
        "ratio": round(dense / stored, 2),
        "plan": config.to_dict(),
    }


ROWS = [
    row(None, 90.0, 89.0, "dense") | {"plan": None, "stored_bytes": 1},  # an older row
    row(None, 97.0, 95.0, "dense", seeds=(0, 1, 2)),
    row(None, 11.0, 11.0, "dense", split="test"),
    row(Knobs(2), 91.0, 90.0),
    row(Knobs(8), 95.0, 94.0, seeds=(0, 1, 2)),
    row(Knobs(8), 96.0, 96.0, learning_rate=1),
    row(Knobs(8, 2, 4, 8), 94.0, 93.0, "tt-qat"),
    row(Knobs(8, 2, 4, 8), 50.0, 30.0, "tt-ptq", seeds=(0, 1, 2)),
    row(Knobs(8, 8, 4, 8), 96.0, 95.0, "tt-qat"),
    row(Knobs(3), 12.0, 12.0, split="test"),
    row(Knobs(4), 13.0, 13.0, hidden=16),
    row(Knobs(4), 14.0, 14.0) | {"plan": Knobs(5).plan(build()).to_dict()},  # of groups that no knob is for
]


@pytest.fixture(scope="module")
def plans():
    return MeasuredPlans(build(device="meta"), ROWS)


def test_the_names_of_labels_need_not_be_known(plans):
    for known in plans.rows[3:9]:
        assert plans.stored_bytes(ttq.TTQConfig.from_dict(known["plan"])) == known["stored_bytes"]
    assert plans.stored_bytes(ttq.TTQConfig()) > folder_bytes(plans.model, ttq.TTQConfig())


def test_what_was_measured_is_found_by_its_plan(plans):
    assert set(plans.known) == {Knobs(2), Knobs(8), Knobs(8, 2, 4, 8), Knobs(8, 8, 4, 8)}
    point = plans.point(Knobs(8))
    assert (point.metrics, point.source) == ({"intent_accuracy": 95.0, "slot_f1": 94.0}, "measured, 3 seeds")
    assert plans.point(Knobs(8, 2, 4, 8)).source == "measured, 1 seed"
    assert plans.point(Knobs(8, 2, 4, 8)).metrics["slot_f1"] == 93.0  # and not that of the control
    assert point.stored_bytes == ROWS[4]["stored_bytes"] and round(point.ratio, 2) == ROWS[4]["ratio"]
    assert str(point).endswith("smaller | intent accuracy 95.0 %, slot F1 94.0 %, measured, 3 seeds")


def test_between_neighbours_it_interpolates_and_says_so(plans):
    point = plans.point(Knobs(4))
    assert point.source == "interpolated between ranks 2 and 8"
    assert point.metrics == {"intent_accuracy": pytest.approx(93.0), "slot_f1": pytest.approx(92.0)}  # halfway in logs
    point = plans.point(Knobs(8, 4, 4, 8))
    assert point.source == "interpolated between 2 and 8 bits" and point.metrics["slot_f1"] == pytest.approx(94.0)


@pytest.mark.parametrize(
    "knobs", [Knobs(9), Knobs(1), Knobs(8, 1, 4, 8), Knobs(8, 2, 4, 16), Knobs(8, sides=2)], ids=str
)
def test_beyond_what_was_measured_it_says_that_nothing_is_known(plans, knobs):
    point = plans.point(knobs)
    assert (point.metrics, point.source) == (None, "not measured") and str(point).endswith("smaller | not measured")


def test_without_a_dense_row_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="no row of method 'dense'"):
        MeasuredPlans(build(device="meta"), ROWS[3:]).point(Knobs(2))


# ------------------------------------------------------------------------------------------------------------ widget


def test_every_control_changes_what_is_read_out(plans):
    explorer = ttq.explore.planner(plans, Knobs(8, 2, 4, 8))
    assert all(control.description and not control.continuous_update for control in explorer.controls.values())
    for name, value in {"rank": 20, "bits": 8, "own": 0, "rest": 16, "sides": 2}.items():
        explorer.controls[name].value = value
        values = {key: control.value for key, control in explorer.controls.items()}
        knobs = Knobs(**values | {"own": values["own"] or None})
        assert explorer.readout.value.split("<br>")[0] == str(plans.point(knobs))
    assert "<br>" not in explorer.readout.value  # nothing is known there
    start = ttq.explore.planner(plans, Knobs(8, 2, 4, 8)).readout.value
    assert start.endswith("behind the dense model: intent accuracy 3.0, slot F1 2.0")


def test_the_figure_rings_what_is_known_and_draws_a_line_where_it_is_not(plans):
    intents, slots = ttq.explore.planner_figure(plans, Knobs(8, 2, 4, 8)).axes
    (ring,) = (line for line in slots.get_lines() if line.get_label() == "chosen")
    assert ring.get_xydata().tolist() == [[plans.point(Knobs(8, 2, 4, 8)).ratio, 93.0]]
    assert intents.get_ylabel() == "intent accuracy, %" and slots.get_ylabel() == "slot F1, %"
    (axes, _) = ttq.explore.planner_figure(plans, Knobs(1)).axes
    (line,) = (line for line in axes.get_lines() if line.get_label() == "chosen, not measured")
    assert set(line.get_xdata()) == {plans.point(Knobs(1)).ratio}


def test_a_move_is_answered_at_once(plans):
    explorer, seconds = ttq.explore.planner(plans, Knobs(2)), []
    for rank in (4, 8, 12, 20, 30):
        start = time.process_time()
        explorer.controls["rank"].value = rank
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3
