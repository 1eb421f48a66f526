"""A plan for a whole model, group of layers by group: its real bytes, and what has been measured of its accuracy."""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import nn
from transformers import PreTrainedModel

from .. import plots
from ..checkpoint import stored_sizes
from ..compress import compress_
from ..planning import LINEAR, TT, TTM, LayerPlan, TTQConfig, plan
from ..pretrained import PlanConfig
from ..shapes import factorize
from .explorer import Explorer
from .pareto import recipe_for

METRICS = {"intent_accuracy": "intent accuracy", "slot_f1": "slot F1"}
GROUPS = {  # of a joint intent and slot model: patterns of layer names, of which the first that matches wins
    "words": r"word_embeddings",
    "positions": r"position_embeddings",
    "heads": r"_head",
    "encoder": r"encoder\.",
}
RATIO = "times smaller than dense float32"
WORD_CORES = 2  # as in experiments/atis.py


@dataclass(frozen=True)
class Choice:
    """What a group of layers gets: trains of `rank`, or None for matrices, and `bits` for each number; 32 is float32.

    `cores`: of an embedding, or on each side of a linear layer; None is what `TT` and `TTM` do by themselves. A matrix
    of 32 bits is left to the rest.
    """

    rank: int | None = None
    bits: int = 32
    cores: int | None = None


def plan_by_groups(
    model: nn.Module, groups: Mapping[str, str], choices: Mapping[str, Choice], rest: int = 32
) -> TTQConfig:
    """The plan in which every group of layers gets its choice; what is in no group belongs to the rest.

    `groups` maps names to patterns that are searched in layer names, and the first that matches wins.

    Raises:
        ValueError: a choice for an unknown group, or as `plan`.
    """
    if unknown := [name for name in choices if name not in groups]:
        raise ValueError(f"choices must be for groups among {', '.join(groups)}, got {unknown[0]!r}")
    rules = {}
    for name, layer in model.named_modules():
        group = next((group for group, pattern in groups.items() if re.search(pattern, name)), None)
        if group in choices and isinstance(layer, (*LINEAR, nn.Embedding)):
            made = _layer_plan(layer, choices[group])
            if made != LayerPlan():
                rules[f"^{re.escape(name)}$"] = made
    return plan(model, rules=rules, rest=rest) if rules else TTQConfig(rest=rest)


def _layer_plan(layer: nn.Module, choice: Choice) -> LayerPlan:
    quantizer = None if choice.bits == 32 else recipe_for(choice.bits, "tensor" if choice.rank else "channel")
    if choice.rank is None:
        return LayerPlan(quantize=quantizer)
    embedding, modes = isinstance(layer, nn.Embedding), ()
    if choice.cores is not None:
        rows, columns = layer.weight.shape if not isinstance(layer, nn.Linear) else layer.weight.shape[::-1]
        rows, columns = factorize(rows, choice.cores), factorize(columns, choice.cores)
        modes = (rows, columns[::-1]) if embedding else (rows[::-1], columns)
    return LayerPlan((TTM if embedding else TT)(choice.rank, *modes), quantizer)


def folder_bytes(model: PreTrainedModel, config: TTQConfig) -> int:
    """The size on disk of the folder that `save` would write for `model` under this plan: both of its files.

    Nothing is written and the model stays as it is. It may be on the meta device, and should be where many plans are
    asked for.
    """
    skeleton = copy.deepcopy(model, {id(p): nn.Parameter(p.detach().to("meta")) for p in model.parameters()})
    weights = sum(stored_sizes(compress_(skeleton, config, init="random")).values())
    description = copy.deepcopy(model.config)
    description.architectures, description.dtype = [type(model).__name__], str(model.dtype).removeprefix("torch.")
    description.quantization_config = PlanConfig(64 * "0", **config.to_dict())  # any digest is as long
    return weights + len(description.to_json_string().encode())


