"""Figures: what they show is read back from the axes, never compared as pixels."""

import matplotlib.pyplot as plt
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

import ttqlib as ttq
from ttqlib.explore.explorer import painted


def texts(figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize(
    "shapes", [[(1, 12, 5), (5, 8, 7), (7, 6, 1)], [(1, 4, 2, 3), (3, 5, 6, 1)]], ids=["train", "TT-matrix"]
)
def test_a_diagram_names_every_size_and_counts_every_core(shapes):
    cores = [torch.zeros(shape) for shape in shapes]
    shown = texts(ttq.plots.tensor_network(cores))
    for shape, core in zip(shapes, cores, strict=True):
        assert " × ".join(map(str, shape)) in shown
        assert f"{core.numel():,} numbers" in shown
    bonds = [shape[-1] for shape in shapes[:-1]]
    assert all(f"{bond}" in shown.split() for bond in bonds)


def test_the_area_of_a_disc_is_proportional_to_its_core():
    small, large = torch.zeros(1, 10, 10), torch.zeros(10, 40, 1)
    figure = ttq.plots.tensor_network([small, large])
    areas = figure.axes[0].collections[0].get_sizes()
    assert areas[1] / areas[0] == pytest.approx(large.numel() / small.numel())


def test_a_diagram_names_its_modes_and_its_sides():
    train, pairs = [torch.zeros(1, 3, 2), torch.zeros(2, 4, 1)], [torch.zeros(1, 3, 5, 2), torch.zeros(2, 4, 6, 1)]
    shown = texts(ttq.plots.tensor_network(train, ("i", "j"), {"left": 1, "right": 1}))
    assert "i: 3 j: 4" in shown and shown.endswith("left right")
    assert "i1: 3 j1: 5 i2: 4 j2: 6" in texts(ttq.plots.tensor_network(pairs, ("i1", "j1", "i2", "j2")))


def test_lines_mark_a_place_with_its_label():
    (axes,) = ttq.plots.lines({"a": {1: 1, 2: 3}}, "x", "y", marks={"here": 1.5}).axes
    assert list(axes.get_lines()[-1].get_xdata()) == [1.5, 1.5] and "here" in texts(axes.figure)


def test_error_curves_show_their_points_and_differ_without_colour():
    curves = {"low rank": {5: 0.5, 10: 0.7}, "TT": {5: 0.6, 20: 0.9}}
    (axes,) = ttq.plots.error_against(curves, x_label="times fewer numbers").axes
    assert [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()] == [
        *curves.values()
    ]
    assert len({(line.get_marker(), line.get_linestyle()) for line in axes.get_lines()}) == 2
    assert axes.get_xlabel() == "times fewer numbers" and axes.get_ylabel() == "relative error"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "20"]


def test_bars_carry_their_values():
    figure = ttq.plots.bars({"a": 0.25, "b": 0.5}, "relative error")
    assert [patch.get_height() for patch in figure.axes[0].patches] == [0.25, 0.5]
    assert texts(figure) == "25.0% 50.0%"


def test_lines_show_their_points_on_the_scales_asked_for():
    curves = {"sides first": {1: 7.5, 32: 14.6}, "left to right": {step: 0.5**step for step in range(20)}}
    (axes,) = ttq.plots.lines(curves, "rows", "FLOPs", x_scale="log").axes
    drawn = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()]
    assert drawn == [*curves.values()]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rows", "FLOPs")
    assert len({(line.get_marker(), line.get_linestyle()) for line in axes.get_lines()}) == 2


