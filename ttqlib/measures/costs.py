"""What a layer has and takes: parameters, bytes, FLOPs; and how far off an approximation is."""

from math import prod

import torch
from torch import Tensor, nn

from ..inventory.kinds import expert_weights, is_experts, is_linear, is_router, own_parameters
from ..layers.embedding import TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..layers.thin import HalfMergedEmbedding
from ..tensors.shapes import whole_number

EXPERTS_A_TOKEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k")  # what configs call it


def relative_error(reference: Tensor, approximation: Tensor) -> float:
    """‖A − B‖ / ‖A‖ in the Frobenius norm: 0 is exact, 1 is as bad as answering zero.

    Raises:
        ValueError: the shapes differ (they are not broadcast), or the reference is zero.

    >>> ttq.relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    0.2
    """
    if reference.shape != approximation.shape:
        raise ValueError(f"shapes must be equal, got {tuple(reference.shape)} and {tuple(approximation.shape)}")
    double = torch.complex128 if reference.is_complex() or approximation.is_complex() else torch.float64
    reference, approximation = (tensor.detach().cpu().to(double) for tensor in (reference, approximation))
    norm = torch.linalg.vector_norm(reference)
    if not norm:
        raise ValueError("the reference is zero, so no error is relative to it")
    return float(torch.linalg.vector_norm(reference - approximation) / norm)


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """How many numbers the parameters of `module` hold, or those of them that train; shared ones counted once.

    >>> ttq.count_parameters(ttq.TTLinear(768, 768, rank=30)), ttq.count_parameters(torch.nn.Linear(768, 768))
    (21216, 590592)
    """
    return sum(one.numel() for one in module.parameters() if one.requires_grad or not trainable)


def parameter_bytes(module: nn.Module) -> int:
    """How many bytes the parameters of `module` take in memory, shared ones counted once."""
    return sum(parameter.nbytes for parameter in module.parameters())


def allreduce_bytes(module: nn.Module, processes: int) -> int:
    """How many bytes each of `processes` sends when they average the gradients of `module` once, by a ring all-reduce.

    Each sends 2 (N − 1) / N of the bytes of its gradients, which are those of the parameters that train, shared ones
    counted once. That is the least that any algorithm can do, and what gloo and NCCL send for large tensors. What is
    not counted: the headers of the network, and buffers, which DistributedDataParallel copies from the first process.

    Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69 (2009).

    Raises:
        ValueError: `processes` is not a whole number of at least 1.

    >>> dense, train = torch.nn.Linear(768, 768), ttq.TTLinear(768, 768, rank=30)
    >>> ttq.allreduce_bytes(dense, processes=2), ttq.allreduce_bytes(train, processes=2)
    (2362368, 84864)
    """
    whole_number("processes", processes)
    gradients = sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
    return round(2 * (processes - 1) * gradients / processes)


def flops(layer: nn.Module, tokens: int, merged: bool = False) -> int:
    """Floating-point operations of the matrix products in one forward pass of `layer`: 2 for each multiply-add.

    `tokens` is the number of input rows of a linear layer, and of distinct ids of an embedding. A TTLinear merges its
    sides first; `merged=True` leaves that out, as in eval mode, where it is done once and kept. Each token goes through
    as many experts of a mixture as its config says.

    Agrees with `torch.utils.flop_counter`, but for the bias of a TTLinear, which is added by its last product and, as
    everywhere, not counted.

    Raises:
        TypeError: a layer of another kind.
        ValueError: `tokens` is not a whole number of at least 0.

    >>> ttq.flops(torch.nn.Linear(768, 768), tokens=128)
    150994944
    """
    tokens = whole_number("tokens", tokens, minimum=0)
    if isinstance(layer, TTLinear):
        return _linear_flops(layer, tokens, merged)
    if isinstance(layer, TTMEmbedding):
        return _embedding_flops(layer, tokens)
    if isinstance(layer, TTMHead):  # it makes the table, and multiplies by it
        return _table_flops(layer.table) + 2 * tokens * layer.in_features * layer.out_features
    if isinstance(layer, HalfMergedEmbedding):
        return 2 * tokens * layer.prefixes.embedding_dim // layer.rank * layer.suffixes.embedding_dim
    if is_linear(layer) or is_router(layer):
        return 2 * tokens * layer.weight.numel()
    if is_experts(layer):
        return 2 * tokens * _numbers_a_token(layer)
    if isinstance(layer, nn.Embedding):
        return 0  # a look-up multiplies nothing
    raise TypeError(
        "flops knows linear layers, embeddings, experts, TTLinear and TTMEmbedding, "
        f"got {type(layer).__name__}; for a whole model use torch.utils.flop_counter.FlopCounterMode"
    )


def _numbers_a_token(experts: nn.Module) -> int:
    """How many weights of a mixture each token is multiplied by: those of all experts where its config names no few."""
    shapes = [dict(own_parameters(experts))[name].shape for name in expert_weights(experts)]
    config, count = getattr(experts, "config", None), max(shape[0] for shape in shapes)
    used = next((getattr(config, name) for name in EXPERTS_A_TOKEN if hasattr(config, name)), count)
    return sum(prod(shape) for shape in shapes) * used // count


def _linear_flops(layer: TTLinear, tokens: int, merged: bool) -> int:
    half, modes, ranks = len(layer.in_modes), layer.in_modes + layer.out_modes, layer.ranks
    inner, n, m = ranks[half], layer.in_features, layer.out_features
    merging = 0
    if not merged:
        # core k of the left side is multiplied by the n_1 ⋯ n_{k-1} rows merged so far; the right side mirrors that
        merging += sum(2 * prod(modes[: k + 1]) * ranks[k] * ranks[k + 1] for k in range(1, half))
        merging += sum(2 * prod(modes[k:]) * ranks[k] * ranks[k + 1] for k in range(half, len(modes) - 1))
    if layer.thin_is_cheaper(tokens):
        return merging + 2 * tokens * inner * (n + m)
    return merging + 2 * n * inner * m + 2 * tokens * n * m


def _table_flops(layer: TTMEmbedding) -> int:
    """Of all rows, the padding among them."""
    words, columns, ranks = layer.vocabulary_modes, layer.hidden_modes, layer.ranks
    return sum(
        2 * prod(words[: k + 1]) * prod(columns[: k + 1]) * ranks[k] * ranks[k + 1] for k in range(1, layer.order)
    )


def _embedding_flops(layer: TTMEmbedding, ids: int) -> int:
    total, merged = 0, layer.merged_cores(ids)
    for k in range(1, layer.order):
        prefixes = prod(layer.vocabulary_modes[: k + 1]) if k < merged else ids
        total += 2 * prefixes * prod(layer.hidden_modes[: k + 1]) * layer.ranks[k] * layer.ranks[k + 1]
    return total
