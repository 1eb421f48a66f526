"""The panel that turns a plan: a group of layers or one layer of it, its format, rank and bits, and the rest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets as widgets

from ...plans.configs import REST as REST_BITS
from ...plans.configs import TTQConfig
from ..explorer import choice, stops
from .layers import CORES, REST, Layers, Setting

RANKS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 30, 36, 40, 48, 60, 72, 80, 96, 128, 160, 192, 224, 256)
BITS = {f"{bits} bit{'s' * (bits > 1)}": bits for bits in (1, 2, 3, 4, 5, 6, 8)} | {"float32": 32}
WHOLE = "all of the group"
DIFFER = "The layers of this group are not all alike: what you move, changes in all of them."


class Turning(widgets.VBox):
    """Controls of one plan; `changed(plan)` is called when somebody has moved one of them."""

    def __init__(self, layers: Layers, plan: TTQConfig, changed: Callable[[TTQConfig], None]):
        self.layers, self.plan, self._changed, self._quiet = layers, plan, changed, False
        groups = list(layers.groups)
        start = "attention" if "attention" in groups else groups[0]
        self.group = choice("group of layers", groups, start)
        self.layer = stops("layers", [(WHOLE, WHOLE)], WHOLE)
        self.form = choice("format", [REST])
        self.rank = stops("rank", RANKS, RANKS[0])
        self.bits = stops("bits of each number", BITS.items(), 32)
        self.rest = stops("bits of the rest", [(f"{b} bits" if b < 32 else "float32", b) for b in REST_BITS[::-1]], 32)
        self.note = widgets.HTML()
        self.controls = {name: getattr(self, name) for name in ("group", "layer", "form", "rank", "bits", "rest")}
        super().__init__([self.group, self.layer, self.form, self.rank, self.bits, self.note, self.rest])
        self.group.observe(lambda _: self.show(self.plan), "value")
        self.layer.observe(lambda _: self.show(self.plan), "value")
        for name in ("form", "rank", "bits"):
            self.controls[name].observe(self._turn(name), "value")
        self.rest.observe(lambda move: self._tell(self.layers.plan(self.plan.layers, move["new"])), "value")
        self.show(plan)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that the controls speak of."""
        group = self.layers.groups[self.group.value]
        return group if self.layer.value == WHOLE else (self.layer.value,)

    def show(self, plan: TTQConfig) -> None:
        """Put all controls where this plan has them; nobody is told of a change."""
        self.plan = plan
        with self._silence():
            group = self.layers.groups[self.group.value]
            options = ((WHOLE, WHOLE), *_shortened(group)) if len(group) > 1 else ((WHOLE, WHOLE),)
            if self.layer.options != options:
                self.layer.options = options
                self.layer.value = WHOLE
            common = self.layers.common(plan, self.names)
            self._set(common or self.layers.setting(plan, self.names[0]))
            self.note.value = "" if common else DIFFER
            self.rest.value = plan.rest

    def _set(self, setting: Setting) -> None:
        formats = self.layers.formats(self.names)
        if self.form.options != formats:
            self.form.options = formats
        self.form.value = setting.form if setting.form in formats else None
        if setting.rank is not None and setting.rank not in self.rank.options:
            self.rank.options = tuple(sorted({*RANKS, setting.rank}))
        self.rank.value = setting.rank or self.rank.value
        if setting.bits not in BITS.values():  # 7, say, of a plan that was written by hand
            self.bits.options = sorted(
                [*BITS.items(), (f"{setting.bits} bits", setting.bits)], key=lambda pair: pair[1]
            )
        self.bits.value = setting.bits
        self.rank.disabled, self.bits.disabled = setting.form not in CORES, setting.form == REST

    def _turn(self, what: str) -> Callable:
        def turn(move) -> None:
            if not self._quiet and move["new"] is not None:
                self._tell(self.layers.turned(self.plan, self.names, **{what: move["new"]}))

        return turn

    def _tell(self, plan: TTQConfig) -> None:
        if not self._quiet:
            self._changed(plan)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _shortened(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name without the parts that all of them begin with, and whole."""
    parts = [name.split(".") for name in names]
    shared = next(place for place, beside in enumerate(zip(*parts)) if len(set(beside)) > 1)
    return ((".".join(own[shared:]), name) for own, name in zip(parts, names))
