"""Our codes in the layout of onnxruntime's products of few bits, `MatMulNBits`: blocks of a row, each with its scale.

What is computed with there is scale · (code − zero point), and that is what `GroupRTN` stores: nothing is rounded
again. The kernel has 2, 4 and 8 bits; codes of 3 bits stand in 4, those of 5 to 7 in 8.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..quantizers.gptq import grid_of
from ..quantizers.parametrizing import quantized
from ..quantizers.recipes import GroupRTN, WeightQuantizer
from ..storage.packed import side_by_side

SIZES = (16, 32, 64, 128, 256)  # of blocks that the kernel has
KERNELS = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}  # bits of a code → bits that it takes there


@dataclass(frozen=True)
class Blocks:
    """A matrix (rows, columns) for `MatMulNBits`.

    Args:
        codes: uint8, (rows, blocks, bytes of a block), the first code in the lowest bits.
        scales: float32, (rows, blocks).
        zero_points: uint8, (rows, bytes), packed as codes are.
    """

    bits: int
    size: int
    columns: int
    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray


@torch.no_grad()
def blocks_of(layers: list[nn.Module]) -> Blocks | None:
    """The weights of layers that read the same input, below each other; None where the kernel has no such grid.

    They must all be under `GroupRTN`, with the same bits and the same group of a size that the kernel has.
    """
    found = [
        next(((one, latent) for name, one, latent in quantized(layer) if name == "weight"), None) for layer in layers
    ]
    if None in found or not all(_fits(one) for one, _ in found):
        return None
    kinds = {(KERNELS[one.recipe.bits], one.recipe.per) for one, _ in found}
    if len(kinds) > 1:
        return None
    ((bits, size),) = kinds
    codes = torch.cat([one.codes(latent) for one, latent in found])
    scales = [one.scales(latent) for one, latent in found]
    lowest = [grid_of(one.recipe, own)[1] for (one, _), own in zip(found, scales)]
    step = torch.cat([own["scale"] for own in scales])
    blocks = F.pad(codes, (0, -codes.shape[1] % size)).unflatten(1, (-1, size))
    zero_points = (-torch.cat(lowest)).to(torch.uint8)
    return Blocks(
        bits,
        size,
        codes.shape[1],
        side_by_side(blocks.flatten(0, 1).numpy(), bits).reshape(*blocks.shape[:2], -1),
        step.float().contiguous().numpy(),
        side_by_side(zero_points.numpy(), bits),
    )


def _fits(quantizer: nn.Module) -> bool:
    return (
        isinstance(quantizer, WeightQuantizer)
        and isinstance(quantizer.recipe, GroupRTN)
        and quantizer.recipe.per in SIZES
    )
