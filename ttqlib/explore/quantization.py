"""Bits: what rounding does to the weight of a layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor, nn

from .. import plots
from ..layers import TTLinear
from ..measure import relative_error
from ..tensor_train import tt_to_tensor
from .explorer import Explorer


@dataclass(frozen=True)
class StoredPoint:
    """The weight of a layer as a tensor train of rounded cores: what it costs, and where the error comes from."""

    stored_bytes: int  # packed codes, and a step size of 4 bytes for each core
    ratio: float  # bytes of the matrix in float32 over `stored_bytes`
    errors: dict[str, float]  # relative: of the rank alone, of the rounding alone, and of both

    def __str__(self) -> str:
        kilobytes = f"{self.stored_bytes / 1000:,.1f} kB, {self.ratio:.0f}× fewer bytes"
        return kilobytes + f" | relative error {self.errors['both']:.1%}"


def stored_point(layer: nn.Linear, rank: int, bits: int, rounded: Callable[[Tensor, int], Tensor]) -> StoredPoint:
    """The weight of `layer` by TT-SVD at this rank, each core then replaced by `rounded(core, bits)`."""
    cores = [core.detach() for core in TTLinear.from_linear(layer, rank).cores]
    matrix = layer.weight.detach().T  # inputs × outputs, as the cores have it
    exact, coarse = (tt_to_tensor(c).reshape(matrix.shape) for c in (cores, [rounded(core, bits) for core in cores]))
    errors = {
        "rank alone": relative_error(matrix, exact),
        "rounding alone": relative_error(exact, coarse),
        "both": relative_error(matrix, coarse),
    }
    stored = sum((core.numel() * bits + 7) // 8 + 4 for core in cores)
    return StoredPoint(stored, matrix.numel() * 4 / stored, errors)


def rank_and_bits(
    layer: nn.Linear,
    rounded: Callable[[Tensor, int], Tensor],
    ranks: Sequence[int] = (4, 8, 15, 30, 60, 120, 240),
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
) -> Explorer:
    """Drag the rank of one layer and the bits of its cores; `rounded(core, bits)` does the rounding."""
    controls = {
        name: widgets.SelectionSlider(
            options=list(options), value=options[len(options) // 2], description=label, continuous_update=False
        )
        for name, label, options in (("rank", "TT-rank", ranks), ("bits", "bits", bits))
    }

    def draw(rank: int, bits: int) -> tuple[Figure, str]:
        point = stored_point(layer, rank, bits, rounded)
        return plots.bars(point.errors, "relative error"), str(point)

    return Explorer(controls, draw)
