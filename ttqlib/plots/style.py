"""What all figures share: their looks, and a sentence for those who cannot see them."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
FILLS = ("black", "tab:orange", "lightsteelblue", "tab:green", "white", "grey")
HATCHES = ("", "//", "..", "xx")
WORDS = 12  # of a drawing that are read out
SHADES = ("lightsteelblue", "white", "moccasin", "lightgrey")


class DescribedFigure(Figure):
    """A figure that a notebook stores with alternative text, made of its titles, axes and legends.

    The text lies in the metadata of the picture, `{"image/png": {"alt": …}}`, where the book and nbconvert's classic
    template read it; JupyterLab itself shows no alternative text of pictures.
    """

    def alt_text(self) -> str:
        """What is drawn against what, panel by panel, and which names the legend has."""
        panels = [said for axes in self.axes if (said := _panel(axes))]
        legends = [*self.legends, *(axes.get_legend() for axes in self.axes if axes.get_legend())]
        names = dict.fromkeys(text.get_text() for legend in legends for text in legend.get_texts())
        shown = f" Shown: {', '.join(names)}." if names else ""
        return f"{'; '.join(panels) or 'A drawing'}.{shown}".replace("$", "")

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """No data of its own, which IPython then draws as for any figure, but metadata of the picture."""
        return {}, {"image/png": {"alt": self.alt_text()}}


def _panel(axes: Axes) -> str:
    """A panel in words: its title, and what is drawn upright against what is drawn level; of a drawing, its words."""
    drawn = " against ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
    if not drawn and (words := [text.get_text() for text in axes.texts][:WORDS]):
        drawn = f"a drawing with the words {', '.join(words)}"
    return ": ".join(filter(None, (axes.get_title(), drawn))).replace("\n", " ")


def side_by_side(
    count: int, width: float, height: float, layout: str | None = "constrained", **options
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, closed in pyplot, and its axes side by side; `options` as of `plt.subplots`."""
    size, kind = (width, height), DescribedFigure
    figure, row = plt.subplots(1, count, figsize=size, squeeze=False, layout=layout, FigureClass=kind, **options)
    plt.close(figure)
    return figure, list(row[0])


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes."""
    figure, (axes,) = side_by_side(1, width, height)
    return figure, axes
