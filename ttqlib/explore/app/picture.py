"""The picture of measured plans and the table beside it: what a dot is, is told; a click or Enter opens its plan."""

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Picture(anywidget.AnyWidget):
    """Drawn in the page, in the colours of its theme and as wide as there is room; nothing is computed here.

    `points`, `columns`, `here`, `beside` and `goal` are what `pages` makes. `clicked` is [the place of a point in
    `points`, how many clicks there were]: the same point can be clicked twice.
    """

    _esm = HERE / "picture.js"
    _css = HERE / "picture.css"
    points = traitlets.List().tag(sync=True)
    columns = traitlets.List().tag(sync=True)
    here = traitlets.Dict().tag(sync=True)
    beside = traitlets.Dict().tag(sync=True)
    goal = traitlets.Dict().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)  # of the metric
    clicked = traitlets.List([-1, 0]).tag(sync=True)
