"""TT-rounding: what it keeps, what it may lose, and that no tensor is built."""

from math import prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ttqlib as ttq
from tests.cases import ROUNDING, assert_close, mode_lists, random_tensor, random_train, ranks, refused, seeds

shapes = mode_lists(1, 5, largest=4)


def some_train(modes, rank, seed):
    """A random train whose ranks the shape need not be able to use."""
    return random_train(modes, [1, *[rank] * (len(modes) - 1), 1], seed)


def error(cores, rounded):
    return ttq.relative_error(ttq.tt_to_tensor(cores), ttq.tt_to_tensor(rounded))


def add(a, b):
    """The sum of two trains of two cores or more, side by side: their ranks add up."""
    inner = [
        torch.stack([torch.block_diag(x[:, n], y[:, n]) for n in range(x.shape[1])], dim=1)
        for x, y in zip(a[1:-1], b[1:-1], strict=True)
    ]
    return [torch.cat([a[0], b[0]], dim=-1), *inner, torch.cat([a[-1], b[-1]])]


@given(shapes, ranks, seeds)
def test_a_rank_that_is_no_limit_leaves_the_tensor_as_it_was(modes, rank, seed):
    cores = some_train(modes, rank, seed)
    rounded = ttq.tt_round(cores, rank=prod(modes))
    assert_close(ttq.tt_to_tensor(rounded), ttq.tt_to_tensor(cores), 1e-8)
    found = ttq.core_ranks(rounded)
    assert found == ttq.clip_ranks(modes, found)
    assert all(new <= old for new, old in zip(found, ttq.core_ranks(cores), strict=True))


@given(shapes, ranks, seeds, st.integers(1, 6))
def test_a_rank_is_kept_and_the_error_lies_between_the_theorems_bounds(modes, rank, seed, wanted):
    cores = some_train(modes, rank, seed)
    rounded, tensor = ttq.tt_round(cores, wanted), ttq.tt_to_tensor(cores)
    found = ttq.core_ranks(rounded)
    assert all(new <= old for new, old in zip(found, ttq.clip_ranks(modes, wanted), strict=True))
    lost = [float(s[r:].norm()) for s, r in zip(ttq.singular_values(tensor), found[1:], strict=False)]
    missed = float(torch.linalg.vector_norm(tensor - ttq.tt_to_tensor(rounded)))
    room = 1e-8 * float(tensor.norm())
    assert max(lost, default=0) - room <= missed <= ttq.tt_error_bound(tensor, wanted) + room


@given(shapes, ranks, seeds, st.floats(1e-6, 0.99))
def test_a_tolerance_is_kept(modes, rank, seed, tolerance):
    cores = some_train(modes, rank, seed)
    rounded = ttq.tt_round(cores, tolerance=tolerance)
    assert error(cores, rounded) <= tolerance * (1 + 1e-9)
    found = ttq.core_ranks(rounded)
    assert found == ttq.clip_ranks(modes, found)


@given(mode_lists(2, 5, largest=4), seeds)
def test_a_train_that_is_added_to_itself_gets_its_ranks_back(modes, seed):
    cores = random_train(modes, ttq.clip_ranks(modes, 3), seed)
    doubled = add(cores, cores)
    rounded = ttq.tt_round(doubled, tolerance=1e-7)
    assert all(new <= old for new, old in zip(ttq.core_ranks(rounded), ttq.core_ranks(cores), strict=True))
    assert_close(ttq.tt_to_tensor(rounded), 2 * ttq.tt_to_tensor(cores), 1e-5)


def test_the_cores_are_those_of_tt_svd():
    """Where nothing is tied, the SVDs of both are the same, signs included."""
    cores = random_train((4, 5, 6, 4), (1, 3, 5, 3, 1))
    for rounded, core in zip(ttq.tt_round(cores, 2), ttq.tt_svd(ttq.tt_to_tensor(cores), 2), strict=True):
        assert_close(rounded, core, 1e-8)


def test_each_bond_discards_its_share_of_the_tolerance_and_no_more():
    small = 0.01
    tensor = torch.zeros(2, 2, 2, dtype=torch.float64)
    tensor[0, 0, 0], tensor[1, 1, 0], tensor[0, 1, 1] = 1, small, small  # each unfolding has small as its second value
    cores, relative = ttq.tt_svd(tensor, 2), small / float(tensor.norm())
    assert ttq.core_ranks(ttq.tt_round(cores, tolerance=1.40 * relative)) == (1, 2, 2, 1)  # 1.40 < √2
    assert ttq.core_ranks(ttq.tt_round(cores, tolerance=1.43 * relative)) == (1, 1, 1, 1)


