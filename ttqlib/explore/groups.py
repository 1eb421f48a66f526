"""A plan by groups of layers: a choice for the words, the attention and so on, as a `TTQConfig` and as code."""

import re
from dataclasses import dataclass, fields, is_dataclass, replace

from torch import nn

from ..plans.configs import TTQConfig
from ..plans.groups import GROUPS, Choice, plan_by_groups

LEFT = Choice()  # to the rest


@dataclass(frozen=True)
class GroupPlan:
    """A plan in one choice for each of `GROUPS`, and the bits of the rest."""

    words: Choice = LEFT
    positions: Choice = LEFT
    attention: Choice = LEFT
    feed_forward: Choice = LEFT
    heads: Choice = LEFT
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


def _place(name: str) -> str:
    r"""A pattern for all layers that stand where this one does: `\.\d+\.output\.dense$` of "encoder.3.output.dense"."""
    *above, own = name.split(".")[-3:]
    parts = [r"\d+" if part.isdigit() else re.escape(part) for part in above]
    return "".join(rf"\.{part}" for part in (*parts, re.escape(own))) + "$"


def _written(value) -> str:
    """A recipe as Python, without what it would have by default."""
    if not is_dataclass(value):
        return repr(value)
    given = [(field.name, getattr(value, field.name)) for field in fields(value)]
    defaults = {field.name: field.default for field in fields(value)}
    words = ", ".join(f"{name}={_written(entry)}" for name, entry in given if entry != defaults[name])
    return f"ttq.{type(value).__name__}({words})"
