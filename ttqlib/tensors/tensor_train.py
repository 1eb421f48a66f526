"""TT-SVD and TT-matrices: from a full tensor to cores and back, with the error that theory allows.

TT-SVD is a loop of truncated SVDs, and it gives what TensorLy's `tensor_train` gives, with the same signs. The loop
stands here because nearly all of the time goes into full SVDs of very wide unfoldings, of which a few left singular
vectors are needed and nothing else: see `_leading_directions`. TensorLy multiplies cores out. Every call of it runs
under its `backend_context`, so the reader's own TensorLy backend stays as it was.

Sources: I. V. Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33(5), 2011 (Algorithm 1, Theorem 2.2);
T. F. Chan, "An improved algorithm for computing the singular value decomposition", ACM TOMS 8(1), 1982 (QR first).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod, sqrt
from numbers import Real

import torch
from torch import Tensor

from .shapes import clip_ranks, mode_sizes

SMALL = 2**14  # numbers in a matrix of which a full SVD takes no time
SUMMED = 2**12  # columns of a matrix whose products are summed in one go
GRAM_ERROR = 16 * torch.finfo(torch.float32).eps  # ‖E‖ / ‖A‖², which tests hold to be several times lower
SLACK = 2.5e-4  # by how much, relatively, the error of one truncation may be above the least one


@torch.autocast("cpu", enabled=False)  # products in bfloat16 are no use here
def tt_svd(tensor: Tensor, rank: int | Sequence[int] | None = None, tolerance: float | None = None) -> list[Tensor]:
    """Decompose `tensor`, of shape (n_1, …, n_d), into d cores of shape (r_{k-1}, n_k, r_k).

    Give either `rank`, one number or all d + 1 of them (clipped to what the shape can use), or `tolerance`, the
    largest relative error ‖A − B‖ / ‖A‖ allowed. The cores have the dtype and device of `tensor`; half precision is
    decomposed in float32.

    Raises:
        TypeError: `tensor` is not a real floating-point tensor.
        ValueError: it is empty or holds NaN or infinity; a bad rank; a tolerance outside (0, 1).

    >>> cores = ttq.tt_svd(torch.arange(24.0).reshape(2, 3, 4), rank=2)
    >>> [tuple(core.shape) for core in cores]
    [(1, 2, 2), (2, 3, 2), (2, 4, 1)]
    """
    check_tensor(tensor)
    check_one_of(rank, tolerance)
    cores, remainder = [], _to_decompose(tensor).reshape(1, -1)
    ranks = None if rank is None else clip_ranks(tensor.shape, rank)
    allowed = None if rank is not None else share_of(tolerance, remainder, tensor.ndim)
    for k, mode in enumerate(tensor.shape[:-1], 1):
        matrix = remainder.reshape(len(remainder) * mode, -1)  # (r_{k-1} · n_k, n_{k+1} ⋯ n_d)
        u = largest_positive(_leading_directions(matrix, ranks[k]) if ranks else within(matrix, allowed, mode))
        cores.append(u.reshape(len(remainder), mode, -1))
        remainder = u.T @ matrix  # (r_k, n_{k+1} ⋯ n_d)
    cores.append(remainder[..., None])
    return [core.to(tensor, copy=len(cores) == 1) for core in cores]  # one core alone is the tensor itself


def share_of(tolerance: float, tensor: Tensor, order: int) -> float:
    """The norm that each of d − 1 truncations may discard, so that together they stay within the tolerance."""
    check_tolerance(tolerance)
    norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))  # float32 sums lose digits
    return tolerance * norm / sqrt(max(1, order - 1))


def within(matrix: Tensor, allowed: float, mode: int) -> Tensor:
    """The left singular vectors without which `matrix`, (r · mode, n), loses more than a norm of `allowed`."""
    u, s = left_svd(matrix)
    needed = int((s.double().square().flip(0).cumsum(0).sqrt() > allowed).sum())  # sums from the smallest on
    return u[:, : max(needed, -(-(len(matrix) // mode) // mode))]  # below that the rank just chosen is out of reach


def tt_to_tensor(cores: Sequence[Tensor]) -> Tensor:
    """The full tensor, of shape (n_1, …, n_d), that `cores` of shape (r_{k-1}, n_k, r_k) stand for.

    >>> tensor = torch.arange(24.0).reshape(2, 3, 4)
    >>> torch.allclose(ttq.tt_to_tensor(ttq.tt_svd(tensor, rank=2)), tensor, atol=1e-4)
    True
    """
    with _tensorly() as tl:
        return tl.tt_tensor.tt_to_tensor(list(cores))


def tt_matrix(
    matrix: Tensor,
    row_modes: Sequence[int],
    column_modes: Sequence[int],
    rank: int | Sequence[int] | None = None,
    tolerance: float | None = None,
) -> list[Tensor]:
    """Decompose a `matrix` of shape (m_1 ⋯ m_d, n_1 ⋯ n_d) into d interleaved cores of shape (r_{k-1}, m_k, n_k, r_k).

    This is the TT-matrix (TTM) of A. Novikov et al., "Tensorizing Neural Networks", NIPS 2015: core k carries one row
    mode and one column mode. `rank` and `tolerance` are as in `tt_svd`, for a tensor with the modes m_k · n_k.

    Raises:
        TypeError, ValueError: as `tt_svd`; also where the modes do not multiply out to the shape of the matrix, or
            are not equally many for rows and columns.
    """
    check_tensor(matrix)
    row_modes, column_modes = mode_sizes("row_modes", row_modes), mode_sizes("column_modes", column_modes)
    if len(row_modes) != len(column_modes):
        raise ValueError(f"row_modes and column_modes must be equally many, got {row_modes} and {column_modes}")
    if tuple(matrix.shape) != (prod(row_modes), prod(column_modes)):
        raise ValueError(
            f"row_modes={row_modes} and column_modes={column_modes} multiply out to a matrix of shape "
            f"{(prod(row_modes), prod(column_modes))}, got one of shape {tuple(matrix.shape)}"
        )
    order = len(row_modes)
    interleaved = [axis for k in range(order) for axis in (k, order + k)]
    tensor = matrix.reshape(*row_modes, *column_modes).permute(interleaved)
    tensor = tensor.reshape([m * n for m, n in zip(row_modes, column_modes, strict=True)])
    cores = tt_svd(tensor, rank, tolerance)
    return [core.reshape(len(core), m, n, -1) for core, m, n in zip(cores, row_modes, column_modes, strict=True)]


def tt_matrix_to_matrix(cores: Sequence[Tensor]) -> Tensor:
    """The matrix, of shape (m_1 ⋯ m_d, n_1 ⋯ n_d), that `cores` of shape (r_{k-1}, m_k, n_k, r_k) stand for."""
    with _tensorly() as tl:
        return tl.tt_matrix.tt_matrix_to_matrix(list(cores))


def unfolding(tensor: Tensor, k: int) -> Tensor:
    """The k-th unfolding A_k: the first k modes become rows, the rest columns, k = 1 … d − 1.

    Shape (n_1 ⋯ n_k, n_{k+1} ⋯ n_d). Its rank is the smallest possible TT-rank r_k (Oseledets 2011, Theorem 2.1).

    Raises:
        ValueError: there is no k-th unfolding.

    >>> ttq.unfolding(torch.zeros(2, 3, 4), 2).shape
    torch.Size([6, 4])
    """
    if not 1 <= k < tensor.ndim:
        raise ValueError(f"k must be 1 … {tensor.ndim - 1} for a tensor with {tensor.ndim} modes, got {k}")
    return tensor.reshape(prod(tensor.shape[:k]), -1)


def singular_values(tensor: Tensor) -> list[Tensor]:
    """The singular values of each of the d − 1 unfoldings of `tensor`, each falling: what its TT-ranks can reach.

    The k-th are min(n_1 ⋯ n_k, n_{k+1} ⋯ n_d) numbers.

    Raises:
        TypeError, ValueError: as `tt_svd`, for a tensor that cannot be decomposed.
    """
    check_tensor(tensor)
    tensor = at_least_float32(tensor.detach())
    return [torch.linalg.svdvals(unfolding(tensor, k)) for k in range(1, tensor.ndim)]


def tt_error_bound(tensor: Tensor, rank: int | Sequence[int]) -> float:
    """√Σ_k ε_k², which the error ‖A − B‖ of TT-SVD at this rank cannot exceed (Oseledets 2011, Theorem 2.2).

    ε_k is the norm of the singular values that rank r_k discards from the k-th unfolding of the original tensor.
    Divide by ‖A‖ for a relative bound.

    Raises:
        TypeError, ValueError: as `tt_svd`, for the tensor or the rank.
    """
    spectra = singular_values(tensor)
    ranks = clip_ranks(tensor.shape, rank)
    return sqrt(sum(float((s[r:].double() ** 2).sum()) for s, r in zip(spectra, ranks[1:], strict=False)))


def tt_ranks(tensor: Tensor, tolerance: float) -> tuple[int, ...]:
    """The TT-ranks with which TT-SVD stays within a relative error of `tolerance`.

    Each of the d − 1 truncations may discard singular values of norm tolerance · ‖A‖ / √(d − 1), so that together
    they stay within the tolerance (Oseledets 2011, Algorithm 1).

    Raises:
        TypeError: `tensor` is not a real floating-point tensor.
        ValueError: it is empty or holds NaN or infinity; a tolerance outside (0, 1).

    >>> ttq.tt_ranks(torch.ones(4, 4, 4), tolerance=0.01)
    (1, 1, 1, 1)
    """
    return core_ranks(tt_svd(tensor, tolerance=tolerance))


def _to_decompose(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, whatever its device: a graphics card has no fast SVD, and may multiply in TF32."""
    return at_least_float32(tensor.detach()).cpu()


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in float32 where it has less: there is no SVD in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def core_ranks(cores: Sequence[Tensor]) -> tuple[int, ...]:
    """The d + 1 TT-ranks (1, r_1, …, r_{d-1}, 1) of `cores`, whose first and last axes they are.

    >>> ttq.core_ranks([torch.zeros(1, 2, 5), torch.zeros(5, 3, 1)])
    (1, 5, 1)
    """
    return (*(len(core) for core in cores), 1)


