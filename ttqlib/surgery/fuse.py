"""`fuse_`: a trained tensor-train model becomes plain PyTorch to be run, cores merged and weights dequantized."""

from collections.abc import Sequence
from math import prod
from typing import NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertAttention

from ..layers.base import TTLayer
from ..layers.embedding import TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..layers.thin import HalfMergedEmbedding, Layers, linear, thin_pair
from ..quantizers.parametrizing import quantized, take_off_
from .attention import LatentAttention, absorbed, can_absorb


@torch.no_grad()
def fuse_(model: nn.Module) -> nn.Module:
    """Make a compressed model plain PyTorch, in place, and return it: for deployment.

    Every `TTLinear` becomes two thin `nn.Linear` in an `nn.Sequential`, its bias one more rank of them, or one dense
    `nn.Linear` where that takes no more multiplications; an input side that layers share stays one. BERT's
    self-attention becomes a `LatentAttention` where its keys and values have ranks below a head's size. Every
    `TTMEmbedding` becomes a `HalfMergedEmbedding`, or an `nn.Embedding` where that is no larger. The other end of a
    tied table, a `TTMHead`, needs all its rows at every call: a dense `nn.Linear`. Weights under quantizers become
    plain ones of the values that the layers saw: the model answers as before, up to rounding. Quantizers of activations
    stay, before their layer. So do shapes, dtype, device, padding_idx and mode; all new parameters train.

    The plan and what registers it with transformers are taken off. Where layers have changed their kind,
    `save_pretrained` is an error from now on, because `from_pretrained` would rebuild the dense layers and fill them
    with random numbers: save the compressed model, which is smaller, and fuse it after loading.

    A deep copy of the model stays as it is: `fused = ttq.fuse_(copy.deepcopy(model))` keeps both.

    Raises:
        ValueError: `model` is a single tensor-train layer, which cannot be replaced in place.
    """
    if isinstance(model, TTLayer | TTMHead):
        raise ValueError(f"fuse_ replaces layers inside a model, got a lone {type(model).__name__}: put it into one")
    attentions = _absorb_(model)
    fused: dict[nn.Module, nn.Module] = {}
    firsts: dict[tuple, nn.Linear] = {}
    for kind in (TTMHead, TTLayer):  # heads first: they hold the table that they are made from
        places = list(model.named_modules(remove_duplicate=False))  # a layer may stand in several
        for name, layer in places:
            if isinstance(layer, kind):
                fused[layer] = fused.get(layer) or _fused(layer, firsts)
                model.set_submodule(name, fused[layer])
    changed = {*fused.values(), *attentions}
    plain: dict[Tensor, nn.Parameter] = {}
    for module in list(model.modules()):
        _dequantize_(module, plain)
        if hasattr(module, "ttq_config"):
            _forget_plan_(module)
        if isinstance(module, PreTrainedModel) and not changed.isdisjoint(module.modules()):
            module.save_pretrained = _refuse_to_save
    return model


def _absorb_(model: nn.Module) -> list[LatentAttention]:
    """Let BERT's attention work among its ranks wherever that can be done; what stands there now."""
    attentions = [part for part in model.modules() if isinstance(part, BertAttention) and can_absorb(part)]
    for attention in attentions:
        training = attention.output.dense.training
        attention.self, output = absorbed(attention)
        attention.output.dense = Layers(*output).train(training)
    return [attention.self for attention in attentions]


def _fused(layer: TTLayer | TTMHead, firsts: dict[tuple, nn.Linear]) -> nn.Module:
    """`firsts` are the first of two thin layers, by what they were made of: layers that share it go on sharing."""
    if isinstance(layer, TTMHead):
        return linear(layer.weight.T, layer.bias).train(layer.training)
    parts = thin_pair(*layer.sides(), layer.bias) if isinstance(layer, TTLinear) else [_half_merged(layer)]
    if isinstance(layer, TTLinear) and len(parts) == 2:
        first = firsts.setdefault(_inputs_side(layer), parts[0])
        parts[0].weight, parts[0].bias = first.weight, first.bias
    if hasattr(layer, "input_quantizer"):
        parts.insert(0, layer.input_quantizer)
    return (parts[0] if len(parts) == 1 else Layers(*parts)).train(layer.training)


def _inputs_side(layer: TTLinear) -> tuple:
    """What tells whether two layers have the same U, and, as one more of its columns, a bias to be multiplied by."""
    latents = {name: latent for name, _, latent in quantized(layer)} | layer._parameters
    return (layer.bias is None, *(id(latents[f"core{k}"]) for k in range(len(layer.in_modes))))


def _half_merged(layer: TTMEmbedding) -> HalfMergedEmbedding | nn.Embedding:
    """Of all cuts through the train the one whose two sides hold the fewest numbers; the table where that is none."""

    def numbers(cut: int) -> int:
        rank, modes = layer.ranks[cut], list(zip(layer.vocabulary_modes, layer.hidden_modes))
        return rank * sum(prod(v * h for v, h in side) for side in (modes[:cut], modes[cut:]))

    cut = min(range(1, layer.order), key=numbers, default=0)
    if cut == 0 or numbers(cut) >= layer.num_embeddings * layer.embedding_dim:
        return layer.to_embedding()
    prefixes, suffixes = _merged(layer.cores[:cut]), _merged(layer.cores[cut:])
    return HalfMergedEmbedding(prefixes[0], suffixes[..., 0].transpose(0, 1), layer)


def _merged(cores: Sequence[Tensor]) -> Tensor:
    """One core in the place of several: (r, v_1, h_1, ·) … (·, v_n, h_n, r') → (r, v_1 ⋯ v_n, h_1 ⋯ h_n, r')."""
    merged, *others = cores
    for core in others:
        merged = torch.einsum("avhr,rwgb->avwhgb", merged, core).flatten(3, 4).flatten(1, 2)
    return merged


def _dequantize_(module: nn.Module, plain: dict[Tensor, nn.Parameter]) -> None:
    """Give a module the values of its quantized tensors as its own, and the class back that it had before.

    Where others have parametrized the module too, as by a weight norm, it keeps its class, and a quantizer becomes one
    that changes nothing.

    `plain` holds what has become of each latent weight, so that tied ones stay tied.
    """
    ours = list(quantized(module))
    for name, _, latent in ours:
        if latent not in plain:
            plain[latent] = nn.Parameter(getattr(module, name).clone())
    if ours and len(ours) < len(module.parametrizations):
        for name, _, latent in ours:
            module.parametrizations[name].original = plain[latent]
            module.parametrizations[name][0] = nn.Identity()
    elif ours:
        take_off_(module, {name: plain[latent] for name, _, latent in ours})


def _forget_plan_(model: nn.Module) -> None:
    del model.ttq_config
    if isinstance(model, PreTrainedModel):
        model.hf_quantizer.remove_quantization_config(model)


def _refuse_to_save(*_, **__) -> NoReturn:
    """Stands in for `save_pretrained`. A plain function: a copy and a pickle of the model keep it."""
    raise ValueError(
        "a fused model has layers that from_pretrained does not know: save the compressed model, before ttq.fuse_, "
        "and fuse it after loading; or write it with ttq.export_onnx"
    )
