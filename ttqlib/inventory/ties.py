"""Weights that are one in memory, as the two ends of a language model: found, shared and told apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from .kinds import own_parameters, pretrained_parts

Place = TypeVar("Place")


def by_identity(found: Iterable[tuple[Tensor, Place]]) -> list[list[Place]]:
    """What was found beside each tensor, in lists: one for each tensor, in the order in which they came."""
    places: dict[int, list[Place]] = {}
    for tensor, place in found:
        places.setdefault(id(tensor), []).append(place)
    return list(places.values())


def tied(model: nn.Module) -> list[list[tuple[str, str]]]:
    """The parameters that stand in several places: for each of them its places, as (name of the module, own name)."""
    modules = {n: m for n, m in model.named_modules() if not isinstance(m, parametrize.ParametrizationList)}
    places = ((weight, (name, own)) for name, module in modules.items() for own, weight in own_parameters(module))
    return [found for found in by_identity(places) if len(found) > 1]


def tie_(model: nn.Module) -> nn.Module:
    """Tie the weights that a transformers model says are one. While it reads a file transformers leaves them apart."""
    keys = model.all_tied_weights_keys if isinstance(model, PreTrainedModel) else {}
    share_parameters_(model, ((source, name) for name, source in keys.items()))
    return model


def shared_parameters(model: nn.Module) -> list[list[str]]:
    """The names of parameters that are one tensor, for each such tensor."""
    names = by_identity((weight, name) for name, weight in model.named_parameters(remove_duplicate=False))
    return [found for found in names if len(found) > 1]


def share_parameters_(model: nn.Module, groups: Iterable[Sequence[str]]) -> None:
    """Make the parameters of these names one tensor again, the first of each group."""
    for first, *others in groups:
        for name in others:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, model.get_parameter(first))


def put_(model: nn.Module, name: str, values: Tensor) -> None:
    """Put `values`, whatever their dtype and device, in the place of a parameter or buffer."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    if own in module._buffers:
        module._buffers[own] = values
    else:
        module._parameters[own] = nn.Parameter(values, module._parameters[own].requires_grad)


def forget_ties_(model: nn.Module) -> None:
    """Take from transformers the keys of ties whose weights are under quantizers or in trains now.

    Such weights are one by the way the model is built; transformers would tie plain tensors in their place.
    """
    for part in pretrained_parts(model):
        names = {name for name, _ in part.named_parameters(remove_duplicate=False)}
        known = part.all_tied_weights_keys
        kept = {name: source for name, source in known.items() if {name, source} <= names}
        if kept != known:
            part.all_tied_weights_keys = kept
            part._tied_weights_keys = kept or None


def ties(model: nn.Module) -> Mapping[str, str]:
    """Weights that transformers ties to another when it loads a model: tied name → where the weight is kept."""
    return model.get_expanded_tied_weights_keys(all_submodels=True) if isinstance(model, PreTrainedModel) else {}


def check_ties(model: nn.Module, gone: bool = True) -> None:
    """Raise a ValueError where weights are apart that would be one after loading; `gone`: also where one is no more."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, source in ties(model).items():
        ours, kept = parameters.get(name), parameters.get(source)
        missing = ours is None or kept is None
        if gone if missing else ours is not kept:
            raise ValueError(
                f"{name} is no longer tied to {source}, but would be again after loading: "
                "set model.config.tie_word_embeddings = False"
            )
