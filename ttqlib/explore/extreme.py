"""Layers, bits and steps: what extremely small students are worth, as far as somebody has measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from .. import plots
from .explorer import Explorer, stops

Key = tuple[int, int, int]  # layers, bits, steps
LABELS = {"layers": "layers kept", "bits": "bits of each weight", "steps": "steps of training"}
HINT = (
    "Try 1 bit after 0 steps, then after more: expect training to give back much of what rounding took. Not every "
    "combination was tried; the last line names what is no larger and no worse."
)


@dataclass(frozen=True)
class ExtremePoint:
    """A student: how many times smaller than its teacher it is, accuracy and points behind the teacher in percent.

    `deviation` is that of the accuracy over several `seeds`.
    """

    ratio: float
    accuracy: float
    behind: float
    seeds: int = 1
    deviation: float | None = None

    def __str__(self) -> str:
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        return f"{self.ratio:.1f}× smaller, {self.accuracy:.1f} % right, {self.behind:.1f} points behind ({seeds})"

    def beats(self, other: "ExtremePoint") -> bool:
        """Whether it is smaller and better than another, or equal in one of the two."""
        pairs = (self.ratio, other.ratio), (self.accuracy, other.accuracy)
        return all(ours >= theirs for ours, theirs in pairs) and any(ours > theirs for ours, theirs in pairs)


def extreme_points(rows: Sequence[Mapping], depth: int) -> dict[Key, ExtremePoint]:
    """The points of rows of data/results/xtc.json by (layers, bits, steps); `depth` is how many layers the teacher has.

    Raises:
        ValueError: two rows have the same layers, bits and steps.
    """
    points: dict[Key, ExtremePoint] = {}
    for row in rows:
        settings, metrics = row["settings"], row["metrics"]
        key = settings["layers"] or depth, row["bits"], settings["steps"]
        if key in points:
            raise ValueError(f"two rows have {_said(key)}: choose rows that differ in nothing else, as words or inputs")
        found, behind = metrics["accuracy"], metrics["accuracy_behind"]["mean"]
        points[key] = ExtremePoint(row["ratio"], found["mean"], behind, len(row["seeds"]), found["sd"])
    return points


def extreme(points: Mapping[Key, ExtremePoint], layers: int, bits: int, steps: int) -> Explorer:
    """Choose layers, bits and steps: what such a student is worth, after fewer steps too, and what beats it.

    `points` need not have every combination; of others nothing is claimed. `layers`, `bits` and `steps` are where the
    controls stand first.

    Raises:
        ValueError: there are no points, or none has these layers, these bits or these steps.
    """
    start = {"layers": layers, "bits": bits, "steps": steps}
    controls = {}
    for place, (name, value) in enumerate(start.items()):
        options = sorted({key[place] for key in points})
        if value not in options:
            raise ValueError(f"{name} must be one of those measured, {options}, got {value!r}")
        controls[name] = stops(LABELS[name], [(_text(name, option), option) for option in options], value)

    def draw(layers: int, bits: int, steps: int) -> tuple[Figure, str]:
        chosen = layers, bits, steps
        return extreme_figure(points, chosen), "<br>".join(extreme_text(points, chosen))

    return Explorer(controls, draw, hint=HINT)


def extreme_text(points: Mapping[Key, ExtremePoint], chosen: Key) -> list[str]:
    """What `extreme` reads out: the point, the same student after other numbers of steps, and what beats it."""
    point, (layers, bits, _) = points.get(chosen), chosen
    same = sorted(key for key in points if key[:2] == (layers, bits))
    steps = ", ".join(f"{points[key].accuracy:.1f} % after {key[2]:,}" for key in same) or "nothing"
    lines = [f"{_said(chosen)}: {point or 'not measured'}", f"measured of such a student: {steps}"]
    if point:
        better = [_said(key) for key, other in sorted(points.items()) if other.beats(point)]
        lines.append(f"no larger and no worse: {'; '.join(better) or 'none of those measured'}")
    return lines


def extreme_figure(points: Mapping[Key, ExtremePoint], chosen: Key) -> Figure:
    """What `extreme` draws: all points, a marker for each number of bits, the chosen one in a ring if it is there."""
    groups: dict[str, list] = {}
    for (_, bits, _), point in sorted(points.items(), key=lambda item: (item[0][1], item[1].ratio)):
        found = point.ratio, point.accuracy, point.deviation
        groups.setdefault(_bits(bits), []).append(found)
    point = points.get(chosen)
    ring = (point.ratio, point.accuracy) if point else None
    return plots.measured(groups, "times smaller than the teacher", "accuracy in percent", ring)


def _said(key: Key) -> str:
    return ", ".join(_text(name, value) for name, value in zip(LABELS, key))


def _text(name: str, value: int) -> str:
    """A value with its unit."""
    if name == "bits":
        return _bits(value)
    return f"{value} layer{'s' * (value > 1)}" if name == "layers" else f"{value:,} steps"


def _bits(bits: int) -> str:
    return f"{bits} bit{'s' * (bits > 1)}"
