"""Surgery: `compress_` gives the layers of any model, in place, the formats and quantizers that a plan names."""

import copy
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import AutoHfQuantizer

from .activations import quantize_input_
from .calibration import Moments, keep_mean_output_, nearest_outputs, output_moments
from .embeddings import TTMEmbedding
from .fake_quantization import Float16
from .layers import TTLayer, TTLinear
from .planning import LINEAR, TT, TTM, LayerPlan, TTQConfig
from .quantizers import LSQ, WeightRecipe

Recipe = WeightRecipe | type[Float16]  # what has `fit`


def compress_(
    model: nn.Module,
    config: TTQConfig,
    init: str = "svd",
    calibration: Iterable[Mapping[str, Tensor]] | None = None,
) -> nn.Module:
    """Give every layer that `config` names its format and its quantizers, in place, and return the model.

    `init="svd"` starts from the weights that are there, by TT-SVD; `init="random"` draws cores whose product has the
    standard deviation of those weights. Bias, dtype, device and train/eval mode stay. Quantizers are then fitted to
    cores, dense weights and the rest (8 bits: a step size for each row of a matrix, one for a vector); latent float
    weights stay underneath and train. Nothing is changed unless everything can be.

    With `calibration`, batches of real inputs as the model takes them (a few hundred sentences), a linear layer's rank
    is spent on what its *outputs* need: see `ttqlib.calibration`. TT-SVD then starts from that weight of rank r, and
    the bias keeps the mean of the outputs. An embedding in a format of low rank, as `TTM(r, (rows, 1), (1, columns))`,
    is made for the rows that are looked up. A trained model loses far less so, at the same size.

    Training that starts in float compresses twice: `compress_(model, config.without_quantizers())`, train,
    `compress_(model, config)`. A layer that has its format already keeps its cores.

    Raises:
        ValueError: a name that is not in the model, a layer of another type than its format is for, a weight that two
            layers share, one that is quantized already, an unknown `init`, or calibration that reaches not every
            layer or goes with random cores.
    """
    if init not in ("svd", "random"):
        raise ValueError(f"init must be 'svd' or 'random', got {init!r}")
    if calibration is not None and init == "random":
        raise ValueError("calibration is for init='svd': random cores keep nothing of the weights")
    _check(model, config)
    modules = dict(model.named_modules())
    formats = {
        name: layer.format
        for name, layer in config.layers.items()
        if layer.format is not None and not isinstance(modules[name], TTLayer)
    }
    moments: dict[str, Moments] = {}
    if calibration is not None:
        adaptable = [name for name, form in formats.items() if _weight_rank(modules[name], form)]
        moments = output_moments(model, adaptable, calibration)
    replacements = {name: _replacement(modules[name], form, init, moments.get(name)) for name, form in formats.items()}
    quantizers = {
        (name, tensor): _fit(f"{name}.{tensor}", recipe, values)
        for name, module in modules.items()
        for tensor, values, recipe in _recipes(name, replacements.get(name, module), config)
    }
    for name, layer in replacements.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, layer)
    bare = any(parameter.is_meta for parameter in model.parameters())  # torch's checks run forward: there it is slow
    for (name, tensor), quantizer in quantizers.items():
        parametrize.register_parametrization(model.get_submodule(name), tensor, quantizer, unsafe=bare)
    for name, layer in config.layers.items():
        if layer.activations is not None:
            quantize_input_(model.get_submodule(name), layer.activations)
    model.ttq_config = copy.deepcopy(config)  # which `checkpoint` stores with the weights
    if isinstance(model, PreTrainedModel):
        AutoHfQuantizer.from_config({"quant_method": "ttq", **config.to_dict()}).attach(model)
    return model


