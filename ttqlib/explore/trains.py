"""Ranks: a picture as a tensor train, and a matrix in three formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..measures.costs import relative_error
from ..tensors.shapes import clip_ranks, factorize, largest_rank, tt_parameters
from ..tensors.tensor_train import tt_matrix, tt_matrix_to_matrix, tt_svd, tt_to_tensor
from .explorer import Explorer, choice, stops, whole

PICTURE_HINT = (
    "Try rank 1, then double it: edges along the rows and columns come first. Many small modes need more rank for the "
    "same error, and fewer numbers at the same rank."
)
FORMAT_HINT = (
    "Try each matrix at the same share: the Kronecker product is exact as a TT-matrix, a matrix of low rank as a "
    "low-rank product; expect no format to do well on random numbers."
)


@dataclass(frozen=True)
class TTPoint:
    """A tensor at one choice of mode sizes and rank."""

    ranks: tuple[int, ...]
    parameters: int
    ratio: float  # numbers in the full tensor over numbers in the cores
    error: float  # relative, in the Frobenius norm
    approximation: Tensor  # in the shape of the original

    def __str__(self) -> str:
        return (
            f"ranks {' · '.join(map(str, self.ranks))} | {self.parameters:,} numbers, {self.ratio:.1f}× fewer "
            f"| relative error {self.error:.1%}"
        )


def tt_point(tensor: Tensor, modes: Sequence[int], rank: int) -> TTPoint:
    """TT-SVD at this rank of `tensor` reshaped to `modes`, and what it costs and loses.

    Raises:
        ValueError: the modes do not multiply out to the numbers in the tensor.
    """
    if prod(modes) != tensor.numel():
        raise ValueError(f"modes {tuple(modes)} multiply out to {prod(modes)}, the tensor has {tensor.numel()} entries")
    ranks = clip_ranks(modes, rank)
    approximation = tt_to_tensor(tt_svd(tensor.reshape(modes), ranks)).reshape(tensor.shape)
    parameters = tt_parameters(modes, ranks)
    return TTPoint(ranks, parameters, tensor.numel() / parameters, relative_error(tensor, approximation), approximation)


def tt(picture: Tensor, splits: Mapping[str, Sequence[int]], rank: int = 16, largest: int = 96) -> Explorer:
    """Drag the rank of a picture's tensor train, and choose how its axes are split into modes.

    Args:
        picture: (rows, columns) or (rows, columns, 3), entries from 0 to 1.
        splits: the mode sizes to choose from: a label for each tuple of mode sizes.
        rank, largest: where the slider starts and ends.
    """
    controls = {
        "modes": choice("mode sizes", splits),
        "rank": whole("TT-rank", rank, 1, largest),
    }

    def draw(modes: str, rank: int) -> tuple[Figure, str]:
        point = tt_point(picture, splits[modes], rank)
        images = {"original": picture, f"TT-rank {rank}": point.approximation}
        return plots.pictures(images), str(point)

    return Explorer(controls, draw, hint=PICTURE_HINT, photograph=True)


@dataclass(frozen=True)
class FormatPoint:
    """A matrix in one format, at the largest rank that a budget allows."""

    rank: int
    parameters: int
    error: float  # relative, in the Frobenius norm

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.parameters:,} numbers, relative error {self.error:.1%}"


def matrix_formats(matrix: Tensor, parameters: int) -> dict[str, FormatPoint]:
    """`matrix` as a low-rank product, a TT and a TT-matrix, each of at most `parameters` numbers.

    A format that does not fit, not even at rank 1, is left out.

    Raises:
        ValueError: a side of the matrix that is not the product of its balanced modes.
    """
    rows, columns = factorize(matrix.shape[0]), factorize(matrix.shape[1])[::-1]
    if prod(rows) != matrix.shape[0] or prod(columns) != matrix.shape[1]:
        raise ValueError(f"pad the matrix first: {tuple(matrix.shape)} does not factor into {rows} and {columns}")
    modes = {
        "low rank": tuple(matrix.shape),  # a train of two cores
        "TT": rows + columns,
        "TT-matrix": tuple(m * n for m, n in zip(rows, columns, strict=True)),
    }
    points = {}
    for name, sizes in modes.items():
        if tt_parameters(sizes, 1) > parameters:
            continue
        rank = largest_rank(sizes, parameters)
        if name == "TT-matrix":
            approximation = tt_matrix_to_matrix(tt_matrix(matrix, rows, columns, rank))
        else:
            approximation = tt_to_tensor(tt_svd(matrix.reshape(sizes), rank)).reshape(matrix.shape)
        points[name] = FormatPoint(rank, tt_parameters(sizes, rank), relative_error(matrix, approximation))
    return points


def formats(matrices: Mapping[str, Tensor], ratios: Sequence[int] = (4, 6, 10, 20, 40, 80, 160)) -> Explorer:
    """Drag how many times fewer numbers may be kept; three formats compete on the chosen matrix."""
    controls = {
        "matrix": choice("matrix", matrices),
        "ratio": stops("share of the numbers kept", [(f"1/{r}", r) for r in ratios], ratios[len(ratios) // 2]),
    }

    def draw(matrix: str, ratio: int) -> tuple[Figure, str]:
        points = matrix_formats(matrices[matrix], matrices[matrix].numel() // ratio)
        figure = plots.bars({name: point.error for name, point in points.items()}, "relative error")
        return figure, "<br>".join(f"{name}: {point}" for name, point in points.items())

    return Explorer(controls, draw, hint=FORMAT_HINT)
