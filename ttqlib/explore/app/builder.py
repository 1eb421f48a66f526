"""The app itself: a model, its plan in bars and numbers, what was measured, and everything that can be done with it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import ipywidgets as widgets

from ...measures.roofline import Machine, this_machine
from ...plans.configs import TTQConfig
from ..dress import Dress
from ..explorer import WIDE, choice, garbage_waits, stops
from . import pages
from .costs import Weigher
from .evidence import Evidence, Quality, evidence_for
from .filling import Filling
from .measured import PRESETS, Measured
from .picture import Picture
from .program import program
from .sheet import History, Sheet, differences, restored
from .sources import known, opened
from .taking import Taking
from .turning import Turning

POINTS = (0.5, 1, 2, 3, 5)
OWN = "your own"
HINTS = {
    "model": "Choose a model. Of your own one only the shapes are read: a folder with a config.json, or a hub's name.",
    "plan": "Turn a group of layers, or one layer of it. Try fewer bits before a smaller rank: expect the bar of the "
    "words or of the feed-forward matrices to be what is left.",
    "fill": "Every layer is tried on sentences, and the plan that is predicted to lose least takes the place of yours. "
    "It needs a model with trained weights: choose your own.",
    "ask": "Ask for a measured plan: it takes the place of yours. Within so many points means: on every split scored.",
    "compare": "Put this plan beside the next ones you try: every difference is then named.",
    "take": "The program runs as it stands. The file and the link bring you back to this very moment.",
}


class PlanApp(widgets.VBox):
    """Any model's plan, seen, turned, compared and taken home.

    `results` is the folder of result files; `machine` what times are foretold for, by default this one, which is then
    measured for a moment. `query` is what stands after the question mark of the page's address: a plan, if somebody
    has followed a link.
    """

    def __init__(self, results: Path, machine: Machine | None = None, query: str = ""):
        self.results, self.machine = Path(results), machine or this_machine()
        self._opened: dict[str, tuple] = {}
        self.history: History | None = None
        self.readout, self.message, self.bars, self.compared = (widgets.HTML() for _ in range(4))
        self.picture, self.taking = Picture(), Taking(self.restore)
        self.filling = Filling(self.try_to, self._filled)
        self._model_controls()
        self._buttons()
        self.panel, self.metric, self.presets = widgets.VBox(), widgets.VBox(), widgets.Box()
        self.presets.layout = widgets.Layout(flex_flow="row wrap")
        for part, name in ((self, "ttq-explorer"), (self.readout, "ttq-readout"), (self.message, "ttq-message")):
            part.add_class(name)
        super().__init__(self._sections())
        self.add_class("ttq-app")
        self._open("atis")
        if plans := parse_qs(query).get("plan"):
            self.restore(plans[0])

    # ------------------------------------------------------------------------------------------------------- what shows

    def _model_controls(self) -> None:
        names = [(source.label, key) for key, source in known().items()]
        self.model = choice("model", [*names, (OWN, OWN)])
        example = self.results.parent / "small_teacher"  # trained weights and a tokenizer, in every checkout
        self.own = widgets.Text(
            str(example) if example.is_dir() else "",
            **{"description": "folder or name", "placeholder": "./my-model or roberta-base", "layout": WIDE},
        )
        self.open_own = widgets.Button(description="Open")
        self.own_row = widgets.VBox([self.own, self.open_own])
        self.model.observe(self._pick, "value")
        self.open_own.on_click(lambda _: self.try_to(lambda: self._open(self.own.value.strip())))

    def _buttons(self) -> None:
        self.points = stops("points behind dense", [(f"{p:g} point{'s' * (p != 1)}", p) for p in POINTS], 1)
        self.budget = stops("bytes on disk", [("–", 0)], 0)
        jobs = {
            "within": ("Smallest within …", lambda: self._go_to(self._smallest())),
            "fits": ("Best that fits …", lambda: self._go_to(self._best())),
            "nearest": ("Nearest measured", lambda: self._go_to(self.evidence.nearest(self.plan))),
            "undo": ("Undo", lambda: self._show(self.history.undo())),
            "redo": ("Redo", lambda: self._show(self.history.redo())),
            "reset": ("Back to the start", lambda: self._show(self.history.turned(self.start))),
            "beside": ("Put this plan beside", lambda: self._then(beside=self.plan)),
            "swap": ("Swap the two", lambda: self._then(plan=self.history.now.beside, beside=self.plan)),
            "alone": ("Take it away", lambda: self._then(beside=None)),
        }
        self.buttons = {name: widgets.Button(description=label) for name, (label, _) in jobs.items()}
        for name, (_, job) in jobs.items():
            self.buttons[name].on_click(lambda _, job=job: self.try_to(job))
            self.buttons[name].add_class(f"ttq-{name}")
        self.points.observe(lambda _: self._ask(), "value")
        self.budget.observe(lambda _: self._ask(), "value")
        self.picture.observe(lambda move: self._go_to(self.evidence.rows[move["new"][0]]), "clicked")

    def _sections(self) -> list[widgets.Widget]:
        def row(*names: str) -> widgets.Box:
            return widgets.Box([self.buttons[name] for name in names], layout=widgets.Layout(flex_flow="row wrap"))

        self.asking = widgets.VBox(
            [_heading("Measured plans", HINTS["ask"]), self.metric, self.points, row("within"), self.budget]
            + [row("fits", "nearest"), self.presets, widgets.HTML(pages.marks()), self.picture]
        )
        one = [
            *(_heading("Model", HINTS["model"]), self.model, self.own_row, self.message),
            *(self.readout, row("undo", "redo", "reset"), self.bars),
            *(_heading("Turn the plan", HINTS["plan"]), self.panel),
            *(_heading("Fill a budget", HINTS["fill"]), self.filling),
        ]
        other = [
            *(self.asking, _heading("Compare", HINTS["compare"]), row("beside", "swap", "alone"), self.compared),
            *(_heading("Take it home", HINTS["take"]), self.taking),
        ]
        columns = widgets.Box([widgets.VBox(one), widgets.VBox(other)])
        columns.add_class("ttq-columns")
        return [columns, Dress()]

    # -------------------------------------------------------------------------------------------------- what is done

    @property
    def plan(self) -> TTQConfig:
        """The plan as it is."""
        return self.history.now.plan

    def try_to(self, job: Callable[[], None]) -> None:
        """Do something that may be refused; then the page says why, and nothing has changed."""
        try:
            self.message.value = ""
            job()
        except ValueError as error:
            self.message.value = pages.escape(str(error).splitlines()[0])

    def _pick(self, move: Mapping) -> None:
        self.own_row.layout.display = "" if move["new"] == OWN else "none"
        if move["new"] == OWN != self.model_shown:
            self.message.value = f"Name a folder and press Open. Until then this page shows: {self.source.label}."
        elif move["new"] != self.model_shown:
            self.try_to(lambda: self._open(move["new"]))
            self.model.value = self.model_shown  # where it could not be opened

    @property
    def model_shown(self) -> str:
        """What the choice of models calls the model of this page."""
        return self.source.key if self.source.key in known() else OWN

    def _open(self, key: str, sheet: Sheet | None = None) -> None:
        """Another model, with the plan of a sheet, or with the one it begins with: a step that can be undone."""
        self._read(key)
        sheet = None if sheet is None else restored(sheet, self._opened[key][1].layers)
        self._enter(key)
        sheet = sheet or Sheet(key, self.start)
        self._show(self.history.then(sheet) if self.history else History(sheet))

    def _read(self, key: str) -> None:
        """The shapes of a model, and what was measured of it; once."""
        if key not in self._opened:
            self.message.value = "Reading the shapes …"
            source = opened(key)
            weigher = Weigher(source.bare())
            self._opened[key] = source, weigher, evidence_for(source.task, self.results, weigher)
            self.message.value = ""

    def _enter(self, key: str) -> None:
        """The page is for this model from now on."""
        source, weigher, found = self._opened[key]
        self.source, self.weigher, self.evidences = source, weigher, found
        self.evidence: Evidence | None = found[0] if found else None
        self.start = self._first()
        self.dense = self.weigher.cost(TTQConfig())
        self.turning = Turning(weigher.layers, self.start, lambda plan: self._then(plan=plan))
        self.panel.children = [self.turning]
        self.model.value = key if key in known() else OWN
        self.own.value = self.own.value if key in known() else key
        self.own_row.layout.display = "" if self.model.value == OWN else "none"
        self.message.value = ""
        self.filling.show(source, source.dense_bytes or self.dense.stored_bytes)
        self._evidence_controls()

    def _first(self) -> TTQConfig:
        """What a model begins with: the plan of its first preset, or 8 bits everywhere."""
        if self.evidence and (row := self.evidence.preset(next(iter(PRESETS[self.source.task].values())))):
            return row.plan
        layers = self.weigher.layers
        return layers.turned(layers.plan({}, 8), layers.all, form="dense", bits=8)

    def _evidence_controls(self) -> None:
        self.asking.layout.display = "" if self.evidence else "none"
        if self.evidence is None:
            self.picture.points = []
            return
        self.budget.options = pages.budgets(self.evidence)
        names = [evidence.task.name for evidence in self.evidences]
        metric = choice("quality", names)
        metric.observe(lambda move: self._choose(names.index(move["new"])), "value")
        self.metric.children = [metric] if len(names) > 1 else []
        buttons = []
        for name, wanted in PRESETS[self.source.task].items():
            buttons.append(widgets.Button(description=name))
            buttons[-1].on_click(
                lambda _, wanted=wanted: self.try_to(lambda: self._go_to(self.evidence.preset(wanted)))
            )
        dense = widgets.Button(description="dense")
        dense.on_click(lambda _: self._then(plan=TTQConfig()))
        self.presets.children = [dense, *buttons]
        self._draw_evidence()

    def _choose(self, number: int) -> None:
        self.evidence = self.evidences[number]
        self._draw_evidence()
        self._show(self.history)

    def _draw_evidence(self) -> None:
        evidence = self.evidence
        self._ask()
        with self.picture.hold_sync():
            self.picture.name, self.picture.goal = evidence.task.name, dict(pages.goal(evidence))
            self.picture.columns, self.picture.points = pages.columns(evidence), pages.points(evidence)

    def _smallest(self) -> Measured | None:
        return self.evidence.smallest_within(self.points.value)

    def _best(self) -> Measured | None:
        return self.evidence.best_within(1000 * self.budget.value)

    def _ask(self) -> None:
        points = self.points.value
        within = f"{points:g} point{'s' * (points != 1)} of {self.evidence.task.name}"
        self.buttons["within"].description = f"Smallest within {within}"
        self.buttons["fits"].description = f"Best that fits {pages.size(1000 * self.budget.value)}"

    def _go_to(self, row: Measured | None) -> None:
        if row is None:
            smallest = pages.size(self.evidence.rows[0].stored_bytes)
            raise ValueError(f"no measured plan does that; the smallest that was measured takes {smallest}")
        self.message.value = ""
        self._then(plan=row.plan)

    def _filled(self, plan: TTQConfig) -> None:
        self._then(plan=self.weigher.layers.plan(plan.layers, plan.rest))

    def _then(self, **change) -> None:
        self._show(self.history.then(replace(self.history.now, **change)))

    def restore(self, text: str) -> None:
        """Go to the moment that a file or a link holds; where it holds none the page says so."""

        def job() -> None:
            sheet = Sheet.from_json(text) if text.lstrip().startswith("{") else Sheet.from_link(text)
            self._open(sheet.source, sheet)

        self.try_to(job)

    # ---------------------------------------------------------------------------------------------------- after a step

    def _show(self, history: History) -> None:
        if history.now.source != self.source.key:  # a step back over a change of model
            self._enter(history.now.source)
        with garbage_waits():
            self.history = history
            now, cost = history.now, self.weigher.cost(history.now.plan)
            quality = self._quality(now.plan)
            dense = self.source.dense_bytes or self.dense.stored_bytes
            told = pages.quality_text(self.evidence, quality)
            self.readout.value = pages.summary(cost, (dense, self.dense), self.machine, told)
            self.bars.value = pages.bars(self.weigher.layers, now.plan, cost, self.dense)
            self.turning.show(now.plan)
            self._show_beside(now, (cost, told), dense)
            if self.evidence:
                self.picture.here = pages.here(cost, quality)
            self.taking.show(now, program(self.source, self.weigher.layers, now.plan, cost.stored_bytes))
            enabled = {"undo": history.past, "redo": history.future, "swap": now.beside, "alone": now.beside}
            for name, able in enabled.items():
                self.buttons[name].disabled = not able

    def _show_beside(self, now: Sheet, here: tuple, dense: int) -> None:
        if now.beside is None:
            self.compared.value, self.picture.beside = "", {}
            return
        cost, quality = self.weigher.cost(now.beside), self._quality(now.beside)
        pair = (here, (cost, pages.quality_text(self.evidence, quality)))
        self.compared.value = pages.comparison(pair, differences(self.weigher.layers, now.plan, now.beside), dense)
        self.picture.beside = pages.here(cost, quality) if self.evidence else {}

    def _quality(self, plan: TTQConfig) -> Quality | None:
        return self.evidence.quality(plan) if self.evidence else None

    def __repr__(self) -> str:
        return "PlanApp: run this cell in JupyterLab, or type make app, to build a plan"


def _heading(text: str, hint: str) -> widgets.HTML:
    return widgets.HTML(f"<h2>{text}</h2><p class='ttq-hint'>{hint}</p>")