def test_cost_bars_carry_their_values_in_order_and_start_at_zero():
    (axes,) = ttq.plots.cost_bars({"dense": 4832.0, "sides first": 243.2}, "million FLOPs").axes
    assert [patch.get_width() for patch in axes.patches] == [4832.0, 243.2]
    assert [text.get_text() for text in axes.texts] == ["4.83e+03", "243"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense", "sides first"]
    assert axes.get_xscale() == "linear" and axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 5000
    assert axes.yaxis_inverted()


def test_pictures_are_shown_as_they_are_and_clamped():
    grey, colour = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.rand(3, 4, 3)
    figure = ttq.plots.pictures({"grey": grey, "colour": colour})
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert shown[0].tolist() == [[0.0, 1.0], [0.0, 0.5]]
    assert torch.equal(torch.tensor(shown[1].data), colour)
    assert [axes.get_title() for axes in figure.axes] == ["grey", "colour"]


def test_no_figure_stays_open_in_pyplot():
    ttq.plots.bars({"a": 1.0}, "y")
    ttq.plots.pictures({"a": torch.zeros(2, 2)})
    assert plt.get_fignums() == []


def test_bars_above_one_are_not_cut_off():
    (axes,) = ttq.plots.bars({"a": 0.5, "b": 1.6}, "relative error").axes
    assert axes.get_ylim()[1] > 1.6
    (axes,) = ttq.plots.bars({"a": 0.5}, "relative error").axes
    assert axes.get_ylim() == (0, 1.1)


def test_similarities_are_on_one_scale_and_dots_mark_the_largest_of_each_row():
    tables = {"dense": torch.tensor([[0.9, 0.1], [0.2, 0.8]]), "random": torch.tensor([[0.5, 0.6], [0.4, 0.7]])}
    figure = ttq.plots.similarities(tables)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["dense", "random"]
    for axes, table in zip(panels, tables.values(), strict=True):
        (image,), (dots,) = axes.images, axes.get_lines()
        assert image.get_array().tolist() == table.double().tolist() and image.get_clim() == (0, 1)
        assert [*dots.get_xdata()] == table.argmax(1).tolist() and [*dots.get_ydata()] == [0, 1]


def test_a_pipeline_has_a_box_a_step_and_an_arrow_between_neighbours():
    (axes,) = ttq.plots.pipeline({"model": "float32", "plan": "rank", "pack": "bits"}).axes
    shown = [text.get_text() for text in axes.texts if text.get_text()]
    assert sorted(shown) == sorted(["model", "plan", "pack", "float32", "rank", "bits"])
    boxes = [text.get_text() for text in axes.texts if text.get_bbox_patch()]
    assert boxes == ["model", "plan", "pack"]
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    assert [(arrow.xyann[0], arrow.xy[0]) for arrow in arrows] == [(0, 1), (1, 2)]


def test_a_quantized_histogram_shows_levels_clipping_and_errors():
    weights = torch.tensor([-3.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0])
    axes, beside = ttq.plots.quantized_histogram(weights, 0.5, 2, {"rounding": 0.02, "clipping": 0.3}).axes
    (levels,) = axes.collections
    assert [line[:, 0].tolist() for line in levels.get_segments()] == [[x, x] for x in (-1.0, -0.5, 0.0, 0.5)]
    (histogram, left, right) = axes.patches
    shares, edges, _ = histogram.get_data()
    assert sum(shares) == pytest.approx(1) and max(shares) == pytest.approx(3 / 8)
    reach = edges[-1]
    assert 3 < reach == -edges[0]
    assert [(span.get_x(), span.get_x() + span.get_width()) for span in (left, right)] == [
        (pytest.approx(-reach), -1.0),
        (0.5, pytest.approx(reach)),
    ]
    assert all(span.get_hatch() for span in (left, right))
    assert [bar.get_height() for bar in beside.patches] == [0.02, 0.3]
    assert [text.get_text() for text in beside.texts] == ["2.00%", "30.00%"]


def test_a_histogram_that_leaves_entries_out_says_so():
    for far, said in (([40.0], "1 entry"), ([40.0, -39.0], "2 entries")):
        weights = torch.cat([torch.linspace(-1, 1, 500), torch.tensor(far)])
        axes, _ = ttq.plots.quantized_histogram(weights, 0.5, 2, {"rounding": 0.1}).axes
        assert axes.get_title() == f"not shown: {said}, up to {40 / weights.std():.0f} σ"


def test_a_staircase_is_flat_between_its_jumps_and_slopes_stand_beside_it():
    x = torch.linspace(-1.4, 1.4, 29)
    rounded, slope = x.clamp(-1, 1).round(), (x.abs() <= 1).float()
    stairs, beside = ttq.plots.staircase(x, rounded, {"true": 0 * x, "straight-through": slope}).axes
    flat = [line for line in stairs.get_lines() if line.get_linewidth() == 3]
    assert [set(line.get_ydata()) for line in flat] == [{-1.0}, {0.0}, {1.0}]
    assert [line.get_ydata().tolist() for line in beside.get_lines()] == [[0.0] * 29, slope.tolist()]
    assert len({line.get_linestyle() for line in beside.get_lines()}) == 2
    assert [(p.get_x(), p.get_x() + p.get_width()) for p in beside.patches] == [
        (pytest.approx(-1.4), -1.0),
        (1.0, pytest.approx(1.4)),
    ]


def test_grids_show_all_entries_their_levels_and_the_farthest():
    weights = torch.cat([torch.linspace(-1, 1, 500), torch.tensor([40.0])])
    sigma = weights.std().item()
    panels = ttq.plots.grids(weights, {"max-abs": 40.0, "best": 0.5}, 2).axes
    assert [axes.get_title() for axes in panels] == ["max-abs", "best"]
    for axes, step in zip(panels, (40.0, 0.5), strict=True):
        *levels, farthest = axes.get_lines()
        assert [line.get_xdata()[0] for line in levels] == pytest.approx([step * k / sigma for k in (-2, -1, 0, 1)])
        assert farthest.get_xdata()[0] == pytest.approx(40 / sigma)
        assert axes.get_xlim()[1] > 40 / sigma
        assert sum(axes.patches[0].get_data().values) == len(weights)


def test_stairs_among_lines_have_no_slope():
    (axes,) = ttq.plots.lines({"w": {0: 0.4, 1: 0.6}, "Q(w)": {0: 0.0, 1: 1.0}}, "x", "y", stairs=["Q(w)"]).axes
    assert [line.get_drawstyle() for line in axes.get_lines()] == ["default", "steps-post"]


def test_a_layers_network_names_every_mode_and_bond_and_ends_in_its_outputs():
    figure = ttq.plots.layer_network((2, 3), (5, 7), (1, 2, 6, 4, 1))
    shown = texts(figure).split()
    assert all(name in shown for name in ("2", "3", "5", "7", "6", "4", "x", "y", "U", "V", "rows", "$G_4$"))
    down = [line for line in figure.axes[0].get_lines() if min(line.get_ydata()) < 0]
    assert [line.get_xdata()[0] for line in down] == [2, 3]


def test_a_grid_wider_than_the_weights_clips_nothing_in_the_picture():
    weights = torch.linspace(-1, 1, 50)
    axes, _ = ttq.plots.quantized_histogram(weights, 2.0, 3, {"rounding": 1.0, "clipping": 0.0}).axes
    assert [span.get_width() for span in axes.patches[1:]] == [0, 0]
    assert axes.get_xlim()[1] == pytest.approx(1.05)


def test_a_heat_map_carries_its_numbers_and_lines_of_equal_height():
    table, heights = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[1, 10, 100], [10, 100, 1000]]
    figure = ttq.plots.heat_map(table, ("rank", (4, 8)), ("bits", (1, 2, 3)), heights, {10: "10 B", 100: "100 B"})
    axes = figure.axes[0]
    shown = texts(figure).split()
    assert all(f"{value:.0%}" in shown for line in table for value in line)
    assert axes.images[0].get_array().tolist() == table
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "8"]
    (contours,) = [c for c in axes.collections if hasattr(c, "levels")]
    ends = [path.vertices[[0, -1]].tolist() for path in contours.get_paths()]
    assert [sorted(map(tuple, end)) for end in ends] == [[(0, 1), (1, 0)], [(1, 1), (2, 0)]]  # through equal heights
    assert {"10", "100"} <= set(shown)


