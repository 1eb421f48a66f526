"""Assignment 1, the arithmetic of trains: products, norms, rounding and its bounds, all from cores.

Each check tries trains that are small enough to be multiplied out and one that is far too long for it. A check whose
name ends in `_by_hand` has one case that fits on paper.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from ...tensors.tensor_train import core_ranks, tt_svd, tt_to_tensor
from ..verdict import close, exercise, fail
from .seeds import generator
from .trains import (
    LONG,
    added,
    ask_without_library,
    asked_for_cores,
    bond_spectra,
    close_to,
    entry,
    indices,
    named,
    norm_of,
    scrambled,
    short_modes,
    shown,
    sum_train,
    train,
)

NEARLY = 1e-10  # how much two trains differ whose difference shows whether digits get lost
SLACK = 1.02  # rounding from left to right and from right to left differ a little; either is right


@exercise
def multiply(function: Callable, seed: int = 0) -> None:
    """`function(a, b)` must return cores of the train whose entries are those of `a` times those of `b`."""
    draw = generator(seed, "multiply")
    for modes in (*short_modes(draw), LONG):
        a, b = (train(draw, modes, rank) for rank in (3, 2))
        product = asked_for_cores(function, a, b, modes=modes)
        allowed = tuple(r * s for r, s in zip(core_ranks(a), core_ranks(b), strict=True))
        if any(rank > most for rank, most in zip(core_ranks(product), allowed, strict=True)):
            fail(function, f"for {named(modes)} trains ranks multiply, to {allowed[1]} at the first bond: got more")
        for index in indices(draw, modes):
            close(function, entry(product, index), entry(a, index) * entry(b, index), f"for {named(modes)} trains")
    asked_for_cores(function, *([core.float() for core in one] for one in (a, b)), modes=modes)


@exercise
def multiply_by_hand(function: Callable) -> None:
    """The train of i + j times itself must have the entries (i + j)²."""
    product = asked_for_cores(function, sum_train(), sum_train(), modes=(3, 3))
    close(function, tt_to_tensor(product), torch.tensor([[0.0, 1, 4], [1, 4, 9], [4, 9, 16]]).double(), "(i + j)²:")


@exercise
def inner(function: Callable, seed: int = 0) -> None:
    """`function(a, b)` must return the sum of a[i, j, …] b[i, j, …] over all places, as a tensor with no axes."""
    draw = generator(seed, "inner")
    for modes in short_modes(draw):
        a, b = (train(draw, modes, rank) for rank in (3, 2))
        expected = (tt_to_tensor(a) * tt_to_tensor(b)).sum()
        close(function, ask_without_library(function, a, b), expected, f"for {named(modes)} trains")
    a, means = train(draw, LONG, 3), [torch.ones(1, mode, 1, dtype=torch.float64) / mode for mode in LONG]
    expected = entry([core.mean(dim=1, keepdim=True) for core in a], (0,) * len(LONG))
    got = ask_without_library(function, a, means)
    if not close_to(got, float(expected), 1e-6):
        fail(function, f"for {named(LONG)} trains expected {float(expected):.6g}, got {shown(got)}")
    wide = train(draw, (4,) * 10, 200)  # the train of its product would need 10¹⁰ numbers in each core
    if not close_to(ask_without_library(function, wide, wide), norm_of(wide) ** 2, 1e-6):
        fail(function, "for trains of rank 200 the value is off")


@exercise
def inner_by_hand(function: Callable) -> None:
    """i + j over 3 × 3 places: its entries add up to 18, their squares to 48."""
    ones, double = [torch.ones(1, 3, 1, dtype=torch.float64)] * 2, {"dtype": torch.float64}
    close(function, ask_without_library(function, sum_train(), ones), torch.tensor(18, **double), "i + j with ones:")
    close(function, ask_without_library(function, sum_train(), sum_train()), torch.tensor(48, **double), "with itself:")


@exercise
def left_orthogonal(function: Callable, seed: int = 0) -> None:
    """`function(cores)` must return the same tensor with all cores but the last orthonormal, as (r n, r') matrices."""
    draw = generator(seed, "left_orthogonal")
    for modes in (*short_modes(draw), LONG):
        cores = train(draw, modes, 3)
        got = asked_for_cores(function, cores, modes=modes)
        _orthonormal(function, got, f"for a {named(modes)} train")
        if any(new > old for new, old in zip(core_ranks(got), core_ranks(cores), strict=True)):
            fail(function, f"for a {named(modes)} train no rank may grow: {core_ranks(cores)} became {core_ranks(got)}")
        _same_tensor(function, got, cores, f"for a {named(modes)} train")


@exercise
def left_orthogonal_by_hand(function: Callable) -> None:
    """(3, 4) times (1, 2): the first core must become ±(0.6, 0.8), the last ±(5, 10)."""
    cores = [torch.tensor(row, dtype=torch.float64).reshape(1, 2, 1) for row in ([3.0, 4], [1.0, 2])]
    got = asked_for_cores(function, cores, modes=(2, 2))
    _orthonormal(function, got, "(3, 4) times (1, 2):")
    close(function, got[1].abs().flatten(), torch.tensor([5.0, 10], dtype=torch.float64), "the last core, up to signs:")


@exercise
def norm(function: Callable, seed: int = 0) -> None:
    """`function(cores)` must return ‖T‖, to nearly all digits also where T is what two trains differ by."""
    draw = generator(seed, "norm")
    for modes in (*short_modes(draw), LONG, (7,)):
        cores = train(draw, modes, 3)
        got = ask_without_library(function, cores)
        if not close_to(got, norm_of(cores), 1e-9):
            fail(function, f"for a {named(modes)} train expected {norm_of(cores):.6g}, got {shown(got)}")
        if tuple(getattr(got, "shape", ())):
            fail(function, f"expected one number, got a tensor of shape {tuple(got.shape)}")
    cores = train(draw, (4, 5, 3, 4), 3)
    difference = added(cores, [cores[0] * (1 + NEARLY), *cores[1:]], -1.0)
    got, expected = ask_without_library(function, difference), norm_of(difference)
    if not close_to(got, expected, 1e-3):
        advice = "the square root of an inner product keeps half of the digits"
        fail(function, f"for two trains that nearly agree expected {expected:.3g}, got {shown(got)}: {advice}")


@exercise
def norm_by_hand(function: Callable) -> None:
    """‖(3, 4)‖ ‖(1, 2)‖ = 5 √5."""
    cores = [torch.tensor(row, dtype=torch.float64).reshape(1, 2, 1) for row in ([3.0, 4], [1.0, 2])]
    if not close_to(got := ask_without_library(function, cores), 5 * sqrt(5), 1e-9):
        fail(function, f"(3, 4) times (1, 2): expected 5 √5 = {5 * sqrt(5):.4f}, got {shown(got)}")


@exercise
def tt_round(function: Callable, seed: int = 0) -> None:
    """`function(cores, rank)` must return a train of at most this rank, as near to the given one as TT-SVD comes."""
    draw = generator(seed, "tt_round")
    for modes in short_modes(draw, least=3):
        cores = scrambled(draw, modes, 4)
        full, spectra = tt_to_tensor(cores), bond_spectra(cores)
        for rank in (1, 2, 4):
            where = f"for a {named(modes)} train and rank {rank}"
            got = asked_for_cores(function, cores, rank, modes=modes)
            if max(core_ranks(got)) > rank:
                fail(function, f"{where} no rank may be larger: got {core_ranks(got)}")
            if any(new > len(values) for new, values in zip(core_ranks(got)[1:-1], spectra, strict=True)):
                fail(function, f"{where} no rank may grow: {core_ranks(cores)} became {core_ranks(got)}")
            error, best = float((full - tt_to_tensor(got)).norm()), _error_of_tt_svd(full, rank)
            if not error <= SLACK * best + 1e-9 * float(full.norm()):
                fail(function, f"{where} the error is {error:.4g}, TT-SVD of the whole tensor has {best:.4g}")
    twice = added(a := train(draw, LONG, 2), a, 1.0)
    doubled = [2 * a[0], *a[1:]]
    _same_tensor(
        function, asked_for_cores(function, twice, 2, modes=LONG), doubled, f"a + a, {named(LONG)}, to rank 2:"
    )
    for cores in ([a[0][..., :1]], [0 * core for core in a[:1]] + [a[-1]]):
        got = asked_for_cores(function, cores, 2, modes=[core.shape[1] for core in cores])
        where = "for a train of one core" if len(cores) == 1 else "for a train that is zero"
        close(function, tt_to_tensor(got), tt_to_tensor(cores), where)


@exercise
def tt_round_by_hand(function: Callable) -> None:
    """The matrix with 3 and 2 on its diagonal, at rank 1: the 3 must stay, the 2 must go."""
    cores = [torch.eye(2, dtype=torch.float64)[None], torch.diag(torch.tensor([3.0, 2.0]).double())[..., None]]
    got = asked_for_cores(function, cores, 1, modes=(2, 2))
    close(
        function, tt_to_tensor(got), torch.diag(torch.tensor([3.0, 0.0]).double()), "3 and 2 on the diagonal, rank 1:"
    )


@exercise
def error_bounds(function: Callable, seed: int = 0) -> None:
    """`function(cores, rank)` must return what the error of rounding to this rank lies between: (least, most)."""
    draw = generator(seed, "error_bounds")
    for modes in (*short_modes(draw, least=3), LONG):
        cores = scrambled(draw, modes, 4)
        spectra = bond_spectra(cores)
        for rank in (1, 2, 4):
            discarded = [float(values[rank:].norm()) for values in spectra]
            _bounds(function, cores, rank, (max(discarded), sqrt(sum(e**2 for e in discarded))), named(modes))


@exercise
def error_bounds_by_hand(function: Callable) -> None:
    """The matrix with 3 and 2 on its diagonal has one cut, which loses the 2 at rank 1: both bounds are 2."""
    cores = [torch.eye(2, dtype=torch.float64)[None], torch.diag(torch.tensor([3.0, 2.0]).double())[..., None]]
    _bounds(function, cores, 1, (2.0, 2.0), "2 × 2")


# ------------------------------------------------------------------------------------------------ parts of the checks


def _orthonormal(function: Callable, cores: list[Tensor], where: str) -> None:
    for k, core in enumerate(cores[:-1]):
        matrix = core.flatten(0, 1)
        if not torch.allclose(matrix.T @ matrix, torch.eye(matrix.shape[1], dtype=core.dtype), atol=1e-8):
            fail(function, f"{where} core {k} as a matrix of shape {tuple(matrix.shape)} needs orthonormal columns")


def _same_tensor(function: Callable, got: list[Tensor], cores: list[Tensor], where: str) -> None:
    off = norm_of(added(got, cores, -1.0)) / norm_of(cores)
    if not off < 1e-8:
        fail(function, f"{where} the tensor must stay the same: it is off by {off:.1%}")


def _error_of_tt_svd(full: Tensor, rank: int) -> float:
    """The larger of the errors of TT-SVD from either side."""
    turned = full.permute(*reversed(range(full.ndim)))
    return max(float((one - tt_to_tensor(tt_svd(one, rank))).norm()) for one in (full, turned))


def _bounds(function: Callable, cores: list[Tensor], rank: int, expected: tuple[float, float], modes: str) -> None:
    got, where = ask_without_library(function, cores, rank), f"for a {modes} train and rank {rank}"
    if not isinstance(got, tuple | list) or len(got) != 2:
        fail(function, f"{where} expected two numbers, (least, most), got {shown(got)}")
    for name, value, wanted in zip(("least", "most"), got, expected, strict=True):
        if not close_to(value, wanted, 1e-6, floor=1e-7 * norm_of(cores)):
            fail(function, f"{where} expected the {name} error to be {wanted:.6g}, got {shown(value)}")
