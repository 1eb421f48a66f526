"""Checks behind exercises fail in one plain line, whatever an answer does. What they accept: `test_answers.py`."""

import pytest
import torch

import ttqlib as ttq
from ttqlib.check import CheckFailed
from ttqlib.check.verdict import call

CHECKS = [name for name in ttq.check.__all__ if name.islower() and callable(getattr(ttq.check, name))]


@pytest.mark.parametrize("name", CHECKS)
def test_an_unwritten_exercise_says_so(name):
    def exercise(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(CheckFailed, match=r"^exercise: not written yet$"):
        getattr(ttq.check, name)(exercise)


@pytest.mark.parametrize("name", CHECKS)
def test_returning_nothing_is_told_not_crashed_on(name):
    with pytest.raises(CheckFailed) as caught:
        getattr(ttq.check, name)(lambda *_: None)
    assert "\n" not in str(caught.value)


def test_an_exception_of_the_readers_is_told_in_one_line():
    def exercise(cores, index):
        raise KeyError("two\nlines")

    with pytest.raises(CheckFailed, match=r"^exercise: raised KeyError: [^\n]*$") as caught:
        ttq.check.tt_entry(exercise)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def grow(value):
    value.update(more=1) if isinstance(value, dict) else value.reverse()


@pytest.mark.parametrize("given", [[1, 2], [[0], [1, 2]], {"mean": 1.0}, [(3, 1), (1, 2)]], ids=str)
def test_what_an_answer_was_given_has_to_stay_as_it_was(given):
    assert call(str, given) == str(given)
    with pytest.raises(CheckFailed, match="what it was given must stay as it was"):
        call(grow, given)


def test_memory_that_is_not_there_is_told_in_plain_words():
    for ask in (lambda: torch.empty(2**60), lambda: bytearray(2**60)):
        with pytest.raises(CheckFailed, match="asked for more memory than there is"):
            call(ask)


def test_a_failed_check_renders_as_one_plain_line():
    assert CheckFailed("f: no")._render_traceback_() == ["CheckFailed: f: no"]