def test_a_heat_map_needs_no_lines_and_may_be_darkest_elsewhere():
    figure = ttq.plots.heat_map([[0.5, 1.9]], ("model", ("random",)), ("layer", (0, 1)), label="off by", darkest=1.5)
    axes, scale = figure.axes
    assert not [c for c in axes.collections if hasattr(c, "levels")]
    assert texts(figure).split() == ["50%", "190%"]
    assert axes.images[0].get_clim() == (0, 3)
    assert scale.get_ylabel() == "off by" and scale.get_ylim() == (0, 1.5)


def test_shares_cut_each_bar_into_its_parts():
    parts = {"small": {"words": 0.5, "layers": 0.47, "rest": 0.03}, "large": {"words": 0.1, "layers": 0.9, "rest": 0.0}}
    figure = ttq.plots.shares(parts, "share of the numbers")
    (axes,) = figure.axes
    for place, part in enumerate(parts.values()):
        bars = [container.patches[place] for container in axes.containers]
        assert [bar.get_width() for bar in bars] == pytest.approx([*part.values()])
        assert [bar.get_x() for bar in bars] == pytest.approx([0, part["words"], part["words"] + part["layers"]])
    assert texts(figure).split() == ["50%", "10%", "47%", "90%"]  # 3 % has no room
    assert [label.get_text() for label in axes.get_yticklabels()] == [*parts] and axes.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["words", "layers", "rest"]
    assert len({bar.get_hatch() for bar in (c.patches[0] for c in axes.containers)}) == 3  # told apart without colour
    assert axes.get_xlabel() == "share of the numbers"


