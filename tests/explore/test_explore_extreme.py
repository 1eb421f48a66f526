"""The explorer of layers, bits and steps: points of rows, what is read out, the picture, the speed."""

import time

import pytest

import ttqlib as ttq
from tests.kernels import slowness
from ttqlib.explore import ExtremePoint, extreme_figure, extreme_points, extreme_text

POINTS = {
    (2, 1, 20): ExtremePoint(27.0, 84.0, 4.0, 3, 0.5),
    (2, 1, 80): ExtremePoint(27.0, 86.0, 2.0),
    (2, 2, 80): ExtremePoint(16.5, 86.0, 2.0),
    (3, 1, 80): ExtremePoint(21.0, 87.5, 0.5),
    (3, 32, 0): ExtremePoint(1.0, 88.0, 0.0),
}


def row(layers, bits, steps, accuracy=90.0, seeds=(0,), **settings):
    metrics = {"accuracy": {"mean": accuracy, "sd": None}, "accuracy_behind": {"mean": 92.0 - accuracy, "sd": None}}
    settings = {"layers": layers, "steps": steps, **settings}
    return {"bits": bits, "ratio": 30.0 / bits, "seeds": list(seeds), "metrics": metrics, "settings": settings}


# ------------------------------------------------------------------------------------------------------------ points


def test_a_point_says_what_it_is_worth():
    assert str(POINTS[2, 1, 20]) == "27.0× smaller, 84.0 % right, 4.0 points behind (3 seeds)"
    assert str(POINTS[2, 1, 80]) == "27.0× smaller, 86.0 % right, 2.0 points behind (1 seed)"


@pytest.mark.parametrize(
    "one, other, beats",
    [
        ((2, 1, 80), (2, 1, 20), True),  # as small and better
        ((2, 1, 80), (2, 2, 80), True),  # smaller and as good
        ((2, 1, 20), (2, 1, 80), False),
        ((3, 1, 80), (2, 1, 80), False),  # better, and larger
        ((2, 1, 80), (3, 1, 80), False),
        ((2, 1, 80), (2, 1, 80), False),  # nothing beats itself
    ],
)
def test_no_larger_and_no_worse_beats(one, other, beats):
    assert POINTS[one].beats(POINTS[other]) is beats


def test_rows_become_points_and_all_layers_are_the_teachers():
    found = extreme_points([row(3, 1, 500, 88.5, (0, 1, 2)), row(None, 2, 500)], depth=6)
    assert found == {
        (3, 1, 500): ExtremePoint(30.0, 88.5, 3.5, 3),
        (6, 2, 500): ExtremePoint(15.0, 90.0, 2.0),
    }
    assert extreme_points([], depth=6) == {}


def test_rows_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="two rows have 3 layers, 1 bit, 1,500 steps: choose rows"):
        extreme_points([row(3, 1, 1500, words="dense"), row(3, 1, 1500, words="low-rank")], depth=6)


# -------------------------------------------------------------------------------------------------------- the explorer


@pytest.fixture(scope="module")
def explorer():
    return ttq.explore.extreme(POINTS, layers=2, bits=1, steps=20)


def test_it_starts_where_it_was_told():
    fresh = ttq.explore.extreme(POINTS, layers=3, bits=32, steps=0)
    assert fresh.values == {"layers": 3, "bits": 32, "steps": 0}
    options = {name: tuple(value for _, value in control.options) for name, control in fresh.controls.items()}
    assert options == {"layers": (2, 3), "bits": (1, 2, 32), "steps": (0, 20, 80)}
    assert fresh.controls["bits"].label == "32 bits" and fresh.controls["layers"].label == "3 layers"
    assert all(control.description and not control.continuous_update for control in fresh.controls.values())


def test_a_start_that_nobody_has_measured_is_refused():
    with pytest.raises(ValueError, match=r"layers must be one of those measured, \[2, 3\], got 1"):
        ttq.explore.extreme(POINTS, layers=1, bits=1, steps=20)
    with pytest.raises(ValueError, match=r"layers must be one of those measured, \[\], got 2"):
        ttq.explore.extreme({}, layers=2, bits=1, steps=20)


def test_every_choice_is_read_out_and_what_nobody_has_measured_is_said():
    assert extreme_text(POINTS, (2, 1, 20)) == [
        "2 layers, 1 bit, 20 steps: 27.0× smaller, 84.0 % right, 4.0 points behind (3 seeds)",
        "measured of such a student: 84.0 % after 20, 86.0 % after 80",
        "no larger and no worse: 2 layers, 1 bit, 80 steps",
    ]
    assert extreme_text(POINTS, (3, 1, 80))[2] == "no larger and no worse: none of those measured"
    assert extreme_text(POINTS, (3, 2, 80)) == [
        "3 layers, 2 bits, 80 steps: not measured",
        "measured of such a student: nothing",
    ]


def test_moving_a_control_changes_the_read_out(explorer):
    seen = set()
    for layers, bits, steps in [*POINTS, (3, 2, 80)]:
        for name, value in {"layers": layers, "bits": bits, "steps": steps}.items():
            explorer.controls[name].value = value
        assert explorer.readout.value == "<br>".join(extreme_text(POINTS, (layers, bits, steps)))
        seen.add(bytes(explorer.picture.value))
    assert len(seen) > 3  # one ring may hide under another point


def test_the_figure_has_a_marker_for_each_number_of_bits_and_a_ring_where_there_is_a_point():
    for chosen, rings in (((2, 1, 80), 1), ((3, 2, 80), 0)):
        (axes,) = extreme_figure(POINTS, chosen).axes
        _, labels = axes.get_legend_handles_labels()
        assert [label for label in labels if label != "chosen"] == ["1 bit", "2 bits", "32 bits"]
        found = [line for line in axes.get_lines() if line.get_label() == "chosen"]
        assert len(found) == rings
        for ring in found:
            assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (27.0, 86.0)


def test_a_move_is_answered_at_once(explorer):
    seconds = []
    for steps in (0, 20, 80) * 2:
        start = time.process_time()
        explorer.controls["steps"].value = steps
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3 * slowness()
