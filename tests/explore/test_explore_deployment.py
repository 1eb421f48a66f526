"""The explorer of the roofline: its counts by hand, its bound, its read-out and its picture."""

import pytest
from torch import nn

import ttqlib as ttq
from ttqlib.explore import Machine, Work, layer_work, saving

SIZES = {"square": (768, 768), "wide": (768, 3072)}
TOY = Machine(flops=100e9, bytes=10e9)


@pytest.fixture(scope="module")
def explorer():
    return ttq.explore.roofline(SIZES)


def test_the_work_of_a_layer_by_hand():
    assert layer_work(4, 6, rows=5) == Work(2 * 5 * 4 * 6, 4 * (5 * 4 + 4 * 6 + 5 * 6))
    assert layer_work(4, 6, rows=5, rank=2) == Work(2 * 5 * 2 * 10, 4 * (5 * (4 + 2 + 6) + 2 * 10))
    assert layer_work(4, 6, rows=5).intensity == 240 / 296


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_its_flops_are_those_of_the_library(rows):
    assert layer_work(24, 30, rows).flops == ttq.flops(nn.Linear(24, 30), rows)
    layer = ttq.TTLinear(24, 30, rank=3)
    assert layer_work(24, 30, rows, rank=3).flops == ttq.flops(layer, rows, merged=True)


def test_a_machine_computes_or_moves_whichever_takes_longer():
    assert TOY.seconds(Work(flops=200, bytes=1)) == pytest.approx(2e-9)
    assert TOY.seconds(Work(flops=1, bytes=200)) == pytest.approx(20e-9)
    assert (TOY.roof(1), TOY.roof(10), TOY.roof(1000)) == (10e9, 100e9, 100e9)
    for work in (layer_work(768, 768, 1), layer_work(768, 768, 1000)):
        assert work.flops / TOY.seconds(work) == pytest.approx(TOY.roof(work.intensity))


def test_time_is_saved_like_bytes_on_one_side_of_the_corner_and_like_flops_on_the_other():
    slow_memory, fast_memory = Machine(1e12, 1e9), Machine(1e9, 1e12)
    for rows in (1, 128, 8192):
        found = saving(768, 768, rows, 30, slow_memory)
        assert found.time == pytest.approx(found.bytes) or rows == 8192  # there even a dense layer computes
        assert saving(768, 768, rows, 30, fast_memory).time == pytest.approx(12.8) == found.flops
    assert saving(768, 768, 1, 30, TOY).bytes > 12 > 1.1 > saving(768, 768, 8192, 30, TOY).bytes


def test_every_choice_is_read_out(explorer):
    pictures = set()
    for name, value in (("layer", "wide"), ("rank", 60), ("gflops", 1000), ("gigabytes", 50)):
        explorer.controls[name].value = value
        chosen = {key: control.value for key, control in explorer.controls.items()}
        machine = Machine(1e9 * chosen["gflops"], 1e9 * chosen["gigabytes"])
        lines = explorer.readout.value.split("<br>")
        assert [line.split(":")[0] for line in lines] == ["1 row", "128 rows", "8192 rows"]
        for line, rows in zip(lines, (1, 128, 8192), strict=True):
            assert line.endswith(str(saving(*SIZES[chosen["layer"]], rows, chosen["rank"], machine)))
        pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == 4
    assert all(control.description for control in explorer.controls.values())


def test_the_figure_has_a_curve_for_flops_bytes_and_time():
    (axes,) = ttq.explore.roofline_figure(768, 768, 30, TOY).axes
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(curves) == ["FLOPs", "bytes", "time, at best"]
    assert all(value == pytest.approx(12.8) for value in curves["FLOPs"])
    assert axes.get_xlabel() and axes.get_ylabel()
