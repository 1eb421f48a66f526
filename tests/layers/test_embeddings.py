"""`TTMEmbedding` is its reconstructed table, in value and in every gradient, and never builds it."""

import copy
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import ttqlib as ttq
from tests.cases import ROUNDING, Double, Scale, Scaled, assert_close, random_tensor, ranks, refused, seeds
from ttqlib.layers import embedding as embeddings

NOT_COUNTS = [0, -1, True, 1.5, "a"]
sizes = st.integers(1, 60)


def table(layer):
    """All rows, of shape (num_embeddings, embedding_dim), rebuilt by TensorLy from the cores."""
    return layer.scale * ttq.tt_matrix_to_matrix(layer.cores)[: layer.num_embeddings, : layer.embedding_dim]


def gradients(layer, output):
    return torch.autograd.grad((output * random_tensor(output.shape)).sum(), layer.parameters())


def assert_looks_up(layer, ids):
    output, expected = layer(ids), F.embedding(ids, table(layer), padding_idx=layer.padding_idx)
    assert_close(output, expected)
    for actual, wanted in zip(gradients(layer, output), gradients(layer, expected)):
        assert_close(actual, wanted)


def all_ids(layer):
    """Every id twice, out of order."""
    count = layer.num_embeddings
    return torch.cat([torch.arange(count).flip(0), torch.arange(count)])


@st.composite
def ttm_embeddings(draw):
    count, width, parts = draw(sizes), draw(sizes), draw(st.integers(1, 4))
    torch.manual_seed(draw(seeds))
    return ttq.TTMEmbedding(
        count,
        width,
        draw(ranks),
        ttq.factorize(count, parts),
        ttq.factorize(width, parts)[::-1],
        padding_idx=draw(st.none() | st.integers(-count, count - 1)),
        dtype=torch.float64,
        scale=draw(st.sampled_from([1.0, 8.0])),
    )


def example(**arguments):
    torch.manual_seed(0)
    return ttq.TTMEmbedding(50, 12, rank=5, dtype=torch.float64, **arguments)


# ------------------------------------------------------------------------------------------------ values, gradients


@given(ttm_embeddings(), st.lists(st.integers(0, 4), max_size=3), seeds, st.sampled_from([torch.int64, torch.int32]))
def test_a_look_up_gives_the_rows_of_the_reconstructed_table_and_their_gradients(layer, shape, seed, dtype):
    ids = torch.randint(layer.num_embeddings, shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert_looks_up(layer, ids)


def test_the_gradients_hold_against_finite_differences():
    torch.manual_seed(0)
    layer = ttq.TTMEmbedding(7, 5, rank=2, scale=2.0, dtype=torch.float64)
    names = list(dict(layer.named_parameters()))
    ids = torch.tensor([[0, 6], [3, 6]])
    assert torch.autograd.gradcheck(
        lambda *values: torch.func.functional_call(layer, dict(zip(names, values)), (ids,)), (*layer.parameters(),)
    )


@pytest.mark.parametrize("merged", [1, 2, 3])
@pytest.mark.parametrize("chunk_bytes", [1, 3000, 2**26])
@pytest.mark.parametrize("padding_idx", [None, 7])
def test_every_way_to_look_up_gives_the_same(monkeypatch, merged, chunk_bytes, padding_idx):
    monkeypatch.setattr(ttq.TTMEmbedding, "merged_cores", lambda self, ids: merged)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", chunk_bytes)
    layer = example(padding_idx=padding_idx)
    assert_looks_up(layer, all_ids(layer))
    with torch.no_grad():
        assert_close(layer(all_ids(layer)), table(layer)[all_ids(layer)])


def chunks_of(layer, ids, monkeypatch):
    lengths = []
    complete = layer._complete
    monkeypatch.setattr(layer, "_complete", lambda ids, *rest: lengths.append(len(ids)) or complete(ids, *rest))
    with torch.no_grad():
        layer(ids)
    return lengths


def test_only_what_passes_the_byte_limit_works_in_chunks(monkeypatch):
    layer = example()
    ids = torch.arange(50)
    assert chunks_of(layer, ids, monkeypatch) == [50]
    monkeypatch.setattr(ttq.TTMEmbedding, "merged_cores", lambda self, ids: 1)
    # one id takes its prefix (2 hidden modes by rank 5) and a slice of 5 × 2 × 5 and one of 5 × 3 numbers
    assert layer.hidden_modes == (2, 2, 3) and layer.ranks == (1, 5, 5, 1)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 20 * 8 * (2 * 5 + 5 * 2 * 5 + 5 * 3))
    assert chunks_of(layer, ids, monkeypatch) == [20, 20, 10]


