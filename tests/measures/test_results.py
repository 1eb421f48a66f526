"""Rows of results: found by what they are of, beside the dense model of the same rows, told as text."""

import json

import pytest

import ttqlib as ttq


def row(split, method, accuracy, ratio=1.0, sd=None, seeds=(0,), plan=None, **settings):
    metrics = {"accuracy": {"mean": accuracy, "sd": sd}}
    same = {"task": "toy", "plan": plan, "seeds": list(seeds), "settings": settings or None}
    return {**same, "split": split, "method": method, "ratio": ratio, "metrics": metrics}


ROWS = ttq.Results(
    [
        row("validation", "dense", 90.0, hold_out="rows"),
        row("validation", "dense", 80.0, hold_out="sentences"),
        row("held_out", "dense", 95.0, hold_out="rows"),
        row("validation", "tt", 84.0, 50.0, 0.44, (0, 1, 2), {"rest": 8}, hold_out="rows", steps=10),
        row("held_out", "tt", 93.0, 50.0, 0.5, (0, 1, 2), {"rest": 8}, hold_out="rows", steps=10),
        row("validation", "tt", 86.5, 20.0, hold_out="rows", steps=20),
    ]
)


def test_rows_are_found_by_fields_and_settings_smallest_ratio_first():
    assert [found["ratio"] for found in ROWS.where(method="tt", split="validation")] == [20.0, 50.0]
    assert [found["ratio"] for found in ROWS.where(steps=10, split="held_out")] == [50.0]
    assert ROWS.where(steps=30) == []


def test_rows_without_settings_can_be_asked_for():
    plain, changed = row("forward", "tt", 1.0), row("forward", "tt", 2.0, rest="none")
    assert ttq.Results([changed, plain]).where(settings=None) == [plain]
    assert ttq.Results([changed, plain]).where(rest="none") == [changed]


def test_a_name_that_no_row_has_is_told():
    with pytest.raises(ValueError, match=r"no row has stepz; there are .*steps"):
        ROWS.where(stepz=10)


@pytest.mark.parametrize("wanted, count", [({"method": "tt"}, 3), ({"ratio": 7.0}, 0)])
def test_one_row_has_to_be_the_only_one(wanted, count):
    with pytest.raises(ValueError, match=rf"expected one row .*, found {count}"):
        ROWS.one(**wanted)


def test_a_twin_is_of_the_same_models():
    found = ROWS.twin(ROWS.one(method="tt", ratio=50.0, split="validation"), "held_out")
    assert ROWS.mean(found) == 93.0
    with pytest.raises(ValueError, match="found 0"):
        ROWS.twin(ROWS.one(ratio=20.0), "held_out")


def test_points_are_behind_the_dense_model_of_the_same_held_out_rows():
    assert ROWS.behind(ROWS.one(ratio=20.0)) == pytest.approx(3.5)
    assert ROWS.behind(ROWS.one(ratio=50.0, split="held_out")) == pytest.approx(2.0)


def test_means_are_by_method_and_skip_what_has_no_such_metric():
    rows = [row("forward", "dense", 4.0), row("forward", "fused", 1.0), row("own", "fused", 2.0)]
    rows[1]["metrics"] |= {"floor": {"mean": 0.5, "sd": None}}
    assert ttq.Results(rows).means("accuracy", split="forward") == {"dense": 4.0, "fused": 1.0}
    assert ttq.Results(rows).means("floor", split="forward") == {"fused": 0.5}


def test_text_has_a_deviation_where_there_are_several_seeds():
    assert ROWS.text(ROWS.one(ratio=20.0)) == "86.5"
    assert ROWS.text(ROWS.one(ratio=50.0, split="validation")) == "84.0 ± 0.4"
    with pytest.raises(ValueError, match="no floor; it has accuracy"):
        ROWS.mean(ROWS.rows[0], "floor")


def test_a_file_is_read(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"rows": ROWS.rows}), encoding="utf-8")
    assert ttq.Results.read(path) == ROWS
    with pytest.raises(FileNotFoundError):
        ttq.Results.read(tmp_path / "none.json")
