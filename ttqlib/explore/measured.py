"""What a plan for a whole model costs, to the byte, and what has been measured of its accuracy."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import BertConfig, PreTrainedModel

from ..measures.report import report
from ..models.intent_slot import IntentSlotModel
from ..plans.configs import TTQConfig
from ..plans.groups import GROUPS, group_of
from ..storage.checkpoint import description
from ..storage.files import ANY_DIGEST
from ..storage.rebuild import as_meta
from ..storage.registration import PlanConfig
from ..storage.stored import VERSION
from ..surgery.compress import compress_
from .groups import GroupPlan

METRICS = {"intent_accuracy": "intent accuracy", "slot_f1": "slot F1"}
TOKENS = 128  # of the sentence whose FLOPs are counted


def skeleton(sizes: Mapping[str, int], width: int = 768) -> IntentSlotModel:
    """The model of experiments/atis.py without its weights, on the meta device.

    `sizes` are the settings of a row of data/results/memory.json: how many `layers`, `positions`, words in the
    `vocabulary`, `intents` and `slots`. The labels have other names than those of the task.
    """
    labels = {kind: [f"{kind} {n}" for n in range(sizes[kind])] for kind in ("intents", "slots")}
    config = BertConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=width // 64,
        num_hidden_layers=sizes["layers"],
        vocab_size=sizes["vocabulary"],
        max_position_embeddings=sizes["positions"],
        type_vocab_size=1,
        **labels,
    )
    with torch.device("meta"):
        return IntentSlotModel(config)


@dataclass(frozen=True)
class PlanCost:
    """What a compressed model takes: bytes of its folder by group of layers, and FLOPs for 128 tokens.

    `parts` has the names of `GROUPS`, then "rest" (norms, token types) and "files" (header and config.json); its
    values sum to `stored_bytes`. FLOPs are those of `report`.
    """

    parts: Mapping[str, int]
    flops: int

    @property
    def stored_bytes(self) -> int:
        """The folder that `save` would write: both of its files."""
        return sum(self.parts.values())


def plan_cost(model: PreTrainedModel, config: TTQConfig) -> PlanCost:
    """What `model` would cost under this plan.

    Nothing is written and the model stays as it is. It may be on the meta device, and should be where many plans are
    asked for.
    """
    found = report(compress_(as_meta(model), config, init="random"), TOKENS)
    parts = dict.fromkeys((*GROUPS, "rest", "files"), 0)
    for row in found.rows:
        parts["files" if row.layer == "header" else group_of(row.layer) or "rest"] += row.stored_bytes
    saved = PlanConfig(digest=ANY_DIGEST, version=VERSION, **config.to_dict())
    parts["files"] += len(description(model, saved).to_json_string().encode())
    return PlanCost(parts, found.total.flops)


@dataclass(frozen=True)
class PlanPoint:
    """What a plan costs, and how good its models are; `metrics` in percent or None, `source` says where from."""

    cost: PlanCost
    ratio: float  # of the dense float32 model's folder to this one
    flops_ratio: float
    metrics: Mapping[str, float] | None
    source: str

    @property
    def stored_bytes(self) -> int:
        """The size of the folder."""
        return self.cost.stored_bytes

    def __str__(self) -> str:
        values = [f"{name} {self.metrics[key]:.1f} %" for key, name in METRICS.items()] if self.metrics else []
        smaller = f"{self.stored_bytes / 1000:,.1f} kB, {self.ratio:.0f}× smaller"
        return f"{smaller}, {self.flops_ratio:.1f}× fewer FLOPs | {', '.join([*values, self.source])}"


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
    def known(self) -> dict[str, Mapping]:
        """The rows of models, the dense one too, by the text of their plans: of several that with most seeds, then the
        better; what was only rounded is no plan's result."""
        found: dict[str, Mapping] = {}
        for row in self.rows:
            trained = row["split"] == self.split and row["plan"] and not row["method"].endswith("-ptq")
            if trained and row["settings"]["hidden"] == self.model.config.hidden_size:
                key = _text(TTQConfig.from_dict(row["plan"]))
                if key not in found or _weight(row) > _weight(found[key]):
                    found[key] = row
        return found

    def stored_bytes(self, config: TTQConfig) -> int:
        """The folder of the model under a plan, with the label names of the task."""
        return plan_cost(self.model, config).stored_bytes + self._names_bytes

    def row(self, chosen: GroupPlan) -> Mapping | None:
        """What was measured of this very plan."""
        return self.known.get(_text(chosen.config(self.model)))

    def point(self, chosen: GroupPlan) -> PlanPoint:
        """The cost of a plan, and its accuracy: measured, else interpolated between its neighbours, else None."""
        if chosen not in self._points:
            cost, row = plan_cost(self.model, chosen.config(self.model)), self.row(chosen)
            cost = PlanCost(cost.parts | {"files": cost.parts["files"] + self._names_bytes}, cost.flops)
            if row is None:
                metrics, source = self._interpolated(chosen)
            else:
                metrics, source = means(row), f"measured, {len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)}"
            ratio, flops_ratio = self.dense["stored_bytes"] / cost.stored_bytes, self._dense_cost.flops / cost.flops
            self._points[chosen] = PlanPoint(cost, ratio, flops_ratio, metrics, source)
        return self._points[chosen]

    @cached_property
    def _points(self) -> dict[GroupPlan, PlanPoint]:
        return {}  # a picture and its read-out ask for the same one

    @cached_property
    def _dense_cost(self) -> PlanCost:
        return plan_cost(self.model, TTQConfig.from_dict(self.dense["plan"]))

    @cached_property
    def _names_bytes(self) -> int:
        return self.dense["stored_bytes"] - self._dense_cost.stored_bytes

    def _interpolated(self, chosen: GroupPlan) -> tuple[dict[str, float] | None, str]:
        """Between the next known ranks of all trains, all else equal, on a logarithmic scale; else between bits."""
        trains = [choice for choice in chosen.choices.values() if choice.rank is not None]
        for name in ("rank", "bits"):
            if len({getattr(choice, name) for choice in trains}) != 1:
                continue  # no train, or trains that differ
            value, known = getattr(trains[0], name), {row[name] for row in self.known.values() if row["rank"]}
            rows = {other: self.row(chosen.with_trains(**{name: other})) for other in known}
            line = {other: row for other, row in rows.items() if row is not None}
            below = max((other for other in line if other < value), default=None)
            above = min((other for other in line if other > value), default=None)
            if below and above:
                share = math.log(value / below) / math.log(above / below)
                ends = means(line[below]), means(line[above])
                between = {key: (1 - share) * ends[0][key] + share * ends[1][key] for key in METRICS}
                words = f"ranks {below} and {above}" if name == "rank" else f"{below} and {above} bits"
                return between, f"interpolated between {words}"
        return None, "not measured"


def means(row: Mapping) -> dict[str, float]:
    """The mean of each metric of a row."""
    return {key: row["metrics"][key]["mean"] for key in METRICS}


def _weight(row: Mapping) -> tuple[int, float]:
    return len(row["seeds"]), sum(means(row).values())


def _text(config: TTQConfig) -> str:
    """The same for equal plans: what a dictionary can look up."""
    return json.dumps(config.to_dict(), sort_keys=True)
