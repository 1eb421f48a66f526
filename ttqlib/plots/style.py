"""What all figures share: their looks, and a sentence for those who cannot see them."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .words import panel

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
FILLS = ("black", "tab:orange", "lightsteelblue", "tab:green", "white", "grey")
HATCHES = ("", "//", "..", "xx")
PAPER = "#eceae6"  # behind all figures: dark enough not to glare from a dark page, black on it reads well
SHADES = ("lightsteelblue", "white", "moccasin", "lightgrey")


class DescribedFigure(Figure):
    """A figure that a notebook stores with alternative text: `said`, and each panel's titles, axes, series and numbers.

    The text lies in the metadata of the picture, `{"image/png": {"alt": …}}`, and the book shows it. JupyterLab 4.6 and
    nbconvert 7.17 look for none: theirs is the same for every picture, or empty.
    """

    said = ""  # what a function that draws something else than series says of it
    complete = False  # whether that is all

    def alt_text(self) -> str:
        """What the figure shows, in words and numbers; `$` of formulas is left out."""
        series = [axes for axes in self.axes if axes.axison and axes.get_label() != "<colorbar>"]
        panels = [] if self.complete else map(panel, series)
        sentences = [text[0].upper() + text[1:].rstrip(".") for text in (self.said, *panels) if text]
        return ". ".join(sentences or ["A drawing"]).replace("$", "") + "."

    def __repr__(self) -> str:
        """As of any figure: outputs that hold it are compared."""
        return super().__repr__().replace(type(self).__name__, Figure.__name__)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """No data of its own, which IPython then draws as for any figure, but metadata of the picture."""
        return {}, {"image/png": {"alt": self.alt_text()}}


def side_by_side(
    count: int, width: float, height: float, layout: str | None = "constrained", **options
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, closed in pyplot, and its axes side by side; `options` as of `plt.subplots`."""
    looks = {"figsize": (width, height), "facecolor": PAPER, "layout": layout, "FigureClass": DescribedFigure}
    figure, row = plt.subplots(1, count, squeeze=False, **looks, **options)
    plt.close(figure)
    for axes in row[0]:
        axes.set_facecolor(PAPER)
    return figure, list(row[0])


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes."""
    figure, (axes,) = side_by_side(1, width, height)
    return figure, axes
