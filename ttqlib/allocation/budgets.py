"""`allocate`: the plan that loses least within a budget, or takes least within a loss. And fronts of such plans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real

import numpy as np
from torch import nn

from ..plans.configs import TTQConfig
from .candidates import Batches, Candidate, Candidates, measure_candidates
from .choices import possible_bytes
from .knapsack import climb, solve
from .rivals import RULES as RIVALS

RULES = ("knapsack", "hull", *RIVALS)
COSTS: Mapping[str, Callable[[Candidate], float]] = {  # what may be limited besides the bytes on disk
    "flops": lambda one: one.flops,
    "gradients": lambda one: 4 * one.numbers,  # bytes of float32; what data parallelism sends at each step, too
    "optimizer": lambda one: 8 * one.numbers,  # the two moments of Adam
}
ROUNDS, FEWEST_ROUNDS = 16, 3  # how often a plan is chosen again, after one was weighed as a whole: at most, at least
HALVINGS = 30  # of the interval in which the price of a limit is looked for
RAISES = 40  # of one price after another, until all limits hold together


@dataclass(frozen=True)
class Allocation:
    """A plan, the bytes of the folder that `save` would write, and what it is predicted to lose, in nats of KL."""

    config: TTQConfig
    bytes: int
    loss: float


def allocate(
    model: nn.Module,
    budget_bytes: int | None = None,
    calibration: Batches | None = None,
    *,
    allowed_loss: float | None = None,
    limits: Mapping[str, float] | None = None,
    rule: str = "knapsack",
    candidates: Candidates | None = None,
    quantization: float = 1.0,
    **options,
) -> TTQConfig:
    """The plan that is predicted to lose least of all that fit: which rank and how many bits every layer gets.

        config = ttq.allocate(model, budget_bytes=1_000_000, calibration=batches)
        ttq.compress_(model, config, calibration=batches)

    Each layer has candidates (`measure_candidates`, which `options` are for); every byte counts that `save` writes.
    Give either a budget or `allowed_loss`: the plan takes the fewest bytes of those that are predicted to lose no more,
    in nats of KL between what the model answered and what it will answer.

    Args:
        limits: on "flops" of a forward pass, or on what training needs: bytes of "gradients" or of the "optimizer".
        rule: "knapsack", or one of its rivals at the same bytes: "hull" (without the repair), "uniform" (one rank and
            one number of bits for all), "truncation" (ranks by the loss of truncation, as SVD-LLM V2 spreads them).
        candidates: measured before, so that further plans take no time.
        quantization: the part of what quantizers lose that is left: 1 before training, less after, which mends much.

    Raises:
        ValueError: a budget that no plan meets, or that is more than the dense float model takes; no budget, no
            calibration, no candidates; an unknown rule or limit, limits that were not met together, or what goes with
            a budget only. What budgets are possible is said.
    """
    candidates = _measured(model, calibration, options) if candidates is None else _not_again(candidates, options)
    if (budget_bytes is None) == (allowed_loss is None):
        raise ValueError(f"give either budget_bytes or allowed_loss; {_possible(candidates.range)}")
    if allowed_loss is not None:
        return _fewest(candidates, allowed_loss, limits, rule, quantization).config
    return _within(candidates, budget_bytes, limits or {}, rule, quantization).config


def allocation_front(
    candidates: Candidates, budgets: Sequence[int], *, rule: str = "knapsack", quantization: float = 1.0
) -> list[Allocation]:
    """The plan for each budget, its bytes and its predicted loss, from candidates that were measured once.

    Raises:
        ValueError: as `allocate`.
    """
    return [_within(candidates, budget, {}, rule, quantization) for budget in budgets]


def _not_again(candidates: Candidates, options: Mapping) -> Candidates:
    if options:
        raise ValueError(f"candidates are measured already: give {', '.join(options)} to measure_candidates instead")
    return candidates


def _measured(model: nn.Module, calibration: Batches | None, options: Mapping) -> Candidates:
    if calibration is None:
        raise ValueError(
            "allocate needs calibration: batches of inputs as the model takes them, a few hundred sentences; "
            f"{_possible(possible_bytes(model, **options))}"
        )
    return measure_candidates(model, calibration, **options)


def _possible(least_and_most: tuple[int, int]) -> str:
    least, most = least_and_most
    return f"budget_bytes may be from {least:,} to {most:,}, the dense float model's"


def _within(
    candidates: Candidates, budget: int, limits: Mapping[str, float], rule: str, quantization: float
) -> Allocation:
    """The plan of a rule for a budget, weighed as a whole."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}")
    least, most = candidates.range
    if not isinstance(budget, Real):
        raise ValueError(f"budget_bytes must be a number, got {budget!r}; {_possible((least, most))}")
    if not least <= budget <= most:
        raise ValueError(f"{_possible((least, most))}, got {budget:,}; other kinds, bits and ranks give other ranges")
    if rule in RIVALS and limits:
        raise ValueError(f"limits are for the rules {', '.join(map(repr, RULES[:2]))}, got rule={rule!r}")
    if rule in RIVALS:
        config = RIVALS[rule](candidates, budget, quantization)
    else:
        config = _fitted(candidates, budget, limits, rule, quantization)
    return Allocation(config, candidates.weigh(config), candidates.loss(config, quantization))