def _check(model: nn.Module, config: TTQConfig) -> None:
    """Everything that can be wrong, before anything is changed."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if parametrize.is_parametrized(module):
            raise ValueError(f"{name} is quantized already: compress a model before it has quantizers, once")
    for name, layer in config.layers.items():
        if name not in modules:
            raise ValueError(f"the plan names {name!r}, which is no layer of this {type(model).__name__}")
        if layer.activations is not None and not isinstance(modules[name], (*LINEAR, TTLinear)):
            raise ValueError(f"activations are for linear layers, but {name} is of type {type(modules[name]).__name__}")
        if layer.format is not None:
            _check_format(name, modules[name], layer.format)
        elif layer.quantize is not None and not isinstance(getattr(modules[name], "weight", None), nn.Parameter):
            raise ValueError(f"{name}, of type {type(modules[name]).__name__}, has no weight of its own to quantize")
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():  # under a format or a quantizer a shared weight would come apart
        touched = config.rest != 32 or any(name.rpartition(".")[0] in config.layers for name in names)
        if touched and len(names) > 1:
            raise ValueError(f"{' and '.join(names)} are one tied weight: untie it first or leave it out of the plan")


def _check_format(name: str, module: nn.Module, form: TT | TTM) -> None:
    """A layer must be one that can be brought into its format, or be in it already."""
    wanted, made = (LINEAR, TTLinear) if isinstance(form, TT) else ((nn.Embedding,), TTMEmbedding)
    if isinstance(module, made):
        if not _like(module, form):
            raise ValueError(f"{name} is a tensor train already, of other ranks or modes than {form}: {module}")
    elif type(module) not in wanted:
        kinds = " or ".join(kind.__name__ for kind in wanted)
        raise ValueError(f"{type(form).__name__} is for {kinds}, but {name} is of type {type(module).__name__}")


def _like(layer: TTLinear | TTMEmbedding, form: TT | TTM) -> bool:
    """Whether a tensor-train layer has the rank and the modes of `form`."""
    if isinstance(form, TT):
        planned = TTLinear(layer.in_features, layer.out_features, **vars(form), device="meta")
    else:
        planned = TTMEmbedding(layer.num_embeddings, layer.embedding_dim, **vars(form), device="meta")
    return [core.shape for core in planned.cores] == [core.shape for core in layer.cores]


def _replacement(module: nn.Module, form: TT | TTM, init: str, moments: Moments | None) -> TTLinear | TTMEmbedding:
    if isinstance(form, TT):
        module, build = _as_linear(module), TTLinear.from_linear
    else:
        build = TTMEmbedding.from_embedding
    modes = {name: value for name, value in vars(form).items() if name != "rank"}
    if init == "random" or module.weight.is_meta:
        return _random(module, form.rank, modes)
    if moments is None:
        return build(module, form.rank, **modes)
    layer = build(nearest_outputs(module, _weight_rank(module, form), moments), form.rank, **modes)
    if isinstance(layer, TTLinear):
        keep_mean_output_(layer, layer.to_linear().weight.T, moments)
    return layer


def _weight_rank(module: nn.Module, form: TT | TTM) -> int | None:
    """The rank that a format leaves to the weight as a matrix: that of the bond between its rows and its columns.

    None where a TT-matrix has no such bond: its cores hold modes of both.
    """
    if isinstance(form, TT):
        planned = TTLinear(*_as_linear(module).weight.shape[::-1], **vars(form), device="meta")
        return planned.ranks[len(planned.in_modes)]
    planned = TTMEmbedding(*module.weight.shape, **vars(form), device="meta")
    rows, columns = planned.vocabulary_modes, planned.hidden_modes
    bonds = (k for k in range(1, planned.order) if {*columns[:k], *rows[k:]} == {1})
    return next((planned.ranks[bond] for bond in bonds), None)


def _random(module: nn.Linear | nn.Embedding, rank: int, modes: dict) -> TTLinear | TTMEmbedding:
    like = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        layer = TTLinear(module.in_features, module.out_features, rank, bias=has_bias, **modes, **like)
    else:
        size = (module.num_embeddings, module.embedding_dim)
        layer = TTMEmbedding(*size, rank, padding_idx=module.padding_idx, **modes, **like)
    if not module.weight.is_meta:
        layer.reset_parameters(std=float(module.weight.detach().float().std()))
    return layer.train(module.training)


def _as_linear(module: nn.Linear | Conv1D) -> nn.Linear:
    """GPT-2's Conv1D is a linear layer that stores its weight as (in_features, out_features)."""
    if isinstance(module, nn.Linear):
        return module
    linear = nn.Linear(*module.weight.shape, device="meta")
    linear.weight, linear.bias = nn.Parameter(module.weight.detach().T), module.bias
    return linear.train(module.training)


def _recipes(name: str, module: nn.Module, config: TTQConfig) -> Iterator[tuple[str, Tensor, Recipe]]:
    """Which of the module's own tensors are quantized, and how."""
    layer = config.layers.get(name, LayerPlan())
    for tensor, values in module.named_parameters(recurse=False):
        planned = tensor.startswith("core") if isinstance(module, TTLayer) else tensor == "weight" and layer.quantize
        recipe = layer.quantize if planned else _rest_recipe(config.rest, values)
        if recipe is not None:
            yield tensor, values, recipe


def _rest_recipe(bits: int, values: Tensor) -> Recipe | None:
    if bits == 32:
        return None
    if bits == 16:
        return Float16
    return LSQ(bits, per="channel" if values.ndim > 1 else "tensor")


def _fit(name: str, recipe: Recipe, values: Tensor) -> nn.Module:
    try:
        return recipe.fit(values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
