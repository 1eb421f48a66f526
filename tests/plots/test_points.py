"""Points on lines with names, and under a roof: read back from the axes."""

import ttqlib as ttq


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_dots_stand_on_the_line_of_their_label_with_their_deviation():
    rows = {"1, 50×": {"held out": (1.2, 0.5), "validation": (4.8, None)}, "2, 96×": {"validation": (4.9, None)}}
    figure = ttq.plots.dots(rows, "points behind", mark=(0.0, "the teacher"))
    (axes,) = figure.axes
    drawn = {bars.get_label(): bars.lines[0] for bars in axes.containers}
    assert {name: list(zip(*line.get_data(), strict=True)) for name, line in drawn.items()} == {
        "held out": [(1.2, 0)],
        "validation": [(4.8, 0), (4.9, 1)],
    }
    (held_out, _) = axes.containers
    (whole,) = held_out.lines[2][0].get_segments()
    assert [x for x, _ in whole] == [1.2 - 0.5, 1.2 + 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first line is on top"
    assert legend(figure) == ["the teacher", "held out", "validation"]


def test_dots_differ_without_colour():
    (axes,) = ttq.plots.dots({"a": {"x": (1, None), "y": (2, None), "z": (3, None)}}, "").axes
    looks = {(bars.lines[0].get_marker(), bars.lines[0].get_markerfacecolor()) for bars in axes.containers}
    assert len({marker for marker, _ in looks}) == 3


def test_a_roof_is_a_plain_line_and_measured_points_have_markers_and_names():
    roof, pair = {0.1: 1.0, 10.0: 100.0}, {0.5: 2.0, 7.0: 60.0}
    figure = ttq.plots.roofline(roof, {"pair": pair, "addition": {1 / 12: 3.0}}, {"pair": [1, 1024]})
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert dict(zip(*lines["pair"].get_data(), strict=True)) == pair
    assert lines["the roof"].get_marker() == "None" and lines["pair"].get_marker() not in ("None", "")
    assert [text.get_text() for text in axes.texts] == ["1", "1024"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert legend(figure) == ["the roof", "pair", "addition"]


def test_measured_points_show_their_groups_and_a_ring_where_there_is_one():
    groups = {"1 bit": [(27.0, 86.0, 0.5), (36.0, 84.0, None)], "2 bits": [(16.0, 86.5, None)]}
    (axes,) = ttq.plots.measured(groups, "smaller", "right", ring=(27.0, 86.0)).axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "smaller", "right")
    drawn = {bars.get_label(): bars.lines[0] for bars in axes.containers}
    for label, points in groups.items():
        assert list(zip(*drawn[label].get_data())) == [point[:2] for point in points]
    assert len({line.get_marker() for line in drawn.values()}) == 2
    (ring,) = (line for line in axes.get_lines() if line.get_label() == "chosen")
    assert [*ring.get_xdata(), *ring.get_ydata()] == [27.0, 86.0]
    (axes,) = ttq.plots.measured(groups, "smaller", "right").axes
    assert "chosen" not in [line.get_label() for line in axes.get_lines()]


def test_predicted_and_measured_pairs_stand_under_their_labels_beside_the_line_where_they_are_equal():
    pairs = {"one": [(1.0, 2.0), (10.0, 8.0)], "other": [(3.0, 0.5)]}
    (axes,) = ttq.plots.agreement(pairs, "predicted", "measured").axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [2, 1]
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == list(line.get_ydata()) == [0.5, 10.0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
