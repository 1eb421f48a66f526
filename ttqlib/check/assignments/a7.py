"""Assignment 7, equivalent scales: fold into a norm, share among heads, find what is proportional, train, and prove.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw their inputs from a seed.
"""

import copy
from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ...quantizers.recipes import GroupRTN
from ..verdict import close, exercise, fail
from .asking import ask, ask_twice
from .seeds import generator

LIBRARY = ("equivalent_groups", "equivalent_", "fold_", "awq_")
ENOUGH = 0.6  # of the squared error of round-to-nearest may be left; the model answer leaves a half and less


@exercise
def fold_by_hand(function: Callable) -> None:
    """Two gains, two biases, and one layer behind them."""
    gain, bias = torch.tensor([2.0, 4.0]), torch.tensor([1.0, -1.0])
    _fold_agrees(function, gain, bias, [torch.tensor([[1.0, 2.0], [3.0, 4.0]])], torch.tensor([log(2), 0.0]))


@exercise
def fold(function: Callable, seed: int = 0) -> None:
    """`function(gain, bias, weights, log_scales)` must return a gain, a bias and a list of weights."""
    draw = generator(seed, "fold")
    for outputs, inputs in [((3, 2), 4), ((4,), 4), ((2, 3, 5), 3)]:
        weights = [torch.randn(rows, inputs, generator=draw) for rows in outputs]
        _fold_agrees(function, *torch.randn(2, inputs, generator=draw), weights, torch.randn(inputs, generator=draw))


@exercise
def heads_by_hand(function: Callable) -> None:
    """Four heads of two channels over two heads of values."""
    _heads_agree(function, 4, 2, 2)


@exercise
def heads(function: Callable, seed: int = 0) -> None:
    """`function(heads, kv_heads, size)` must return the number of each input's scale."""
    size = int(torch.randint(2, 6, (), generator=generator(seed, "heads")))
    for shape in [(6, 2, 3), (9, 3, size), (4, 4, size), (3, 1, 2)]:
        _heads_agree(function, *shape)


@exercise
def find_by_hand(function: Callable) -> None:
    """Two inputs, four outputs."""
    x = torch.tensor([[1.0, 2.0], [3.0, 0.5], [-1.0, 4.0]])
    _found(function, lambda x: torch.stack([2 * x[:, 0], x[:, 1] + 1, x[:, 0] * x[:, 1], x[:, 1].relu()], 1), x)


@exercise
def find(function: Callable, seed: int = 0) -> None:
    """`function(layer, x)` must return, for each output of the layer, the input that it is proportional to, or −1."""
    draw = generator(seed, "find")
    x, order = torch.randn(5, 4, generator=draw), torch.randperm(4, generator=draw)

    def layer(x: Tensor) -> Tensor:
        a, b, c, d = x[:, order].unbind(1)
        return torch.stack([-3 * a, b * b, nn.functional.silu(c), d.relu(), a + b, 0 * a, a / 8, c * 0 + 2], 1)

    _found(function, layer, x)
    _found(function, lambda x: x[:, order], x)


@exercise
def train_by_hand(function: Callable) -> None:
    """The two rows of chapter 11, and a large input: scales that lose less exist."""
    weight, x = torch.tensor([[0.4, 7.0], [0.3, 3.5]]), torch.tensor([[10.0, 1.0], [-8.0, 1.5], [9.0, -0.5]])
    _trained(function, weight, x, 3)


@exercise
def train(function: Callable, seed: int = 0) -> None:
    """`function(weight, x, bits)` must return logarithms of scales, with which rounding loses less of the outputs."""
    draw = generator(seed, "train")
    for bits in (4, 3):
        weight, x = torch.randn(16, 24, generator=draw), torch.randn(64, 24, generator=draw)
        x[:, :3] *= 20
        _trained(function, weight, x, bits)


@exercise
def prove_by_hand(function: Callable) -> None:
    """A model and itself, and one whose logits are twice as large."""
    model = _decoder(torch.Generator().manual_seed(0))
    twice = copy.deepcopy(model)
    twice.lm_head.weight.data *= 2
    ids = torch.arange(6)[None]
    _proved(function, model, copy.deepcopy(model), ids, "of a model and its copy")
    _proved(function, model, twice, ids, "of a model and one with logits twice as large")


@exercise
def prove(function: Callable, seed: int = 0) -> None:
    """`function(model, other, ids)` must return the largest difference of logits over the largest logit."""
    draw = generator(seed, "prove")
    model = _decoder(draw)
    folded, ids = copy.deepcopy(model), torch.randint(20, (2, 7), generator=draw)
    layer = folded.model.layers[0]
    scale = torch.randn(16, generator=draw).exp()
    layer.post_attention_layernorm.weight.data /= scale
    for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
        linear.weight.data *= scale
    _proved(function, model, folded, ids, "of a model and its folded copy in float32")
    layer.mlp.up_proj.weight.data[0] += 0.5
    _proved(function, model, folded, ids, "of a model and one with another weight")


