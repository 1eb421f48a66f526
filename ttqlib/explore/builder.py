"""The plan builder: a whole model's plan, group by group, with its cost and what is known of its accuracy."""

import json
from collections.abc import Mapping
from dataclasses import replace

import ipywidgets as widgets
from matplotlib.figure import Figure

from .. import plots
from ..plans.configs import REST
from ..plans.groups import GROUPS, Choice
from .explorer import Explorer
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
        self.plans = plans
        self.button = widgets.Button(description="Give me this plan")
        self.code, self.json = (
            widgets.Textarea(description=name, rows=rows, layout=widgets.Layout(width="95%"))
            for name, rows in (("Python", 4), ("JSON", 6))
        )
        super().__init__(_controls(start), self._draw_plan, _rows())
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
        return plan_figure(self.plans, chosen), plan_text(self.plans, chosen)

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
        cores, choice = values.get(f"{group} format", MATRIX), Choice(bits=values[f"{group} bits"])
        if cores != MATRIX:
            choice = replace(choice, rank=values[f"{group} rank"], cores=None if cores == DEFAULT else cores)
        choices[group] = choice
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
    point, panels, most = plans.point(chosen), {}, max(len(row["seeds"]) for row in plans.known.values())
    for key, name in METRICS.items():
        groups = panels.setdefault(f"{name}, %", {})
        for row in plans.known.values():
            label = f"measured, {most} seeds" if len(row["seeds"]) == most else FEWER
            groups.setdefault(label, []).append((row["ratio"], *row["metrics"][key].values()))
    if point.metrics is None:
        return plots.trade_offs(panels, RATIO, [FEWER], marks={f"chosen, {point.source}": point.ratio})
    ring = {f"{name}, %": (point.ratio, point.metrics[key]) for key, name in METRICS.items()}
    return plots.trade_offs(panels, RATIO, [FEWER], ring=ring)


def _controls(start: GroupPlan) -> dict[str, widgets.Widget]:
    controls = {}
    for group, choice in start.choices.items():
        label, last = ("bits", "float32") if group in FORMATS else (group, "as the rest")
        if group in FORMATS:
            cores = MATRIX if choice.rank is None else choice.cores or DEFAULT
            controls[f"{group} format"] = _labelled(widgets.Dropdown, group, FORMATS[group], cores)
            controls[f"{group} rank"] = _labelled(
                widgets.SelectionSlider, "TT-rank", RANKS, choice.rank or RANKS[0], group
            )
        controls[f"{group} bits"] = _labelled(widgets.SelectionSlider, label, BITS | {last: 32}, choice.bits, group)
    controls["rest"] = _labelled(widgets.SelectionSlider, "rest", {str(bits): bits for bits in REST[::-1]}, start.rest)
    return controls


def _labelled(kind: type[widgets.Widget], label: str, options, value: int, group: str = "") -> widgets.Widget:
    name = f"{group} {label}".strip()
    if value not in (options.values() if isinstance(options, Mapping) else options):
        raise ValueError(f"start: {name} must be one of {', '.join(map(str, options))}, got {value}")
    options = list(options.items()) if isinstance(options, Mapping) else options
    looks = {"layout": widgets.Layout(width="17em"), "style": {"description_width": "6.5em"}}
    late = {} if kind is widgets.Dropdown else {"continuous_update": False}
    return kind(options=options, value=value, description=label, tooltip=name, **looks, **late)


def _rows() -> list[list[str]]:
    trains = [[f"{group} {what}" for what in ("format", "rank", "bits")] for group in FORMATS]
    return [*trains, [*(f"{group} bits" for group in GROUPS if group not in FORMATS), "rest"]]
