"""What compressed layers do to all layers above them: any rank of any kind of layer, computed once."""

from collections.abc import Mapping
from dataclasses import dataclass

import ipywidgets as widgets
from matplotlib.figure import Figure

from .. import plots
from .explorer import Explorer


@dataclass(frozen=True)
class DamagePoint:
    """A model some of whose layers were changed: its bytes, and how far off its hidden states are.

    `errors` are relative: first after the embeddings, then after each layer.
    """

    stored_bytes: int
    errors: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.stored_bytes / 1e6:.1f} MB, off by {self.errors[-1]:.0%} after the last layer"


def damage(
    points: Mapping[tuple[str, int], DamagePoint], deleted: Mapping[str, DamagePoint], layers: str, rank: int
) -> Explorer:
    """Drag the rank and choose the layers that get it; beside it the same layers without their weights.

    `points` holds every (layers, rank), `deleted` the control for each kind of layers. `layers` and `rank` are where
    the controls stand first.
    """
    controls = {
        "layers": widgets.Dropdown(options=list(deleted), value=layers, description="layers"),
        "rank": widgets.SelectionSlider(
            options=sorted({key[1] for key in points}), value=rank, description="TT-rank", continuous_update=False
        ),
    }

    def draw(layers: str, rank: int) -> tuple[Figure, str]:
        chosen, control = points[layers, rank], deleted[layers]
        beaten = [k for k, pair in enumerate(zip(chosen.errors, control.errors, strict=True)) if pair[0] > pair[1]]
        verdict = f"worse than none after layer {', '.join(map(str, beaten))}" if beaten else "nowhere worse than none"
        text = f"{layers} at rank {rank}: {chosen}<br>without these weights: {control}<br>{verdict}"
        return damage_figure(points, deleted, layers, rank), text

    return Explorer(controls, draw)


def damage_figure(
    points: Mapping[tuple[str, int], DamagePoint], deleted: Mapping[str, DamagePoint], layers: str, rank: int
) -> Figure:
    """What `damage` draws, for one choice."""
    curves = {f"{layers}, rank {rank}": points[layers, rank], f"{layers}, no weights": deleted[layers]}
    return plots.lines(
        {label: dict(enumerate(point.errors)) for label, point in curves.items()},
        "after layer (0: the embeddings)",
        "off by, 1 = the mean of all tokens",
        y_scale="linear",
    )
