"""What a call has to compute and to move, operation by operation, and how long: at best, and if nothing overlaps.

The roofline is the best: an operation computes while it moves. Kernels of a CPU do that in part, and each has to be
called first; `Machine.expected` is the sum of all three.

Source: S. Williams, A. Waterman and D. Patterson, "Roofline", Communications of the ACM 52(4), 2009.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .clock import interleaved_medians

FLOAT32 = 4  # bytes
CALLS = 100  # of a small layer, which are timed as one


@dataclass(frozen=True)
class Work:
    """FLOPs to do, and bytes to read or write, each once."""

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Machine:
    """What a machine does at best: FLOPs a second in large matrix products, bytes a second in large copies.

    `call` are the seconds that an operation takes before it does anything.
    """

    flops: float
    bytes: float
    call: float = 0.0

    def seconds(self, work: Work) -> float:
        """No less than computing takes, and no less than moving takes, if both go on at the same time."""
        return max(work.flops / self.flops, work.bytes / self.bytes)

    def total(self, works: Iterable[Work]) -> float:
        """Seconds of operations that follow each other, at best."""
        return sum(map(self.seconds, works))

    def expected(self, works: Iterable[Work]) -> float:
        """Seconds of operations that follow each other, if each is called, then moves, and then computes."""
        return sum(self.call + work.bytes / self.bytes + work.flops / self.flops for work in works)

    def roof(self, intensity: float) -> float:
        """FLOPs a second at best, for work of that many FLOPs a byte."""
        return min(self.flops, intensity * self.bytes)


def this_machine(size: int = 512) -> Machine:
    """What the machine that this runs on does at best, measured for a moment: a large product, a large copy, calls.

    A busy machine seems slower than it is.
    """
    one, other = torch.ones(2, size, size)
    source = torch.ones(2**22)
    target = torch.empty_like(source)
    layer, row = nn.Linear(8, 8).requires_grad_(False), torch.ones(1, 8)
    work = {"product": lambda: one @ other, "copy": lambda: target.copy_(source)}
    work["calls"] = lambda: [layer(row) for _ in range(CALLS)]
    took = interleaved_medians(work, rounds=7, warmup=1)  # milliseconds
    return Machine(2e3 * size**3 / took["product"], 2e3 * source.nbytes / took["copy"], took["calls"] / CALLS / 1e3)


def layer_work(inputs: int, outputs: int, rows: int, rank: int | None = None) -> Work:
    """The work of y = x W on `rows` rows of float32, or of y = (x U) V where there is a rank."""
    if rank is None:
        numbers = rows * (inputs + outputs) + inputs * outputs
        return Work(2 * rows * inputs * outputs, FLOAT32 * numbers)
    numbers = rows * (inputs + rank + outputs) + rank * (inputs + outputs)
    return Work(2 * rows * rank * (inputs + outputs), FLOAT32 * numbers)


def traced_work(function: Callable) -> list[Work]:
    """The work of each operation that runs in `function()`, in order. On the meta device nothing is computed for it.

    Products and convolutions have the FLOPs of `torch.utils.flop_counter`, all else has none, and moves what it takes
    and gives. What only looks at its input in another way (a view) is no work. Attention is traced as two products on
    the meta device; the CPU's one kernel for it is unknown to that counter.
    """
    with torch.no_grad(), _Works() as traced:
        function()
    return traced.found


class _Works(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found: list[Work] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if not operation.is_view and (made := _tensors(result)):
            count = flop_registry.get(operation.overloadpacket)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            self.found.append(Work(flops, sum(one.nbytes for one in (*_tensors((args, kwargs)), *made))))
        return result


def _tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
