"""The network of a layer made of trains: its input as one more disc."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from .style import one_panel

INPUT, CORES, OUTPUT = 1.3, 0.0, -1.0  # heights of the input, of the cores, and of the ends of the output lines


def layer_network(in_modes: Sequence[int], out_modes: Sequence[int], ranks: Sequence[int]) -> Figure:
    """How an input enters a layer of trains: a line for each axis, with its size; a line that ends is an axis of y.

    Lines between x and the first cores are the input modes, those down from the others the output modes, and lines
    between neighbours are bonds. `ranks` has the ones at both ends. Dashed frames hold what is merged to U and to V.
    """
    inputs, modes = len(in_modes), (*in_modes, *out_modes)
    figure, axes = one_panel(1.35 * len(modes) + 0.8, 3.6)
    line = {"color": "black", "linewidth": 1.5, "zorder": 1}
    for k, mode in enumerate(modes):
        end, beside = (INPUT, 0.6) if k < inputs else (OUTPUT, -0.75)
        axes.plot([k, k], [CORES, end], **line)
        axes.annotate(f"{mode}", (k, beside), (5, 0), textcoords="offset points", va="center", weight="bold")
        if k + 1 < len(modes):
            axes.plot([k, k + 1], [CORES, CORES], **line)
            axes.annotate(f"{ranks[k + 1]}", (k + 0.5, CORES), (0, 4), textcoords="offset points", ha="center")
        axes.plot(k, CORES, "o", markersize=26, markerfacecolor="lightsteelblue", markeredgecolor="black", zorder=3)
        axes.text(k, CORES, f"$G_{k + 1}$", ha="center", va="center", color="black", zorder=4)
    box = {"boxstyle": "round,pad=0.1", "facecolor": "moccasin", "edgecolor": "black", "zorder": 3}
    axes.add_patch(FancyBboxPatch((-0.2, INPUT - 0.12), inputs - 0.6, 0.24, **box))
    axes.text((inputs - 1) / 2, INPUT, "x", ha="center", va="center", color="black", zorder=4)
    axes.plot([-0.9, -0.3], [INPUT, INPUT], **line)
    axes.annotate("rows", (-0.9, INPUT), (0, 4), textcoords="offset points", weight="bold")
    axes.text(inputs + (len(out_modes) - 1) / 2, OUTPUT - 0.1, "y", ha="center", va="top")
    for name, left, count in (("U", 0, inputs), ("V", inputs, len(out_modes))):
        frame = Rectangle((left - 0.38, -0.4), count - 0.24, 0.8, fill=False, linestyle="--", linewidth=1, zorder=2)
        axes.add_patch(frame)
        axes.annotate(name, (left - 0.34, -0.36), va="bottom", style="italic")
    axes.set(xlim=(-1.1, len(modes) - 0.4), ylim=(-1.4, 1.6))
    axes.axis("off")
    lines = (("inputs of modes", in_modes), ("outputs of modes", out_modes), ("bonds", ranks[1:-1]))
    sizes = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in lines)
    figure.said = f"a layer of trains: x above is joined to the first {inputs} cores in a row of {len(modes)} (U), "
    figure.said += f"lines of the others (V) go down to y: {sizes}"
    return figure
