"""The plan builder: a whole model's plan, group by group, with its cost and what is known of its accuracy."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import ipywidgets as widgets
from matplotlib.figure import Figure

from .. import plots
from ..plans.configs import REST
from ..plans.groups import GROUPS, Choice
from .explorer import Explorer, choice, stops
from .groups import GroupPlan
from .measured import METRICS, MeasuredPlans, means

RATIO = "times smaller than dense float32"
FEWER = "measured, fewer seeds"
MATRIX, DEFAULT = 0, 3  # cores, as a control says it: none, and what TT and TTM do by themselves
FORMATS = {
    "words": {"matrix": MATRIX, "2 cores": 2, "3 cores": DEFAULT},
    "attention": {"matrix": MATRIX, "low rank": 1, "2 cores a side": 2, "3 cores a side": DEFAULT},
}
FORMATS["feed-forward"] = FORMATS["attention"]
BITS = {"1": 1, "2": 2, "3": 3, "4": 4, "8": 8}
HINT = (
    "Turn one group after the other: bytes follow at once. Expect accuracy to be known only where somebody has trained "
    "that very plan; make app has them all in a table."
)
RANKS = (4, 8, 12, 16, 20, 24, 30, 40, 48, 60)


class PlanBuilder(Explorer):
    """Controls for every group of layers, and a button that gives the plan they stand for.

    `code.value` is then a line of Python, and `json.value` the plan as `TTQConfig.from_dict` takes it. Both are empty
    before the button is pressed, and again once a control has moved: they never tell of another plan than the picture.
    `start` is where the controls stand first.

    Raises:
        ValueError: a format, rank or number of bits of `start` that its control does not offer.
    """

    def __init__(self, plans: MeasuredPlans, start: GroupPlan):
        self.plans, self._figure = plans, None  # what was measured is drawn once
        self.button = widgets.Button(description="Give me this plan")
        self.code, self.json = (
            widgets.Textarea(description=name, rows=rows, layout=widgets.Layout(width="95%"))
            for name, rows in (("Python", 4), ("JSON", 6))
        )
        super().__init__(_controls(start), self._draw_plan, hint=HINT)
        for part, name in ((self.button, "give"), (self.code, "code"), (self.json, "json")):
            part.add_class(f"ttq-plan-{name}")
        self.button.on_click(self._give)
        self.children += (self.button, self.code, self.json)

    @property
    def chosen(self) -> GroupPlan:
        """The plan that the controls stand for."""
        return chosen_by(self.values)

    def _draw_plan(self, **values: int) -> tuple[Figure, str]:
        chosen = chosen_by(values)
        self._figure = self._figure or plan_figure(self.plans, chosen)
        return plots.marked(self._figure, **_here(self.plans, chosen)), plan_text(self.plans, chosen)

    def _redraw(self, change=None) -> None:
        self.code.value = self.json.value = ""
        for group in FORMATS:
            self.controls[f"{group} rank"].disabled = self.values[f"{group} format"] == MATRIX
        super()._redraw(change)

    def __repr__(self) -> str:
        return "PlanBuilder: run this cell in JupyterLab to build a plan"  # the names of twelve controls tell nothing

    def _give(self, _button) -> None:
        self.code.value = self.chosen.code(self.plans.model)
        self.json.value = json.dumps(self.chosen.config(self.plans.model).to_dict())


def chosen_by(values: Mapping[str, int]) -> GroupPlan:
    """The plan that the values of a builder's controls stand for."""
    choices = {}
    for group in GROUPS:
        cores, turned = values.get(f"{group} format", MATRIX), Choice(bits=values[f"{group} bits"])
        if cores != MATRIX:
            turned = replace(turned, rank=values[f"{group} rank"], cores=None if cores == DEFAULT else cores)
        choices[group] = turned
    return GroupPlan(*choices.values(), rest=values["rest"])


def plan_text(plans: MeasuredPlans, chosen: GroupPlan) -> str:
    """What a builder reads out for one choice."""
    point = plans.point(chosen)
    parts = [f"{part} {size / 1000:,.1f}" for part, size in point.cost.parts.items()]
    lines = [str(point), f"kB: {', '.join(parts)}"]
    if point.metrics:
        gaps = {name: means(plans.dense)[key] - point.metrics[key] for key, name in METRICS.items()}
        lines.append(f"behind the dense model: {', '.join(f'{name} {gap:.1f}' for name, gap in gaps.items())}")
    return "<br>".join(lines)


def plan_figure(plans: MeasuredPlans, chosen: GroupPlan) -> Figure:
    """What a builder draws for one choice: all measured plans, and a ring or, where nothing is known, a line.

    Plans that were measured with fewer seeds than others stand hollow: they are no results, but trials.
    """
    panels, most = {}, max(len(row["seeds"]) for row in plans.known.values())
    for key, name in METRICS.items():
        groups = panels.setdefault(f"{name}, %", {})
        for row in plans.known.values():
            label = f"measured, {most} seeds" if len(row["seeds"]) == most else FEWER
            groups.setdefault(label, []).append((row["ratio"], *row["metrics"][key].values()))
    return plots.trade_offs(panels, RATIO, [FEWER], **_here(plans, chosen))


def _here(plans: MeasuredPlans, chosen: GroupPlan) -> dict[str, Mapping]:
    """The ring or the line of one choice."""
    point = plans.point(chosen)
    if point.metrics is None:
        return {"marks": {f"chosen, {point.source}": point.ratio}}
    return {"ring": {f"{name}, %": (point.ratio, point.metrics[key]) for key, name in METRICS.items()}}


def _controls(start: GroupPlan) -> dict[str, widgets.Widget]:
    controls = {}
    for group, chosen in start.choices.items():
        last = "float32" if group in FORMATS else "as the rest"
        if group in FORMATS:
            cores = MATRIX if chosen.rank is None else chosen.cores or DEFAULT
            controls[f"{group} format"] = _labelled(choice, group, FORMATS[group], cores)
            controls[f"{group} rank"] = _labelled(stops, f"{group} TT-rank", RANKS, chosen.rank or RANKS[0])
        controls[f"{group} bits"] = _labelled(stops, f"{group} bits", BITS | {last: 32}, chosen.bits)
    controls["rest"] = _labelled(stops, "bits of the rest", {str(bits): bits for bits in REST[::-1]}, start.rest)
    return controls


def _labelled(make: Callable[..., widgets.Widget], label: str, options, value: int) -> widgets.Widget:
    if value not in (options.values() if isinstance(options, Mapping) else options):
        raise ValueError(f"start: {label} must be one of {', '.join(map(str, options))}, got {value}")
    return make(label, options.items() if isinstance(options, Mapping) else options, value)
