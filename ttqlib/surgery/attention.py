"""`LatentAttention`: BERT's attention when its weights are thin products, with keys and values that all heads share."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertAttention, BertSelfAttention

from ..layers.linear import TTLinear
from ..layers.thin import even, linear, pad, thin_pair
from ..tensors.tensor_train import at_least_float32

IMPLEMENTATIONS = ("sdpa", "eager")


class LatentAttention(BertSelfAttention):
    """BERT's self-attention among the ranks of its weights, each a thin product W = U V.

    Let z = x U be the latents of queries, keys and values, r numbers a token, and V_h the columns of head h. Its scores

        (z_q V_qh + b_qh) (z_k V_kh + b_kh)ᵀ = ((z_q V_qh + b_qh) V_khᵀ) z_kᵀ + what is the same for every key

    need V_k on the side of the queries only, and the softmax does not see the last term. As its weights p sum to 1,
    what a head gives is p (z_v V_vh + b_vh) = (p z_v) V_vh + b_vh, and V_vh and b_vh can wait for the output layer. So
    every head compares r numbers instead of its own d, and keys and values, z_k and z_v, are computed once for all of
    them. The same rewriting makes multi-head latent attention cheap (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).

    Maps hidden states (B, T, n) to (B, T, heads · width), which the layer after it has to expect, and to the attention
    maps (B, heads, T, T) where the model's attention is "eager", else None.

    A mask that hides the same keys from every query needs no pass over the scores of all heads: where z_k has a number
    to spare, which `queries` answers with 1, the mask is that number. `masked_in_latents` says that masks are of this
    kind, as those made from (B, T) are; it is for exports.

    Args:
        like: the attention in whose place this one stands; its weights are not read.
        latents: x ↦ (z_q, z_k, z_v); the last two of `width` numbers, the first of what `queries` takes.
        queries: z_q ↦ what the heads compare with z_k, scaled: heads · width numbers.
        spare: which number of z_k the mask may be, if there is one.

    Raises:
        ValueError: `forward`, where the model has been set to another attention than "sdpa" or "eager".
    """

    def __init__(self, like: BertSelfAttention, latents: nn.Linear, queries: nn.Linear, spare: int | None = None):
        with torch.device("meta"):  # what is made here is thrown away
            super().__init__(like.config, layer_idx=like.layer_idx)
        del self.query, self.key, self.value
        self.latents, self.queries, self.dropout = latents, queries, like.dropout
        self.attention_head_size = queries.out_features // self.num_attention_heads
        self.all_head_size = queries.out_features
        self.spare, self.masked_in_latents = spare, False

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options
    ) -> tuple[Tensor, Tensor | None]:
        """What all heads say, (B, T, heads · width), and the attention maps, (B, heads, T, T), if it is "eager"."""
        if self.config._attn_implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention of a fused model must be one of {', '.join(IMPLEMENTATIONS)}, "
                f"got {self.config._attn_implementation}: model.set_attn_implementation('sdpa') sets it back"
            )
        width = self.attention_head_size
        if self.masked_in_latents and self.spare is not None and attention_mask is not None:
            latents, attention_mask = self._masked(hidden_states, attention_mask), None
        else:
            latents = self.latents(hidden_states)
        query, keys, values = latents.split([self.queries.in_features, width, width], dim=-1)
        queries = self.queries(query).unflatten(-1, (self.num_attention_heads, width))  # (B, T, heads, width)
        if self.config._attn_implementation == "eager":
            mixed, maps = self._with_maps(queries, keys, values, attention_mask)
        else:
            mixed, maps = self._without_maps(queries, keys, values, attention_mask), None
        return mixed.reshape(*hidden_states.shape[:-1], self.all_head_size), maps

    def _masked(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """The latents, a mask of shape (B, 1, T, T) among them; bias and mask make one sum, the same in every layer."""
        place = F.one_hot(torch.tensor(self.queries.in_features + self.spare), self.latents.out_features)
        return F.linear(hidden_states, self.latents.weight) + (self.latents.bias + mask[:, 0, 0, :, None] * place)

    def _with_maps(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """All heads in one product: (B, T · heads, width), (B, width, T) → (B, T · heads, T)."""
        by_head = (-1, self.num_attention_heads)
        scores = queries.flatten(1, 2) @ keys.mT
        if mask is not None:  # from (B, 1 or heads, T or 1, T)
            scores = (scores.unflatten(1, by_head) + mask.transpose(1, 2)).flatten(1, 2)
        maps = F.dropout(scores.softmax(-1), self.dropout.p, self.training)
        return maps @ values, maps.unflatten(1, by_head).transpose(1, 2)

    def _without_maps(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """The same without a matrix of maps: heads are batched, or where no mask is, one with all their queries."""
        queries = queries.flatten(1, 2)[:, None] if mask is None else queries.transpose(1, 2)
        if keys.is_cuda:  # whose kernel wants every row to begin at a multiple of 16 bytes
            keys, values = keys.contiguous(), values.contiguous()
        keys, values = (part[:, None].expand(-1, queries.shape[1], -1, -1) for part in (keys, values))
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask, dropout, scale=1.0)
        return mixed if mask is None else mixed.transpose(1, 2)


def can_absorb(attention: BertAttention) -> bool:
    """Whether this is plain self-attention of four `TTLinear`, whose latents are narrower than its heads."""
    own = attention.self
    if type(own) is not BertSelfAttention or own.is_decoder or own.is_causal:
        return False
    layers = (own.query, own.key, own.value, attention.output.dense)
    plain = all(isinstance(layer, TTLinear) and not hasattr(layer, "input_quantizer") for layer in layers)
    return plain and _width(own) < own.attention_head_size


def absorbed(attention: BertAttention) -> tuple[LatentAttention, list[nn.Linear]]:
    """What becomes of the attention and of the output layer after it, which takes (B, T, heads · width).

    The letters are those of `LatentAttention`: r_q, r_k, r_v and r_o the ranks of queries, keys, values and output.
    """
    own, output, width = attention.self, attention.output.dense, _width(attention.self)
    by_head = (own.num_attention_heads, own.attention_head_size)
    (uq, vq, bq), (uk, vk, _), (uv, vv, bv), (uo, vo, bo) = map(_parts, (own.query, own.key, own.value, output))
    vq = torch.cat([vq, bq[None]])  # the bias is one more rank, and its latent always 1
    vq, vk, vv = (v.unflatten(1, by_head) for v in (vq, vk, vv))  # (r, heads, d)
    turn = torch.einsum("qhd,khd->qhk", vq, vk) * own.scaling  # (r_q + 1, heads, r_k): V_q V_kᵀ of every head
    mix = torch.einsum("vhd,hdr->hvr", vv, uo.unflatten(0, by_head))  # (heads, r_v, r_o): V_v U_o of every head
    # one layer gives z_q, the 1 of the bias, z_k and z_v side by side, each filled up with zeros
    inner = even(len(vq))
    u = torch.cat([pad(uq, 1, inner), pad(uk, 1, width), pad(uv, 1, width)], dim=1)
    latents = linear(u, F.one_hot(torch.tensor(len(vq) - 1), u.shape[1]).to(u))
    turn, spare = pad(pad(turn, 2, width), 0, inner), len(vk) if len(vk) < width else None
    if spare is not None:  # z_k is 0 there: what the queries say counts only once a mask takes the place
        turn[len(vq) - 1, :, spare] = 1
    queries = linear(turn.flatten(1), None)
    # b_v comes out as it is, since the weights p sum to 1: it goes into the bias of the output layer
    outputs = thin_pair(pad(mix, 1, width).flatten(0, 1), vo, bo + bv @ uo @ vo)
    dtype, attention = own.query.core0.dtype, LatentAttention(own, latents, queries, spare)
    return attention.to(dtype).train(own.training), [part.to(dtype) for part in outputs]


def _width(own: BertSelfAttention) -> int:
    """How many numbers heads compare and mix: the ranks of keys and values, filled up with zeros."""
    return even(max(layer.ranks[len(layer.in_modes)] for layer in (own.key, own.value)))


def _parts(layer: TTLinear) -> Iterator[Tensor]:
    """U, V and b of x U V + b, b zero where there is none."""
    bias = layer.core0.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return map(at_least_float32, (*layer.sides(), bias))
