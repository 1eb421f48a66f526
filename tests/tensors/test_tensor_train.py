"""TT-SVD and TT-matrices: exactness, the error that theory allows, and no trace left in TensorLy or in the input."""

import threading
from itertools import pairwise
from math import prod, sqrt

import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st

import ttqlib as ttq
from tests.cases import ROUNDING, assert_close, mode_lists, random_tensor, random_train, refused, seeds
from ttqlib.tensors import tensor_train

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
shapes = mode_lists(2, 4)


def decaying(shape, seed=0):
    """A tensor whose singular values fall fast into a little noise, so that every tolerance cuts somewhere else."""
    grid = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(0)
    return 1 / (1 + grid.double()) + 1e-3 * random_tensor(shape, seed)


def error(tensor, cores):
    return float(torch.linalg.vector_norm(tensor - ttq.tt_to_tensor(cores)))


# ------------------------------------------------------------------------------------------ rank, error, and bounds


@given(shapes, seeds)
def test_full_rank_is_exact(shape, seed):
    tensor = random_tensor(shape, seed)
    assert_close(ttq.tt_to_tensor(ttq.tt_svd(tensor, rank=prod(shape))), tensor)


@given(shapes, seeds, st.integers(1, 6))
def test_the_error_lies_between_the_largest_discarded_norm_and_the_bound(shape, seed, rank):
    tensor = decaying(shape, seed)
    cores = ttq.tt_svd(tensor, rank)
    found = ttq.core_ranks(cores)[1:-1]
    assert found == ttq.clip_ranks(shape, rank)[1:-1]
    discarded = [float(s[r:].norm()) for s, r in zip(ttq.singular_values(tensor), found)]
    assert max(discarded) - 1e-12 <= error(tensor, cores) <= ttq.tt_error_bound(tensor, rank) + 1e-12


@given(mode_lists(2, 3, largest=6), seeds)
def test_the_error_falls_with_the_rank(shape, seed):
    """A theorem up to three modes; with more, TT-SVD is only close to optimal and may rise a little."""
    tensor = decaying(shape, seed)
    errors = [error(tensor, ttq.tt_svd(tensor, rank)) for rank in range(1, prod(shape) + 1)]
    assert all(after <= before + 1e-12 for before, after in pairwise(errors))


def superdiagonal():
    """Its two unfoldings both have the singular values 3, 2, 1."""
    tensor = torch.zeros(3, 3, 3)
    for k in range(3):
        tensor[k, k, k] = 3 - k
    return tensor


def test_a_case_by_hand():
    tensor = superdiagonal()
    for spectrum in ttq.singular_values(tensor):
        assert spectrum[:3].tolist() == pytest.approx([3, 2, 1])
    for rank, epsilon in [(1, sqrt(2**2 + 1**2)), (2, 1), (3, 0)]:
        assert ttq.tt_error_bound(tensor, rank) == pytest.approx(sqrt(2) * epsilon)
        assert error(tensor, ttq.tt_svd(tensor, rank)) == pytest.approx(epsilon, abs=1e-6)


def test_ranks_may_differ_from_bond_to_bond():
    cores = ttq.tt_svd(random_tensor((4, 5, 6)), rank=(1, 2, 3, 1))
    assert [tuple(core.shape) for core in cores] == [(1, 4, 2), (2, 5, 3), (3, 6, 1)]
    assert ttq.core_ranks(cores) == (1, 2, 3, 1)


def test_an_unfolding_groups_the_first_modes_as_rows():
    tensor = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(ttq.unfolding(tensor, 1), torch.arange(24).reshape(2, 12))
    assert torch.equal(ttq.unfolding(tensor, 2), torch.arange(24).reshape(6, 4))
    for k in (0, 3):
        with refused(ValueError, "k must be 1 … 2", "3 modes", f"got {k}"):
            ttq.unfolding(tensor, k)


# -------------------------------------------------------------------------------------------------------- tolerance


@given(shapes, seeds, st.floats(1e-6, 0.99))
def test_a_tolerance_is_kept(shape, seed, tolerance):
    tensor = decaying(shape, seed)
    cores = ttq.tt_svd(tensor, tolerance=tolerance)
    assert error(tensor, cores) <= tolerance * float(tensor.norm())
    ranks = ttq.core_ranks(cores)
    assert ranks == ttq.tt_ranks(tensor, tolerance)
    assert ranks == ttq.clip_ranks(shape, ranks)


