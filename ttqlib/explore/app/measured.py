"""Measured plans: rows of results for one task, with what they lack to the dense model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ...measures.results import Results
from ...plans.configs import TTQConfig
from .layers import Layers

SAID = {"tt": "trains", "svd": "low rank", "narrow": "narrow"}  # what the first part of a method is called
WIDTH = 768  # of the ATIS transformer: narrower ones are rivals of another shape


@dataclass(frozen=True)
class Task:
    """What is asked of a model: a metric, the split that choices are made on, and the one that was read once."""

    name: str
    metric: str
    chosen_on: str
    read_once: str
    both: bool = False  # a row must have been scored on both


TASKS = {
    "atis": (
        Task("slot F1", "slot_f1", "validation", "test"),
        Task("intents", "intent_accuracy", "validation", "test"),
    ),
    "sst2": (Task("accuracy", "accuracy", "held_out", "validation", both=True),),
    "rte": (Task("accuracy", "accuracy", "held_out", "validation", both=True),),
}
PRESETS: Mapping[
    str, Mapping[str, Mapping]
] = {  # by task: what the plan of a row is called, and how it is found; the app starts with the first
    "atis": {
        "trains, 232×": {"method": "tt-qat", "rank": 24, "bits": 2},
        "their rival of low rank, 234×": {"method": "svd-qat", "rank": 19, "bits": 2},
        "near the paper's 63×": {"method": "tt-qat", "rank": 30, "bits": 8},
        "smallest trains, 434×": {"method": "tt-qat", "rank": 12, "bits": 2, "seeds": 3},
    },
    "sst2": {
        "4 bits, 50×": {"rank": 34, "bits": 4},
        "3 bits, 46×": {"rank": 48, "bits": 3},
        "2 bits, 88×": {"rank": 36, "bits": 2},
    },
    "rte": {"4 bits, 48×": {"rank": 34, "bits": 4}},
}


@dataclass(frozen=True)
class Measured:
    """One row of results: its plan, its bytes, percent by split, and how many points it is behind the dense model."""

    plan: TTQConfig
    stored_bytes: int
    ratio: float
    scores: Mapping[str, float]
    behind: Mapping[str, float]
    seeds: int
    method: str
    rank: int | None
    bits: int
    how: str  # it was trained

    def within(self, points: float) -> bool:
        """Whether it is no more than so many points behind on every split that it was scored on."""
        return max(self.behind.values()) <= points + 1e-9

    def __str__(self) -> str:
        if self.method == "dense":
            return "dense"
        width = "float32" if self.bits == 32 else f"{self.bits} bit{'s' * (self.bits > 1)}"
        form, _, _ = self.method.partition("-")  # "-qat" follows where bits were trained with: the width says it
        form = SAID.get(form, form)
        return f"{form}, rank {self.rank}, {width}" if self.rank else f"{form}, {width}"


def measured(task: Task, results: Results, layers: Layers) -> tuple[Measured, ...]:
    """The rows whose plans name layers of this model, by growing bytes. What was only rounded is no plan's result.

    Plans whose layers share are left out: the app weighs each layer by itself.
    """
    found: dict[str, dict[str, Mapping]] = {}
    for row in results.rows:
        plan, settings = row["plan"], row["settings"] or {}
        wanted = row["split"] in (task.chosen_on, task.read_once) and task.metric in row["metrics"]
        fits = plan and plan["layers"].keys() <= layers.all.keys() and settings.get("hidden", WIDTH) == WIDTH
        alone = plan and not any(
            (layer.get("format") or {}).get("type") == "Shared" for layer in plan["layers"].values()
        )
        if wanted and fits and alone and not row["method"].endswith("-ptq"):
            same = [row["method"], row["seeds"], settings, plan, row["stored_bytes"]]
            found.setdefault(json.dumps(same, sort_keys=True), {})[row["split"]] = row
    needed = {task.chosen_on, *([task.read_once] if task.both else [])}
    rows = (_measured(task, splits, results, layers) for splits in found.values() if needed <= splits.keys())
    return tuple(sorted(rows, key=lambda row: row.stored_bytes))


def _measured(task: Task, splits: Mapping[str, Mapping], results: Results, layers: Layers) -> Measured:
    row, plan = splits[task.chosen_on], TTQConfig.from_dict(splits[task.chosen_on]["plan"])
    scores = {split: results.mean(one, task.metric) for split, one in splits.items()}
    behind = {split: dense_score(task, results, one) - scores[split] for split, one in splits.items()}
    return Measured(
        layers.plan(plan.layers, plan.rest),
        *(row["stored_bytes"], row["ratio"], scores, behind, len(row["seeds"])),
        *(row["method"], row["rank"], row["bits"], _told(row)),
    )


def dense_score(task: Task, results: Results, row: Mapping) -> float:
    """The score of the dense model that a row is compared with: of several, that of most seeds.

    Raises:
        ValueError: there is none.
    """
    settings = row["settings"] or {}
    taught = {name: settings[name] for name in ("hold_out", "teacher") if name in settings}
    found = results.where(method="dense", task=row["task"], split=row["split"], **taught)
    if not found:
        raise ValueError(f"no row of the dense model on {row['task']}, {row['split']}")
    return results.mean(max(found, key=lambda one: len(one["seeds"])), task.metric)


def _told(row: Mapping) -> str:
    """How the models of a row were trained, in a few words."""
    settings = row["settings"] or {}
    words = [str(settings[name]).replace("_", " ") for name in ("schedule", "inputs", "start") if settings.get(name)]
    counts = [f"{settings[name]} {name}" for name in ("steps", "epochs") if settings.get(name)]
    return ", ".join([*words, *counts])
