"""What one forward pass of a model shows to a distillation: hidden states, attention, logits.

Attention is recorded where transformers computes it, as queries and keys, instead of asked for as maps. The maps that
models return have had dropout on them while they train, so that the logarithm of a dropped entry is −∞, and only
`attn_implementation="eager"` returns them at all; and relations among values could not be had by any output.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..quantizers.fake_quantization import widen
from .real_tokens import RealTokens, alone

RECORDED = "ttq_recorded"  # the name, in transformers, of the attention implementation that records
UNKNOWN = ("s_aux", "sinks", "indices", "block_indices")  # what some models pass to their attention: sinks, sparse keys


@dataclass
class Attention:
    """What one layer computes its attention from: queries, keys and values, (B, heads, T, size of a head).

    Where several queries share a key and a value (grouped queries), keys and values have fewer heads.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    causal: bool  # whether the future is hidden where there is no `mask` to say so
    mask: Tensor | None = None  # broadcasts to (B, heads, T, T): true at the keys that a query sees, or added to scores
    bias: Tensor | None = None  # added to the scores, as relative positions are
    softcap: float | None = None  # scores s become softcap · tanh(s / softcap)

    def scores(self) -> Tensor:
        """(B, heads, T, T), before the softmax, in float32 at least; the lowest number where a query sees no key."""
        return self._scores

    @cached_property
    def _scores(self) -> Tensor:
        scores = widen(self.query) @ self._repeated(self.key).mT * self.scaling
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if self.bias is not None:
            scores = scores + self.bias
        mask = self.mask
        if mask is None and self.causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is None:
            return scores
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask

    def attend(self, dropout: float) -> Tensor:
        """The output of the attention, (B, T, heads, size of a head), from `scores`."""
        weights = F.dropout(self.scores().softmax(-1), dropout)
        return (weights @ self._repeated(self.value)).transpose(1, 2).contiguous()

    def side_by_side(self, name: str) -> Tensor:
        """The "query", "key" or "value" of all heads, (B, T, heads · size of a head)."""
        return getattr(self, name).transpose(1, 2).flatten(2)

    def _repeated(self, shared: Tensor) -> Tensor:
        """Keys or values once for each head of the queries."""
        return widen(shared).repeat_interleave(self.query.shape[1] // shared.shape[1], dim=1)


@dataclass
class Observation:
    """What one forward pass shows. `attentions` are there only inside `recorded_attention`."""

    mask: Tensor  # (B, T), true at real tokens
    hidden_states: tuple[Tensor, ...]  # L + 1 tensors (B, T, hidden); the first is what the embeddings give
    attentions: tuple[Attention, ...]  # L
    logits: dict[str, Tensor]  # every output whose name ends so: (B, classes) or (B, T, classes)
    loss: Tensor | None  # the model's own, where labels were given
    tokens: RealTokens | None = None  # where padding was left out: hidden states are (1, N, hidden) then

    @property
    def states_mask(self) -> Tensor:
        """Which rows of `hidden_states` are real tokens: (B, T), or (1, N) and all true."""
        return self.mask if self.tokens is None else self.mask.new_ones(1, len(self.tokens.places))

    @property
    def last_hidden_state(self) -> Tensor:
        """(B, T, hidden), with padding."""
        last = self.hidden_states[-1]
        return last if self.tokens is None else self.tokens.pad(last)


def observe(
    forward: Callable, inputs: Mapping[str, Tensor], *, tokens: RealTokens | None = None, maps: bool = False
) -> Observation:
    """Run a model of Hugging Face, or its `forward` alone, on `inputs` and keep what it shows.

    Args:
        tokens: those that are real; the layers compute without padding then. Only inside `Unpadding`, which knows
            whether the model can.
        maps: whether the scores of all attentions will be asked for. They are computed once then, for the model too.
            Not under gradient checkpointing, which would compute the layers in the other way on the way back.

    Raises:
        ValueError: it returns no hidden states, or not one attention a layer; or its attention is computed without
            gradients though they are on, as reentrant checkpointing does.
    """
    calls: list[Attention] = []
    call, packed = _calls.set((calls, torch.is_grad_enabled(), maps)), alone.set(tokens)
    try:
        output = forward(**inputs, output_hidden_states=True, return_dict=True)
    finally:
        _calls.reset(call)
        alone.reset(packed)
    hidden_states = output.get("hidden_states")
    if not hidden_states:
        raise ValueError(f"no hidden_states came back with output_hidden_states=True, only {', '.join(output)}")
    layers = len(hidden_states) - 1
    if len(calls) not in (0, layers):
        raise ValueError(f"{len(calls)} attentions were recorded for {layers} layers: one each is needed")
    if (mask := inputs.get("attention_mask")) is None:
        mask = torch.ones(hidden_states[0].shape[:2], device=hidden_states[0].device)
    logits = {name: value for name, value in output.items() if name.endswith("logits")}
    if tokens is not None:  # the last one comes from behind the layers
        hidden_states = tuple(one if tokens.are_in(one) else tokens.pack(one) for one in hidden_states)
    loss, labels = output.get("loss"), inputs.get("labels")
    if loss is not None and labels is not None and not labels.ne(-100).any():  # the mean over no label is NaN
        loss = loss.nan_to_num(0.0)
    return Observation(mask.bool(), hidden_states, tuple(calls), logits, loss, tokens)


def records_attention(model: PreTrainedModel) -> bool:
    """Whether `recorded_attention` can be used: whether the model's attention is of transformers' exchangeable kind.

    What `scaled_dot_product_attention` cannot compute is left to the model, but for the capped scores of Gemma 2.
    """
    softcap = getattr(model.config, "attn_logit_softcapping", None)
    return model._can_set_attn_implementation() and (model._supports_sdpa or softcap is not None)


@contextmanager
def recorded_attention(*models: PreTrainedModel) -> Iterator[None]:
    """Inside, `observe` also sees the attention of these models, whatever implementation they were made with.

    It is computed by PyTorch's `scaled_dot_product_attention`, or, where scores are capped, from the recorded ones;
    afterwards the models have their own implementation back.

    Raises:
        ValueError: in a model's forward, if its attention depends on more than what `Attention` holds.
    """
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.set_attn_implementation(RECORDED)
    try:
        yield
    finally:
        for model, implementation in zip(models, before):
            model.set_attn_implementation(implementation)


# What the attentions of the present call of `observe` are added to, whether it was made with gradients on, and whether
# it wants scores. When checkpointing computes a layer once more, on the way back, that call is over: nothing is
# recorded twice.
_calls: ContextVar[tuple[list[Attention], bool, bool] | None] = ContextVar("calls", default=None)


def _attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options):
    if other := [name for name in UNKNOWN if options.get(name) is not None]:
        raise ValueError(f"the attention of a {type(module).__name__} cannot be recorded: it depends on {other[0]}")
    tokens = alone.get()
    if tokens is not None:  # (1, heads, N, size of a head)
        query, key, value = (tokens.pad(one.transpose(1, 2)).transpose(1, 2) for one in (query, key, value))
    output, weights = _recorded(module, query, key, value, attention_mask, **options)
    return output if tokens is None else tokens.pack(output), weights


