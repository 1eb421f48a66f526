"""What each layer of a stack is worth, on real inputs: how much it changes them, and what is lost where it is skipped.

Both functions give numbers by place, counted from 0, the layer that one would drop first in front, as
`ttq.kept_layers` takes them. Both look at layers one by one: what is lost with two of them is not the sum.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..inventory.stacks import one_stack
from ..progress import bar
from ..quantizers.fake_quantization import widen
from ..surgery.calibration import Batches, all_batches, eval_mode
from .matching import MatchLogits
from .observation import Observation, observe

BY = ("logits", "loss")


@contextmanager
def skipped(model: PreTrainedModel, places: Iterable[int]) -> Iterator[None]:
    """Inside, the layers at these places give back what they are given. They still compute, so nothing gets faster."""
    layers, _ = one_stack(model)
    with ExitStack() as hooks:
        for place in places:
            hooks.enter_context(layers[place].register_forward_hook(_give_back, with_kwargs=True))
        yield


@torch.no_grad()
def layer_similarity(model: PreTrainedModel, batches: Batches) -> dict[int, float]:
    """The cosine of what each layer is given and what it gives, a mean over real tokens; the most similar first.

    `batches` are inputs as the model takes them, a few hundred sentences. It is the measure of contribution of Sajjad
    et al., "Poor Man's BERT" (arXiv 2004.03844): a layer that hardly turns its inputs may be one to do without.

    Raises:
        ValueError: no batch, or a model that is not one stack of layers.
    """
    layers, _ = one_stack(model)
    sums, count = [0.0] * len(layers), [0] * len(layers)

    def add(place: int, mask: Tensor | None, layer, args, options, output) -> None:
        before, after = _hidden(args, options), output[0] if isinstance(output, tuple) else output
        cosines = F.cosine_similarity(widen(before), widen(after), dim=-1)  # (B, T)
        if mask is not None and mask.shape == cosines.shape:
            cosines = cosines[mask.bool()]
        sums[place] += cosines.sum().item()
        count[place] += cosines.numel()

    with eval_mode(model):
        for batch in bar(all_batches(batches, model), desc="layer_similarity", unit="batch"):
            mask = batch.get("attention_mask")
            with ExitStack() as hooks:
                for place, layer in enumerate(layers):
                    hooks.enter_context(layer.register_forward_hook(partial(add, place, mask), with_kwargs=True))
                model(**batch)
    cosines = {place: total / number for place, (total, number) in enumerate(zip(sums, count))}
    return dict(sorted(cosines.items(), key=lambda item: -item[1]))


@torch.no_grad()
def layer_costs(model: PreTrainedModel, batches: Batches, by: str = "logits") -> dict[int, float]:
    """By how much the model gets worse where one layer is skipped, for each layer; the cheapest first.

    Args:
        batches: inputs as the model takes them, a few hundred sentences. They are read once and kept in memory.
        by: "logits", KL(model ‖ model without the layer) of what it predicts, which needs no labels (of numbers: mean
            squares); or "loss", the model's own loss without the layer less that with it, which may be negative.

    Each batch counts by its sentences. The costs are those before any training: a student that is trained again may
    do without a layer that costs much here.

    Raises:
        ValueError: no batch, an unknown `by`, batches without labels where the loss is asked for, or a model that is
            not one stack of layers, or returns no logits.
    """
    if by not in BY:
        raise ValueError(f"by must be one of {', '.join(map(repr, BY))}, got {by!r}")
    layers, _ = one_stack(model)
    worse = _more_loss if by == "loss" else _divergence(model)
    costs, batches = dict.fromkeys(range(len(layers)), 0.0), all_batches(batches, model)
    sentences = [len(next(iter(batch.values()))) for batch in batches]
    with eval_mode(model):
        for batch, share in zip(bar(batches, desc="layer_costs", unit="batch"), sentences):
            whole = observe(model, batch)
            for place in costs:
                with skipped(model, [place]):
                    costs[place] += worse(observe(model, batch), whole) * share / sum(sentences)
    return dict(sorted(costs.items(), key=lambda item: item[1]))


def _divergence(model: PreTrainedModel) -> Callable[[Observation, Observation], float]:
    match = MatchLogits().fitted(model, model)

    def divergence(less: Observation, whole: Observation) -> float:
        if not whole.logits:
            raise ValueError(
                f"a {type(model).__name__} returns no logits to compare: give the model with its head, or ask "
                "ttq.layer_similarity, which needs none"
            )
        return float(sum(match.parts(less, whole).values()))

    return divergence


def _more_loss(less: Observation, whole: Observation) -> float:
    if less.loss is None or whole.loss is None:
        raise ValueError('by="loss" needs batches with labels: give them, or ask by="logits"')
    return float(less.loss - whole.loss)


def _give_back(layer: nn.Module, args: tuple, options: dict, output):
    """What a layer was given, in the place of what it gives; what else it gives, as attention maps, stays."""
    hidden = _hidden(args, options)
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _hidden(args: tuple, options: Mapping[str, Tensor]) -> Tensor:
    return args[0] if args else options["hidden_states"]
