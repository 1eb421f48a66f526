"""The arithmetic of fake quantization: values on a grid of few levels, in floating point, with gradients through it.

A quantized value is *level* × *scale*: levels are small integers, a scale (step size δ) is shared by a group of
values. Weights and activations use the same functions. Everything is computed in float32 at least.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tensors.shapes import whole_number

TINY = torch.finfo(torch.float32).tiny  # the smallest scale: positive, and its reciprocal is finite
INITS = ("mse", "max", "lsq")
AT_ONCE = 2**17  # numbers that it works on in one go
CANDIDATES = 40  # step sizes that the mse search tries; the best of them comes within a few percent of the least error


def clip_range(bits: int) -> tuple[int, int]:
    """The lowest and the highest level, −2^(b−1) and Qp = 2^(b−1) − 1."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def check_bits(bits: int) -> int:
    """A bit width as a plain int, which JSON can hold.

    Raises:
        ValueError: it is none of 2 … 8.
    """
    try:
        number = whole_number("bits", bits)
    except ValueError:
        number = 0
    if not 2 <= number <= 8:
        hint = "; one bit is ttq.Binary()" if number == 1 else ""
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}{hint}")
    return number


def check_init(init: str) -> None:
    """Raise a ValueError where `init` is none of `INITS`."""
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")


def check_per(name: str, per: str | int) -> str | int:
    """What shares a scale; a group size as a plain int.

    Raises:
        ValueError: it is neither "tensor", "channel" nor a whole number of at least 1.
    """
    if isinstance(per, str) and per in ("tensor", "channel"):
        return per
    try:
        return whole_number(name, per)
    except ValueError:
        raise ValueError(f"{name} must be 'tensor', 'channel' or a group size of at least 1, got {per!r}") from None


def keep(recipe, **values) -> None:
    """Set fields of a frozen dataclass, as only its own `__post_init__` may."""
    for name, value in values.items():
        object.__setattr__(recipe, name, value)


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse what no scale can be found for. A meta tensor has no values to look at.

    Raises:
        TypeError: no tensor, or one of other than floating-point numbers.
        ValueError: it is empty, or holds NaN or infinity.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a tensor of floating-point numbers, got {kind}")
    if not tensor.numel():
        raise ValueError(f"{name} must not be empty, got shape {tuple(tensor.shape)}")
    if not tensor.is_meta and not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinite entries")


def widen(x: Tensor) -> Tensor:
    """`x` in float32 where it has less: nothing is computed in half precision, also under autocast."""
    return x.float() if x.dtype.itemsize < 4 else x


def positive(scale: Tensor) -> Tensor:
    """How a trainable scale is read: |scale| + tiny, which is the scale itself, but never negative or zero."""
    return widen(scale).abs() + TINY


# ----------------------------------------------------------------------------------------------------------- groups


def split(weight: Tensor, per: str | int) -> Tensor:
    """The weights that share a scale along the last axis: (N,) per tensor, else (rows, groups, size), zero-padded.

    In float32 at least, whatever the weight is in.
    """
    weight = widen(weight)
    if per == "tensor":
        return weight.reshape(-1)
    rows = weight.flatten(1) if weight.ndim > 1 else weight.reshape(1, -1)
    size = rows.shape[1] if per == "channel" else min(per, rows.shape[1])
    missing = -rows.shape[1] % size
    return (F.pad(rows, (0, missing)) if missing else rows).unflatten(1, (-1, size))


