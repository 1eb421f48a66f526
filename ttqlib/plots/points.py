"""Points: measured ones on lines with names, and under a roof."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .style import FILLS, STYLES, one_panel


def dots(rows: Mapping[str, Mapping[str, tuple[float, float | None]]], x_label: str, mark: tuple | None = None):
    """One line a label, on it a point for each group: {label: {group: (value, deviation or None)}}.

    Groups differ by marker and fill. `mark` is a vertical line, (value, its name).
    """
    figure, axes = one_panel(6.8, 0.34 * len(rows) + 1.3)
    groups = list(dict.fromkeys(group for points in rows.values() for group in points))
    for group, (marker, _), fill in zip(groups, cycle(STYLES), cycle((FILLS[0], FILLS[4], *FILLS[1:4]))):
        there = [(place, points[group]) for place, points in enumerate(rows.values()) if group in points]
        places, (values, spread) = [place for place, _ in there], zip(*(point for _, point in there))
        style = {"fmt": marker, "ms": 7, "mfc": fill, "mec": "black", "ecolor": "grey", "capsize": 3}
        axes.errorbar(values, places, xerr=[deviation or 0 for deviation in spread], label=group, **style)
    if mark:
        axes.axvline(mark[0], color="black", linestyle="--", linewidth=1, label=mark[1], zorder=1)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=x_label, ylim=(len(rows) - 0.5, -0.5))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def measured(groups: Mapping[str, list], x_label: str, y_label: str, ring: tuple[float, float] | None = None) -> Figure:
    """Points over how many times smaller they are, {label: [(ratio, value, deviation or None)]}; a ring around one."""
    figure, axes = one_panel(6.4, 3.8)
    for (label, points), (marker, _), fill in zip(groups.items(), cycle(STYLES), cycle((FILLS[0], FILLS[4], FILLS[2]))):
        ratios, values, spread = zip(*points, strict=True)
        style = {"fmt": marker, "ms": 7, "mfc": fill, "mec": "black", "ecolor": "grey", "capsize": 3}
        axes.errorbar(ratios, values, [deviation or 0 for deviation in spread], label=label, **style)
    if ring:
        axes.plot(*ring, "o", ms=15, color="black", fillstyle="none", mew=2, label="chosen")
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=6, markerscale=0.7)
    return figure


def agreement(points: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Figure:
    """Pairs (predicted, measured) under their labels, on logarithmic axes; the line is where both are equal."""
    figure, axes = one_panel(5.4, 4.0)
    for (label, pairs), (marker, _), fill in zip(points.items(), cycle(STYLES), cycle(FILLS[:5])):
        axes.scatter(*zip(*pairs), marker=marker, facecolors=fill, edgecolors="black", s=36, label=label, zorder=2)
    both = [value for pairs in points.values() for pair in pairs for value in pair]
    ends = [min(both), max(both)]
    axes.plot(ends, ends, color="grey", linestyle="--", label="equal", zorder=1)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=min(4, len(points) + 1))
    return figure


def roofline(
    roof: Mapping[float, float], points: Mapping[str, Mapping[float, float]], names: Mapping[str, list] | None = None
) -> Figure:
    """The roof as a plain line, {FLOPs a byte: GFLOP/s}, and measured points under labels; axes are logarithmic.

    `names` are what to write beside the points of a label, numbers of rows for instance, in their order.
    """
    figure, axes = one_panel(6.8, 3.9)
    axes.plot(list(roof), list(roof.values()), color="grey", linewidth=2, label="the roof")
    fills = cycle((FILLS[0], FILLS[4], FILLS[5]))
    for (label, found), (marker, line), fill in zip(points.items(), cycle(STYLES), fills):
        looks = {"marker": marker, "linestyle": line, "color": "black", "mfc": fill}
        axes.plot(list(found), list(found.values()), label=label, **looks)
        for place, name in zip(found.items(), (names or {}).get(label, ())):
            axes.annotate(f"{name}", place, (0, -12), textcoords="offset points", ha="center", va="top", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="GFLOP/s")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    return figure
