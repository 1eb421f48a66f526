"""Staircases: rounding drawn as what it is, flat steps and jumps."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import STYLES, side_by_side
from .words import number


def staircase(x: Tensor, rounded: Tensor, slopes: Mapping[str, Tensor]) -> Figure:
    """Q(x) over x with the diagonal that it follows, and beside it slopes that one may give it: (points,) each.

    `x` has to grow. Steps are drawn flat, jumps dotted; hatched is what lies beyond the lowest and the highest step.
    """
    figure, (stairs, beside) = side_by_side(2, 9.2, 3.6)
    breaks = [0, *(1 + (rounded.diff() != 0).nonzero().flatten()).tolist(), len(x)]
    for place, (start, end) in enumerate(pairwise(breaks)):
        label = {"label": "Q(x)"} if place == 0 else {}
        stairs.plot(x[[start, end - 1]].tolist(), rounded[[start, end - 1]].tolist(), "black", linewidth=3, **label)
        if end < len(x):
            jump = rounded[[end - 1, end]].tolist()
            stairs.plot(x[[end, end]].tolist(), jump, "grey", linestyle=":", linewidth=1)
    low, high = float(rounded[0]), float(rounded[-1])
    stairs.plot([float(x[0]), float(x[-1])], [float(x[0]), float(x[-1])], "tab:orange", linestyle="--", label="x")
    for (label, slope), (_, line) in zip(slopes.items(), STYLES, strict=False):
        beside.step(x.tolist(), slope.tolist(), where="mid", linestyle=line, linewidth=2, label=label)
    for axes in (stairs, beside):
        for left, right in ((float(x[0]), low), (high, float(x[-1]))):
            axes.axvspan(left, right, facecolor="none", edgecolor="grey", hatch="//", linewidth=0, alpha=0.6)
        axes.set(xlim=(float(x[0]), float(x[-1])), xlabel="weight x (hatched: clipped)")
        axes.grid(alpha=0.3)
    stairs.set(ylabel="what comes back, Q(x)", ylim=(low - 0.6 * (high - low) / 4, high + 0.6 * (high - low) / 4))
    beside.set(ylabel="slope of Q", ylim=(-0.15, 1.45))
    figure.legend(loc="outside upper center", ncols=2 + len(slopes))
    levels = ", ".join(number(level) for level in rounded.unique().tolist())
    figure.said = f"a staircase with flat steps at {levels}, which the diagonal x crosses; beside it slopes"
    return figure


def grids(weights: Tensor, steps: Mapping[str, float], bits: int) -> Figure:
    """All entries of `weights`, in standard deviations, under several grids of 2^bits levels, a panel a step size.

    Counts are logarithmic, and a triangle marks the entry farthest out. Hatched is what is clipped.
    """
    figure, row = side_by_side(len(steps), 4.6 * len(steps), 3.2, sharey=True)
    entries, sigma = weights.detach().flatten().float(), float(weights.detach().float().std())
    farthest = float(entries[entries.abs().argmax()]) / sigma
    reach = 1.08 * abs(farthest)
    counts = (entries / sigma).histc(121, -reach, reach)
    clipped = []
    for axes, (label, step) in zip(row, steps.items(), strict=True):
        levels = [step / sigma * level for level in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
        axes.stairs(counts, torch.linspace(-reach, reach, 122), fill=True, color="lightsteelblue", zorder=2)
        for left, right in ((-reach, min(max(levels[0], -reach), reach)), (min(levels[-1], reach), reach)):
            axes.axvspan(left, right, facecolor="none", edgecolor="grey", hatch="//", linewidth=0)
        for level in levels:
            axes.axvline(level, color="black", linewidth=0.7, zorder=3)
        axes.plot(farthest, 1.5, "v", color="tab:orange", markeredgecolor="black", markersize=10, zorder=4)
        axes.set(
            xlim=(-reach, reach),
            yscale="log",
            ylim=(0.5, 3 * float(counts.max())),
            title=label,
            xlabel="weight in σ (hatched: clipped)",
        )
        clipped.append(f"{label}: levels from {number(levels[0])} to {number(levels[-1])}")
    row[0].set_ylabel("number of weights")
    figure.complete = True
    figure.said = (
        f"histograms of all weights in σ, the farthest at {number(farthest)}, under upright lines for the levels; "
    )
    figure.said += "; ".join(clipped)
    return figure
