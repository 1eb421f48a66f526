"""What all figures share."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
FILLS = ("black", "tab:orange", "lightsteelblue", "tab:green", "white", "grey")
SHADES = ("lightsteelblue", "white", "moccasin", "lightgrey")


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, closed in pyplot, and its only axes."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure, axes
