"""Bits, groups and recipes for the weights of a decoder: what a combination costs and loses, where measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from .. import plots
from .explorer import Explorer, stops

Key = tuple[int, int | str, str]  # bits, group, recipe
LABELS = {"bits": "bits of each weight", "group": "weights that share a scale", "recipe": "recipe"}
HINT = (
    "Stay at 3 bits and groups of 64, and go through the recipes: expect those that look at a layer's inputs to be "
    "better at the same bits. Not every combination was tried."
)


@dataclass(frozen=True)
class RecipePoint:
    """What is stored for a weight, in bits with its share of scales and zero points, and a relative error."""

    bits_per_weight: float
    error: float

    def __str__(self) -> str:
        return f"{self.bits_per_weight:.2f} bits a weight, off by {self.error:.1%}"

    def beats(self, other: "RecipePoint") -> bool:
        """Whether it is smaller and better than another, or equal in one of the two."""
        ours, theirs = (self.bits_per_weight, self.error), (other.bits_per_weight, other.error)
        return ours != theirs and all(one <= two for one, two in zip(ours, theirs))


def recipes(points: Mapping[Key, RecipePoint], bits: int, group: int | str, recipe: str) -> Explorer:
    """Choose bits, group and recipe: what is stored and lost, what other recipes make of the same, and what beats it.

    `points` need not have every combination; of others nothing is claimed. `bits`, `group` and `recipe` are where the
    controls stand first.

    Raises:
        ValueError: there are no points, or none has these bits, this group or this recipe.
    """
    controls = {}
    for place, (name, value) in enumerate({"bits": bits, "group": group, "recipe": recipe}.items()):
        options = list(dict.fromkeys(key[place] for key in points))
        if value not in options:
            raise ValueError(f"{name} must be one of those measured, {options}, got {value!r}")
        controls[name] = stops(LABELS[name], [(_texts(name, option), option) for option in options], value)

    def draw(bits: int, group: int | str, recipe: str) -> tuple[Figure, str]:
        chosen = bits, group, recipe
        return recipes_figure(points, chosen), "<br>".join(recipes_text(points, chosen))

    return Explorer(controls, draw, hint=HINT)


def recipes_text(points: Mapping[Key, RecipePoint], chosen: Key) -> list[str]:
    """What `recipes` reads out: the point, other recipes at the same bits and group, and what beats it."""
    point, (bits, group, _) = points.get(chosen), chosen
    same = {key[2]: other for key, other in points.items() if key[:2] == (bits, group)}
    others = ", ".join(f"{name} {other.error:.1%}" for name, other in same.items()) or "nothing"
    lines = [f"{_said(chosen)}: {point or 'not measured'}", f"measured of the same bits and groups: {others}"]
    if point:
        better = [_said(key) for key, other in points.items() if other.beats(point)]
        lines.append(f"no larger and no worse: {'; '.join(better) or 'none of those measured'}")
    return lines


def recipes_figure(points: Mapping[Key, RecipePoint], chosen: Key) -> Figure:
    """What `recipes` draws: a curve a recipe over bits a weight, and a line at the chosen point if it is there."""
    curves: dict[str, dict[float, float]] = {}
    for (_, _, recipe), point in sorted(points.items(), key=lambda item: item[1].bits_per_weight):
        curves.setdefault(recipe, {})[point.bits_per_weight] = point.error
    order = dict.fromkeys(key[2] for key in points)
    marks = {f"chosen: {chosen[2]}": points[chosen].bits_per_weight} if chosen in points else None
    ordered = {recipe: curves[recipe] for recipe in order}
    return plots.lines(ordered, "bits a weight, stored", "relative error", markers=20, marks=marks)


def _said(key: Key) -> str:
    return ", ".join(_texts(name, value) for name, value in zip(LABELS, key))


def _texts(name: str, value: int | str) -> str:
    """A value with its unit."""
    if name == "bits":
        return f"{value} bit{'s' * (value > 1)}"
    if name == "group":
        return "whole rows" if value == "channel" else f"groups of {value}"
    return value
