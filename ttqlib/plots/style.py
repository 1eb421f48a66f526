"""What all figures share."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
FILLS = ("black", "tab:orange", "lightsteelblue", "tab:green", "white", "grey")
HATCHES = ("", "//", "..", "xx")
SHADES = ("lightsteelblue", "white", "moccasin", "lightgrey")


def side_by_side(
    count: int, width: float, height: float, layout: str | None = "constrained", **options
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, closed in pyplot, and its axes side by side; `options` as of `plt.subplots`."""
    figure, row = plt.subplots(1, count, figsize=(width, height), squeeze=False, layout=layout, **options)
    plt.close(figure)
    return figure, list(row[0])


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes."""
    figure, (axes,) = side_by_side(1, width, height)
    return figure, axes
