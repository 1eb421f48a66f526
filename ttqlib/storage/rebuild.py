"""What loading makes of a model's class, config and plan before it reads a weight, and whether that is the model.

`save` asks here first. Two plans one after the other, a quantizer that no plan names, a head put on later, a config
that says something else: each would be written, and read as another model or not at all.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from ..inventory.kinds import own_parameters, saved_buffers
from ..inventory.layout import PLAIN, layout_of
from ..inventory.ties import put_, tie_, tied
from ..layers.embedding import TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..plans.configs import TTQConfig
from ..quantizers.parametrizing import Quantizer, quantized, take_off_
from ..quantizers.recipes import WeightQuantizer
from ..surgery.compress import compress_
from ..surgery.sharing import shared_cores
from .files import first_line
from .stored import VERSION, unsaved

ADVICE = (
    "give compress_ one plan with all layers and quantizers, as the last step, of a model that its config describes; "
    "or save only the part that has the plan"
)


def rebuilt(skeleton: nn.Module, plan: TTQConfig, version: int = VERSION) -> nn.Module:
    """The structure that a plan gives to a dense model, made in place. Its parameters move to the meta device.

    `version` is that of the files that are to be read into it.

    Raises:
        ValueError: the plan does not fit the model, or asks for tensors beyond all measure.
    """
    replace_tensors(skeleton, on_meta)  # some classes make parameters that `torch.device("meta")` does not catch
    try:
        compress_(tie_(skeleton), plan, init="random")
    except (TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"the plan does not fit the model: {first_line(error)}") from None
    if version == 1:
        read_by_rows_(skeleton)
    return skeleton


def read_by_rows_(model: nn.Module) -> None:
    """Let every quantizer on the meta device read its weight along the first axis, as it was up to version 1."""
    for module in model.modules():
        for _, quantizer, latent in quantized(module):
            if getattr(quantizer, "layout", PLAIN) != PLAIN:
                quantizer.layout = PLAIN
                for name, values in quantizer.recipe.initial_scales(latent.detach()).items():
                    if name in quantizer.held:
                        put_(quantizer, name, values)


def reads_by_rows(model: nn.Module) -> bool:
    """Whether a model came from files of version 1: a quantizer reads a weight otherwise than one of today would."""
    return any(
        getattr(quantizer, "layout", PLAIN) != layout_of(module, name)
        for module in model.modules()
        for name, quantizer, _ in quantized(module)
        if isinstance(quantizer, WeightQuantizer)
    )


def mark_filled_(model: PreTrainedModel) -> None:
    """Tell transformers that parameters need no random start: of modules that make tensors by themselves it does."""
    own = {name.rpartition(".")[0] for name in unsaved(model)}
    for name, module in model.named_modules():
        module._is_hf_initialized = name not in own


def check_rebuild(model: nn.Module, plan: TTQConfig, version: int = VERSION) -> tuple[nn.Module, dict[str, Tensor]]:
    """Refuse a model that loading would not make again; the model to be packed is returned, and tensors beside it.

    It is the model itself, or a copy in which weights are apart that loading would not tie. The tensors are of the kind
    that files leave out (`stored.unsaved`), where they are not what the model's class makes.

    Raises:
        ValueError: the model lies on the meta device, or the plan, the class and the config make another one.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("the model lies on the meta device, where it has no weights to save")
    anew = _built_anew(model)
    try:
        twin = rebuilt(_undone(model) if anew is None else anew, plan, version)
    except ValueError as error:
        raise ValueError(f"the plan is not this model's: {first_line(error)}; {ADVICE}") from None
    found, made = _described(model), _described(twin)
    for name in [*found, *(made.keys() - found.keys())]:
        if (one := found.get(name, "missing")) != (other := made.get(name, "missing")):
            one, other = _unlike(one, other)
            raise ValueError(f"{name} is {one}, but loading would make it {other}: {ADVICE}")
    model = _apart(model, twin)
    return model, {} if anew is None else _changed(unsaved(model), _made_anew(twin))


def _unlike(one: str, other: str) -> tuple[str, str]:
    """Two different lines about a tensor without what they share, where they differ in the dtype alone."""
    (dtype, _, rest), (another, _, same) = one.partition(" "), other.partition(" ")
    return (dtype, another) if rest and rest == same else (one, other)


def _built_anew(model: nn.Module) -> PreTrainedModel | None:
    """What the class of a transformers model makes of its config, without weights; None where it needs more."""
    if not isinstance(model, PreTrainedModel):
        return None
    kind, config = parametrize.type_before_parametrizations(model), copy.deepcopy(model.config)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return kind._from_config(config, dtype=model.dtype)
    except Exception:  # a class of the user's own, which may ask for anything
        return None


