"""The explorer of budgets: what a point says of a plan, the picture, the read-out, and what is refused."""

import pytest

import ttqlib as ttq
from tests.allocation.test_allocate import candidates
from tests.cases import refused
from ttqlib.explore import BudgetPoint, budget, budget_figure, budget_point, choice_in_words, short_name
from ttqlib.plans.configs import LayerPlan

BUDGETS = (22_000, 30_000, 60_000)


@pytest.fixture(scope="module")
def points() -> dict[int, BudgetPoint]:
    front = ttq.allocation_front(candidates(), BUDGETS)
    return {size: budget_point(candidates(), one, 2 * one.loss) for size, one in zip(BUDGETS, front)}


def test_a_point_weighs_every_layer_and_together_they_are_the_folder(points):
    for size, point in points.items():
        assert set(point.sizes) == set(point.choices) == set(candidates().layers)
        assert point.stored_bytes <= size
        whole = candidates().fixed + sum(point.sizes.values())
        assert whole == pytest.approx(point.stored_bytes, rel=0.03)  # sums of text are nearly exact


def test_the_rest_is_weighed_where_a_plan_does_not_name_a_layer():
    (one,) = ttq.allocation_front(candidates(), [30_000], rule="uniform")
    point = budget_point(candidates(), one, 0.0)
    unnamed = set(candidates().layers) - set(one.config.layers)
    assert unnamed and all(point.choices[name] == "dense, 8 bits" for name in unnamed)


@pytest.mark.parametrize(
    "plan, words",
    [
        (LayerPlan(ttq.TT(3, (8,), (4,)), ttq.LSQ(2)), "rank 3, 2 bits"),
        (LayerPlan(quantize=ttq.Binary(per="channel")), "dense, 1 bit"),
        (LayerPlan(quantize="float"), "dense, 32 bits"),
    ],
)
def test_a_choice_in_words(plan, words):
    assert choice_in_words(plan) == words


def test_names_are_short_and_stay_apart():
    names = [short_name(name) for name in candidates().layers]
    assert len(set(names)) == len(names)
    assert short_name("bert.encoder.layer.0.attention.self.query") == "0 attention query"


def test_dragging_redraws_the_plan_and_says_what_changed(points):
    explorer = budget(points, 30_000)
    picture = explorer.picture.value
    assert f"{points[30_000]}" in explorer.readout.value and "than at 22 kB" in explorer.readout.value
    explorer.controls["budget"].value = 22_000
    assert explorer.picture.value != picture
    assert f"{points[22_000]}<br>the smallest budget here" == explorer.readout.value


def test_the_picture_has_a_bar_and_a_choice_for_each_layer_on_one_scale(points):
    axes = [budget_figure(points, size).axes[0] for size in BUDGETS]
    assert len({one.get_xlim() for one in axes}) == 1
    for size, one in zip(BUDGETS, axes):
        assert [bar.get_width() for bar in one.patches] == [kb / 1000 for kb in points[size].sizes.values()]
        assert [text.get_text() for text in one.texts] == list(points[size].choices.values())


def test_a_budget_that_has_no_plan_is_refused(points):
    with refused(ValueError, "chosen must be one of 22000, 30000, 60000, got 5"):
        budget(points, 5)