def _fitted(
    candidates: Candidates, budget: int, limits: Mapping[str, float], rule: str, quantization: float
) -> TTQConfig:
    """Chosen by the sums of bytes; then what the whole weighs more or less is taken from or put to the room."""
    room, best, most = budget - candidates.fixed, None, -1
    least = sum(min(one.bytes for one in some) for some in candidates.layers.values())
    for number in range(ROUNDS):
        if best is not None and number >= FEWEST_ROUNDS:
            break
        chosen = _chosen(candidates, {"bytes": max(room, least), **limits}, rule, quantization)
        config = candidates.config({name: one.plan for name, one in chosen.items()})
        weight = candidates.weigh(config)
        if most < weight <= budget:
            best, most = config, weight
        room += budget - weight
        if weight > budget:  # and not the same plan again, where it left some room unused
            room = min(room, sum(one.bytes for one in chosen.values()) - 1)
    if best is None:
        raise ValueError(
            f"no plan was found within budget_bytes={budget:,}, so near to the smallest one: give a little more"
        )
    return best


def _chosen(
    candidates: Candidates, limits: Mapping[str, float], rule: str, quantization: float
) -> dict[str, Candidate]:
    """One candidate for each layer: the knapsack of bytes, each other limit a price on what it limits.

    A price is the lowest at which its limit holds, found by bisection while the others stay. What holds one limit can
    break another, whose price rises then, until all hold together.

    Raises:
        ValueError: an unknown limit, or limits that were not met together.
    """
    if unknown := [name for name in limits if name not in COSTS and name != "bytes"]:
        raise ValueError(f"limits must be among {', '.join(COSTS)}, got {unknown[0]!r}")
    prices = {name: 0.0 for name in limits if name != "bytes"}
    pick = partial(_at_prices, candidates, limits["bytes"], rule=rule, quantization=quantization)
    for _ in range(RAISES):
        chosen = pick(prices)
        name = next((name for name in prices if _spent(chosen, name) > limits[name]), None)
        if name is None:
            return chosen
        prices[name] = _lowest_price(
            lambda price, name=name: _spent(pick({**prices, name: price}), name), name, limits[name], prices[name]
        )
    raise ValueError(f"limits on {' and '.join(prices)} were not met together at this budget: give one of them more")


def _lowest_price(spent: Callable[[float], float], name: str, limit: float, low: float) -> float:
    """The lowest price above `low`, at which more than the limit is spent, where it no longer is.

    Raises:
        ValueError: at no price.
    """
    high = max(1e-12, 8 * low)
    while spent(high) > limit:
        low, high = high, 8 * high
        if high > 1e9:
            raise ValueError(f"{name} cannot be below {spent(high):,.0f} at this budget, got limits of {limit:,}")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= limit else (middle, high)
    return high


def _at_prices(
    candidates: Candidates, room: int, prices: Mapping[str, float], *, rule: str, quantization: float
) -> dict[str, Candidate]:
    """What the knapsack chooses where what is limited besides the bytes has a price, in nats."""
    lists = []
    for some in candidates.layers.values():
        losses = [
            one.at(quantization) + sum(price * COSTS[name](one) for name, price in prices.items()) for one in some
        ]
        lists.append((np.array([one.bytes for one in some], float), np.array(losses)))
    chosen = solve(lists, room) if rule == "knapsack" else climb(lists, room)[0]
    return {name: some[k] for (name, some), k in zip(candidates.layers.items(), chosen)}


def _spent(chosen: Mapping[str, Candidate], name: str) -> float:
    return sum(COSTS[name](one) for one in chosen.values())


def _fewest(
    candidates: Candidates, allowed: float, limits: Mapping[str, float] | None, rule: str, quantization: float
) -> Allocation:
    """The plan of the fewest bytes that is predicted to lose no more: the knapsack with its two sides exchanged."""
    if limits or rule != "knapsack":
        raise ValueError("allowed_loss goes with no limits and no other rule: give budget_bytes with them")
    lists = [
        (np.array([one.at(quantization) for one in some]), np.array([one.bytes for one in some], float))
        for some in candidates.layers.values()
    ]
    if allowed < 0:
        raise ValueError(f"allowed_loss must be at least 0 nats, got {allowed}; {_possible(candidates.range)}")
    chosen = solve(lists, allowed)
    plans = {name: some[k].plan for (name, some), k in zip(candidates.layers.items(), chosen)}
    config = candidates.config(plans)
    return Allocation(config, candidates.weigh(config), candidates.loss(config, quantization))