def test_lines_draw_controls_hollow_beside_the_curve_before_them():
    curves = {"a": {1: 1.0, 2: 2.0}, "noise like a": {1: 2.0, 2: 3.0}, "b": {1: 4.0, 2: 5.0}}
    figure = ttq.plots.lines(curves, "rank", "error", controls=["noise like a"])
    one, control, other = figure.axes[0].get_lines()
    assert control.get_color() == one.get_color() != other.get_color()
    assert control.get_marker() == one.get_marker() != other.get_marker()
    assert control.get_markerfacecolor() == "none" != one.get_markerfacecolor()
    assert control.get_linestyle() not in (one.get_linestyle(), other.get_linestyle())


def test_the_legend_of_lines_lies_over_no_data():
    figure = ttq.plots.lines({f"curve {k}": {1: 1.0, 2: 2.0 + k} for k in range(6)}, "x", "y")
    figure.draw_without_rendering()  # places the legend
    legend, (axes,) = figure.legends[0].get_window_extent(), figure.axes
    assert not legend.overlaps(axes.get_window_extent())
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width


def test_a_trade_off_shows_its_points_its_front_and_the_choice():
    clouds, front = {"trains": [(1, 0.9), (2, 0.5)], "dense": [(4, 0.1)]}, [(1, 0.9), (2, 0.5)]
    (axes,) = ttq.plots.trade_off(clouds, front, (2, 0.5), "kB", "relative error").axes
    assert [c.get_offsets().tolist() for c in axes.collections] == [[list(p) for p in c] for c in clouds.values()]
    line, ring = axes.get_lines()
    assert [*zip(line.get_xdata(), line.get_ydata())] == front
    assert ([*ring.get_xdata()], [*ring.get_ydata()]) == ([2], [0.5])
    assert len({tuple(c.get_paths()[0].vertices.shape) for c in axes.collections}) == 2  # told apart without colour
    assert axes.get_xscale() == "log" and (axes.get_xlabel(), axes.get_ylabel()) == ("kB", "relative error")


def test_trade_offs_draw_every_metric_with_controls_hollow_and_marks_as_lines():
    groups = {"trains": [(50, 96.0, 0.3), (400, 95.0, None)], "narrow": [(300, 95.5, 1.0)]}
    panels = {"intents": groups, "slots": {label: [(x, y - 4, sd) for x, y, sd in p] for label, p in groups.items()}}
    ring = {"intents": (400, 95.0), "slots": (400, 91.0)}
    figure = ttq.plots.trade_offs(panels, "times smaller", ["narrow"], ring, {"paper": 63})
    assert [axes.get_ylabel() for axes in figure.axes] == ["intents", "slots"]
    for axes, (label, drawn) in zip(figure.axes, panels.items(), strict=True):
        containers = {bars.get_label(): bars.lines[0] for bars in axes.containers}
        assert {name: line.get_xydata().tolist() for name, line in containers.items()} == {
            name: [[x, y] for x, y, _ in points] for name, points in drawn.items()
        }
        assert containers["narrow"].get_markerfacecolor() == "none" != containers["trains"].get_markerfacecolor()
        assert containers["narrow"].get_marker() != containers["trains"].get_marker()
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert set(lines["paper"].get_xdata()) == {63} and lines["chosen"].get_xydata().tolist() == [[*ring[label]]]
        spaced = axes.transData.transform([(1, 100), (1, 99), (1, 91), (1, 90)])[:, 1]
        assert spaced[0] - spaced[1] > 3 * (spaced[2] - spaced[3])  # a point near the top counts for more
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["paper", "chosen", "trains", "narrow"]


def test_a_figure_that_is_marked_anew_is_the_one_that_would_be_drawn_anew():
    panels = {"F1": {"trains": [(50, 96.0, 0.3), (400, 95.0, None)], "narrow": [(300, 95.5, 1.0)]}}
    choices = [{"ring": {"F1": (400, 95.0)}}, {"marks": {"paper": 1000}}, {"marks": {"paper": 63}}, {}]
    figure = ttq.plots.trade_offs(panels, "times smaller", ["narrow"])
    for choice in [*choices, *choices[::-1]]:
        assert ttq.plots.marked(figure, **choice) is figure
        assert painted(figure) == painted(ttq.plots.trade_offs(panels, "times smaller", ["narrow"], **choice))


