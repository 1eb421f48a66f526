"""A plan as a whole program: it makes the model, compresses it, tells its size, saves it, and says how to train."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass

from ...plans.configs import LayerPlan, TTQConfig
from .layers import Layers
from .sources import Source

FRAME = """# {label}: a plan made with TTQ's plan builder.
# It prints what each layer takes and writes the folder "compressed": {size:,} bytes.
from pathlib import Path

import transformers

import ttqlib as ttq

{lines}

{plan}
ttq.compress_(model, config{init})
print(ttq.report(model))
ttq.save(model, "compressed")
print(sum(file.stat().st_size for file in Path("compressed").iterdir()), "bytes")

{trains}
"""


def program(source: Source, layers: Layers, config: TTQConfig, size: int) -> str:
    """A program that runs as it stands and writes a folder of `size` bytes."""
    init = ', init="random"' if source.init == "random" and _has_trains(config) else ""
    plan = plan_code(layers, config)
    return FRAME.format(label=source.label, size=size, lines=source.lines, plan=plan, init=init, trains=source.trains)


def plan_code(layers: Layers, config: TTQConfig) -> str:
    """Lines of Python that make `config` for `model`, by rules in which layers that stand alike share a pattern."""
    if not config.layers:
        return f"config = ttq.TTQConfig(rest={config.rest})"
    rules = rules_of(layers.everything, config.layers)
    written = "".join(f'    r"{pattern}": {_written(layer)},\n' for pattern, layer in rules.items())
    return f"rules = {{\n{written}}}\nconfig = ttq.plan(model, rules=rules, rest={config.rest})"


def rules_of(names: Iterable[str], said: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Rules by which `ttq.plan` gives just this to the layers of these names, and leaves the others to the rest.

    Layers whose names differ in numbers only, and that get the same, share a rule.
    """
    places: dict[str, list[str]] = {}
    for name in names:
        places.setdefault(_place(name), []).append(name)
    rules = {}
    for pattern, alike in places.items():
        kinds: dict[LayerPlan, list[str]] = {}
        for name in alike:
            if name in said:
                kinds.setdefault(said[name], []).append(name)
        for layer, chosen in kinds.items():
            every = len(chosen) == len(alike)
            rules |= dict.fromkeys([pattern] if every else _patterns(chosen), layer)
    return rules


def _place(name: str, number: str = r"\d+") -> str:
    r"""A pattern for all layers that stand where this one does: `^encoder\.\d+\.dense$` of "encoder.3.dense"."""
    return "^" + r"\.".join(number if part.isdigit() else re.escape(part) for part in name.split(".")) + "$"


def _patterns(names: Sequence[str]) -> list[str]:
    """One pattern for names that differ in one number, which it lists; else one for each name."""
    numbers = [re.findall(r"(?<=\.)\d+(?=\.|$)", name) for name in names]
    if all(len(found) == 1 for found in numbers):
        return [_place(names[0], f"({'|'.join(found[0] for found in numbers)})")]
    return [f"^{re.escape(name)}$" for name in names]


def _has_trains(config: TTQConfig) -> bool:
    return any(layer.format is not None for layer in config.layers.values())


def _written(value) -> str:
    """A recipe as Python, without what it would have by default."""
    if not is_dataclass(value):
        return repr(value)
    given = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
    words = (
        _written(entry) if default is MISSING else f"{name}={_written(entry)}"
        for name, (entry, default) in given.items()
        if default is MISSING or entry != default
    )
    return f"ttq.{type(value).__name__}({', '.join(words)})"