def _leading_directions(matrix: Tensor, rank: int) -> Tensor:
    """The first `rank` left singular vectors of a `matrix` (m, n), or others as good: orthonormal, (m, rank).

    They are eigenvectors of the Gram matrix A Aᵀ, in float32 and from the smaller side of A. That takes a tenth of an
    SVD's time, and squares the singular values, so that those below √ε ‖A‖ drown in rounding. No harm is done while
    much is cut off anyway. With a rounding error E in the Gram matrix, the r directions leave at most 2 √r ‖E‖ more of
    ‖A‖² than the best ones do (by Ky Fan's inequality), and ‖E‖ stays below `GRAM_ERROR` · ‖A‖². Where this could
    raise the error ‖A − U Uᵀ A‖ by more than a factor of 1 + `SLACK`, as for a matrix that is nearly of that rank, the
    SVD decides.
    """
    rows, columns = matrix.shape
    if matrix.dtype != torch.float32 or matrix.numel() < SMALL:
        return left_svd(matrix)[0][:, :rank]
    side = matrix if rows <= columns else matrix.T
    gram = _gram(side)
    total = float(gram.trace())  # ‖A‖²
    if not 1e-20 < total < 1e20:  # squares of tiny or huge numbers leave the range of float32
        return left_svd(matrix)[0][:, :rank]
    squares, vectors = torch.linalg.eigh(gram)  # rising
    discarded = total - float(squares[-rank:].sum())
    if rank < len(side) and sqrt(rank) * GRAM_ERROR * total > SLACK * discarded:
        return left_svd(matrix)[0][:, :rank]
    leading = vectors[:, -rank:].flip(1)
    return leading if side is matrix else torch.linalg.qr(matrix @ leading).Q