def test_a_tolerance_never_leaves_a_rank_that_the_next_bond_cannot_use():
    tensor = torch.zeros(4, 2, 4, dtype=torch.float64)
    tensor[0, 0, 0] = tensor[1, 1, 0] = 1
    tensor[2, 0, 1] = tensor[3, 1, 2] = 0.1
    cores, tolerance = ttq.tt_svd(tensor, 8), 0.12 * sqrt(2) / float(tensor.norm())
    found = ttq.core_ranks(ttq.tt_round(cores, tolerance=tolerance))
    assert found == ttq.clip_ranks(tensor.shape, found) == ttq.tt_ranks(tensor, tolerance)


def test_a_tensor_too_large_for_any_memory_is_rounded():
    cores = random_train([10] * 40, [1, *[2] * 39, 1])
    rounded = ttq.tt_round(add(cores, cores), tolerance=1e-6)
    assert ttq.core_ranks(rounded) == ttq.core_ranks(cores)


def test_cores_with_two_modes_are_rounded_as_a_tt_matrix():
    matrix = torch.kron(random_tensor((4, 6), 1), random_tensor((5, 3), 2))
    cores = ttq.tt_matrix(matrix, (4, 5), (6, 3), rank=20)
    rounded = ttq.tt_round(cores, tolerance=1e-8)
    assert [tuple(core.shape) for core in rounded] == [(1, 4, 6, 1), (1, 5, 3, 1)]
    assert_close(ttq.tt_matrix_to_matrix(rounded), matrix)


def test_ranks_may_differ_from_bond_to_bond():
    cores = random_train((4, 5, 6), (1, 4, 4, 1))
    assert ttq.core_ranks(ttq.tt_round(cores, (1, 3, 2, 1))) == (1, 3, 2, 1)
    assert ttq.core_ranks(ttq.tt_round([torch.zeros_like(core) for core in cores], tolerance=0.1)) == (1, 1, 1, 1)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_dtype_is_kept_and_the_input_left_alone(dtype):
    cores = [core.to(dtype).requires_grad_() for core in ttq.tt_svd(random_tensor((4, 5, 6)), rank=9)]
    before = [core.detach().clone() for core in cores]
    rounded = ttq.tt_round(cores, rank=9)
    assert {core.dtype for core in rounded} == {dtype}
    assert error([core.detach() for core in cores], rounded) < ROUNDING[dtype]
    for core in rounded:
        assert not core.requires_grad
        core.zero_()
    alone = ttq.tt_round([torch.ones(1, 3, 1, dtype=dtype)], rank=1)
    assert torch.equal(alone[0], torch.ones(1, 3, 1, dtype=dtype))
    assert all(map(torch.equal, before, cores))


def test_autocast_costs_no_digits():
    cores = [core.float() for core in random_train((8, 8, 8), (1, 6, 6, 1))]
    with torch.autocast("cpu", torch.bfloat16):
        inside = ttq.tt_round(cores, rank=3)
    assert all(map(torch.equal, inside, ttq.tt_round(cores, rank=3)))


@pytest.mark.parametrize(
    ("cores", "kind", "parts"),
    [
        ([], ValueError, ["non-empty list"]),
        (torch.ones(1, 3, 1), ValueError, ["non-empty list", "Tensor"]),
        ([torch.ones(1, 3, 2), torch.ones(3, 3, 1)], ValueError, ["begins with", "(1, 3, 2), (3, 3, 1)"]),
        ([torch.ones(1, 3, 2), torch.ones(2, 3, 2)], ValueError, ["begins with"]),
        ([torch.ones(2, 3, 1)], ValueError, ["begins with"]),
        ([torch.ones(1, 1)], ValueError, ["begins with"]),
        ([torch.ones(1, 3, 1).long()], TypeError, ["cores[0]", "int64"]),
        ([torch.ones(1, 3, 1), torch.full((1, 3, 1), torch.nan)], ValueError, ["cores[1]", "finite"]),
        ([torch.ones(1, 0, 1)], ValueError, ["cores[0]", "empty"]),
    ],
)
def test_what_is_no_train_is_refused(cores, kind, parts):
    with refused(kind, "cores", *parts):
        ttq.tt_round(cores, rank=1)


def test_rank_or_tolerance_is_wanted_and_not_both():
    cores = random_train((3, 3), (1, 2, 1))
    for arguments in ({}, {"rank": 2, "tolerance": 0.1}):
        with refused(ValueError, "either rank or tolerance", f"rank={arguments.get('rank')}"):
            ttq.tt_round(cores, **arguments)
    with refused(ValueError, "rank", "at least 1", "got 0"):
        ttq.tt_round(cores, rank=0)
    for tolerance in (0, 1, True, float("nan")):
        with refused(ValueError, "strictly between 0 and 1", repr(tolerance)):
            ttq.tt_round(cores, tolerance=tolerance)
