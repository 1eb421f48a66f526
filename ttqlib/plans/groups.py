"""A plan by groups of layers: each group gets one choice of rank, bits and cores, and the rest is left over."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from ..inventory.kinds import is_embedding, is_linear, linear_sizes
from ..inventory.stacks import one_stack, place_in
from ..quantizers.activations import ActivationRecipe
from ..tensors.shapes import factorize
from .configs import TT, TTM, LayerPlan, Shared, TTQConfig
from .planning import plan, recipe_for

Test = str | Callable[[nn.Module], bool]  # of a layer: a pattern that is searched in its name, or a function

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

    `cores`: of an embedding, or on each side of a linear layer; None is what `TT` and `TTM` do by themselves. Where the
    number is given, the larger modes of a linear layer meet in the middle, as in all recorded runs; in `TT` itself they
    stand at the ends, for somewhat fewer numbers at the same rank. A matrix of 32 bits is left to the rest.
    """

    rank: int | None = None
    bits: int = 32
    cores: int | None = None


def plan_by_groups(
    model: nn.Module,
    groups: Mapping[str, Test],
    choices: Mapping[str, Choice | LayerPlan | Callable[[nn.Module], LayerPlan]],
    rest: int = 32,
    activations: ActivationRecipe | None = None,
) -> TTQConfig:
    """The plan in which every group of layers gets its choice; what is in no group belongs to the rest.

    `groups` maps names to patterns that are searched in layer names, or to functions that tell of a layer whether it
    belongs; the first that matches wins. A choice may also be a whole `LayerPlan`, or a function that makes one for a
    layer. `activations` are for the inputs of all linear layers that get a choice.

    Raises:
        ValueError: a choice for an unknown group, or as `plan`.
    """
    if unknown := [name for name in choices if name not in groups]:
        raise ValueError(f"choices must be for groups among {', '.join(groups)}, got {unknown[0]!r}")
    rules = {}
    for name, layer in model.named_modules():
        group = group_of(name, layer, groups)
        if group in choices and (is_linear(layer) or is_embedding(layer)):
            choice = choices[group]
            made = choice(layer) if callable(choice) else layer_plan(layer, choice)
            if made != LayerPlan():
                rules[f"^{re.escape(name)}$"] = made
    return plan(model, rules=rules, activations=activations, rest=rest) if rules else TTQConfig(rest=rest)


def shared_over_layers(model: nn.Module, config: TTQConfig, side: str) -> TTQConfig:
    """The plan in which the same matrix of all layers of the model's stack shares a side, or both (see `Shared`).

    It takes the ranks and quantizers of `config`, in which these matrices are a `TT` of one rank; other layers stay.

    Raises:
        ValueError: no model of one stack of layers, or nothing in its layers to share.
    """
    _, stack = one_stack(model)
    layers = dict(config.layers)
    for name, layer in config.layers.items():
        if (place := place_in(stack, name)) is not None and isinstance(layer.format, TT):
            matrix = name.removeprefix(f"{stack}.{place}.")
            layers[name] = replace(layer, format=Shared(layer.format.rank, side, matrix))
    if layers == config.layers:
        raise ValueError(f"none of the layers {stack} is a ttq.TT in the plan, so there is nothing to share")
    return TTQConfig(layers, config.rest, config.unmatched)


def group_of(name: str, layer: nn.Module | None = None, groups: Mapping[str, Test] = GROUPS) -> str | None:
    """The first group that a layer belongs to, by its name or itself; None for the rest."""
    return next((group for group, test in groups.items() if _says(test, name, layer)), None)


def layer_plan(layer: nn.Module, choice: Choice | LayerPlan) -> LayerPlan:
    """What one linear layer or embedding gets by a choice: quantized per tensor as a train, per channel as a matrix."""
    if isinstance(choice, LayerPlan):
        return choice
    quantizer = recipe_for(choice.bits, "tensor" if choice.rank else "channel")
    if choice.rank is None:
        return LayerPlan(quantize=quantizer)
    embedding, modes = is_embedding(layer), ()
    if choice.cores is not None:
        rows, columns = layer.weight.shape if embedding else linear_sizes(layer)
        rows, columns = factorize(rows, choice.cores), factorize(columns, choice.cores)
        modes = (rows, columns[::-1]) if embedding else (rows[::-1], columns)
    return LayerPlan((TTM if embedding else TT)(choice.rank, *modes), quantizer)


def _says(test: Test, name: str, layer: nn.Module) -> bool:
    return bool(re.search(test, name)) if isinstance(test, str) else test(layer)
