"""How assignments call a student's function: what is noticed, however it is hidden, and what is left in peace."""

import sys

import pytest
import tensorly
import torch
from tensorly.decomposition import tensor_train

import ttqlib as ttq
from ttqlib import TTLinear, tt_svd
from ttqlib.check import CheckFailed
from ttqlib.check.assignments import ask, ask_twice, generator, seed, without_library
from ttqlib.check.assignments.memory import limited_memory

TENSOR = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
CORES = ttq.tt_svd(TENSOR, 2)
WEIGHT = torch.ones(2, requires_grad=True)


def caught_and_tried_again():
    try:
        tt_svd(TENSOR, 2)
    except Exception:
        return tt_svd(TENSOR, 2)


CALLS = {
    "imported before": (lambda: tt_svd(TENSOR, 2), ["tt_svd"], "tt_svd"),
    "by its module": (lambda: sys.modules["ttqlib.tensors.tensor_train"].tt_svd(TENSOR, 2), ["tt_svd"], "tt_svd"),
    "inside another": (lambda: ttq.tt_matrix(torch.ones(6, 4), (2, 3), (2, 2), 2), ["tt_svd"], "tt_svd"),
    "the error caught": (caught_and_tried_again, ["tt_svd"], "tt_svd"),
    "a class": (lambda: TTLinear(6, 6, 2), ["TTLinear"], "TTLinear"),
    "a class method": (lambda: TTLinear.from_linear(torch.nn.Linear(6, 6), 2), ["TTLinear"], "TTLinear"),
    "of torch, in C": (lambda: torch.linalg.svd(TENSOR), ["torch.linalg.svd"], "torch.linalg.svd"),
    "of torch": (lambda: torch.autograd.grad(WEIGHT.sum(), WEIGHT), ["torch.autograd.grad"], "torch.autograd.grad"),
    "TensorLy": (lambda: tensor_train(TENSOR.numpy(), [1, 2, 2, 1]), [], "tensorly's tensor_train"),
    "TensorLy's helpers": (lambda: tensorly.unfold(TENSOR.numpy(), 1), [], "tensorly's"),
}


@pytest.mark.parametrize("call, names, told", CALLS.values(), ids=CALLS)
def test_a_call_of_the_library_is_refused(call, names, told):
    with pytest.raises(CheckFailed, match=f"write it yourself: {told}"), without_library(*names):
        call()
    assert sys.getprofile() is None


def test_what_is_not_named_may_be_called():
    with without_library("tt_svd"):
        ttq.tt_to_tensor(CORES)  # which calls TensorLy itself
        torch.linalg.qr(TENSOR)
    tt_svd(TENSOR, 2)


def test_a_name_that_does_not_exist_is_an_error_of_the_check():
    with pytest.raises(AttributeError), without_library("tt_svdd"):
        pass


def in_place(cores):
    cores[0] *= 2


def taken_away(cores):
    del cores[0]


def leaves(_):
    raise SystemExit


def unwritten(_):
    raise NotImplementedError


def greedy(_):
    return torch.ones(2**31)


REFUSED = {
    in_place: "must stay as it was",
    taken_away: "must stay as it was",
    leaves: "raised SystemExit",
    unwritten: "not written yet",
    3: "expected a function, got int",
}


@pytest.mark.parametrize("function, says", REFUSED.items())
def test_what_no_answer_may_do(function, says):
    with pytest.raises(CheckFailed, match=says) as caught:
        ask(function, [core.clone() for core in CORES])
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit on a process's memory")
def test_a_function_that_fills_the_memory_is_refused():
    with pytest.raises(CheckFailed, match="more memory than there is"):
        ask(greedy, 0)
    with limited_memory(2**20), pytest.raises(RuntimeError, match="allocate"):
        greedy(0)
    assert len(torch.ones(2**20)) == 2**20


def test_an_answer_that_depends_on_earlier_calls_is_noticed():
    calls = []
    assert ask(lambda x: calls.append(x) or len(calls), 1) == 1
    with pytest.raises(CheckFailed, match="two answers"):
        ask_twice(lambda x: calls.append(x) or len(calls), 1)
    assert torch.equal(ask_twice(lambda x: x / 0, torch.zeros(2)).isnan(), torch.ones(2).bool())


def test_the_seed_is_the_courses(monkeypatch):
    monkeypatch.setenv("TTQ_COURSE_SEED", "spring")
    spring = seed()
    monkeypatch.setenv("TTQ_COURSE_SEED", "autumn")
    assert 0 <= seed() < 2**63 and seed() != spring
    draws = {
        float(torch.rand((), generator=generator(one, name))) for one in (seed(), spring) for name in ("norm", "inner")
    }
    assert len(draws) == 4
    monkeypatch.delenv("TTQ_COURSE_SEED")
    assert seed() == seed()