@pytest.mark.parametrize("noise", [0, 1e-6])
def test_a_tolerance_finds_the_true_ranks_and_no_larger_ones(noise):
    modes, ranks = (4, 5, 6, 4), (1, 3, 2, 4, 1)
    tensor = ttq.tt_to_tensor(random_train(modes, ranks)) + noise * random_tensor(modes)
    assert ttq.tt_ranks(tensor, 1e-4) == ranks


def test_each_truncation_discards_its_share_of_the_tolerance_and_no_more():
    small = 0.01
    tensor = torch.zeros(2, 2, 2, dtype=torch.float64)
    tensor[0, 0, 0], tensor[1, 1, 0], tensor[0, 1, 1] = 1, small, small  # each unfolding has small as its second value
    relative = small / float(tensor.norm())
    assert ttq.tt_ranks(tensor, 1.40 * relative) == (1, 2, 2, 1)  # 1.40 < √2: no share reaches small
    assert ttq.tt_ranks(tensor, 1.43 * relative) == (1, 1, 1, 1)


def test_a_tolerance_never_leaves_a_rank_that_the_next_bond_cannot_use():
    """Two equal small values straddle the first cut; the second then discards what had kept the third rank alive."""
    tensor = torch.zeros(4, 2, 4, dtype=torch.float64)
    tensor[0, 0, 0] = tensor[1, 1, 0] = 1
    tensor[2, 0, 1] = tensor[3, 1, 2] = 0.1
    tolerance = 0.12 * sqrt(2) / float(tensor.norm())
    ranks = ttq.tt_ranks(tensor, tolerance)
    assert ranks == ttq.clip_ranks(tensor.shape, ranks)
    cores = ttq.tt_svd(tensor, tolerance=tolerance)
    assert ttq.core_ranks(cores) == ranks
    assert error(tensor, cores) <= tolerance * float(tensor.norm())


@pytest.mark.parametrize("frequencies", [(0.05,), (0.05, 0.3), (0.05, 0.3, 1.1)])
def test_a_sum_of_sines_has_rank_two_for_each_sine(frequencies):
    time = torch.arange(4**6, dtype=torch.float64)
    signal = sum(torch.sin(w * time + w) for w in frequencies).reshape(4, 4, 4, 4, 4, 4)
    assert ttq.tt_ranks(signal, 1e-8) == ttq.clip_ranks(signal.shape, 2 * len(frequencies))


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 2, float("nan"), True, "a"])
def test_a_tolerance_outside_its_range_is_refused(tolerance):
    for call in (ttq.tt_ranks, lambda tensor, tolerance: ttq.tt_svd(tensor, tolerance=tolerance)):
        with refused(ValueError, "tolerance must lie strictly between 0 and 1", repr(tolerance)):
            call(random_tensor((3, 3)), tolerance)


# ------------------------------------------------------------------------------------------- truncations made fast

SHAPES = [(24, 3000), (90, 400), (160, 160), (400, 60)]  # wide, square and tall, large enough for a Gram matrix
SPECTRA = {
    "flat": lambda k: torch.ones_like(k),
    "falling": lambda k: 1 / (1 + k),
    "tiny tail": lambda k: torch.where(k < 8, 1.0, 1e-5 / (1 + k)),  # of which rank 12 must keep the right part
    "geometric": lambda k: 0.3**k,
    "of rank 8": lambda k: (k < 8).double(),
    "zero": torch.zeros_like,
}


def of_spectrum(shape, spectrum, seed=0):
    """A float32 matrix of random singular vectors, with ones of all signs among its entries, and this spectrum."""
    u, _, vh = torch.linalg.svd(random_tensor(shape, seed), full_matrices=False)
    return ((u * spectrum(torch.arange(min(shape)).double())) @ vh).float()


