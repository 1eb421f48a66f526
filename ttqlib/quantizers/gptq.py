"""GPTQ: weights are rounded column by column, and those that are still free make up for the error of the last one.

Round-to-nearest takes each weight for itself. But one output is a sum over inputs x that go together, so that what one
weight has lost another can give back. With second moments M = E[x xᵀ], the error e of a row costs eᵀ M e. Once column j
is rounded, by an error d, the columns F that are free do best to move by −d · M_FF⁻¹ M_Fj. All these solves come out of
one Cholesky factorization M⁻¹ = Uᵀ U, U upper triangular: the move is −d / U_jj · U_jF.

Source: E. Frantar et al., "GPTQ", ICLR 2023 (arXiv 2210.17323).
"""

import torch
from torch import Tensor

from .fake_quantization import split, to_levels, widen
from .recipes import GroupRTN

DAMPING = 0.01  # of the mean of M's diagonal, added to it: few inputs leave directions that none of them has
AT_ONCE = 128  # columns whose errors are gathered before they move all that come after: one product, not 128


@torch.no_grad()
def compensated(recipe: GroupRTN, weight: Tensor, scales: dict[str, Tensor], moments: Tensor) -> Tensor:
    """Values on the grids that `scales` make, in the shape and dtype of `weight`, each rounded knowing those before.

    The columns with the largest inputs come first, while most others are still free. The grids stay as they are.

    Args:
        weight: (rows, columns).
        scales: as `recipe.initial_scales` gives them, or `clipped_scales`.
        moments: (columns, columns), E[x xᵀ] of the inputs.
    """
    order = moments.diagonal().argsort(descending=True, stable=True)
    scale, lowest = (_by_column(entry, weight, recipe.per)[:, order] for entry in grid_of(recipe, scales))
    upper = _inverse_factor(moments[order][:, order]).to(scale)
    free, rounded = widen(weight)[:, order].clone(), torch.empty_like(weight, dtype=scale.dtype)
    for start in range(0, free.shape[1], AT_ONCE):
        stop = min(start + AT_ONCE, free.shape[1])
        errors = free.new_zeros(len(free), stop - start)
        for j in range(start, stop):
            found = to_levels(free[:, j], scale[:, j], lowest[:, j], recipe.bits) * scale[:, j]
            rounded[:, order[j]] = found
            errors[:, j - start] = (free[:, j] - found) / upper[j, j]
            free[:, j:stop] -= torch.outer(errors[:, j - start], upper[j, j:stop])
        free[:, stop:] -= errors @ upper[start:stop, stop:]
    return rounded.to(weight.dtype)


def grid_of(recipe: GroupRTN, scales: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Step and lowest level of each group, of one shape."""
    step = widen(scales["scale"])
    lowest = recipe.lowest(scales)
    return step, lowest[..., 0] if isinstance(lowest, Tensor) else torch.full_like(step, lowest)


def _by_column(entry: Tensor, weight: Tensor, per: str | int) -> Tensor:
    """What each group has, given to each of its columns: (rows, columns)."""
    if per == "tensor":
        return entry.expand(weight.shape)
    size = split(weight[:1], per).shape[-1]
    return entry.repeat_interleave(size, 1)[:, : weight.shape[1]]


def _inverse_factor(moments: Tensor) -> Tensor:
    """U, upper triangular, with Uᵀ U = (M + damping)⁻¹. In float64: M of correlated inputs is nearly singular."""
    moments = moments.double()
    damping = DAMPING * moments.diagonal().mean()
    damped = moments + torch.eye(len(moments), dtype=torch.float64, device=moments.device) * (damping or 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)
