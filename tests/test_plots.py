"""Figures: what they show is read back from the axes, never compared as pixels."""

import matplotlib.pyplot as plt
import pytest
import torch

import ttqlib as ttq


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


def test_singular_values_are_drawn_relative_to_the_largest():
    (axes,) = ttq.plots.singular_value_decay({"a": torch.tensor([4.0, 2.0, 1.0])}).axes
    (line,) = axes.get_lines()
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == [1, 0.5, 0.25]


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


def test_cost_bars_carry_their_values_in_order_on_a_logarithmic_axis():
    (axes,) = ttq.plots.cost_bars({"dense": 4832.0, "sides first": 243.2}, "million FLOPs").axes
    assert [patch.get_width() for patch in axes.patches] == [4832.0, 243.2]
    assert [text.get_text() for text in axes.texts] == ["4.83e+03", "243"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense", "sides first"]
    assert axes.get_xscale() == "log" and axes.yaxis_inverted()


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
