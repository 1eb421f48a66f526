"""Bars: a few numbers beside each other, shares of a whole, a histogram."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import HATCHES, SHADES, one_panel, side_by_side
from .words import number


def bars(values: Mapping[str, float], y_label: str) -> Figure:
    """One bar a label, on a scale from 0 to 1 or more, with its value on top and a hatching of its own."""
    figure, axes = one_panel(4.8, 3.0)
    drawn = axes.bar(list(values), list(values.values()), 0.6, **_looks(values))
    axes.bar_label(drawn, [f"{value:.1%}" for value in values.values()], padding=2)
    axes.set(ylim=(0, 1.1 * max([1, *values.values()])), ylabel=y_label)
    return figure


def shares(parts: Mapping[str, Mapping[str, float]], x_label: str) -> Figure:
    """One horizontal bar a label, cut into the same named parts, which add up to 1, with percentages where they fit."""
    figure, axes = one_panel(6.4, 0.42 * len(parts) + 1.2)
    left = [0.0] * len(parts)
    for name, (colour, hatch) in zip(next(iter(parts.values())), cycle(zip(SHADES, HATCHES))):
        widths = [part[name] for part in parts.values()]
        drawn = axes.barh(list(parts), widths, 0.65, left, color=colour, edgecolor="black", hatch=hatch, label=name)
        texts = [f"{width:.0%}" if width > 0.04 else "" for width in widths]
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # hatches would cross the digits
        for text in axes.bar_label(drawn, texts, label_type="center"):
            text.set_bbox(paper if text.get_text() else None)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlim=(0, 1), xlabel=x_label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(next(iter(parts.values()))))
    return figure


def cost_bars(values: Mapping[str, float], x_label: str) -> Figure:
    """One horizontal bar a label, as long as its value, which stands at its end."""
    figure, axes = one_panel(6.4, 0.42 * len(values) + 0.9)
    drawn = axes.barh(list(values), list(values.values()), 0.65, **_looks(values, (*HATCHES, "\\\\")))
    axes.bar_label(drawn, [f"{value:,.3g}" for value in values.values()], padding=3)
    axes.set(xlim=(0, 1.18 * max(values.values())), xlabel=x_label)
    axes.invert_yaxis()
    return figure


def bars_beside(panels: Mapping[str, Mapping[str, float]]) -> Figure:
    """Several quantities of the same things, a panel each: {x label: {label: value}}, with the values at the bars."""
    labels = list(next(iter(panels.values())))
    figure, row = side_by_side(len(panels), 3.7 * len(panels), 0.38 * len(labels) + 0.9, sharey=True)
    for axes, (x_label, values), hatch in zip(row, panels.items(), cycle(HATCHES)):
        drawn = axes.barh(labels, list(values.values()), 0.65, color=SHADES[0], edgecolor="black", hatch=hatch)
        axes.bar_label(drawn, [f"{value:,.3g}" for value in values.values()], padding=3)
        axes.set(xlim=(0, 1.2 * max(values.values())), xlabel=x_label)
    row[0].invert_yaxis()
    return figure


def labelled_bars(values: Mapping[str, float], texts: Sequence[str], x_label: str, most: float) -> Figure:
    """One horizontal bar a label on a scale from 0 to beyond `most`, with a text of its own at its end."""
    figure, axes = one_panel(6.8, 0.22 * len(values) + 0.8)
    axes.barh(list(values), list(values.values()), 0.7, color="lightsteelblue", edgecolor="black")
    for place, (value, text) in enumerate(zip(values.values(), texts, strict=True)):
        axes.text(value + most / 100, place, text, fontsize=8, va="center")  # `bar_label` takes three times as long
    axes.set(xlim=(0, 1.25 * most), xlabel=x_label)
    axes.tick_params("y", labelsize=8, left=False)
    axes.invert_yaxis()
    return figure


def quantized_histogram(weights: Tensor, step: float, bits: int, errors: Mapping[str, float]) -> Figure:
    """How the entries of `weights` are spread, the 2^bits levels over them, and beside it what the grid loses.

    Whatever lies beyond the lowest and the highest level is hatched: it is clipped. `errors` are shares of Σx². Of
    very long tails only six standard deviations to either side are shown; how far the others reach is written there.
    """
    figure, (axes, beside) = side_by_side(2, 7.6, 3.2, width_ratios=(4, 1))
    weights = weights.detach().flatten().float()
    largest, sigma = float(weights.abs().max()), float(weights.std())
    reach = 1.05 * min(largest, 6 * sigma)
    levels = [step * level for level in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
    shares = weights.histc(121, -reach, reach) / weights.numel()  # of large weights a hundred times faster than hist
    axes.stairs(shares, torch.linspace(-reach, reach, 122), fill=True, color="lightsteelblue")
    for left, right in ((-reach, min(max(levels[0], -reach), reach)), (min(levels[-1], reach), reach)):
        axes.axvspan(left, right, facecolor="none", edgecolor="grey", hatch="//", linewidth=0)
    axes.vlines(levels, 0, 1, "black", linewidth=1.5 if bits < 5 else 0.5, transform=axes.get_xaxis_transform())
    axes.set(xlim=(-reach, reach), xlabel="weight (hatched: clipped)", ylabel="share of the weights")
    if largest > reach:
        count = int((weights.abs() > reach).sum())
        entries = "1 entry" if count == 1 else f"{count:,} entries"
        axes.set_title(f"not shown: {entries}, up to {largest / sigma:.0f} σ", fontsize=9)
    drawn = beside.bar(list(errors), list(errors.values()), **_looks(errors))
    beside.bar_label(drawn, [f"{value:.2%}" for value in errors.values()], padding=2, fontsize=9)
    beside.set(ylim=(0, 1.15), ylabel="share of the squares that is lost")
    figure.said = f"a histogram of weights up to {number(largest)}, with upright lines at {len(levels)} levels "
    figure.said += f"from {number(levels[0])} to {number(levels[-1])}"
    return figure


def _looks(values: Mapping, hatches: Sequence[str] = HATCHES) -> dict:
    """One colour for as many bars as there are values, and a hatching of its own for each."""
    return {"color": "lightsteelblue", "edgecolor": "black", "hatch": list(islice(cycle(hatches), len(values)))}
