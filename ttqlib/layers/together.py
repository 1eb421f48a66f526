"""All trains of a model in one pass: cores that stand in the same place are quantized and merged as one batch.

A transformer has dozens of layers of a few shapes, and a core is small: quantized and merged one by one, much of a
training step goes into calls, forth and back, and not into numbers. The first core of a word table is large, and a
batch needs few of its rows: only these are quantized.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..quantizers.fake_quantization import positive
from ..quantizers.parametrizing import quantized
from ..quantizers.recipes import LSQ
from .base import TTLayer
from .embedding import TTMEmbedding
from .linear import TTLinear


@contextmanager
def merged_together(model: nn.Module) -> Iterator[None]:
    """Inside, a forward pass that trains uses sides which all of the model's `TTLinear`s have merged together.

    The numbers are those of each layer alone, up to the last bits. Enter it for each forward pass anew: an optimizer's
    step inside would not be seen. Where layers cannot share the work (in eval mode, without gradients, in half
    precision, under `torch.compile`, or under gradient checkpointing, which computes layers once more) each does its
    own. `QATTrainer` and `DistillTrainer` use it.
    """
    groups, tables = _alike(model) if model.training and torch.is_grad_enabled() else ([], [])
    try:
        for layers in groups:
            for layer, *sides in zip(layers, *_sides(layers)):
                layer.given = tuple(sides)
        for table in tables:
            table.given = _picker(table)
        yield
    finally:
        for layer in (layer for layers in [*groups, tables] for layer in layers):
            layer.given = None


def _alike(model: nn.Module) -> tuple[list[list[TTLinear]], list[TTMEmbedding]]:
    """Groups of at least two layers whose cores have the same shapes and the same quantizers; tables of words."""
    groups: dict[tuple, list[TTLinear]] = defaultdict(list)
    tables, alone = [], torch.compiler.is_compiling()
    for part in model.modules():
        alone = alone or getattr(part, "gradient_checkpointing", False)  # as transformers has it
        if isinstance(part, TTLinear) and (like := next(part.parameters())).dtype.itemsize >= 4:
            shape = (part.in_features, part.out_features, part.in_modes, part.out_modes, part.ranks)
            groups[*shape, like.dtype, like.device, *_recipes(part).items()].append(part)
        elif isinstance(part, TTMEmbedding) and "core0" in _recipes(part):
            tables.append(part)
    return ([], []) if alone else ([layers for layers in groups.values() if len(layers) > 1], tables)


def _picker(table: TTMEmbedding) -> Callable[[Tensor], Tensor]:
    """Slices of the first core, quantized as they are picked: numbers (n,) → (n, h · r)."""
    recipe, stack = _recipes(table)["core0"], table.parametrizations["core0"]
    step, latent = positive(stack[0].scale), stack.original

    def pick(number: Tensor) -> Tensor:
        slices = F.embedding(number, latent[0].flatten(1))
        return recipe.fake_quantize(slices, {"scale": step}, sharing=latent.numel())

    return pick


def _recipes(layer: TTLayer) -> dict[str, LSQ]:
    """The cores that one step size quantizes, with their recipes; other quantizers stay the layer's own affair."""
    found = {name: getattr(quantizer, "recipe", None) for name, quantizer, _ in quantized(layer)}
    return {name: recipe for name, recipe in found.items() if isinstance(recipe, LSQ) and recipe.per == "tensor"}


def _sides(layers: Sequence[TTLinear]) -> Iterator[tuple[Tensor, ...]]:
    """U of each layer, and V of each."""
    reached = [False] * len(layers)
    recipes, first = _recipes(layers[0]), layers[0]
    with torch.autocast(next(first.parameters()).device.type, enabled=False):  # as each layer alone does it
        cores = [_stacked(layers, f"core{k}", recipes.get(f"core{k}"), reached) for k in range(first.order)]
        return (_Unstack.apply(side, reached) for side in first.merged(cores))


def _stacked(layers: Sequence[TTLinear], name: str, recipe: LSQ | None, reached: list[bool]) -> Tensor:
    """A core of all layers, (layers, r_{k-1}, mode, r_k), as the forward pass sees it."""
    if recipe is None:
        return _Stack.apply(reached, *(getattr(layer, name) for layer in layers))
    stacks = [layer.parametrizations[name] for layer in layers]
    steps = positive(_Stack.apply(reached, *(stack[0].scale for stack in stacks)))
    latent = _Stack.apply(reached, *(stack.original for stack in stacks))
    return recipe.fake_quantize(latent, {"scale": steps[:, None, None, None]})


class _Stack(torch.autograd.Function):
    """`torch.stack`; a layer that no loss has reached gets no gradient, as alone, and not one of zeros.

    An optimizer leaves alone what has no gradient. At zeros it goes on with decay and momentum.
    """

    @staticmethod
    def forward(ctx, reached: list[bool], *tensors: Tensor) -> Tensor:
        ctx.reached = reached
        return torch.stack(tensors)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, *(one if reached else None for one, reached in zip(grad, ctx.reached))


class _Unstack(torch.autograd.Function):
    """`torch.unbind`, which notes in `reached` which of its results have a gradient."""

    @staticmethod
    def forward(ctx, stacked: Tensor, reached: list[bool]) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.reached = reached
        ctx.save_for_backward(stacked[:1])  # its shape, for where there is no gradient
        return stacked.unbind()

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        for place, grad in enumerate(grads):
            ctx.reached[place] |= grad is not None
        (like,) = ctx.saved_tensors
        return torch.stack([torch.zeros_like(like[0]) if grad is None else grad for grad in grads]), None
