"""Rounding a weight of millions anew at every step: in pieces that fit a cache, and with nothing kept for the way back.

Element-wise work on a large matrix is bound by memory: each of a dozen operations reads and writes all of it. Here a
few rows go through all operations before the next ones come. What the way back needs follows from the weight itself.
"""

import torch
from torch import Tensor

from .fake_quantization import join, range_shares, split

PIECE = 2**17  # numbers that go through all operations together: a few copies of them fit a core's own cache


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
        made = torch.empty_like(weight)
        for place, scaled in _scaled(weight, columns, rows, recipe):
            made[place] = scaled if recipe is None else round_rows(scaled, recipe)
        ctx.save_for_backward(weight, columns, rows, made)
        ctx.recipe = recipe
        return made

    @staticmethod
    def backward(ctx, grad: Tensor):
        weight, columns, rows, made = ctx.saved_tensors
        grad_columns, grad_rows, recipe = torch.zeros_like(columns), torch.zeros_like(rows), ctx.recipe
        steps = None if recipe is None or not recipe.spans else _Steps(recipe, weight.shape)
        for place, scaled in _scaled(weight, columns, rows, recipe):
            products = grad[place] * scaled
            grad_columns += products.sum(0)
            grad_rows[place] = products.sum(1)
            if steps is not None:
                steps.add(scaled, products.neg_().addcmul_(grad[place], made[place]))  # G ⊙ E
        if steps is not None:
            steps.share_out_(grad_columns, grad_rows)
        return None, grad_columns, grad_rows, None


def _scaled(weight: Tensor, columns: Tensor, rows: Tensor, recipe):
    """Places and parts of the scaled matrix; the next part is written where this one is."""
    column_scales, row_scales, held = columns.exp(), rows.exp()[:, None], None
    for place, part in _pieces(weight, "channel" if recipe is None else recipe.per):
        held = torch.empty_like(part) if held is None else held[: len(part)]
        yield place, torch.mul(part, column_scales, out=held).mul_(row_scales[place])


class _Steps:
    """What comes to rows and columns over the steps of the grids: see `ScaledRounding`."""

    def __init__(self, recipe, shape: torch.Size):
        self.recipe, self.shape, self.whole = recipe, shape, recipe.per == "tensor"
        self.found: list[tuple[Tensor, ...]] = []

    def add(self, scaled: Tensor, error: Tensor) -> None:
        """Note for each group of a part, (rows, groups, 1): ⟨G, E⟩, and who moves the step by what share."""
        if self.whole:  # one group, in one row
            scaled, error = scaled.reshape(1, -1), error.reshape(1, -1)
        groups, errors = (split(one, "channel" if self.whole else self.recipe.per) for one in (scaled, error))
        extremes = range_shares(groups, self.recipe.symmetric)
        self.size = groups.shape[-1]
        self.found.append((errors.sum(-1, keepdim=True), *(one for pair in extremes for one in pair)))

    def share_out_(self, columns: Tensor, rows: Tensor) -> None:
        at_work, *extremes = map(torch.cat, zip(*self.found))
        first = torch.arange(at_work.shape[1], device=rows.device)[:, None] * self.size  # where groups begin
        own = torch.arange(at_work.shape[0], device=rows.device)[:, None, None].expand_as(at_work)
        for number, share in zip(extremes[::2], extremes[1::2]):
            place, added = number + first, (at_work * share).flatten()  # at padding, which is 0, a share is 0 too
            rows.index_add_(0, (place // self.shape[1] if self.whole else own).flatten(), added)
            columns.index_add_(0, (place % self.shape[1]).flatten(), added)
