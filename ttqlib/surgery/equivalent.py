"""TEQ: scales of channels that train, one a channel and group, while all else is frozen; and then fold away.

A weight in few bits is rounded on a grid that spans its group, and one large column makes the grid coarse for all of
them. A column may be scaled by s if what flows into it is divided by s, and that can be done one layer before
(`ttqlib.surgery.channels`). In float nothing changes, in few bits a lot: so the scales are trained on what the model
then answers. What stays is a model of the same layers, with other numbers in them.

Source: W. Cheng et al., "TEQ: Trainable Equivalent Transformation for Quantization of LLMs", arXiv 2310.10944.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..inventory.kinds import is_linear, linear_sizes
from ..inventory.layout import layout_of
from ..plans.configs import TTQConfig
from ..quantizers.parametrizing import take_off_
from ..quantizers.recipes import WeightRecipe
from ..quantizers.rounding import ScaledRounding
from .channels import EquivalentGroup
from .norms import is_norm, norm_offset

Side = tuple[Tensor, Tensor]  # the logarithms of a group's scales, (n,), and an index: of channels, or into them


class Scaled(nn.Module):
    """A parametrization: a frozen tensor whose channels are scaled. Where it is a producer's weight, it holds α.

    α (n,) are the logarithms of the scales of a group: a producer's channels are multiplied by e^−α, what belongs to
    them in consumers by e^α.
    """

    def __init__(self):
        super().__init__()
        self.log_scales: nn.Parameter | None = None
        self.given: Side | None = None  # of the group whose producer this is, with the channels, (n,)


class ScaledVector(Scaled):
    """Of a norm's weight, to which the norm adds `offset` before it multiplies, or of a bias."""

    def __init__(self, offset: float = 0.0):
        super().__init__()
        self.offset = offset

    def forward(self, vector: Tensor) -> Tensor:
        return (vector + self.offset) * _spread(self.given, vector).exp() - self.offset

    folded = forward


class ScaledMatrix(Scaled):
    """Of a linear layer's weight, then rounded by `recipe`, on a grid that follows the scales."""

    def __init__(self, layer: nn.Module, recipe: WeightRecipe | None):
        super().__init__()
        self.layout, self.recipe = layout_of(layer, "weight"), recipe
        self.taken: Side | None = None  # of the group that this layer takes from, with the number of each input's scale

    def forward(self, weight: Tensor) -> Tensor:
        return self._made(weight, self.recipe)

    def folded(self, weight: Tensor) -> Tensor:
        return self._made(weight, None)

    def _made(self, weight: Tensor, recipe: WeightRecipe | None) -> Tensor:
        matrix = self.layout.rows(weight)  # (out, in)
        columns = matrix.new_zeros(matrix.shape[1])
        if self.taken is not None:
            log_scales, numbers = self.taken
            columns = log_scales[numbers.to(log_scales.device)]
        scaled = ScaledRounding.apply(matrix, columns, _spread(self.given, matrix[:, 0]), recipe)
        return self.layout.weight(scaled, weight.shape)


def _spread(given: Side | None, like: Tensor) -> Tensor:
    """−α at the channels of a group, 0 at all others, in the shape of `like`."""
    zeros = torch.zeros_like(like)
    if given is None:
        return zeros
    log_scales, channels = given
    return zeros.index_copy(0, channels.to(zeros.device), -log_scales)


def equivalent_(model: nn.Module, groups: Sequence[EquivalentGroup], config: TTQConfig | None = None) -> nn.Module:
    """Put a trainable α on every channel of `groups`, in place, freeze all else, and return the model.

    The recipes that `config`, a plan of `ttq.plan`, has for dense linear layers round them as they will be rounded in
    the end: scaled, and on a grid that follows the scales. Tables, activations and the rest of the plan come with
    `compress_`, after `fold_`:

        plan = ttq.plan(model, rules={r"_proj$": ttq.GroupRTN(3, per=64, symmetric=False)})
        ttq.equivalent_(model, ttq.equivalent_groups(model), plan)
        ...                                                          # train, as with `QATTrainer`
        ttq.compress_(ttq.fold_(model), plan)

    α starts at 0, so the model answers as it does rounded to nearest. Nothing is changed unless everything can be.

    Raises:
        ValueError: no groups; the model has scales already; a group or the plan names what is not there or is
            parametrized; a group has a producer that is no linear layer and no norm, a consumer that is no linear
            layer, channels that are not there, or a side that another group has; the plan has a tensor-train format.
    """
    recipes = _recipes(config)
    _check(model, groups, recipes)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    makers = {name: ScaledMatrix(model.get_submodule(name), recipe) for name, recipe in recipes.items()}
    for group in groups:
        for name in (group.producer, *group.consumers):
            layer = model.get_submodule(name)
            if name not in makers and is_linear(layer):
                makers[name] = ScaledMatrix(layer, None)
    for group in groups:
        _join_(model, group, makers)
    for name, maker in makers.items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", maker, unsafe=True)
    model.trained_before = trained  # what `fold_` lets train again
    return model


