"""What a compressed model stores: its modules' tensors as those of a file, and back.

A module's quantized tensors become `<module>.codes`, one stream of bits, and `<module>.scales`. In the stream tensor
follows tensor, in the order that the module has them, each in its own number of bits and directly followed by its
zero points, if it has any. What is not quantized is stored under its own name; a rest of 16 bits is float16.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, isnan
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from transformers import PreTrainedModel

from ..inventory.kinds import expert_weights, is_experts, saved_buffers
from ..inventory.ties import check_ties, put_, ties
from ..layers.base import TTLayer
from ..plans.configs import LayerPlan
from ..quantizers.activations import StaticActivationQuantizer
from ..quantizers.fake_quantization import Float16, positive, widen
from ..quantizers.mean_scales import Ternary
from ..quantizers.parametrizing import Quantizer, quantized
from ..quantizers.recipes import WeightQuantizer
from ..surgery.compress import plan_of
from .bits import pack, packed_bytes, unpack
from .files import DIGEST, Spec, digest

VERSION = 2  # of the files; 1 read the weights of `Conv1D` and of experts along another axis


@dataclass
class Stored:
    """What one module stores: tensors that are packed, with their quantizers, and others by name, with their dtype."""

    quantized: list[tuple[WeightQuantizer, Tensor]] = field(default_factory=list)
    plain: dict[str, tuple[Tensor, torch.dtype]] = field(default_factory=dict)


def contents_of(
    model: nn.Module, kept: Mapping[str, Tensor] = MappingProxyType({}), version: int = VERSION
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the file of a model holds: its tensors and its metadata.

    `kept` are those of the tensors that are usually left out (`unsaved`) which loading would not make as they are.

    Raises:
        ValueError: the model has no plan, weights or scales that are not finite, a weight that is no longer tied, or
            weights of several dtypes, which transformers could not build again.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in kept.items()}
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    check_ties(model)
    for prefix, stored in _stored(model):
        for name, (tensor, dtype) in stored.plain.items():
            _check_dtype(model, prefix + name, tensor)
            check_finite(prefix + name, tensor, may_be_infinite=is_mask(tensor))
            tensors[prefix + name] = tensor.detach().to("cpu", dtype).contiguous()
        if stored.quantized:
            tensors |= _packed_module(prefix, stored)
    for name, (dtype, shape) in _guard(model, tensors).items():
        tensors[name] = torch.empty(shape, dtype=dtype)
    return tensors, {DIGEST: digest(signed(model, plan_of(model).to_dict(), version), tensors), "format": "pt"}


def expected(model: nn.Module) -> dict[str, Spec]:
    """What `contents_of` would give, as dtypes and shapes only: also for a model on the meta device."""
    specs: dict[str, Spec] = {}
    for prefix, stored in _stored(model):
        specs |= {prefix + name: (dtype, tuple(tensor.shape)) for name, (tensor, dtype) in stored.plain.items()}
        if stored.quantized:
            shapes = [_shapes(*entry) for entry in stored.quantized]
            dtype = torch.float64 if any(one.scale.dtype == torch.float64 for one in shapes) else torch.float32
            size = packed_bytes([count for one in shapes for count in one.counts])
            specs[prefix + "codes"] = (torch.uint8, (size,))
            specs[prefix + "scales"] = (dtype, (sum(one.scale.numel() for one in shapes),))
    return {**specs, **_guard(model, specs)}


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """What files leave out because a model makes it by itself, as rotary frequencies and sinusoidal positions."""
    ignored = {*(getattr(model, "_keys_to_ignore_on_save", None) or ())} - {*ties(model)}
    hidden = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers(remove_duplicate=False))}
    return {name: tensor for name, tensor in tensors.items() if name in ignored | hidden}


def signed(model: nn.Module, plan: Mapping, version: int, padding: int | None = None) -> dict:
    """What a digest is of besides the tensors: the plan, and sizes of tensor-train layers that cores do not tell.

    Modes may multiply out to more than a size. Version 1 had no number, and signed the padding_idx of embeddings, too.
    """
    names = ("in_features", "out_features", "num_embeddings", "embedding_dim")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, TTLayer)}
    sizes = {layer: [getattr(module, name, None) for name in names] for layer, module in layers.items()}
    if version == 1:
        sizes = {name: [*made, None if made[2] is None else padding] for name, made in sizes.items()}
        return {**plan, "sizes": sizes}
    return {**plan, "sizes": sizes, "version": version}


def plain_weights(model: nn.Module) -> set[str]:
    """The names of the parameters that are stored as they are, in the dtype of the model."""
    return {
        prefix + name
        for prefix, stored in _stored(model)
        for name, (tensor, dtype) in stored.plain.items()
        if isinstance(tensor, nn.Parameter) and dtype == tensor.dtype and "input_quantizer" not in prefix
    }


def check_values(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of the right dtypes and shapes that hold what no model has stored.

    Raises:
        ValueError: NaN, infinity, a negative scale, or a code that stands for nothing.
    """
    masks = {name for name, tensor in model.named_buffers() if is_mask(tensor)}
    for name, tensor in tensors.items():
        check_finite(name, tensor, may_be_infinite=name in masks)
    for prefix, stored in _stored(model):
        if stored.quantized and tensors[prefix + "scales"].aminmax().min < 0:
            raise ValueError(f"{prefix}scales must not be negative")
        for _ in _unpacked(prefix, stored, tensors):  # which looks at the codes
            pass


