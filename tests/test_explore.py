"""Explorers: their callbacks over the whole grid, and the widgets moved from code."""

import pytest
import torch

import ttqlib as ttq

PICTURE = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
SPLITS = {"as it is": (8, 8, 3), "small modes": (2, 4, 2, 4, 3)}


@pytest.mark.parametrize("modes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("rank", [1, 3, 8, 24])
def test_a_tt_point_is_what_tt_svd_gives(modes, rank):
    point = ttq.explore.tt_point(PICTURE, modes, rank)
    cores = ttq.tt_svd(PICTURE.reshape(modes), rank)
    assert torch.equal(point.approximation, ttq.tt_to_tensor(cores).reshape(PICTURE.shape))
    assert point.ranks == ttq.core_ranks(cores)
    assert point.parameters == sum(core.numel() for core in cores)
    assert point.ratio == PICTURE.numel() / point.parameters
    assert point.error == ttq.relative_error(PICTURE, point.approximation)
    assert f"{point.error:.1%}" in str(point) and f"{point.parameters:,}" in str(point)


def test_modes_that_do_not_multiply_out_are_refused():
    with pytest.raises(ValueError, match="multiply out to 64, the tensor has 192"):
        ttq.explore.tt_point(PICTURE, (8, 8), rank=2)


def kronecker(*sizes):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.ones(1, 1)
    for size in sizes:
        matrix = torch.kron(matrix, torch.randn(size, generator=generator))
    return matrix


def test_formats_get_equal_budgets_and_each_wins_where_it_should():
    budget = 1500
    points = ttq.explore.matrix_formats(kronecker((4, 4), (4, 4), (4, 4)), budget)
    assert list(points) == ["low rank", "TT", "TT-matrix"]
    assert all(point.parameters <= budget for point in points.values())
    assert points["TT-matrix"].error < 1e-5 < points["TT"].error
    thin = torch.outer(torch.arange(1.0, 65), torch.arange(1.0, 65).cos())
    points = ttq.explore.matrix_formats(thin, 200)
    assert points["low rank"].error < 1e-5 < points["TT-matrix"].error


def test_a_format_that_does_not_fit_is_left_out():
    points = ttq.explore.matrix_formats(torch.randn(64, 64), 100)  # rank 1 would take 128
    assert list(points) == ["TT", "TT-matrix"]


def test_a_matrix_that_does_not_factor_is_refused():
    with pytest.raises(ValueError, match="pad the matrix first"):
        ttq.explore.matrix_formats(torch.randn(5087, 4), 100)


def test_moving_a_control_replaces_the_picture_and_the_readout():
    explorer = ttq.explore.tt(PICTURE, SPLITS, rank=3, largest=10)
    before = bytes(explorer.picture.value)
    explorer.controls["rank"].value = 4
    assert explorer.readout.value == str(ttq.explore.tt_point(PICTURE, SPLITS["as it is"], 4))
    after = bytes(explorer.picture.value)
    assert after.startswith(b"\x89PNG") and after != before
    explorer.controls["modes"].value = "small modes"
    assert explorer.readout.value == str(ttq.explore.tt_point(PICTURE, SPLITS["small modes"], 4))
    assert sum(isinstance(child, type(explorer.picture)) for child in explorer.children) == 1


def test_the_format_explorer_shows_what_the_plain_function_gives():
    matrices = {"kronecker": kronecker((4, 4), (4, 4), (4, 4)), "random": torch.randn(64, 64)}
    explorer = ttq.explore.formats(matrices, ratios=(4, 10))
    for name, matrix in matrices.items():
        for ratio in (4, 10):
            explorer.controls["matrix"].value, explorer.controls["ratio"].value = name, ratio
            points = ttq.explore.matrix_formats(matrix, matrix.numel() // ratio)
            assert explorer.readout.value == "<br>".join(f"{form}: {point}" for form, point in points.items())


def test_controls_are_labelled_and_redraw_on_release_only():
    for explorer in (ttq.explore.tt(PICTURE, SPLITS), ttq.explore.formats({"a": torch.randn(8, 8)})):
        assert all(control.description for control in explorer.controls.values())
        sliders = [c for c in explorer.controls.values() if hasattr(c, "continuous_update")]
        assert sliders and not any(slider.continuous_update for slider in sliders)


def test_without_a_kernel_an_explorer_says_what_to_do():
    assert repr(ttq.explore.tt(PICTURE, SPLITS)) == "Explorer(modes, rank): run this cell in JupyterLab to move it"
