"""What is known of a plan's quality: measured, interpolated between two, predicted from its neighbours, or nothing."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

from ...measures.results import Results
from ...plans.configs import TT, TTM, LayerPlan, TTQConfig
from .costs import Weigher
from .measured import TASKS, Measured, Task, measured

MARKS = {  # what each means; the words stand in the page
    "measured": "● measured: models of this very plan were trained and scored (hollow: with fewer seeds, a trial)",
    "interpolated": "◆ interpolated: on the line between two measured plans that differ from it in one number",
    "predicted": "▲ predicted: a guess from the measured plans nearest in bytes, with its usual error",
    "unknown": "□ unknown: nothing near it was measured",
}
NEIGHBOURS, FARTHEST = 3, 1.0  # a plan is near where its groups are, together, within a factor of 2


@dataclass(frozen=True)
class Quality:
    """What is known of a plan: percent on the split of choices, a mark of `MARKS`, and where it comes from."""

    mark: str
    value: float | None = None
    source: str = ""
    error: float | None = None  # of a prediction: the median of what it errs, each measured plan left out once
    row: Measured | None = None


class Evidence:
    """The measured plans of a model for one task.

    A plan that was measured in several ways is represented by the way with the most seeds, then the better one on the
    split of choices.
    """

    def __init__(self, task: Task, rows: Sequence[Measured], weigher: Weigher):
        self.task, self.rows, self.weigher = task, tuple(rows), weigher
        self.usual_error  # noqa: B018  weighs every measured plan now, so that the first move is as quick as the others

    @cached_property
    def by_plan(self) -> dict[str, Measured]:
        """The row that stands for each plan."""
        best: dict[str, Measured] = {}
        for row in self.rows:
            known = best.get(key := text(row.plan))
            if known is None or self._weight(row) > self._weight(known):
                best[key] = row
        return best

    def _weight(self, row: Measured) -> tuple[int, float]:
        return row.seeds, row.scores[self.task.chosen_on]

    # -------------------------------------------------------------------------------------------------- what is known

    def quality(self, plan: TTQConfig) -> Quality:
        """The best that is known of a plan."""
        if (row := self.by_plan.get(text(plan))) is not None:
            return Quality("measured", row.scores[self.task.chosen_on], _seeds(row), row=row)
        return self._between(plan) or self._guess(self._place(plan)) or Quality("unknown")

    def _between(self, plan: TTQConfig) -> Quality | None:
        """Between two measured plans on a logarithmic scale, where they and it differ in one number only."""
        for name, _ in DIMENSIONS.items():
            rest, value = _without(plan, name)
            line = self._lines[name].get(rest, {}) if value else {}
            below, above = (max((v for v in line if v < (value or 0)), default=None),
                            min((v for v in line if v > (value or 0)), default=None))  # fmt: skip
            if below and above:
                share = math.log(value / below) / math.log(above / below)
                low, high = (line[end].scores[self.task.chosen_on] for end in (below, above))
                return Quality("interpolated", (1 - share) * low + share * high, f"between {name} {below} and {above}")
        return None

    @cached_property
    def _lines(self) -> dict[str, dict[str, dict[int, Measured]]]:
        lines: dict[str, dict[str, dict[int, Measured]]] = {name: {} for name in DIMENSIONS}
        for row in self.by_plan.values():
            for name in DIMENSIONS:
                rest, value = _without(row.plan, name)
                if value:
                    lines[name].setdefault(rest, {})[value] = row
        return lines

    def _place(self, plan: TTQConfig) -> tuple[float, ...]:
        """Where a plan lies among others: log₂ of the bytes of each group."""
        parts = self.weigher.cost(plan).parts
        return tuple(math.log2(size + 1) for name, size in parts.items() if name != "files")

    @cached_property
    def _places(self) -> dict[str, tuple[float, ...]]:
        return {key: self._place(row.plan) for key, row in self.by_plan.items()}

    def _guess(self, place: Sequence[float], without: str | None = None) -> Quality | None:
        """The mean of the nearest, the nearer the more; nothing where even the nearest is far."""
        near = self._nearest(place, without)[:NEIGHBOURS]
        if len(near) < NEIGHBOURS or near[0][0] > FARTHEST:
            return None
        weights = [1 / (distance + 1e-3) for distance, _ in near]
        values = [self.by_plan[key].scores[self.task.chosen_on] for _, key in near]
        value = sum(w * v for w, v in zip(weights, values)) / sum(weights)
        if without is not None:
            return Quality("predicted", value)
        return Quality("predicted", value, f"from the {NEIGHBOURS} nearest", self.usual_error)

    def _nearest(self, place: Sequence[float], without: str | None = None) -> list[tuple[float, str]]:
        return sorted((math.dist(place, other), key) for key, other in self._places.items() if key != without)

    @cached_property
    def usual_error(self) -> float:
        """The median of what a guess errs for a measured plan that it may not look at; of those it dares to guess."""
        errors = []
        for key, place in self._places.items():
            if (guess := self._guess(place, without=key)) is not None:
                errors.append(abs(guess.value - self.by_plan[key].scores[self.task.chosen_on]))
        return median(errors) if errors else math.inf

    # ------------------------------------------------------------------------------------------------ what is asked for

    def nearest(self, plan: TTQConfig) -> Measured | None:
        """The measured plan nearest in the bytes of its groups."""
        found = self._nearest(self._place(plan))
        return self.by_plan[found[0][1]] if found else None

    def smallest_within(self, points: float) -> Measured | None:
        """The smallest plan that is no more than so many points behind the dense model."""
        return min((row for row in self.by_plan.values() if row.within(points)), key=_size, default=None)

    def best_within(self, stored_bytes: int) -> Measured | None:
        """Of the plans that take no more bytes the one with the best score on the split of choices."""
        fitting = [row for row in self.by_plan.values() if row.stored_bytes <= stored_bytes]
        return max(fitting, key=lambda row: (row.scores[self.task.chosen_on], -row.stored_bytes), default=None)

    def preset(self, wanted: Mapping) -> Measured | None:
        """The row with these values, as `PRESETS` has them: of several the one with the most seeds, then the better."""
        fitting = (row for row in self.by_plan.values() if all(getattr(row, k) == v for k, v in wanted.items()))
        return max(fitting, key=self._weight, default=None)


def _size(row: Measured) -> int:
    return row.stored_bytes


def _seeds(row: Measured) -> str:
    return f"{row.seeds} seed{'s' * (row.seeds > 1)}"


def text(plan: TTQConfig) -> str:
    """The same for equal plans: what a dictionary can look up."""
    return json.dumps({"layers": plan.to_dict()["layers"], "rest": plan.rest}, sort_keys=True)


def _rank(kinds) -> Callable[[LayerPlan], object]:
    return lambda layer: layer.format.rank if isinstance(layer.format, kinds) else None


def _bits(layer: LayerPlan) -> int | None:
    return getattr(layer.quantize, "bits", 32) if layer.format is not None else None


DIMENSIONS: Mapping[str, Callable[[LayerPlan], object]] = {  # in what two plans may differ
    "rank": _rank((TT, TTM)),
    "rank of linear layers": _rank(TT),
    "rank of words": _rank(TTM),
    "bits": _bits,
}


def _without(plan: TTQConfig, dimension: str) -> tuple[str, int | None]:
    """The plan without one number, as text, and that number, where all layers that have one have the same."""
    read, values, left = DIMENSIONS[dimension], set(), {}
    for name, layer in plan.layers.items():
        value = read(layer)
        values |= {value} - {None}
        if value is not None and dimension == "bits":
            layer = replace(layer, quantize=None)
        elif value is not None:
            layer = replace(layer, format=replace(layer.format, rank=1))
        left[name] = layer
    value = values.pop() if len(values) == 1 else None
    return (text(TTQConfig(left, plan.rest)), value) if isinstance(value, int) else ("", None)


def evidence_for(key: str | None, folder: Path, weigher: Weigher) -> tuple[Evidence, ...]:
    """What was measured of a model for each of the metrics of its task, from the results in a folder."""
    if key is None:
        return ()
    results = Results.read(folder / ("atis.json" if key == "atis" else "glue.json"))
    results = Results([row for row in results.rows if row["task"] == key])
    return tuple(Evidence(task, measured(task, results, weigher.layers), weigher) for task in TASKS[key])
