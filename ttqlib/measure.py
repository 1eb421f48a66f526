"""What a layer or a model costs: parameters, bytes, FLOPs, time and memory; and how far off an approximation is."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .embeddings import TTMEmbedding
from .layers import TTLinear
from .shapes import whole_number


def relative_error(reference: Tensor, approximation: Tensor) -> float:
    """‖A − B‖ / ‖A‖ in the Frobenius norm: 0 is exact, 1 is as bad as answering zero.

    Raises:
        ValueError: the shapes differ (they are not broadcast), or the reference is zero.
    """
    if reference.shape != approximation.shape:
        raise ValueError(f"shapes must be equal, got {tuple(reference.shape)} and {tuple(approximation.shape)}")
    reference, approximation = reference.detach().double(), approximation.detach().double()
    norm = torch.linalg.vector_norm(reference)
    if not norm:
        raise ValueError("the reference is zero, so no error is relative to it")
    return float(torch.linalg.vector_norm(reference - approximation) / norm)


def count_parameters(module: nn.Module) -> int:
    """How many numbers the parameters of `module` hold, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameter_bytes(module: nn.Module) -> int:
    """How many bytes the parameters of `module` take in memory, shared ones counted once."""
    return sum(parameter.nbytes for parameter in module.parameters())


def flops(layer: nn.Module, rows: int, merged: bool = False) -> int:
    """Floating-point operations of the matrix products in one forward pass of `layer`: 2 for each multiply-add.

    `rows` is the number of input rows (tokens) of a linear layer, and of distinct ids of an embedding. A TTLinear
    merges its sides first; `merged=True` leaves that out, as in eval mode, where it is done once and kept.
    Agrees with `torch.utils.flop_counter`.

    Raises:
        TypeError: a layer other than nn.Linear, nn.Embedding, TTLinear or TTMEmbedding.
    """
    rows = whole_number("rows", rows, minimum=0)
    if isinstance(layer, nn.Linear):
        return 2 * rows * layer.in_features * layer.out_features
    if isinstance(layer, nn.Embedding):
        return 0  # a look-up multiplies nothing
    if isinstance(layer, TTLinear):
        return _linear_flops(layer, rows, merged)
    if isinstance(layer, TTMEmbedding):
        return _embedding_flops(layer, rows)
    raise TypeError(
        f"flops knows nn.Linear, nn.Embedding, TTLinear and TTMEmbedding, got {type(layer).__name__}; "
        "for a whole model use torch.utils.flop_counter.FlopCounterMode"
    )


def _linear_flops(layer: TTLinear, rows: int, merged: bool) -> int:
    half, modes, ranks = len(layer.in_modes), layer.in_modes + layer.out_modes, layer.ranks
    inner, n, m = ranks[half], layer.in_features, layer.out_features
    merging = 0
    if not merged:
        # core k of the left side is multiplied by the n_1 ⋯ n_{k-1} rows merged so far; the right side mirrors that
        merging += sum(2 * prod(modes[: k + 1]) * ranks[k] * ranks[k + 1] for k in range(1, half))
        merging += sum(2 * prod(modes[k:]) * ranks[k] * ranks[k + 1] for k in range(half, len(modes) - 1))
    if layer.thin_is_cheaper(rows):
        return merging + 2 * rows * inner * (n + m)
    return merging + 2 * n * inner * m + 2 * rows * n * m


def _embedding_flops(layer: TTMEmbedding, ids: int) -> int:
    total, merged = 0, layer.merged_cores(ids)
    for k in range(1, layer.order):
        prefixes = prod(layer.vocabulary_modes[: k + 1]) if k < merged else ids
        total += 2 * prefixes * prod(layer.hidden_modes[: k + 1]) * layer.ranks[k] * layer.ranks[k + 1]
    return total


def interleaved_medians(functions: Mapping[str, Callable], rounds: int = 15, warmup: int = 3) -> dict[str, float]:
    """The median time of one call of each function, in milliseconds.

    The functions take turns, round after round, so that whatever else the machine does meets all of them alike:
    compare the results of one call, never of two.
    """
    whole_number("rounds", rounds)
    whole_number("warmup", warmup, minimum=0)
    seconds = {name: [] for name in functions}
    for turn in range(warmup + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def peak_bytes(function: Callable) -> int:
    """The largest number of bytes that tensors made during `function()` held at one moment.

    Counts every storage that PyTorch operations return, in forward and backward, from its creation until it is
    freed; what existed before, and scratch space inside a kernel, does not count. Exact and repeatable, on any device.
    """
    with _LiveBytes() as live:
        function()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Follows the storages that operations return by weak references."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        given = _storages((args, kwargs))
        for address, storage in _storages(result).items():
            if address not in given:  # a view or an in-place result makes nothing new
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, storage.nbytes())
        return result

    def _drop(self, size):
        self.now -= size


def _storages(tree) -> dict[int, torch.UntypedStorage]:
    """The storages of all tensors in a nest of arguments, by the address of their C++ object: not all have data."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
