"""Surgery: `compress_` gives the layers of any model, in place, the formats and quantizers that a plan names."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from transformers import PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

from ..inventory.kinds import expert_weights
from ..inventory.layout import layout_of
from ..inventory.ties import by_identity, forget_ties_, tied
from ..layers.base import TTLayer
from ..plans.configs import LayerPlan, Shared, TTQConfig
from ..progress import bar
from ..quantizers.activations import fake_quantize_input_
from ..quantizers.fake_quantization import Float16
from ..quantizers.parametrizing import Quantizer, in_order_, register_
from ..quantizers.recipes import LSQ, WeightRecipe
from .calibration import Batches, Moments, output_moments
from .conversion import other_places, replacement, weight_rank
from .preflight import check_plan, complete_plan
from .sharing import shared_layers, sharing_groups

Recipe = WeightRecipe | type[Float16]  # what has `build`
Place = tuple[str, nn.Module, str]  # where a parameter stands: the name of its module, the module, its own name


def compress_(
    model: nn.Module,
    config: TTQConfig,
    init: str = "svd",
    calibration: Batches | None = None,
) -> nn.Module:
    """Give every layer that `config` names its format and its quantizers, in place, and return the model.

    `init="svd"` starts from the weights that are there, by TT-SVD; `init="random"` draws cores whose product has the
    standard deviation of those weights. Bias, dtype, device, train/eval mode stay, and what is frozen stays frozen.
    Quantizers are then fitted to cores, dense weights and the rest (8 bits: a step size for each row of a matrix, one
    for a vector); latent float weights stay underneath and train. Tied weights stay tied, with one set of cores or
    scales. Nothing is changed unless everything can be.

    With `calibration`, batches of real inputs as the model takes them (a few hundred sentences), a linear layer's rank
    is spent on what its *outputs* need (`ttqlib.surgery.calibration`), so is that of an embedding in a format of low
    rank, as `TTM(r, (rows, 1), (1, columns))`: a trained model loses far less so, at the same size.

    Training that starts in float compresses twice: `compress_(model, config.without_quantizers())`, train,
    `compress_(model, config)`. A layer that has its format already keeps its cores, and its place in the plan.

    Merge a LoRA adapter of peft before, or leave it unmerged: `merge_and_unload` writes to a weight that is computed
    anew here, and the adapter is lost.

    Raises:
        ValueError: a name that is not in the model, a layer of another type than its format is for, two plans for one
            tied weight, a weight that is quantized already, an unknown `init`, or calibration that reaches not every
            layer or goes with random cores.
    """
    _check_start(config, init, calibration)
    config = complete_plan(model, config)
    check_plan(model, config)
    trains = _trains(model, config, init, calibration)
    modules = dict(model.named_modules()) | trains
    quantizers = [(places, _built(places, recipe)) for places, recipe in _recipes(modules, config)]
    _change_(model, config, trains, quantizers)  # and nothing was changed before
    return model


def has_plan(model: nn.Module) -> bool:
    """Whether `compress_` was given the model or a part of it."""
    return any(hasattr(part, "ttq_config") for part in model.modules())


def plan_of(model: nn.Module) -> TTQConfig:
    """The plan that `compress_` left on the model, or put together from those of the parts that were given to it.

    Raises:
        ValueError: there is none, or a part was compressed alone with a rest that the whole model has not.
    """
    parts = {name: part.ttq_config for name, part in model.named_modules() if hasattr(part, "ttq_config")}
    if not parts:
        raise ValueError(f"this {type(model).__name__} has no plan: give the very model that ttq.compress_ was given")
    if "" in parts:
        return parts[""]
    for name, plan in parts.items():
        if plan.rest != 32:
            raise ValueError(
                f"only {name} was compressed, with rest={plan.rest}, which says nothing of the other layers: compress "
                f"the whole model, by rules for {name}, or save the part, ttq.save(model.{name}, folder)"
            )
    layers = {
        f"{part}.{name}": layer.inside(part) for part, plan in parts.items() for name, layer in plan.layers.items()
    }
    unmatched = tuple(f"{part}.{name}" for part, plan in parts.items() for name in plan.unmatched)
    return TTQConfig(layers, unmatched=unmatched)


def _check_start(config: TTQConfig, init: str, calibration: Batches | None) -> None:
    if not isinstance(config, TTQConfig):
        raise ValueError(f"config must be a plan, as ttq.plan or ttq.TTQConfig(…) makes it, got {config!r}")
    if init not in ("svd", "random"):
        raise ValueError(f"init must be 'svd' or 'random', got {init!r}")
    if calibration is not None and init == "random":
        raise ValueError("calibration is for init='svd': random cores keep nothing of the weights")


def _trains(model: nn.Module, config: TTQConfig, init: str, calibration: Batches | None) -> dict[str, nn.Module]:
    """The new layers by name: the trains that the plan asks for, in every place where a weight stands."""
    modules = dict(model.named_modules())
    formats = {
        name: layer.format
        for name, layer in config.layers.items()
        if layer.format is not None and not isinstance(modules[name], TTLayer)
    }
    moments: dict[str, Moments] = {}
    if calibration is not None:
        adaptable = [name for name, form in formats.items() if weight_rank(modules[name], form)]
        of_inputs = {name for name, form in formats.items() if isinstance(form, Shared) and form.side != "output"}
        moments = output_moments(model, adaptable, calibration, of_inputs)
    groups = sharing_groups({name: LayerPlan(form) for name, form in formats.items()})
    made: dict[str, nn.Module] = {}
    for name, form in bar(formats.items(), desc="compress_", unit="layer"):
        with _naming(name):
            if not isinstance(form, Shared):
                made[name] = replacement(modules[name], form, init, moments.get(name))
            elif name not in made:  # else made with the first of its group
                made |= shared_layers({one: modules[one] for one in groups[form.group]}, form, init, moments)
    return made | other_places(modules, tied(model), made)


def _change_(
    model: nn.Module,
    config: TTQConfig,
    trains: Mapping[str, nn.Module],
    quantizers: Iterable[tuple[Sequence[Place], Quantizer]],
) -> None:
    """Put the new layers and the quantizers into the model, and the plan on it."""
    modules = dict(model.named_modules())
    replaced = {modules[name]: layer for name, layer in trains.items()}
    for name, module in list(model.named_modules(remove_duplicate=False)):  # a module may stand in several places
        if module in replaced:
            model.set_submodule(name, replaced[module])
    order = {module: tuple(module._parameters) for module in model.modules()}
    for places, quantizer in quantizers:
        # unsafe: torch's check would quantize each weight once more, which takes a tenth of all the time
        register_([(module, own) for _, module, own in places], quantizer, unsafe=True)
    for module, names in order.items():
        in_order_(module, names)
    for name, layer in config.layers.items():
        if layer.activations not in (None, "float") and not hasattr(model.get_submodule(name), "input_quantizer"):
            fake_quantize_input_(model.get_submodule(name), layer.activations)
    forget_ties_(model)
    put_plan_(model, config)


def put_plan_(model: nn.Module, config: TTQConfig) -> None:
    """Put the plan on the model that it describes, and let transformers know that it has one."""
    model.ttq_config = copy.deepcopy(config)  # which `checkpoint` stores with the weights
    if isinstance(model, PreTrainedModel):
        AutoHfQuantizer.from_config({"quant_method": "ttq", **config.to_dict()}).attach(model)


def _recipes(modules: Mapping[str, nn.Module], config: TTQConfig) -> Iterator[tuple[list[Place], Recipe]]:
    """The parameters that are quantized: all places of each, and its recipe.

    `modules` are those that the model will have. What others have parametrized, as by a weight norm, stays as it is.
    """
    first: dict[nn.Module, str] = {}
    for name, module in modules.items():
        if not isinstance(module, ParametrizationList):
            first.setdefault(module, name)
    places = (
        (parameter, (name, module, own))
        for module, name in first.items()
        for own, parameter in module.named_parameters(recurse=False)
    )
    for found in by_identity(places):
        recipe = _recipe(found, config)
        if recipe is not None:
            yield found, recipe


def _recipe(places: Sequence[Place], config: TTQConfig) -> Recipe | None:
    """What the plan says of a parameter in one of its places, or what becomes of the rest."""
    core = False
    for name, module, own in places:
        core = core or (isinstance(module, TTLayer) and own.startswith("core"))
        said = config.layers.get(name, LayerPlan()).quantize or ("float" if core else "rest")
        if said != "rest" and (core or own == "weight" or own in expert_weights(module)):
            return None if said == "float" else said
    _, module, own = places[0]
    if config.rest == 16:
        return Float16
    per = "channel" if getattr(module, own).ndim > 1 and not core else "tensor"
    return LSQ(config.rest, per=per) if config.rest == 8 else None


def _built(places: Sequence[Place], recipe: Recipe) -> nn.Module:
    name, module, own = places[0]
    with _naming(f"{name}.{own}"):
        if getattr(module, "sparse", False):
            raise ValueError("has sparse gradients, which no quantizer passes on: set sparse off first")
        return recipe.build(getattr(module, own), layout_of(module, own))


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """What is wrong with a layer or parameter is said with its name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None
