"""Pictures of what things look like: trains, steps of a method, images."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .style import one_panel, side_by_side


def tensor_network(
    cores: Sequence[Tensor], names: Sequence[str] = (), sides: Mapping[str, int] | None = None
) -> Figure:
    """The train as physicists draw it: a disc for a core, a line for an axis, with sizes.

    Lines between discs are bonds (TT-ranks), free lines are modes; a core of order 4 has two of those. The area of a
    disc is proportional to how many numbers the core holds, down to the smallest that can be seen. `names` are those
    of the free lines, from core to core and the lower one first, `sides` says how many cores each part of the train
    has, from the left: {"U": 3, "V": 3}.
    """
    shapes = [tuple(core.shape) for core in cores]
    numbers, labels = [core.numel() for core in cores], iter(names)
    two_legs = len(shapes[0]) == 4
    top = (1.2 if two_legs else 0.5) + (0.5 if sides else 0)
    figure, axes = one_panel(1.35 * len(cores) + 0.6, 1.7 + top)
    for k, shape in enumerate(shapes):
        if k + 1 < len(shapes):
            axes.plot([k, k + 1], [0, 0], color="black", linewidth=1.5, zorder=1)
            axes.annotate(f"{shape[-1]}", (k + 0.5, 0), (0, 4), textcoords="offset points", ha="center")
        for size, direction in zip(shape[1:-1], (-1, 1), strict=False):
            axes.plot([k, k], [0, direction * 0.75], color="black", linewidth=1.5, zorder=1)
            text, end = f"{next(labels)}: {size}" if names else f"{size}", "top" if direction < 0 else "bottom"
            axes.annotate(text, (k, direction * 0.8), ha="center", va=end, weight="bold")
    areas = [max(60, 1600 * n / max(numbers)) for n in numbers]
    axes.scatter(range(len(cores)), [0] * len(cores), s=areas, color="lightsteelblue", edgecolors="black", zorder=2)
    for k, (shape, n) in enumerate(zip(shapes, numbers, strict=True)):
        label = " × ".join(map(str, shape)) + f"\n{n:,} numbers"
        axes.annotate(label, (k, -1.2), ha="center", va="top", fontsize=9)
    _brackets(axes, sides or {}, top - 0.45)
    axes.set(xlim=(-0.7, len(cores) - 0.3), ylim=(-1.75, top))
    axes.axis("off")
    return figure


def _brackets(axes: Axes, sides: Mapping[str, int], y: float) -> None:
    """A bar over as many discs as each side has, and its name on it."""
    first = 0
    for side, count in sides.items():
        axes.plot([first - 0.35, first + count - 0.65], [y, y], color="black", linewidth=3)
        axes.annotate(side, (first + (count - 1) / 2, y + 0.05), ha="center", va="bottom", weight="bold")
        first += count


def pipeline(steps: Mapping[str, str]) -> Figure:
    """Boxes from left to right, joined by arrows: a step in each box, and under it what is said of the step."""
    figure, axes = one_panel(1.75 * len(steps), 1.5)
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


def pictures(images: Mapping[str, Tensor]) -> Figure:
    """Images side by side under their labels: (rows, columns) in grey, or (rows, columns, 3), entries from 0 to 1."""
    # photographs make large PNGs, and a notebook has to stay below a megabyte
    figure, row = side_by_side(len(images), 2.7 * len(images), 3.1, dpi=80)
    for axes, (label, image) in zip(row, images.items(), strict=True):
        axes.imshow(image.detach().clamp(0, 1).float().numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(label, fontsize=9)
        axes.axis("off")
    return figure


def layer_links(depth: int, maps: Mapping[str, Mapping[int, int]]) -> Figure:
    """Which hidden states of a teacher of `depth` layers a student's are matched to, a panel for each map.

    A map is {of the student: of the teacher}, and 0 is what the embeddings give. Both stand from the bottom up.
    """
    figure, row = side_by_side(len(maps), 3.3 * len(maps), 0.42 * (depth + 1) + 1.0)
    for axes, (label, links) in zip(row, maps.items(), strict=True):
        used = set(links.values())
        for layer in range(depth + 1):
            _state(axes, 0, layer, layer, "lightsteelblue" if layer in used else "white")
        for layer in links:
            _state(axes, 1, layer, layer, "moccasin")
        for ours, theirs in links.items():
            arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 24, "shrinkB": 24}
            axes.annotate("", (0, theirs), (1, ours), arrowprops=arrow)
        axes.text(0, depth + 0.75, "teacher", ha="center", weight="bold")
        axes.text(1, depth + 0.75, "student", ha="center", weight="bold")
        axes.set_title(label, fontsize=9)
        axes.set(xlim=(-0.45, 1.45), ylim=(-0.6, depth + 1.2))
        axes.axis("off")
    return figure


def _state(axes: Axes, x: float, y: float, layer: int, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "black"}
    axes.text(x, y, f"layer {layer}" if layer else "words", ha="center", va="center", bbox=box, fontsize=9)
