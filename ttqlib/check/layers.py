"""A whole layer made of cores: what it holds, what it computes, how it starts and what it learns."""

from collections.abc import Callable, Sequence
from functools import wraps
from math import prod

import torch
from torch import Tensor, nn

from ..tensors.tensor_train import core_ranks, tt_to_tensor
from .forbidden import call_small
from .verdict import as_cores, call, close, exercise, fail

DRAWS = 20  # layers whose weights are looked at for their size


@exercise
def tt_layer(function: Callable) -> None:
    """`function(in_modes, out_modes, rank)` must return a module that is y = x W + b, with W a train in `cores`."""
    for inputs, outputs, rank in [((2, 3), (3, 2), 2), ((2, 2, 3), (4, 2, 2), 3)]:
        layer = _made(function, inputs, outputs, rank)
        _computes(function, layer, f"with modes {inputs} and {outputs} and rank {rank}")
        _learns(function, layer)
    _starts_well(function, (8, 4, 4), (4, 4, 8), 8)
    layer = _made(function, (100,) * 3, (100,) * 3, 1)
    call_small(_forward(function, layer), torch.ones(1, 100**3), whole="the weight")


def _made(function: Callable, inputs: Sequence[int], outputs: Sequence[int], rank: int) -> nn.Module:
    """The reader's layer, with the parameters that it has to have and no others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = call_small(function, tuple(inputs), tuple(outputs), rank, whole="the weight")
    if not isinstance(layer, nn.Module):
        fail(function, f"expected an nn.Module, got {type(layer).__name__}")
    cores, bias, modes = getattr(layer, "cores", ()), getattr(layer, "bias", None), (*inputs, *outputs)
    cores = as_cores(function, list(cores) if isinstance(cores, nn.ParameterList) else cores, modes)
    if max(core_ranks(cores)) > rank:
        fail(function, f"expected ranks of at most {rank}, got {list(core_ranks(cores))}")
    if tuple(getattr(bias, "shape", ())) != (prod(outputs),):
        fail(function, f"expected layer.bias of shape {(prod(outputs),)}, got {getattr(bias, 'shape', bias)}")
    learned = {id(parameter) for parameter in layer.parameters()}
    if not {id(tensor) for tensor in (*cores, bias)} <= learned:
        fail(function, "an optimizer has to find cores and bias among layer.parameters(): use nn.ParameterList")
    held, needed = (sum(tensor.numel() for tensor in part) for part in (layer.parameters(), (*cores, bias)))
    if held > needed:
        fail(function, f"expected parameters of {needed} numbers, cores and bias, got {held}")
    if bias.count_nonzero():
        fail(function, "expected a bias that starts at zero")
    return layer


def _forward(function: Callable, layer: nn.Module) -> Callable:
    """The layer's forward pass under the name that the reader's function has."""
    return wraps(function)(lambda x: layer(x))


def _weight(layer: nn.Module) -> Tensor:
    """W, of shape (inputs, outputs), as the cores say it."""
    return tt_to_tensor([*layer.cores]).reshape(-1, len(layer.bias))


def _computes(function: Callable, layer: nn.Module, where: str) -> None:
    """The layer must be x W + b for inputs of any leading shape, with the cores that it has now."""
    layer, generator = layer.double(), torch.Generator().manual_seed(0)
    for number, leading in enumerate([(5,), (), (2, 3)]):
        with torch.no_grad():
            layer.bias.fill_(number)
            layer.cores[number].mul_(-2)  # what was merged before is no longer true
            weight = _weight(layer)
            x = torch.randn(*leading, len(weight), dtype=torch.float64, generator=generator)
            y = call(_forward(function, layer), x)
            close(function, y, x @ weight + number, f"{where}, for an input of shape {tuple(x.shape)},")


def _learns(function: Callable, layer: nn.Module) -> None:
    """Each parameter must get the gradient that x W + b has."""
    x = torch.randn(5, len(_weight(layer)), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tensors = [*layer.cores, layer.bias]
    expected = torch.autograd.grad((x @ _weight(layer) + layer.bias).square().sum(), tensors)
    loss = call(_forward(function, layer), x).square().sum()
    got = torch.autograd.grad(loss, tensors, allow_unused=True) if loss.requires_grad else [None] * len(tensors)
    for name, mine, theirs in zip([*(f"core {k}" for k in range(len(got) - 1)), "the bias"], got, expected):
        if mine is None:
            fail(function, f"no gradient reaches {name}")
        close(function, mine, theirs, f"in the gradient of {name}")


def _starts_well(function: Callable, inputs: Sequence[int], outputs: Sequence[int], rank: int) -> None:
    """Over several draws W must have entries of standard deviation 1/√inputs."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [call(function, tuple(inputs), tuple(outputs), rank) for _ in range(DRAWS)]
        std = torch.stack([_weight(layer).square().mean() for layer in layers]).mean().sqrt()
        if torch.equal(_weight(layers[0]), _weight(layers[1])):
            fail(function, "expected cores drawn at random, got the same weight twice")
    wanted = prod(inputs) ** -0.5
    if not 0.75 < std / wanted < 1.33:
        fail(function, f"expected a weight of standard deviation {wanted:.3f} at the start, got {float(std):.3g}")
