"""A gauge for trains that will be quantized: the same tensor, from cores in which no entry stands out.

Between two neighbours of a train any invertible matrix and its inverse can be put without changing the tensor. TT-SVD
uses this to sort each bond by singular values, so that the slices of a core have very different sizes, and one step
size for all of them is too coarse for most. An orthogonal matrix drawn at random mixes the slices until entries look
Gaussian, which costs no byte: it is absorbed by both neighbours.

Source: random rotations before rounding are Ashkboos et al., "QuaRot", NeurIPS 2024 (arXiv 2404.00456), for the hidden
states of a model; a train has a place for one at each bond. Canonical forms: Oseledets, "Tensor-train decomposition",
SIAM J. Sci. Comput. 33(5), 2011, section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .layers import TTLayer
from .tensor_train import at_least_float32, balance_norms


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
        ValueError: a layer is quantized already; its codes belong to the cores as they are. Nothing is turned then.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, TTLayer)}
    if quantized := [name for name, layer in layers.items() if parametrize.is_parametrized(layer)]:
        raise ValueError(
            f"only cores without quantizers can be turned, but {', '.join(quantized)} has them: "
            "compress_ with config.without_quantizers() first, then rotate_, then compress_ with config"
        )
    for layer in layers.values():
        cores = layer.cores
        largest = max(range(len(cores)), key=lambda k: cores[k].numel())
        layer.set_cores(balance_norms(rotate_bonds(canonical_form(cores, largest), seed)))
    return model


def canonical_form(cores: Sequence[Tensor], centre: int) -> list[Tensor]:
    """The same tensor with all cores but `centre` orthonormal, whose norm is then that of the tensor.

    Those before it are orthonormal as (r_{k-1} ⋯, r_k), those after it as (r_{k-1}, ⋯ r_k). Cores of shape
    (r_{k-1}, …, r_k), with any modes between. A rank that is larger than a neighbour can use is cut to that.
    """
    cores = [at_least_float32(core) for core in cores]
    for k in range(centre):
        basis, rest = torch.linalg.qr(cores[k].flatten(0, -2))
        cores[k] = basis.unflatten(0, cores[k].shape[:-1])
        cores[k + 1] = torch.tensordot(rest, cores[k + 1], 1)
    for k in range(len(cores) - 1, centre, -1):
        basis, rest = torch.linalg.qr(cores[k].flatten(1).T)
        cores[k] = basis.T.unflatten(1, cores[k].shape[1:])
        cores[k - 1] = torch.tensordot(cores[k - 1], rest.T, 1)
    return cores


def rotate_bonds(cores: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """The same tensor with each bond turned by a random orthogonal matrix.

    Cores of shape (r_{k-1}, …, r_k), with any modes between.
    """
    generator, cores = torch.Generator().manual_seed(seed), list(cores)
    for k in range(len(cores) - 1):
        size = cores[k].shape[-1]
        turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
        turn = turn.to(cores[k])
        cores[k], cores[k + 1] = cores[k] @ turn, torch.tensordot(turn.T, cores[k + 1], 1)
    return cores
