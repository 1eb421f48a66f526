"""Bits: what rounding does to the weight of a layer; rank and bits together, against bytes, and who is beaten."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.figure import Figure
from torch import Tensor, nn

from .. import plots
from ..layers.linear import TTLinear
from ..measures.costs import relative_error
from ..plans.planning import recipe_for
from ..quantizers.fake_quantization import check_bits, clip_range
from ..quantizers.recipes import LSQ
from ..storage.bits import packed_bytes
from ..tensors.tensor_train import tt_to_tensor
from .explorer import Explorer, choice, stops

Key = TypeVar("Key", bound=Hashable)
STEP_HINT = (
    "Try 2 bits and drag δ: small steps clip, large ones round. Expect the best δ in between, and max-abs to turn most "
    "numbers into 0 where there are outliers."
)
LAYER_HINT = (
    "Try fewer bits at a high rank, then a lower rank at 8 bits: expect the larger of the two errors to decide, so "
    "that bits spent beyond the error of the rank are lost."
)
PARETO_HINT = (
    "Try to beat the front: for each size in kB only one pair of rank and bits is best. Expect its rank to grow faster "
    "than its bits."
)


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
    """Q(x, δ, b) of `LSQ` applied to `weight`: what δ loses by rounding, and what by clipping.

    Raises:
        ValueError: a `step` that is not positive, or `bits` outside 2 … 8.
    """
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
        "bits": stops("bits", bits, bits[0]),
        "step": stops("step size δ, in σ", [(f"{size:.3g} σ", size) for size in sizes], step),
        "rule": choice("step size δ by", rules),
        "weight": choice("weight", weights),
    }

    def draw(bits: int, step: float, rule: str, weight: str) -> tuple[Figure, str]:
        x = weights[weight].detach()
        step *= x.std().item()
        if rules[rule]:
            step = LSQ(bits, init=rules[rule]).build(x).step.item()
        point = step_point(x, step, bits)
        figure = plots.quantized_histogram(x, step, bits, {"rounding": point.rounding, "clipping": point.clipping})
        return figure, str(point)

    return Explorer(controls, draw, hint=STEP_HINT)


# ----------------------------------------------------------------------------------- rank and bits


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
    stored = packed_bytes([(core.numel(), bits) for core in cores]) + 4 * len(cores)
    return StoredPoint(stored, matrix.numel() * 4 / stored, errors)


def rank_and_bits(
    layer: nn.Linear,
    rounded: Callable[[Tensor, int], Tensor],
    ranks: Sequence[int] = (4, 8, 15, 30, 60, 120, 240),
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
) -> Explorer:
    """Drag the rank of one layer and the bits of its cores; `rounded(core, bits)` does the rounding."""
    controls = {
        name: stops(label, options, options[len(options) // 2])
        for name, label, options in (("rank", "TT-rank", ranks), ("bits", "bits of each number", bits))
    }

    def draw(rank: int, bits: int) -> tuple[Figure, str]:
        point = stored_point(layer, rank, bits, rounded)
        return plots.bars(point.errors, "relative error"), str(point)

    return Explorer(controls, draw, hint=LAYER_HINT)


@dataclass(frozen=True)
class RoundedPoint:
    """A weight after rounding: the bytes of its packed codes and 4-byte scales, and its relative error."""

    stored_bytes: int
    error: float

    def __str__(self) -> str:
        return f"{self.stored_bytes / 1000:,.1f} kB, relative error {self.error:.1%}"


def rank_bit_points(
    layer: nn.Linear, trains: Mapping[int, Sequence[Tensor]], bits: Sequence[int]
) -> dict[tuple[int, int], RoundedPoint]:
    """For each (rank, bits): the cores `trains[rank]` rounded, against the weight of `layer`.

    The step size of a core is the one with the least squared error; 1 bit is sign and mean.
    """
    matrix, points = layer.weight.detach().T, {}
    for rank, cores in trains.items():
        for width in bits:
            recipe = recipe_for(width, "tensor")
            rounded = tt_to_tensor([recipe.build(core)(core).detach() for core in cores]).reshape(matrix.shape)
            stored = packed_bytes([(core.numel(), width) for core in cores]) + 4 * len(cores)
            points[rank, width] = RoundedPoint(stored, relative_error(matrix, rounded))
    return points


def dense_points(layer: nn.Linear, bits: Sequence[int]) -> dict[int, RoundedPoint]:
    """For each number of bits: the dense weight rounded, with a scale for each output as `ttq.plan` gives it."""
    weight, points = layer.weight.detach(), {}
    for width in bits:
        rounded = recipe_for(width, "channel").build(weight)(weight)
        stored = packed_bytes([(weight.numel(), width)]) + 4 * len(weight)
        points[width] = RoundedPoint(stored, relative_error(weight, rounded))
    return points


def pareto_front(points: Mapping[Key, RoundedPoint]) -> list[Key]:
    """The points that no other beats, by growing bytes: each has a smaller error than all that take no more bytes."""
    front, least = [], float("inf")
    for key in sorted(points, key=lambda key: (points[key].stored_bytes, points[key].error)):
        if points[key].error < least:
            front.append(key)
            least = points[key].error
    return front


def pareto(
    points: Mapping[tuple[int, int], RoundedPoint],
    dense: Mapping[int, RoundedPoint],
    low_rank: Mapping[tuple[int, int], RoundedPoint],
    rank: int,
    bits: int,
) -> Explorer:
    """Drag rank and bits through `points`, computed once; their front and two rivals are drawn beside the choice.

    The rivals are `dense` weights and plain products of `low_rank`. The sliders stand first at `rank` and `bits`.
    """
    controls = {
        name: stops(label, sorted({key[place] for key in points}), value)
        for name, label, place, value in (("rank", "TT-rank", 0, rank), ("bits", "bits of each number", 1, bits))
    }
    front = pareto_front(points)

    def draw(rank: int, bits: int) -> tuple[Figure, str]:
        chosen = points[rank, bits]
        text = f"rank {rank}, b = {bits}: {chosen}<br>"
        if (rank, bits) in front:
            text += "on the front: no smaller error for these bytes"
        else:
            best = max((key for key in front if points[key].stored_bytes <= chosen.stored_bytes), key=front.index)
            text += f"beaten by rank {best[0]}, b = {best[1]}: {points[best]}"
        thin, width = _best_within(low_rank, chosen.stored_bytes), _best_within(dense, chosen.stored_bytes)
        text += "<br>a plain product in these bytes: "
        text += "there is none" if thin is None else f"rank {thin[0]}, b = {thin[1]}, {low_rank[thin]}"
        text += "<br>a dense matrix in these bytes: "
        text += "there is none" if width is None else f"b = {width}, {dense[width]}"
        return pareto_figure(points, dense, low_rank, (rank, bits)), text

    return Explorer(controls, draw, hint=PARETO_HINT)


def _best_within(points: Mapping[Key, RoundedPoint], stored_bytes: int) -> Key | None:
    """Of the points that take no more bytes the one with the smallest error."""
    fitting = [key for key, point in points.items() if point.stored_bytes <= stored_bytes]
    return min(fitting, key=lambda key: points[key].error, default=None)


def pareto_figure(
    points: Mapping[tuple[int, int], RoundedPoint],
    dense: Mapping[int, RoundedPoint],
    low_rank: Mapping[tuple[int, int], RoundedPoint],
    chosen: tuple[int, int],
) -> Figure:
    """What `pareto` draws, for one choice; of the plain products those that no other one beats."""
    thin = [low_rank[key] for key in pareto_front(low_rank)]
    clouds = {"trains": points.values(), "dense, 1 bit and more": dense.values(), "low rank, its front": thin}
    front = [points[key] for key in pareto_front(points)]
    as_pairs = {name: [(p.stored_bytes / 1000, p.error) for p in cloud] for name, cloud in clouds.items()}
    return plots.trade_off(
        as_pairs,
        [(p.stored_bytes / 1000, p.error) for p in front],
        (points[chosen].stored_bytes / 1000, points[chosen].error),
        "kB",
        "relative error",
    )