@pytest.mark.parametrize("scale", [1, 1e-22, 1e22])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_fast_truncation_is_as_good_as_the_svd(shape, spectrum, scale):
    """To 1.0005 times the least error, or to what float32 can hold."""
    matrix = scale * of_spectrum(shape, SPECTRA[spectrum])
    for rank in (1, 8, 12, min(shape)):
        u = tensor_train._leading_directions(matrix, rank).double()
        assert_close(u.T @ u, torch.eye(rank, dtype=torch.float64), 1e-5)
        left = torch.linalg.vector_norm(matrix.double() - u @ (u.T @ matrix.double()))
        values = torch.linalg.svdvals(matrix.double())
        assert left <= 1.0005 * values[rank:].norm() + 1e-6 * values.norm(), rank


def gram_error(matrix):
    exact = matrix.double() @ matrix.double().T
    return torch.linalg.matrix_norm(tensor_train._gram(matrix) - exact) / exact.trace()


@pytest.mark.parametrize(
    "matrix",
    [
        random_tensor((60, 40_000)).float(),
        random_tensor((3, 500_000)).abs().float(),
        1 + random_tensor((100, 5000)).float() / 10,
        random_tensor((100, 5000)).float() ** 5,
        of_spectrum((90, 400), SPECTRA["geometric"]),
    ],
    ids=["normal", "positive", "nearly constant", "heavy tails", "geometric"],
)
def test_rounding_in_a_gram_matrix_is_well_below_its_bound(matrix):
    assert 0 < gram_error(matrix) < tensor_train.GRAM_ERROR / 5


def test_weights_need_no_svd_of_anything_wide(monkeypatch):
    """Where an SVD is needed, the matrix has been made square."""
    shapes, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda a, **options: shapes.append(tuple(a.shape)) or svd(a, **options))
    weight = torch.randn(12, 8, 8, 8, 8, 12, generator=torch.Generator().manual_seed(0))
    cores = ttq.tt_svd(weight, rank=30)
    assert shapes == [(240, 12)]  # the last one, which is small
    assert error(weight, cores) == pytest.approx(error(weight, full_svds(weight, 30)), rel=1e-4)
    for tensor in (of_spectrum((60, 900), SPECTRA["of rank 8"]).reshape(60, 30, 30), weight.double()[..., 0, 0]):
        shapes.clear()
        ttq.tt_svd(tensor, rank=8)
        assert shapes and all(columns <= rows for rows, columns in shapes), shapes


def full_svds(tensor, rank):
    """TT-SVD by the book, TensorLy's, with all singular vectors of each unfolding."""
    with tensorly.backend_context("pytorch"):
        ranks = list(ttq.clip_ranks(tensor.shape, rank))
        return tensorly.decomposition.tensor_train(tensor, rank=ranks).factors


@pytest.mark.parametrize("rank", [4, 30])
def test_layers_lose_no_more_than_by_full_svds(rank):
    for weight in (decaying((12, 8, 8, 12)).float(), torch.randn(12, 8, 8, 12), 1 + 1e-3 * torch.randn(12, 8, 8, 12)):
        assert error(weight, ttq.tt_svd(weight, rank)) <= 1.0005 * error(weight, full_svds(weight, rank))


def test_autocast_costs_no_digits():
    tensor = of_spectrum((90, 400), SPECTRA["falling"]).reshape(9, 10, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ttq.tt_svd(tensor, rank=8)
        ranks = ttq.tt_ranks(tensor, 0.01)
    for core, other in zip(inside, ttq.tt_svd(tensor, rank=8)):
        assert torch.equal(core, other)
    assert ranks == ttq.tt_ranks(tensor, 0.01)


# ------------------------------------------------------------------------------------------------------- TT-matrices


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=3), seeds)
def test_a_tt_matrix_of_full_rank_is_exact_and_its_core_carries_one_row_and_one_column_mode(pairs, seed):
    rows, columns = zip(*pairs)
    matrix = random_tensor((prod(rows), prod(columns)), seed)
    cores = ttq.tt_matrix(matrix, rows, columns, rank=prod(matrix.shape))
    assert [core.shape[1:3] for core in cores] == pairs
    assert_close(ttq.tt_matrix_to_matrix(cores), matrix)


