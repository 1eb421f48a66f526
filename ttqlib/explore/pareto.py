"""Rank and bits against bytes: every combination of one layer, and those that no other beats."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor, nn

from .. import plots
from ..measures.costs import relative_error
from ..plans.planning import recipe_for
from ..storage.bits import packed_bytes
from ..tensors.tensor_train import tt_to_tensor
from .explorer import Explorer

Key = TypeVar("Key", bound=Hashable)


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
    points: Mapping[tuple[int, int], RoundedPoint], dense: Mapping[int, RoundedPoint], rank: int, bits: int
) -> Explorer:
    """Drag rank and bits through `points`, computed once; the front, and dense weights, are drawn beside the choice.

    `rank` and `bits` are where the sliders stand first.
    """
    controls = {
        name: widgets.SelectionSlider(
            options=sorted({key[place] for key in points}), value=value, description=label, continuous_update=False
        )
        for name, label, place, value in (("rank", "TT-rank", 0, rank), ("bits", "bits", 1, bits))
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
        fitting = {width: point for width, point in dense.items() if point.stored_bytes <= chosen.stored_bytes}
        text += "<br>a dense matrix in these bytes: "
        width = min(fitting, key=lambda width: fitting[width].error, default=None)
        text += "there is none" if width is None else f"b = {width}, {fitting[width]}"
        return pareto_figure(points, dense, (rank, bits)), text

    return Explorer(controls, draw)


def pareto_figure(
    points: Mapping[tuple[int, int], RoundedPoint], dense: Mapping[int, RoundedPoint], chosen: tuple[int, int]
) -> Figure:
    """What `pareto` draws, for one choice."""
    clouds = {"trains": points.values(), "dense, 1 bit and more": dense.values()}
    front = [points[key] for key in pareto_front(points)]
    as_pairs = {name: [(p.stored_bytes / 1000, p.error) for p in cloud] for name, cloud in clouds.items()}
    return plots.trade_off(
        as_pairs,
        [(p.stored_bytes / 1000, p.error) for p in front],
        (points[chosen].stored_bytes / 1000, points[chosen].error),
        "kB",
        "relative error",
    )
