"""Plans: which layer of a model gets which tensor format.

A plan names layers; it holds no weights. Readers write one by hand, `plan` makes one for a whole model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from .shapes import factorize, tt_parameters, whole_number

# Heads are small, and what they lose shows at once in the predictions.
HEADS = re.compile(r"(^|[._])(heads?|classifier|score|qa_outputs|lm_head|cls|pooler)([._]|$)")


@dataclass(frozen=True)
class TT:
    """Make a linear layer a `TTLinear` of this rank; modes as there, balanced ones by default."""

    rank: int
    in_modes: Sequence[int] | None = None
    out_modes: Sequence[int] | None = None

    def __post_init__(self):
        whole_number("rank", self.rank)


@dataclass(frozen=True)
class TTM:
    """Make an embedding a `TTMEmbedding` of this rank; modes as there, balanced ones by default."""

    rank: int
    vocabulary_modes: Sequence[int] | None = None
    hidden_modes: Sequence[int] | None = None

    def __post_init__(self):
        whole_number("rank", self.rank)


@dataclass
class TTQConfig:
    """A recipe for each layer that changes, by its name in the model."""

    layers: dict[str, TT | TTM] = field(default_factory=dict)


def plan(model: nn.Module, rank: int) -> TTQConfig:
    """One rank for a whole model: `TT` for its linear layers, `TTM` for its word embedding.

    Layers are found by type, so any Hugging Face model will do. Heads stay dense, and so do position embeddings
    and every layer that would not get smaller.

    Raises:
        ValueError: a rank below 1, or nothing in the model to compress.
    """
    whole_number("rank", rank)
    words = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    layers: dict[str, TT | TTM] = {}
    for name, module in model.named_modules():
        recipe = None
        if isinstance(module, nn.Linear) and not HEADS.search(name):
            recipe = TT(rank)
        elif isinstance(module, nn.Embedding) and module is words:
            recipe = TTM(rank)
        if recipe is not None and _shrinks(module.weight.shape, recipe):
            layers[name] = recipe
    if not layers:
        raise ValueError(f"nothing in {type(model).__name__} gets smaller at rank {rank}")
    return TTQConfig(layers)


def _shrinks(shape: tuple[int, int], recipe: TT | TTM) -> bool:
    """Whether a weight of this shape has more entries than its cores would have, in balanced modes."""
    rows, columns = (factorize(size) for size in shape)
    modes = columns + rows[::-1] if isinstance(recipe, TT) else [v * h for v, h in zip(rows, columns[::-1])]
    return tt_parameters(modes, recipe.rank) < shape[0] * shape[1]