def test_an_entry_is_the_product_of_the_slices_that_its_digits_pick():
    matrix = random_tensor((2 * 3, 4 * 5))
    first, second = ttq.tt_matrix(matrix, (2, 3), (4, 5), rank=99)
    row, column = (1, 2), (3, 4)
    entry = first[:, row[0], column[0]] @ second[:, row[1], column[1]]
    assert_close(entry, matrix[1 * 3 + 2, 3 * 5 + 4].reshape(1, 1))


def test_a_kronecker_product_has_rank_one_interleaved_and_not_otherwise():
    left, right = random_tensor((4, 6), 1), random_tensor((5, 3), 2)
    matrix = torch.kron(left, right)
    interleaved = ttq.tt_matrix(matrix, (4, 5), (6, 3), rank=1)
    assert_close(ttq.tt_matrix_to_matrix(interleaved), matrix)
    assert ttq.core_ranks(ttq.tt_matrix(matrix, (4, 5), (6, 3), tolerance=1e-8)) == (1, 1, 1)
    plain = matrix.reshape(4, 5, 6, 3)
    assert error(plain, ttq.tt_svd(plain, rank=1)) > 0.5 * float(matrix.norm())


def test_modes_that_are_not_the_matrix_are_refused():
    matrix = random_tensor((6, 20))
    with refused(ValueError, "row_modes=(2, 2)", "column_modes=(4, 5)", "(4, 20)", "(6, 20)"):
        ttq.tt_matrix(matrix, (2, 2), (4, 5), rank=1)
    with refused(ValueError, "equally many", "(2, 3)", "(2, 2, 5)"):
        ttq.tt_matrix(matrix, (2, 3), (2, 2, 5), rank=1)
    with refused(ValueError, "row_modes", "non-empty sequence"):
        ttq.tt_matrix(matrix, 6, (4, 5), rank=1)
    with refused(TypeError, "floating-point", "int64"):
        ttq.tt_matrix(torch.ones(6, 20, dtype=torch.int64), (2, 3), (4, 5), rank=1)


# --------------------------------------------------------------------------------------------------- TensorLy itself


@pytest.fixture(params=["numpy", "pytorch"])
def backend(request):
    """TensorLy as a reader may have set it up."""
    before = tensorly.get_backend()
    tensorly.set_backend(request.param)
    yield request.param
    tensorly.set_backend(before)


@pytest.mark.parametrize(
    ("tensor", "ranks", "tolerance"),
    [
        (random_tensor((4, 5, 6)), (1, 3, 2, 1), 1e-10),
        (decaying((40, 30, 50)).float(), (1, 4, 3, 1), 1e-4),  # by Gram matrices; its singular values are well apart
    ],
    ids=["float64", "float32"],
)
def test_tensorly_gives_the_same_cores(backend, tensor, ranks, tolerance):
    native = tensorly.tensor(tensor if backend == "pytorch" else tensor.numpy())
    theirs = tensorly.decomposition.tensor_train(native, rank=list(ranks))
    ours = ttq.tt_svd(tensor, rank=ranks)
    for own, core in zip(ours, theirs):
        assert_close(own, torch.as_tensor(core), tolerance)  # signs are alike too
    assert isinstance(ttq.tt_to_tensor(ours), torch.Tensor)
    assert_close(ttq.tt_to_tensor(ours), torch.as_tensor(tensorly.tt_to_tensor(theirs)), tolerance)


def backend_elsewhere():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(tensorly.get_backend()))
    thread.start()
    thread.join()
    return seen[0]


def test_tensorlys_backend_stays_as_the_reader_set_it(backend):
    elsewhere = backend_elsewhere()
    cores = ttq.tt_svd(random_tensor((3, 4)), rank=2)
    ttq.tt_to_tensor(cores)
    ttq.tt_matrix_to_matrix([core[:, None] for core in cores])
    assert tensorly.get_backend() == backend
    with pytest.raises(RuntimeError):
        ttq.tt_to_tensor([cores[0], cores[0]])
    assert tensorly.get_backend() == backend
    assert backend_elsewhere() == elsewhere


