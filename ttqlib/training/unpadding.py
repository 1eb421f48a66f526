"""A distillation without padding: layers compute real tokens only, all sentences in one row; attention pads them again.

Of the tokens of a shuffled batch of SST-2 two thirds are padding, and all that a layer does but attention is done for
each token alone. Embeddings and heads see the batch as it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..inventory.stacks import stack_of
from ..quantizers.activations import StaticActivationQuantizer
from ..surgery.calibration import eval_mode
from .observation import Observation, observe, records_attention
from .real_tokens import RealTokens, alone

WORTH = 0.9  # the share of real tokens above which a batch is computed as it is
CLOSE = 1e-2  # how far apart the same may lie: activations are rounded, and some of them to another level


class Unpadding:
    """Inside, `tokens` gives what `observe` needs to leave padding out, where these models show the same without it.

    Whether they do is not known by their names but tried, once, on the first batch with enough padding: hidden states
    and logits must be the same to a hundredth, since activations may be rounded. Models whose attention cannot be
    recorded, whose layers are in no `nn.ModuleList`, that count places inside them, as T5, or that calibrate step
    sizes of activations on what a whole batch holds, compute padding as before. So do all under gradient
    checkpointing, which computes layers once more when the batch is forgotten.
    """

    def __init__(self, *models: PreTrainedModel):
        self.models = models
        self._works: bool | None = None  # not tried yet

    def __enter__(self) -> "Unpadding":
        self._hooks, self._works = [], None
        for model in self.models:
            layers, owner = stack_of(model) or ((), None)
            if not layers or not records_attention(model):
                self._works = False
                continue
            self._hooks += [layer.register_forward_pre_hook(_packed, with_kwargs=True) for layer in layers]
            self._hooks.append(owner.register_forward_hook(_padded))
        return self

    def __exit__(self, *error) -> None:
        for hook in self._hooks:
            hook.remove()

    def tokens(self, *inputs: Mapping[str, Tensor]) -> RealTokens | None:
        """The real tokens of a batch, which each model gets as its own `inputs`; None where padding is to stay."""
        mask = inputs[0].get("attention_mask")
        if self._works is False or mask is None or mask.ndim != 2 or mask.sum() > WORTH * mask.numel():
            return None
        tokens = RealTokens(mask.bool())
        if self._works is None:
            tried = (shows_the_same(model, own, tokens) for model, own in zip(self.models, inputs))
            self._works = not any(map(_needs_padding, self.models)) and all(tried)
        return tokens if self._works else None


@torch.no_grad()
def shows_the_same(model: PreTrainedModel, inputs: Mapping[str, Tensor], tokens: RealTokens) -> bool:
    """Whether a model shows the same hidden states and logits without padding, in eval mode."""
    try:
        with eval_mode(model):
            plain, packed = observe(model, inputs), observe(model, inputs, tokens=tokens)
    except (RuntimeError, ValueError, IndexError, TypeError):  # its layers expect whole sentences
        return False
    return all(_close(ours, theirs) for ours, theirs in zip(_shown(packed, tokens), _shown(plain, tokens)))


def _shown(seen: Observation, tokens: RealTokens) -> list[Tensor]:
    """Hidden states and logits of real tokens."""
    logits = [tokens.pack(one) if one.shape[:2] == tokens.shape else one for one in seen.logits.values()]
    return [one if tokens.are_in(one) else tokens.pack(one) for one in seen.hidden_states] + logits


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours.float() - theirs.float()).norm() <= CLOSE * theirs.float().norm())


def checkpoints(model: nn.Module) -> bool:
    """Whether layers are computed once more on the way back, as transformers says it in every version."""
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def _needs_padding(model: nn.Module) -> bool:
    """Whether what a layer computes depends on the whole batch, or is computed once more when that is forgotten."""
    return checkpoints(model) or any(isinstance(part, StaticActivationQuantizer) for part in model.modules())


def _packed(layer: nn.Module, args: tuple, options: dict) -> tuple[tuple, dict] | None:
    """What a layer gets, without padding: its hidden states, and what else is there for each token, as rotations."""
    tokens = alone.get()
    if tokens is None:
        return None
    return tuple(_pack(one, tokens) for one in args), {name: _pack(one, tokens) for name, one in options.items()}


def _pack(value, tokens: RealTokens):
    if isinstance(value, tuple):
        return tuple(_pack(one, tokens) for one in value)
    sentences, length = tokens.shape
    whole = isinstance(value, Tensor) and value.ndim == 3 and value.shape[:2] in ((sentences, length), (1, length))
    return tokens.pack(value) if whole and value.is_floating_point() else value


def _padded(owner: nn.Module, args: tuple, output):
    """What comes out behind the layers, with padding."""
    tokens = alone.get()
    last = None if tokens is None else output[0] if isinstance(output, tuple) else output.get("last_hidden_state")
    if last is None or not tokens.are_in(last):
        return None
    if isinstance(output, tuple):
        return tokens.pad(last), *output[1:]
    output["last_hidden_state"] = tokens.pad(last)
    return output