def _gram(matrix: Tensor) -> Tensor:
    """A Aᵀ, (m, m), of a `matrix` A (m, n); products of few columns at a time are summed, so that few digits go."""
    return sum(part @ part.T for part in matrix.split(SUMMED, dim=1))


def left_svd(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, k) and singular values (k) of a `matrix` (m, n), k = min(m, n), to full precision.

    A wide matrix is made square first: A = L Q, with L (m, m) and orthonormal rows in Q, which is never built, has the
    left singular vectors and the singular values of L (Chan 1982).
    """
    if matrix.shape[0] < matrix.shape[1]:
        matrix = torch.linalg.qr(matrix.T, mode="r").R.T
    u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u, s


def largest_positive(vectors: Tensor) -> Tensor:
    """`vectors`, the columns of (m, r), each with the sign that makes its largest entry positive."""
    return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


def check_tensor(tensor: Tensor, name: str = "tensor") -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a torch tensor of floating-point numbers (call .float() on it), got {kind}")
    if not tensor.ndim or not tensor.numel():
        raise ValueError(f"{name} must have at least one mode and none that is empty, got shape {tuple(tensor.shape)}")
    if not (tensor.sum().isfinite() or tensor.isfinite().all()):  # a sum is fast; it may overflow, but hides nothing
        raise ValueError(f"{name} must be finite, got NaN or infinite entries")


def check_one_of(rank: int | Sequence[int] | None, tolerance: float | None) -> None:
    if (rank is None) == (tolerance is None):
        raise ValueError(f"give either rank or tolerance, got rank={rank!r} and tolerance={tolerance!r}")


def check_tolerance(tolerance: float) -> None:
    if not isinstance(tolerance, Real) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie strictly between 0 and 1 (0.1 allows 10 % error), got {tolerance!r}")


@contextmanager
def _tensorly() -> Iterator:
    """TensorLy, imported on first use, with its PyTorch backend for this block and this thread only."""
    import tensorly

    with tensorly.backend_context("pytorch", local_threadsafe=True):
        yield tensorly
