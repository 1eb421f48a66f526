"""Layers that share: `Shared` in a plan, from the matrices of a group to files and back."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import ttqlib as ttq
from tests.cases import assert_close, random_tensor, refused, seeds
from tests.families import FAMILIES
from tests.family_steps import answers
from ttqlib.surgery.sharing import shared_cores

SIDES = ("input", "output", "both")
sides = st.sampled_from(SIDES)


def stack(*shapes: tuple[int, int], seed: int = 0, dtype=torch.float64) -> nn.Sequential:
    """Linear layers of random weights (inputs, outputs), and of biases that are not zero."""
    net = nn.Sequential(*(nn.Linear(*shape, dtype=dtype) for shape in shapes))
    with torch.no_grad():
        for k, layer in enumerate(net):
            layer.weight.copy_(random_tensor(layer.weight.shape, seed + k))
            layer.bias.copy_(random_tensor(layer.bias.shape, seed + 100 + k))
    return net


def together(net: nn.Module, rank: int, side: str, quantize=None, rest: int = 32) -> ttq.TTQConfig:
    layer = ttq.LayerPlan(ttq.Shared(rank, side, "all"), quantize)
    return ttq.TTQConfig({str(k): layer for k in range(len(net))}, rest)


def shared(net: nn.Sequential, *plan, **options) -> nn.Sequential:
    return ttq.compress_(copy.deepcopy(net), together(net, *plan, **options))


def lost(net: nn.Module, made: nn.Module) -> float:
    """The squared error of all weights."""
    return sum(float((one.weight - other.weight).detach().square().sum()) for one, other in zip(net, made))


def tail(matrix: torch.Tensor, rank: int) -> float:
    """What the best matrix of this rank loses, squared (Eckart and Young)."""
    return float(torch.linalg.svdvals(matrix)[rank:].square().sum())


# ------------------------------------------------------------------------------------------------------ what it is


@given(sides, st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), seeds)
@settings(max_examples=60)
def test_layers_are_products_of_their_factors_of_which_some_are_one(side, count, inputs, outputs, rank, seed):
    net = stack(*[(inputs, outputs)] * count, seed=seed)
    made = shared(net, rank, side)
    rank = min(rank, inputs, outputs)
    u, v = [layer.core0[0] for layer in made], [list(layer.cores)[-1][..., 0] for layer in made]
    middle = [layer.core1[:, 0] for layer in made] if side == "both" else [torch.eye(rank, dtype=u[0].dtype)] * count
    x = random_tensor((5, inputs), seed)
    for k, layer in enumerate(made):
        assert (u[k].shape, v[k].shape) == ((inputs, rank), (rank, outputs))
        assert_close(layer(x), x @ u[k] @ middle[k] @ v[k] + net[k].bias)
    assert all(layer.core0 is made[0].core0 for layer in made) == (side != "output" or count == 1)
    last = f"core{made[0].order - 1}"
    assert all(getattr(layer, last) is getattr(made[0], last) for layer in made) == (side != "input" or count == 1)
    kinds = {"input": (1, 0, count), "output": (count, 0, 1), "both": (1, count, 1)}[side]
    numbers = rank * (kinds[0] * inputs + kinds[1] * rank + kinds[2] * outputs) + count * outputs
    assert ttq.count_parameters(made) == numbers


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), seeds)
@settings(max_examples=40)
def test_a_shared_side_loses_what_the_svd_of_all_weights_loses(count, inputs, outputs, rank, seed):
    net = stack(*[(inputs, outputs)] * count, seed=seed)
    weights, rank = [layer.weight.detach().T for layer in net], min(rank, inputs, outputs)
    for side, matrix in (("input", torch.cat(weights, 1)), ("output", torch.cat(weights, 0))):
        assert lost(net, shared(net, rank, side)) == pytest.approx(tail(matrix, rank), rel=1e-6, abs=1e-9)
    one_train = lost(net, shared(net, rank, "both"))
    assert one_train >= max(tail(torch.cat(weights, axis), rank) for axis in (0, 1)) - 1e-9
    assert one_train <= sum(tail(torch.cat(weights, axis), rank) for axis in (0, 1)) + 1e-9  # as of any TT-SVD


def test_weights_that_are_one_train_are_found_to_be():
    u, g, v = random_tensor((9, 3)), random_tensor((4, 3, 3), 1), random_tensor((3, 7), 2)
    net = stack(*[(9, 7)] * 4)
    with torch.no_grad():
        for k, layer in enumerate(net):
            layer.weight.copy_((u @ g[k] @ v).T)
    assert lost(net, shared(net, 3, "both")) < 1e-20
    assert lost(net, shared(net, 2, "both")) > 0.1


def test_matrices_of_other_widths_share_where_they_are_alike():
    net = stack((8, 4), (8, 6))
    made = shared(net, 3, "input")
    assert made[0].core0 is made[1].core0 and made[1].core1.shape == (3, 6, 1)
    with refused(ValueError, "0 and 1", "'all'", "shapes", "[(3, 4, 1)] and [(3, 6, 1)]"):
        shared(net, 3, "output")


@pytest.mark.parametrize("side", SIDES)
def test_random_cores_have_the_deviation_of_each_weight(side):
    net = stack(*[(40, 50)] * 3, dtype=torch.float32)
    with torch.no_grad():
        net[1].weight.mul_(5)
    made = ttq.compress_(copy.deepcopy(net), together(net, 30, side), init="random")
    assert len(shared_cores(made)) == len(ttq.Shared(1, side, "x").cores)
    for one, other in zip(net, made):
        assert float((other.weight.std() / one.weight.std()).detach()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_with_calibration_outputs_lose_less(name, side):
    family = FAMILIES[name]
    dense, inputs = family.build(), family.inputs()
    pattern = {"B": r"\d\.output\.dense", "G": r"mlp\.c_proj", "L": r"down_proj"}[name[0]]
    config = ttq.plan(dense, rules={pattern: ttq.Shared(4, side, "all")})
    seen = {}

    def error(made) -> float:
        hooks = [
            dense.get_submodule(layer).register_forward_hook(
                lambda _, x, y, layer=layer: seen.update({layer: float((made.get_submodule(layer)(x[0]) - y).norm())})
            )
            for layer in config.layers
        ]
        answers(dense, inputs)
        for hook in hooks:
            hook.remove()
        return sum(value**2 for value in seen.values())

    plain = ttq.compress_(copy.deepcopy(dense), config)
    calibrated = ttq.compress_(copy.deepcopy(dense), config, calibration=[inputs])
    with torch.no_grad():
        assert len(seen) == 0 and error(calibrated) < 0.8 * error(plain)


# -------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("quantize", [None, ttq.LSQ(4)])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_the_gradient_of_what_is_shared_is_the_sum_over_the_layers(side, joined, quantize):
    net = shared(stack(*[(8, 8)] * 3, dtype=torch.float32), 4, side, quantize).train()
    apart = copy.deepcopy(net)
    for layer in apart:  # the same numbers, but each layer has its own
        if quantize is None:
            for name, core in list(layer._parameters.items()):
                setattr(layer, name, nn.Parameter(core.detach().clone()))
        else:
            layer.parametrizations = copy.deepcopy(layer.parametrizations)
    x = random_tensor((6, 8)).float()
    for one in (net, apart):
        with ttq.merged_together(one) if joined else torch.enable_grad():
            one(x).square().sum().backward()

    def places(model, k):
        lists = [layer.parametrizations[f"core{k}"] if quantize else None for layer in model]
        cores = [one.original if quantize else getattr(layer, f"core{k}") for layer, one in zip(model, lists)]
        return [cores, [one[0].scale for one in lists]] if quantize else [cores]

    for k in ttq.Shared(1, side, "x").cores:
        for ours, theirs in zip(places(net, k), places(apart, k)):
            assert len(set(map(id, ours))) == 1 and len(set(map(id, theirs))) == 3
            total = sum(one.grad for one in theirs)
            torch.testing.assert_close(ours[0].grad, total, rtol=1e-4, atol=1e-4 * float(total.abs().max()))
    torch.optim.SGD(net.parameters(), 0.01).step()
    assert len(shared_cores(net)) == len(ttq.Shared(1, side, "x").cores)


# -------------------------------------------------------------------------------------------------- plans and files


@given(sides, st.integers(1, 500), st.text(min_size=1, max_size=12))
def test_a_plan_is_the_same_after_json(side, rank, group):
    config = ttq.TTQConfig({"a.0": ttq.LayerPlan(ttq.Shared(rank, side, group), ttq.LSQ(2)), "a.1": ttq.TT(3)}, 8)
    assert ttq.TTQConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rank": 0}, ("rank", "at least 1")),
        ({"rank": (1, 2, 1)}, ("rank", "whole number")),
        ({"side": "left"}, ("side", "'input', 'output', 'both'", "'left'")),
        ({"group": ""}, ("group must be a name",)),
        ({"group": 3}, ("group must be a name", "3")),
    ],
)
def test_a_format_that_is_none_is_refused(wrong, words):
    with refused(ValueError, *words):
        ttq.Shared(**{"rank": 2, "side": "input", "group": "all", **wrong})


@pytest.mark.parametrize("side", SIDES)
def test_a_file_holds_what_is_shared_once_to_the_bit(side, tmp_path):
    net = stack(*[(9, 7)] * 3, dtype=torch.float32)
    made = shared(net, 5, side, ttq.LSQ(3))
    ttq.save(made, tmp_path)
    tensors, path = load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors"
    first, others = {"input": (80, 35), "output": (80, 45), "both": (105, 25)}[side]
    assert [len(tensors[f"{k}.codes"]) for k in range(3)] == [-(-3 * count // 8) for count in (first, others, others)]
    assert [len(tensors[f"{k}.scales"]) for k in range(3)] == [made[0].order, 1, 1]
    report = ttq.report(made)
    assert report.total.stored_bytes == path.stat().st_size
    assert sum(row.parameters for row in report.rows) == ttq.count_parameters(made) - made[0].order - 2  # the scales
    assert report.total.dense_bytes == 4 * 3 * (9 * 7 + 7)
    for packed in (False, True):
        again = ttq.load(tmp_path, into=copy.deepcopy(net), packed=packed)
        x = random_tensor((4, 9)).float()
        assert torch.equal(again[2](x), made.eval()[2](x)) and torch.equal(again[0](x), made[0](x))
    ttq.save(again, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == path.read_bytes()


def test_what_stands_no_longer_together_is_not_written(tmp_path):
    made = shared(stack(*[(9, 7)] * 2, dtype=torch.float32), 3, "input")
    made[1].core0 = nn.Parameter(made[1].core0.detach().clone())
    with refused(ValueError, "1.core0", "one with 0.core0"):
        ttq.save(made, tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- in two steps


@pytest.mark.parametrize("side", SIDES)
def test_quantizers_come_later_and_others_after_them_and_all_stays_one(side):
    net = stack(*[(8, 8)] * 3, dtype=torch.float32)
    config = together(net, 4, side, ttq.LSQ(4))
    made = ttq.compress_(net, config.without_quantizers())
    cores = [core.detach().clone() for core in made[1].cores]
    ttq.compress_(made, config)
    assert all(
        torch.equal(layer.parametrizations[f"core{k}"].original, core)
        for layer in [made[1]]
        for k, core in enumerate(cores)
    )
    fewer = ttq.requantized(made, together(net, 4, side, ttq.LSQ(2)))
    for model in (made, fewer, copy.deepcopy(fewer)):
        assert len(shared_cores(model)) == len(ttq.Shared(1, side, "x").cores)
        assert all(len(places) == 3 for places in shared_cores(model))


def test_trains_that_do_not_share_as_the_plan_says_are_refused():
    net = stack(*[(8, 8)] * 2, dtype=torch.float32)
    apart = ttq.compress_(copy.deepcopy(net), ttq.TTQConfig({k: ttq.TT(3, (8,), (8,)) for k in "01"}))
    with refused(ValueError, "by the plan 0 and 1 share a core, but these tensor trains do not"):
        ttq.compress_(apart, together(net, 3, "input"))
    one = shared(net, 3, "input")
    with refused(ValueError, "by the plan 0 and 1 do not share a core, but these tensor trains do"):
        ttq.compress_(one, ttq.TTQConfig({k: ttq.LayerPlan(ttq.TT(3, (8,), (8,)), ttq.LSQ(4)) for k in "01"}))
    half = ttq.compress_(copy.deepcopy(net), ttq.TTQConfig({"0": ttq.TT(3, (8,), (8,))}))
    with refused(ValueError, "only one of 0 and 1 is a tensor train already"):
        ttq.compress_(half, together(net, 3, "input"))


def test_layers_of_a_group_must_be_alike():
    net = stack(*[(8, 8)] * 2, dtype=torch.float32)
    form = ttq.Shared(3, "input", "all")
    frozen = copy.deepcopy(net)
    frozen[1].weight.requires_grad_(False)
    half = copy.deepcopy(net)
    half[1].double()
    for model, others, words in (
        (net, ttq.LayerPlan(ttq.Shared(2, "input", "all")), ("formats", "rank=2")),
        (net, ttq.LayerPlan(form, ttq.LSQ(2)), ("quantizers", "None and LSQ")),
        (frozen, ttq.LayerPlan(form), ("requires_grad", "True and False")),
        (half, ttq.LayerPlan(form), ("dtypes", "float64")),
    ):
        before = copy.deepcopy(model.state_dict())
        with refused(ValueError, "0 and 1 are in the group 'all'", "groups of their own", *words):
            ttq.compress_(model, ttq.TTQConfig({"0": ttq.LayerPlan(form), "1": others}))
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with refused(ValueError, "Shared is for Linear or Conv1D", "Embedding"):
        ttq.compress_(nn.Sequential(nn.Embedding(8, 8)), ttq.TTQConfig({"0": form}))
    with refused(ValueError, "rule '0' gives Shared to 0", "Shared is for a linear layer"):
        ttq.plan(nn.Sequential(nn.Embedding(8, 8)), rules={"0": form})


def test_bonds_that_are_shared_are_not_turned():
    net = shared(stack(*[(8, 8)] * 2), 3, "both")
    before = copy.deepcopy(net.state_dict())
    with refused(ValueError, "0 and 1 share a core", "without rotate_"):
        ttq.rotate_(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_groups_of_two_parts_stay_two():
    net = nn.ModuleDict({"a": stack(*[(8, 8)] * 2), "b": stack(*[(8, 8)] * 2)}).float()
    for part in net.values():
        ttq.compress_(part, together(part, 3, "output"))
    config = ttq.compress_(net, ttq.TTQConfig(rest=8)).ttq_config
    assert {layer.format.group for layer in config.layers.values()} == {"a.all", "b.all"}
    assert sorted(map(len, shared_cores(net))) == [2, 2]


# --------------------------------------------------------------------------------------------- layers and deployment


@pytest.mark.parametrize("side", SIDES)
def test_fewer_layers_go_on_sharing(side, tmp_path):
    family = FAMILIES["BertForSequenceClassification"]
    model, inputs = family.build(), family.inputs()
    layer = ttq.LayerPlan(ttq.Shared(4, side, "up"), ttq.LSQ(4))
    ttq.compress_(model, ttq.plan(model, rules={r"intermediate": layer}))
    small = ttq.reduce_layers(model, [1])
    small.save_pretrained(tmp_path)
    again = type(small).from_pretrained(tmp_path)
    assert all(torch.equal(value, answers(small, inputs)[name]) for name, value in answers(again, inputs).items())
    assert not shared_cores(small) and shared_cores(ttq.reduce_layers(model, [0, 1]))


@pytest.mark.parametrize("side", SIDES)
def test_fused_layers_share_the_inputs_side(side):
    net = shared(stack(*[(32, 32)] * 3, dtype=torch.float32), 4, side, ttq.LSQ(8)).eval()
    fused = ttq.fuse_(copy.deepcopy(net))
    x = random_tensor((5, 32)).float()
    torch.testing.assert_close(fused(x), net(x), rtol=1e-4, atol=1e-3)
    firsts = {id(layer[0].weight) for layer in fused}
    assert len(firsts) == (3 if side == "output" else 1)
    assert all(layer[0] is not fused[0][0] for layer in fused[1:])  # each runs for itself, and is counted so