def make_latent_(quantizer: WeightQuantizer, latent: Tensor, codes: Tensor, scales: Mapping[str, Tensor]) -> None:
    """Let a latent weight become the decoded one, and its quantizer hold what it holds of these scales."""
    # a scale that is held is read as |scale| + tiny; one that follows the weight was stored as it is read
    applied = {**scales, "scale": positive(scales["scale"])} if quantizer.held else scales
    latent.copy_(quantizer.decode(codes, applied))
    for name in quantizer.held:
        getattr(quantizer, name).copy_(scales[name])


@torch.no_grad()
def fill_(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    make: Callable[[WeightQuantizer, Tensor, Tensor, dict[str, Tensor]], None] = make_latent_,
) -> None:
    """Copy `checked_tensors` into the compressed model that they are for; `make` says what becomes of codes."""
    for prefix, stored in _stored(model):
        for name, (tensor, _) in stored.plain.items():
            tensor.copy_(tensors[prefix + name])
        for (quantizer, latent), (codes, scales) in zip(stored.quantized, _unpacked(prefix, stored, tensors)):
            make(quantizer, latent, codes, scales)
    for name, tensor in unsaved(model).items():
        if name in tensors:
            put_(model, name, tensors[name].to(tensor.device))


def is_mask(tensor: Tensor) -> bool:
    """Whether it may hold infinity, as masks of attention do: a buffer of two axes, so no variance and no scale."""
    return not isinstance(tensor, nn.Parameter) and tensor.ndim > 1


def check_finite(name: str, tensor: Tensor, may_be_infinite: bool = False) -> None:
    """Raise a ValueError where a tensor holds NaN, or infinity; on the meta device it holds nothing."""
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return
    least, most = tensor.detach().aminmax()  # NaN if there is any, and no answer for each number
    if isnan(least) or not (may_be_infinite or (isfinite(least) and isfinite(most))):
        hint = " (an activation quantizer that is not calibrated?)" if name.endswith("input_quantizer.scale") else ""
        raise ValueError(f"{name} holds NaN or infinite values{hint}")


# ------------------------------------------------------------------------------------------------- inside a model


def _stored(model: nn.Module) -> Iterator[tuple[str, Stored]]:
    """What each module stores, by its name and a dot; shared tensors once, and where transformers keeps them."""
    left_out = {*ties(model), *(getattr(model, "_keys_to_ignore_on_save", None) or ())}
    seen: set[int] = set()
    for path, module in model.named_modules():
        ours = isinstance(module, ParametrizationList) and isinstance(module[0], Quantizer)
        if ours or isinstance(module, WeightQuantizer):  # other parametrizations keep tensors of their own
            continue
        prefix = f"{path}." if path else ""
        stored = _quantized(module, seen)
        for name, tensor in (*module.named_parameters(recurse=False), *saved_buffers(module)):
            if prefix + name not in left_out and id(tensor) not in seen:
                seen.add(id(tensor))
                step = isinstance(module, StaticActivationQuantizer) and name == "scale"  # computed with in float32
                stored.plain[name] = (tensor, torch.float32 if step else tensor.dtype)
        if stored.quantized and stored.plain.keys() & {"codes", "scales"}:
            raise ValueError(f"{path} has a tensor of its own that is named codes or scales: rename it")
        yield prefix, stored


