"""The explorer of what compressed layers do to the layers above them: its read-out, its picture, its speed."""

import time
from itertools import product

import pytest

import ttqlib as ttq
from tests.kernels import slowness
from ttqlib.explore import DamagePoint

RANKS, LAYERS = (4, 8, 16), ("words", "attention")
POINTS = {
    (layers, rank): DamagePoint(rank * 100_000 * (1 + place), (place / rank, 4 / rank, 6 / rank))
    for (place, layers), rank in product(enumerate(LAYERS), RANKS)
}
DELETED = {"words": DamagePoint(50_000, (0.1, 0.3, 0.5)), "attention": DamagePoint(60_000, (0.0, 0.6, 2.0))}


@pytest.fixture(scope="module")
def explorer():
    return ttq.explore.damage(POINTS, DELETED, layers="attention", rank=8)


def test_a_point_says_its_size_and_its_last_error():
    assert str(DamagePoint(12_345_678, (0.0, 0.25, 0.987))) == "12.3 MB, off by 99% after the last layer"


def test_it_starts_where_it_was_told(explorer):
    fresh = ttq.explore.damage(POINTS, DELETED, layers="words", rank=16)
    assert (fresh.controls["layers"].value, fresh.controls["rank"].value) == ("words", 16)
    assert tuple(fresh.controls["rank"].options) == RANKS and tuple(fresh.controls["layers"].options) == LAYERS
    assert all(control.description for control in fresh.controls.values())
    assert not fresh.controls["rank"].continuous_update


def test_every_choice_is_read_out_beside_its_control(explorer):
    pictures = set()
    for layers, rank in POINTS:
        explorer.controls["layers"].value, explorer.controls["rank"].value = layers, rank
        chosen, control, verdict = explorer.readout.value.split("<br>")
        assert chosen == f"{layers} at rank {rank}: {POINTS[layers, rank]}"
        assert control == f"without these weights: {DELETED[layers]}"
        pairs = zip(POINTS[layers, rank].errors, DELETED[layers].errors, strict=True)
        worse = [str(layer) for layer, (one, other) in enumerate(pairs) if one > other]
        assert verdict == (f"worse than none after layer {', '.join(worse)}" if worse else "nowhere worse than none")
        pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == len(POINTS)


def test_both_verdicts_occur(explorer):
    verdicts = set()
    for rank in RANKS:
        explorer.controls["layers"].value, explorer.controls["rank"].value = "words", rank
        verdicts.add(explorer.readout.value.split("<br>")[2])
    assert verdicts == {"worse than none after layer 1, 2", "nowhere worse than none"}


def test_the_figure_shows_the_choice_and_its_control():
    (axes,) = ttq.explore.damage_figure(POINTS, DELETED, "attention", 8).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert drawn == {
        "attention, rank 8": [*POINTS["attention", 8].errors],
        "attention, no weights": [*DELETED["attention"].errors],
    }
    assert all(list(line.get_xdata()) == [0, 1, 2] for line in axes.get_lines())
    assert axes.get_yscale() == "linear"


def test_a_move_is_answered_at_once(explorer):
    seconds = []
    for rank in (*RANKS, *RANKS):
        start = time.process_time()
        explorer.controls["rank"].value = rank
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3 * slowness()
