"""`TTMEmbedding`: a drop-in replacement for `nn.Embedding` that never builds its table.

The format is the TT-matrix of arXiv 2306.01076: each core carries one vocabulary mode and one hidden mode.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import TTLayer
from .shapes import clip_ranks, fit_modes, whole_number
from .tensor_train import at_least_float32, balance_norms, core_ranks, tt_matrix, tt_matrix_to_matrix

# Intermediates larger than this are made, used and dropped chunk by chunk.
CHUNK_BYTES = 16 * 2**20


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
        padding_idx: this id gives zeros and no gradient. (A dense table can hold a fixed row; here all rows share the
            cores, so the one that does not move is zero.)

    Raises:
        ValueError: a size or rank below 1, modes that do not multiply out or are not equally many, a padding_idx
            outside the table.
    """

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
    ):
        super().__init__()
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
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(embedding, option):
                raise ValueError(f"an embedding with {option} needs its dense table: set {option} off first")
        table = at_least_float32(embedding.weight.detach()).clone()
        if embedding.padding_idx is not None:
            table[embedding.padding_idx] = 0
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
        )
        layer.set_cores(balance_norms(cores))
        return layer.train(embedding.training)

    @torch.no_grad()
    def to_embedding(self) -> nn.Embedding:
        """The dense table with the same rows, as the forward pass sees them."""
        table = tt_matrix_to_matrix(self.cores)[: self.num_embeddings, : self.embedding_dim].clone()
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        embedding = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=self.padding_idx)
        return embedding.train(self.training)

    def forward(self, ids: Tensor) -> Tensor:
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
            return self._rows(ids.reshape(-1)).reshape(*ids.shape, self.embedding_dim)
        return F.embedding(inverse, self._rows(distinct))

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f"padding_idx={self.padding_idx}, "
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, {padding}vocabulary_modes={self.vocabulary_modes}, "
            f"hidden_modes={self.hidden_modes}, {self._saving(self.num_embeddings * self.embedding_dim)}"
        )

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of distinct `ids`, of shape (len(ids), embedding_dim)."""
        cores, merged = self.cores, self.merged_cores(len(ids))
        prefixes = cores[0][0]  # (P, H, r): one entry for each value that the first digits of an id can take
        for core in cores[1:merged]:
            prefixes = _append(prefixes, core)
        per_id = prefixes[0].numel() + sum(core[:, 0].numel() for core in cores[merged:])
        chunk = max(1, CHUNK_BYTES // (per_id * prefixes.element_size()))
        if len(ids) <= chunk:
            rows = self._complete(ids, prefixes, *cores[merged:])
        else:  # what autograd would keep of a chunk is made again on the way back instead
            parts = ids.split(chunk)
            rows = torch.cat(
                [checkpoint(self._complete, part, prefixes, *cores[merged:], use_reentrant=False) for part in parts]
            )
        return rows[:, : self.embedding_dim]

    def merged_cores(self, ids: int) -> int:
        """How many cores are merged into a table of prefixes before `ids` distinct ids are looked up.

        Merging makes every possible prefix by one matrix product. That pays while there are at most about twice as
        many prefixes as ids: a prefix made for one id alone takes twice as long, for its slices must be gathered.
        """
        merged = 1
        while merged < self.order:
            count = prod(self.vocabulary_modes[: merged + 1])
            numbers = count * prod(self.hidden_modes[: merged + 1]) * self.ranks[merged + 1]
            if count > 2 * ids or numbers * self.core0.element_size() > CHUNK_BYTES:
                break
            merged += 1
        return merged

    def _complete(self, ids: Tensor, prefixes: Tensor, *cores: Tensor) -> Tensor:
        """Look up the prefix of each id and multiply it by the slices that the remaining digits pick."""
        tables = [prefixes.flatten(1), *(core.transpose(0, 1).flatten(1) for core in cores)]
        factors = [F.embedding(number, table) for number, table in zip(self._numbers(ids, len(cores)), tables)]
        if self.padding_idx is not None:  # one factor of zero is enough, and the last is the smallest
            factors[-1] = factors[-1].masked_fill((ids == self.padding_idx)[:, None], 0)
        rows = factors[0].reshape(len(ids), *prefixes.shape[1:])  # (n, H, r)
        for slices, core in zip(factors[1:], cores):
            (left, _, h, right), width = core.shape, rows.shape[1]
            rows = (rows @ slices.reshape(-1, left, h * right)).reshape(-1, width * h, right)
        return rows.flatten(1)

    def _numbers(self, ids: Tensor, remaining: int) -> list[Tensor]:
        """The digits of `ids`; all but the last `remaining` ones as one number, in which the first counts fastest."""
        digits, place = [], prod(self.vocabulary_modes)
        for v in self.vocabulary_modes:
            place //= v
            digits.append(ids // place % v)
        prefix, *others = digits[: self.order - remaining]
        for k, digit in enumerate(others, start=1):
            prefix = prefix + digit * prod(self.vocabulary_modes[:k])
        return [prefix, *digits[self.order - remaining :]]


def _append(prefixes: Tensor, core: Tensor) -> Tensor:
    """All prefixes one digit longer, which counts slowest: (P, H, r) and (r, v, h, r') → (v · P, H · h, r')."""
    count, width, rank = prefixes.shape
    _, v, h, right = core.shape
    repeated = prefixes.reshape(1, count * width, rank).expand(v, -1, -1)  # without a copy
    product = torch.bmm(repeated, core.flatten(2).transpose(0, 1))  # (v, P · H, h · r'): in order as it is
    return product.reshape(v * count, width * h, right)
