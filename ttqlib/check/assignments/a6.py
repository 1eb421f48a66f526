"""Assignment 6, extreme bits: binary, ternary and grouped weights, their codes in bytes, and a layer that stays packed.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw their inputs from a seed.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..verdict import exercise, fail
from .asking import ask, ask_twice
from .seeds import generator

LIBRARY = ("Binary", "Ternary", "GroupRTN", "LSQ", "fake_quantize_", "compress_", "load")
LIBRARY += ("ttqlib.storage.bits.pack", "ttqlib.storage.bits.unpack")
PAPER = torch.tensor([[0.5, -1.5, 1.0, 0.0], [-0.25, 0.25, -0.75, 0.75]])
GROUPED = torch.tensor([[0.0, 1.5, 3.0, -1.5], [0.25, 0.75, 0.0, 0.0]])  # rows of two groups of two


@exercise
def binary_by_hand(function: Callable) -> None:
    """Two rows of four numbers, one of them 0."""
    _binary_agrees(function, PAPER)


@exercise
def binary(function: Callable, seed: int = 0) -> None:
    """`function(weight)` must return signs −1 and 1 of the shape of the weight, and a scale for each row, (rows, 1)."""
    for weight in _weights(seed, "binary"):
        _binary_agrees(function, weight)


@exercise
def ternary_by_hand(function: Callable) -> None:
    """Two rows of four numbers: which of them become 0?"""
    _ternary_agrees(function, PAPER)


@exercise
def ternary(function: Callable, seed: int = 0) -> None:
    """`function(weight)` must return levels −1, 0 and 1, and a scale for each row, (rows, 1)."""
    for weight in _weights(seed, "ternary"):
        _ternary_agrees(function, weight)


@exercise
def groups_by_hand(function: Callable) -> None:
    """Two rows of two groups of two numbers, in 2 bits."""
    _groups_agree(function, GROUPED, 2, 2)


@exercise
def groups(function: Callable, seed: int = 0) -> None:
    """`function(weight, size, bits)` must return codes, steps and zero points, the latter two of (rows, groups)."""
    draw = generator(seed, "groups")
    for rows, count, size, bits in [(3, 4, 5, 2), (4, 2, 8, 3), (1, 6, 4, 4), (5, 1, 7, 3)]:
        weight = torch.randn(rows, count * size, generator=draw) + torch.randn(rows, 1, generator=draw) * 2
        _groups_agree(function, weight, size, bits)
    weight[0] = 0
    _groups_agree(function, weight, size, bits)


@exercise
def bytes_by_hand(pack: Callable, unpack: Callable) -> None:
    """Five codes of 2 bits: one whole byte, and one code in the lowest bits of a second."""
    _bytes_agree(pack, unpack, torch.tensor([1, 2, 3, 0, 2], dtype=torch.uint8), 2)


@exercise
def bytes_(pack: Callable, unpack: Callable, seed: int = 0) -> None:
    """`pack(codes, bits)` must return bytes, lowest bit first and without gaps; `unpack(packed, bits, count)` codes."""
    draw = generator(seed, "bytes")
    for bits in (1, 2, 3, 4, 5, 8):
        for count in (1, 8, int(torch.randint(9, 40, (), generator=draw)), 801):
            codes = torch.randint(2**bits, (count,), generator=draw).to(torch.uint8)
            _bytes_agree(pack, unpack, codes, bits)


@exercise
def layer_by_hand(function: Callable) -> None:
    """Two rows of four numbers make two bytes of codes, two scales and two biases."""
    linear = nn.Linear(4, 2)
    linear.weight.data.copy_(PAPER)
    _layer_agrees(function, linear, torch.eye(4))


@exercise
def layer(function: Callable, seed: int = 0) -> None:
    """`function(linear)` must return a module that computes with the ternary weight and keeps it in 2 bits."""
    draw = generator(seed, "layer")
    for outputs, inputs, bias in [(5, 7, True), (6, 16, False), (1, 3, True)]:
        linear = nn.Linear(inputs, outputs, bias)
        for parameter in linear.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
        linear.weight.data[0] *= 3
        _layer_agrees(function, linear, torch.randn(2, 4, inputs, generator=draw))


# ------------------------------------------------------------------------------------------- what the checks share


def _weights(seed: int, question: str) -> Iterator[Tensor]:
    """Random matrices of rows of different size, some entries 0; the last one has a row of zeros only."""
    draw = generator(seed, question)
    for rows, columns in [(3, 8), (7, 5), (1, 9), (4, 6)]:
        weight = torch.randn(rows, columns, generator=draw) * 10 ** torch.randn(rows, 1, generator=draw)
        weight[:, 1] = 0
        yield weight
    weight = weight.clone()
    weight[2] = 0
    yield weight


def _binary_parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(weight < 0, -1.0, 1.0), weight.abs().mean(1, keepdim=True)


def _ternary_parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    kept = weight.abs() > 0.7 * weight.abs().mean(1, keepdim=True)
    return weight.sign() * kept, (weight.abs() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def _binary_agrees(function: Callable, weight: Tensor) -> None:
    signs, scale = _parts(function, ask_twice(function, weight, without=LIBRARY), 2, "the signs and the scales")
    right, best = _binary_parts(weight)
    _entries(function, signs, right, weight, "the sign")
    _scales(function, scale, best, weight)


def _ternary_agrees(function: Callable, weight: Tensor) -> None:
    levels, scale = _parts(function, ask_twice(function, weight, without=LIBRARY), 2, "the levels and the scales")
    right, best = _ternary_parts(weight)
    _entries(function, levels, right, weight, "the level")
    _scales(function, scale, best, weight)


def _parts(function: Callable, got, count: int, what: str) -> list[Tensor]:
    if not (isinstance(got, tuple | list) and len(got) == count and all(isinstance(one, Tensor) for one in got)):
        fail(function, f"expected {count} tensors, {what}, in this order, got {type(got).__name__}")
    return list(got)


def _shaped(function: Callable, got: Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(got.shape) != shape:
        fail(function, f"{what} must have shape {shape}, got {tuple(got.shape)}")


def _entries(function: Callable, got: Tensor, right: Tensor, weight: Tensor, what: str) -> None:
    _shaped(function, got, tuple(weight.shape), f"{what}s")
    wrong = got.double() != right
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        values = (float(one[row, column]) for one in (weight, right, got))
        place = "in a row of zeros only" if not weight[row].any() else f"in a row of mean |w| {_mean(weight[row]):.3g}"
        fail(function, "{} of w = {:.3g}, {}: expected {:g}, got {:g}".format(what, next(values), place, *values))


def _scales(function: Callable, got: Tensor, best: Tensor, weight: Tensor) -> None:
    _shaped(function, got, (len(weight), 1), "the scales")
    wrong = ~torch.isclose(got.float(), best, rtol=1e-5)
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        place = "of a row of zeros only" if not weight[row].any() else f"of a row of mean |w| {_mean(weight[row]):.3g}"
        fail(function, f"the scale {place}: expected {float(best[row]):.4g}, got {float(got[row]):.4g}")


def _mean(row: Tensor) -> float:
    return float(row.abs().mean())


def _groups_agree(function: Callable, weight: Tensor, size: int, bits: int) -> None:
    got = ask_twice(function, weight, size, bits, without=LIBRARY)
    codes, steps, zero_points = _parts(function, got, 3, "codes, steps and zero points")
    grouped, top = weight.unflatten(1, (-1, size)), 2**bits - 1
    _shaped(function, codes, tuple(weight.shape), "the codes")
    for one, name in ((steps, "the steps"), (zero_points, "the zero points")):
        _shaped(function, one, tuple(grouped.shape[:2]), name)
    if codes.dtype != torch.uint8:
        fail(function, f"codes are stored as torch.uint8, got {codes.dtype}")
    low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
    wanted = (high - low) / top
    wrong = ~torch.isclose(steps, wanted, rtol=1e-5) & (wanted > 0) | ~(steps > 0)
    for row, group in wrong.nonzero()[:1].tolist():
        where = f"of a group from {float(grouped[row, group].min()):.3g} to {float(grouped[row, group].max()):.3g}"
        hint = f"expected {float(wanted[row, group]):.4g}" if wanted[row, group] else "any positive step will do"
        fail(function, f"the step {where}: {hint}, got {float(steps[row, group]):.4g}")
    _zero_points_agree(function, zero_points, (-low / steps).round() + 0.0, grouped)  # no −0
    right = ((grouped / steps[..., None]).round() + zero_points[..., None].float()).clamp(0, top).flatten(1)
    for row, column in (codes != right).nonzero()[:1].tolist():
        near = weight[row, column] / steps[row, column // size]
        if abs(float(near - near.floor()) - 0.5) > 1e-3:  # halfway either neighbour is as near
            value = f"of w = {float(weight[row, column]):.3g}, {float(near):.2f} steps from 0"
            fail(function, f"the code {value}: expected {float(right[row, column]):g}, got {int(codes[row, column])}")


def _zero_points_agree(function: Callable, got: Tensor, right: Tensor, grouped: Tensor) -> None:
    for row, group in ((got.float() - right).abs() > 0.01).nonzero()[:1].tolist():
        least, most = float(grouped[row, group].min()), float(grouped[row, group].max())
        values = f"expected {float(right[row, group]):g}, got {float(got[row, group]):.4g}"
        fail(function, f"the zero point of a group from {least:.3g} to {most:.3g}: {values}")


def _bytes_agree(pack: Callable, unpack: Callable, codes: Tensor, bits: int) -> None:
    size = -(-len(codes) * bits // 8)
    stream = [(int(code) >> place) & 1 for code in codes for place in range(bits)]
    right = [sum(bit << k for k, bit in enumerate(stream[8 * n : 8 * n + 8])) for n in range(size)]
    packed, where = ask_twice(pack, codes, bits, without=LIBRARY), f"{len(codes)} codes of {bits} bits"
    if not isinstance(packed, Tensor) or packed.dtype != torch.uint8 or packed.ndim != 1:
        fail(pack, f"{where}: expected a row of bytes, torch.uint8, got {getattr(packed, 'dtype', type(packed))}")
    if len(packed) != size:
        fail(pack, f"{where} take {size} bytes, got {len(packed)}")
    for place, (one, other) in enumerate(zip(packed.tolist(), right, strict=True)):
        if one != other:
            fail(pack, f"{where}: byte {place} must be {other:08b} in binary digits, got {one:08b}")
    back = ask_twice(unpack, torch.tensor(right, dtype=torch.uint8), bits, len(codes), without=LIBRARY)
    if not isinstance(back, Tensor) or back.dtype != torch.uint8:
        fail(unpack, f"expected codes, torch.uint8, got {getattr(back, 'dtype', type(back))}")
    _shaped(unpack, back, (len(codes),), f"what comes back of {where}")
    for place in (back != codes).nonzero()[:1].flatten().tolist():
        fail(unpack, f"{where}: code {place} must be {int(codes[place])}, got {int(back[place])}")


def _layer_agrees(function: Callable, linear: nn.Linear, x: Tensor) -> None:
    made = ask(function, linear, without=LIBRARY)
    if not isinstance(made, nn.Module):
        fail(function, f"expected a module, got {type(made).__name__}")
    levels, scale = _ternary_parts(linear.weight.detach())
    right = F.linear(x, levels * scale, linear.bias).detach()
    for _ in range(2):  # the second time it may have kept what it unpacked
        got = ask(made, x, without=LIBRARY)
        if not isinstance(got, Tensor) or got.shape != right.shape:
            fail(function, f"its output must have shape {tuple(right.shape)}, got {getattr(got, 'shape', type(got))}")
        if not torch.allclose(got, right, atol=1e-5):
            fail(function, f"its outputs are off by up to {float((got - right).abs().max()):.3g}")
    held = {id(one): one for one in _tensors(made)}.values()
    count, bias = linear.weight.numel(), 0 if linear.bias is None else 4 * linear.out_features
    parts = f"{-(-2 * count // 8)} of codes, {4 * linear.out_features} of scales and {bias} of biases"
    allowed, taken = -(-2 * count // 8) + 4 * linear.out_features + bias, sum(one.nbytes for one in held)
    if taken != allowed:
        fail(function, f"for a weight of {count} numbers its tensors take {taken} bytes, expected {parts}: {allowed}")
    buffers = sum(one.nbytes for one in made.state_dict().values())
    if buffers != allowed:
        fail(function, f"its state dict holds {buffers} of its {allowed} bytes: register what is to be saved")


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that a module holds on to, registered or not."""
    for part in module.modules():
        own = [*vars(part).values(), *part._parameters.values(), *part._buffers.values()]
        nested = [one for value in own if isinstance(value, list | tuple | dict) for one in _listed(value)]
        yield from (one for one in [*own, *nested] if isinstance(one, Tensor))


def _listed(value) -> list:
    return list(value.values()) if isinstance(value, dict) else list(value)
