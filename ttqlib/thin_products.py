"""Products with thin matrices, x U V, as layers of plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVEN = 16  # columns that libraries share out well among threads


class Layers(nn.Sequential):
    """Layers that stand in the place of one linear layer: maybe a quantizer of its input, then one matrix or two.

    Some modules read the weight and the bias of their linear layers and do not call them, as T5 and Mamba do.
    """

    @property
    def weight(self) -> Tensor:
        """The matrix of all, (out_features, in_features)."""
        *first, last = self._linears()
        return last.weight @ first[0].weight if first else last.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias of all, (out_features,)."""
        *first, last = self._linears()
        if not first or first[0].bias is None:
            return last.bias
        return last.weight @ first[0].bias

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self if isinstance(layer, nn.Linear)]


def thin_pair(u: Tensor, v: Tensor, bias: Tensor | None) -> list[nn.Linear]:
    """The layers of x U V + b, or the one of x W + b where W, multiplied out, has no more entries than U and V.

    The bias rides along as one more rank: the first layer's last output is always 1, and the second layer multiplies
    that by b. So no kernel has to copy b into every row of the wide output before it adds the product.
    """
    inner, first_bias = even(len(v) + (bias is not None)), None
    if inner * (len(u) + v.shape[1]) >= len(u) * v.shape[1]:
        return [linear(u @ v, bias)]
    if bias is not None:
        first_bias = F.one_hot(torch.tensor(len(v)), inner).to(u)  # (0, …, 0, 1, 0, …)
        v = torch.cat([v, bias[None]])  # (r + 1, out_features)
    return [linear(pad(u, 1, inner), first_bias), linear(pad(v, 0, inner), None)]


def even(rank: int) -> int:
    """The multiple of EVEN above a rank where that is not far, else the rank: what zeros fill it up to.

    Shared among threads, a product with 31 columns can take twice as long as one with 32.
    """
    missing = -rank % EVEN
    return rank + missing if 3 * missing <= rank else rank


def pad(tensor: Tensor, axis: int, size: int) -> Tensor:
    """The tensor with zeros after it along an axis, up to a size."""
    zeros = tensor.new_zeros([size - n if k == axis else n for k, n in enumerate(tensor.shape)])
    return torch.cat([tensor, zeros], axis)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """The layer x ↦ x W + b, with W of shape (in_features, out_features)."""
    linear = nn.Linear(*weight.shape, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.T.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone())
    return linear
