"""Layer reduction: a smaller model of some of the layers of a given one, the first step of XTC (arXiv 2206.01859).

What a class makes of a layer may depend on where the layer stands: its number in the cache, a window, a share of
dropped paths. Nothing of that is known here by the name of a model. The class itself is asked: it builds the model
twice, without memory, from the old and from the new config, and what differs in a layer's places follows from them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations
from transformers import PreTrainedConfig, PreTrainedModel

from ..inventory.stacks import moved, one_stack, place_in
from ..plans.configs import TTQConfig
from .compress import put_plan_
from .kept import checked_places

INDICES = ("mlp_only_layers", "moe_layers")  # in configs: lists of the places of some layers
THRESHOLDS = ("max_window_layers", "first_k_dense_replace")  # the place from which on layers are of another kind
PLAIN = (Real, str, type(None), list, tuple, dict)  # what an attribute that follows from a place may be


def reduce_layers(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """A new model of the layers at the places `keep`, counted from 0, and of all that is no layer, with equal weights.

    `keep=[1, 3, 5]` of six layers is what DistilBERT and XTC start from; `ttq.kept_layers` names more choices, and
    `ttq.layer_map(keep)` says which hidden states belong together when the new model is distilled from the old one.
    The given model stays as it was and shares no memory with the new one, dropped layers are not copied. A kept layer
    gives, for the same input, what it gave, to the bit. Mode, dtype, device, what is frozen and what is tied stay.
    The config says the new number of layers, and what it says of each layer goes with the layer, so that
    `save_pretrained`, `from_pretrained`, caches and windows of attention work as in any model of the class.

    A model that `compress_` was given keeps its trains and quantizers, and the plan says the new names.

    Raises:
        ValueError: no place, one without a layer, one twice, or places not in order (XTC and Poor Man's BERT keep the
            order, and caches and maps count on it); a model that is not one stack of layers; or layers that the class
            makes otherwise at their new places, as the first of ModernBERT, which has a norm less.
    """
    layers, stack = one_stack(model)
    places = checked_places(keep, len(layers))
    new = {old: place for place, old in enumerate(places)}
    student = _cut(model, layers, places)
    for config in _configs(student):
        _shorten_(config, new)
    before, after = _built(model, model.config), _built(model, student.config)
    _check_tensors(before, after, stack, new)
    _settle_(student, before, after, stack, places)
    _rename_plans_(student, stack, new)
    return student


def _cut(model: PreTrainedModel, layers: nn.ModuleList, places: Sequence[int]) -> PreTrainedModel:
    """A copy of the model with some of the layers only. What they share with the rest of it they share in the copy."""
    kept = nn.ModuleList().train(layers.training)
    memo = {id(layers): kept}  # what `deepcopy` finds there it does not copy
    student = copy.deepcopy(model, memo)
    kept.extend(copy.deepcopy(layers[place], memo) for place in places)
    return student


def _configs(student: PreTrainedModel) -> list[PreTrainedConfig]:
    """The configs of the model and of its parts, which mostly are one, where they say the number of layers."""
    found = {id(config): config for part in student.modules() if (config := getattr(part, "config", None)) is not None}
    return [config for config in found.values() if type(config) is type(student.config)]


def _shorten_(config: PreTrainedConfig, new: Mapping[int, int]) -> None:
    """Let a config say what is true of the kept layers: `new` gives the new place of each by its old one."""
    depth, count = config.num_hidden_layers, len(new)
    for name, value in list(vars(config).items()):
        if name in INDICES and value is not None:
            setattr(config, name, [new[place] for place in value if place in new])
        elif name in THRESHOLDS and value is not None and value < depth:
            setattr(config, name, sum(place < value for place in new))
        elif "layer" in name and isinstance(value, list | tuple) and len(value) == depth:  # as layer_types
            setattr(config, name, type(value)(value[place] for place in new))
    config.num_hidden_layers = count  # or what the class calls it
    stages = getattr(config, "stage_names", None)
    if stages is not None and len(stages) == depth + 1:  # of what a backbone shows: the embeddings, then each layer
        shown = [0 if stage == 0 else new[stage - 1] + 1 for stage in config.out_indices if stage - 1 in {-1, *new}]
        config.stage_names = stages[: count + 1]
        config._out_indices = shown or [count]
        config._out_features = [config.stage_names[stage] for stage in config._out_indices]


def _built(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """What the class makes of a config when it is read from a file, without memory for its weights."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return type(model)(type(config).from_dict(config.to_dict()))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"a {type(model).__name__} of {config.num_hidden_layers} layers cannot be built from its config: {reason}"
        ) from error


