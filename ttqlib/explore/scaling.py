"""How much a square matrix saves as it gets wider, at a rank that stays and at one that grows with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from .. import plots
from ..tensors.shapes import factorize, tt_parameters
from .explorer import Explorer, choice, stops, whole

FLOAT32 = 32  # bits of a number of the dense matrix
WIDTHS = (128, 256, 384, 768, 1024, 2048, 4096, 8192)
BASE = 768  # the width at which a growing rank is the one that was chosen
STAYS, GROWS = "stays", "grows with the width"
HINT = (
    "Let the rank grow with the width. Which of the three lines still rises? And at which rank does a train cost more "
    "than a product of two thin matrices?"
)


@dataclass(frozen=True)
class ScalingPoint:
    """One matrix, width × width, at a rank: how many times fewer bytes than in float32, by its form."""

    width: int
    rank: int
    fewer: Mapping[str, float]  # "dense", "low rank", "train", each in as many bits

    def saved(self, form: str) -> float:
        """The share of the float32 bytes that is saved."""
        return 1 - 1 / self.fewer[form]

    def __str__(self) -> str:
        forms = ", ".join(f"{form} {times:,.0f}×" for form, times in self.fewer.items())
        return f"{self.width} wide, rank {self.rank}: {forms}"


def scaling_point(width: int, rank: int, bits: int, grows: bool = False) -> ScalingPoint:
    """Dense, a product of two thin matrices, and a train of 2 · 3 cores, in `bits` bits; step sizes are not counted.

    Where `grows`, `rank` is that of a matrix 768 wide, and other widths get their share of it.
    """
    rank = max(1, round(rank * width / BASE)) if grows else rank
    modes = factorize(width)
    numbers = {
        "dense": width**2,
        "low rank": 2 * width * min(rank, width),
        "train": tt_parameters((*modes, *modes[::-1]), rank),
    }
    return ScalingPoint(width, rank, {form: FLOAT32 * width**2 / (bits * count) for form, count in numbers.items()})


def scaling() -> Explorer:
    """Drag rank and bits, and let the rank stay or grow: what becomes of the saving in wide matrices?"""
    controls = {
        "rank": whole("rank at 768", 96, 8, 384),
        "bits": stops("bits", (2, 3, 4, 8, 16, 32), 4),
        "rule": choice("the rank", (STAYS, GROWS)),
    }

    def draw(rank: int, bits: int, rule: str) -> tuple[Figure, str]:
        points = [scaling_point(width, rank, bits, rule == GROWS) for width in WIDTHS]
        return scaling_figure(rank, bits, rule == GROWS), "<br>".join(map(str, points[3::2]))

    return Explorer(controls, draw, hint=HINT)


def scaling_figure(rank: int, bits: int, grows: bool) -> Figure:
    """What `scaling` draws, for one choice."""
    points = [scaling_point(width, rank, bits, grows) for width in WIDTHS]
    curves = {form: {one.width: one.fewer[form] for one in points} for form in points[0].fewer}
    return plots.lines(curves, "width of the matrix", "times fewer bytes", x_scale="log")
