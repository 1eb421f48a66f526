"""Times on a clock that the tests move, and memory counted by hand."""

import timeit
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ttqlib as ttq
from tests.cases import refused
from ttqlib.measures import clock as benchmark

# ------------------------------------------------------------------------------------------------------------- time


def test_functions_take_turns_and_the_first_rounds_do_not_count(monkeypatch):
    """On a clock that only the functions move: the warm-up is slow, and one of the rounds that count is disturbed."""
    clock, calls = [0.0], []
    took = {"a": iter([9.0, 9.0, 0.001, 0.005, 0.003]), "b": iter([9.0, 9.0, 0.020, 7.0, 0.010])}

    def takes(name):
        calls.append(name)
        clock[0] += next(took[name])

    monkeypatch.setattr(benchmark, "timer", lambda: clock[0])
    functions = {name: lambda name=name: takes(name) for name in took}
    medians = ttq.interleaved_medians(functions, rounds=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert medians == pytest.approx({"a": 3, "b": 20})


def test_settled_functions_do_not_pay_for_what_the_one_before_left_running(monkeypatch):
    """On a clock again: each leaves threads behind that make the next call twice as slow, unless they may rest."""
    clock, restless = [0.0], [None]

    def call(name, seconds):
        clock[0] += seconds * (2 if restless[0] not in (None, name) else 1)
        restless[0] = name

    def sleep(seconds):
        assert seconds == 0.02
        clock[0] += seconds
        restless[0] = None

    monkeypatch.setattr(benchmark, "timer", lambda: clock[0])
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(sleep=sleep))
    functions = {"a": lambda: call("a", 0.003), "b": lambda: call("b", 0.010)}
    assert ttq.interleaved_medians(functions, 3) == pytest.approx({"a": 6, "b": 20})
    assert ttq.interleaved_medians(functions, 3, settle=0.02) == pytest.approx({"a": 3, "b": 10})


def test_the_work_of_a_gpu_counts_for_the_call_that_asked_for_it(monkeypatch):
    """On a clock again: a call returns at once, and its work is done while somebody waits for it."""
    clock, queued = [0.0], [0.0]

    def call(seconds):
        queued[0] += seconds

    def synchronize():
        clock[0], queued[0] = clock[0] + queued[0], 0.0

    monkeypatch.setattr(timeit, "default_timer", lambda: clock[0])  # which torch's own timer reads, after it has waited
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    functions = {"a": lambda: call(0.003), "b": lambda: call(0.010)}
    for settle in (0.0, 0.02):
        assert ttq.interleaved_medians(functions, 3, settle=settle) == pytest.approx({"a": 3, "b": 10})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_rest_is_a_number_of_seconds(value):
    with refused(ValueError, "settle must be a number of seconds of at least 0", repr(value)):
        ttq.interleaved_medians({"a": lambda: None}, settle=value)


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("rounds", 1.5), ("warmup", -1), ("warmup", 1.5)])
def test_rounds_are_counts(name, value):
    with refused(ValueError, name, "whole number of at least", repr(value)):
        ttq.interleaved_medians({"a": lambda: None}, **{name: value})


# ----------------------------------------------------------------------------------------------------------- memory

KILO = 1000  # one tensor of the cases below: 250 numbers of 4 bytes


def ones():
    return torch.ones(250)


def two_at_once():
    total = ones() + ones()
    del total
    return ones()


def one_after_the_other():
    for _ in range(5):
        ones()


def views_and_writes_in_place():
    tensor = ones()
    tensor.view(10, 25).t()[1:].add_(1)
    return tensor.reshape(25, 10), tensor.mul_(2)


def held_by_the_result():
    return [ones() for _ in range(3)]


def made_on_the_way_back():
    """The tensor, its double, and the gradient of each: all four are held when the last is made."""
    tensor = ones().requires_grad_()
    (tensor * 2).backward(ones())


@pytest.mark.parametrize(
    ("function", "kilobytes"),
    [
        (lambda: None, 0),
        (ones, 1),
        (two_at_once, 3),
        (one_after_the_other, 1),
        (views_and_writes_in_place, 1),
        (held_by_the_result, 3),
        (made_on_the_way_back, 4),
    ],
)
def test_peak_bytes_by_hand(function, kilobytes):
    assert ttq.peak_bytes(function) == kilobytes * KILO
    assert ttq.peak_bytes(function) == kilobytes * KILO


def test_what_existed_before_does_not_count():
    before, out = ones(), ones()
    assert ttq.peak_bytes(lambda: before.add_(1).view(10, 25)) == 0
    assert ttq.peak_bytes(lambda: torch.add(before, 1, out=out)) == 0
    assert ttq.peak_bytes(lambda: before + before) == KILO


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_bytes_need_no_data(device):
    before = torch.empty(250, device=device)
    assert ttq.peak_bytes(lambda: before + before) == KILO


def test_the_backward_pass_counts():
    layer, x = nn.Linear(250, 1, bias=False), torch.ones(1, 250)
    forward = ttq.peak_bytes(lambda: layer(x))
    assert forward == 4
    assert ttq.peak_bytes(lambda: layer(x).backward()) >= forward + KILO  # the gradient of the weight stays


def test_a_sparse_gradient_counts_what_it_stores():
    table, ids, gradient = nn.Embedding(1000, 25, sparse=True), torch.arange(10), torch.ones(10, 25)
    rows = ttq.peak_bytes(lambda: table(ids).backward(gradient))
    assert table.weight.grad.is_sparse
    assert KILO <= rows < 4 * KILO  # the table has 100
    assert ttq.peak_bytes(lambda: torch.sparse_coo_tensor(ids[None], 2 * gradient, check_invariants=True)) >= KILO


def test_an_error_inside_leaves_the_next_measurement_right():
    def fails():
        ones()
        raise KeyError

    with pytest.raises(KeyError):
        ttq.peak_bytes(fails)
    assert ttq.peak_bytes(ones) == KILO
