"""`rotate_`: the bonds of a whole model turned before it is quantized. Why that helps, `tensors.gauge` says."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..layers.base import TTLayer
from ..tensors.gauge import balance_norms, canonical_form, rotate_bonds
from .sharing import shared_cores


@torch.no_grad()
def rotate_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Turn every bond of every tensor-train layer, in place, and return the model, which computes what it did.

    For trains that are about to be quantized: compress without quantizers, rotate, compress with them.

        ttq.compress_(model, config.without_quantizers(), calibration=batches)
        ttq.compress_(ttq.rotate_(model), config)

    The largest core of a layer is made to carry the scale of the tensor, all others are orthonormal: then an error in
    it is an error in the weights, and of no other size. Then each bond is turned by a random rotation, drawn from
    `seed`, and the cores get equal norms.

    Raises:
        ValueError: a layer is quantized already, and its codes belong to the cores as they are; or layers share a core
            (`ttq.Shared`). Nothing is turned then.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, TTLayer)}
    if quantized := [name for name, layer in layers.items() if parametrize.is_parametrized(layer)]:
        raise ValueError(
            f"only cores without quantizers can be turned, but {', '.join(quantized)} has them: "
            "compress_ with config.without_quantizers() first, then rotate_, then compress_ with config"
        )
    if together := shared_cores(model):
        raise ValueError(
            f"rotate_ turns the bonds of each layer by itself, but {' and '.join(name for name, _ in together[0])} "
            "share a core: what turns it for one would spoil the others; compress those layers without rotate_"
        )
    for layer in layers.values():
        cores = layer.cores
        largest = max(range(len(cores)), key=lambda k: cores[k].numel())
        layer.set_cores(balance_norms(rotate_bonds(canonical_form(cores, largest), seed)))
    return model
