"""Other ways to spend a budget, to compare with: the same for every layer, or by the loss of truncation alone.

Both give low ranks to the layers that `plan` would give trains to, of equal bits everywhere, and leave heads, positions
and all else to the rest. Where a budget has no room for that, heads and positions are matrices of those bits, too. Of
the numbers of bits they take the one that is predicted to lose least.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from math import e, log, sqrt

from torch import nn

from ..plans.configs import LayerPlan, TTQConfig
from ..plans.planning import plan, recipe_for
from .candidates import Candidates
from .choices import form, numbers_of

Ranks = Callable[[float], Mapping[str, int]]  # the share of numbers that all layers together keep → the rank of each
HALVINGS = 24  # of the interval in which the share is looked for


def uniform(candidates: Candidates, budget: int, quantization: float) -> TTQConfig:
    """One rank for all, as far as that saves numbers."""
    most = max((len(left) - 1 for left in candidates.left_over.values()), default=1)
    return _largest(
        candidates, budget, quantization, lambda share: dict.fromkeys(candidates.layers, 1 + int(share * most))
    )


def by_truncation(candidates: Candidates, budget: int, quantization: float) -> TTQConfig:
    """Ranks in the manner of SVD-LLM V2 (arXiv 2503.12340), which gives each matrix its own ratio.

    Matrices of one kind, as all queries, are a group, here told by names without numbers. At the ratio wanted each has
    a loss of truncation L, the norm of what is missing of its outputs on the calibration rows; the shares that are
    taken away within a group go as 1 / log L, and their mean is the ratio. What layers are worth to the answers is not
    asked.
    """
    groups: dict[str, list[str]] = {}
    for name in candidates.left_over:
        groups.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    price = {name: _price(candidates.weigher.skeleton.get_submodule(name)) for name in candidates.left_over}

    def rank(name: str, share: float) -> int:
        return min(len(candidates.left_over[name]) - 1, max(1, int(share / price[name])))

    def truncated(name: str, share: float) -> float:
        return max(e, sqrt(float(candidates.left_over[name][rank(name, share)])))  # of e the logarithm is 1

    def ranks(share: float) -> dict[str, int]:
        found = {}
        for names in groups.values():
            weights = {name: 1 / log(truncated(name, share)) for name in names}
            for name, weight in weights.items():
                taken = (1 - share) * len(names) * weight / sum(weights.values())
                found[name] = rank(name, 1 - taken)
        return found

    return _largest(candidates, budget, quantization, ranks)


RULES = {"uniform": uniform, "truncation": by_truncation}


def _price(layer: nn.Module) -> float:
    """The share of a layer's numbers that each rank takes."""
    return numbers_of(layer, form(layer, "low rank", 1)) / layer.weight.numel()


def _largest(candidates: Candidates, budget: int, quantization: float, ranks: Ranks) -> TTQConfig:
    """For each number of bits the largest share that fits; of these plans the one that loses least by prediction.

    Raises:
        ValueError: not even rank 1 fits.
    """
    possible = sorted({one.plan.quantize.bits for some in candidates.layers.values() for one in some if _is_low(one)})
    for others in (False, True):
        made = [_filled(candidates, budget, bits, ranks, others) for bits in possible]
        if found := [config for config in made if config is not None]:
            return min(found, key=lambda config: candidates.loss(config, quantization))
    raise ValueError(f"no rank for all layers fits budget_bytes={budget:,}: give more, or the rule 'knapsack'")


def _filled(candidates: Candidates, budget: int, bits: int, ranks: Ranks, others: bool) -> TTQConfig | None:
    """With the largest share that fits; None where not even rank 1 does."""
    spread, least, most = _Spread(candidates, bits, others), 0.0, 1.0
    if spread.bytes(ranks(least)) > budget:
        return None
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        fits = spread.bytes(ranks(middle)) <= budget
        least, most = (middle, most) if fits else (least, middle)
    return spread.config(ranks(least))


def _is_low(one) -> bool:
    return one.plan.format is not None and one.plan.quantize != "float"


class _Spread:
    """Plans of one number of bits; with `others`, what `plan` leaves to the rest gets as many."""

    def __init__(self, candidates: Candidates, bits: int, others: bool):
        self.candidates, self.bits = candidates, bits
        self.planned = dict.fromkeys(plan(candidates.weigher.skeleton, bits=bits).layers)
        self.matrices = self.planned | dict.fromkeys(candidates.layers) if others else self.planned
        self.weight = cache(lambda name, rank: candidates.weigher.weigh(name, self.plan(name, rank))[0])

    def config(self, ranks: Mapping[str, int]) -> TTQConfig:
        return self.candidates.config({name: self.plan(name, ranks.get(name)) for name in self.matrices})

    def bytes(self, ranks: Mapping[str, int]) -> int:
        """Those of a plan, by sums: at most a few too many."""
        return self.candidates.fixed + sum(self.weight(name, ranks.get(name)) for name in self.candidates.layers)

    def plan(self, name: str, rank: int | None) -> LayerPlan:
        """A rank that saves nothing leaves a matrix."""
        if name not in self.matrices:
            return LayerPlan(quantize="rest")
        if name in self.planned and rank is not None and rank < len(self.candidates.left_over.get(name, ())):
            layer = self.candidates.weigher.skeleton.get_submodule(name)
            return LayerPlan(form(layer, "low rank", rank), recipe_for(self.bits, "tensor"))
        return LayerPlan(quantize=recipe_for(self.bits, "channel"))
