"""A model taken block by block, from its first layer to its last, each with what it is really given.

To choose the codes of one block by what it answers, only that block has to run. So this walk keeps the hidden states of
all batches between two blocks, in two versions: those of the float model, whose answers are the aim, and those of the
model as it is compressed so far. A block that is visited is given the latter, with all that the blocks before have
lost, and can make up for some of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from ..inventory.kinds import is_linear
from ..inventory.stacks import one_stack
from ..inventory.ties import by_identity
from ..progress import bar
from ..quantizers.fake_quantization import TINY
from ..quantizers.parametrizing import latent_weights, quantized
from ..quantizers.recipes import GroupRTN, WeightQuantizer
from ..tensors.tensor_train import at_least_float32
from .calibration import Batches, Sums, all_batches, eval_mode


@dataclass(frozen=True, eq=False)
class Weight:
    """The weight of a linear layer under `GroupRTN`; `name` is the layer's within its block."""

    name: str
    layer: nn.Module
    quantizer: WeightQuantizer
    latent: nn.Parameter

    @property
    def rows(self) -> Tensor:
        """The latent weight as the matrix (outputs, inputs)."""
        return self.quantizer.layout.rows(self.latent.detach())

    @torch.no_grad()
    def set_(self, scales: Mapping[str, Tensor], rows: Tensor | None = None) -> None:
        """Give the quantizer other scales, and the latent weight other values, (outputs, inputs)."""
        for name, value in scales.items():
            getattr(self.quantizer, name).copy_(value)
        if rows is not None:
            self.latent.copy_(self.quantizer.layout.weight(rows, self.latent.shape))


class Seen(NamedTuple):
    """What a layer was given, over all real tokens."""

    moments: Tensor  # E[x xᵀ], (n, n) in float64
    magnitude: Tensor  # E|x|, (n)


