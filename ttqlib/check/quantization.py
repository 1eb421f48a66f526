"""Bits: step sizes, rounding, and codes packed into bytes."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..quantizers.fake_quantization import clip_range
from ..quantizers.recipes import LSQ, GroupRTN
from .forbidden import call_by_hand
from .verdict import answers, call, close, counts, exercise, fail


@exercise
def stored_bytes(function: Callable) -> None:
    """`function(shapes, bits)` must return the bytes of packed codes and one float32 step size for each array."""
    for shapes, bits in [([(1, 8, 10)], 4), ([(1, 3, 3), (3, 5, 1)], 3), ([(7,), (7,), (7,)], 1), ([], 4), ([(6,)], 8)]:
        expected = sum(-(-torch.Size(shape).numel() * bits // 8) + 4 for shape in shapes)
        counts(function, (shapes, bits), expected, f"for the bytes of shapes {shapes} at {bits} bits", whole=True)


@exercise
def affine_quantize(function: Callable) -> None:
    """`function(x, bits)` must round x to 2^bits levels that span its range, widened to hold 0, with 0 a level."""
    cases = [(f"weights around {mean:g}", _random_weights(k) + mean) for k, mean in enumerate([0.0, 3.0, -5.0, 0.5])]
    cases += [("weights that are all 2", 2 * torch.ones(3, 4)), ("weights that are all zero", torch.zeros(3, 4))]
    for (kind, x), bits in zip(cases, (4, 3, 2, 8, 3, 4), strict=True):
        expected = GroupRTN(bits, per="tensor", symmetric=False).build(x)(x)
        answers(function, (x, bits), expected, f"for {kind} at {bits} bits")


@exercise
def step_gradient(function: Callable) -> None:
    """`function(x, step, bits)` must return ∂Q/∂δ of each entry, rounding taken straight through."""
    for seed, (step, bits) in enumerate([(0.8, 2), (0.5, 3), (0.1, 4), (0.05, 8), (9.0, 2)]):
        x = _random_weights(seed)
        steps = torch.full_like(x, step)  # one for each entry, so that autograd does not add them up
        quantizer = LSQ(bits, grad_scale=False, per=1).with_step(steps)
        (expected,) = torch.autograd.grad(quantizer(x).sum(), quantizer.scale)
        close(function, call_by_hand(function, x, step, bits), expected, f"for δ = {step} at {bits} bits")


@exercise
def learned_step(function: Callable) -> None:
    """`function(x, step, bits)` must return Q(x, δ, b), with the gradients of LSQ for x and for the tensor δ."""
    for seed, (size, bits) in enumerate([(0.8, 2), (0.5, 3), (0.1, 4), (0.02, 8)]):
        x, where = _random_weights(seed).requires_grad_(), f"for δ = {size} at {bits} bits"
        step = torch.tensor(size, dtype=x.dtype, requires_grad=True)
        arriving = _random_weights(seed + 10)  # ∂L/∂Q
        quantizer = LSQ(bits).with_step(step)
        expected = quantizer(x)
        wanted = torch.autograd.grad(expected, (x, quantizer.scale), arriving)
        got = call(function, x, step, bits)
        if not isinstance(got, Tensor):
            fail(function, f"expected a tensor, got {type(got).__name__}")
        close(function, got.detach(), expected.detach(), f"{where}, going forward,")
        reached = got.requires_grad and torch.autograd.grad(got, (x, step), arriving, allow_unused=True)
        for name, mine, theirs in zip("xδ", reached or (None, None), wanted, strict=True):
            if mine is None:
                fail(function, f"no gradient reaches {name}")
            close(function, mine, theirs, f"{where}, in the gradient of {name},")


@exercise
def best_step(function: Callable) -> None:
    """`function(x, bits)` must return a δ whose squared error is hardly above the least that any δ has."""
    for kind, x, bits in _weights_to_fit():
        try:
            step = float(torch.as_tensor(call(function, x, bits)).detach())
        except (TypeError, ValueError, RuntimeError):
            fail(function, "expected one number")
        if not 0 < step < torch.inf:
            fail(function, f"a step size is positive and finite, got {step}")
        (lowest, highest), largest = clip_range(bits), float(x.abs().max())
        candidates = (largest * torch.logspace(-5, 0.4, 800)).tolist()
        error, *errors = (
            float(((x / s).clamp(lowest, highest).round() * s - x).square().sum()) for s in (step, *candidates)
        )
        if error > 1.03 * min(errors):
            found = f"a squared error {error / min(errors) - 1:.0%} above the least"
            fail(function, f"for {kind} at {bits} bits δ = {step:.3g} has {found}")


def _weights_to_fit() -> Iterator[tuple[str, Tensor, int]]:
    """Weights in words, as a tensor, and the bits that they get: bells of all sizes, outliers, two heaps."""
    for seed, (size, bits) in enumerate([(1, 2), (1e-3, 3), (1e3, 2), (1, 8)]):
        yield f"weights of size {size:g}", _random_weights(seed) * size, bits
    for seed, (outlier, bits, side) in enumerate([(30, 4, 50), (180, 2, 200)]):
        x = _random_weights(seed, side, side)
        x[0, 0] = outlier
        yield f"weights with an outlier of {outlier} σ", x, bits
    heaps = 1.5 + 0.1 * _random_weights(0)
    heaps[:5] += 1.5
    yield "weights in two heaps, at 1.5 and 3,", heaps, 3


@exercise
def product_error(function: Callable) -> None:
    """`function(errors)` must return the relative error of a product of rounded cores from those of the cores."""
    for errors in [[0.1], [0.1] * 6, [0.0, 0.3, 0.4], [0.05, 0.2, 0.1, 0.4], [0.6] * 6, [0.5] * 40]:
        kept = torch.tensor(errors, dtype=torch.float64).square().neg().log1p().sum()
        answers(function, (list(errors),), (-kept.expm1()).sqrt(), f"for the errors {errors[:6]}")


@exercise
def pareto(function: Callable) -> None:
    """`function(points)` must return the (bytes, error) pairs that no other beats, by growing bytes."""
    sets = [[(3, 0.5), (1, 0.9), (2, 0.95)], [(2, 0.3), (1, 0.3), (2, 0.2)], [(5, 0.1)], [(1, 0.5), (1, 0.4), (1, 0.4)]]
    random = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    sets.append([(int(100 * cost), round(float(error), 2)) for cost, error in random])
    for points in sets:
        unbeaten = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
        expected, got = sorted(unbeaten), call(function, list(points))
        pairs = [tuple(p) if isinstance(p, Sequence) else p for p in got] if isinstance(got, Sequence) else got
        if pairs != expected:
            shown = points if len(points) < 5 else f"{len(points)} random points"
            fail(function, f"for {shown} expected {expected[:4]}, got {str(got)[:80]}")


@exercise
def pack_bits(function: Callable) -> None:
    """`function(codes, bits)` must return bytes: code after code, the lowest bit first, the last byte filled with 0."""
    for bits, codes in [(2, [1, 0, 3, 2]), (1, [1, 1, 0]), (3, [5, 2, 7, 1, 6]), (8, [200, 7]), (5, list(range(32)))]:
        number = sum(code << (bits * k) for k, code in enumerate(codes))
        expected = number.to_bytes(-(-bits * len(codes) // 8), "little")
        got = call(function, list(codes), bits)
        if not isinstance(got, bytes) or got != expected:
            shown = list(got) if isinstance(got, bytes) else f"the {type(got).__name__} {str(got)[:80]}"
            fail(function, f"for {codes[:6]} at {bits} bits expected the bytes {list(expected)[:6]}, got {shown}")


def _random_weights(seed: int, rows: int = 50, columns: int = 40) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
