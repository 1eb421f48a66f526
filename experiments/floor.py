"""The floor of a computation: what its matrix products and look-ups alone would take on this machine, at best.

floor = FLOPs / measured rate of matrix products + bytes / measured rate of copying. Everything else, such as norms,
activation functions, additions and transposed copies, could in principle be done on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import ttqlib as ttq

aten = torch.ops.aten
PRODUCTS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
}
SIZE, COPIED = 1024, 2**26  # a square matrix product; bytes of a copy, more than any cache holds


class Work(TorchDispatchMode):
    """Counts, of all that runs inside, the FLOPs of matrix products and the bytes that these and look-ups touch.

    Each tensor is read or written once a pass, however often it is used in it; forward and backward are two passes. A
    look-up reads the rows that it returns.
    """

    def __init__(self):
        super().__init__()
        self.flops = self.bytes = 0
        self._touched = {}  # holding on to the storages keeps their addresses from being given to others

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        kind = operation.overloadpacket
        if kind in PRODUCTS:
            self.flops += PRODUCTS[kind](*args, **(kwargs or {}), out_val=result)
            self._touch(args, result)
        elif kind is aten.embedding:
            self.bytes += result.nbytes
            self._touch(result)
        elif kind is aten.embedding_dense_backward:
            self._touch(args[0], result)
        return result

    def _touch(self, *tensors) -> None:
        backward = torch._C._current_graph_task_id() != -1
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = backward, storage._cdata
                if key not in self._touched:
                    self._touched[key] = storage
                    self.bytes += min(tensor.nbytes, storage.nbytes())


@dataclass(frozen=True)
class Rates:
    """What this machine does at best, measured on the threads that are in use."""

    flops: float  # a second, of float32 matrix products
    bytes: float  # a second, read or written

    @classmethod
    def measured(cls, device: str = "cpu", rounds: int = 15) -> "Rates":
        a, b = torch.randn(2, SIZE, SIZE, device=device)
        source = torch.ones(COPIED // 4, device=device)
        product, target = torch.empty_like(a), torch.empty_like(source)
        copies = {"product": lambda: torch.mm(a, b, out=product), "copy": lambda: target.copy_(source)}
        milliseconds = ttq.interleaved_medians(copies, rounds)
        return cls(2e3 * SIZE**3 / milliseconds["product"], 2e3 * COPIED / milliseconds["copy"])

    def floor(self, flops: int, size: int) -> float:
        """The floor of that many FLOPs and bytes, in milliseconds."""
        return 1e3 * (flops / self.flops + size / self.bytes)


def work(run: Callable) -> Work:
    """What one call of `run` has to do."""
    with Work() as counted:
        run()
    return counted
