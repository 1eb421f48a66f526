"""Texts that come with Python, and windows that do not overlap; perplexity by hand."""

import hashlib
import sysconfig
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ttqlib as ttq
from tests.cases import refused


def letters(text, **_):
    """A tokenizer whose tokens are letters."""
    return {"input_ids": [ord(letter) for letter in text]}


def test_the_texts_are_there_the_same_each_time_and_not_the_same():
    manual, docstrings = map(ttq.load_text, ("manual", "docstrings"))
    assert 300_000 < len(manual) < 900_000 and 500_000 < len(docstrings) < 2_000_000
    assert manual == ttq.load_text("manual") and manual.count("\n\n") > 1000
    assert "The assert statement" in manual or "assert" in manual
    sentence = "Return a shallow copy of x"  # of `copy`, which is at the top of the library
    assert "Shallow copy operation on arbitrary Python objects." in docstrings and sentence not in manual
    with refused(ValueError, "'manual', 'docstrings'", "'poem'"):
        ttq.load_text("poem")


def test_without_source_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with refused(FileNotFoundError, "without the source of its library"):
        ttq.load_text("docstrings")


@given(st.integers(1, 6), st.integers(1, 9), st.text("abcdefgh", min_size=60, max_size=200))
def test_windows_are_the_text_cut_up_and_none_is_in_both_parts(length, held_out, text):
    windows = ttq.text_windows(text, letters, length=length, held_out=held_out)
    assert windows.held_out.shape == (held_out, length) and windows.train.shape[1] == length
    assert windows.sha256 == hashlib.sha256(text.encode()).hexdigest()
    rows = [text[i : i + length] for i in range(0, len(text) - length + 1, length)]
    found = ["".join(map(chr, row)) for part in (windows.held_out, windows.train) for row in part.tolist()]
    assert sorted(found) == sorted(rows)
    starts = [k * len(rows) // held_out for k in range(held_out)]  # evenly spread
    assert found[:held_out] == [rows[k] for k in starts]


def test_too_short_a_text_is_refused():
    with refused(ValueError, "48 windows of 4 tokens", "more than 48"):
        ttq.text_windows("abcd" * 48, letters, length=4)
    with refused(ValueError, "0 windows"):
        ttq.text_windows("abc", letters, length=4)


class Counting(torch.nn.Module):
    """A model that says with probability p that the next id is one more."""

    def __init__(self, p: float, ids: int = 5):
        super().__init__()
        self.seen, self.log = [], torch.nn.Parameter(torch.tensor([p, (1 - p) / (ids - 1)]).log())
        self.ids = ids

    def forward(self, input_ids, use_cache):
        self.seen.append((self.training, len(input_ids)))
        hit = torch.nn.functional.one_hot((input_ids + 1) % self.ids, self.ids).bool()
        return SimpleNamespace(logits=torch.where(hit, self.log[0], self.log[1]))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_perplexity_is_what_it_is_by_hand(batch):
    model = Counting(0.5)
    windows = torch.tensor([[0, 1, 2], [3, 4, 0], [0, 2, 4]])  # 4 of 6 tokens are as it says, at 1/2; 2 at 1/8
    expected = (2**4 * 8**2) ** (1 / 6)
    assert ttq.perplexity(model, windows, batch=batch) == pytest.approx(expected, rel=1e-6)
    assert {training for training, _ in model.seen} == {False} and model.training
    assert max(count for _, count in model.seen) <= batch


@pytest.mark.parametrize("windows", [torch.zeros(3), torch.zeros(0, 4), torch.zeros(2, 1)])
def test_perplexity_needs_windows(windows):
    with refused(ValueError, "windows must be (K, T)", str(tuple(windows.shape))):
        ttq.perplexity(Counting(0.5), windows.long())