def test_prefixes_are_merged_while_there_are_at_most_two_for_each_id(monkeypatch):
    layer = ttq.TTMEmbedding(24, 8, rank=2, vocabulary_modes=(4, 3, 2))  # 4, 12 and 24 prefixes
    assert [layer.merged_cores(ids) for ids in (0, 1, 5, 6, 11, 12, 1000)] == [1, 1, 1, 2, 2, 3, 3]
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 12 * 4 * 2 * 4)  # the 12 prefixes: 4 hidden entries by rank 2
    assert layer.merged_cores(1000) == 2
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 12 * 4 * 2 * 4 - 1)
    assert layer.merged_cores(1000) == 1


def test_repeated_ids_are_made_once_unless_they_are_few(monkeypatch):
    assert chunks_of(example(), torch.tensor([[3, 9, 3], [9, 3, 3]]), monkeypatch) == [2]
    assert chunks_of(example(), torch.tensor([[3, 9, 3], [1, 2, 0]]), monkeypatch) == [6]
    assert chunks_of(example(), torch.tensor([3, 9, 3, 1]), monkeypatch) == [3]  # a quarter is not few


@pytest.mark.parametrize("ids", [[[3, 9, 3], [1, 2, 0]], [[3, 3, 3], [3, 3, 9]], [5, 1, 0, 4]])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_rows_come_in_the_order_of_their_ids(ids, padding_idx):
    assert_looks_up(example(padding_idx=padding_idx), torch.tensor(ids))


# -------------------------------------------------------------------------------------------------- ids and padding


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (2, 1, 3)])
def test_ids_of_any_shape_are_looked_up(shape):
    layer = example()
    assert layer(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 12)


@pytest.mark.parametrize("padding_idx", [4, 4 - 50])
def test_the_padding_row_is_a_row_like_others_and_passes_no_gradient(padding_idx):
    """As in nn.Embedding: where pad is the end of a sentence too, a model reads its row."""
    layer = example(padding_idx=padding_idx)
    assert layer.padding_idx == 4
    padding = torch.tensor([4, 4])
    plain = copy.deepcopy(layer)
    plain.padding_idx = None
    assert torch.equal(layer(padding), plain(padding)) and layer(padding).all()
    assert not any(gradient.any() for gradient in gradients(layer, layer(padding)))
    assert all(gradient.any() for gradient in gradients(plain, plain(padding)))


@pytest.mark.parametrize("ids", [[-1], [0, 50], [-7, 3, 99]])
def test_ids_out_of_range_are_refused(ids):
    with refused(IndexError, "ids must lie in 0 … 49", str(min(ids)), str(max(ids))):
        example()(torch.tensor(ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int16])
def test_ids_of_another_dtype_are_refused(dtype):
    with refused(TypeError, "ids must be int64 or int32", str(dtype)):
        example()(torch.ones(2, dtype=dtype))


# ---------------------------------------------------------------------------------------------------- from and to


