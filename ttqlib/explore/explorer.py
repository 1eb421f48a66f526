"""What every widget is made of."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO

import ipywidgets as widgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from .dress import Dress

ROOM = "calc(100% - 4px)"  # what the margins of ipywidgets leave of a row
WIDE = {"width": ROOM, "max_width": "52em"}
RESET = "Back to the start"
FEW_DECADES = 300  # the ratio of an axis' ends up to which each decade has three ticks


class Explorer(widgets.VBox):
    """Controls above a picture and a read-out; `draw(**values)` returns both, as a Figure and a string.

    `controls[name].value = …` moves a control from code, `readout.value` is the text that stands under the picture,
    `hint` the sentence below that, which says what to try. A button sets all controls back to where they stood first.
    `rows` are names of controls that stand side by side where the page is wide enough; by default each stands alone.
    `photograph`: the picture keeps its colours in a dark theme.
    """

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        draw: Callable[..., tuple[Figure, str]],
        rows: Sequence[Sequence[str]] | None = None,
        *,
        hint: str,
        photograph: bool = False,
    ):
        rows = [[name] for name in controls] if rows is None else rows
        self.controls, self.draw = {name: controls[name] for row in rows for name in row}, draw
        self.picture, self.readout = widgets.Image(format="png"), widgets.HTML()
        self.picture.layout = widgets.Layout(max_width=ROOM, align_self="flex-start")  # a VBox would stretch it
        self.hint, self.reset = widgets.HTML(hint), widgets.Button(description=RESET)
        self.reset.layout = widgets.Layout(align_self="flex-start")
        wrapped = widgets.Layout(flex_flow="row wrap")
        above = [widgets.Box([controls[name] for name in row], layout=wrapped) for row in rows]
        super().__init__([*above, self.picture, self.readout, self.hint, self.reset, Dress()])
        for part, name in ((self, "ttq-explorer"), (self.picture, "ttq-figure"), (self.readout, "ttq-readout")):
            part.add_class(name)
        self.hint.add_class("ttq-hint")
        if photograph:
            self.picture.add_class("ttq-photograph")
        self._start, self._waits, self._layout = self.values, False, None
        for control in self.controls.values():
            control.observe(self._redraw, "value")
        self.reset.on_click(self._back)
        self._redraw()

    @property
    def values(self) -> dict:
        """Where the controls stand: what `draw` is called with."""
        return {name: control.value for name, control in self.controls.items()}

    def _back(self, _button=None) -> None:
        """All controls as they stood first, and one picture for all of these moves."""
        self._waits = True
        try:
            for name, value in self._start.items():
                self.controls[name].value = value
        finally:
            self._waits = False
        self._redraw()

    def _redraw(self, _change=None) -> None:
        if self._waits:
            return
        with garbage_waits():
            self.picture.value, self.readout.value = self._drawn()

    def _drawn(self) -> tuple[bytes, str]:
        """The picture and the text. The figure is garbage at once: it never gets old enough to be hard to find.

        A layout engine measures every text twice before anything is drawn. So where the axes stood in the first picture
        they stand in the next ones, unless something would be cut off there.
        """
        figure, text = self.draw(**self.values)
        _thin_out_ticks(figure)
        frame = _frame(figure)
        if self._layout and self._layout[0] == frame and (picture := _painted_at(figure, self._layout[1])):
            return picture, text
        picture = painted(figure)
        if self._layout is None and not _is_cut_off(figure):
            self._layout = frame, [axes.get_position(original=True) for axes in figure.axes]
        return picture, text

    def __repr__(self) -> str:
        # what a reader sees on a page that shows no widgets, and what nbval compares
        return f"Explorer({', '.join(self.controls)}): run this cell in JupyterLab to move it"


def choice(label: str, options, value=None) -> widgets.ToggleButtons:
    """A row of buttons of which one is pressed: what has few values that are no numbers. Arrow keys move it."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    looks = {"layout": widgets.Layout(**WIDE), "style": {"button_width": "auto"}}
    return widgets.ToggleButtons(options=options, value=first if value is None else value, description=label, **looks)


def stops(label: str, options, value) -> widgets.SelectionSlider:
    """A slider over these values, or over pairs of a text and a value, that tells where it is let go."""
    looks = {"layout": widgets.Layout(**WIDE), "continuous_update": False}
    return widgets.SelectionSlider(options=list(options), value=value, description=label, **looks)


def whole(label: str, value: int, least: int, most: int) -> widgets.IntSlider:
    """A slider over whole numbers, that tells where it is let go."""
    looks = {"layout": widgets.Layout(**WIDE), "continuous_update": False}
    return widgets.IntSlider(value, least, most, description=label, **looks)


def painted(figure: Figure) -> bytes:
    """The PNG of a figure, drawn once: `savefig` draws it twice, the first time only to lay it out."""
    canvas, image = FigureCanvasAgg(figure), BytesIO()
    canvas.draw()
    imsave(image, np.asarray(canvas.buffer_rgba()), format="png")
    return image.getvalue()


def _painted_at(figure: Figure, places: Sequence[Bbox]) -> bytes | None:
    """The PNG of a figure whose axes stand at these places, or None where the edge would cut something off."""
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    for axes, place in zip(figure.axes, places, strict=True):
        axes.set_position(place)
    picture = painted(figure)
    if not _is_cut_off(figure):
        return picture
    for axes in figure.axes:
        axes.set_in_layout(True)  # which `set_position` ended
    figure.set_layout_engine(engine)
    return None


def _thin_out_ticks(figure: Figure) -> None:
    """A tick costs a millisecond at every move, and a logarithmic axis has dozens: 1, 2 and 5 of a decade will do."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_minor_locator(), LogLocator):  # what draws the figure has not chosen other ticks
            low, high = sorted(axis.get_view_interval())
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_DECADES * low else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())


def _frame(figure: Figure) -> tuple:
    """What a layout depends on and can be told without measuring: two figures alike in it have room for each other."""
    titles = [
        text.count("\n") for axes in figure.axes for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    ]
    return tuple(figure.get_size_inches()), titles, [len(legend.get_texts()) for legend in figure.legends]


def _is_cut_off(figure: Figure) -> bool:
    """Whether something that was drawn touches the edge of the picture."""
    pixels = np.asarray(figure.canvas.buffer_rgba())
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    return any((edge != edge[0]).any() for edge in edges)


@contextmanager
def garbage_waits() -> Iterator[None]:
    """No search for garbage inside: beside transformers one takes half a second, and a figure sets off several."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
