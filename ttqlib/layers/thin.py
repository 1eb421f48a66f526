"""Products with thin matrices, x U V, as layers of plain PyTorch, and look-ups in a product of two matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import TTMEmbedding

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


class HalfMergedEmbedding(nn.Module):
    """The look-up table of a TT-matrix, whose cores are merged to two: row i is prefixes[i // S] @ suffixes[i mod S].

    Maps ids of any shape (...) to rows of shape (..., embedding_dim), for a product of two small matrices an id. S is
    the number of suffixes. `prefixes` holds matrices of shape (width, rank), `suffixes` of shape (rank, width'), each
    flattened to the row of an `nn.Embedding`. Looking `padding_idx` up gives no gradient, as in `TTMEmbedding`.

    Raises:
        IndexError: an id outside the table.
    """

    def __init__(self, prefixes: Tensor, suffixes: Tensor, like: TTMEmbedding):
        super().__init__()
        self.num_embeddings, self.embedding_dim = like.num_embeddings, like.embedding_dim
        self.padding_idx, self.scale, self.rank = like.padding_idx, like.scale, suffixes.shape[1]
        self.prefixes = nn.Embedding.from_pretrained(prefixes.flatten(1).clone(), freeze=False)  # (P, width · rank)
        self.suffixes = nn.Embedding.from_pretrained(suffixes.flatten(1).clone(), freeze=False)  # (S, rank · width')

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these ids, times the scale: (...) → (..., embedding_dim)."""
        if not torch.compiler.is_compiling():  # ids of padding rows would find something, as in no plain table
            self._check(ids)
        flat = ids.reshape(-1)
        left = self.prefixes(flat // self.suffixes.num_embeddings).unflatten(1, (-1, self.rank))
        right = self.suffixes(flat % self.suffixes.num_embeddings).unflatten(1, (self.rank, -1))
        rows = (left @ right).flatten(1)[:, : self.embedding_dim]
        if self.padding_idx is not None and rows.requires_grad:
            padding = (flat == self.padding_idx)[:, None]
            rows.register_hook(lambda gradient: gradient.masked_fill(padding, 0))
        rows = rows if self.scale == 1 else rows * self.scale
        return rows.reshape(*ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}, rank={self.rank}"

    def _check(self, ids: Tensor) -> None:
        if ids.numel() and not 0 <= ids.min() <= ids.max() < self.num_embeddings:
            raise IndexError(
                f"ids must lie in 0 … {self.num_embeddings - 1}; "
                f"the smallest here is {int(ids.min())}, the largest {int(ids.max())}"
            )
