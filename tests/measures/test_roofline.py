"""The roofline: what a call computes and moves is traced operation by operation, also where nothing is computed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

import ttqlib as ttq
from ttqlib.measures.roofline import Machine, Work, layer_work

SIZES = st.integers(1, 40)
TOY = Machine(flops=100e9, bytes=10e9)


@given(inputs=SIZES, outputs=SIZES, rows=SIZES)
def test_a_traced_product_is_the_work_of_a_layer(inputs, outputs, rows):
    x, w = torch.ones(rows, inputs), torch.ones(inputs, outputs)
    assert ttq.traced_work(lambda: x @ w) == [layer_work(inputs, outputs, rows)]


def test_views_are_no_work_and_a_copy_moves_what_it_takes_and_gives():
    x = torch.ones(6, 4)
    assert ttq.traced_work(lambda: x.T[1:].unsqueeze(0)) == []
    assert ttq.traced_work(lambda: x.clone()) == [Work(0, 2 * x.nbytes)]


def test_the_meta_device_says_the_same():
    def works(device):
        with torch.device(device):
            model = nn.Sequential(nn.Conv1d(3, 8, 4, 2), nn.GELU(), nn.Conv1d(8, 8, 3), nn.Flatten(), nn.Linear(64, 5))
            x = torch.ones(2, 3, 22)
        return ttq.traced_work(lambda: model(x))

    here, there = works("cpu"), works("meta")
    assert [one.flops for one in here if one.flops] == [one.flops for one in there if one.flops]
    assert sum(one.bytes for one in here) == sum(one.bytes for one in there)


def test_flops_are_those_of_torchs_own_counter():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=40, **sizes)).eval()
    ids = torch.arange(14).reshape(2, 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert sum(one.flops for one in ttq.traced_work(lambda: model(ids))) == counter.get_total_flops() > 0


def test_operations_follow_each_other():
    works = [Work(10**9, 1), Work(0, 10**9)]
    assert TOY.total(works) == pytest.approx(0.01 + 0.1)
    assert TOY.total([]) == 0
    slow_calls = Machine(flops=100e9, bytes=10e9, call=0.25)
    assert TOY.expected([Work(10**9, 10**8)]) == pytest.approx(0.01 + 0.01)  # at best either would hide the other
    assert slow_calls.expected(works) == pytest.approx(2 * 0.25 + 0.01 + 0.1)


def test_this_machine_has_rates_and_takes_time_to_call():
    machine = ttq.this_machine(size=64)
    assert 1e8 < machine.flops < 1e14 and 1e8 < machine.bytes < 1e13 and 1e-7 < machine.call < 1e-2
