"""What one forward pass of a model shows to a distillation: hidden states, attention, logits.

Attention is recorded where transformers computes it, as queries and keys, instead of asked for as maps. The maps that
models return have had dropout on them while they train, so that the logarithm of a dropped entry is −∞, and only
`attn_implementation="eager"` returns them at all; and relations among values could not be had by any output.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .fake_quantization import widen

RECORDED = "ttq_recorded"  # the name, in transformers, of the attention implementation that records


@dataclass
class Attention:
    """What one layer computes its attention from: queries, keys and values, (B, heads, T, size of a head)."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    causal: bool

    def scores(self) -> Tensor:
        """(B, heads, T, T), before the softmax. Padding is not masked."""
        scores = widen(self.query) @ widen(self.key).mT * self.scaling
        if not self.causal:
            return scores
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, torch.finfo(scores.dtype).min)

    def side_by_side(self, name: str) -> Tensor:
        """The "query", "key" or "value" of all heads, (B, T, heads · size of a head)."""
        return getattr(self, name).transpose(1, 2).flatten(2)


@dataclass
class Observation:
    """What one forward pass shows. `attentions` are there only inside `recorded_attention`."""

    mask: Tensor  # (B, T), true at real tokens
    hidden_states: tuple[Tensor, ...]  # L + 1 tensors (B, T, hidden); the first is what the embeddings give
    attentions: tuple[Attention, ...]  # L
    logits: dict[str, Tensor]  # every output whose name ends so: (B, classes) or (B, T, classes)
    loss: Tensor | None  # the model's own, where labels were given


def observe(forward: Callable, inputs: Mapping[str, Tensor]) -> Observation:
    """Run a model of Hugging Face, or its `forward` alone, on `inputs` and keep what it shows.

    Raises:
        ValueError: it returns no hidden states, or not one attention a layer.
    """
    calls: list[Attention] = []
    token = _calls.set(calls)
    try:
        output = forward(**inputs, output_hidden_states=True, return_dict=True)
    finally:
        _calls.reset(token)
    hidden_states = output.get("hidden_states")
    if not hidden_states:
        raise ValueError(f"no hidden_states came back with output_hidden_states=True, only {', '.join(output)}")
    layers = len(hidden_states) - 1
    if len(calls) not in (0, layers):
        raise ValueError(f"{len(calls)} attentions were recorded for {layers} layers: one each is needed")
    if (mask := inputs.get("attention_mask")) is None:
        mask = torch.ones(hidden_states[0].shape[:2], device=hidden_states[0].device)
    logits = {name: value for name, value in output.items() if name.endswith("logits")}
    return Observation(mask.bool(), hidden_states, tuple(calls), logits, output.get("loss"))


def records_attention(model: PreTrainedModel) -> bool:
    """Whether `recorded_attention` can be used: whether the model's attention is of transformers' exchangeable kind."""
    return model._can_set_attn_implementation()


@contextmanager
def recorded_attention(*models: PreTrainedModel) -> Iterator[None]:
    """Inside, `observe` also sees the attention of these models, whatever implementation they were made with.

    It is computed by PyTorch's `scaled_dot_product_attention`; afterwards they have their own implementation back.
    """
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.set_attn_implementation(RECORDED)
    try:
        yield
    finally:
        for model, implementation in zip(models, before):
            model.set_attn_implementation(implementation)


# What the attentions of the present call of `observe` are added to.
_calls: ContextVar[list[Attention] | None] = ContextVar("calls", default=None)


def _attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options):
    calls = _calls.get()
    if calls is not None:
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        calls.append(Attention(query, key, value, scaling, getattr(module, "is_causal", False)))
    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # In bfloat16 PyTorch's way back through attention takes a CPU about ten times as long as in float32.
    with torch.autocast("cpu", enabled=False):
        output, weights = sdpa_attention_forward(module, *map(widen, (query, key, value)), attention_mask, **options)
    return output.to(query.dtype), weights


AttentionInterface.register(RECORDED, _attend)
AttentionMaskInterface.register(RECORDED, sdpa_mask)
