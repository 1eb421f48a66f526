"""The knapsack against a solver that proves its answers, on many small instances; and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from tests.cases import refused
from ttqlib.allocation.knapsack import climb, hull, repaired, solve

items = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1000)), min_size=1, max_size=7)
instances = st.tuples(st.lists(items, min_size=1, max_size=7), st.floats(0, 1))


def arrays(lists):
    return [tuple(np.array(side, float) for side in zip(*one)) for one in lists]


def limit_of(lists, share: float) -> float:
    """Between what the cheapest items cost and the dearest."""
    least, most = (sum(pick(costs) for costs, _ in lists) for pick in (np.min, np.max))
    return float(np.floor(least + share * (most - least)))


def cost(lists, chosen) -> float:
    return sum(costs[k] for (costs, _), k in zip(lists, chosen, strict=True))


def loss(lists, chosen) -> float:
    return sum(losses[k] for (_, losses), k in zip(lists, chosen, strict=True))


def least_loss(lists, limit: float) -> float:
    """By scipy's solver of mixed integer programs."""
    costs, losses = (np.concatenate(side) for side in zip(*lists))
    owner = np.repeat(np.arange(len(lists)), [len(one) for one, _ in lists])
    one_each = LinearConstraint(owner == np.arange(len(lists))[:, None], 1, 1)
    within = LinearConstraint(costs[None], -np.inf, limit)
    found = milp(losses, constraints=[one_each, within], integrality=np.ones(len(costs)), bounds=Bounds(0, 1))
    assert found.success
    return found.fun


@settings(max_examples=100)
@given(instances)
def test_the_hull_rule_is_one_step_from_the_best_and_the_repair_finds_it(instance):
    lists, share = arrays(instance[0]), instance[1]
    limit = limit_of(lists, share)
    best, (climbed, price) = least_loss(lists, limit), climb(lists, limit)
    found = solve(lists, limit)
    assert cost(lists, climbed) <= limit and cost(lists, found) <= limit
    largest = max(
        (
            losses[a] - losses[b]
            for costs, losses in lists
            for a, b in zip(hull(costs, losses), hull(costs, losses)[1:])
        ),
        default=0.0,
    )
    assert loss(lists, climbed) - best <= largest + 1e-6  # never further than one item
    assert price > 0 or loss(lists, climbed) == pytest.approx(best, abs=1e-6)  # everything fits
    assert best - 1e-6 <= loss(lists, found) <= 1.01 * best + 1e-6


def test_three_layers_by_hand_where_the_hull_rule_errs():
    lists = arrays([[(1, 9), (4, 0)], [(1, 6), (3, 1)], [(1, 6), (3, 1)]])
    # 7 are left less 3 for the cheapest: the first step saves 3 a unit and takes 3 of 4; both others together save more
    chosen, price = climb(lists, 7)
    assert chosen == [1, 0, 0] and loss(lists, chosen) == 12 and price == 2.5
    assert solve(lists, 7) == [0, 1, 1] and least_loss(lists, 7) == 11


def test_items_off_the_hull_are_found_by_the_repair():
    lists = arrays([[(0, 10), (6, 8), (10, 0)]])
    assert hull(*lists[0]) == [0, 2]
    chosen, price = climb(lists, 7)
    assert chosen == [0] and price == 1.0
    assert repaired(lists, 7, chosen, price) == [1]


def test_a_hull_falls_ever_less_and_has_no_item_that_saves_nothing():
    costs, losses = np.array([3, 1, 2, 5, 4, 3]), np.array([4, 9, 7, 3, 3, 5])
    assert hull(costs, losses) == [1, 0, 4]
    assert hull(np.array([2, 2, 2]), np.array([3, 1, 2])) == [1]


def test_what_does_not_fit_is_refused():
    with refused(ValueError, "cost 2", "limit of 1"):
        solve(arrays([[(1, 1)], [(1, 2), (3, 0)]]), 1)


def test_many_layers_with_many_items_are_chosen_as_well_as_the_solver_does():
    draw = np.random.default_rng(0)
    lists = [
        (np.sort(draw.integers(1, 10**5, 30)).astype(float), np.sort(draw.random(30))[::-1] ** 3) for _ in range(40)
    ]
    limit = limit_of(lists, 0.3)
    assert loss(lists, solve(lists, limit)) <= 1.002 * least_loss(lists, limit)
