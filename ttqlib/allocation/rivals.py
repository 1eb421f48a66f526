"""Other ways to spend a budget, to compare with: the same for every layer, or by the loss of truncation alone.

Both give low ranks to the layers that `plan` would give trains to, of equal bits everywhere, and leave heads, positions
and all else to the rest. Where a budget has no room for that, heads and positions are matrices of those bits, too. Of
the numbers of bits they take the one that is predicted to lose least.
"""

import re
from collections.abc import Callable, Mapping
from math import e, log, sqrt

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

    def ranks(share: float) -> dict[str, int]:
        found = {}
        for names in groups.values():
            weights = {name: 1 / log(_truncated(candidates, name, share)) for name in names}
            for name, weight in weights.items():
                taken = (1 - share) * len(names) * weight / sum(weights.values())
                found[name] = _rank(candidates, name, 1 - taken)
        return found

    return _largest(candidates, budget, quantization, ranks)


RULES = {"uniform": uniform, "truncation": by_truncation}


def _truncated(candidates: Candidates, name: str, share: float) -> float:
    """What truncation at a share of the numbers loses of a layer's outputs; at least e, whose logarithm is 1."""
    return max(e, sqrt(float(candidates.left_over[name][_rank(candidates, name, share)])))


def _rank(candidates: Candidates, name: str, share: float) -> int:
    """The rank at which a layer has this share of its numbers."""
    layer, most = candidates.weigher.skeleton.get_submodule(name), len(candidates.left_over[name]) - 1
    return min(most, max(1, int(share * layer.weight.numel() / numbers_of(layer, form(layer, "low rank", 1)))))


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
    least, most = 0.0, 1.0
    if _weight(candidates, bits, ranks(least), others) > budget:
        return None
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        fits = _weight(candidates, bits, ranks(middle), others) <= budget
        least, most = (middle, most) if fits else (least, middle)
    return _config(candidates, bits, ranks(least), others)


def _is_low(one) -> bool:
    return one.plan.format is not None and one.plan.quantize != "float"


def _config(candidates: Candidates, bits: int, ranks: Mapping[str, int], others: bool) -> TTQConfig:
    """With `others`, what `plan` leaves to the rest gets the same number of bits."""
    skeleton, plans = candidates.weigher.skeleton, {}
    for name in plan(skeleton, bits=bits).layers:
        layer, low = skeleton.get_submodule(name), candidates.left_over.get(name, ())
        if name in ranks and ranks[name] < len(low):
            plans[name] = LayerPlan(form(layer, "low rank", ranks[name]), recipe_for(bits, "tensor"))
        else:  # a rank that saves nothing
            plans[name] = LayerPlan(quantize=recipe_for(bits, "channel"))
    if others:
        left = [name for name in candidates.layers if name not in plans]
        plans |= {name: LayerPlan(quantize=recipe_for(bits, "channel")) for name in left}
    return candidates.config(plans)


def _weight(candidates: Candidates, bits: int, ranks: Mapping[str, int], others: bool) -> int:
    """The bytes of a plan, by sums: at most a few too many."""
    config, weigher = _config(candidates, bits, ranks, others), candidates.weigher
    rest = LayerPlan(quantize="rest")
    plans = {name: config.layers.get(name, rest) for name in candidates.layers}
    return candidates.fixed + sum(weigher.weigh(name, made)[0] for name, made in plans.items())
