"""What there is to compress in a model: linear layers, look-up tables and experts, and which of them are heads.

Layers are known by what they compute, not by their names, so that any model of Hugging Face will do, and most others.
"""

import re
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# Heads are small, and what they lose shows at once in the predictions.
HEADS = re.compile(r"(^|[._])(heads?|classifier|score|qa_outputs|lm_head|cls|pooler)([._]|$)")


def is_linear(module: nn.Module) -> bool:
    """Whether a module gives x W + b for its own matrix: `nn.Linear`, transformers' `Conv1D`, or one like them."""
    kind = parametrize.type_before_parametrizations(module)
    return kind is Conv1D or (issubclass(kind, nn.Linear) and _computes_linear(kind))


def is_embedding(module: nn.Module) -> bool:
    """Whether a module looks up rows of its own table, as `nn.Embedding` does, at most times a number (`row_scale`)."""
    kind = parametrize.type_before_parametrizations(module)
    return issubclass(kind, nn.Embedding) and _computes_rows(kind)


def is_experts(module: nn.Module) -> bool:
    """Whether a module owns the matrices of several experts side by side: those of a mixture in transformers."""
    return any(True for _ in expert_weights(module))


def is_router(module: nn.Module) -> bool:
    """Whether a module scores the experts of a mixture by its own matrix: too small to compress, but it computes."""
    name = parametrize.type_before_parametrizations(module).__name__
    return name.endswith("Router") and getattr(module, "weight", torch.empty(0)).ndim == 2


def expert_weights(module: nn.Module) -> Iterator[str]:
    """The names of the parameters that hold a matrix for each expert, mostly of shape (experts, out, in)."""
    if "Expert" in parametrize.type_before_parametrizations(module).__name__:
        yield from (name for name, tensor in own_parameters(module) if tensor.ndim > 1 and "bias" not in name)


def own_parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters by name; of one that is parametrized, what the parametrization makes a weight of."""
    yield from module.named_parameters(recurse=False)
    if parametrize.is_parametrized(module):
        for name, held in module.parametrizations.items():
            if hasattr(held, "original"):  # a weight that is made of several tensors has no single one behind it
                yield name, held.original


def saved_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own buffers by name, without those that no state dict holds."""
    hidden = module._non_persistent_buffers_set
    return ((name, buffer) for name, buffer in module.named_buffers(recurse=False) if name not in hidden)


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer, look-up table and group of experts of a model, by name, in the model's order."""
    kinds = (is_linear, is_embedding, is_experts)
    return {name: module for name, module in model.named_modules() if any(fits(module) for fits in kinds)}


def linear_sizes(module: nn.Module) -> tuple[int, int]:
    """How many numbers a linear layer takes and gives: `Conv1D` stores its weight as (in, out), others as (out, in)."""
    shape = tuple(module.weight.shape)
    return shape if isinstance(module, Conv1D) else shape[::-1]


def row_scale(module: nn.Embedding) -> float:
    """By what the rows of a table are multiplied when they are looked up: 1, or what its class calls `embed_scale`."""
    scale = getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", 1.0))
    return float(scale)


def heads(model: nn.Module) -> set[nn.Module]:
    """The layers that give a model's answers: its output embeddings, and what is named as heads are."""
    found = {module for name, module in model.named_modules() if HEADS.search(name)}
    return found | {part.get_output_embeddings() for part in pretrained_parts(model)} - {None}


def word_embeddings(model: nn.Module) -> set[nn.Module]:
    """The tables that ids are looked up in: mostly one, in an encoder-decoder one at each end, of images none."""
    found = set()
    for part in pretrained_parts(model):
        try:
            found.add(part.get_input_embeddings())
        except (NotImplementedError, AttributeError):  # models of images and sound have none, and some say so like this
            continue
    return {module for module in found if isinstance(module, nn.Module) and is_embedding(module)}


def pretrained_parts(model: nn.Module) -> Iterator[PreTrainedModel]:
    return (part for part in model.modules() if isinstance(part, PreTrainedModel))


@cache
def _computes_linear(kind: type[nn.Linear]) -> bool:
    """Whether a small layer of this kind, made as `nn.Linear` is, computes what `nn.Linear` does: routers do not."""
    if kind.forward is nn.Linear.forward:
        return True
    x = torch.linspace(-1, 1, 6, device="cpu").reshape(2, 3)
    return _agrees(lambda: kind(3, 2), lambda layer: (layer(x), F.linear(x, layer.weight, layer.bias)))


@cache
def _computes_rows(kind: type[nn.Embedding]) -> bool:
    """The same for tables: as `nn.Embedding`, or made with a number that rows are multiplied by."""
    if kind.forward is nn.Embedding.forward:
        return True
    ids = torch.tensor([[0, 4], [2, 2]], device="cpu")
    return _agrees(lambda: kind(5, 3, 1, 2.0), lambda table: (table(ids), 2.0 * F.embedding(ids, table.weight)))


def _agrees(make, both) -> bool:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():  # a look leaves no trace
            return torch.allclose(*both(make()))
    except Exception:  # it is made or called in another way, so it is another kind of layer
        return False
