"""AWQ: channels with large inputs get finer steps, by scales that the layer before them takes back.

y = W x = (W diag(s)) (x / s). Rounding sees W diag(s): a column that is multiplied by s > 1 is rounded as finely as
before, relative to the step of its group, and is then divided by s. So its errors shrink, while the others' grow as far
as s widens the range of the group. Columns with large inputs are worth it. `equivalent_` trains such scales; here one
exponent for a whole group of channels says how far s follows the inputs, and is found by trying.

Source: J. Lin et al., "AWQ", MLSys 2024 (arXiv 2306.00978).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..inventory.layout import layout_of
from ..plans.configs import TTQConfig
from ..quantizers.fake_quantization import TINY, widen
from ..quantizers.recipes import WeightRecipe
from .blocks import Seen, blocks
from .calibration import Batches
from .channels import EquivalentGroup
from .equivalent import equivalent_, equivalent_scales, fold_

EXPONENTS = 20  # that are tried, from 0, where nothing is scaled, up to just below 1
LEAST = 1e-4  # of the largest input: what a smaller one, or one that is never there, counts as

Reader = tuple[Tensor, WeightRecipe, Tensor, Seen]  # a consumer's weight (out, in), what rounds it, numbers, inputs


@torch.no_grad()
def awq_(
    model: PreTrainedModel,
    groups: Sequence[EquivalentGroup],
    config: TTQConfig,
    calibration: Batches,
) -> PreTrainedModel:
    """Scale the channels of `groups` by what flows through them, fold the scales, in place, and return the model.

    s = E|x|^p of a channel, with the exponent p, from 0 on, at which the outputs of the group's consumers, rounded as
    the plan `config` says, are nearest to those in float. In float the model answers as before. As with `equivalent_`,
    `compress_` with that plan comes afterwards:

        plan = ttq.plan(model, rules={r"_proj$": ttq.GroupRTN(3, per=64, symmetric=False)})
        ttq.awq_(model, ttq.equivalent_groups(model), plan, batches)
        ttq.compress_(model, plan)

    `calibration` are batches of the model's keyword arguments. Groups whose consumers the plan does not round, or that
    lie outside of the model's stack of layers, are left as they are.

    Raises:
        ValueError: as `equivalent_`, and as `ttqlib.surgery.blocks.blocks`.
    """
    recipes = {
        name: layer.quantize for name, layer in config.layers.items() if isinstance(layer.quantize, WeightRecipe)
    }
    scales: dict[str, Tensor] = {}
    for block in blocks(model, calibration, "awq_"):
        seen = {f"{block.name}.{name}": one for name, one in block.seen().items()}
        for group in groups:
            if group.consumers.keys() <= seen.keys() & recipes.keys():
                readers = [_reader(model, name, recipes[name], n, seen[name]) for name, n in group.consumers.items()]
                scales[group.producer] = _best_scale(group.size, readers)
    chosen = [group for group in groups if group.producer in scales]
    equivalent_(model, chosen)
    for name, log_scales in equivalent_scales(model).items():
        log_scales.copy_(scales[name].log())
    return fold_(model)


def _reader(model: PreTrainedModel, name: str, recipe: WeightRecipe, numbers: Tensor, seen: Seen) -> Reader:
    layer = model.get_submodule(name)
    return widen(layout_of(layer, "weight").rows(layer.weight.detach())), recipe, numbers, seen


def _best_scale(size: int, readers: Sequence[Reader]) -> Tensor:
    """The scales (size,) with which the readers' outputs are nearest; their largest and least are each other's inverse.

    Where several inputs belong to one channel, as values that heads of queries share, their mean counts.
    """
    weight, _, numbers, seen = readers[0]  # all are given the same
    count = torch.zeros(size).index_add(0, numbers, torch.ones(len(numbers)))
    magnitude = torch.zeros(size).index_add(0, numbers, seen.magnitude.float()) / count
    magnitude = magnitude.clamp_min(LEAST * magnitude.max() + TINY).to(weight)
    found, least = torch.ones_like(magnitude), None
    for number in range(EXPONENTS):
        scale = magnitude.pow(number / EXPONENTS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        cost = sum(_cost(reader, scale) for reader in readers)
        if least is None or cost < least:
            found, least = scale, cost
    return found


def _cost(reader: Reader, scale: Tensor) -> float:
    """E‖(Q(W diag(s)) diag(1/s) − W) x‖² of one reader."""
    weight, recipe, numbers, seen = reader
    columns = scale[numbers]
    scaled = weight * columns
    error = recipe.fake_quantize(scaled, recipe.initial_scales(scaled)) / columns - weight
    return ((error @ seen.moments.to(error)) * error).sum().item()
