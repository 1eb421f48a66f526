"""A budget for a whole model: what every layer gets of it, and what the answers lose, predicted and measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from .. import plots
from ..allocation.budgets import Allocation
from ..allocation.candidates import Candidates
from ..plans.configs import LayerPlan
from .explorer import Explorer, stops

HINT = (
    "Drag the budget down from its largest value: expect the words to give up most bytes first, and the loss to grow "
    "slowly, then fast."
)


@dataclass(frozen=True)
class BudgetPoint:
    """A plan for a budget: bytes of its folder, and what the answers lose, in nats of KL.

    `sizes` are the bytes of each layer, `choices` say in words what it got.
    """

    sizes: Mapping[str, int]
    choices: Mapping[str, str]
    stored_bytes: int
    predicted: float
    measured: float

    def __str__(self) -> str:
        lost = (
            f"predicted to lose {1000 * self.predicted:.2g} thousandths of a nat, measured {1000 * self.measured:.2g}"
        )
        return f"{self.stored_bytes / 1000:.0f} kB, {lost}"


def budget_point(candidates: Candidates, allocation: Allocation, measured: float) -> BudgetPoint:
    """What a plan gives to each layer that has candidates; `measured` is its loss, in nats.

    A layer that the plan does not name belongs to the rest.
    """
    rest = LayerPlan(quantize="rest")
    plans = {name: allocation.config.layers.get(name, rest) for name in candidates.layers}
    sizes = {name: candidates.weigher.weigh(name, plan)[0] for name, plan in plans.items()}
    choices = {name: choice_in_words(plan, candidates.weigher.rest) for name, plan in plans.items()}
    return BudgetPoint(sizes, choices, allocation.bytes, allocation.loss, measured)


def choice_in_words(plan: LayerPlan, rest: int = 8) -> str:
    """What a layer gets, as "rank 8, 3 bits" or "dense, 2 bits"."""
    form = "dense" if plan.format is None else f"rank {plan.format.rank}"
    bits = {"rest": rest, "float": 32}.get(plan.quantize) if isinstance(plan.quantize, str) else plan.quantize.bits
    return f"{form}, {bits} bit{'s' if bits > 1 else ''}"


def budget(points: Mapping[int, BudgetPoint], chosen: int) -> Explorer:
    """Drag the budget: the bytes of every layer and what it became, and what the whole loses.

    `points` has the plan of each budget, a number of bytes; `chosen` is where the slider stands first.

    Raises:
        ValueError: `chosen` is none of the budgets.
    """
    if chosen not in points:
        raise ValueError(f"chosen must be one of {', '.join(map(str, sorted(points)))}, got {chosen}")
    options = [(f"{size / 1000:.0f} kB", size) for size in sorted(points)]
    slider = stops("budget on disk", options, chosen)

    def draw(budget: int) -> tuple[Figure, str]:
        return budget_figure(points, budget), budget_text(points, budget)

    return Explorer({"budget": slider}, draw, hint=HINT)


def budget_text(points: Mapping[int, BudgetPoint], chosen: int) -> str:
    """What `budget` reads out: the plan, and which layers have changed since the next smaller budget."""
    point, smaller = points[chosen], [size for size in points if size < chosen]
    if not smaller:
        return f"{point}<br>the smallest budget here"
    before = points[max(smaller)].choices
    changed = sum(before[name] != choice for name, choice in point.choices.items())
    return f"{point}<br>{changed} of {len(before)} layers got something else than at {max(smaller) / 1000:.0f} kB"


def budget_figure(points: Mapping[int, BudgetPoint], chosen: int) -> Figure:
    """What `budget` draws, for one choice. All budgets have one scale, so that bars can be compared."""
    most = max(size for point in points.values() for size in point.sizes.values())
    point = points[chosen]
    sizes = {short_name(name): size / 1000 for name, size in point.sizes.items()}
    return plots.labelled_bars(sizes, list(point.choices.values()), "kB", most / 1000)


def short_name(name: str) -> str:
    """A layer's name without the words that all names of a model share with each other."""
    left_out = {"bert", "model", "encoder", "layer", "self", "dense", "embeddings"}
    kept = [part for part in name.split(".") if part not in left_out]
    return " ".join(kept).replace("_", " ")