def _quantized(module: nn.Module, seen: set[int]) -> Stored:
    """The module's weights under quantizers, without those that are tied to one `seen` before, which this adds to."""
    stored = Stored()
    for name, quantizer, latent in quantized(module):
        if id(latent) in seen:
            continue
        seen.add(id(latent))
        if isinstance(quantizer, Float16):
            stored.plain[name] = (latent, torch.float16)
        else:
            stored.quantized.append((quantizer, latent))
    return stored


def _packed_module(prefix: str, stored: Stored) -> dict[str, Tensor]:
    codes, scales = [], []
    for quantizer, latent in stored.quantized:
        check_finite(f"a weight of {prefix[:-1]}", latent)
        values, bits = quantizer.scales(latent), quantizer.recipe.bits
        scale = widen(quantizer.scale).abs() if quantizer.held else values["scale"]  # as held: nothing is added twice
        check_finite(prefix + "scales", scale)
        scales.append(scale.detach().reshape(-1).cpu())
        codes.append((quantizer.codes(latent), bits))
        if "zero_point" in values:
            codes.append((values["zero_point"], bits))
    return {prefix + "codes": pack(codes), prefix + "scales": torch.cat(scales)}


class Shapes(NamedTuple):
    """What a quantized tensor takes of the two streams of its module."""

    counts: list[tuple[int, int]]  # how many codes of how many bits: of the tensor, and of its zero points
    scale: Tensor  # of the shape and dtype of its scales
    zero_point: Tensor | None  # of the shape of its zero points, if it has any


def _shapes(quantizer: WeightQuantizer, latent: Tensor) -> Shapes:
    held = {name: widen(getattr(quantizer, name)) for name in quantizer.held}  # as they are: only shapes are asked for
    scales, bits = held or quantizer.scales(torch.empty_like(latent, device="meta")), quantizer.recipe.bits
    zero_point = scales.get("zero_point")
    counts = [(tensor.numel(), bits) for tensor in (latent, zero_point) if tensor is not None]
    return Shapes(counts, scales["scale"], zero_point)


def _unpacked(prefix: str, stored: Stored, tensors: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The codes of each quantized tensor of a module, in its shape, and its scales as a quantizer holds them."""
    if not stored.quantized:
        return
    shapes = [_shapes(*entry) for entry in stored.quantized]
    parts = iter(unpack(tensors[prefix + "codes"], [count for one in shapes for count in one.counts]))
    scales = tensors[prefix + "scales"].split([one.scale.numel() for one in shapes])
    for (quantizer, latent), like, scale in zip(stored.quantized, shapes, scales):
        codes = next(parts).reshape(latent.shape)
        if isinstance(quantizer.recipe, Ternary) and not codes.all():
            raise ValueError(f"{prefix}codes holds a code that stands for no ternary weight")
        held = {"scale": scale.reshape(like.scale.shape).to(like.scale.dtype)}
        if like.zero_point is not None:  # the next part of the stream
            held["zero_point"] = next(parts).reshape(like.zero_point.shape)
        yield codes, held


def _check_dtype(model: nn.Module, name: str, tensor: Tensor) -> None:
    weight = isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and "input_quantizer" not in name
    if isinstance(model, PreTrainedModel) and weight and tensor.dtype != model.dtype:
        raise ValueError(f"{name} is {tensor.dtype}, other weights {model.dtype}: bring the model to one dtype first")


def _guard(model: nn.Module, names: Mapping) -> dict[str, Spec]:
    """An empty tensor in the place of a dense weight that the file has not.

    Whoever loads the file without the plan meets a wrong shape there, at which transformers stops; weights that are
    merely missing it would make up.
    """
    layers = plan_of(model).layers
    for layer, module in model.named_modules():  # in the model's order: that of the plan is lost in JSON
        choice = layers.get(layer, LayerPlan())
        if choice.format or choice.quantize:
            own = "weight" if not is_experts(module) else next(expert_weights(module))
            if f"{layer}.{own}" not in names:
                return {f"{layer}.{own}": (torch.uint8, (0,))}
    return {}