def _recorded(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options):
    scaling, causal = options.get("scaling"), options.get("is_causal")
    attention = Attention(
        query,
        key,
        value,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        getattr(module, "is_causal", True) if causal is None else causal,  # as `sdpa_attention_forward` decides it
        attention_mask,
        options.get("position_bias"),
        options.get("softcap"),
    )
    wants_scores = _record(attention)
    device = query.device.type
    if wants_scores or attention.softcap is not None:
        with torch.autocast(device, enabled=False):
            return attention.attend(options.get("dropout", 0.0)).to(query.dtype), None
    if device != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # In bfloat16 PyTorch's way back through attention takes a CPU about ten times as long as in float32.
    with torch.autocast("cpu", enabled=False):
        output, weights = sdpa_attention_forward(module, *map(widen, (query, key, value)), attention_mask, **options)
    return output.to(query.dtype), weights


def _record(attention: Attention) -> bool:
    """Keep it for the present call of `observe`; whether that wants its scores."""
    if (call := _calls.get()) is None:
        return False
    calls, gradients, maps = call
    if gradients and not torch.is_grad_enabled():
        raise ValueError(
            "reentrant checkpointing would lose the gradient of recorded attention: "
            'use gradient_checkpointing_kwargs={"use_reentrant": False}'
        )
    calls.append(attention)
    return maps


AttentionInterface.register(RECORDED, _attend)
AttentionMaskInterface.register(RECORDED, sdpa_mask)