@settings(max_examples=40)
@given(st.integers(2, 60), sizes, st.none() | st.integers(0, 1), seeds)
def test_full_rank_equals_the_dense_table_and_back(count, width, padding_idx, seed):
    torch.manual_seed(seed)
    embedding = nn.Embedding(count, width, padding_idx=padding_idx, dtype=torch.float64)
    layer = ttq.TTMEmbedding.from_embedding(embedding, rank=count * width)
    ids = torch.arange(count)
    assert_close(layer(ids), embedding(ids))
    back = layer.to_embedding()
    assert_close(back.weight, embedding.weight)
    assert back.padding_idx == layer.padding_idx == padding_idx


def test_a_table_of_one_core_is_a_table_still():
    embedding = nn.Embedding(10, 4)
    layer = ttq.TTMEmbedding.from_embedding(embedding, rank=1, vocabulary_modes=(10,), hidden_modes=(4,))
    torch.testing.assert_close(layer(torch.arange(10)), embedding.weight)


@pytest.mark.parametrize("modes", [{}, {"vocabulary_modes": (50,), "hidden_modes": (12,)}], ids=["cores", "one core"])
def test_the_dense_table_shares_nothing_with_the_cores(modes):
    layer = example(padding_idx=3, **modes)
    before = copy.deepcopy(layer.state_dict())
    embedding = layer.to_embedding()
    assert embedding.weight.requires_grad
    with torch.no_grad():
        embedding.weight.zero_()
    for name, core in layer.state_dict().items():
        assert torch.equal(core, before[name])


@settings(max_examples=40)
@given(st.floats(1e-4, 0.9))
def test_a_tolerance_bounds_the_error_of_the_table(tolerance):
    weight = 1 / (1 + torch.arange(50.0)[:, None] + torch.arange(12.0)[None]) + 1e-3 * random_tensor((50, 12)).float()
    embedding = nn.Embedding.from_pretrained(weight)
    layer = ttq.TTMEmbedding.from_embedding(embedding, tolerance=tolerance)
    assert ttq.relative_error(weight, layer.to_embedding().weight) <= tolerance


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("training", [True, False])
def test_dtype_padding_and_mode_are_kept_there_and_back(dtype, training):
    embedding = nn.Embedding(11, 6, padding_idx=-1, dtype=dtype).train(training)
    layer = ttq.TTMEmbedding.from_embedding(embedding, rank=66)
    for kept in (layer, layer.to_embedding()):
        assert {parameter.dtype for parameter in kept.parameters()} == {dtype}
        assert kept.padding_idx == 10
        assert kept.training == training
    assert layer(torch.arange(3)).dtype == dtype
    assert ttq.relative_error(embedding.weight, layer.to_embedding().weight) < ROUNDING[dtype]


def test_a_padding_row_that_is_not_zero_is_kept():
    torch.manual_seed(0)
    embedding = nn.Embedding.from_pretrained(torch.randn(20, 6), padding_idx=2)
    layer = ttq.TTMEmbedding.from_embedding(embedding, rank=120)
    torch.testing.assert_close(layer(torch.arange(20)), embedding.weight)


def test_rows_are_scaled_where_they_are_looked_up_and_the_table_is_not():
    embedding = Scaled(20, 6, 0, 3.0)
    layer = ttq.TTMEmbedding.from_embedding(embedding, rank=120)
    ids = torch.arange(20)
    torch.testing.assert_close(layer(ids), embedding(ids))
    torch.testing.assert_close(layer.weight, embedding.weight)
    torch.testing.assert_close(layer.to_embedding()(ids), embedding(ids))
    assert "scale=3, " in repr(layer) and "scale" not in repr(example())


