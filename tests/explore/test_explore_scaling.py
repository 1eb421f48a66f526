"""The explorer of chapter 13: what is saved as matrices get wider."""

from itertools import pairwise

import pytest

import ttqlib as ttq
from ttqlib.explore.scaling import GROWS, WIDTHS


@pytest.mark.parametrize("width", [128, 768])
def test_a_point_counts_what_a_layer_stores(width):
    point = ttq.explore.scaling_point(width, rank=16, bits=4)
    layer = ttq.TTLinear(width, width, rank=16, bias=False)
    assert point.fewer["train"] == pytest.approx(8 * width**2 / ttq.count_parameters(layer))
    assert point.fewer["dense"] == 8 and point.fewer["low rank"] == 8 * width / 32
    assert point.saved("dense") == 0.875


def test_a_rank_that_grows_saves_no_more_in_a_wide_matrix():
    stays, grows = ([ttq.explore.scaling_point(w, 96, 4, g).fewer for w in WIDTHS] for g in (False, True))
    assert [round(one["low rank"], 6) for one in grows] == [32.0] * len(WIDTHS)
    assert all(a["train"] < b["train"] for a, b in pairwise(stays))
    assert max(one["train"] for one in grows) < 1.5 * min(one["train"] for one in grows) and stays[3] == grows[3]


def test_every_choice_is_read_out():
    explorer = ttq.explore.scaling()
    said = {explorer.readout.value}
    for name, value in (("rank", 48), ("bits", 8), ("rule", GROWS)):
        explorer.controls[name].value = value
        said.add(explorer.readout.value)
    assert len(said) == 4 and "8192 wide, rank 512: dense 4×" in explorer.readout.value
