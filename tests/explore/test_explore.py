"""Explorers: their callbacks over the whole grid, and the widgets moved from code."""

import gc
from math import ceil, prod

import ipywidgets as widgets
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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


LAYERS = {"6 → 8": ((3, 2), (2, 4)), "12 → 12": ((3, 2, 2), (2, 2, 3))}


@pytest.mark.parametrize("in_modes, out_modes", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("rank", [1, 2, 3, 9])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_orders_of_contraction_cost_what_torch_counts(in_modes, out_modes, rank, rows):
    layer = ttq.TTLinear(prod(in_modes), prod(out_modes), rank, in_modes, out_modes, bias=False)
    half, x = len(in_modes), torch.randn(rows, prod(in_modes))

    def left_to_right():
        state = x.reshape(rows, 1, -1)
        for core in layer.cores[:half]:
            left, mode, right = core.shape
            state = state.reshape(rows, left * mode, -1).transpose(1, 2) @ core.reshape(left * mode, right)
            state = state.transpose(1, 2)
        for core in layer.cores[half:]:
            state = (state.transpose(1, 2) @ core.flatten(1)).reshape(rows, -1, core.shape[-1]).transpose(1, 2)

    def sides_first():
        u, v = layer.sides()
        return (x @ u) @ v

    def weight_first():
        u, v = layer.sides()
        return x @ (u @ v)

    costs = ttq.explore.contraction_orders(in_modes, out_modes, rank, rows)
    orders = {"left to right": left_to_right, "sides first": sides_first, "weight first": weight_first}
    for name, forward in orders.items():
        with FlopCounterMode(display=False) as counter:
            forward()
        assert costs[name] == counter.get_total_flops(), name
    assert list(costs) == [*orders, "opt_einsum"]
    assert costs["opt_einsum"] <= min(costs.values())


def test_opt_einsum_agrees_with_the_layer_on_large_batches_only():
    sizes = ((12, 8, 8), (12, 16, 16), 30)
    few, many = (ttq.explore.contraction_orders(*sizes, rows) for rows in (1, 4096))
    assert few["opt_einsum"] == few["left to right"] < few["sides first"]
    assert many["opt_einsum"] == many["sides first"] < many["left to right"]
    with pytest.raises(ValueError, match="rows must be a whole number of at least 1, got 0"):
        ttq.explore.contraction_orders(*sizes, 0)


def test_the_explorer_of_orders_shows_what_the_plain_function_gives():
    explorer = ttq.explore.orders(LAYERS, rows=(1, 64), rank=2, largest=5)
    for name, (in_modes, out_modes) in LAYERS.items():
        for rows in (1, 64):
            for rank in (1, 2, 5):
                values = {"layer": name, "rows": rows, "rank": rank}
                for control, value in values.items():
                    explorer.controls[control].value = value
                costs = ttq.explore.contraction_orders(in_modes, out_modes, rank, rows)
                costs["dense layer"] = 2 * rows * prod(in_modes) * prod(out_modes)
                assert f"{ttq.tt_parameters(in_modes + out_modes, rank):,} numbers" in explorer.readout.value
                saving = costs["dense layer"] / min(costs.values())
                assert (
                    f"{rows} rows: fewest FLOPs by {min(costs, key=costs.get)}, {saving:.1f}×" in explorer.readout.value
                )


def test_controls_are_labelled_and_redraw_on_release_only():
    explorers = (
        ttq.explore.tt(PICTURE, SPLITS),
        ttq.explore.formats({"a": torch.randn(8, 8)}),
        ttq.explore.orders(LAYERS),
    )
    for explorer in explorers:
        assert all(control.description for control in explorer.controls.values())
        sliders = [c for c in explorer.controls.values() if hasattr(c, "continuous_update")]
        assert sliders and not any(slider.continuous_update for slider in sliders)


def test_without_a_kernel_an_explorer_says_what_to_do():
    assert repr(ttq.explore.tt(PICTURE, SPLITS)) == "Explorer(modes, rank): run this cell in JupyterLab to move it"


RANKS, BITS = (1, 3, 8), (2, 4, 8)


def small_layer():
    torch.manual_seed(0)
    return torch.nn.Linear(12, 20)


def coarse(core, bits):
    return (core * 2**bits).round() / 2**bits


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("bits", BITS)
def test_a_stored_point_splits_the_error_and_counts_every_byte(rank, bits):
    layer = small_layer()
    point = ttq.explore.stored_point(layer, rank, bits, coarse)
    train = ttq.TTLinear.from_linear(layer, rank)
    exact, rounded = (ttq.tt_to_tensor(cores) for cores in (train.cores, [coarse(core, bits) for core in train.cores]))
    weight = layer.weight.T.reshape(exact.shape)
    assert point.errors["rank alone"] == pytest.approx(ttq.relative_error(weight, exact))
    assert point.errors["rounding alone"] == pytest.approx(ttq.relative_error(exact, rounded))
    assert point.errors["both"] == pytest.approx(ttq.relative_error(weight, rounded))
    assert point.stored_bytes == ceil(sum(core.numel() for core in train.cores) * bits / 8) + 4 * len(train.cores)
    assert point.ratio == 12 * 20 * 4 / point.stored_bytes
    assert f"{point.errors['both']:.1%}" in str(point) and f"{point.ratio:.0f}×" in str(point)


def test_a_stored_point_is_exact_where_nothing_is_cut_and_nothing_rounded():
    point = ttq.explore.stored_point(small_layer(), 100, 8, lambda core, bits: core)
    assert max(point.errors.values()) < 1e-5


def test_the_layer_explorer_shows_what_the_plain_function_gives():
    layer = small_layer()
    explorer = ttq.explore.rank_and_bits(layer, coarse, RANKS, BITS)
    pictures = set()
    for rank in RANKS:
        for bits in BITS:
            explorer.controls["rank"].value, explorer.controls["bits"].value = rank, bits
            assert explorer.readout.value == str(ttq.explore.stored_point(layer, rank, bits, coarse))
            pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == len(RANKS) * len(BITS)
    assert all(control.description and not control.continuous_update for control in explorer.controls.values())


WEIGHTS = {"bell": torch.randn(40, 50, generator=torch.Generator().manual_seed(0))}
WEIGHTS["outlier"] = WEIGHTS["bell"].clone().index_put((torch.tensor(3), torch.tensor(4)), torch.tensor(50.0))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("step", [0.01, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_step_point_splits_the_error_of_the_quantizer(name, step, bits):
    weight, low, high = WEIGHTS[name], -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    point = ttq.explore.step_point(weight, step, bits)
    rounded = ttq.LSQ(bits).with_step(step)(weight).detach()
    assert point.relative_error == pytest.approx(ttq.relative_error(weight, rounded), rel=1e-4)
    assert point.zeros == pytest.approx(float((rounded == 0).float().mean()))
    beyond = [x for x in weight.flatten().tolist() if not low * step <= x <= high * step]
    lost = sum((x - max(low * step, min(x, high * step))) ** 2 for x in beyond)
    assert point.clipped == pytest.approx(len(beyond) / weight.numel())
    assert point.clipping == pytest.approx(lost / float(weight.square().sum()), rel=1e-4)
    assert point.rounding <= (step / 2) ** 2 * weight.numel() / float(weight.square().sum())
    assert f"{point.rounding:.2%}" in str(point) and f"{point.clipping:.2%}" in str(point)


def test_a_step_point_refuses_what_is_no_step():
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="step must be positive, got"):
            ttq.explore.step_point(WEIGHTS["bell"], step, 4)
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, got 1"):
        ttq.explore.step_point(WEIGHTS["bell"], 1.0, 1)


def test_the_explorer_of_steps_shows_what_the_plain_function_gives():
    explorer, pictures = ttq.explore.steps(WEIGHTS, bits=(2, 4)), set()
    sizes = [size for _, size in explorer.controls["step"].options]
    assert sizes[0] == 1 / 64 and sizes[-1] == 4 and 1.0 in sizes
    for name, weight in WEIGHTS.items():
        for bits in (2, 4):
            settings = [("slider", size, size * weight.std().item()) for size in (sizes[0], 1.0, sizes[-1])]
            found = {init: ttq.LSQ(bits, init=init).build(weight).step.item() for init in ("max", "mse")}
            settings += [("max-abs", 1.0, found["max"]), ("best", 1.0, found["mse"])]
            for rule, size, step in settings:
                for control, value in {"weight": name, "bits": bits, "rule": rule, "step": size}.items():
                    explorer.controls[control].value = value
                assert explorer.readout.value == str(ttq.explore.step_point(weight, step, bits))
                pictures.add(bytes(explorer.picture.value))
    assert len(pictures) > 2 * 2 * 4  # two grids may look alike if all levels but 0 lie outside the picture
    sliders = [explorer.controls[name] for name in ("bits", "step")]
    assert not any(slider.continuous_update for slider in sliders)
    assert all(control.description for control in explorer.controls.values())


def test_no_search_for_garbage_delays_a_redraw():
    """Beside transformers one takes half a second, and a figure sets off several."""
    searching = []

    def draw(size: int):
        searching.append(gc.isenabled())
        if size > 1:
            raise ValueError("too large")
        return ttq.plots.lines({"a": {1: 1, 2: 2}}, "x", "y"), ""

    explorer = ttq.explore.Explorer({"size": widgets.IntSlider(0, 0, 2)}, draw, hint="Try 2.")
    explorer.controls["size"].value = 1
    assert gc.isenabled()
    with pytest.raises(ValueError, match="too large"):
        explorer.controls["size"].value = 2
    assert searching == [False] * 3 and gc.isenabled()


@pytest.mark.parametrize(
    ("top", "ticks"), [(8, ["1", "2", "5"]), (1000, ["1", "10", "100", "1000"])], ids=["few decades", "many decades"]
)
def test_a_moving_picture_has_few_ticks_and_plain_numbers_on_them(top, ticks):
    drawn = []

    def draw(size: int):
        drawn.append(ttq.plots.lines({"a": {1: 1, top: top}}, "x", "y", x_scale="log"))
        return drawn[-1], ""

    ttq.explore.Explorer({"size": widgets.IntSlider(0, 0, 2)}, draw, hint="Try 2.")
    for axis in (drawn[0].axes[0].xaxis, drawn[0].axes[0].yaxis):
        low, high = axis.get_view_interval()
        labels = [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert labels == ticks and len(axis.get_minorticklocs()) == 0


def test_ticks_that_a_figure_has_chosen_stay():
    drawn = []

    def draw(size: int):
        drawn.append(ttq.plots.error_against({"a": {3: 0.5, 30: 0.1}}))
        return drawn[-1], ""

    ttq.explore.Explorer({"size": widgets.IntSlider(0, 0, 2)}, draw, hint="Try 2.")
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["3", "30"]