def test_other_threads_see_nothing_of_it(backend, monkeypatch):
    seen = []
    multiply = tensorly.tt_tensor.tt_to_tensor
    spy = lambda *args, **kwargs: seen.append(backend_elsewhere()) or multiply(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(tensorly.tt_tensor, "tt_to_tensor", spy)
    ttq.tt_to_tensor(ttq.tt_svd(random_tensor((3, 4)), rank=2))
    assert seen == [backend]


# ------------------------------------------------------------------------------------- dtype, device, and the input


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_dtype_and_device_are_kept(dtype, device):
    tensor = random_tensor((4, 5, 6)).to(device, dtype)
    cores = ttq.tt_svd(tensor, rank=99)
    rebuilt = ttq.tt_to_tensor(cores)
    for core in [*cores, *ttq.balance_norms(cores), rebuilt]:
        assert (core.dtype, core.device) == (tensor.dtype, tensor.device)
    assert ttq.relative_error(tensor, rebuilt) < ROUNDING[dtype]


def test_the_input_is_left_alone():
    tensor = random_tensor((3, 4, 5)).requires_grad_()
    before = tensor.detach().clone()
    for cores in (ttq.tt_svd(tensor, rank=2), ttq.tt_svd(tensor, tolerance=0.1), ttq.tt_svd(tensor, rank=99)):
        for core in cores:
            assert not core.requires_grad
            core.zero_()
    assert torch.equal(tensor.detach(), before)


@pytest.mark.parametrize(
    ("tensor", "kind", "parts"),
    [
        (torch.ones(3, 3, dtype=torch.int64), TypeError, ["floating-point", "int64"]),
        (torch.ones(3, 3, dtype=torch.complex64), TypeError, ["floating-point", "complex64"]),
        ([[1.0, 2.0]], TypeError, ["torch tensor", "list"]),
        (torch.tensor(3.0), ValueError, ["at least one mode", "()"]),
        (torch.ones(3, 0), ValueError, ["none that is empty", "(3, 0)"]),
        (torch.tensor([[1.0, float("nan")]]), ValueError, ["finite", "NaN"]),
        (torch.tensor([[1.0, float("inf")]]), ValueError, ["finite", "infinite"]),
    ],
)
def test_what_cannot_be_decomposed_is_refused(tensor, kind, parts):
    for call in (lambda: ttq.tt_svd(tensor, rank=1), lambda: ttq.tt_ranks(tensor, 0.1)):
        with refused(kind, "tensor", *parts):
            call()
    with refused(kind, "tensor", *parts):
        ttq.tt_error_bound(tensor, 1)


def test_rank_or_tolerance_is_wanted_and_not_both():
    for arguments in ({}, {"rank": 2, "tolerance": 0.1}):
        with refused(ValueError, "either rank or tolerance", f"rank={arguments.get('rank')}"):
            ttq.tt_svd(random_tensor((3, 3)), **arguments)
    with refused(ValueError, "rank", "at least 1", "got 0"):
        ttq.tt_svd(random_tensor((3, 3)), rank=0)


# ------------------------------------------------------------------------------------------------------------- norms


@given(shapes, seeds, st.integers(-12, 12))
def test_balancing_keeps_the_tensor_and_makes_the_norms_equal(shape, seed, exponent):
    tensor = 10.0**exponent * random_tensor(shape, seed)
    cores = ttq.balance_norms(ttq.tt_svd(tensor, rank=3))
    norms = [float(core.norm()) for core in cores]
    assert norms == pytest.approx([norms[0]] * len(norms))
    assert ttq.relative_error(ttq.tt_to_tensor(ttq.tt_svd(tensor, rank=3)), ttq.tt_to_tensor(cores)) < 1e-10


def test_balancing_a_zero_tensor_leaves_it_zero():
    cores = ttq.balance_norms(ttq.tt_svd(torch.zeros(3, 4, 5), rank=2))
    assert torch.equal(ttq.tt_to_tensor(cores), torch.zeros(3, 4, 5))


def test_a_vector_is_a_train_of_one_core():
    vector = torch.randn(5)
    for choice in ({"rank": 3}, {"tolerance": 0.5}):
        (core,) = ttq.tt_svd(vector, **choice)
        assert core.shape == (1, 5, 1) and torch.equal(core.flatten(), vector)
    assert ttq.tt_error_bound(vector, rank=1) == 0
