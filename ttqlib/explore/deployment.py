"""How many times less a thin pair takes than the dense layer, on a machine of one's own making."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from .. import plots
from ..measures.roofline import Machine, layer_work
from .explorer import Explorer, choice, stops, whole

ROWS = tuple(2**k for k in range(14))
HINT = (
    "Try a machine of 1000 GFLOP/s: with many rows the thin pair then waits for memory, and time falls behind FLOPs; "
    "a larger rank makes all three lines sink."
)


@dataclass(frozen=True)
class Saving:
    """How many times less a pair of thin layers takes than the dense one: FLOPs, bytes, time by the roofline."""

    flops: float
    bytes: float
    time: float

    def __str__(self) -> str:
        return f"{self.flops:.1f}× fewer FLOPs, {self.bytes:.1f}× fewer bytes, {self.time:.1f}× faster at best"


def saving(inputs: int, outputs: int, rows: int, rank: int, machine: Machine) -> Saving:
    """Dense divided by thin."""
    dense, thin = layer_work(inputs, outputs, rows), layer_work(inputs, outputs, rows, rank)
    times = machine.seconds(dense) / machine.seconds(thin)
    return Saving(dense.flops / thin.flops, dense.bytes / thin.bytes, times)


def roofline(sizes: Mapping[str, tuple[int, int]]) -> Explorer:
    """Drag the rank and build a machine: what becomes of the FLOPs that a thin pair saves, for few rows and many.

    `sizes` are the layers to choose from, (inputs, outputs) by name.
    """
    controls = {
        "layer": choice("layer, inputs → outputs", sizes),
        "rank": whole("rank", 30, 1, 200),
        "gflops": stops("speed, GFLOP/s", (25, 50, 100, 200, 500, 1000, 10_000), 100),
        "gigabytes": stops("memory, GB/s", (5, 10, 20, 50, 100, 1000), 10),
    }

    def draw(layer: str, rank: int, gflops: float, gigabytes: float) -> tuple[Figure, str]:
        machine = Machine(1e9 * gflops, 1e9 * gigabytes)
        at = {rows: saving(*sizes[layer], rows, rank, machine) for rows in (1, 128, ROWS[-1])}
        text = "<br>".join(f"{rows} row{'s' if rows > 1 else ''}: {found}" for rows, found in at.items())
        return roofline_figure(*sizes[layer], rank, machine), text

    return Explorer(controls, draw, hint=HINT)


def roofline_figure(inputs: int, outputs: int, rank: int, machine: Machine) -> Figure:
    """What `roofline` draws, for one choice."""
    found = {rows: saving(inputs, outputs, rows, rank, machine) for rows in ROWS}
    curves = {
        "FLOPs": {rows: one.flops for rows, one in found.items()},
        "bytes": {rows: one.bytes for rows, one in found.items()},
        "time, at best": {rows: one.time for rows, one in found.items()},
    }
    return plots.lines(curves, "rows (sentences × tokens)", "dense layer / thin pair", x_scale="log")
