"""The explorer of rank and bits: every point of its grid, the front, and the widget moved from code."""

import time
from math import ceil

import pytest
import torch

import ttqlib as ttq
from tests.kernels import slowness
from ttqlib.explore import RoundedPoint

RANKS, BITS = (2, 5, 12), (1, 2, 4, 8)


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(12, 20, dtype=torch.float64)


@pytest.fixture(scope="module")
def trains(layer):
    return {rank: [core.detach() for core in ttq.TTLinear.from_linear(layer, rank).cores] for rank in RANKS}


@pytest.fixture(scope="module")
def points(layer, trains):
    return ttq.explore.rank_bit_points(layer, trains, BITS)


@pytest.fixture(scope="module")
def dense(layer):
    return ttq.explore.dense_points(layer, BITS)


@pytest.fixture(scope="module")
def low_rank(layer):
    thin = {
        r: [c.detach() for c in ttq.TTLinear.from_linear(layer, r, in_modes=(12,), out_modes=(20,)).cores]
        for r in (3, 5)
    }
    return ttq.explore.rank_bit_points(layer, thin, BITS)


def compressed(layer, choice):
    """The same weight through `compress_` and `stored_sizes`: another way to the same numbers."""
    model = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=False))
    model[0].weight.data.copy_(layer.weight)
    ttq.compress_(model, ttq.TTQConfig({"0": choice}))
    weight = model[0].to_linear().weight if isinstance(model[0], ttq.TTLinear) else model[0].weight
    return ttq.stored_sizes(model)["0"], ttq.relative_error(layer.weight, weight)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("bits", BITS)
def test_a_point_is_what_the_library_would_compute_and_store(layer, points, rank, bits):
    recipe = ttq.Binary() if bits == 1 else ttq.LSQ(bits)
    stored, error = compressed(layer, ttq.LayerPlan(ttq.TT(rank), recipe))
    assert points[rank, bits].stored_bytes == stored
    assert points[rank, bits].error == pytest.approx(error, rel=0.05)  # there the SVD is in float32, of other signs


@pytest.mark.parametrize("bits", BITS)
def test_a_dense_point_has_a_scale_for_each_output(layer, dense, bits):
    recipe = ttq.Binary(per="channel") if bits == 1 else ttq.LSQ(bits, per="channel")
    stored, error = compressed(layer, recipe)
    assert dense[bits].stored_bytes == stored == ceil(12 * 20 * bits / 8) + 4 * 20
    assert dense[bits].error == pytest.approx(error, rel=1e-3)


def test_the_front_holds_what_no_other_point_beats(points):
    front = ttq.explore.pareto_front(points)
    assert [points[key].stored_bytes for key in front] == sorted({points[key].stored_bytes for key in front})
    for key, point in points.items():
        beaten = any(
            other.stored_bytes <= point.stored_bytes and other.error < point.error for other in points.values()
        )
        assert (key in front) == (not beaten)
    assert 0 < len(front) < len(points)


def test_of_equal_bytes_and_of_equal_errors_one_stays():
    points = {"a": RoundedPoint(10, 0.5), "b": RoundedPoint(10, 0.4), "c": RoundedPoint(12, 0.4)}
    assert ttq.explore.pareto_front(points) == ["b"]
    assert ttq.explore.pareto_front({}) == []


def test_the_explorer_says_what_beats_a_choice_everywhere(points, dense, low_rank):
    explorer = ttq.explore.pareto(points, dense, low_rank, rank=5, bits=2)
    front, pictures = ttq.explore.pareto_front(points), set()
    for rank in RANKS:
        for bits in BITS:
            explorer.controls["rank"].value, explorer.controls["bits"].value = rank, bits
            chosen, (own, verdict, *rivals) = points[rank, bits], explorer.readout.value.split("<br>")
            assert own == f"rank {rank}, b = {bits}: {chosen}"
            assert verdict.startswith("on the front") == ((rank, bits) in front)
            within = [point for point in points.values() if point.stored_bytes <= chosen.stored_bytes]
            if (rank, bits) not in front:
                assert verdict.endswith(str(min(within, key=lambda point: point.error)))
            for rival, cloud in zip(rivals, (low_rank, dense), strict=True):
                fitting = [point for point in cloud.values() if point.stored_bytes <= chosen.stored_bytes]
                assert rival.endswith(str(min(fitting, key=lambda point: point.error)) if fitting else "there is none")
            pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == len(RANKS) * len(BITS)
    assert all(control.description and not control.continuous_update for control in explorer.controls.values())


def test_of_the_plain_products_the_front_is_drawn(points, dense, low_rank):
    (axes,) = ttq.explore.pareto_figure(points, dense, low_rank, (2, 2)).axes
    drawn = {cloud.get_label(): cloud.get_offsets().tolist() for cloud in axes.collections}
    front = [low_rank[key] for key in ttq.explore.pareto_front(low_rank)]
    assert drawn["low rank, its front"] == [[point.stored_bytes / 1000, point.error] for point in front]
    assert len(drawn["trains"]) == len(points)


def test_a_move_is_answered_at_once(points, dense, low_rank):
    explorer, seconds = ttq.explore.pareto(points, dense, low_rank, rank=2, bits=2), []
    for rank in (*RANKS, *RANKS):
        start = time.process_time()
        explorer.controls["rank"].value = rank
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3 * slowness()