def _undone(model: nn.Module) -> nn.Module:
    """A copy of a compressed model as it was before, on the meta device: dense, without quantizers."""
    dense = as_meta(model)
    layers: dict[nn.Module, nn.Module] = {}
    for module in list(dense.modules()):
        vars(module).pop("ttq_config", None)
        vars(module).get("_modules", {}).pop("input_quantizer", None)
        like = {"device": "meta", "dtype": next((p.dtype for p in module.parameters()), None)}
        if isinstance(module, TTLinear):
            layers[module] = nn.Linear(module.in_features, module.out_features, module.bias is not None, **like)
        elif isinstance(module, TTMEmbedding):
            layers[module] = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx, **like)
        elif latents := {name: latent for name, _, latent in quantized(module)}:
            take_off_(module, latents)
    for head in (module for module in dense.modules() if isinstance(module, TTMHead)):
        like = {"device": "meta", "dtype": next(head.table.parameters()).dtype}
        layers[head] = nn.Linear(head.in_features, head.out_features, head.bias is not None, **like)
        layers[head].weight = layers[head.table].weight
    for name, module in list(dense.named_modules(remove_duplicate=False)):
        if module in layers:
            dense.set_submodule(name, layers[module])
    return dense


def _apart(model: nn.Module, twin: nn.Module) -> nn.Module:
    """The model, or a copy of it where weights are one in memory that are two in its twin: as its config says."""
    together = {place for places in tied(twin) for place in places}
    groups = [[place for place in places[1:] if place not in together] for places in tied(model)]
    if not any(groups):
        return model
    model = copy.deepcopy(model)
    for path, own in itertools.chain(*groups):
        module = model.get_submodule(path)
        if own in module._parameters:
            module._parameters[own] = copy.deepcopy(module._parameters[own])
        else:
            module.parametrizations[own] = copy.deepcopy(module.parametrizations[own])
    return model


def _described(model: nn.Module) -> dict[str, str]:
    """What there is in a model, by name: the classes of its modules, its tensors, and what quantizes them."""
    lines = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantizer) or (
            isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], Quantizer)
        ):
            continue
        kind, prefix = parametrize.type_before_parametrizations(module), f"{path}." if path else ""
        line = (
            "Identity" if issubclass(kind, nn.Dropout) else kind.__name__
        )  # where nothing trains any more, they are one
        if isinstance(module, TTLinear):
            line += f" from {module.in_features} to {module.out_features} features"
        elif isinstance(module, TTMEmbedding):
            line += f" of {module.num_embeddings} rows of {module.embedding_dim}"
        lines[path or "the model"] = str(getattr(module, "recipe", line))
        recipes = {name: _recipe(quantizer) for name, quantizer, _ in quantized(module)}
        for name, tensor in (*own_parameters(module), *saved_buffers(module)):
            under = f" under {recipes[name]}" if name in recipes else ""
            lines[prefix + name] = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}{under}"
    for (first, core), *others in shared_cores(model):
        for path, own in others:
            lines[f"{path}.{own}"] += f", one with {first}.{core}"
    return lines


def _recipe(quantizer: Quantizer) -> str:
    return f"{quantizer.recipe}, {quantizer.layout}" if isinstance(quantizer, WeightQuantizer) else "float16"


# ---------------------------------------------------------------------------------------------------- tensors by hand


def _made_anew(twin: PreTrainedModel) -> dict[str, Tensor]:
    """What loading makes of the tensors that files leave out."""
    mark_filled_(twin)
    for name, tensor in unsaved(twin).items():  # filled with what nobody means, so that what is not made shows
        blank = torch.nan if tensor.is_floating_point() else 113
        put_(twin, name, torch.full(tensor.shape, blank, dtype=tensor.dtype, device="cpu"))
    with torch.random.fork_rng(devices=[]):
        twin.initialize_weights()
    return unsaved(twin)


def _changed(tensors: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if name := next(iter(tensors.keys() - made.keys()), None):
        raise ValueError(f"{name} is left out of files (persistent=False), and loading would not make it: {ADVICE}")
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dtype != made[name].dtype or not torch.equal(tensor.detach().cpu(), made[name])
    }


def replace_tensors(module: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Put make(tensor) in the place of each parameter and buffer; one that is shared stays shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the old ones are kept alive, so that ids stay theirs
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = (tensor, make(tensor))
                    own[name] = made[id(tensor)][1]


def on_meta(tensor: Tensor) -> Tensor:
    """The like of a parameter on the meta device; a buffer stays."""
    return empty_like(tensor, torch.device("meta")) if isinstance(tensor, nn.Parameter) else tensor


def as_meta(model: nn.Module) -> nn.Module:
    """A copy of the model without memory for its parameters; what is tied is tied there, too.

    Raises:
        ValueError: the model holds what cannot be copied.
    """
    memo = {id(parameter): on_meta(parameter) for parameter in model.parameters()}
    for module in model.modules():  # results that a module keeps, as an LSTM its computed weights: torch copies none
        memo |= {id(tensor): tensor.detach() for tensor in _tensors(vars(module)) if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"this {type(model).__name__} holds something that cannot be copied, and its shapes are read from a copy: "
            f"{first_line(error)}. Take it off, as by `del model.NAME`, and save again"
        ) from None


def _tensors(value) -> Iterator[Tensor]:
    """The tensors in a value, in lists and in dicts at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def empty_like(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the same kind, dtype and shape without values."""
    empty = torch.empty_like(tensor, device=device, requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else nn.Buffer(empty)