def stored(figure) -> dict:
    """The metadata that a notebook stores with a figure, as IPython makes them."""
    display = DisplayFormatter()
    display.formatters["image/png"].for_type(Figure, lambda figure: b"drawn")
    data, metadata = display.format(figure)
    assert data["image/png"] == b"drawn"
    return metadata


def test_figures_are_stored_with_words_for_those_who_cannot_see_them():
    curves = {"dense": {1: 0.5, 2: 0.25}, "trains": {k: 1 / k for k in range(1, 20)}}
    said = "Loss (logarithmic) against step. dense: 0.5 at 1, 0.25 at 2; "
    said += "trains: from 1 at 1 over 0.1 at 10 to 0.0526 at 19."
    assert stored(ttq.plots.lines(curves, "step", "loss")) == {"image/png": {"alt": said}}


X = torch.linspace(-3, 3, 50)
# name -> (a figure, what its alternative text has to say)
SPOKEN = {
    "marks and extremes": (
        lambda: ttq.plots.lines(
            {"a": {k: (k - 4) ** 2 for k in range(10)}}, "x", "y", "linear", "linear", marks={"low": 4}
        ),
        ["a: from 16 at 0 over 1 at 5 to 25 at 9, lowest 0 at 4", "An upright line at 4 (low)"],
    ),
    "named ticks": (lambda: ttq.plots.error_against({"bound": {1: 0.9, 1024: 0.1}}), ["0.9 at 1, 0.1 at 1,024"]),
    "bars": (lambda: ttq.plots.bars({"words": 0.5, "rest": 0.2}, "share"), ["Share. words 0.5, rest 0.2."]),
    "bars beside": (
        lambda: ttq.plots.bars_beside({"nats": {"a": 0.46}, "cosine": {"a": 0.4}}),
        ["Nats. a 0.46. Cosine. a 0.4."],
    ),
    "measured": (
        lambda: ttq.plots.measured({"one bit": [(29, 89, None)]}, "times", "accuracy", (29, 89)),
        ["Accuracy against times (logarithmic). one bit: 89 at 29; chosen: 89 at 29."],
    ),
    "links": (lambda: ttq.plots.layer_links(2, {"right": {0: 0, 1: 2}}), ["a teacher of 2 layers", "0 to 0, 1 to 2"]),
    "bars with texts": (lambda: ttq.plots.labelled_bars({"a": 0.5}, ["rank 3"], "nats", 1), ["Nats. a 0.5."]),
    "predictions": (lambda: ttq.plots.agreement({"one": [(1, 2)]}, "predicted", "measured"), ["one: 2 at 1"]),
    "level bars": (lambda: ttq.plots.cost_bars({"a": 5000, "b": 2}, "FLOPs"), ["FLOPs. a 5,000, b 2."]),
    "shares": (lambda: ttq.plots.shares({"A": {"x": 0.3, "y": 0.7}}, "share"), ["x: A 0.3; y: A 0.7"]),
    "dots": (
        lambda: ttq.plots.dots({"ATIS": {"tt": (1, 0.2)}, "SST": {"tt": (3, None)}}, "points", (0, "dense")),
        ["tt: ATIS 1, SST 3", "dense: an upright line at 0"],
    ),
    "roofline": (
        lambda: ttq.plots.roofline({0.1: 1, 10: 100}, {"dense": {1: 5, 3: 9}}),
        ["the roof: 1 at 0.1, 100 at 10; dense: 5 at 1, 9 at 3"],
    ),
    "trade-offs": (
        lambda: ttq.plots.trade_offs({"F1": {"tt": [(10, 90, 1)]}}, "times", marks={"paper": 63}),
        ["F1 against times (logarithmic). tt: 90 at 10; paper: an upright line at 63"],
    ),
    "trade-offs marked anew": (
        lambda: ttq.plots.marked(ttq.plots.trade_offs({"F1": {"tt": [(10, 90, 1)]}}, "times"), {"F1": (10, 90)}),
        ["F1 against times (logarithmic). tt: 90 at 10; chosen: 90 at 10"],
    ),
    "trade-off": (
        lambda: ttq.plots.trade_off({"tt": [(1, 0.5), (2, 0.3)]}, [(1, 0.5)], (1, 0.5), "kB", "error"),
        ["tt: 0.5 at 1, 0.3 at 2", "chosen: 0.5 at 1"],
    ),
    "a table": (
        lambda: ttq.plots.heat_map([[0.1, 0.2], [0.3, 0.4]], ("bits", [2, 3]), ("rank", [10, 20]), framed=1),
        ["smallest 10% at bits 2, rank 10, largest 40% at bits 3, rank 20", "framed: 20"],
    ),
    "similarities": (
        lambda: ttq.plots.similarities({"a": torch.eye(3), "b": torch.eye(3).flip(0)}),
        ["a: diagonal 1.0 on average, beside it 0.0; the dot is on the diagonal in 3 of 3", "in 1 of 3"],
    ),
    "a train": (
        lambda: ttq.plots.tensor_network([torch.zeros(1, 2, 3), torch.zeros(3, 4, 1)], "ij", {"U": 1, "V": 1}),
        ["cores 1 × 2 × 3, 3 × 4 × 1; bonds 3; modes i 2, j 4; U has 1", "V has 1"],
    ),
    "a layer": (lambda: ttq.plots.layer_network((2, 3), (4,), (1, 2, 5, 1)), ["inputs of modes 2, 3", "bonds 2, 5"]),
    "boxes": (lambda: ttq.plots.pipeline({"cut": "by SVD", "train": ""}), ["cut (by SVD), then train."]),
    "images": (lambda: ttq.plots.pictures({"all": X[None].abs()}, "a ramp"), ["A ramp; from left to right: all."]),
    "a staircase": (
        lambda: ttq.plots.staircase(X, X.round().clamp(-2, 1), {"straight": torch.ones(50)}),
        ["flat steps at -2, -1, 0, 1", "straight: from 1 at -3 over 1 at 0.0612 to 1 at 3"],
    ),
    "grids": (lambda: ttq.plots.grids(X, {"wide": 0.5, "fine": 0.1}, 2), ["wide: levels from", "fine: levels from"]),
    "a histogram": (
        lambda: ttq.plots.quantized_histogram(X, 0.5, 3, {"rounded": 0.25}),
        ["weights up to 3, with upright lines at 8 levels from -2 to 1.5", "rounded 0.25"],
    ),
}