@dataclass(frozen=True)
class Knobs:
    """A plan of an intent and slot model in five numbers: what experiments/atis.py can be told, and an explorer shows.

    `rank` and `bits` are those of all trains, `sides` how many cores a linear layer has on each side; `own` are the
    bits of heads and positions, which stay matrices, None where they belong to the rest; `rest` the bits of all else.
    """

    rank: int
    bits: int = 32
    own: int | None = None
    rest: int = 32
    sides: int = 3

    def plan(self, model: nn.Module) -> TTQConfig:
        """The plan that this is for `model`."""
        cores = None if self.sides == 3 else self.sides
        choices = {
            "words": Choice(self.rank, self.bits, WORD_CORES),
            "positions": Choice(bits=self.own or 32),
            "heads": Choice(bits=self.own or 32),
            "encoder": Choice(self.rank, self.bits, cores),
        }
        return plan_by_groups(model, GROUPS, choices, self.rest)


@dataclass(frozen=True)
class PlanPoint:
    """What a plan costs, and how good its models are; `metrics` in percent or None, `source` says where from."""

    stored_bytes: int
    ratio: float  # of the dense float32 model's folder to this one
    metrics: Mapping[str, float] | None
    source: str

    def __str__(self) -> str:
        values = [f"{name} {self.metrics[key]:.1f} %" for key, name in METRICS.items()] if self.metrics else []
        return f"{self.stored_bytes / 1000:,.1f} kB, {self.ratio:.0f}× smaller | {', '.join([*values, self.source])}"


@dataclass(frozen=True, eq=False)
class MeasuredPlans:
    """Rows of data/results/atis.json, found again by the plans they were measured with.

    `model` is the dense model, best on the meta device. Its label names need not be the task's: the row of the dense
    model tells how many bytes more those take.

    Raises:
        ValueError: there is no row of the dense model with a plan.
    """

    model: PreTrainedModel
    rows: Sequence[Mapping]
    split: str = "validation"

    @cached_property
    def dense(self) -> Mapping:
        """The row of the dense model: of several the one with the most seeds."""
        found = [row for row in self.rows if row["method"] == "dense" and row["plan"] and row["split"] == self.split]
        if not found:
            raise ValueError(f"no row of method 'dense' with a plan on split {self.split!r}")
        return max(found, key=lambda row: len(row["seeds"]))

    @cached_property
    def known(self) -> dict[Knobs, Mapping]:
        """The rows of trained models whose plans knobs can say: of one plan that with most seeds, then the better."""
        found: dict[Knobs, Mapping] = {}
        for row in self.rows:
            knobs = self._knobs(row)
            if knobs is not None and (knobs not in found or _weight(row) > _weight(found[knobs])):
                found[knobs] = row
        return found

    def stored_bytes(self, config: TTQConfig) -> int:
        """The folder of the model under a plan, with the label names of the task."""
        return folder_bytes(self.model, config) + self._names_bytes

    def point(self, knobs: Knobs) -> PlanPoint:
        """The bytes of a plan, and its accuracy: measured, else interpolated between its neighbours, else None."""
        if knobs not in self._points:
            size, row = self.stored_bytes(knobs.plan(self.model)), self.known.get(knobs)
            if row is None:
                metrics, source = self._interpolated(knobs)
            else:
                metrics, source = _means(row), f"measured, {len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)}"
            self._points[knobs] = PlanPoint(size, self.dense["stored_bytes"] / size, metrics, source)
        return self._points[knobs]

    @cached_property
    def _points(self) -> dict[Knobs, PlanPoint]:
        return {}  # a picture and its read-out ask for the same one

    @cached_property
    def _names_bytes(self) -> int:
        return self.dense["stored_bytes"] - folder_bytes(self.model, TTQConfig.from_dict(self.dense["plan"]))

    def _knobs(self, row: Mapping) -> Knobs | None:
        settings = row["settings"]
        trained = row["split"] == self.split and not row["method"].endswith("-ptq")
        if not trained or not row["rank"] or settings["hidden"] != self.model.config.hidden_size:
            return None
        own = {int(entry.partition("=")[2]) for entry in settings.get("dense_bits", "").split(",") if entry}
        rest, sides = settings.get("rest", 32), settings.get("sides", 3)
        knobs = Knobs(row["rank"], row["bits"], next(iter(own), None), rest, sides)
        return knobs if knobs.plan(self.model) == TTQConfig.from_dict(row["plan"]) else None

    def _interpolated(self, knobs: Knobs) -> tuple[dict[str, float] | None, str]:
        """Between the next known ranks below and above, all else equal, on a logarithmic scale; else between bits."""
        for name in ("rank", "bits"):
            value = getattr(knobs, name)
            line = {getattr(other, name): row for other, row in self.known.items() if _differ(knobs, other, name)}
            below, above = (
                max((v for v in line if v < value), default=None),
                min((v for v in line if v > value), default=None),
            )
            if below and above:
                share = math.log(value / below) / math.log(above / below)
                ends = _means(line[below]), _means(line[above])
                between = {key: (1 - share) * ends[0][key] + share * ends[1][key] for key in METRICS}
                words = f"ranks {below} and {above}" if name == "rank" else f"{below} and {above} bits"
                return between, f"interpolated between {words}"
        return None, "not measured"


