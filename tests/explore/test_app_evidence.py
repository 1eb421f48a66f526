"""What the app knows of a plan's quality: the answers that results hold, and the three marks."""

import math
from pathlib import Path

import pytest

import ttqlib as ttq
from tests.chapters import ROOT
from ttqlib.explore.app import pages
from ttqlib.explore.app.costs import Weigher
from ttqlib.explore.app.evidence import MARKS, evidence_for
from ttqlib.explore.app.measured import PRESETS, TASKS
from ttqlib.explore.app.sources import known

RESULTS: Path = ROOT / "data" / "results"
VERSIONED = 35  # bytes: config.json says the format of its plan and the version of its file since most were written
TRAINED_FOR = 49  # bytes: "problem_type" of a model whose loss was computed


@pytest.fixture(scope="module")
def found():
    sources = known()
    return {
        key: evidence_for(sources[key].task, RESULTS, Weigher(sources[key].bare())) for key in ("atis", "minilm-sst2")
    }


@pytest.fixture(scope="module")
def slots(found):
    return found["atis"][0]


def test_the_smallest_plan_within_a_point_of_slot_f1_on_atis(slots):
    row = slots.smallest_within(1)
    assert (row.method, row.rank, row.bits, row.seeds, row.stored_bytes) == ("svd-qat", 19, 2, 3, 256541)
    smaller = [other for other in slots.rows if other.stored_bytes < row.stored_bytes]
    assert smaller and all(max(other.behind.values()) > 1 for other in smaller)


def test_the_smallest_plan_within_two_points_on_sst2(found):
    (evidence,) = found["minilm-sst2"]
    row = evidence.smallest_within(2)
    assert (row.rank, row.bits, row.seeds, row.stored_bytes, row.ratio) == (39, 3, 3, 1816567, 50.02)
    assert max(row.behind.values()) < 2 and set(row.behind) == {"held_out", "validation"}
    assert evidence.smallest_within(0.1) is None


def test_what_fits_a_budget_and_what_is_nearest(slots):
    assert slots.best_within(100_000) is None
    row = slots.best_within(260_000)
    assert row.scores["validation"] == max(r.scores["validation"] for r in slots.rows if r.stored_bytes <= 260_000)
    layers, smallest = slots.weigher.layers, slots.smallest_within(1)
    near = layers.turned(smallest.plan, layers.groups["heads"], bits=3)
    assert slots.nearest(near) is smallest and slots.nearest(smallest.plan) is smallest


@pytest.mark.parametrize("key", ["atis", "minilm-sst2"])
def test_every_measured_plan_is_found_and_weighs_what_it_did(found, key):
    for evidence in found[key]:
        assert len(evidence.by_plan) > 6
        for row in evidence.rows:
            quality = evidence.quality(row.plan)
            assert quality.mark == "measured" and quality.row.plan == row.plan and quality.row.seeds >= row.seeds
            more = evidence.weigher.cost(row.plan).stored_bytes - row.stored_bytes
            assert more in (VERSIONED, VERSIONED - TRAINED_FOR, -TRAINED_FOR), more


def test_presets_are_rows_and_the_app_begins_with_one_of_three_seeds(found):
    for key, task in (("atis", "atis"), ("minilm-sst2", "sst2")):
        rows = [found[key][0].preset(wanted) for wanted in PRESETS[task].values()]
        assert None not in rows and len({id(row) for row in rows}) == len(rows) and rows[0].seeds == 3
        for name, row in zip(PRESETS[task], rows, strict=True):
            assert f"{row.ratio:.0f}×" in name, (name, row.ratio)


def test_between_two_measured_ranks_it_interpolates(slots):
    layers, rows = slots.weigher.layers, {(r.rank, r.bits, r.stored_bytes): r for r in slots.rows}
    low, high = rows[8, 32, 1041035], rows[20, 32, 2358320]
    trains = [name for group in ("words", "attention", "feed-forward") for name in layers.groups[group]]
    quality = slots.quality(layers.turned(low.plan, trains, rank=16))
    share = math.log(16 / 12) / math.log(20 / 12)
    middle = rows[12, 32, 1365472]
    best = slots.by_plan  # the row that stands for rank 12 is the one of three seeds
    assert quality.mark == "interpolated" and "rank 12 and 20" in quality.source and middle.plan and best
    expected = (1 - share) * 94.71 + share * high.scores["validation"]
    assert quality.value == pytest.approx(expected)


def test_near_measured_plans_it_predicts_with_its_usual_error_and_far_from_them_it_does_not(slots):
    layers, row = slots.weigher.layers, slots.smallest_within(1)
    near = slots.quality(layers.turned(row.plan, layers.groups["heads"], bits=3))
    assert near.mark == "predicted" and near.error == slots.usual_error > 0
    assert 90 < near.value < 97
    far = slots.quality(layers.turned(layers.plan({}, 8), layers.all, form="dense", bits=1))
    assert (far.mark, far.value) == ("unknown", None)
    assert "nothing near" in pages.quality_text(slots, far) and "no run of this model" in pages.quality_text(None, None)


def test_most_single_moves_from_the_start_are_known(slots, record_property):
    layers, start = slots.weigher.layers, slots.preset(next(iter(PRESETS["atis"].values()))).plan
    moves = [(group, {"bits": bits}) for group in layers.groups for bits in (1, 2, 3, 4)]
    moves += [(group, {"rank": rank}) for group in layers.groups for rank in (12, 16, 20, 30)]
    plans = [layers.turned(start, layers.groups[group], **how) for group, how in moves]
    marks = [slots.quality(plan).mark for plan in plans if plan != start]
    record_property("single moves from the app's start", ", ".join(f"{m} {marks.count(m)}" for m in MARKS))
    assert marks.count("unknown") < len(marks) / 2


def test_marks_cannot_be_confused_and_are_explained():
    assert len({text[0] for text in MARKS.values()}) == len(MARKS) == 4
    assert all(text[2:].startswith(name) for name, text in MARKS.items())
    assert all(text in pages.marks().replace("&#x27;", "'") for text in MARKS.values())


def test_a_point_of_the_picture_says_all_that_the_table_says(slots):
    points = pages.points(slots)
    assert len(points) == len(slots.rows) and len(pages.columns(slots)) == len(points[0]["cells"])
    assert {point["trial"] for point in points} == {True, False}
    row, point = next((row, point) for row, point in zip(slots.rows, points) if row is slots.smallest_within(1))
    assert point["told"] == (
        "low rank, rank 19, 2 bits: 256.5 kB, 234× smaller, slot F1 95.4 % on validation, 93.2 % on test, 3 seeds"
    )
    assert (
        point["cells"][:8] == ["256.5 kB", "234×", str(row), "95.4", "-0.4", "93.2", "+0.2", "3"]
        and point["x"] == row.stored_bytes
    )
    assert pages.goal(slots)["dense"] == pytest.approx(95.82)


def test_without_a_task_nothing_was_measured():
    assert evidence_for(None, RESULTS, None) == () and set(TASKS) >= {source.task for source in known().values()} - {
        None
    }


def test_a_plan_of_a_narrow_rival_is_not_among_them(slots):
    assert not any(row.method.startswith("narrow") for row in slots.rows)
    assert not any(row.method.endswith("-ptq") for row in slots.rows)
    assert any(row.plan == ttq.TTQConfig() for row in slots.rows)
