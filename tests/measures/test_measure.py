"""The measures, against counts by hand and against PyTorch's own counter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ttqlib as ttq
from tests.cases import Scale, ranks, refused

sizes = st.integers(1, 40)
rows = st.integers(0, 200)


# ------------------------------------------------------------------------------------------------ parameters, bytes


def shared_pair(dtype=None):
    first, second = nn.Linear(3, 4, dtype=dtype), nn.Linear(3, 4, bias=False, dtype=dtype)
    second.weight = first.weight
    return nn.Sequential(first, second)


def test_parameters_and_their_bytes_by_hand():
    assert ttq.count_parameters(nn.Linear(3, 4)) == 3 * 4 + 4
    assert ttq.parameter_bytes(nn.Linear(3, 4)) == 4 * (3 * 4 + 4)
    assert ttq.parameter_bytes(nn.Linear(3, 4, dtype=torch.bfloat16)) == 2 * (3 * 4 + 4)
    layer = ttq.TTLinear(6, 4, rank=2, in_modes=(3, 2), out_modes=(2, 2), dtype=torch.float64)
    assert ttq.count_parameters(layer) == 1 * 3 * 2 + 2 * 2 * 2 + 2 * 2 * 2 + 2 * 2 * 1 + 4
    assert ttq.parameter_bytes(layer) == 8 * ttq.count_parameters(layer)


def test_shared_parameters_count_once():
    assert ttq.count_parameters(shared_pair()) == 3 * 4 + 4
    assert ttq.parameter_bytes(shared_pair(torch.float64)) == 8 * (3 * 4 + 4)


def test_a_parametrization_adds_what_it_holds():
    layer = nn.Linear(3, 4, bias=False)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scale(2.0))
    assert ttq.count_parameters(layer) == 3 * 4 + 1


# ------------------------------------------------------------------------------------------------------------ FLOPs


def counted(layer, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    return counter.get_total_flops()


@given(sizes, sizes, rows)
def test_flops_of_a_dense_layer_are_what_pytorch_counts(n, m, rows):
    layer = nn.Linear(n, m)
    assert ttq.flops(layer, rows) == counted(layer, torch.zeros(rows, n))


@given(sizes, sizes, ranks, rows)
def test_flops_of_a_tt_layer_are_what_pytorch_counts(n, m, rank, rows):
    layer, x = ttq.TTLinear(n, m, rank, bias=False), torch.zeros(rows, n)
    assert ttq.flops(layer, rows) == counted(layer, x)
    counted(layer.eval(), x)  # merges the sides
    assert ttq.flops(layer, rows, merged=True) == counted(layer, x)


def test_a_bias_does_not_count_although_a_product_adds_it():
    biased, plain = ttq.TTLinear(24, 30, 2), ttq.TTLinear(24, 30, 2, bias=False)
    assert ttq.flops(biased, 7) == ttq.flops(plain, 7) == counted(biased, torch.zeros(7, 24)) - 2 * 7 * 30


def test_flops_of_a_fused_embedding_are_what_pytorch_counts():
    layer = ttq.fuse_(nn.Sequential(ttq.TTMEmbedding(60, 24, 2)))[0]
    assert isinstance(layer, ttq.HalfMergedEmbedding)
    assert ttq.flops(layer, 7) == counted(layer, torch.arange(7)) == 2 * 7 * 24 * 2


@given(st.integers(1, 300), sizes, ranks, st.data())
def test_flops_of_a_tt_embedding_are_what_pytorch_counts(count, width, rank, data):
    layer = ttq.TTMEmbedding(count, width, rank)
    distinct = data.draw(st.integers(0, count))
    ids = torch.randperm(count)[:distinct].repeat(2)
    assert ttq.flops(layer, distinct) == counted(layer, ids)


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 100_000])
def test_chunks_do_the_same_work(monkeypatch, chunk_bytes):
    layer = ttq.TTMEmbedding(300, 12, rank=5)
    monkeypatch.setattr("ttqlib.layers.embedding.CHUNK_BYTES", chunk_bytes)
    assert ttq.flops(layer, 200) == counted(layer, torch.arange(200))


def test_flops_by_hand():
    layer = ttq.TTLinear(6, 4, rank=2, in_modes=(3, 2), out_modes=(2, 2))
    u = 3 * 2 * (2 * 2)  # (3, 2) @ (2, 2 · 2): 3 rows, 2 to sum over, 2 · 2 columns
    v = (2 * 2) * 2 * 2  # (2 · 2, 2) @ (2, 2)
    for count in (1, 5):
        thin = count * 6 * 2 + count * 2 * 4  # x U, then times V
        assert ttq.flops(layer, count) == 2 * (u + v + thin)
        assert ttq.flops(layer, count, merged=True) == 2 * thin
    full = ttq.TTLinear(6, 4, rank=4, in_modes=(6,), out_modes=(4,))  # no side to merge
    assert ttq.flops(full, 100) == 2 * (6 * 4 * 4 + 100 * 6 * 4)  # the product of the sides, then one dense layer


def test_a_table_multiplies_nothing():
    assert ttq.flops(nn.Embedding(10, 4), 7) == 0 == counted(nn.Embedding(10, 4), torch.arange(7))


def test_flops_refuses_what_it_cannot_count():
    with refused(TypeError, "TTLinear", "Conv1d", "FlopCounterMode"):
        ttq.flops(nn.Conv1d(1, 1, 1), 1)
    for value in (-1, 1.5, True, "a"):
        with refused(ValueError, "tokens", "at least 0", repr(value)):
            ttq.flops(nn.Linear(2, 2), value)


# ----------------------------------------------------------------------------------------------------------- errors


def test_the_relative_error_by_hand():
    reference = torch.tensor([3.0, 4.0])
    assert ttq.relative_error(reference, reference) == 0
    assert ttq.relative_error(reference, torch.zeros(2)) == 1
    assert ttq.relative_error(reference, torch.tensor([3.0, 3.0])) == pytest.approx(1 / 5)
    assert ttq.relative_error(nn.Parameter(reference), reference.bfloat16()) == 0
    assert ttq.relative_error(torch.tensor([3 + 4j]), torch.tensor([3 + 0j])) == pytest.approx(4 / 5)


def test_a_relative_error_needs_equal_shapes_and_something_to_be_relative_to():
    with refused(ValueError, "shapes must be equal", "(2, 3)", "(3,)"):
        ttq.relative_error(torch.ones(2, 3), torch.ones(3))
    with refused(ValueError, "zero"):
        ttq.relative_error(torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize(("processes", "share"), [(1, 0), (2, 1), (4, 1.5), (8, 1.75)])
def test_processes_send_twice_their_gradients_at_most(processes, share):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5))
    assert ttq.allreduce_bytes(model, processes) == share * 4 * (28 + 25)
    model[1].weight = model[0].weight  # shared: sent once
    model[0].bias.requires_grad_(False)  # has no gradient
    assert ttq.allreduce_bytes(model.half(), processes) == round(share * 2 * (24 + 5))


@pytest.mark.parametrize("processes", [0, 2.0, True])
def test_a_number_of_processes_is_a_whole_one(processes):
    with refused(ValueError, "processes"):
        ttq.allreduce_bytes(nn.Linear(2, 2), processes)
