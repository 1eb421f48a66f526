"""AWQ: channels with large inputs get finer steps, by a scale that the norm before them takes back.

y = W x = (W diag(s)) (x / s). Where x comes from a norm, 1/s goes into its gain and s into the weights behind it, and
nothing is computed that was not before. Rounding sees W diag(s): a channel that is multiplied by s > 1 is rounded as
finely as before, relative to the step of its group, and then divided by s. So its errors shrink, while the others' grow
as far as s widens the range of the group. Channels with large inputs are worth it. How much, one exponent says.

Source: J. Lin et al., "AWQ", MLSys 2024 (arXiv 2306.00978).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..inventory.kinds import own_parameters
from ..quantizers.fake_quantization import TINY
from ..quantizers.parametrizing import latent_weights, quantized
from ..quantizers.recipes import WeightQuantizer
from .blocks import Block, Seen, Weight, blocks

EXPONENTS = 20  # that are tried, from 0, where nothing is scaled, up to just below 1
SAME = 1e-3  # by how much a block's answers may differ, relative to them, where a scale has been taken back

Group = tuple[nn.Module, list[Weight]]  # a norm, and all that reads its output


@torch.no_grad()
def awq_(model: PreTrainedModel, calibration: Iterable[Mapping[str, Tensor]]) -> PreTrainedModel:
    """Scale the channels between norms and the linear layers under `GroupRTN` behind them, in place.

    s = E|x|^p of the channel's inputs, for each norm with the exponent p, from 0 on, at which the outputs of the layers
    behind it are nearest to those in float. The latent model computes what it did before. `calibration` are batches of
    the model's keyword arguments; `clip_` and what chooses codes come afterwards. Returns the model.

    Raises:
        ValueError: as `ttqlib.surgery.blocks.blocks`; or no norm of the model can take back a scale, as in a BERT,
            where the output of every norm is also added to that of the next layer.
    """
    done = 0  # norms
    for block in blocks(model, calibration, "awq_"):
        seen = block.seen()
        for norm, weights in norm_groups(block):
            scale = _best_scale(weights, seen[weights[0].name])
            _scale_(norm, weights, scale)
            for module in (norm, *(weight.layer for weight in weights)):
                _refit_(module)
            done += 1
    if not done:
        raise ValueError(f"no norm of this {type(model).__name__} has linear layers under ttq.GroupRTN alone behind it")
    return model


@torch.no_grad()
def norm_groups(block: Block) -> Iterator[Group]:
    """The norms of a block whose output nothing reads but linear layers under `GroupRTN`.

    Those are candidates whose very output is the layers' input. Whether anything else reads it, as a residual does, is
    tried: a random scale must leave the block's answers as they are.
    """
    for norm, weights in _candidates(block):
        width = weights[0].rows.shape[1]
        scale = torch.rand(width, generator=torch.Generator().manual_seed(0)).add(0.5).to(weights[0].latent)
        tensors = [*dict(own_parameters(norm)).values(), *(weight.latent for weight in weights)]
        kept, before = [tensor.clone() for tensor in tensors], _float_answer(block)
        _scale_(norm, weights, scale)
        after = _float_answer(block)
        for tensor, values in zip(tensors, kept):
            tensor.copy_(values)
        if (after - before).abs().max() <= SAME * before.abs().max():
            yield norm, weights


def _candidates(block: Block) -> Sequence[Group]:
    """Modules that hold vectors only, and the layers that are given their output, on the first batch."""
    weights = {weight.layer: weight for weight in block.weights()}
    made: dict[int, tuple[Tensor, nn.Module]] = {}  # with the tensor, lest its id be used again
    found: dict[nn.Module, list[Weight]] = {}

    def make(norm: nn.Module, args: tuple, output: Tensor) -> None:
        made[id(output)] = (output, norm)

    def read(weight: Weight, layer: nn.Module, args: tuple) -> None:
        if id(args[0]) in made:
            found.setdefault(made[id(args[0])][1], []).append(weight)

    with ExitStack() as hooks:
        for module in block.module.modules():
            if module in weights:
                hooks.callback(module.register_forward_pre_hook(partial(read, weights[module])).remove)
            elif _is_vectors(module):
                hooks.callback(module.register_forward_hook(make).remove)
        _float_answer(block)
    return list(found.items())


def _is_vectors(module: nn.Module) -> bool:
    """Whether a module's own parameters are a weight and perhaps others, all of them vectors: as a norm's."""
    own = dict(own_parameters(module))
    return "weight" in own and all(tensor.ndim == 1 for tensor in own.values())


@torch.no_grad()
def _float_answer(block: Block) -> Tensor:
    with latent_weights(block.module):
        return block.answer(0, block.inputs[0])


def _best_scale(weights: Sequence[Weight], seen: Seen) -> Tensor:
    """The scale of the channels with which outputs of these layers on their inputs are nearest, (n)."""
    magnitude, moments = (entry.to(weights[0].rows) for entry in (seen.magnitude, seen.moments))
    magnitude = magnitude.clamp_min(1e-4 * magnitude.max() + TINY)  # a channel that is never there has a scale as well
    found, least = torch.ones_like(magnitude), None
    for number in range(EXPONENTS):
        scale = magnitude.pow(number / EXPONENTS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        cost = sum(_cost(weight, scale, moments) for weight in weights)
        if least is None or cost < least:
            found, least = scale, cost
    return found


def _cost(weight: Weight, scale: Tensor, moments: Tensor) -> float:
    """E‖(Q(W diag(s)) diag(1/s) − W) x‖²."""
    recipe, rows = weight.quantizer.recipe, weight.rows
    scaled = rows * scale
    error = recipe.fake_quantize(scaled, recipe.initial_scales(scaled)) / scale - rows
    return ((error @ moments) * error).sum().item()


@torch.no_grad()
def _scale_(norm: nn.Module, weights: Sequence[Weight], scale: Tensor) -> None:
    """Multiply the latent weights' channels by the scale, divide the norm's gain, and its shift, by it."""
    for weight in weights:
        weight.set_({}, weight.rows * scale)
    for _, tensor in own_parameters(norm):
        tensor.div_(scale)


def _refit_(module: nn.Module) -> None:
    """Make the scales of a module's quantizers anew, from the latent weights as they are now."""
    for _, quantizer, latent in quantized(module):
        if isinstance(quantizer, WeightQuantizer):
            quantizer.right_inverse(latent)
