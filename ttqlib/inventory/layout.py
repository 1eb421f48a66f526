"""Which axis of a weight is a row: whose sum of products one output is. Quantizers share scales by rows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .kinds import expert_weights, own_parameters

TRANSPOSED_EXPERTS = ("Llama4TextExperts",)  # (experts, in, out); others say so themselves


@dataclass(frozen=True)
class Layout:
    """How a weight is read as a matrix whose rows are channels: what one output of a layer is made with.

    As it stands where neither is set: (out, in) of `nn.Linear`, (rows, width) of a table, (r, n, r') of a core.
    """

    columns: bool = False  # the outputs are the last axis: (in, out) of transformers' Conv1D
    experts: bool = False  # (experts, out, in): every expert has channels of its own

    def rows(self, weight: Tensor) -> Tensor:
        weight = weight.mT if self.columns else weight
        return weight.flatten(0, 1) if self.experts else weight

    def weight(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `rows`, for a weight of this shape."""
        weight = rows.unflatten(0, (shape[0], -1)) if self.experts else rows
        return weight.mT if self.columns else weight


PLAIN = Layout()


def layout_of(module: nn.Module, name: str) -> Layout:
    """Where the channels of a module's own parameter are."""
    if name in expert_weights(module):
        columns = getattr(module, "is_transposed", type(module).__name__.endswith(TRANSPOSED_EXPERTS))
        return Layout(columns, dict(own_parameters(module))[name].ndim == 3)
    return Layout(columns=isinstance(module, Conv1D) and name == "weight")
