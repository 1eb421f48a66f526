"""One dress for every explorer: keys that stay inside it, names for a screen reader, colours of the page's theme."""

from pathlib import Path

import anywidget

HERE = Path(__file__).parent


class Dress(anywidget.AnyWidget):
    """Stands in an explorer, shows nothing, and sees to what Python cannot reach: the elements of the page."""

    _esm = HERE / "dress.js"
    _css = HERE / "dress.css"
