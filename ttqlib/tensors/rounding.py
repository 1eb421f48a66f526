"""TT-rounding: smaller ranks for a train that is a train already, without ever building its tensor.

Adding two trains adds their ranks, multiplying them multiplies them, and most of what they then hold is not needed.
TT-SVD would need the full tensor to cut it. Rounding works on the cores alone, in two sweeps: from the right, QR
decompositions make every core but the first orthonormal, so that a change of the first is as large a change of the
tensor; then SVDs from the left cut one bond after the other.

Source: I. V. Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33(5), 2011 (Algorithm 2, TT-rounding).
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .gauge import canonical_form
from .shapes import clip_ranks
from .tensor_train import check_one_of, check_tensor, largest_positive, share_of, within


@torch.autocast("cpu", enabled=False)  # products in bfloat16 are no use here
def tt_round(
    cores: Sequence[Tensor], rank: int | Sequence[int] | None = None, tolerance: float | None = None
) -> list[Tensor]:
    """The train of `cores`, of shape (r_{k-1}, …, r_k) with any modes between, at ranks that are no larger.

    Give either `rank`, one number or all d + 1 of them, or `tolerance`, the largest relative error ‖A − B‖ / ‖A‖
    allowed. The error is at most √(d − 1) times the least that any train of the new ranks has (Oseledets 2011,
    Corollary 2.4). A tolerance near the rounding of the dtype cuts nothing. The cores keep their dtype and device;
    half precision is computed in float32.

    Raises:
        TypeError: a core is not a real floating-point tensor.
        ValueError: no cores, or cores that do not fit together; a core that is empty or holds NaN or infinity; a bad
            rank; a tolerance outside (0, 1).

    >>> twice = [torch.ones(1, 4, 2), torch.ones(2, 4, 1)]  # a matrix of rank 1, stored with rank 2
    >>> [tuple(core.shape) for core in ttq.tt_round(twice, tolerance=1e-3)]
    [(1, 4, 1), (1, 4, 1)]
    """
    check_one_of(rank, tolerance)
    _check_train(cores)
    modes = [prod(core.shape[1:-1]) for core in cores]
    wanted = clip_ranks(modes, prod(modes) if rank is None else rank)
    rounded = canonical_form([core.detach().cpu() for core in cores], 0)
    allowed = 0.0 if tolerance is None else share_of(tolerance, rounded[0], len(cores))
    for k in range(len(cores) - 1):
        matrix = rounded[k].flatten(0, -2)  # (r_{k-1} · n_k, r_k)
        u = largest_positive(within(matrix, allowed, modes[k])[:, : wanted[k + 1]])
        rounded[k] = u.unflatten(0, rounded[k].shape[:-1])
        rounded[k + 1] = torch.tensordot(u.T @ matrix, rounded[k + 1], 1)
    return [new.to(core, copy=True) for new, core in zip(rounded, cores, strict=True)]


def _check_train(cores: Sequence[Tensor]) -> None:
    if isinstance(cores, Tensor) or not isinstance(cores, Sequence) or not len(cores):
        raise ValueError(f"cores must be a non-empty list of tensors (r, n, r'), got {type(cores).__name__}")
    for k, core in enumerate(cores):
        check_tensor(core, f"cores[{k}]")
    shapes = [tuple(core.shape) for core in cores]
    left, right = [shape[0] for shape in shapes], [shape[-1] for shape in shapes]
    if min(map(len, shapes)) < 3 or left != [1, *right[:-1]] or right[-1] != 1:
        raise ValueError(
            "cores must have shapes (1, n_1, r_1), (r_1, n_2, r_2), …, (r_{d-1}, n_d, 1): each begins with the rank "
            f"with which the one before ends; got {shapes}"
        )
