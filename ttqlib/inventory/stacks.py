"""The stack of layers of a transformer, and the names of what stands in it."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel


def stack_of(model: PreTrainedModel) -> tuple[nn.ModuleList, nn.Module] | None:
    """The layers of a model, and the module that holds them; None where they are in no `nn.ModuleList` of their own.

    Of several lists of `config.num_hidden_layers` modules it is the one with the most parameters: a model of sound may
    have as many convolutions before its layers, and a layer as many parts.
    """
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [
        (part, owner)
        for owner in model.modules()
        for part in owner.children()
        if isinstance(part, nn.ModuleList) and len(part) == depth
    ]
    return max(lists, key=lambda found: sum(p.numel() for p in found[0].parameters()), default=None)


def one_stack(model: nn.Module) -> tuple[nn.ModuleList, str]:
    """The layers of a model that is one stack of them, and their name, as "bert.encoder.layer".

    Raises:
        ValueError: it is no transformers model, has two stacks, or keeps its layers in no list of their own.
    """
    kind, hint = type(model).__name__, "needed is one stack of layers"
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"{hint}, in a model of transformers, got a {kind}")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{hint}, but a {kind} is an encoder-decoder, which has two")
    found = stack_of(model)
    if found is None:
        depth = getattr(model.config, "num_hidden_layers", None)
        raise ValueError(
            f"{hint}, but a {kind} has no nn.ModuleList of config.num_hidden_layers = {depth} modules: its layers "
            "share their weights, or there are several stacks"
        )
    return found[0], next(name for name, module in model.named_modules() if module is found[0])


def place_in(stack: str, name: str) -> int | None:
    """The place of the layer, from 0, that a module or parameter of this name belongs to; None outside of the stack."""
    return int(name.removeprefix(stack + ".").partition(".")[0]) if name.startswith(stack + ".") else None


def moved(stack: str, name: str, places: Mapping[int, int]) -> str | None:
    """The name when layers stand at other places, each of the old ones by `places`; None where that has no place."""
    place = place_in(stack, name)
    if place is None:
        return name
    tail = name.removeprefix(f"{stack}.{place}")
    return f"{stack}.{places[place]}{tail}" if place in places else None