def _join_(model: nn.Module, group: EquivalentGroup, makers: dict[str, Scaled]) -> None:
    """Give the weights of a group their α; the bias of its producer as well."""
    producer = model.get_submodule(group.producer)
    if group.producer not in makers:
        makers[group.producer] = ScaledVector(norm_offset(producer))
    maker = makers[group.producer]
    maker.log_scales = nn.Parameter(torch.zeros_like(producer.weight.flatten()[: group.size]))
    maker.given = (maker.log_scales, group.channels)
    for name, numbers in group.consumers.items():
        makers[name].taken = (maker.log_scales, numbers)
    if getattr(producer, "bias", None) is not None:
        bias = ScaledVector()
        bias.given = maker.given
        parametrize.register_parametrization(producer, "bias", bias, unsafe=True)


@torch.no_grad()
def fold_(model: nn.Module) -> nn.Module:
    """Write the trained scales into the layers, in place, and return the model: plain layers, as many as before.

    Weights are not rounded: `compress_` does that, with the plan that `equivalent_` was given. What trained before
    `equivalent_` trains again.

    Raises:
        ValueError: the model has no scales to fold.
    """
    if not hasattr(model, "trained_before"):
        raise ValueError(f"this {type(model).__name__} has no scales to fold: give the very model that equivalent_ was")
    trained = {id(parameter) for parameter in model.trained_before}
    scaled = [module for module in model.modules() if parametrize.is_parametrized(module)]
    folded = {}
    for module in scaled:  # all values first: α of a group goes with its producer
        held = {name: stack for name, stack in module.parametrizations.items() if isinstance(stack[0], Scaled)}
        folded[module] = {
            name: nn.Parameter(stack[0].folded(stack.original), id(stack.original) in trained)
            for name, stack in held.items()
        }
    for module, tensors in folded.items():
        if tensors:
            take_off_(module, tensors)
    for parameter in model.trained_before:
        parameter.requires_grad_(True)
    del model.trained_before
    return model


def equivalent_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """α of each group by the name of its producer, (n,): all that trains between `equivalent_` and `fold_`."""
    return {
        name.removesuffix(".parametrizations.weight.0"): module.log_scales
        for name, module in model.named_modules()
        if isinstance(module, Scaled) and module.log_scales is not None
    }


def _recipes(config: TTQConfig | None) -> dict[str, WeightRecipe]:
    """What the plan rounds dense linear layers with; whether they are that is looked at later."""
    layers = {} if config is None else config.layers
    if formats := [name for name, layer in layers.items() if layer.format is not None]:
        raise ValueError(f"equivalent scales are for dense layers, but the plan makes {formats[0]} a tensor train")
    return {name: layer.quantize for name, layer in layers.items() if isinstance(layer.quantize, WeightRecipe)}


def _check(model: nn.Module, groups: Sequence[EquivalentGroup], recipes: dict[str, WeightRecipe]) -> None:
    if hasattr(model, "trained_before"):
        raise ValueError(f"this {type(model).__name__} has scales already: ttq.fold_ comes first")
    if not groups:
        raise ValueError("no groups: there is no channel to scale (ttq.equivalent_groups finds them)")
    modules = dict(model.named_modules())
    for name in list(recipes):
        if name in modules and not is_linear(modules[name]):
            del recipes[name]  # tables are rounded in the end
    named = {*recipes, *(name for group in groups for name in (group.producer, *group.consumers))}
    for name in named:
        if name not in modules:
            raise ValueError(f"{name!r} is no layer of this {type(model).__name__}")
        if parametrize.is_parametrized(modules[name]):
            raise ValueError(f"{name} is parametrized already, as by a quantizer: give the plan to equivalent_ instead")
    for side in ([group.producer for group in groups], [name for group in groups for name in group.consumers]):
        if twice := [name for name, count in Counter(side).items() if count > 1]:
            raise ValueError(f"{twice[0]} is on the same side of two groups: give each group once")
    for group in groups:
        _check_group(modules, group)


def _check_group(modules: Mapping[str, nn.Module], group: EquivalentGroup) -> None:
    """The sizes of a group must be those of its layers, and these of a kind that can be scaled."""
    producer = modules[group.producer]
    if not is_linear(producer) and not (is_norm(producer) and norm_offset(producer) is not None):
        raise ValueError(f"{group.producer}, a {type(producer).__name__}, is no linear layer and no norm with a weight")
    outputs = linear_sizes(producer)[1] if is_linear(producer) else len(producer.weight)
    if len({*group.channels.tolist()}) < group.size or not _all_below(group.channels, outputs):
        raise ValueError(f"the channels of {group.producer} must be different ones of its {outputs}")
    for name, numbers in group.consumers.items():
        if not is_linear(modules[name]):
            raise ValueError(f"{name}, which takes from {group.producer}, is no linear layer")
        inputs, _ = linear_sizes(modules[name])
        if numbers.shape != (inputs,) or not _all_below(numbers, group.size):
            raise ValueError(
                f"{name} needs the number of a scale, 0 to {group.size - 1}, for each of its {inputs} inputs"
            )


def _all_below(numbers: Tensor, count: int) -> bool:
    return bool(((numbers >= 0) & (numbers < count)).all())
