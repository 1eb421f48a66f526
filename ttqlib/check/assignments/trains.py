"""Trains that checks try a student's function on, and what they know of them without multiplying them out."""

from collections.abc import Callable, Sequence
from math import isfinite, sqrt

import torch
from torch import Tensor

from ...tensors.gauge import canonical_form
from ...tensors.shapes import clip_ranks
from ..verdict import as_cores, by, fail
from .asking import ask_twice

LONG = (3,) * 40  # modes of a tensor with 10¹⁹ entries
LIBRARY = (
    "tt_to_tensor",
    "tt_svd",
    "tt_ranks",
    "tt_error_bound",
    "singular_values",
    "canonical_form",
    "relative_error",
)
FADING = 0.4  # each direction of a bond weighs this much of the one before


def ask_without_library(function: Callable, *arguments):
    """What the student's function says twice, without the library's arithmetic of trains."""
    return ask_twice(function, *arguments, without=LIBRARY)


def asked_for_cores(function: Callable, *arguments, modes: Sequence[int]) -> list[Tensor]:
    """The same, where it has to be a train with these modes in the dtype of the first argument's cores."""
    cores = as_cores(function, ask_without_library(function, *arguments), modes)
    kind = arguments[0][0].dtype
    for core in cores:
        if core.dtype != kind:
            fail(function, f"expected cores in {kind}, as it was given, got {core.dtype}")
        if not core.isfinite().all():
            fail(function, f"for a {named(modes)} train there are NaN or infinite numbers in its cores")
    return cores


def train(draw: torch.Generator, modes: Sequence[int], rank: int) -> list[Tensor]:
    """Random cores (r_{k-1}, n_k, r_k) in float64 whose tensor has entries of about 1, however many modes it has."""
    ranks = clip_ranks(modes, rank)
    shapes = list(zip(ranks, modes, ranks[1:], strict=False))
    return [torch.randn(shape, generator=draw, dtype=torch.float64) / sqrt(shape[0]) for shape in shapes]


def scrambled(draw: torch.Generator, modes: Sequence[int], rank: int) -> list[Tensor]:
    """A train whose singular values fade, in a gauge that hides it: a random matrix and its inverse at each bond."""
    cores = train(draw, modes, rank)
    for k in range(len(cores) - 1):
        size = cores[k].shape[-1]
        weights = FADING ** torch.arange(size, dtype=torch.float64)
        gauge = torch.randn(size, size, generator=draw, dtype=torch.float64) + 2 * torch.eye(size, dtype=torch.float64)
        cores[k] = cores[k] * weights @ gauge
        cores[k + 1] = torch.tensordot(torch.linalg.inv(gauge), cores[k + 1], 1)
    return cores


def sum_train() -> list[Tensor]:
    """The cores of the 3 × 3 tensor i + j, as chapter 1 writes them."""
    n, one = torch.arange(3.0, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    return [torch.stack([n, one], dim=-1)[None], torch.stack([one, n])[..., None]]


def added(a: Sequence[Tensor], b: Sequence[Tensor], times: float) -> list[Tensor]:
    """Cores of a + times · b."""
    cores = []
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        first, last = k == 0, k == len(a) - 1
        y = times * y if first else y
        if first and last:
            cores.append(x + y)
            continue
        core = x.new_zeros(1 if first else len(x) + len(y), x.shape[1], 1 if last else x.shape[2] + y.shape[2])
        core[: len(x), :, : x.shape[2]] += x
        core[-len(y) :, :, -y.shape[2] :] += y
        cores.append(core)
    return cores


def norm_of(cores: Sequence[Tensor]) -> float:
    """‖T‖, from the one core that is left when all others are orthonormal."""
    return float(canonical_form(cores, len(cores) - 1)[-1].norm())


def bond_spectra(cores: Sequence[Tensor]) -> list[Tensor]:
    """The singular values of each unfolding of the tensor, falling, as many as its bond has directions."""
    return [torch.linalg.svdvals(canonical_form(cores, k)[k].flatten(0, 1)) for k in range(len(cores) - 1)]


def entry(cores: Sequence[Tensor], index: Sequence[int]) -> Tensor:
    """One entry of the tensor that the cores stand for."""
    row = cores[0].new_ones(1, 1)
    for core, i in zip(cores, index, strict=True):
        row = row @ core[:, i]
    return row[0, 0]


def short_modes(draw: torch.Generator, least: int = 2) -> list[tuple[int, ...]]:
    """Modes of three tensors, from `least` axes on, of 2 to 5 values each, and never all equal."""
    sizes = [torch.randint(2, 6, (order,), generator=draw).tolist() for order in range(least, least + 3)]
    return [(*modes[:-1], modes[0] + 1) for modes in sizes]


def indices(draw: torch.Generator, modes: Sequence[int]) -> list[tuple[int, ...]]:
    """A few places of a tensor: its corners and some drawn at random."""
    drawn = [tuple(int(torch.randint(mode, (), generator=draw)) for mode in modes) for _ in range(6)]
    return [(0,) * len(modes), tuple(mode - 1 for mode in modes), *drawn]


def close_to(got, expected: float, tolerance: float, floor: float = 0.0) -> bool:
    """Whether it is one number, and the expected one up to this relative error (or an absolute one of `floor`)."""
    try:
        number = float(got)
    except (TypeError, ValueError, RuntimeError):
        return False
    return isfinite(number) and abs(number - expected) <= max(tolerance * abs(expected), floor)


def shown(got) -> str:
    """What came, in a few words."""
    if isinstance(got, Tensor) and got.numel() != 1:
        return f"a tensor of shape {tuple(got.shape)}"
    try:
        return f"{float(got):.6g}"
    except (TypeError, ValueError, RuntimeError):
        return f"a {type(got).__name__}"


def named(modes: Sequence[int]) -> str:
    """Modes as words."""
    return by(modes) if len(modes) < 7 else f"{len(modes)}-mode"
