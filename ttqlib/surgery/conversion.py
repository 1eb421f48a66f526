"""A tensor train in the place of a dense layer: from its weights, from what its outputs need, or at random."""

from collections.abc import Iterable, Mapping

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..inventory.kinds import is_embedding, row_scale
from ..layers.embedding import TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..plans.configs import TT, TTM, Shared
from .calibration import Moments, keep_mean_output_, nearest_outputs


def replacement(module: nn.Module, form: TT | TTM, init: str, moments: Moments | None) -> TTLinear | TTMEmbedding:
    """The layer in its format. Whether weight and bias train stays as it was.

    Args:
        init: "svd" or "random", as in `compress_`.
        moments: of the layer's outputs, where they say what the rank is spent on.
    """
    layer = _built(module, form, init, moments)
    for name, parameter in layer.named_parameters():
        like = module.bias if name == "bias" else module.weight
        parameter.requires_grad_(like.requires_grad)
    return layer


def _built(module: nn.Module, form: TT | TTM, init: str, moments: Moments | None) -> TTLinear | TTMEmbedding:
    if isinstance(form, TT):
        module, build = as_linear(module), TTLinear.from_linear
    else:
        build = TTMEmbedding.from_embedding
    modes = {name: value for name, value in vars(form).items() if name != "rank"}
    if init == "random" or module.weight.is_meta:
        return _random(module, form.rank, modes)
    if moments is None:
        return build(module, form.rank, **modes)
    layer = build(nearest_outputs(module, weight_rank(module, form), moments), form.rank, **modes)
    if isinstance(layer, TTLinear):
        keep_mean_output_(layer, moments)
    return layer


def weight_rank(module: nn.Module, form: TT | TTM | Shared) -> int | None:
    """The rank that a format leaves to the weight as a matrix: that of the bond between its rows and its columns.

    None where a TT-matrix has no such bond: its cores hold modes of both.
    """
    if isinstance(form, Shared):
        return form.rank
    if isinstance(form, TT):
        planned = TTLinear(*as_linear(module).weight.shape[::-1], **vars(form), device="meta")
        return planned.ranks[len(planned.in_modes)]
    planned = TTMEmbedding(*module.weight.shape, **vars(form), device="meta")
    rows, columns = planned.vocabulary_modes, planned.hidden_modes
    bonds = (k for k in range(1, planned.order) if {*columns[:k], *rows[k:]} == {1})
    return next((planned.ranks[bond] for bond in bonds), None)


def _random(module: nn.Linear | nn.Embedding, rank: int, modes: dict) -> TTLinear | TTMEmbedding:
    like = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        layer = TTLinear(module.in_features, module.out_features, rank, bias=has_bias, **modes, **like)
    else:
        size = (module.num_embeddings, module.embedding_dim)
        scale = row_scale(module)
        layer = TTMEmbedding(*size, rank, padding_idx=module.padding_idx, scale=scale, **modes, **like)
    if not module.weight.is_meta:
        weight = module.weight.detach().float()
        std = weight.std() if weight.numel() > 1 else weight.abs()  # one number has no deviation
        layer.reset_parameters(std=float(std))
    return layer.train(module.training)


def as_linear(module: nn.Linear | Conv1D) -> nn.Linear:
    """GPT-2's Conv1D is a linear layer that stores its weight as (in_features, out_features)."""
    if isinstance(module, nn.Linear):
        return module
    linear = nn.Linear(*module.weight.shape, device="meta")
    linear.weight, linear.bias = nn.Parameter(module.weight.detach().T), module.bias
    return linear.train(module.training)


def other_places(
    modules: Mapping[str, nn.Module], groups: Iterable[Iterable[tuple[str, str]]], made: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """What stands where else the weight of a table was tied to: the same TT-matrix, or a head that uses it."""
    found = {}
    for places in groups:
        names = [name for name, own in places if own == "weight"]
        for table in (made[name] for name in names if name in made):
            for name in names:
                module = modules[name]
                found[name] = table if is_embedding(module) else TTMHead(table, module.bias).train(module.training)
    return found
