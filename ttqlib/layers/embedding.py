"""`TTMEmbedding`: a drop-in replacement for `nn.Embedding` that never builds its table, and `TTMHead`, its other end.

The format is the TT-matrix of arXiv 2306.01076: each core carries one vocabulary mode and one hidden mode.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..inventory.kinds import row_scale
from ..tensors.gauge import balance_norms
from ..tensors.shapes import clip_ranks, fit_modes, whole_number
from ..tensors.tensor_train import at_least_float32, core_ranks, tt_matrix, tt_matrix_to_matrix
from .base import TTLayer

# Intermediates larger than this are made, used and dropped chunk by chunk.
CHUNK_BYTES = 16 * 2**20
DENSE_ONLY = ("max_norm", "scale_grad_by_freq", "sparse")  # options of an `nn.Embedding` that no train has


class TTMEmbedding(TTLayer):
    """A look-up table of shape (num_embeddings, embedding_dim), kept as a TT-matrix.

    Maps ids of any shape (...) to rows of shape (..., embedding_dim). Core k has shape (r_{k-1}, v_k, h_k, r_k). An
    id is written in the mixed radix of the v_k; its digits pick one slice a core, and the product of the slices is
    its row. Only the rows of the ids that occur are made.

    Args:
        num_embeddings, embedding_dim: shape of the table, any whole numbers of at least 1.
        rank: one TT-rank for all bonds or all d + 1 of them, clipped to what the modes can use.
        vocabulary_modes, hidden_modes: equally many mode sizes for rows and columns; by default three balanced ones
            each. A product above the size is padding, as for 30522 rows, which do not factor.
        padding_idx: looking this id up gives no gradient, as in `nn.Embedding`. Its row is a row like the others,
            which moves when the cores do: where pad is the end of a sentence too, the model reads it.
        scale: rows are multiplied by this number when they are looked up, as Gemma and BART do it; the table is not.

    Raises:
        ValueError: a size or rank below 1, modes that do not multiply out or are not equally many, a padding_idx
            outside the table.
    """

    given: Callable[[Tensor], Tensor] | None = None  # `merged_together`'s way to pick slices of the first core

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rank: int | Sequence[int],
        vocabulary_modes: Sequence[int] | None = None,
        hidden_modes: Sequence[int] | None = None,
        padding_idx: int | None = None,
        device=None,
        dtype=None,
        scale: float = 1.0,
    ):
        super().__init__()
        self.scale = scale
        self.num_embeddings = whole_number("num_embeddings", num_embeddings)
        self.embedding_dim = whole_number("embedding_dim", embedding_dim)
        self.vocabulary_modes = fit_modes("vocabulary_modes", vocabulary_modes, num_embeddings)
        self.hidden_modes = fit_modes("hidden_modes", hidden_modes, embedding_dim, largest="last")
        if len(self.vocabulary_modes) != len(self.hidden_modes):
            raise ValueError(
                f"vocabulary_modes and hidden_modes must be equally many, "
                f"got {self.vocabulary_modes} and {self.hidden_modes}"
            )
        allowed = range(-num_embeddings, num_embeddings)  # a negative one counts from the end, as in nn.Embedding
        if padding_idx is not None and (isinstance(padding_idx, bool) or padding_idx not in allowed):
            raise ValueError(f"padding_idx must be one of the {num_embeddings} rows, got {padding_idx!r}")
        self.padding_idx = None if padding_idx is None else int(padding_idx) % num_embeddings
        modes = list(zip(self.vocabulary_modes, self.hidden_modes, strict=True))
        ranks = clip_ranks([v * h for v, h in modes], rank)
        self._make_cores([(ranks[k], v, h, ranks[k + 1]) for k, (v, h) in enumerate(modes)], device, dtype)
        self.reset_parameters()

    def reset_parameters(self, std: float = 1.0) -> None:
        """Random cores that give the table entries of standard deviation `std`; 1, as in `nn.Embedding`."""
        self._init_cores(std)

    @classmethod
    def from_embedding(
        cls,
        embedding: nn.Embedding,
        rank: int | Sequence[int] | None = None,
        tolerance: float | None = None,
        vocabulary_modes: Sequence[int] | None = None,
        hidden_modes: Sequence[int] | None = None,
    ) -> "TTMEmbedding":
        """The TT-matrix of a dense table, its core norms balanced; padding_idx, dtype, device and mode are kept.

        The cores are trainable, also where the dense table was frozen. Give either `rank` or `tolerance`, as in
        `tt_matrix`.

        Raises:
            ValueError: the embedding uses max_norm, scale_grad_by_freq or sparse gradients, which need a dense table.
        """
        for option in DENSE_ONLY:
            if getattr(embedding, option):
                raise ValueError(f"an embedding with {option} needs its dense table: set {option} off first")
        table = at_least_float32(embedding.weight.detach())
        vocabulary_modes = fit_modes("vocabulary_modes", vocabulary_modes, len(table))
        hidden_modes = fit_modes("hidden_modes", hidden_modes, table.shape[1], largest="last")
        padding = (0, prod(hidden_modes) - table.shape[1], 0, prod(vocabulary_modes) - len(table))
        cores = tt_matrix(F.pad(table, padding), vocabulary_modes, hidden_modes, rank, tolerance)
        layer = cls(
            *table.shape,
            core_ranks(cores),
            vocabulary_modes,
            hidden_modes,
            embedding.padding_idx,
            device=table.device,
            dtype=embedding.weight.dtype,
            scale=row_scale(embedding),
        )
        layer.set_cores(balance_norms(cores))
        return layer.train(embedding.training)

    @torch.no_grad()
    def to_embedding(self) -> nn.Embedding:
        """The dense table that looks up the same rows: a scale is multiplied into it."""
        embedding = nn.Embedding.from_pretrained(self.scale * self.weight, freeze=False, padding_idx=self.padding_idx)
        return embedding.train(self.training)

    @property
    def weight(self) -> Tensor:
        """The table, (num_embeddings, embedding_dim), without the scale. All of it: `rows` makes only some."""
        return tt_matrix_to_matrix(self.cores)[: self.num_embeddings, : self.embedding_dim]

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these ids, times the scale: (...) → (..., embedding_dim).

        Raises:
            TypeError: ids that are neither int64 nor int32.
            IndexError: an id outside the table.
        """
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int64 or int32, got {ids.dtype}")
        distinct, inverse = torch.unique(ids, return_inverse=True)  # sorted: the ends are the extremes
        if len(distinct):
            least, most = distinct[[0, -1]].tolist()
            if not 0 <= least <= most < self.num_embeddings:
                raise IndexError(
                    f"ids must lie in 0 … {self.num_embeddings - 1}; the smallest here is {least}, the largest {most}"
                )
        if 4 * len(distinct) > 3 * ids.numel():  # making a few rows twice takes less than looking all of them up
            return self._looked_up(ids.reshape(-1)).reshape(*ids.shape, self.embedding_dim)
        return F.embedding(inverse, self._looked_up(distinct))

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f"padding_idx={self.padding_idx}, "
        padding += "" if self.scale == 1 else f"scale={self.scale:g}, "
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, {padding}vocabulary_modes={self.vocabulary_modes}, "
            f"hidden_modes={self.hidden_modes}, {self._saving(self.num_embeddings * self.embedding_dim)}"
        )

    def _looked_up(self, ids: Tensor) -> Tensor:
        rows = self.rows(ids)
        if self.padding_idx is not None and rows.requires_grad:
            padding = (ids == self.padding_idx)[:, None]
            rows.register_hook(lambda gradient: gradient.masked_fill(padding, 0))  # costs nothing on the way there
        return rows if self.scale == 1 else rows * self.scale

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of the table for `ids`, (N,): (N, embedding_dim), without the scale and with every gradient."""
        merged = self.merged_cores(len(ids))
        pick = self.given if merged == 1 and self.given is not None else self._prefixes(merged)
        cores = [getattr(self, f"core{k}") for k in range(merged, self.order)]
        per_id = prod(self.hidden_modes[:merged]) * self.ranks[merged]
        per_id += sum(core[:, 0].numel() for core in cores if core.shape[1] > 1)
        chunk = max(1, CHUNK_BYTES // (per_id * next(self.parameters()).element_size()))
        if len(ids) <= chunk:
            rows = self._complete(ids, pick, *cores)
        else:  # what autograd would keep of a chunk is made again on the way back instead
            parts = ids.split(chunk)
            rows = torch.cat([checkpoint(self._complete, part, pick, *cores, use_reentrant=False) for part in parts])
        return rows[:, : self.embedding_dim]

    def _prefixes(self, merged: int) -> Callable[[Tensor], Tensor]:
        """How the products of the first cores' slices are picked, by the number of a prefix: from a table of all."""
        prefixes = self.core0[0]  # (P, H, r): one entry for each value that the first digits of an id can take
        for k in range(1, merged):
            prefixes = _append(prefixes, getattr(self, f"core{k}"))
        return partial(F.embedding, weight=prefixes.flatten(1))

    def merged_cores(self, ids: int) -> int:
        """How many cores are merged into a table of prefixes before `ids` distinct ids are looked up.

        Merging makes every possible prefix by one matrix product. That pays while there are at most about twice as
        many prefixes as ids: a prefix made for one id alone takes twice as long, for its slices must be gathered.
        """
        merged = 1
        while merged < self.order:
            count = prod(self.vocabulary_modes[: merged + 1])
            numbers = count * prod(self.hidden_modes[: merged + 1]) * self.ranks[merged + 1]
            if count > 2 * ids or numbers * next(self.parameters()).element_size() > CHUNK_BYTES:
                break
            merged += 1
        return merged

    def _complete(self, ids: Tensor, pick: Callable[[Tensor], Tensor], *cores: Tensor) -> Tensor:
        """Look up the prefix of each id and multiply it by the slices that the remaining digits pick.

        A core with one vocabulary mode, as in a low-rank table, has one slice for all: no copies, one thin product.
        """
        number, *digits = self._numbers(ids, len(cores))
        bond = self.ranks[self.order - len(cores)]
        rows = pick(number)  # (n, H · r)
        rows = rows.reshape(len(ids), rows.shape[1] // bond, bond)
        for digit, core in zip(digits, cores):
            left, v, h, right = core.shape
            if v == 1:
                slices = core.reshape(left, h * right)
            else:
                slices = F.embedding(digit, core.transpose(0, 1).flatten(1)).reshape(-1, left, h * right)
            rows = (rows @ slices).reshape(len(ids), rows.shape[1] * h, right)
        return rows.flatten(1)

    def _numbers(self, ids: Tensor, remaining: int) -> list[Tensor]:
        """What each of the tables is asked for: the number of an id's prefix, and its last `remaining` digits.

        In an id the last digit counts fastest, i = (i_1 v_2 + i_2) v_3 + … + i_d. Among prefixes it is the first one,
        i_1 + i_2 v_1 + i_3 v_1 v_2 + …, since `_append` puts the entries of a new digit after all that were there.
        """
        modes, merged = self.vocabulary_modes, self.order - remaining
        digits = [ids // prod(modes[k + 1 :]) % modes[k] for k in range(self.order)]
        prefix = digits[0]
        for k in range(1, merged):
            prefix = prefix + digits[k] * prod(modes[:k])
        return [prefix, *digits[merged:]]


class TTMHead(nn.Module):
    """h ↦ h Eᵀ + b: a score for every word, from the table E that a `TTMEmbedding` looks words up in.

    Language models tie their two ends: one table, stored and trained once. Maps (..., embedding_dim) to
    (..., num_embeddings). The table is made block by block of rows, on the way back too, and never stands as a whole.

    Args:
        table: the embedding at the other end; a module of both.
        bias: (num_embeddings,) or None.
    """

    def __init__(self, table: TTMEmbedding, bias: nn.Parameter | None = None):
        super().__init__()
        self.table, self.bias = table, bias
        self.in_features, self.out_features = table.embedding_dim, table.num_embeddings

    @property
    def weight(self) -> Tensor:
        """The whole table, for whoever reads it."""
        return self.table.weight

    def forward(self, h: Tensor) -> Tensor:
        """The scores of all words: (..., embedding_dim) → (..., num_embeddings).

        A block is all words with one of a few first digits: they follow each other, and share their products of slices.
        """
        first, *others = self.table.cores
        words = prod(self.table.vocabulary_modes[1:])  # with one and the same first digit
        digits = max(1, CHUNK_BYTES // (words * self.in_features * first.element_size()))
        blocks = range(0, self.out_features, digits * words)
        if len(blocks) == 1:
            scores = self._block(h, self.out_features, first, *others)
        else:
            scores = torch.cat(
                [
                    checkpoint(self._block, h, self.out_features - start, part, *others, use_reentrant=False)
                    for start, part in zip(blocks, first.split(digits, dim=1))  # there may be more parts than words
                ],
                dim=-1,
            )
        return scores if self.bias is None else scores + self.bias

    def _block(self, h: Tensor, left: int, *cores: Tensor) -> Tensor:
        """The scores of the words that these cores stand for, of which only `left` may exist."""
        return F.linear(h, tt_matrix_to_matrix(cores)[:left, : self.in_features])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def _append(prefixes: Tensor, core: Tensor) -> Tensor:
    """All prefixes one digit longer, which counts slowest: (P, H, r) and (r, v, h, r') → (v · P, H · h, r')."""
    count, width, rank = prefixes.shape
    _, v, h, right = core.shape
    repeated = prefixes.reshape(1, count * width, rank).expand(v, -1, -1)  # without a copy
    product = torch.bmm(repeated, core.flatten(2).transpose(0, 1))  # (v, P · H, h · r'): in order as it is
    return product.reshape(v * count, width * h, right)