@pytest.mark.parametrize(("draw", "expected"), SPOKEN.values(), ids=SPOKEN)
def test_the_words_of_a_figure_have_its_numbers(draw, expected):
    said = draw().alt_text()
    for part in expected:
        assert part in said, said


def test_every_figure_is_put_into_words():
    """So that a function which is added without words is noticed."""
    drawn = {name for draw, _ in SPOKEN.values() for name in draw.__code__.co_names}
    assert set(ttq.plots.__all__) <= drawn


def test_figures_do_not_glare_from_a_dark_page_and_black_reads_well_on_them():
    """WCAG's contrast: at least 7 with black text, well below white's 18 with JupyterLab's dark page, #111."""
    figure = ttq.plots.bars({"a": 0.5}, "share")
    for colour in (figure.get_facecolor(), figure.axes[0].get_facecolor()):
        red, green, blue = (
            (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4) for part in colour[:3]
        )
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert colour[3] == 1 and (light + 0.05) / 0.05 > 7
        assert light < 0.85


def test_bars_beside_each_other_carry_their_values_and_have_scales_of_their_own():
    panels = {"nats": {"layer 0": 0.46, "layer 1": 0.02}, "cosine": {"layer 0": 0.4, "layer 1": 0.8}}
    figure = ttq.plots.bars_beside(panels)
    for axes, (label, values) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_xlabel() == label
        assert [bar.get_width() for bar in axes.patches] == list(values.values())
        assert [text.get_text() for text in axes.texts] == [f"{value:,.3g}" for value in values.values()]
        assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > max(values.values())
    first = figure.axes[0]
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["layer 0", "layer 1"] and first.yaxis_inverted()


def test_links_go_from_each_state_of_a_student_to_its_teachers():
    maps = {"right": {0: 0, 1: 2, 2: 4}, "off by one": {0: 0, 1: 1, 2: 3}}
    figure = ttq.plots.layer_links(4, maps)
    for axes, (label, links) in zip(figure.axes, maps.items(), strict=True):
        arrows = [text for text in axes.texts if hasattr(text, "arrow_patch") and text.arrow_patch]
        assert {arrow.xyann[1]: arrow.xy[1] for arrow in arrows} == links and axes.get_title() == label
        boxes = [(*text.get_position(), text.get_text()) for text in axes.texts if text.get_bbox_patch()]
        assert sorted(boxes) == sorted(
            [(0, k, f"layer {k}" if k else "words") for k in range(5)]
            + [(1, k, f"layer {k}" if k else "words") for k in links]
        )
