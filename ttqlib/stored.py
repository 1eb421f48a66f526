"""What a compressed model stores: its modules' tensors as those of a file, and back.

A module's quantized tensors become `<module>.codes`, one stream of bits, and `<module>.scales`. In the stream tensor
follows tensor, in the order that the module has them, each in its own number of bits and directly followed by its
zero points, if it has any. What is not quantized is stored under its own name; a rest of 16 bits is float16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from transformers import PreTrainedModel

from .activations import StaticActivationQuantizer
from .fake_quantization import Float16, positive, widen
from .layers import TTLayer
from .packing import DIGEST, Spec, digest, pack, packed_bytes, read, read_metadata, unpack
from .planning import LayerPlan
from .quantizers import Ternary, WeightQuantizer


@dataclass
class Stored:
    """What one module stores: tensors that are packed, with their quantizers, and others by name, with their dtype."""

    quantized: list[tuple[WeightQuantizer, Tensor]] = field(default_factory=list)
    plain: dict[str, tuple[Tensor, torch.dtype]] = field(default_factory=dict)


def plan_of(model: nn.Module) -> dict:
    """The plan that `compress_` left on the model, as plain dictionaries.

    Raises:
        ValueError: there is none.
    """
    config = getattr(model, "ttq_config", None)
    if config is None:
        raise ValueError(f"this {type(model).__name__} has no plan: give the very model that ttq.compress_ was given")
    return config.to_dict()


def packed(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the file of a model holds: its tensors and its metadata.

    Raises:
        ValueError: the model has no plan, weights or scales that are not finite, a weight that is no longer tied, or
            weights of several dtypes, which transformers could not build again.
    """
    plan, tensors = plan_of(model), {}
    _check_ties(model)
    for prefix, stored in _stored(model):
        for name, (tensor, dtype) in stored.plain.items():
            _check_dtype(model, prefix + name, tensor)
            check_finite(prefix + name, tensor)
            tensors[prefix + name] = tensor.detach().to("cpu", dtype).contiguous()
        if stored.quantized:
            tensors |= _packed_module(prefix, stored)
    for name, (dtype, shape) in _guard(model, tensors).items():
        tensors[name] = torch.empty(shape, dtype=dtype)
    return tensors, {DIGEST: digest({**plan, "sizes": _sizes(model)}, tensors), "format": "pt"}


def expected(model: nn.Module) -> dict[str, Spec]:
    """What `packed` would give, as dtypes and shapes only: also for a model on the meta device."""
    specs: dict[str, Spec] = {}
    for prefix, stored in _stored(model):
        specs |= {prefix + name: (dtype, tuple(tensor.shape)) for name, (tensor, dtype) in stored.plain.items()}
        if stored.quantized:
            layouts = [_layout(*entry) for entry in stored.quantized]
            dtype = torch.float64 if any(scale.dtype == torch.float64 for _, scale, _ in layouts) else torch.float32
            size = packed_bytes([count for counts, _, _ in layouts for count in counts])
            specs[prefix + "codes"] = (torch.uint8, (size,))
            specs[prefix + "scales"] = (dtype, (sum(scale.numel() for _, scale, _ in layouts),))
    return {**specs, **_guard(model, specs)}


def check_digest(path: Path, saved: str | None) -> None:
    """Refuse a file of tensors that does not belong to the config.json in which the digest `saved` stands.

    Raises:
        ValueError: it is no whole safetensors file, holds no packed model, or is of another save.
    """
    metadata = read_metadata(path)
    if DIGEST not in metadata:
        raise ValueError(f"{path} was not packed by ttq.save: a training goes on from its checkpoint by ttq.QATTrainer")
    if metadata[DIGEST] != saved:
        raise ValueError(f"{path} and its config.json are not of one save: their digests differ")


def checked_tensors(model: nn.Module, path: Path, saved: str) -> dict[str, Tensor]:
    """The tensors of a file, after all that can be wrong with them has been looked at.

    `model` is the compressed model that they are for, on any device, meta included; `saved` is the digest that lies
    with the plan in config.json, and in the file (`check_digest`).

    Raises:
        ValueError: something is wrong.
    """
    tensors = read(path, expected(model))
    if digest({**plan_of(model), "sizes": _sizes(model)}, tensors) != saved:
        raise ValueError(f"{path} or its config.json was changed after it was saved: the digest does not fit")
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    for prefix, stored in _stored(model):
        if stored.quantized and (tensors[prefix + "scales"] < 0).any():
            raise ValueError(f"{prefix}scales must not be negative")
        for _ in _decoded(prefix, stored, tensors):  # which looks at the codes
            pass
    return tensors


@torch.no_grad()
def fill_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `checked_tensors` into the compressed model that they are for; latent weights become the decoded ones."""
    for prefix, stored in _stored(model):
        for name, (tensor, _) in stored.plain.items():
            tensor.copy_(tensors[prefix + name])
        for (quantizer, latent), (weight, scales) in zip(stored.quantized, _decoded(prefix, stored, tensors)):
            latent.copy_(weight)
            for name in quantizer.held:
                getattr(quantizer, name).copy_(scales[name])


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse weights and scales that hold NaN or infinity."""
    if tensor.is_floating_point() and not tensor.isfinite().all():
        hint = " (an activation quantizer that is not calibrated?)" if name.endswith("input_quantizer.scale") else ""
        raise ValueError(f"{name} holds NaN or infinite values{hint}")


