"""The explorer of bits, groups and recipes: every point, what beats it, what is not measured, and the widget."""

import pytest

import ttqlib as ttq
from tests.cases import refused
from ttqlib.explore import RecipePoint

POINTS = {
    (2, 64, "rtn"): RecipePoint(2.5, 0.9),
    (3, 64, "rtn"): RecipePoint(3.5, 0.5),
    (3, 64, "clip"): RecipePoint(3.5, 0.4),
    (3, "channel", "rtn"): RecipePoint(3.1, 0.5),
    (4, 64, "teq"): RecipePoint(4.5, 0.2),
}


def test_a_point_says_what_it_takes_and_loses():
    assert str(POINTS[3, 64, "clip"]) == "3.50 bits a weight, off by 40.0%"


def test_equal_points_do_not_beat_each_other():
    rtn = POINTS[3, 64, "rtn"]
    assert POINTS[3, 64, "clip"].beats(rtn) and POINTS[3, "channel", "rtn"].beats(rtn)
    assert not rtn.beats(rtn) and not rtn.beats(POINTS[2, 64, "rtn"]) and not POINTS[2, 64, "rtn"].beats(rtn)


def test_the_text_names_what_is_measured_and_what_beats_it():
    point, same, better = ttq.explore.recipes_text(POINTS, (3, 64, "rtn"))
    assert point == "3 bits, groups of 64, rtn: 3.50 bits a weight, off by 50.0%"
    assert same.endswith("rtn 50.0%, clip 40.0%")
    assert better == "no larger and no worse: 3 bits, groups of 64, clip; 3 bits, whole rows, rtn"
    assert ttq.explore.recipes_text(POINTS, (4, 64, "teq"))[-1].endswith("none of those measured")


def test_of_what_nobody_measured_nothing_is_claimed():
    lines = ttq.explore.recipes_text(POINTS, (2, "channel", "teq"))
    assert lines == ["2 bits, whole rows, teq: not measured", "measured of the same bits and groups: nothing"]


@pytest.mark.parametrize("chosen", [*POINTS, (2, "channel", "teq")])
def test_the_figure_has_a_curve_a_recipe_and_a_line_where_one_stands(chosen):
    (axes,) = ttq.explore.recipes_figure(POINTS, chosen).axes
    named = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in named] == ["rtn", "clip", "teq"]
    assert list(named[0].get_xdata()) == [2.5, 3.1, 3.5]
    upright = [line.get_xdata()[0] for line in axes.get_lines() if line not in named]
    assert upright == ([POINTS[chosen].bits_per_weight] if chosen in POINTS else [])


def test_the_widget_moves():
    explorer = ttq.explore.recipes(POINTS, 3, 64, "rtn")
    before = bytes(explorer.picture.value)
    explorer.controls["recipe"].value = "clip"
    assert "off by 40.0%" in explorer.readout.value and bytes(explorer.picture.value) != before
    explorer.controls["group"].value = "channel"
    assert "not measured" in explorer.readout.value


def test_controls_stand_on_what_was_measured():
    with refused(ValueError, "recipe must be one of those measured, ['rtn', 'clip', 'teq'], got 'gptq'"):
        ttq.explore.recipes(POINTS, 3, 64, "gptq")
    with refused(ValueError, "bits must be one of those measured, [], got 3"):
        ttq.explore.recipes({}, 3, 64, "rtn")
