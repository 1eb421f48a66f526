"""A plan by groups of layers: a choice for the words, the attention and so on, as a `TTQConfig` and as code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace

from torch import nn

from ..inventory.kinds import is_embedding, is_linear, linear_sizes
from ..plans.configs import TT, TTM, LayerPlan, TTQConfig
from ..plans.planning import plan, recipe_for
from ..tensors.shapes import factorize

GROUPS = {  # patterns of layer names in a BERT under its heads, of which no two match the same layer
    "words": r"word_embeddings",
    "positions": r"position_embeddings",
    "attention": r"attention\.(self\.\w+|output\.dense)",
    "feed-forward": r"\d\.(intermediate|output)\.dense",
    "heads": r"_head|pooler|classifier",
}


@dataclass(frozen=True)
class Choice:
    """What a group of layers gets: trains of `rank`, or None for matrices, and `bits` for each number; 32 is float32.

    `cores`: of an embedding, or on each side of a linear layer; None is what `TT` and `TTM` do by themselves. A matrix
    of 32 bits is left to the rest.
    """

    rank: int | None = None
    bits: int = 32
    cores: int | None = None


@dataclass(frozen=True)
class GroupPlan:
    """A plan in one choice for each of `GROUPS`, and the bits of the rest."""

    words: Choice = Choice()
    positions: Choice = Choice()
    attention: Choice = Choice()
    feed_forward: Choice = Choice()
    heads: Choice = Choice()
    rest: int = 32

    @classmethod
    def uniform(cls, rank: int, bits: int = 32, own: int = 32, rest: int = 32, sides: int | None = None) -> "GroupPlan":
        """One rank and number of bits for all trains, as experiments/atis.py does it.

        Words are trains of two cores, linear layers have `sides` cores on each side; `own` are the bits of heads and
        positions, which stay matrices, 32 where they belong to the rest.
        """
        linear, matrix = Choice(rank, bits, sides), Choice(bits=own)
        return cls(Choice(rank, bits, 2), matrix, linear, linear, matrix, rest)

    @property
    def choices(self) -> dict[str, Choice]:
        """The choice of each group, in the order of `GROUPS`."""
        return {group: getattr(self, group.replace("-", "_")) for group in GROUPS}

    def with_trains(self, **changes: int) -> "GroupPlan":
        """The same with another rank, or bits, in every train."""
        trains = {name.replace("-", "_"): choice for name, choice in self.choices.items() if choice.rank is not None}
        return replace(self, **{name: replace(choice, **changes) for name, choice in trains.items()})

    def config(self, model: nn.Module) -> TTQConfig:
        """The plan that this is for `model`.

        Raises:
            ValueError: as `plan`.
        """
        return plan_by_groups(model, GROUPS, self.choices, self.rest)

    def code(self, model: nn.Module) -> str:
        """One line of Python that makes the same plan for `model`, or for a deeper model of its widths."""
        layers, rules = self.config(model).layers, {}
        for pattern in GROUPS.values():
            group = {name: layer for name, layer in layers.items() if re.search(pattern, name)}
            alike = len({*group.values()}) == 1  # a group of layers of several shapes needs several rules
            rules |= {pattern if alike else _place(name): layer for name, layer in group.items()}
        if not rules:
            return f"config = ttq.TTQConfig(rest={self.rest})"
        written = ", ".join(f'r"{pattern}": {_written(rule)}' for pattern, rule in rules.items())
        return f"config = ttq.plan(model, rules={{{written}}}, rest={self.rest})"


def plan_by_groups(
    model: nn.Module, groups: Mapping[str, str], choices: Mapping[str, Choice], rest: int = 32
) -> TTQConfig:
    """The plan in which every group of layers gets its choice; what is in no group belongs to the rest.

    `groups` maps names to patterns that are searched in layer names, and the first that matches wins.

    Raises:
        ValueError: a choice for an unknown group, or as `plan`.
    """
    if unknown := [name for name in choices if name not in groups]:
        raise ValueError(f"choices must be for groups among {', '.join(groups)}, got {unknown[0]!r}")
    rules = {}
    for name, layer in model.named_modules():
        group = group_of(name, groups)
        if group in choices and (is_linear(layer) or is_embedding(layer)):
            made = _layer_plan(layer, choices[group])
            if made != LayerPlan():
                rules[f"^{re.escape(name)}$"] = made
    return plan(model, rules=rules, rest=rest) if rules else TTQConfig(rest=rest)


def group_of(name: str, groups: Mapping[str, str] = GROUPS) -> str | None:
    """The group that a layer of this name belongs to; None for the rest."""
    return next((group for group, pattern in groups.items() if re.search(pattern, name)), None)


def _place(name: str) -> str:
    r"""A pattern for all layers that stand where this one does: `\.\d+\.output\.dense$` of "encoder.3.output.dense"."""
    *above, own = name.split(".")[-3:]
    parts = [r"\d+" if part.isdigit() else re.escape(part) for part in above]
    return "".join(rf"\.{part}" for part in (*parts, re.escape(own))) + "$"


def _layer_plan(layer: nn.Module, choice: Choice) -> LayerPlan:
    quantizer = None if choice.bits == 32 else recipe_for(choice.bits, dense=choice.rank is None)
    if choice.rank is None:
        return LayerPlan(quantize=quantizer)
    embedding, modes = is_embedding(layer), ()
    if choice.cores is not None:
        rows, columns = layer.weight.shape if embedding else linear_sizes(layer)
        rows, columns = factorize(rows, choice.cores), factorize(columns, choice.cores)
        modes = (rows, columns[::-1]) if embedding else (rows[::-1], columns)
    return LayerPlan((TTM if embedding else TT)(choice.rank, *modes), quantizer)


def _written(value) -> str:
    """A recipe as Python, without what it would have by default."""
    if not is_dataclass(value):
        return repr(value)
    given = [(field.name, getattr(value, field.name)) for field in fields(value)]
    defaults = {field.name: field.default for field in fields(value)}
    words = ", ".join(f"{name}={_written(entry)}" for name, entry in given if entry != defaults[name])
    return f"ttq.{type(value).__name__}({words})"
