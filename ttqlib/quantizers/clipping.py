"""Grids that clip: the range of each group of weights shrunk as far as that pays.

Round-to-nearest spends its few levels on a range that holds every weight. A narrower range has finer steps: all weights
inside gain, the few outside lose. Which errors count decides. Errors of the weights themselves are a poor judge, for
inputs differ: where the largest weights of a row meet the largest inputs, as in queries and keys of language models,
the clip that is best for the weights cuts just what the output is made of. The error of the *output* on real inputs
knows: with the second moments M of a group's inputs x, errors e of its weights cost E[(e·x)²] = eᵀ M e. The fewer the
bits, the more there is to clip, and the more the two differ.

Source: the search over factors is that of AWQ (arXiv 2306.00978), which clips after scaling.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .fake_quantization import split, to_levels, widen
from .recipes import GroupRTN

FACTORS = 29  # of the range that are tried,
LEAST = 0.3  # from 1, where nothing is clipped, down to this


def clipped_scales(recipe: GroupRTN, weight: Tensor, moments: Tensor | None = None) -> dict[str, Tensor]:
    """The scales, and zero points, with which each group costs least, of the ranges that are tried.

    A range shrinks at both ends by one factor. Factor 1 is among them, so nothing becomes worse than it was.

    Args:
        weight: (rows, columns), or any shape where there are no moments.
        moments: (columns, columns), E[x xᵀ] of the inputs; None, the squared errors of the weights count.
    """
    scales = recipe.initial_scales(weight)
    groups, blocks = split(weight, recipe.per), None if moments is None else _blocks(moments, weight, recipe.per)
    lowest = recipe.lowest(scales)
    best, least = scales["scale"], None
    for factor in torch.linspace(1, LEAST, FACTORS).tolist():
        scale = scales["scale"] * factor
        levels = to_levels(groups, scale[..., None], lowest, recipe.bits)
        cost = _cost(levels * scale[..., None] - groups, blocks)
        best = scale if least is None else torch.where(cost < least, scale, best)
        least = cost if least is None else torch.minimum(least, cost)
    return scales | {"scale": best}


def _blocks(moments: Tensor, weight: Tensor, per: str | int) -> Tensor:
    """The moments of each group's own inputs, (groups, size, size); of all, (n, n), where one scale is for all rows."""
    moments = moments.to(widen(weight))
    if per == "tensor":
        return moments
    size = split(weight[:1], per).shape[-1]
    padded = F.pad(moments, (0, -len(moments) % size) * 2)
    return torch.stack([padded[at : at + size, at : at + size] for at in range(0, len(padded), size)])


def _cost(errors: Tensor, blocks: Tensor | None) -> Tensor:
    """What the errors of a group cost, (rows, groups), or () where all weights are one group."""
    if blocks is None:
        return errors.square().sum(-1)
    if blocks.ndim == 2:
        rows = errors.unflatten(0, (-1, len(blocks)))
        return ((rows @ blocks) * rows).sum()
    return (torch.einsum("rgi,gij->rgj", errors, blocks) * errors).sum(-1)
