"""The gauge of a train: the same tensor from other cores, such as those in which no entry stands out.

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
from torch import Tensor

from .tensor_train import at_least_float32


def balance_norms(cores: Sequence[Tensor]) -> list[Tensor]:
    """The same tensor from cores of equal Frobenius norm.

    TT-SVD leaves orthonormal cores and puts the whole scale into the last one. Equal norms keep gradients, and the
    step sizes of a quantizer, of one magnitude.
    """
    norms = torch.stack([torch.linalg.vector_norm(core) for core in cores])
    if not ((norms > 1e-15) & (norms < 1e15)).all():  # squares of tiny or huge numbers leave the range of float32
        norms = torch.stack([torch.linalg.vector_norm(core, dtype=torch.float64) for core in cores])
    if not norms.all():
        return list(cores)  # the tensor is zero: there is no scale to share
    target = norms.double().log().mean().exp()  # the geometric mean leaves the product as it was
    return [core * (target / norm).to(core.dtype) for core, norm in zip(cores, norms, strict=True)]


def canonical_form(cores: Sequence[Tensor], centre: int) -> list[Tensor]:
    """The same tensor with all cores but `centre` orthonormal, whose norm is then that of the tensor.

    Those before it are orthonormal as (r_{k-1} ⋯, r_k), those after it as (r_{k-1}, ⋯ r_k). Cores of shape
    (r_{k-1}, …, r_k), with any modes between. A rank that is larger than a neighbour can use is cut to that.

    Raises:
        ValueError: no core has the number `centre`, from 0 on.
    """
    if centre not in range(len(cores)):
        raise ValueError(f"centre must be one of the {len(cores)} cores, from 0 on, got {centre!r}")
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
