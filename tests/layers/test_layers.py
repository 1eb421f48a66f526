"""`TTLinear` is its reconstructed matrix, in value and in every gradient, whatever happens to its cores."""

import copy
import gc
import pickle
import weakref
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import parametrize

import ttqlib as ttq
from tests.cases import ROUNDING, Double, InvertibleDouble, Scale, assert_close, random_tensor, ranks, refused, seeds

sizes = st.integers(1, 40)
NOT_COUNTS = [0, -1, True, 1.5, "a"]


def weight(layer):
    """W, of shape (in_features, out_features), rebuilt by TensorLy from the cores."""
    tensor = ttq.tt_to_tensor(layer.cores)
    return tensor.reshape(prod(layer.in_modes), prod(layer.out_modes))[: layer.in_features, : layer.out_features]


def dense(layer, x):
    return F.linear(x, weight(layer).T, layer.bias)


def gradients(layer, output, x):
    wanted = [*layer.parameters(), x]
    return torch.autograd.grad((output * random_tensor(output.shape)).sum(), wanted)


def with_bias(layer):
    """The bias starts at zero, where forgetting it would not show."""
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


@st.composite
def tt_linears(draw):
    n, m = draw(sizes), draw(sizes)
    torch.manual_seed(draw(seeds))
    return with_bias(
        ttq.TTLinear(
            n,
            m,
            draw(ranks),
            in_modes=ttq.factorize(n, draw(st.integers(1, 3))),
            out_modes=ttq.factorize(m, draw(st.integers(1, 3)))[::-1],
            bias=draw(st.booleans()),
            dtype=torch.float64,
        )
    )


# ------------------------------------------------------------------------------------------------ values, gradients


@given(tt_linears(), st.lists(st.integers(0, 3), max_size=3), seeds)
def test_a_layer_is_its_reconstructed_matrix_in_value_and_every_gradient(layer, leading, seed):
    x = random_tensor((*leading, layer.in_features), seed).requires_grad_()
    output, expected = layer(x), dense(layer, x)
    assert_close(output, expected)
    for actual, wanted in zip(gradients(layer, output, x), gradients(layer, expected, x)):
        assert_close(actual, wanted)


def test_the_gradients_hold_against_finite_differences():
    torch.manual_seed(0)
    layer = with_bias(ttq.TTLinear(7, 6, rank=2, dtype=torch.float64))  # 7 is padded to 8
    names = list(dict(layer.named_parameters()))

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    x = random_tensor((3, 7)).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))


def test_both_routes_give_the_same(monkeypatch):
    torch.manual_seed(0)
    layer = with_bias(ttq.TTLinear(24, 24, rank=24, dtype=torch.float64))
    x = random_tensor((5, 24)).requires_grad_()
    results = []
    for thin in (True, False):
        monkeypatch.setattr(ttq.TTLinear, "thin_is_cheaper", lambda self, rows, thin=thin: thin)
        output = layer(x)
        results.append([output, *gradients(layer, output, x)])
    for by_thin, by_dense in zip(*results):
        assert_close(by_thin, by_dense)


@given(sizes, sizes, ranks, st.integers(0, 200))
def test_the_route_with_fewer_multiplications_is_taken(n, m, rank, rows):
    layer = ttq.TTLinear(n, m, rank, device="meta")
    inner = layer.ranks[len(layer.in_modes)]
    thin, product = rows * n * inner + rows * inner * m, n * inner * m + rows * n * m
    assert layer.thin_is_cheaper(rows) == (thin <= product)


def test_the_layer_takes_the_route_that_it_says(monkeypatch):
    layer, asked = ttq.TTLinear(8, 8, rank=2), []
    monkeypatch.setattr(ttq.TTLinear, "thin_is_cheaper", lambda self, rows: asked.append(rows) or True)
    layer(torch.zeros(2, 3, 8))
    assert asked == [6]


# ---------------------------------------------------------------------------------------------------- from and to