# ------------------------------------------------------------------------------------------- what the checks share


def _fold_agrees(function: Callable, gain: Tensor, bias: Tensor, weights: list[Tensor], logs: Tensor) -> None:
    got = ask_twice(function, gain, bias, weights, logs, without=LIBRARY)
    if not (isinstance(got, tuple | list) and len(got) == 3):
        fail(function, f"expected three things, a gain, a bias and a list of weights, got {type(got).__name__}")
    if not isinstance(got[2], list | tuple) or len(got[2]) != len(weights):
        fail(function, f"expected a list of {len(weights)} weights as the third")
    close(function, got[0], gain / logs.exp(), "of the gain")
    close(function, got[1], bias / logs.exp(), "of the bias")
    for number, (mine, weight) in enumerate(zip(got[2], weights, strict=True)):
        close(function, mine, weight * logs.exp(), f"of weight {number}, {len(weight)} × {len(logs)},")


def _heads_agree(function: Callable, count: int, kv_heads: int, size: int) -> None:
    got = ask_twice(function, count, kv_heads, size)
    where = f"{count} heads over {kv_heads} of values, of {size} channels:"
    if not isinstance(got, Tensor) or got.dtype != torch.int64:
        fail(function, f"{where} expected whole numbers, torch.int64, got {getattr(got, 'dtype', type(got).__name__)}")
    right = torch.arange(kv_heads * size).reshape(kv_heads, size).repeat_interleave(count // kv_heads, 0).flatten()
    if got.shape != right.shape:
        fail(function, f"{where} expected shape {tuple(right.shape)}, got {tuple(got.shape)}")
    for place in (got != right).nonzero()[:1].flatten().tolist():
        fail(function, f"{where} input {place} has scale {int(right[place])}, got {int(got[place])}")


def _found(function: Callable, layer: Callable, x: Tensor) -> None:
    base, right = layer(x), []
    doubled = [layer(x * (1 + torch.eye(x.shape[1])[j])) for j in range(x.shape[1])]
    for k in range(base.shape[1]):
        moved = [j for j, y in enumerate(doubled) if not torch.equal(y[:, k], base[:, k])]
        alone = len(moved) == 1 and torch.equal(doubled[moved[0]][:, k], 2 * base[:, k])
        right.append(moved[0] if alone else -1)
    got = ask_twice(function, layer, x, without=LIBRARY)
    got = got.tolist() if isinstance(got, Tensor) else got
    if not isinstance(got, list | tuple) or len(got) != len(right):
        fail(function, f"expected {len(right)} numbers, one for each output, got {got}")
    for k, (mine, wanted) in enumerate(zip(got, right, strict=True)):
        if mine != wanted:
            fail(function, f"output {k} of {len(right)}: expected {wanted}, got {mine}")


def _trained(function: Callable, weight: Tensor, x: Tensor, bits: int) -> None:
    got = ask(function, weight, x, bits, without=LIBRARY)
    if not isinstance(got, Tensor) or tuple(got.shape) != (weight.shape[1],):
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        fail(function, f"expected a logarithm for each input, shape ({weight.shape[1]},), got {shape}")
    logs = got.detach().to(weight)
    if not logs.isfinite().all():
        fail(function, "some of the logarithms are not finite")
    before, after = (_lost(weight, x, bits, one) for one in (torch.zeros_like(logs), logs))
    if after > ENOUGH * before:
        much = f"{after / before:.0%} of the squared error of round-to-nearest is left"
        fail(function, f"at {bits} bits {much}, {ENOUGH:.0%} are allowed")


def _lost(weight: Tensor, x: Tensor, bits: int, logs: Tensor) -> float:
    scaled = weight * logs.exp()
    rounded = GroupRTN(bits, per="channel", symmetric=False).build(scaled)(scaled) / logs.exp()
    return float((x @ (rounded - weight).T).square().sum())


def _proved(function: Callable, model: nn.Module, other: nn.Module, ids: Tensor, where: str) -> None:
    exact = [copy.deepcopy(one).double().eval() for one in (model, other)]
    with torch.no_grad():
        mine, theirs = (one(ids).logits for one in exact)
    right = float((mine - theirs).abs().max() / mine.abs().max())
    got = ask_twice(function, model, other, ids, without=LIBRARY)
    try:
        value = float(got)
    except (TypeError, ValueError, RuntimeError):
        fail(function, f"expected one number, got {type(got).__name__}")
    if abs(value - right) > 1e-3 * right + 1e-15:
        fail(function, f"{where} expected {right:.4g}, got {value:.4g}")


def _decoder(draw: torch.Generator) -> LlamaForCausalLM:
    """A Llama of one layer whose every weight is random, in train mode and with dropout in its attention."""
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_dropout=0.5,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4 + name.endswith("norm.weight"))
    return model.train()
