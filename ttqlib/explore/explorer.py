"""What every widget is made of."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO

import ipywidgets as widgets
from matplotlib.figure import Figure


class Explorer(widgets.VBox):
    """Controls above a picture and a read-out; `draw(**values)` returns both, as a Figure and a string.

    `controls[name].value = …` moves a control from code, `readout.value` is the text that stands under the picture.
    `rows` are names of controls that stand side by side where the page is wide enough; by default each stands alone.
    """

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        draw: Callable[..., tuple[Figure, str]],
        rows: Sequence[Sequence[str]] | None = None,
    ):
        rows = [[name] for name in controls] if rows is None else rows
        self.controls, self.draw = {name: controls[name] for row in rows for name in row}, draw
        self.picture, self.readout = widgets.Image(format="png"), widgets.HTML()
        self.picture.layout = widgets.Layout(max_width="100%", align_self="flex-start")  # a VBox would stretch it
        wrapped = widgets.Layout(flex_flow="row wrap")
        above = [widgets.Box([controls[name] for name in row], layout=wrapped) for row in rows]
        super().__init__([*above, self.picture, self.readout])
        for part, name in ((self, "ttq-explorer"), (self.picture, "ttq-figure"), (self.readout, "ttq-readout")):
            part.add_class(name)
        for control in self.controls.values():
            control.observe(self._redraw, "value")
        self._redraw()

    @property
    def values(self) -> dict:
        """Where the controls stand: what `draw` is called with."""
        return {name: control.value for name, control in self.controls.items()}

    def _redraw(self, _change=None) -> None:
        with _garbage_waits():
            self.picture.value, self.readout.value = self._drawn()

    def _drawn(self) -> tuple[bytes, str]:
        """The picture and the text. The figure is garbage at once: it never gets old enough to be hard to find."""
        figure, text = self.draw(**self.values)
        image = BytesIO()
        figure.savefig(image, format="png")
        return image.getvalue(), text

    def __repr__(self) -> str:
        # what a reader sees on a page that shows no widgets, and what nbval compares
        return f"Explorer({', '.join(self.controls)}): run this cell in JupyterLab to move it"


@contextmanager
def _garbage_waits() -> Iterator[None]:
    """No search for garbage inside: beside transformers one takes half a second, and a figure sets off several."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