@settings(max_examples=40)
@given(sizes, sizes, st.booleans(), seeds)
def test_full_rank_equals_the_dense_layer_and_back(n, m, bias, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(n, m, bias=bias, dtype=torch.float64)
    layer = ttq.TTLinear.from_linear(linear, rank=n * m)
    x = random_tensor((3, n), seed)
    assert_close(layer(x), linear(x))
    back = layer.to_linear()
    assert_close(back.weight, linear.weight)
    assert (back.bias is None) == (layer.bias is None) == (not bias)
    assert_close(back(x), linear(x))


def smooth_linear(n=24, m=20):
    """A dense layer that compresses: its weight is a smooth function of row and column, and a little noise."""
    linear = nn.Linear(n, m, dtype=torch.float64)
    rows, columns = torch.arange(m)[:, None], torch.arange(n)[None]
    with torch.no_grad():
        linear.weight.copy_(1 / (1 + rows + columns) + 1e-3 * random_tensor((m, n)))
    return linear


@given(st.floats(1e-4, 0.9))
def test_a_tolerance_bounds_the_error_of_the_weight(tolerance):
    linear = smooth_linear()
    layer = ttq.TTLinear.from_linear(linear, tolerance=tolerance)
    assert ttq.relative_error(linear.weight, layer.to_linear().weight) <= tolerance


def test_a_looser_tolerance_buys_a_smaller_layer():
    tight, loose = (ttq.TTLinear.from_linear(smooth_linear(), tolerance=t) for t in (1e-4, 0.1))
    assert ttq.count_parameters(loose) < ttq.count_parameters(tight) / 2


def test_any_ranks_that_a_tolerance_finds_make_a_layer():
    """Two equal small singular values straddle the first cut; see the same case in test_tensor_train.py."""
    linear = nn.Linear(8, 4, bias=False)
    tensor = torch.zeros(4, 2, 4)
    tensor[0, 0, 0] = tensor[1, 1, 0] = 1
    tensor[2, 0, 1] = tensor[3, 1, 2] = 0.1
    linear.weight.data = tensor.reshape(8, 4).T.clone()
    tolerance = 0.12 * 2**0.5 / float(tensor.norm())
    layer = ttq.TTLinear.from_linear(linear, tolerance=tolerance, in_modes=(4, 2), out_modes=(4,))
    assert ttq.relative_error(linear.weight, layer.to_linear().weight) <= tolerance


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_dtype_bias_and_mode_are_kept_there_and_back(dtype, bias, training):
    linear = nn.Linear(12, 10, bias=bias, dtype=dtype).train(training)
    layer = ttq.TTLinear.from_linear(linear, rank=120)
    for kept in (layer, layer.to_linear()):
        assert {parameter.dtype for parameter in kept.parameters()} == {dtype}
        assert (kept.bias is not None) == bias
        assert kept.training == training
    assert layer(torch.zeros(2, 12, dtype=dtype)).dtype == dtype
    assert ttq.relative_error(linear.weight, layer.to_linear().weight) < ROUNDING[dtype]


def test_the_dense_layer_is_left_alone_and_shares_nothing():
    linear = nn.Linear(6, 6)
    before = copy.deepcopy(linear.state_dict())
    layer = ttq.TTLinear.from_linear(linear, rank=36)
    back = layer.to_linear()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    for name, tensor in before.items():
        assert torch.equal(linear.state_dict()[name], tensor)
        torch.testing.assert_close(back.state_dict()[name], tensor)


def test_the_cores_of_a_compressed_layer_have_equal_norms():
    norms = [float(core.detach().norm()) for core in ttq.TTLinear.from_linear(smooth_linear(), rank=4).cores]
    assert norms == pytest.approx([norms[0]] * 6)


def test_a_zero_layer_stays_zero():
    linear = nn.Linear(6, 6)
    nn.init.zeros_(linear.weight)
    assert not ttq.TTLinear.from_linear(linear, rank=3).to_linear().weight.any()


# --------------------------------------------------------------------------------------------------- initialization


def mean_square(make, draws=200):
    torch.manual_seed(0)
    return float(torch.stack([make().detach().square().mean() for _ in range(draws)]).mean())


def test_a_fresh_layer_keeps_the_variance_of_its_input():
    x = torch.randn(64, 60)
    assert mean_square(lambda: ttq.TTLinear(60, 50, rank=8)(x)) == pytest.approx(1, rel=0.1)


def test_a_wanted_standard_deviation_is_met():
    layer = ttq.TTLinear(60, 50, rank=8)
    assert mean_square(lambda: layer.reset_parameters(std=0.3) or weight(layer)) == pytest.approx(0.09, rel=0.1)
    assert not layer.bias.any()


def test_unit_cores_would_explode():
    layer = ttq.TTLinear(60, 50, rank=8)
    assert mean_square(lambda: layer._init_cores(std=prod(layer.ranks) ** 0.5) or weight(layer)) > 1000


# ------------------------------------------------------------------------------------------------------------ cache


def warm_layer(bias=False):
    torch.manual_seed(0)
    layer = with_bias(ttq.TTLinear(9, 8, rank=3, bias=bias)).eval()
    warm_up(layer)
    return layer


@torch.no_grad()
def warm_up(layer):
    layer.sides()


@torch.no_grad()
def cached(layer):
    return all(first is second for first, second in zip(layer.sides(), layer.sides()))


def test_merged_sides_are_kept_in_eval_mode_without_gradients_only():
    layer = warm_layer()
    assert cached(layer)
    assert not cached(layer.train())
    layer.eval()
    assert layer.sides()[0] is not layer.sides()[0]
    assert layer.sides()[0].requires_grad


def change_core(k):
    def change(layer):
        with torch.no_grad():
            getattr(layer, f"core{k}").mul_(3)

    return change


def step(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.ones(1, 9)).sum().backward()
    optimizer.step()


def replace(layer):
    layer.core0 = nn.init.normal_(nn.Parameter(torch.empty(layer.core0.shape)))


def transpose(layer):
    """A new parameter at the old address."""
    layer.core1 = nn.Parameter(layer.core1.detach().transpose(0, 2))


def assign_data(layer):
    layer.core0.data = torch.randn_like(layer.core0)


def write_data(layer):
    layer.core0.data.mul_(3)
    layer.train().eval()


def change_in_inference_mode(layer):
    with torch.inference_mode():
        layer.core0.mul_(3)


def load(layer):
    layer.load_state_dict({name: 3 * value for name, value in layer.state_dict().items()})


def load_by_assignment(layer):
    layer.load_state_dict({name: 3 * value for name, value in layer.state_dict().items()}, assign=True)


def quantize(k, *modules):
    """Parametrize core k with each module in turn, the cache warm in between."""

    def change(layer):
        for module in modules:
            warm_up(layer)
            parametrize.register_parametrization(layer, f"core{k}", module)

    return change


def change_scale(layer):
    quantize(0, Scale(2.0))(layer)
    warm_up(layer)
    with torch.no_grad():
        layer.parametrizations.core0[0].factor.fill_(5)


def unquantize(k, leave):
    def change(layer):
        with torch.no_grad():
            getattr(layer, f"core{k}").mul_(3)
        quantize(k, Double())(layer)
        warm_up(layer)
        parametrize.remove_parametrizations(layer, f"core{k}", leave_parametrized=leave)

    return change


CHANGES = {
    **{f"core{k} in place": change_core(k) for k in range(6)},
    "an optimizer step": step,
    "load_state_dict": load,
    "load_state_dict by assignment": load_by_assignment,
    "new parameters": replace,
    "a new view of an old parameter": transpose,
    "new data": assign_data,
    "writing to .data, then .train()": write_data,
    "in place in inference mode": change_in_inference_mode,
    "set_cores": lambda layer: layer.set_cores([2 * core for core in layer.cores]),
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "a parametrization with a parameter": quantize(0, Scale(2.0)),
    "a change of that parameter": change_scale,
    # The last core stands last among the parameters, parametrized or not: the order of names gives nothing away.
    **{f"core{k} parametrized without parameters": quantize(k, Double()) for k in (0, 5)},
    **{f"core{k} parametrized twice": quantize(k, Double(), Double()) for k in (0, 5)},
    **{f"core{k} parametrized, then not": unquantize(k, leave=False) for k in (0, 5)},
    **{f"core{k} parametrized, then fixed": unquantize(k, leave=True) for k in (0, 5)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_cache_is_dropped_after(change):
    layer, x = warm_layer(), torch.ones(2, 9)
    with torch.no_grad():
        before = layer(x)
    change(layer)
    with torch.no_grad():
        after = layer(x)
        torch.testing.assert_close(after, dense(layer, x))
    assert not torch.allclose(after, before)
    assert cached(layer)


def test_what_the_cache_compares_is_not_freed_before_it_is_renewed():
    """Else a new core could get the id and the address of the old one, and pass for it."""
    layer = warm_layer()
    quantize(5, Double())(layer)
    warm_up(layer)
    core, module = weakref.ref(layer.core0), weakref.ref(layer.parametrizations.core5[0])
    data = StorageWeakRef(layer.core0.untyped_storage())
    layer.core0.data = torch.randn_like(layer.core0)
    replace(layer)
    parametrize.remove_parametrizations(layer, "core5")
    gc.collect()
    assert core() is not None and module() is not None and not data.expired()
    warm_up(layer)
    gc.collect()
    assert core() is module() is None and data.expired()  # nor for longer


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_cache_follows_a_change_of_dtype(dtype):
    layer = warm_layer().to(dtype)
    with torch.no_grad():
        assert layer(torch.ones(1, 9, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("autocast_first", [True, False])
def test_the_cache_follows_autocast(autocast_first):
    layer, x = ttq.TTLinear(9, 8, rank=3).eval(), torch.ones(1, 9)
    for autocast in (autocast_first, not autocast_first):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = layer(x)
        assert output.dtype == (torch.bfloat16 if autocast else torch.float32)
        torch.testing.assert_close(
            output.float(), dense(layer, x), rtol=0.1 if autocast else 1e-5, atol=1e-1 if autocast else 1e-5
        )


def test_sides_kept_in_inference_mode_do_not_disturb_what_follows():
    layer, x = ttq.TTLinear(9, 8, rank=3).eval(), torch.ones(2, 9)
    with torch.inference_mode():
        expected = layer(x).clone()
    for twin in (layer, copy.deepcopy(layer)):
        with torch.no_grad():
            assert torch.equal(twin(x), expected)
        twin(x).sum().backward()
        assert twin.core0.grad.any()


def test_cores_made_in_inference_mode_work():
    with torch.inference_mode():
        layer = ttq.TTLinear(9, 8, rank=3).eval()
        x = torch.ones(2, 9)
        before = layer(x)
        torch.testing.assert_close(before, dense(layer, x))
        layer.core0.mul_(3)
        torch.testing.assert_close(layer(x), 3 * before)


@pytest.mark.parametrize("changes", [(), (quantize(5, Double()),)], ids=["plain", "parametrized"])
def test_a_deep_copy_is_independent(changes):
    layer, x = warm_layer(bias=True), torch.ones(2, 9)
    for change in changes:
        change(layer)
    with torch.no_grad():
        before = layer(x)
        twin = copy.deepcopy(layer)
        assert torch.equal(twin(x), before)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(x).any()
        assert torch.equal(layer(x), before)


def test_a_warm_layer_stores_its_cores_and_bias_and_nothing_else():
    layer = ttq.TTLinear(9, 8, rank=3).eval()
    cold = len(pickle.dumps(layer))
    warm_up(layer)
    assert set(layer.state_dict()) == {*(f"core{k}" for k in range(6)), "bias"} == set(dict(layer.named_parameters()))
    assert len(pickle.dumps(layer)) == cold
    copied = pickle.loads(pickle.dumps(layer))
    assert torch.equal(copied(torch.ones(1, 9)), layer(torch.ones(1, 9)))


# -------------------------------------------------------------------------------------------- living in a PyTorch world


def test_a_parametrized_core_counts_in_value_and_gradient():
    torch.manual_seed(0)
    layer, x = ttq.TTLinear(9, 8, rank=3, dtype=torch.float64), random_tensor((2, 9)).requires_grad_()
    expected = dense(layer, x)
    parametrize.register_parametrization(layer, "core2", Scale(3.0))
    output = layer(x)
    assert_close(output, 3 * expected)
    assert_close(layer.to_linear()(x), output)
    found, wanted = (torch.autograd.grad(y.sum(), layer.parameters()) for y in (output, dense(layer, x)))
    for actual, expected in zip(found, wanted):
        assert_close(actual, expected)
    assert layer.parametrizations.core2[0].factor in set(layer.parameters())


def set_to_ones(layer):
    layer.set_cores([torch.ones_like(core) for core in layer.cores])


@pytest.mark.parametrize("write", [set_to_ones, ttq.TTLinear.reset_parameters], ids=["set_cores", "reset_parameters"])
def test_cores_are_written_through_their_parametrizations_or_not_at_all(write):
    """Writing into the value that a parametrization has computed would change nothing, in silence."""
    plain, layer = warm_layer(), warm_layer()
    parametrize.register_parametrization(layer, "core2", InvertibleDouble())
    for each in (plain, layer):
        torch.manual_seed(1)
        write(each)
    for core, expected in zip(layer.cores, plain.cores):
        assert torch.equal(core, expected)
    parametrize.register_parametrization(layer, "core3", Double())
    with pytest.raises((RuntimeError, ValueError)):
        write(layer)


def test_the_layer_compiles_as_one_graph():
    layer, x = warm_layer(), torch.ones(2, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_a_layer_without_data_knows_its_shapes():
    layer = ttq.TTLinear(9, 8, rank=3, device="meta").eval()
    x = torch.ones(2, 9, device="meta")
    assert layer(x).shape == (2, 8)
    with torch.no_grad():
        assert layer(x).shape == layer(x).shape == (2, 8)
    assert {parameter.device.type for parameter in layer.parameters()} == {"meta"}
    assert layer.to_empty(device="cpu")(torch.ones(2, 9)).device.type == "cpu"


def test_the_repr_tells_modes_ranks_and_what_is_saved():
    layer = ttq.TTLinear(768, 768, rank=30)
    stored = sum(core.numel() for core in layer.cores)
    for part in (
        "in_features=768",
        "out_features=768",
        "bias=True",
        "in_modes=(12, 8, 8)",
        "out_modes=(8, 8, 12)",
        "ranks=(1, 12, 30, 30, 30, 12, 1)",
        f"{stored} numbers for {768 * 768}",
        f"{768 * 768 / stored:.1f}×",
    ):
        assert part in repr(layer)


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["in_features", "out_features", "rank"])
@pytest.mark.parametrize("value", NOT_COUNTS)
def test_a_size_or_rank_that_is_no_count_is_refused(name, value):
    arguments = {"in_features": 8, "out_features": 8, "rank": 2, name: value}
    with refused(ValueError, name, "whole number of at least 1", repr(value)):
        ttq.TTLinear(**arguments)


def test_modes_that_do_not_multiply_out_are_refused():
    with refused(ValueError, "in_modes=(2, 3)", "multiplies out to 6", "less than the 8"):
        ttq.TTLinear(8, 8, rank=2, in_modes=(2, 3))
    with refused(ValueError, "out_modes=(4, 4)", "multiplies out to 16", "needlessly more than the 8"):
        ttq.TTLinear(8, 8, rank=2, out_modes=(4, 4))
    with refused(ValueError, "in_modes=(2, 3)", "less than the 8"):
        ttq.TTLinear.from_linear(nn.Linear(8, 8), rank=2, in_modes=(2, 3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_a_dtype_that_is_not_floating_point_is_refused(dtype):
    with refused(TypeError, "dtype", "floating-point", str(dtype)):
        ttq.TTLinear(8, 8, rank=2, dtype=dtype)


def test_input_that_does_not_fit_is_refused():
    layer = ttq.TTLinear(8, 6, rank=2)
    with refused(TypeError, "floating-point", "int64"):
        layer(torch.ones(2, 8, dtype=torch.int64))
    for shape in [(2, 6), (8, 2), (0,), ()]:
        with refused(ValueError, "last axis", "in_features=8", str(shape)):
            layer(torch.ones(shape))


def test_cores_of_another_shape_are_refused():
    layer = ttq.TTLinear(8, 8, rank=2)
    before = [core.detach().clone() for core in layer.cores]
    others = [torch.ones_like(core) for core in before]
    with refused(ValueError, "core1", "(2, 2, 2)", "(2, 2, 3)"):
        layer.set_cores([others[0], torch.ones(2, 2, 3), *others[2:]])
    for wrong in (others[:2], [*others, others[0]]):
        with refused(ValueError, "has 6 cores", f"got {len(wrong)}"):
            layer.set_cores(wrong)
    assert all(map(torch.equal, layer.cores, before))


def test_compressing_wants_a_rank_or_a_tolerance():
    with refused(ValueError, "either rank or tolerance"):
        ttq.TTLinear.from_linear(nn.Linear(8, 8))
    with refused(ValueError, "tolerance must lie strictly between 0 and 1", "1.5"):
        ttq.TTLinear.from_linear(nn.Linear(8, 8), tolerance=1.5)


def test_half_precision_weights_beyond_its_range_are_balanced_before_they_are_rounded():
    linear = torch.nn.Linear(64, 64, bias=False, dtype=torch.float16)
    linear.weight.data.fill_(2000)  # a norm of 128 000, and float16 ends at 65 504
    layer = ttq.TTLinear.from_linear(linear, rank=1)
    assert ttq.relative_error(linear.weight, layer.to_linear().weight) < 0.01


# ----------------------------------------------------------------------------------------------- who reads the weight


def test_the_weight_can_be_read_with_its_gradient_and_not_set():
    torch.manual_seed(0)
    layer = ttq.TTLinear(12, 10, rank=3)
    x = torch.randn(5, 12)
    weight = layer.weight
    assert weight.shape == (10, 12) and torch.equal(weight, layer.to_linear().weight)
    read = torch.autograd.grad(F.linear(x, weight, layer.bias).square().sum(), layer.parameters())
    called = torch.autograd.grad(layer(x).square().sum(), layer.parameters())
    for one, other in zip(read, called):
        torch.testing.assert_close(one, other)
    with pytest.raises((AttributeError, KeyError)):
        layer.weight = nn.Parameter(torch.zeros(10, 12))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_modules_that_read_weights_and_call_nothing_work(attention, training):
    """PyTorch's attention reads out_proj.weight always, its encoder layer all weights in eval mode."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
    module = layer.self_attn if attention else layer
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    compressed = copy.deepcopy(module)
    ttq.compress_(compressed, ttq.TTQConfig(dict.fromkeys(names, ttq.TT(10**6))))
    x = torch.randn(2, 5, 12)
    arguments = (x, x, x) if attention else (x,)
    with torch.no_grad():
        answers = [part.train(training)(*arguments) for part in (compressed, module)]
    one, other = (answer[0] if attention else answer for answer in answers)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_cores_in_half_precision_are_merged_in_full():
    torch.manual_seed(0)
    layer = ttq.TTLinear(96, 96, rank=24)
    exact = layer.weight
    rounded = copy.deepcopy(layer).bfloat16()
    from_rounded = copy.deepcopy(rounded).float().weight
    error = ttq.relative_error(from_rounded, rounded.weight.float())
    best = ttq.relative_error(from_rounded, from_rounded.bfloat16().float())
    assert error < 2 * best  # two sides and their product are rounded, each once
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.sides()[0], layer.sides()[0].float())
        u, v = layer.sides()
    assert ttq.relative_error(exact, (u @ v).T) < 1e-5
