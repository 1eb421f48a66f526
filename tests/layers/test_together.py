"""`merged_together`: the numbers of each layer alone, gradients too; and where every layer does its own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import ttqlib as ttq
from ttqlib.layers import together
from ttqlib.layers.together import merged_together

RECIPES = {
    "float": None,
    "one step": ttq.LSQ(3),
    "without a scaled gradient": ttq.LSQ(4, grad_scale=False),
    "by channel": ttq.LSQ(3, per="channel"),
    "binary": ttq.Binary(),
}


class Stack(nn.Module):
    """Four layers alike, one padded pair, and one that has no like."""

    def __init__(self, recipe=None):
        super().__init__()
        torch.manual_seed(0)
        self.alike = nn.ModuleList(ttq.TTLinear(24, 24, rank=5) for _ in range(4))
        self.padded = nn.ModuleList(ttq.TTLinear(24, 23, rank=4, in_modes=(5, 5), out_modes=(6, 4)) for _ in range(2))
        self.lone = ttq.TTLinear(23, 7, rank=2, bias=False)
        for layer in self.modules():
            if recipe is not None and isinstance(layer, ttq.TTLinear):
                for k in range(layer.order):
                    ttq.fake_quantize_(layer, recipe, f"core{k}")

    def forward(self, x, depth=4):
        for layer in self.alike[:depth]:
            x = torch.tanh(layer(x))
        return self.lone(self.padded[0](x) + self.padded[1](x))


def trained(model, shared, depth=4, dtype=torch.float64):
    """The output and all gradients after one pass."""
    x = torch.randn(9, 24, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with merged_together(model) if shared else torch.enable_grad():
        y = model(x, depth)
    y.square().sum().backward()
    return y.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_numbers_and_gradients_are_those_of_each_layer_alone(recipe):
    model = Stack(recipe).double()
    twin = copy.deepcopy(model)
    (y, gradients), (alone, expected) = trained(model, shared=True), trained(twin, shared=False)
    torch.testing.assert_close(y, alone, rtol=1e-12, atol=1e-12)
    assert gradients.keys() == expected.keys() and all(gradient is not None for gradient in gradients.values())
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("recipe", [None, ttq.LSQ(3)])
def test_layers_that_no_loss_reaches_get_no_gradient(recipe):
    _, gradients = trained(Stack(recipe).double(), shared=True, depth=2)
    assert {name.split(".")[1] for name, gradient in gradients.items() if gradient is None} == {"2", "3"}
    _, expected = trained(Stack(recipe).double(), shared=False, depth=2)
    assert {name for name, gradient in gradients.items() if gradient is None} == {
        name for name, gradient in expected.items() if gradient is None
    }


def test_each_kind_of_core_is_quantized_once(monkeypatch):
    """Four layers and two, six and four cores each: ten roundings in place of thirty-two."""
    model, calls, rounding = Stack(ttq.LSQ(3)), [], ttq.LSQ.fake_quantize
    monkeypatch.setattr(ttq.LSQ, "fake_quantize", lambda *args: calls.append(args[1].shape) or rounding(*args))
    own = model.lone.order
    with merged_together(model):
        model(torch.randn(2, 24))
    assert len(calls) == model.alike[0].order + model.padded[0].order + own
    assert [shape[0] for shape in calls[:6]] == [4] * 6


def test_layers_do_their_own_work_where_it_cannot_be_shared():
    model = Stack(ttq.LSQ(3))
    with merged_together(model):
        assert all(layer.given is not None for layer in [*model.alike, *model.padded])
        assert model.lone.given is None
    assert all(layer.given is None for layer in model.alike)
    with pytest.raises(ZeroDivisionError), merged_together(model):
        1 / 0  # noqa: B018
    assert all(layer.given is None for layer in model.alike)
    for state in (model.eval(), Stack().half(), Stack().bfloat16()):
        with merged_together(state):
            assert all(layer.given is None for layer in state.alike)
    with torch.no_grad(), merged_together(model.train()):
        assert all(layer.given is None for layer in model.alike)
    model.alike[2].gradient_checkpointing = True
    with merged_together(model):
        assert all(layer.given is None for layer in model.alike)


def test_what_was_given_is_in_no_copy():
    model = Stack()
    with merged_together(model):
        assert copy.deepcopy(model.alike[0]).given is None


def test_under_autocast_cores_are_merged_in_float32():
    model = Stack(ttq.LSQ(3))
    twin = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16), merged_together(model):
        assert {side.dtype for side in model.alike[0].given} == {torch.float32}
        shared, alone = model(torch.ones(2, 24)), twin(torch.ones(2, 24))
    assert shared.dtype == torch.bfloat16
    torch.testing.assert_close(shared, alone)


def test_frozen_layers_stay_frozen():
    model = Stack(ttq.LSQ(3)).double()
    model.alike[1].requires_grad_(False)
    _, gradients = trained(model, shared=True)
    assert {name for name, gradient in gradients.items() if gradient is None} == {
        f"alike.1.{name}" for name, _ in model.alike[1].named_parameters()
    }
    assert parametrize.is_parametrized(model.alike[1]) and together._recipes(model.alike[1])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("modes", [((60, 1), (1, 8)), ((6, 10), (2, 4))], ids=["low rank", "two cores"])
def test_rows_of_a_table_that_are_picked_are_those_of_the_whole(recipe, modes, monkeypatch):
    """And its gradients, those of the step size included, in whatever number of chunks."""
    torch.manual_seed(0)
    table = ttq.TTMEmbedding(60, 8, 3, *modes, padding_idx=0).double()
    for k in range(2 if recipe else 0):
        ttq.fake_quantize_(table, recipe, f"core{k}")
    ids = torch.tensor([[3, 59, 3], [0, 7, 11]])
    found = []
    for shared, chunk in ((False, 2**20), (True, 2**20), (True, 100)):
        monkeypatch.setattr("ttqlib.layers.embedding.CHUNK_BYTES", chunk)
        table.zero_grad()
        with merged_together(table) if shared else torch.enable_grad():
            rows = table(ids)
        rows.square().sum().backward()
        found.append([rows.detach(), *(parameter.grad for parameter in table.parameters())])
    assert table.given is None
    for ours in found[1:]:
        for mine, theirs in zip(ours, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_only_rows_that_are_picked_are_quantized(monkeypatch):
    table = ttq.TTMEmbedding(600, 8, 3, (600, 1), (1, 8))
    for k in range(2):
        ttq.fake_quantize_(table, ttq.LSQ(3), f"core{k}")
    sizes = []
    original = ttq.LSQ.fake_quantize

    def counted(self, weight, *given, **named):
        sizes.append(weight.numel())
        return original(self, weight, *given, **named)

    monkeypatch.setattr(ttq.LSQ, "fake_quantize", counted)
    ids = torch.arange(10)
    table(ids)
    with merged_together(table):
        table(ids)
    assert sizes == [1800, 24, 24, 30]
