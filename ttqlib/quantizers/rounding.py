"""Rounding a weight of millions anew at every step: in pieces that fit a cache, and with nothing kept for the way back.

Element-wise work on a large matrix is bound by memory: each of a dozen operations reads and writes all of it. Here a
few rows go through all operations before the next ones come. What the way back needs follows from the weight itself.
"""

import torch
from torch import Tensor

from .fake_quantization import join, range_shares, split

PIECE = 2**15  # numbers that go through all operations together: a few copies of them fit a core's own cache


def round_rows(rows: Tensor, recipe, scales: dict[str, Tensor] | None = None) -> Tensor:
    """level × scale of each weight of a matrix, by a `WeightRecipe`; without `scales` on grids fitted to these rows."""
    quantized = torch.empty_like(rows)
    for place, part in _pieces(rows, recipe.per):
        own = recipe.initial_scales(part) if scales is None else {name: one[place] for name, one in scales.items()}
        quantized[place] = join(recipe.levels(part, own).mul_(own["scale"][..., None]), part.shape)
    return quantized


def _pieces(rows: Tensor, per: str | int):
    """The places and parts of a matrix whose rows are worked on at once: all where they share one scale."""
    if per == "tensor" or rows.ndim == 1:
        yield ..., rows
        return
    count = max(1, PIECE // rows[0].numel())
    for start in range(0, len(rows), count):
        place = slice(start, start + count)
        yield place, rows[place]


class Rounded(torch.autograd.Function):
    """`round_rows` on given scales; the gradient passes straight through, and nothing is kept for it.

    Use: `Rounded.apply(weight, recipe, scales)`.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, recipe, scales: dict[str, Tensor]) -> Tensor:
        return round_rows(weight, recipe, scales)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, None


class ScaledRounding(torch.autograd.Function):
    """Q(diag(e^b) W diag(e^a)): a frozen matrix W (out, in), rows and columns scaled, rounded on a grid that follows.

    Use: `ScaledRounding.apply(W, a, b, recipe)` with a (in,) and b (out,), logarithms of scales, which get gradients;
    without a recipe nothing is rounded. Kept are W, a, b and the result, which the product with it keeps anyway.

    With W' the scaled matrix, G the gradient of Q and E = Q − W' the error, the gradient of a is the sum of G ⊙ W' over
    rows, as if nothing were rounded. Where a grid spans the range of its group (`GroupRTN`), its step δ moves with the
    group's extreme weights: each takes its share of ⟨G, E⟩, the sum over the group, for E is δ times what rounding
    adds. The shares of a group sum to 1: a scale common to a whole group scales Q, and nothing else.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, columns: Tensor, rows: Tensor, recipe) -> Tensor:
        column_scales, row_scales, made = columns.exp(), rows.exp(), torch.empty_like(weight)
        for place, part in _pieces(weight, _per(recipe)):
            scaled = (part * column_scales).mul_(row_scales[place][:, None])
            made[place] = scaled if recipe is None else round_rows(scaled, recipe)
        ctx.save_for_backward(weight, columns, rows, made)
        ctx.recipe = recipe
        return made

    @staticmethod
    def backward(ctx, grad: Tensor):
        weight, columns, rows, made = ctx.saved_tensors
        column_scales, row_scales = columns.exp(), rows.exp()
        grad_columns, grad_rows = torch.zeros_like(columns), torch.empty_like(rows)
        for place, part in _pieces(weight, _per(ctx.recipe)):
            scaled = (part * column_scales).mul_(row_scales[place][:, None])
            products = scaled * grad[place]
            grad_columns += products.sum(0)
            grad_rows[place] = products.sum(1)
            if ctx.recipe is not None and ctx.recipe.spans:
                error = (grad[place] * made[place]).sub_(products)  # G ⊙ E
                _add_shares_(grad_columns, grad_rows[place], scaled, error, ctx.recipe)
        return None, grad_columns, grad_rows, None


def _per(recipe) -> str | int:
    return "channel" if recipe is None else recipe.per


def _add_shares_(columns: Tensor, rows: Tensor, scaled: Tensor, error: Tensor, recipe) -> None:
    """Add to the gradients of columns and rows what comes over the steps of the grids: see `ScaledRounding`."""
    whole, width = recipe.per == "tensor", scaled.shape[1]
    if whole:  # one group, in one row
        scaled, error = scaled.reshape(1, -1), error.reshape(1, -1)
    per = "channel" if whole else recipe.per
    groups, at_work = split(scaled, per), split(error, per).sum(-1, keepdim=True)  # (rows, groups, size), (…, 1)
    first = torch.arange(groups.shape[1], device=groups.device)[:, None] * groups.shape[2]  # where groups begin
    row = torch.arange(groups.shape[0], device=groups.device)[:, None, None]
    for number, share in range_shares(groups, recipe.symmetric):
        place, added = number + first, at_work * share  # at padding, which is 0, a share is 0 too
        rows.index_add_(0, (place // width if whole else row.expand_as(place)).flatten(), added.flatten())
        columns.index_add_(0, (place % width).flatten(), added.flatten())