@pytest.mark.parametrize("chunk_bytes", [2**24, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_a_head_scores_words_by_the_table_that_they_are_looked_up_in(monkeypatch, chunk_bytes, bias):
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", chunk_bytes)
    layer = ttq.TTMEmbedding(50, 12, rank=3, padding_idx=4, scale=3.0, dtype=torch.float64)
    head = ttq.TTMHead(layer, nn.Parameter(random_tensor((50,))) if bias else None)
    h = random_tensor((2, 3, 12)).requires_grad_()
    scores, expected = head(h), F.linear(h, layer.weight, head.bias)
    assert_close(scores, expected)
    inputs = [h, *head.parameters()]
    weights = random_tensor(scores.shape)
    for actual, wanted in zip(*(torch.autograd.grad((one * weights).sum(), inputs) for one in (scores, expected))):
        assert_close(actual, wanted)
    with FlopCounterMode(display=False) as counter:
        head(h.detach())
    assert 0 < counter.get_total_flops() <= ttq.flops(head, 6)  # the rows of the padding are made by nobody
    assert (head.in_features, head.out_features) == (12, 50) and head.weight.shape == (50, 12)
    assert "in_features=12, out_features=50" in repr(head)


def test_a_head_makes_its_table_as_cheaply_in_blocks_as_at_once():
    """Word by word GPT-2's took ten times as long: those with the same first digits share their products of slices."""
    with torch.device("meta"):
        head, h = ttq.TTMHead(ttq.TTMEmbedding(50257, 768, rank=96)), torch.ones(1, 128, 768)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert head(h).shape == (1, 128, 50257)
    table = 2 * prod(head.table.vocabulary_modes) * 768 * 96  # its last product, which is nearly all
    product = 2 * 128 * 768 * 50257
    assert product + table <= counter.get_total_flops() == ttq.flops(head, 128) < 1.3 * (product + table)


def test_the_cores_of_a_compressed_table_have_equal_norms():
    layer = ttq.TTMEmbedding.from_embedding(nn.Embedding(50, 12), rank=4)
    norms = [float(core.detach().norm()) for core in layer.cores]
    assert norms == pytest.approx([norms[0]] * 3)


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_options_that_need_a_dense_table_are_refused(option):
    with refused(ValueError, *option, "dense table"):
        ttq.TTMEmbedding.from_embedding(nn.Embedding(10, 4, **option), rank=2)


def test_a_fresh_table_has_unit_variance_or_what_is_wanted():
    torch.manual_seed(0)
    layer = ttq.TTMEmbedding(50, 12, rank=5)
    for std in (1.0, 0.02):
        squares = []
        for _ in range(300):
            layer.reset_parameters(std)
            squares.append(table(layer).detach().square().mean())
        assert float(torch.stack(squares).mean()) == pytest.approx(std**2, rel=0.1)


# ------------------------------------------------------------------------------------------ vocabularies and memory


def memory(layer, training=True):
    """Peak bytes of a look-up of 256 ids spread over the vocabulary, forward and backward."""
    ids = torch.linspace(0, layer.num_embeddings - 1, 256).long()

    def run():
        output = layer(ids)
        if training:
            output.sum().backward()

    return ttq.peak_bytes(run)


@pytest.mark.parametrize("count", [30522, 50257])
def test_vocabularies_that_do_not_factor_are_padded(count):
    torch.manual_seed(0)
    layer = ttq.TTMEmbedding(count, 8, rank=3, dtype=torch.float64)
    ids = torch.tensor([0, 1, count // 2, count - 1])
    assert_close(layer(ids), table(layer)[ids])


def test_the_memory_of_a_look_up_does_not_grow_with_the_vocabulary():
    few, many = 10_000, 1_000_000
    grown = memory(ttq.TTMEmbedding(many, 32, rank=4)) / memory(ttq.TTMEmbedding(few, 32, rank=4))
    assert grown < 3
    assert memory(nn.Embedding(many, 32)) / memory(nn.Embedding(few, 32)) > 50


def test_chunks_hold_less_at_a_time_forward_and_backward(monkeypatch):
    layer = ttq.TTMEmbedding(10_000, 32, rank=8)
    monkeypatch.setattr(ttq.TTMEmbedding, "merged_cores", lambda self, ids: 1)
    for training in (False, True):
        monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2**30)
        whole = memory(layer.requires_grad_(training), training)
        monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2**15)
        assert memory(layer, training) < whole / 2


# -------------------------------------------------------------------------------------------- living in a PyTorch world


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_parametrized_core_counts_in_value_and_gradient(k):
    layer, ids = example(), torch.arange(50)
    expected = layer(ids)
    parametrize.register_parametrization(layer, f"core{k}", Scale(3.0))
    assert_close(layer(ids), 3 * expected)
    assert_looks_up(layer, ids)
    assert_close(layer.to_embedding().weight, 3 * expected)


def test_a_table_without_data_can_be_made_and_filled_later():
    layer = ttq.TTMEmbedding(50, 12, rank=5, device="meta")
    assert {parameter.device.type for parameter in layer.parameters()} == {"meta"}
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.tensor([3])).shape == (1, 12)


def test_a_deep_copy_is_independent():
    layer = example()
    parametrize.register_parametrization(layer, "core1", Double())
    twin, ids = copy.deepcopy(layer), torch.arange(50)
    before = layer(ids)
    assert torch.equal(twin(ids), before)
    with torch.no_grad():
        twin.core0.zero_()
    assert torch.equal(layer(ids), before) and not twin(ids).any()


def test_it_stores_its_cores_and_nothing_else():
    assert list(example(padding_idx=0).state_dict()) == ["core0", "core1", "core2"]


def test_the_repr_tells_modes_ranks_and_what_is_saved():
    layer = ttq.TTMEmbedding(30522, 768, rank=20, padding_idx=0, device="meta")
    stored = sum(core.numel() for core in layer.cores)
    for part in (
        "30522, 768",
        "padding_idx=0",
        "vocabulary_modes=(32, 31, 31)",
        "hidden_modes=(8, 8, 12)",
        "ranks=(1, 20, 20, 1)",
        f"{stored} numbers for {30522 * 768}",
        f"{30522 * 768 / stored:.1f}×",
    ):
        assert part in repr(layer)
    assert "padding_idx" not in repr(example())


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["num_embeddings", "embedding_dim", "rank"])
@pytest.mark.parametrize("value", NOT_COUNTS)
def test_a_size_or_rank_that_is_no_count_is_refused(name, value):
    arguments = {"num_embeddings": 8, "embedding_dim": 8, "rank": 2, name: value}
    with refused(ValueError, name, "whole number of at least 1", repr(value)):
        ttq.TTMEmbedding(**arguments)