# ------------------------------------------------------------------------------------------------- inside a model


def _stored(model: nn.Module) -> Iterator[tuple[str, Stored]]:
    """What each module stores, by its name and a dot; shared tensors once, and where transformers keeps them."""
    left_out = {*_ties(model), *(getattr(model, "_keys_to_ignore_on_save", None) or ())}
    seen = set()
    for path, module in model.named_modules():
        if isinstance(module, ParametrizationList | WeightQuantizer):
            continue
        prefix = f"{path}." if path else ""
        stored = _quantized(prefix, module)
        for name, tensor in _own(module):
            if prefix + name not in left_out and id(tensor) not in seen:
                seen.add(id(tensor))
                step = isinstance(module, StaticActivationQuantizer) and name == "scale"  # computed with in float32
                stored.plain[name] = (tensor, torch.float32 if step else tensor.dtype)
        if stored.quantized and stored.plain.keys() & {"codes", "scales"}:
            raise ValueError(f"{path} has a tensor of its own that is named codes or scales: rename it")
        yield prefix, stored


def _quantized(prefix: str, module: nn.Module) -> Stored:
    stored = Stored()
    for name, parametrization in module.parametrizations.items() if is_parametrized(module) else ():
        quantizer, latent = parametrization[0], parametrization.original
        if isinstance(quantizer, Float16):
            stored.plain[name] = (latent, torch.float16)
        elif isinstance(quantizer, WeightQuantizer):
            stored.quantized.append((quantizer, latent))
        else:
            raise ValueError(f"{prefix}{name} has a parametrization that is no quantizer of ttqlib")
    return stored


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            yield name, buffer


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


def _layout(quantizer: WeightQuantizer, latent: Tensor) -> tuple[list[tuple[int, int]], Tensor, Tensor | None]:
    """How many codes of how many bits a tensor takes, and tensors of the shapes of its scale and zero point."""
    scales, bits = quantizer.scales(latent), quantizer.recipe.bits
    zero_point = scales.get("zero_point")
    counts = [(tensor.numel(), bits) for tensor in (latent, zero_point) if tensor is not None]
    return counts, scales["scale"], zero_point


def _decoded(prefix: str, stored: Stored, tensors: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The weight of each quantized tensor of a module, and its scales as its quantizer holds them."""
    if not stored.quantized:
        return
    layouts = [_layout(*entry) for entry in stored.quantized]
    streams = iter(unpack(tensors[prefix + "codes"], [count for counts, _, _ in layouts for count in counts]))
    scales = tensors[prefix + "scales"].split([scale.numel() for _, scale, _ in layouts])
    for (quantizer, latent), (_, like, zero_point), scale in zip(stored.quantized, layouts, scales):
        codes = next(streams).reshape(latent.shape)
        if isinstance(quantizer.recipe, Ternary) and not codes.all():
            raise ValueError(f"{prefix}codes holds a code that stands for no ternary weight")
        held = {"scale": scale.reshape(like.shape).to(like.dtype)}
        if zero_point is not None:
            held["zero_point"] = next(streams).reshape(zero_point.shape)
        applied = {**held, "scale": positive(held["scale"])} if quantizer.held else held
        yield quantizer.decode(codes, applied), held


def _ties(model: nn.Module) -> Mapping[str, str]:
    """Weights that transformers ties to another when it loads a model: tied name → where the weight is kept."""
    return model.get_expanded_tied_weights_keys(all_submodels=True) if isinstance(model, PreTrainedModel) else {}


def _check_ties(model: nn.Module) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, source in _ties(model).items():
        if name not in parameters or parameters[name] is not parameters.get(source):
            raise ValueError(
                f"{name} is no longer tied to {source}, but would be again after loading: "
                "set model.config.tie_word_embeddings = False"
            )


def _check_dtype(model: nn.Module, name: str, tensor: Tensor) -> None:
    weight = isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and "input_quantizer" not in name
    if isinstance(model, PreTrainedModel) and weight and tensor.dtype != model.dtype:
        raise ValueError(f"{name} is {tensor.dtype}, other weights {model.dtype}: bring the model to one dtype first")


def _sizes(model: nn.Module) -> dict[str, list]:
    """The sizes of tensor-train layers, which their cores do not tell: modes may multiply out to more."""
    names = ("in_features", "out_features", "num_embeddings", "embedding_dim", "padding_idx")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, TTLayer)}
    return {layer: [getattr(module, name, None) for name in names] for layer, module in layers.items()}


def _guard(model: nn.Module, names: Mapping) -> dict[str, Spec]:
    """An empty tensor in the place of a dense weight that the file has not.

    Whoever loads the file without the plan meets a wrong shape there, at which transformers stops; weights that are
    merely missing it would make up.
    """
    for layer, _ in model.named_modules():  # in the model's order: that of the plan is lost in JSON
        name, choice = f"{layer}.weight", model.ttq_config.layers.get(layer, LayerPlan())
        if (choice.format or choice.quantize) and name not in names:
            return {name: (torch.uint8, (0,))}
    return {}
