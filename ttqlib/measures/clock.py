"""What a call costs while it runs: time, beside others, and memory."""

import math
import statistics
import time
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import timer  # waits for a graphics card to have done what it was given

from ..tensors.shapes import whole_number


def interleaved_medians(
    functions: Mapping[str, Callable], rounds: int = 15, warmup: int = 3, settle: float = 0.0
) -> dict[str, float]:
    """The median time of one call of each function, in milliseconds.

    The functions take turns, round after round, so that whatever else the machine does meets all of them alike:
    compare the results of one call, never of two.

    Args:
        settle: seconds of rest before each timed call, then an untimed call of the same function. Needed where
            functions keep threads of their own, as PyTorch and onnxruntime do: after a call these go on spinning for a
            while, at the cost of whoever is next. experiments/speed.py takes 0.02; 0 does neither.

    Raises:
        ValueError: `rounds` or `warmup` is no whole number of at least 1 or 0, or `settle` no number from 0 on.
    """
    whole_number("rounds", rounds)
    whole_number("warmup", warmup, minimum=0)
    if not 0 <= settle < math.inf:
        raise ValueError(f"settle must be a number of seconds of at least 0, got {settle!r}")
    seconds = {name: [] for name in functions}
    for turn in range(warmup + rounds):
        for name, function in functions.items():
            if settle:
                time.sleep(settle)
                function()
            start = timer()
            function()
            if turn >= warmup:
                seconds[name].append(timer() - start)
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
    tensors = [part for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) for part in _dense_parts(leaf)]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """The tensor itself; of a sparse one, such as the gradient of `nn.Embedding(…, sparse=True)`, what it stores."""
    return [tensor._indices(), tensor._values()] if tensor.layout is torch.sparse_coo else [tensor]
