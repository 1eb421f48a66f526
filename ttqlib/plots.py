"""Every figure of the suite. A function takes numbers and returns a matplotlib `Figure`; it computes nothing itself.

Figures are closed in pyplot, so that a notebook shows each of them exactly once: as the value of its cell. Curves
differ by marker and line style as well as by colour.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
FILLS = ("black", "tab:orange", "lightsteelblue", "tab:green", "white", "grey")
SHADES = ("lightsteelblue", "white", "moccasin", "lightgrey")


def tensor_network(cores: Sequence[Tensor]) -> Figure:
    """The train as physicists draw it: a disc for a core, a line for an axis, with sizes.

    Lines between discs are bonds (TT-ranks), free lines are modes; a core of order 4 has two of those. The area of a
    disc is proportional to how many numbers the core holds, down to the smallest that can be seen.
    """
    shapes = [tuple(core.shape) for core in cores]
    numbers = [core.numel() for core in cores]
    two_legs = len(shapes[0]) == 4
    figure, axes = _figure(1.35 * len(cores) + 0.6, 2.9 if two_legs else 2.2)
    for k, shape in enumerate(shapes):
        if k + 1 < len(shapes):
            axes.plot([k, k + 1], [0, 0], color="black", linewidth=1.5, zorder=1)
            axes.annotate(f"{shape[-1]}", (k + 0.5, 0), (0, 4), textcoords="offset points", ha="center")
        for size, direction in zip(shape[1:-1], (-1, 1), strict=False):
            axes.plot([k, k], [0, direction * 0.75], color="black", linewidth=1.5, zorder=1)
            axes.annotate(
                f"{size}", (k, direction * 0.8), ha="center", va="top" if direction < 0 else "bottom", weight="bold"
            )
    largest = max(numbers)
    areas = [max(60, 1600 * n / largest) for n in numbers]
    axes.scatter(range(len(cores)), [0] * len(cores), s=areas, color="lightsteelblue", edgecolors="black", zorder=2)
    for k, (shape, n) in enumerate(zip(shapes, numbers, strict=True)):
        label = " × ".join(map(str, shape)) + f"\n{n:,} numbers"
        axes.annotate(label, (k, -1.2), ha="center", va="top", fontsize=9)
    axes.set(xlim=(-0.7, len(cores) - 0.3), ylim=(-1.75, 1.2 if two_legs else 0.5))
    axes.axis("off")
    return figure


def singular_value_decay(spectra: Mapping[str, Tensor]) -> Figure:
    """Singular values, each divided by the largest of its curve, against their index: how fast a matrix fades."""
    figure, axes = _figure(6.4, 3.6)
    for (label, values), (_, line) in zip(spectra.items(), cycle(STYLES)):
        values = values.detach().double().numpy()
        axes.plot(range(1, len(values) + 1), values / values[0], line, label=label)
    axes.set(yscale="log", xlabel="index k of the singular value", ylabel="σ$_k$ / σ$_1$", ylim=(1e-3, 1.3))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def error_against(
    curves: Mapping[str, Mapping[float, float]], x_label: str = "TT-rank", y_label: str = "relative error"
) -> Figure:
    """One curve a label, each a mapping from x (a rank, a number of parameters) to a relative error."""
    figure, axes = _figure(6.4, 3.6)
    for (label, points), (marker, line) in zip(curves.items(), cycle(STYLES)):
        axes.plot(list(points), list(points.values()), linestyle=line, marker=marker, label=label)
    ticks = sorted({x for points in curves.values() for x in points})
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bars(values: Mapping[str, float], y_label: str) -> Figure:
    """One bar a label, on a scale from 0 to 1 or more, with its value on top and a hatching of its own."""
    figure, axes = _figure(4.8, 3.0)
    drawn = axes.bar(list(values), list(values.values()), color="lightsteelblue", edgecolor="black", width=0.6)
    for bar, hatch in zip(drawn, cycle(("", "//", "..", "xx"))):
        bar.set_hatch(hatch)
    axes.bar_label(drawn, [f"{value:.1%}" for value in values.values()], padding=2)
    axes.set(ylim=(0, 1.1 * max([1, *values.values()])), ylabel=y_label)
    return figure


def lines(
    curves: Mapping[str, Mapping[float, float]], x_label: str, y_label: str, x_scale="linear", y_scale="log"
) -> Figure:
    """One curve a label, each a mapping from x to y: losses against steps, costs against sizes.

    A marker stands on about eight points of a curve, on all of them where there are no more.
    """
    figure, axes = _figure(6.4, 3.6)
    for (label, points), (marker, line) in zip(curves.items(), cycle(STYLES)):
        every = max(1, len(points) // 8)
        axes.plot(list(points), list(points.values()), linestyle=line, marker=marker, markevery=every, label=label)
    axes.set(xscale=x_scale, yscale=y_scale, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def shares(parts: Mapping[str, Mapping[str, float]], x_label: str) -> Figure:
    """One horizontal bar a label, cut into the same named parts, which add up to 1, with percentages where they fit."""
    figure, axes = _figure(6.4, 0.42 * len(parts) + 1.2)
    left = [0.0] * len(parts)
    for name, (colour, hatch) in zip(next(iter(parts.values())), cycle(zip(SHADES, ("", "//", "..", "xx")))):
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
    """One horizontal bar a label on a logarithmic axis, its value at its end: costs that differ by orders."""
    figure, axes = _figure(6.4, 0.42 * len(values) + 0.9)
    drawn = axes.barh(list(values), list(values.values()), color="lightsteelblue", edgecolor="black", height=0.65)
    for bar, hatch in zip(drawn, cycle(("", "//", "..", "xx", "\\\\"))):
        bar.set_hatch(hatch)
    axes.bar_label(drawn, [f"{value:,.3g}" for value in values.values()], padding=3)
    largest, smallest = max(values.values()), min(values.values())
    axes.set(xscale="log", xlim=(smallest / 3, largest * 6), xlabel=x_label)
    axes.invert_yaxis()
    return figure


def similarities(matrices: Mapping[str, Tensor]) -> Figure:
    """Square matrices of cosine similarities side by side under their labels, on one scale from 0 to 1.

    A dot marks the largest entry of each row, so that the picture can be read without its shades.
    """
    size = (2.9 * len(matrices) + 0.7, 3.1)
    figure, row = plt.subplots(1, len(matrices), figsize=size, layout="constrained", squeeze=False)
    plt.close(figure)
    for axes, (label, matrix) in zip(row[0], matrices.items(), strict=True):
        matrix = matrix.detach().double()
        image = axes.imshow(matrix.numpy(), cmap="Greys", vmin=0, vmax=1)
        axes.plot(matrix.argmax(1).tolist(), range(len(matrix)), "o", color="orange", markeredgecolor="black")
        axes.set(title=label, xlabel="second wording", xticks=[], yticks=[])
    row[0][0].set_ylabel("first wording")
    figure.colorbar(image, ax=row[0].tolist(), label="cosine similarity")
    return figure


def pipeline(steps: Mapping[str, str]) -> Figure:
    """Boxes from left to right, joined by arrows: a step in each box, and under it what is said of the step."""
    figure, axes = _figure(1.75 * len(steps), 1.5)
    box = {"boxstyle": "round,pad=0.5", "facecolor": "lightsteelblue", "edgecolor": "black"}
    boxes = [axes.text(k, 0, step, ha="center", va="center", bbox=box, zorder=2) for k, step in enumerate(steps)]
    for k, note in enumerate(steps.values()):
        axes.annotate(note, (k, -0.55), ha="center", va="top", fontsize=9)
    for k, (left, right) in enumerate(pairwise(boxes)):
        ends = {"patchA": left.get_bbox_patch(), "patchB": right.get_bbox_patch(), "arrowstyle": "-|>"}
        axes.annotate("", (k + 1, 0), (k, 0), arrowprops={"color": "black", **ends})
    axes.set(xlim=(-0.6, len(steps) - 0.4), ylim=(-1.5, 0.5))
    axes.axis("off")
    return figure


def quantized_histogram(weights: Tensor, step: float, bits: int, errors: Mapping[str, float]) -> Figure:
    """How the entries of `weights` are spread, the 2^bits levels over them, and beside it what the grid loses.

    Whatever lies beyond the lowest and the highest level is hatched: it is clipped. `errors` are shares of Σx². Of
    very long tails only six standard deviations to either side are shown.
    """
    figure, (axes, beside) = plt.subplots(1, 2, figsize=(7.6, 3.2), width_ratios=(4, 1), layout="constrained")
    plt.close(figure)
    weights = weights.detach().flatten().float()
    reach = 1.05 * min(float(weights.abs().max()), 6 * float(weights.std()))
    levels = [step * level for level in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
    shares = weights.histc(121, -reach, reach) / weights.numel()  # of large weights a hundred times faster than hist
    axes.stairs(shares, torch.linspace(-reach, reach, 122), fill=True, color="lightsteelblue")
    for left, right in ((-reach, min(max(levels[0], -reach), reach)), (min(levels[-1], reach), reach)):
        axes.axvspan(left, right, facecolor="none", edgecolor="grey", hatch="//", linewidth=0)
    for level in levels:
        axes.axvline(level, color="black", linewidth=1.5 if bits < 5 else 0.5)
    axes.set(xlim=(-reach, reach), xlabel="weight (hatched: clipped)", ylabel="share of the weights")
    drawn = beside.bar(list(errors), list(errors.values()), color="lightsteelblue", edgecolor="black")
    for bar, hatch in zip(drawn, cycle(("", "//"))):
        bar.set_hatch(hatch)
    beside.bar_label(drawn, [f"{value:.2%}" for value in errors.values()], padding=2, fontsize=9)
    beside.set(ylim=(0, 1.15), ylabel="share of the squares that is lost")
    return figure


def heat_map(
    table: Sequence[Sequence[float]],
    rows: tuple[str, Sequence],
    columns: tuple[str, Sequence],
    heights: Sequence[Sequence[float]] | None = None,
    levels: Mapping[float, str] | None = None,
    label: str = "relative error",
    darkest: float = 1,
) -> Figure:
    """A table of errors as shades with its numbers; on request lines of equal height over it: equal bytes, say.

    `rows` and `columns` are an axis label and the ticks. `heights`, of the shape of `table`, are drawn as a contour
    line at each of the `levels`, interpolated on a logarithmic scale and labelled with its text. `label` names what
    the shades show; errors of `darkest` and more are the darkest.
    """
    figure, axes = _figure(0.75 * len(columns[1]) + 1.6, 0.42 * len(rows[1]) + 1.2)
    shades = {"cmap": "Blues", "vmin": 0, "vmax": 2 * darkest}  # only the paler half: numbers lie on it
    image = axes.imshow(table, aspect="auto", origin="lower", **shades)
    for y, line in enumerate(table):
        for x, value in enumerate(line):
            axes.text(x, y, f"{value:.0%}", ha="center", va="center")
    if heights is not None:
        logs = torch.tensor(heights, dtype=torch.float64).log().numpy()
        texts = {float(torch.tensor(level, dtype=torch.float64).log()): text for level, text in sorted(levels.items())}
        contours = axes.contour(logs, levels=list(texts), colors="tab:orange", linewidths=2, linestyles="--")
        for path, text in zip(contours.get_paths(), texts.values(), strict=True):
            if len(path.vertices):  # the label stands beside the right end of its line: numbers fill the cells
                x, y = max(map(tuple, path.vertices))
                axes.annotate(text, (x, y), (len(columns[1]) - 0.4, y), va="center", annotation_clip=False)
    axes.set(xlabel=columns[0], ylabel=rows[0])
    axes.set_xticks(range(len(columns[1])), columns[1])
    axes.set_yticks(range(len(rows[1])), rows[1])
    scale = {"boundaries": [darkest * k / 100 for k in range(101)], "ticks": [0, darkest / 2, darkest]}
    figure.colorbar(image, ax=axes, label=label, **scale)
    return figure


def trade_off(
    clouds: Mapping[str, Sequence[tuple[float, float]]],
    front: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Figure:
    """Points (cost, error) under their labels, the front of those that no other beats, and a ring around one."""
    figure, axes = _figure(6.4, 3.8)
    for (label, points), (marker, fill) in zip(clouds.items(), cycle((("o", "lightsteelblue"), ("s", "none")))):
        axes.scatter(*zip(*points), marker=marker, facecolors=fill, edgecolors="black", s=26, label=label, zorder=2)
    axes.plot(*zip(*front), color="tab:orange", linestyle="--", linewidth=2, label="front of the trains", zorder=1)
    axes.plot(*chosen, "o", markersize=15, color="black", fillstyle="none", markeredgewidth=2, label="chosen")
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", markerscale=0.6)
    return figure


def trade_offs(panels: Mapping, x_label: str, controls=(), ring: Mapping | None = None, marks: Mapping | None = None):
    """Accuracy against compression, a panel a metric: {y label: {label: [(ratio, percent, deviation or None)]}}.

    Percentages are spaced by what they lack of 100. `controls` are hollow, a `ring` is {y label: (ratio, percent)},
    `marks` are lines.
    """
    figure, row = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.3), layout="constrained", squeeze=False)
    for axes, (y_label, groups) in zip(row[0], panels.items()):
        for (label, points), (marker, _), colour in zip(groups.items(), cycle(STYLES), cycle(FILLS)):
            x, y, spread = zip(*points)
            style = {"fmt": marker, "ms": 7, "mfc": "none" if label in controls else colour, "mec": "black"}
            axes.errorbar(x, y, [sd or 0 for sd in spread], label=label, ecolor="grey", capsize=3, **style)
        for (label, x), line in zip((marks or {}).items(), cycle(("--", ":"))):
            axes.axvline(x, color="black", linestyle=line, label=label, zorder=1)
        if ring:
            axes.plot(*ring[y_label], "o", ms=15, color="black", fillstyle="none", mew=2, label="chosen")
        axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
        axes.set_yscale("function", functions=(lambda y: -np.log10(101 - np.minimum(y, 100)), lambda t: 101 - 10**-t))
        (low, high), ticks = axes.get_ylim(), (0, 30, 50, 60, 70, 80, 85, *range(90, 101))
        axes.set_yticks([tick for tick in ticks if low <= tick <= high])
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.grid(alpha=0.3)
    figure.legend(*row[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=0.8)
    plt.close(figure)
    return figure


def pictures(images: Mapping[str, Tensor]) -> Figure:
    """Images side by side under their labels: (rows, columns) in grey, or (rows, columns, 3), entries from 0 to 1."""
    size = (2.7 * len(images), 3.1)
    # photographs make large PNGs, and a notebook has to stay below a megabyte
    figure, row = plt.subplots(1, len(images), figsize=size, dpi=80, layout="constrained", squeeze=False)
    plt.close(figure)
    for axes, (label, image) in zip(row[0], images.items(), strict=True):
        axes.imshow(image.detach().clamp(0, 1).float().numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(label, fontsize=9)
        axes.axis("off")
    return figure


def _figure(width: float, height: float):
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure, axes