def join(groups: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `split`: a tensor of this `shape`, the padding cut off."""
    if groups.ndim > 1:
        width = shape[1:].numel() if len(shape) > 1 else shape.numel()
        groups = groups.flatten(1)[:, :width]
    return groups.reshape(shape)


def group_sizes(weight: Tensor, per: str | int) -> Tensor | int:
    """How many weights each group holds: one number, or (1, groups), since all rows are alike."""
    if per == "tensor":
        return weight.numel()
    row = weight[:1] if weight.ndim > 1 else weight
    return split(torch.ones_like(row), per).sum(-1)


# ----------------------------------------------------------------------------------------------------------- scales


def mean_abs(groups: Tensor, count: Tensor | int) -> Tensor:
    """Σ|x| / count for each group.

    Divided by the largest first, so that a mean of equal numbers is exactly that number: a binary or ternary weight
    quantized again does not change.
    """
    magnitudes = groups.abs()
    largest = magnitudes.amax(-1).clamp_min(TINY)
    return magnitudes.div_(largest[..., None]).sum(-1) / count * largest


def min_max(groups: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor | int]:
    """Scales with which nothing is clipped, and the lowest level of the grid (of each group, where asymmetric).

    Asymmetric ranges are widened to hold 0, which is then a level of its own; −lowest is the zero point.
    """
    if symmetric:
        lowest, highest = clip_range(bits)
        return (groups.abs().amax(-1) / highest).clamp_min(TINY), lowest
    low, high = groups.amin(-1).clamp_max(0), groups.amax(-1).clamp_min(0)
    scale = ((high - low) / (2**bits - 1)).clamp_min(TINY)
    return scale, (low / scale).round()


def range_shares(groups: Tensor, symmetric: bool) -> list[tuple[Tensor, Tensor]]:
    """Which numbers of a group `min_max` takes its scale from, and by what share, d log scale / d log number.

    Two pairs (numbers, shares) of shape (…, 1), one where symmetric; shares of a group sum to 1, or are 0 where the
    group is all zeros.
    """
    if symmetric:
        number, top = _extreme(groups.abs(), "argmax")
        return [(number, (top != 0).to(groups.dtype))]
    (lowest, low), (highest, high) = (_extreme(groups, which) for which in ("argmin", "argmax"))
    low, high = low.clamp_max(0), high.clamp_min(0)
    span = (high - low).clamp_min(TINY)
    return [(lowest, -low / span), (highest, high / span)]


def _extreme(groups: Tensor, which: str) -> tuple[Tensor, Tensor]:
    """The number and the value of the least or the largest of each group, (…, 1)."""
    if groups.device.type == "cpu":  # NumPy finds them in a sixth of the time that PyTorch takes
        number = torch.from_numpy(getattr(groups.detach().numpy(), which)(-1))[..., None]
    else:
        number = getattr(groups, which)(-1, keepdim=True)
    return number, groups.gather(-1, number)


def initial_step(groups: Tensor, count: Tensor | int, bits: int, init: str) -> Tensor:
    """The δ that training starts from, one for each group; `init` as in `LSQ`."""
    if groups.is_meta:
        return torch.empty_like(groups[..., 0])  # without data there is nothing to search
    _, highest = clip_range(bits)
    if init == "lsq":
        step = 2 * mean_abs(groups, count) / sqrt(highest)
    elif init == "max":
        step = groups.abs().amax(-1) / highest
    else:
        step = _least_squares_step(groups, bits)
    return step.clamp_min(TINY)


def _least_squares_step(groups: Tensor, bits: int) -> Tensor:
    """Of a geometric grid of step sizes the one with the least squared error, for each group.

    The grid ends at max|x| / Qp, where nothing is clipped, and begins where the lowest level is the mean |x|.
    """
    lowest, highest = clip_range(bits)
    largest = groups.abs().amax(-1, keepdim=True).clamp_min(TINY)
    groups = groups / largest  # squares of tiny or huge numbers would leave the range of float32
    first = (groups.abs().mean(-1, keepdim=True) / -lowest).clamp_min(torch.finfo(groups.dtype).eps)
    best, least = first[None], torch.full_like(first[None], torch.inf)
    at_once = min(CANDIDATES, max(1, AT_ONCE // groups.numel()))  # small groups are quick, and calls are not
    u, residual = (groups.new_empty(at_once, *groups.shape) for _ in range(2))  # reused: large ones are slow to make
    for fractions in torch.linspace(0, 1, CANDIDATES).split(at_once):
        steps = torch.stack([first ** (1 - t) * highest**-t for t in fractions.tolist()])  # (at once, *groups, 1)
        torch.mul(groups, steps.reciprocal(), out=u[: len(steps)])
        torch.round(u, out=residual).clamp_(lowest, highest).sub_(u)
        errors = steps * torch.linalg.vector_norm(residual[: len(steps)], dim=-1, keepdim=True)
        error, which = errors.min(0, keepdim=True)
        best = torch.where(error < least, steps.gather(0, which), best)
        least = torch.minimum(error, least)
    return (best * largest)[0].squeeze(-1)


# --------------------------------------------------------------------------------------------------------- gradients


def to_levels(x: Tensor, scale: Tensor, lowest: Tensor | int, bits: int) -> Tensor:
    """The nearest of the 2^bits levels from `lowest` up, ties to even.

    Multiplied by 1/scale, as PyTorch's own kernels do, to round as they do.
    """
    levels, top = (x * scale.reciprocal()).round_(), 2**bits - 1
    if isinstance(lowest, int):
        return levels.clamp_(lowest, lowest + top)
    return levels.sub_(lowest).clamp_(0, top).add_(lowest)  # to clamp between tensors takes PyTorch seven times as long


class LearnedStep(torch.autograd.Function):
    """δ · round(clip(u, lowest, highest)) of u = x/δ, with the straight-through gradients in closed form.

    Of x: 1 inside the clip range, 0 outside. Of δ: round(u) − u inside, the clip limit outside, summed over what
    shares a δ, times `factor`. Both are exact where the rounding residual round(u) − u is held fixed. Source: Esser
    et al., "Learned Step Size Quantization", ICLR 2020, §2.

    Use: `LearnedStep.apply(x, step, lowest, highest, factor)`, where `step` broadcasts against `x`.

    One function instead of a clamp and a detached rounding that autograd takes apart: fewer passes over x, and no
    division by δ² in the gradient, which overflows where a weight is all zeros.
    """

    @staticmethod
    def forward(ctx, x: Tensor, step: Tensor, lowest: int, highest: int, factor: float) -> Tensor:
        u = x * step.reciprocal()
        levels = u.round().clamp_(lowest, highest)
        ctx.save_for_backward(u, levels)
        ctx.limits, ctx.factor, ctx.step_shape = (lowest, highest), factor, step.shape
        return levels * step

    @staticmethod
    def backward(ctx, grad: Tensor):
        u, levels = ctx.saved_tensors
        lowest, highest = ctx.limits
        inside = u.clamp(lowest, highest) == u
        grad_step = (grad * torch.where(inside, levels - u, levels)).sum_to_size(ctx.step_shape)
        return grad * inside, grad_step * ctx.factor, None, None, None


def straight_through(quantized: Tensor, x: Tensor) -> Tensor:
    """`quantized`, in the dtype of `x` and with its gradient, as if nothing had been rounded; a NaN of `x` stays."""
    return quantized.to(x.dtype) + (x - x.detach())


class Built(nn.Module):
    """A module that a recipe builds, and that shows it."""

    def __init__(self, recipe):
        super().__init__()
        self.recipe = recipe

    def extra_repr(self) -> str:
        return str(self.recipe)


class Float16(nn.Module):
    """A parametrization that rounds to half precision: 16 bits, no scale. The gradient passes straight through."""

    @classmethod
    def build(cls, weight: Tensor, layout=None) -> "Float16":
        """The module for this `weight`; rows, which a `layout` tells of, make no difference.

        Raises:
            TypeError: `weight` is not a floating-point tensor.
            ValueError: it is empty, or holds NaN or what half precision cannot write.
        """
        check_finite("weight", weight)
        largest = torch.finfo(torch.float16).max
        if not weight.is_meta and weight.abs().max() > largest:
            raise ValueError(f"weight must lie within ±{largest:.0f} for float16, got {float(weight.abs().max()):.3g}")
        return cls()

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight.detach().half(), weight)
