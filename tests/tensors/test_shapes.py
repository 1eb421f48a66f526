"""Mode sizes, ranks and parameter counts, compared with what real tensors do."""

from math import ceil, prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ttqlib as ttq
from tests.cases import mode_lists, random_tensor, random_train, ranks, refused, seeds
from ttqlib.tensors.shapes import fit_modes

NOT_COUNTS = [0, -1, True, 1.5, "a", None]
sizes = st.integers(1, 200_000)


def unfolding_ranks(tensor):
    """All d + 1 TT-ranks of a tensor by their definition: the matrix ranks of its unfoldings."""
    return (1, *(int(torch.linalg.matrix_rank(ttq.unfolding(tensor, k))) for k in range(1, tensor.ndim)), 1)


# -------------------------------------------------------------------------------------------------------- factorize


@pytest.mark.parametrize(
    ("size", "modes"),
    [
        (1, (1, 1, 1)),
        (5, (5, 1, 1)),
        (7, (2, 2, 2)),
        (64, (4, 4, 4)),
        (768, (12, 8, 8)),
        (3072, (16, 16, 12)),
        (30522, (32, 31, 31)),
        (50257, (37, 37, 37)),
    ],
)
def test_known_sizes(size, modes):
    assert ttq.factorize(size) == modes


def covers(modes, size):
    return prod(modes) >= size


def is_wasteful(modes, size):
    return any(covers((*modes[:k], modes[k] - 1, *modes[k + 1 :]), size) for k in range(len(modes)))


@given(sizes, st.integers(1, 5))
def test_a_factorization_covers_its_size_without_waste_and_in_balance(size, parts):
    modes = ttq.factorize(size, parts)
    assert len(modes) == parts
    assert list(modes) == sorted(modes, reverse=True)
    assert covers(modes, size) and not is_wasteful(modes, size)
    assert sum(modes) <= 1.25 * parts * ceil(round(size ** (1 / parts), 9))


@given(st.integers(1, 30).flatmap(lambda least: st.lists(st.integers(least, 2 * least), min_size=2, max_size=4)))
def test_a_size_with_a_balanced_factorization_is_not_padded(balanced):
    assert prod(ttq.factorize(prod(balanced), len(balanced))) == prod(balanced)


@pytest.mark.parametrize("value", NOT_COUNTS)
def test_factorize_refuses_what_is_no_count(value):
    with refused(ValueError, "size", "whole number of at least 1", repr(value)):
        ttq.factorize(value)
    with refused(ValueError, "parts", "whole number of at least 1", repr(value)):
        ttq.factorize(12, parts=value)


# -------------------------------------------------------------------------------------------------------- fit_modes


def test_modes_are_chosen_where_none_are_given_and_the_largest_stands_at_the_wanted_end():
    assert fit_modes("modes", None, 768) == (12, 8, 8)
    assert fit_modes("modes", None, 768, largest="last") == (8, 8, 12)


def test_given_modes_are_kept_with_or_without_padding():
    assert fit_modes("modes", [2, 12], 24) == (2, 12)
    assert fit_modes("modes", (5, 5), 23) == (5, 5)


@pytest.mark.parametrize(("modes", "problem"), [((4, 5), "less than"), ((5, 7), "needlessly more than")])
def test_modes_that_do_not_fit_are_refused_and_others_proposed(modes, problem):
    with refused(ValueError, f"in_modes={modes}", f"out to {prod(modes)}, {problem} the 24", "(6, 4) would do"):
        fit_modes("in_modes", modes, 24)


@pytest.mark.parametrize("modes", [(), "22", 4, None])
def test_modes_must_be_a_non_empty_sequence(modes):
    with refused(ValueError, "modes", "non-empty sequence", repr(modes)):
        ttq.clip_ranks(modes, 2)


