"""Tables as shades, with their numbers."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .style import one_panel, side_by_side


def similarities(matrices: Mapping[str, Tensor]) -> Figure:
    """Square matrices of cosine similarities side by side under their labels, on one scale from 0 to 1.

    A dot marks the largest entry of each row, so that the picture can be read without its shades.
    """
    figure, row = side_by_side(len(matrices), 2.9 * len(matrices) + 0.7, 3.1)
    said = []
    for axes, (label, matrix) in zip(row, matrices.items(), strict=True):
        matrix = matrix.detach().double()
        image = axes.imshow(matrix.numpy(), cmap="Greys", vmin=0, vmax=1)
        axes.plot(matrix.argmax(1).tolist(), range(len(matrix)), "o", color="orange", markeredgecolor="black")
        axes.set(title=label, xlabel="second wording", xticks=[], yticks=[])
        found = int((matrix.argmax(1) == torch.arange(len(matrix))).sum())
        beside = (matrix.sum() - matrix.trace()) / (matrix.numel() - len(matrix))
        shades = f"diagonal {matrix.diag().mean():.1f} on average, beside it {beside:.1f}"
        said.append(f"{label}: {shades}; the dot is on the diagonal in {found} of {len(matrix)} rows")
    row[0].set_ylabel("first wording")
    figure.complete = True
    figure.said = f"squares of shades, one for each pair of sentences. {'. '.join(said)}"
    figure.colorbar(image, ax=row, label="cosine similarity")
    return figure


def heat_map(
    table: Sequence[Sequence[float]],
    rows: tuple[str, Sequence],
    columns: tuple[str, Sequence],
    heights: Sequence[Sequence[float]] | None = None,
    levels: Mapping[float, str] | None = None,
    label: str = "relative error",
    darkest: float = 1,
    framed: int | None = None,
) -> Figure:
    """A table of errors as shades with its numbers; on request lines of equal height over it: equal bytes, say.

    `rows` and `columns` are an axis label and the ticks. `heights`, of the shape of `table`, are drawn as a contour
    line at each of the `levels`, interpolated on a logarithmic scale and labelled with its text. `label` names what
    the shades show; errors of `darkest` and more are the darkest. The column number `framed` is in a frame.
    """
    figure, axes = one_panel(0.75 * len(columns[1]) + 1.6, 0.42 * len(rows[1]) + 1.2)
    shades = {"cmap": "Blues", "vmin": 0, "vmax": 2 * darkest}  # only the paler half: numbers lie on it
    image = axes.imshow(table, aspect="auto", origin="lower", **shades)
    for y, line in enumerate(table):
        for x, value in enumerate(line):
            axes.text(x, y, f"{value:.0%}", ha="center", va="center")
    if heights is not None:
        _contours(axes, heights, levels)
    if framed is not None:
        corner = (framed - 0.5, -0.5)
        axes.add_patch(Rectangle(corner, 1, len(rows[1]), fill=False, linewidth=3, clip_on=False, label="chosen"))
    axes.set(xlabel=columns[0], ylabel=rows[0])
    axes.set_xticks(range(len(columns[1])), columns[1])
    axes.set_yticks(range(len(rows[1])), rows[1])
    scale = {"boundaries": [darkest * k / 100 for k in range(101)], "ticks": [0, darkest / 2, darkest]}
    figure.colorbar(image, ax=axes, label=label, **scale)
    figure.complete = True
    figure.said = _table_in_words(table, rows, columns, label)
    if heights is not None:
        figure.said += f"; dashed lines at {', '.join(levels.values())}"
    if framed is not None:
        figure.said += f"; framed: {columns[1][framed]}"
    return figure


def _contours(axes: Axes, heights: Sequence[Sequence[float]], levels: Mapping[float, str]) -> None:
    """Dashed lines of equal height with their texts to the right of the panel."""
    right = len(heights[0]) - 0.4
    logs = torch.tensor(heights, dtype=torch.float64).log().numpy()
    texts = {float(torch.tensor(level, dtype=torch.float64).log()): text for level, text in sorted(levels.items())}
    contours = axes.contour(logs, levels=list(texts), colors="tab:orange", linewidths=2, linestyles="--")
    for path, text in zip(contours.get_paths(), texts.values(), strict=True):
        if len(path.vertices):  # the label stands beside the right end of its line: numbers fill the cells
            x, y = max(map(tuple, path.vertices))
            axes.annotate(text, (x, y), (right, y), va="center", annotation_clip=False)


def _table_in_words(table: Sequence[Sequence[float]], rows: tuple, columns: tuple, label: str) -> str:
    """Its size, its corners, its smallest and its largest entry."""
    places = [(value, y, x) for y, line in enumerate(table) for x, value in enumerate(line)]
    ends = (("smallest", min(places)), ("largest", max(places)))
    found = [
        f"{name} {value:.0%} at {rows[0]} {rows[1][y]}, {columns[0]} {columns[1][x]}" for name, (value, y, x) in ends
    ]
    size = f"{len(table)} rows ({rows[0]}) and {len(table[0])} columns ({columns[0]})"
    return f"{label} as a table of {size}; {', '.join(found)}"