def _check_tensors(before: PreTrainedModel, after: PreTrainedModel, stack: str, new: Mapping[int, int]) -> None:
    """The class must make the same tensors for a layer in both its places, and for all that is no layer."""
    ours = {moved(stack, name, new): tensor.shape for name, tensor in before.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in after.state_dict().items()}
    ours.pop(None, None)
    wrong = next((name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)), None)
    if wrong is None:
        return
    has, makes = ("none" if shape is None else tuple(shape) for shape in (ours.get(wrong), theirs.get(wrong)))
    if {place_in(stack, name) for name in theirs} - {None} != set(new.values()):
        raise ValueError(f"the number of layers of a {type(after).__name__} is not its config's to say")
    hint = ": keep layer 0" if place_in(stack, wrong) == 0 and 0 not in new else ""
    raise ValueError(
        f"layers {list(new)} cannot become layers 0 … {len(new) - 1} of a {type(after).__name__}: for {wrong} they "
        f"have {has}, the class makes {makes}{hint}"
    )


def _settle_(
    student: PreTrainedModel, before: PreTrainedModel, after: PreTrainedModel, stack: str, places: Sequence[int]
) -> None:
    """Give the student's modules what the class derives from the number of layers, and from the place of each."""
    olds, news, back = dict(before.named_modules()), dict(after.named_modules()), dict(enumerate(places))
    for name, module in list(student.named_modules()):
        old, new = olds.get(moved(stack, name, back)), news.get(name)
        if old is None or new is None:  # a part of a train
            continue
        place = place_in(stack, name)
        for own, was, becomes in _differences(old, new):
            counts = place is not None and (was, becomes) == (places[place], place)
            drops = "drop" in f"{name}.{own}" and not list(new.parameters())  # dropped paths, whose rate grows by place
            if place is not None and not counts and not drops:
                raise ValueError(
                    f"layer {places[place]} of a {type(student).__name__} cannot become layer {place}: its class would "
                    f"make {own} of {name} {becomes!r} there, now it is {was!r}"
                )
            if own == "class" and place is not None:
                student.set_submodule(name, copy.deepcopy(new).train(module.training))
            elif own in vars(module):
                setattr(module, own, copy.copy(becomes))


def _differences(old: nn.Module, new: nn.Module) -> Iterator[tuple[str, object, object]]:
    """In what two modules of one place differ: the plain attributes, names and both values, or "class"."""
    kinds = [type_before_parametrizations(module).__name__ for module in (old, new)]
    if kinds[0] != kinds[1]:
        yield "class", *kinds
        return
    for own, was in vars(old).items():
        becomes = vars(new).get(own, was)
        if not own.startswith("_") and isinstance(was, PLAIN) and isinstance(becomes, PLAIN) and was != becomes:
            yield own, was, becomes


def _rename_plans_(student: PreTrainedModel, stack: str, new: Mapping[int, int]) -> None:
    """Let the plans of a compressed model, or of its parts, say where layers stand now."""
    for name, part in list(student.named_modules()):
        inside = stack.removeprefix(f"{name}.") if name else stack
        if "ttq_config" not in vars(part) or (name and inside == stack):
            continue
        plan = part.ttq_config
        named = {moved(inside, layer, new): said for layer, said in plan.layers.items()}
        named.pop(None, None)
        unmatched = (moved(inside, layer, new) for layer in plan.unmatched)
        put_plan_(part, TTQConfig(named, plan.rest, tuple(layer for layer in unmatched if layer is not None)))
