"""Checks behind exercises: right answers pass however they are written, wrong ones are caught and told why."""

from math import prod

import pytest
import torch

import ttqlib as ttq
from ttqlib.check import CheckFailed


def entry(cores, index):
    return ttq.tt_to_tensor(cores)[tuple(index)]


def storage(modes, rank):
    ranks = [min(rank, prod(modes[:k]), prod(modes[k:])) for k in range(len(modes) + 1)]
    return sum(a * n * b for a, n, b in zip(ranks, modes, ranks[1:], strict=False))


def add(a, b):
    summed = ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b)
    return ttq.tt_svd(summed, [x + y if 0 < k < len(a) else 1 for k, (x, y) in enumerate(bonds(a, b))])


def bonds(a, b):
    return zip(ttq.core_ranks(a), ttq.core_ranks(b), strict=True)


def digits(number, modes):
    return [int(d) for d in torch.unravel_index(torch.tensor(number), modes)]


def row(cores, index):
    picked = []
    for core in reversed(cores):
        index, digit = divmod(index, core.shape[1])
        picked.insert(0, core[:, digit])
    return ttq.tt_to_tensor(picked).flatten()


def interleave(matrix, rows, columns):
    d = len(rows)
    tensor = matrix.reshape(*rows, *columns).permute([a for k in range(d) for a in (k, d + k)])
    return tensor.reshape([m * n for m, n in zip(rows, columns, strict=True)])


def tampering_add(a, b):
    result = add(a, b)
    a[0].zero_()
    return result


RIGHT = {"tt_entry": entry, "tt_storage": storage, "tt_add": add, "digits": digits, "embedding_row": row}
RIGHT["interleave"] = interleave

WRONG = {
    ("tt_entry", "first entry only"): lambda cores, index: entry(cores, [0] * len(index)),
    ("tt_entry", "strides forgotten"): lambda cores, index: ttq.tt_to_tensor(cores).flatten()[sum(index)],
    ("tt_entry", "a matrix, not a number"): lambda cores, index: entry(cores, index).reshape(1, 1),
    ("tt_entry", "text"): lambda cores, index: "5",
    ("tt_storage", "ranks not clipped"): lambda modes, rank: sum(
        n * (1 if k == 0 else rank) * (1 if k == len(modes) - 1 else rank) for k, n in enumerate(modes)
    ),
    ("tt_storage", "the full tensor"): lambda modes, rank: prod(modes),
    ("tt_add", "the first train"): lambda a, b: a,
    ("tt_add", "cores added entry by entry"): lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
    ("tt_add", "not a list"): lambda a, b: ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b),
    ("tt_add", "ranks that need not be"): lambda a, b: ttq.tt_svd(ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b), 10**6),
    ("tt_add", "changes its input"): tampering_add,
    ("digits", "least significant first"): lambda number, modes: digits(number, modes)[::-1],
    ("digits", "a number"): lambda number, modes: number,
    ("embedding_row", "the next row"): lambda cores, index: row(cores, index + 1 if index == 0 else index - 1),
    ("embedding_row", "builds the table"): lambda cores, index: ttq.tt_matrix_to_matrix(cores)[index],
    ("interleave", "not permuted"): lambda m, rows, columns: m.reshape(
        [a * b for a, b in zip(rows, columns, strict=True)]
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes_twice(name, capsys):
    for _ in range(2):
        getattr(ttq.check, name)(RIGHT[name])
    assert capsys.readouterr().out == f"{RIGHT[name].__name__}: correct\n" * 2


@pytest.mark.parametrize("name, mistake", WRONG, ids=lambda part: part)
def test_a_wrong_answer_is_caught(name, mistake):
    with pytest.raises(CheckFailed) as caught:
        getattr(ttq.check, name)(WRONG[name, mistake])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RIGHT)
def test_an_unwritten_exercise_says_so(name):
    def exercise(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(CheckFailed, match=r"^exercise: not written yet$"):
        getattr(ttq.check, name)(exercise)


@pytest.mark.parametrize("name", RIGHT)
def test_returning_nothing_is_told_not_crashed_on(name):
    with pytest.raises(CheckFailed):
        getattr(ttq.check, name)(lambda *_: None)


def test_an_exception_of_the_readers_is_told_in_one_line():
    def exercise(cores, index):
        raise KeyError("two\nlines")

    with pytest.raises(CheckFailed, match=r"^exercise: raised KeyError: [^\n]*$") as caught:
        ttq.check.tt_entry(exercise)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_failed_check_renders_as_one_plain_line():
    assert CheckFailed("f: no")._render_traceback_() == ["CheckFailed: f: no"]