def planner(plans: MeasuredPlans, start: Knobs) -> Explorer:
    """Drag a whole model's plan: its bytes at once, its accuracy where somebody has measured it."""
    options = {
        "rank": ("TT-rank", sorted({4, 8, 12, 20, 30} | {knobs.rank for knobs in plans.known})),
        "bits": ("core bits", [1, 2, 3, 4, 8, 32]),
        "own": ("heads, pos.", [("2", 2), ("4", 4), ("8", 8), ("as the rest", 0)]),  # None is no value of a slider
        "rest": ("rest", [8, 16, 32]),
        "sides": ("cores a side", [1, 2, 3]),
    }
    controls = {
        name: widgets.SelectionSlider(
            options=values, value=getattr(start, name) or 0, description=label, continuous_update=False
        )
        for name, (label, values) in options.items()
    }

    def draw(own: int, **values) -> tuple[Figure, str]:
        knobs = Knobs(own=own or None, **values)
        point, behind = plans.point(knobs), ""
        if point.metrics:
            gaps = {name: _means(plans.dense)[key] - point.metrics[key] for key, name in METRICS.items()}
            behind = "<br>behind the dense model: " + ", ".join(f"{name} {gap:.1f}" for name, gap in gaps.items())
        return planner_figure(plans, knobs), f"{point}{behind}"

    return Explorer(controls, draw)


def planner_figure(plans: MeasuredPlans, knobs: Knobs) -> Figure:
    """What `planner` draws for one choice: all measured plans, and a ring or, where nothing is known, a line."""
    known, chosen = [plans.dense, *plans.known.values()], plans.point(knobs)
    panels = {
        f"{name}, %": {"measured": [(row["ratio"], *row["metrics"][key].values()) for row in known]}
        for key, name in METRICS.items()
    }
    if chosen.metrics is None:
        return plots.trade_offs(panels, RATIO, marks={f"chosen, {chosen.source}": chosen.ratio})
    ring = {f"{name}, %": (chosen.ratio, chosen.metrics[key]) for key, name in METRICS.items()}
    return plots.trade_offs(panels, RATIO, ring=ring)


def _means(row: Mapping) -> dict[str, float]:
    return {key: row["metrics"][key]["mean"] for key in METRICS}


def _weight(row: Mapping) -> tuple[int, float]:
    return len(row["seeds"]), sum(_means(row).values())


def _differ(one: Knobs, other: Knobs, name: str) -> bool:
    """Whether two choices differ in this field and in no other."""
    return one != other and replace(one, **{name: getattr(other, name)}) == other
