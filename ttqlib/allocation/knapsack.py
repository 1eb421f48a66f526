"""The multiple-choice knapsack: of each list of items one, so that the costs stay within a limit and losses are least.

Items are pairs (cost, loss). Only those on the lower convex hull of their list can be best at some price of a unit of
cost. So the *hull rule* starts from the cheapest items and climbs the hulls, always where a unit of cost saves most,
until a step no longer fits. That is optimal but for that one step (Sinha and Zoltners, "The Multiple-Choice Knapsack
Problem", Operations Research 27(3), 1979).

The *repair* looks for better choices, off the hulls too. At the price λ of the last step let an item's distance be how
far loss + λ · cost lies above the least of its list. A choice loses Σ distances + λ · (limit − costs) more than a bound
that no choice can beat; so nothing with more distance than what we have now loses can be of use. Mostly few items are
left, and all their combinations are looked at, list by list.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Items = tuple[np.ndarray, np.ndarray]  # costs and losses of one list
KEPT = 5_000  # combinations that the repair remembers at most


def hull(costs: np.ndarray, losses: np.ndarray) -> list[int]:
    """The items on the lower convex hull, from the cheapest on: costs rise, losses fall, ever less for a unit."""
    found: list[int] = []
    for k in np.lexsort((losses, costs)):
        if found and losses[k] >= losses[found[-1]]:
            continue  # it costs as much or more, and saves nothing
        while len(found) > 1 and _saving(costs, losses, found[-2], found[-1]) <= _saving(costs, losses, found[-1], k):
            found.pop()
        found.append(int(k))
    return found


def _saving(costs: np.ndarray, losses: np.ndarray, before: int, after: int) -> float:
    """What a unit of cost saves on the way from one item to another, dearer one."""
    return (losses[before] - losses[after]) / (costs[after] - costs[before])


def climb(lists: Sequence[Items], limit: float) -> tuple[list[int], float]:
    """The hull rule: which item of each list, and what a unit of cost saves in the first step that does not fit.

    That price is 0 where all steps fit.

    Raises:
        ValueError: not even the cheapest items fit.
    """
    hulls = [hull(*items) for items in lists]
    chosen = [one[0] for one in hulls]
    spent = sum(costs[k] for (costs, _), k in zip(lists, chosen))
    if spent > limit:
        raise ValueError(f"the cheapest items cost {spent}, more than the limit of {limit}")
    steps = [
        (-_saving(costs, losses, before, after), place, after, costs[after] - costs[before])
        for place, ((costs, losses), one) in enumerate(zip(lists, hulls))
        for before, after in pairwise(one)
    ]
    for saving, place, after, cost in sorted(steps):
        if spent + cost > limit:
            return chosen, -saving
        chosen[place], spent = after, spent + cost
    return chosen, 0.0


def repaired(lists: Sequence[Items], limit: float, chosen: Sequence[int], price: float) -> list[int]:
    """The best choice among all whose items are near the hulls, `chosen` if there is no better; see the top.

    Every combination of items that could be of use is looked at, as long as they are not more than `KEPT`; of more the
    nearest to the bound are kept.
    """
    distances = [losses + price * costs for costs, losses in lists]
    least = [float(one.min()) for one in distances]
    gap = sum(losses[k] for (_, losses), k in zip(lists, chosen)) - (sum(least) - price * limit)
    gap = max(gap, 0.0) * (1 + 1e-9) + 1e-12 * sum(map(abs, least))  # what rounding takes
    near = [np.flatnonzero(one - low <= gap) for one, low in zip(distances, least)]
    cheapest = np.array([lists[place][0][items].min() for place, items in enumerate(near)])
    rest = float(cheapest.sum())
    cost, distance, paths = np.zeros(1), np.zeros(1), []
    for place in sorted(range(len(lists)), key=lambda place: len(near[place])):
        items = near[place]
        rest -= float(cheapest[place])
        cost = (cost[:, None] + lists[place][0][items]).ravel()
        distance = (distance[:, None] + (distances[place][items] - least[place])).ravel()
        useful = np.flatnonzero((cost + rest <= limit) & (distance <= gap))
        useful = useful[_undominated(cost[useful], distance[useful] - price * cost[useful])]
        if len(useful) > KEPT:
            useful = useful[np.argsort(distance[useful], kind="stable")[:KEPT]]
        cost, distance = cost[useful], distance[useful]
        paths.append((place, items, useful))
    lost = distance + price * (limit - cost)
    if not len(lost) or lost.min() >= gap:
        return list(chosen)
    return _path(paths, int(lost.argmin()))


def _undominated(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The places of those that cost less than all that lose as little, cheapest first."""
    order = np.lexsort((losses, costs))
    before = np.minimum.accumulate(np.concatenate([[np.inf], losses[order][:-1]]))
    return order[losses[order] < before]


def _path(paths: Sequence[tuple[int, np.ndarray, np.ndarray]], last: int) -> list[int]:
    """Which item of each list led to a combination."""
    chosen = [0] * len(paths)
    for place, items, useful in reversed(paths):
        last, item = divmod(int(useful[last]), len(items))
        chosen[place] = int(items[item])
    return chosen


def solve(lists: Sequence[Items], limit: float) -> list[int]:
    """The item of each list: the hull rule, then the repair.

    Raises:
        ValueError: not even the cheapest items fit.
    """
    chosen, price = climb(lists, limit)
    return repaired(lists, limit, chosen, price) if price else chosen
