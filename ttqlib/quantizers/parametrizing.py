"""Quantizers on weights: put there with `torch.nn.utils.parametrize`, and told from what others have put there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from ..inventory.layout import layout_of
from .fake_quantization import Float16
from .recipes import WeightQuantizer, WeightRecipe

Quantizer = WeightQuantizer | Float16


def fake_quantize_(module: nn.Module, recipe: WeightRecipe, name: str = "weight") -> nn.Module:
    """Fake-quantize the parameter `name` of `module` in place, and return the module.

    `module.weight` is then level × scale; `module.parametrizations.weight` holds the latent weight, which trains, as
    `original` and the quantizer as its entry 0.

    Raises:
        ValueError: something is parametrizing it already, or `recipe.build` refuses it.

    >>> layer = ttq.fake_quantize_(torch.nn.Linear(64, 64), ttq.LSQ(2))
    >>> layer.weight.unique().numel()  # of 4096 weights
    4
    """
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{name} of this {type(module).__name__} is parametrized already; remove that first")
    register_([(module, name)], recipe.build(getattr(module, name), layout_of(module, name)))
    return module


def register_(places: Iterable[tuple[nn.Module, str]], quantizer: Quantizer, unsafe: bool = False) -> None:
    """Put a quantizer on a weight in all the places where it stands: tied weights stay tied, and share their scales.

    `unsafe` leaves out what torch checks by running the quantizer.
    """
    for module, name in places:
        if isinstance(quantizer, WeightQuantizer):
            quantizer.registered = False  # or a second place would start the scales anew
        if parametrize.is_parametrized(module):
            _own_class_(module)
        parametrize.register_parametrization(module, name, quantizer, unsafe=unsafe)
        if isinstance(module, PreTrainedModel):  # transformers looks up by the name of a class what it can show
            _CAN_RECORD_REGISTRY[module] = module._can_record_outputs
            # `type(model).from_pretrained` makes a model of the plain class: this one has properties without tensors
            type(module).from_pretrained = parametrize.type_before_parametrizations(module).from_pretrained


def _own_class_(module: nn.Module) -> None:
    """Give a parametrized module a class that no other has: its copies share the one that parametrize has made for it,
    and would get every property that is put there, without the tensor behind it.
    """
    kind = type(module)
    module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))


def in_order_(module: nn.Module, names: Sequence[str]) -> None:
    """Let the quantizers of a module stand in this order, in which files hold its tensors.

    One that came with a shared weight came with the first module that has it, and stays when that module is dropped.
    """
    if parametrize.is_parametrized(module):
        held = module.parametrizations._modules
        module.parametrizations._modules = {name: held[name] for name in names if name in held} | held


def take_off_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module the class that it had before its quantizers, and these parameters in the place of what they made.

    `remove_parametrizations` would break every deep copy of the module: copies share the class that parametrize makes,
    and it takes the tensors' properties from there.
    """
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, tensor in tensors.items():
        module.register_parameter(name, tensor)
    if "bias" in module._parameters:  # it stands last, as it did: files hold tensors in this order
        module._parameters["bias"] = module._parameters.pop("bias")


def quantized(module: nn.Module) -> Iterator[tuple[str, Quantizer, Tensor]]:
    """A module's own weights that are under a quantizer of ours: name, quantizer, and the latent weight."""
    if parametrize.is_parametrized(module):
        for name, stack in module.parametrizations.items():
            if isinstance(stack[0], Quantizer):
                yield name, stack[0], stack.original


@contextmanager
def latent_weights(model: nn.Module) -> Iterator[None]:
    """In this block the layers of a model see their latent weights, as if there were no quantizers."""
    lists = [part for part in model.modules() if isinstance(part, parametrize.ParametrizationList)]
    ours = [(one, one[0]) for one in lists if isinstance(one[0], Quantizer)]
    try:
        for one, _ in ours:
            one[0] = nn.Identity()
        yield
    finally:
        for one, quantizer in ours:
            one[0] = quantizer