@pytest.mark.parametrize("mode", NOT_COUNTS)
def test_every_mode_must_be_a_count(mode):
    with refused(ValueError, "every entry of in_modes", "at least 1", repr(mode)):
        fit_modes("in_modes", (2, mode), 4)


# ------------------------------------------------------------------------------------------------------------ ranks


@given(mode_lists(2, 5, largest=4), st.data())
def test_clipped_ranks_are_the_ranks_that_a_random_train_really_has(modes, data):
    inner = data.draw(st.lists(ranks, min_size=len(modes) - 1, max_size=len(modes) - 1))
    asked = (1, *inner, 1)
    tensor = ttq.tt_to_tensor(random_train(modes, asked, data.draw(seeds)))
    assert ttq.clip_ranks(modes, asked) == unfolding_ranks(tensor)


@given(mode_lists(2, 5, largest=4), seeds)
def test_no_rank_is_clipped_below_what_a_random_tensor_needs(modes, seed):
    assert ttq.clip_ranks(modes, prod(modes)) == unfolding_ranks(random_tensor(modes, seed))


@given(mode_lists(1, 5), ranks)
def test_one_rank_stands_for_every_bond(modes, rank):
    assert ttq.clip_ranks(modes, rank) == ttq.clip_ranks(modes, [1, *[rank] * (len(modes) - 1), 1])


@pytest.mark.parametrize("rank", NOT_COUNTS)
def test_a_rank_that_is_no_count_is_refused(rank):
    with refused(ValueError, "rank", "whole number of at least 1", repr(rank)):
        ttq.clip_ranks((4, 4), rank)
    with refused(ValueError, "every rank", "whole number of at least 1", repr(rank)):
        ttq.clip_ranks((4, 4), (1, rank, 1))


@pytest.mark.parametrize("rank", [(), (2,), (1, 2), (2, 2, 1), (1, 2, 2), (1, 2, 2, 1)])
def test_a_tuple_of_ranks_has_one_at_both_ends_and_one_for_each_bond(rank):
    with refused(ValueError, "3 of them with 1 at both ends for 2 modes", str(rank)):
        ttq.clip_ranks((4, 4), rank)


# ------------------------------------------------------------------------------------------------- parameter counts


def numbers_in(cores):
    return sum(core.numel() for core in cores)


@given(mode_lists(2, 4), ranks)
def test_the_count_of_a_tensor_train_is_what_its_cores_hold(modes, rank):
    assert ttq.tt_parameters(modes, rank) == numbers_in(ttq.tt_svd(random_tensor(modes), rank))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=3), ranks)
def test_the_count_of_a_tt_matrix_is_what_its_cores_hold(pairs, rank):
    rows, columns = zip(*pairs)
    cores = ttq.tt_matrix(random_tensor((prod(rows), prod(columns))), rows, columns, rank)
    assert ttq.tt_parameters([m * n for m, n in pairs], rank) == numbers_in(cores)


def test_the_count_by_hand():
    assert ttq.tt_parameters((4, 5, 6), 2) == 1 * 4 * 2 + 2 * 5 * 2 + 2 * 6 * 1


@given(mode_lists(1, 5), ranks, st.integers(0, 20))
def test_the_largest_rank_fits_the_budget_and_the_next_does_not(modes, affordable, spare):
    budget = ttq.tt_parameters(modes, affordable) + spare
    rank = ttq.largest_rank(modes, budget)
    assert ttq.tt_parameters(modes, rank) <= budget
    everything = ttq.tt_parameters(modes, prod(modes))
    assert ttq.tt_parameters(modes, rank + 1) > budget or ttq.tt_parameters(modes, rank) == everything


def test_a_budget_below_rank_one_is_refused():
    with refused(ValueError, "parameters must be at least 15", "(4, 5, 6)", "got 14"):
        ttq.largest_rank((4, 5, 6), 14)
    with refused(ValueError, "parameters", "whole number", "1.5"):
        ttq.largest_rank((4, 5, 6), 1.5)
