"""Bits: what rounding does to the weight of a layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor, nn

from .. import plots
from ..layers.linear import TTLinear
from ..measures.costs import relative_error
from ..quantizers.fake_quantization import check_bits, clip_range
from ..quantizers.recipes import LSQ
from ..tensors.tensor_train import tt_to_tensor
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


@dataclass(frozen=True)
class StepPoint:
    """A weight at one step size: its squared error in two parts, both as shares of Σx²."""

    step: float
    rounding: float  # from the entries inside the range that the levels span
    clipping: float  # from those beyond it
    zeros: float  # the share of the entries that become 0
    clipped: float  # the share of the entries beyond the range

    @property
    def relative_error(self) -> float:
        """‖x − Q(x)‖ / ‖x‖."""
        return (self.rounding + self.clipping) ** 0.5

    def __str__(self) -> str:
        shares = f"rounding {self.rounding:.2%} + clipping {self.clipping:.2%} of the squares"
        counts = f"{self.zeros:.1%} became 0, {self.clipped:.2%} clipped"
        return f"δ = {self.step:.4g} | {shares}, relative error {self.relative_error:.1%} | {counts}"


def step_point(weight: Tensor, step: float, bits: int) -> StepPoint:
    """Q(x, δ, b) of `LSQ` applied to `weight`: what δ loses by rounding, and what by clipping."""
    check_bits(bits)
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    x, (lowest, highest) = weight.detach(), clip_range(bits)
    levels = (x / step).round().clamp(lowest, highest)
    squares, inside = (levels * step - x).square(), (x >= lowest * step) & (x <= highest * step)
    total, beyond = squares.sum(), (squares * ~inside).sum()
    norm = x.square().sum()
    zeros, clipped = ((levels == 0).float().mean(), (~inside).float().mean())
    return StepPoint(float(step), *map(float, ((total - beyond) / norm, beyond / norm, zeros, clipped)))


def steps(weights: Mapping[str, Tensor], bits: Sequence[int] = (2, 3, 4, 5, 6, 8), step: float = 1.0) -> Explorer:
    """Drag the bits and the step size of a weight, or have δ chosen: max-abs, or the least squared error.

    `step` is where the slider stands first, in standard deviations σ of the weight: a power of 2^¼ from 1/64 to 4.
    """
    sizes = [2 ** (k / 4) for k in range(-24, 9)]
    rules = {"slider": None, "max-abs": "max", "best": "mse"}
    controls = {
        "bits": widgets.SelectionSlider(options=list(bits), description="bits", continuous_update=False),
        "step": widgets.SelectionSlider(
            options=[(f"{size:.3g} σ", size) for size in sizes], value=step, description="δ", continuous_update=False
        ),
        "rule": widgets.ToggleButtons(options=list(rules), description="δ by"),
        "weight": widgets.Dropdown(options=list(weights), description="weight"),
    }

    def draw(bits: int, step: float, rule: str, weight: str) -> tuple[Figure, str]:
        x = weights[weight].detach()
        step *= x.std().item()
        if rules[rule]:
            step = LSQ(bits, init=rules[rule]).build(x).step.item()
        point = step_point(x, step, bits)
        figure = plots.quantized_histogram(x, step, bits, {"rounding": point.rounding, "clipping": point.clipping})
        return figure, str(point)

    return Explorer(controls, draw)
