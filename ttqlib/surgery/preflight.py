"""Before surgery: the plan as it will be carried out, and everything that can be wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from ..inventory.kinds import is_embedding, is_experts, is_linear, row_scale
from ..inventory.ties import check_ties, tied
from ..layers.embedding import DENSE_ONLY, TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..plans.configs import TT, TTM, LayerPlan, Shared, TTQConfig
from ..quantizers.parametrizing import quantized
from .sharing import alone, check_groups


def complete_plan(model: nn.Module, config: TTQConfig) -> TTQConfig:
    """The plan with one name for each tied weight, and with the formats that the model has already.

    Raises:
        ValueError: it gives two names of one weight different things.
    """
    first, plans = first_names(model), {}
    for name, layer in config.layers.items():
        leader = first.get(name, name)
        if plans.setdefault(leader, layer) != layer:
            raise ValueError(f"{name} and {leader} have one tied weight, but the plan gives them different things")
    for prefix, part in model.named_modules():  # a part may have been compressed alone
        before = getattr(part, "ttq_config", None) or TTQConfig()
        for name, layer in before.layers.items():  # which has no quantizers of weights, or `check_plan` refuses
            name = f"{prefix}.{name}" if prefix else name
            own = plans.get(name, LayerPlan())
            layer = layer.inside(prefix)
            kept = {"format": own.format or layer.format, "activations": own.activations or layer.activations}
            plans[name] = replace(own, **kept)
    return replace(config, layers=plans)


def first_names(model: nn.Module) -> dict[str, str]:
    """For each layer whose weight is tied the name that stands for all: of a table if there is one, else the first."""
    modules, names = dict(model.named_modules()), {}
    for places in tied(model):
        owners = [name for name, own in places if own == "weight"]
        tables = [name for name in owners if is_embedding(modules[name])]
        names |= dict.fromkeys(owners, next(iter([*tables, *owners]), ""))
    tables = {module: name for name, module in modules.items() if isinstance(module, TTMEmbedding)}
    return names | {name: tables[module.table] for name, module in modules.items() if isinstance(module, TTMHead)}


def check_plan(model: nn.Module, config: TTQConfig) -> None:
    """Everything that can be wrong, before anything is changed.

    Raises:
        ValueError: as `compress_`.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if any(True for _ in quantized(module)):
            raise ValueError(f"{name} is quantized already: compress a model before it has quantizers, once")
    if isinstance(model, PreTrainedModel):
        config.to_dict()  # which refuses recipes that no file can name
        if not any(weight.is_meta for weight in model.parameters()):  # while a file is read, nothing is tied yet
            check_ties(model, gone=False)
    for name, layer in config.layers.items():
        if not name or name not in modules:
            raise ValueError(f"the plan names {name!r}, which is no layer of this {type(model).__name__}")
        _check_layer(name, modules[name], layer)
    _check_tied(modules, tied(model), config)
    check_groups(model, config.layers)


def _check_layer(name: str, module: nn.Module, layer: LayerPlan) -> None:
    if layer.format is not None:
        _check_format(name, module, layer.format)
    elif layer.quantize is not None and not (
        is_experts(module) or isinstance(module._parameters.get("weight"), Tensor)
    ):
        raise ValueError(f"{name}, of type {type(module).__name__}, has no weight of its own to quantize")
    if layer.activations in (None, "float"):
        return
    if not (is_linear(module) or isinstance(module, TTLinear)):
        raise ValueError(f"activations are for linear layers, but {name} is of type {type(module).__name__}")
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise ValueError(f"{name} is part of PyTorch's attention, which reads its weight: its input has no quantizer")
    if hasattr(module, "input_quantizer") and module.input_quantizer.recipe != layer.activations:
        raise ValueError(f"{name} quantizes its input already: {module.input_quantizer.recipe}")


def _check_format(name: str, module: nn.Module, form: TT | TTM | Shared) -> None:
    """A layer must be one that can be brought into its format, or be in it already."""
    fits, made, kinds = (is_linear, TTLinear, "Linear or Conv1D")
    if isinstance(form, TTM):
        fits, made, kinds = (is_embedding, TTMEmbedding, "Embedding")
    if isinstance(module, made):
        if not _like(module, form):
            raise ValueError(f"{name} is a tensor train already, of other ranks or modes than {form}: {module}")
    elif not fits(module):
        raise ValueError(f"{type(form).__name__} is for {kinds}, but {name} is of type {type(module).__name__}")
    elif option := next((option for option in DENSE_ONLY if getattr(module, option, None)), None):
        raise ValueError(f"{name} has {option}, which needs the dense table: set {option} off first")
    elif parametrize.is_parametrized(module):
        raise ValueError(f"the weight of {name} has a parametrization, as of a weight norm: remove it first")
    elif hasattr(module, "input_quantizer"):
        raise ValueError(f"{name} quantizes its input already, which its train would not: say it in the plan instead")


def _check_tied(
    modules: Mapping[str, nn.Module], groups: Sequence[Sequence[tuple[str, str]]], config: TTQConfig
) -> None:
    """A tied weight becomes one TT-matrix, or stays one dense weight, in all of its places."""
    for places in groups:
        names = [name for name, own in places if own == "weight"]
        form = next((config.layers[name].format for name in names if name in config.layers), None)
        if form is None:
            continue
        tables = [modules[name] for name in names if is_embedding(modules[name])]
        plain = all(is_embedding(modules[name]) or isinstance(modules[name], nn.Linear) for name in names)
        if not isinstance(form, TTM) or not plain or len({row_scale(table) for table in tables}) != 1:
            raise ValueError(
                f"{' and '.join(names)} are one tied weight: it can be one TT-matrix of words, or dense under a "
                f"quantizer, but no {type(form).__name__} here; give it a quantizer alone, or leave it out of the plan"
            )


def _like(layer: TTLinear | TTMEmbedding, form: TT | TTM | Shared) -> bool:
    """Whether a tensor-train layer has the rank and the modes of `form`."""
    if isinstance(form, Shared):
        form = alone(form, layer)
    if isinstance(form, TT):
        planned = TTLinear(layer.in_features, layer.out_features, **vars(form), device="meta")
    else:
        planned = TTMEmbedding(layer.num_embeddings, layer.embedding_dim, **vars(form), device="meta")
    return [core.shape for core in planned.cores] == [core.shape for core in layer.cores]