@dataclass(eq=False)
class Block:
    """One layer of the stack, and what it meets on each batch.

    Args:
        calls: what it is called with beside its hidden states.
        masks: which tokens are real, (B, T) of bool; None where all are.
        inputs: hidden states (B, T, n) as the model gives them that is compressed up to here, if it is.
        targets: what the float block answers where the float model runs, (B, T, n).
    """

    name: str
    module: nn.Module
    calls: Sequence[tuple[tuple, dict]]
    masks: Sequence[Tensor | None]
    inputs: Sequence[Tensor]
    targets: Sequence[Tensor] = ()

    def answer(self, number: int, x: Tensor) -> Tensor:
        """What the block makes of hidden states x that come with one of the batches, (B, T, n)."""
        args, kwargs = self.calls[number]
        return _hidden(self.module(x, *args, **kwargs))

    @torch.no_grad()
    def answers(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Those to hidden states of all batches; weights are quantized once for all of them."""
        with parametrize.cached():
            return [self.answer(number, x) for number, x in enumerate(inputs)]

    def weights(self) -> list[Weight]:
        """The weights of its linear layers that are under `GroupRTN`."""
        return [
            Weight(name, layer, quantizer, latent)
            for name, layer in self.module.named_modules()
            for own, quantizer, latent in (quantized(layer) if is_linear(layer) else ())
            if own == "weight" and isinstance(getattr(quantizer, "recipe", None), GroupRTN)
        ]

    @torch.no_grad()
    def seen(self) -> dict[str, Seen]:
        """What each linear layer is given, by its name within the block, with the block's own weights in float.

        Layers that are given one and the same tensor share what is seen. Padding does not count, and a layer that is
        never called is left out.
        """
        sums: dict[tuple[str, ...], tuple[Sums, Sums]] = {}
        given: dict[str, Tensor] = {}

        def look(name: str, layer: nn.Module, args: tuple) -> None:
            given[name] = args[0]

        with ExitStack() as hooks:
            for name, layer in self.module.named_modules():
                if is_linear(layer):
                    hooks.callback(layer.register_forward_pre_hook(partial(look, name)).remove)
            hooks.enter_context(latent_weights(self.module))
            for number, hidden in enumerate(self.inputs):
                given.clear()
                self.answer(number, hidden)
                for names in by_identity((x, name) for name, x in given.items()):
                    rows = _real_rows(given[names[0]], self.masks[number])
                    squares, sizes = sums.setdefault(tuple(names), (Sums(), Sums()))
                    squares.add(rows, products=True)
                    sizes.add(rows.abs(), products=False)
        found = {names: Seen(one.second_moment(centred=False), other.mean) for names, (one, other) in sums.items()}
        return {name: found[names] for names in found for name in names}

    def error(self, number: int) -> Tensor:
        """By how much its answer to one batch misses the target: ‖answer − target‖² / ‖target‖², the mean over tokens.

        Every token by its own size. The first token of a text has states some hundred times as large as the others',
        and in a plain mean square nothing but that token counts.
        """
        target, mask = self.targets[number], self.masks[number]
        missed = (self.answer(number, self.inputs[number]) - target).square().sum(-1)  # (B, T)
        relative = missed / target.square().sum(-1).clamp_min(TINY)
        return relative.mean() if mask is None else relative[mask].mean()


def blocks(model: PreTrainedModel, batches: Batches, desc: str) -> Iterator[Block]:
    """The blocks of a model, first to last. What is done to one before the next is asked for, counts there.

    The model is in eval mode meanwhile, and keeps no cache.

    Raises:
        ValueError: no batches; or the model is not one stack of layers.
    """
    stack, name = one_stack(model)
    batches = all_batches(batches, model)
    masks = [_real(batch) for batch in batches]
    with eval_mode(model), _without_cache(model):
        with latent_weights(model):
            calls, targets = _calls(model, stack, batches)
        inputs = _calls(model, stack[:1], batches)[1]
        for place, module in enumerate(bar(stack, desc=desc, unit="block")):
            block = Block(f"{name}.{place}", module, calls[place], masks, inputs)
            with latent_weights(module):
                block.targets = targets = block.answers(targets)
            yield block
            inputs = block.answers(inputs)


class _Enough(Exception):
    """Stops a model after the last block of which anything is wanted: its head is not asked."""


@torch.no_grad()
def _calls(
    model: nn.Module, stack: nn.ModuleList, batches: Sequence[Mapping[str, Tensor]]
) -> tuple[list[list[tuple[tuple, dict]]], list[Tensor]]:
    """For each block what it is called with on each batch, beside hidden states; and those that the first is given."""
    calls: list[list[tuple[tuple, dict]]] = [[] for _ in stack]
    first: list[Tensor] = []

    def see(place: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not args:  # hidden states that are given by their name
            name = next(iter(kwargs))
            args, kwargs = (kwargs[name],), {key: value for key, value in kwargs.items() if key != name}
        calls[place].append((args[1:], kwargs))
        if place == 0:
            first.append(args[0])
        if place == len(stack) - 1:
            raise _Enough

    with ExitStack() as hooks:
        for place, module in enumerate(stack):
            hooks.callback(module.register_forward_pre_hook(partial(see, place), with_kwargs=True).remove)
        for batch in batches:
            try:
                model(**batch)
            except _Enough:
                continue
    return calls, first


@contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """A block that is called twice would find its own keys in a cache."""
    config = model.config.get_text_config()
    kept = getattr(config, "use_cache", None)
    if kept is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if kept is not None:
            config.use_cache = kept


def _hidden(answer: Tensor | tuple) -> Tensor:
    """The hidden states among what a block gives."""
    return answer if isinstance(answer, Tensor) else answer[0]


def _real(batch: Mapping[str, Tensor]) -> Tensor | None:
    mask = batch.get("attention_mask")
    return None if mask is None or mask.all() else mask.bool()


def _real_rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of x (…, n) that are real tokens, (N, n); all of them where rows are no tokens."""
    rows = at_least_float32(x).reshape(-1, x.shape[-1])
    return rows[mask.flatten()] if mask is not None and mask.numel() == len(rows) else rows
