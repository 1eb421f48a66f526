"""Points and lines: one quantity against another."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from math import inf

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .style import FILLS, STYLES, one_panel, side_by_side

CHOSEN = "chosen"  # what a figure of `trade_offs` can be freed of


def error_against(
    curves: Mapping[str, Mapping[float, float]], x_label: str = "TT-rank", y_label: str = "relative error"
) -> Figure:
    """One curve a label, each a mapping from x (a rank, a number of parameters) to a relative error."""
    figure, axes = _curves(curves)
    ticks = sorted({x for points in curves.values() for x in points})
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    return figure


def lines(
    curves: Mapping[str, Mapping[float, float]],
    x_label: str,
    y_label: str,
    x_scale: str = "linear",
    y_scale: str = "log",
    markers: int = 8,
    marks: Mapping[str, float] | None = None,
    stairs: Collection[str] = (),
    controls: Collection[str] = (),
) -> Figure:
    """One curve a label, each a mapping from x to y: losses against steps, costs against sizes.

    A marker stands on about `markers` points of a curve, on all of them where there are no more. `marks` are upright
    lines, {label: x}. Curves in `stairs` stay at a value until the next, without a slope in between and without
    markers. Those in `controls` are dotted and hollow, in the colour and with the marker of the curve before them.
    """
    figure, axes = _curves(curves, markers, stairs, controls)
    axes.set(xscale=x_scale, yscale=y_scale, xlabel=x_label, ylabel=y_label)
    for label, x in (marks or {}).items():
        axes.axvline(x, color="grey", linestyle="--", zorder=1)
        axes.annotate(label, (x, 1), (4, -4), axes.get_xaxis_transform(), "offset points", va="top")
    if marks:
        figure.said = "an upright line at " + ", ".join(f"{x:g} ({label})" for label, x in marks.items())
    return figure


def _curves(
    curves: Mapping[str, Mapping[float, float]],
    markers: float = inf,
    stairs: Collection[str] = (),
    controls: Collection[str] = (),
) -> tuple[Figure, Axes]:
    """A panel with one curve a label; a marker on about so many points of each, on all where there are no more."""
    figure, axes = one_panel(6.4, 3.6)
    styles, look = cycle(STYLES), {}
    for label, points in curves.items():
        if label in controls:
            look |= {"linestyle": ":", "markerfacecolor": "none", "color": axes.get_lines()[-1].get_color()}
        else:
            marker, line = next(styles)
            look = {"linestyle": line} | ({"marker": marker} if markers else {})
        every = {"markevery": max(1, len(points) // markers)} if markers else {}
        stepped = {"drawstyle": "steps-post", "marker": "none"} if label in stairs else {}
        axes.plot(list(points), list(points.values()), label=label, **every, **look | stepped)
    axes.grid(alpha=0.3)
    _legend_above(figure, curves)
    return figure, axes


def _legend_above(figure: Figure, labels: Collection[str]) -> None:
    """The legend over the panel, where it hides no data, in as many columns as the longest label allows."""
    columns = int(78 / (max(map(len, labels)) + 7))
    figure.legend(loc="outside upper center", ncols=max(1, min(columns, len(labels))))


def trade_off(
    clouds: Mapping[str, Sequence[tuple[float, float]]],
    front: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Figure:
    """Points (cost, error) under their labels, the front of those that no other beats, and a ring around one."""
    figure, axes = one_panel(6.4, 3.8)
    looks = cycle((("o", "lightsteelblue"), ("s", "none"), ("^", "tab:green")))
    for (label, points), (marker, fill) in zip(clouds.items(), looks):
        axes.scatter(*zip(*points), marker=marker, facecolors=fill, edgecolors="black", s=26, label=label, zorder=2)
    axes.plot(*zip(*front), color="tab:orange", linestyle="--", linewidth=2, label="front of the trains", zorder=1)
    axes.plot(*chosen, "o", markersize=15, color="black", fillstyle="none", markeredgewidth=2, label="chosen")
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, markerscale=0.6)
    return figure


def trade_offs(panels: Mapping, x_label: str, controls=(), ring: Mapping | None = None, marks: Mapping | None = None):
    """Accuracy against compression, a panel a metric: {y label: {label: [(ratio, percent, deviation or None)]}}.

    Percentages are spaced by what they lack of 100. `controls` are hollow, a `ring` is {y label: (ratio, percent)},
    `marks` are lines, {label: ratio}.
    """
    width, margins = 4.2 * len(panels), {"left": 0.7, "right": 0.1, "between": 0.75}  # inches
    figure, row = side_by_side(len(panels), width, 4.3, layout=None)
    inner = (width - margins["left"] - margins["right"] - margins["between"] * (len(panels) - 1)) / len(panels)
    # a layout engine would draw all of it twice, and explorers draw this figure at every move
    figure.subplots_adjust(
        margins["left"] / width, 0.22, 1 - margins["right"] / width, 0.98, margins["between"] / inner
    )
    for axes, (y_label, groups) in zip(row, panels.items()):
        for (label, points), (marker, _), colour in zip(groups.items(), cycle(STYLES), cycle(FILLS)):
            x, y, spread = zip(*points)
            style = {"fmt": marker, "ms": 7, "mfc": "none" if label in controls else colour, "mec": "black"}
            axes.errorbar(x, y, [sd or 0 for sd in spread], label=label, ecolor="grey", capsize=3, **style)
        axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
        axes.set_yscale("function", functions=(lambda y: -np.log10(101 - np.minimum(y, 100)), lambda t: 101 - 10**-t))
        (low, high), ticks = axes.get_ylim(), (0, 50, 70, 80, 86, 90, 92, 94, 96, 97, 98, 99, 100)
        axes.set(ylim=(low, high), yticks=[tick for tick in ticks if low <= tick <= high])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.minorticks_off()  # half of the time that the figure takes
        axes.grid(alpha=0.3)
    return marked(figure, ring, marks)


def marked(figure: Figure, ring: Mapping | None = None, marks: Mapping | None = None) -> Figure:
    """A figure of `trade_offs` with this ring and these lines in the place of those that it had: quicker than anew."""
    for axes in figure.axes:
        for line in [line for line in axes.lines if line.get_gid() == CHOSEN]:
            line.remove()
        reached = [x for line in axes.lines for x in line.get_xdata()] + [*(marks or {}).values()]
        for (label, x), style in zip((marks or {}).items(), cycle(("--", ":"))):
            axes.axvline(x, color="black", linestyle=style, label=label, zorder=1, gid=CHOSEN)
        if ring:
            place = ring[axes.get_ylabel()]
            looks = {"ms": 15, "color": "black", "fillstyle": "none", "mew": 2, "label": "chosen", "gid": CHOSEN}
            axes.plot(*place, "o", **looks)
            reached.append(place[0])
        air = max(max(reached) / min(reached), 2) ** 0.05
        axes.set_xlim(min(reached) / air, max(reached) * air)
    for legend in figure.legends[:]:
        legend.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, markerscale=0.8)
    return figure