def test_modes_that_do_not_fit_are_refused():
    with refused(ValueError, "vocabulary_modes=(3, 3)", "multiplies out to 9", "less than the 10"):
        ttq.TTMEmbedding(10, 4, rank=2, vocabulary_modes=(3, 3))
    with refused(ValueError, "hidden_modes=(3, 3)", "multiplies out to 9", "needlessly more than the 4"):
        ttq.TTMEmbedding(10, 4, rank=2, hidden_modes=(3, 3))
    with refused(ValueError, "equally many", "(5, 2)", "(1, 2, 2)"):
        ttq.TTMEmbedding(10, 4, rank=2, vocabulary_modes=(5, 2), hidden_modes=(1, 2, 2))
    with refused(ValueError, "equally many", "(5, 2)"):
        ttq.TTMEmbedding.from_embedding(nn.Embedding(10, 4), rank=2, vocabulary_modes=(5, 2))


@pytest.mark.parametrize("padding_idx", [10, -11, 1.5, True, "a"])
def test_a_padding_idx_that_is_no_row_is_refused(padding_idx):
    with refused(ValueError, "padding_idx", "10", repr(padding_idx)):
        ttq.TTMEmbedding(10, 4, rank=2, padding_idx=padding_idx)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_a_dtype_that_is_not_floating_point_is_refused(dtype):
    with refused(TypeError, "dtype", "floating-point", str(dtype)):
        ttq.TTMEmbedding(8, 8, rank=2, dtype=dtype)


def test_compressing_wants_a_rank_or_a_tolerance():
    with refused(ValueError, "either rank or tolerance"):
        ttq.TTMEmbedding.from_embedding(nn.Embedding(8, 8), rank=2, tolerance=0.1)
