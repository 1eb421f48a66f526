"""The bank of answers: the check of every exercise passes the right ones and refuses each wrong one by its message.

The answers stand in `tests/answers/`, one module a chapter. An answer is run as the reader would run it: its cell, then
the check cell of the chapter.
"""

import ast
import importlib
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache

import pytest
import torch

import ttqlib as ttq
from tests.answers import Answers, Wrong
from tests.chapters import CHAPTERS, ROOT
from tests.hygiene import read
from tests.style import exercises
from ttqlib.check import CheckFailed

WRONG, RIGHT = 5, 2  # at least as many for each exercise

CALL = re.compile(r"\bttq\.check\.(\w+)\(")
MODULES = {
    path.stem[-2:]: importlib.import_module(f"tests.answers.{path.stem}")
    for path in sorted((ROOT / "tests/answers").glob("chapter_*.py"))
}


@cache
def check_cells(chapter: str) -> dict[str, str]:
    """The check cells of a chapter by the name of the check that they call."""
    (path,) = (path for path in CHAPTERS if path.stem.startswith(chapter))
    notebook = read(path)
    sources = [notebook.cells[exercise.check].source for exercise in exercises(notebook)]
    return {CALL.search(source)[1]: source for source in sources}


def shortfalls(bank: Mapping[str, Answers], names: set[str]) -> Iterator[str]:
    """What a bank lacks for the exercises of these `names`, a line each."""
    for name in sorted(names ^ set(bank)):
        yield f"{name}: no answers" if name in names else f"{name}: answers to no exercise"
    for name, answers in bank.items():
        for kind, sources, least in [
            ("right", list(answers.right.values()), RIGHT),
            ("wrong", [wrong.source for wrong in answers.wrong.values()], WRONG),
        ]:
            different = {ast.dump(ast.parse(source)) for source in sources}
            if len(different) < least:
                yield f"{name}: {len(different)} different {kind} answers, at least {least}"
        for mistake, wrong in answers.wrong.items():
            if len(wrong.says.split()) < 2:
                yield f"{name}, {mistake}: {wrong.says!r} is no part of a message"


def judge(chapter: str, name: str, source: str) -> None:
    """Run an answer and then the chapter's check of it, as a reader would."""
    names = {"torch": torch, "ttq": ttq, "math": math, **getattr(MODULES[chapter], "NAMES", {})}
    exec(compile(source, f"<{name}>", "exec"), names)
    exec(compile(check_cells(chapter)[name], f"<check of {name}>", "exec"), names)


def every(kind: str) -> list:
    return [
        pytest.param(chapter, name, answer, id=f"{chapter}-{name}-{words}")
        for chapter, module in MODULES.items()
        for name, answers in module.ANSWERS.items()
        for words, answer in getattr(answers, kind).items()
    ]


EXERCISES = [pytest.param(number, name, id=name) for number, module in MODULES.items() for name in module.ANSWERS]


@pytest.mark.parametrize("chapter, name, source", every("right"))
def test_a_right_answer_passes_twice(chapter, name, source, capsys):
    for _ in range(2):
        judge(chapter, name, source)
    assert capsys.readouterr().out == f"{name}: correct\n" * 2


@pytest.mark.parametrize("chapter, name, wrong", every("wrong"))
def test_a_wrong_answer_is_refused_by_the_message_meant_for_it(chapter, name, wrong):
    with pytest.raises(CheckFailed) as caught:
        judge(chapter, name, wrong.source)
    assert wrong.says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chapter, name", EXERCISES)
def test_an_unwritten_exercise_says_so(chapter, name):
    with pytest.raises(CheckFailed, match=f"^{name}: not written yet$"):
        judge(chapter, name, f'def {name}(*_):\n    raise NotImplementedError("your turn")')


@pytest.mark.parametrize("chapter, name", EXERCISES)
def test_returning_nothing_is_told_not_crashed_on(chapter, name):
    with pytest.raises(CheckFailed):
        judge(chapter, name, f"def {name}(*_):\n    pass")


@pytest.mark.parametrize("chapter", MODULES)
def test_every_exercise_has_enough_answers(chapter):
    assert list(shortfalls(MODULES[chapter].ANSWERS, set(check_cells(chapter)))) == []


def test_every_chapter_has_its_module_and_the_bank_is_counted(capsys):
    chapters = {path.stem[:2] for path in CHAPTERS}
    assert set(MODULES) == chapters
    with capsys.disabled():
        print(f"\nthe bank: {len(every('wrong'))} wrong answers to {len(EXERCISES)} exercises")


def test_a_poor_bank_is_reported():
    right = {"once": "def f(x):\n    return x", "again": "def f(x):\n    return  x  # the same"}
    wrong = {str(k): Wrong(f"def f(x):\n    return {k}", "expected 3") for k in range(4)}
    bank = {"f": Answers(right, wrong | {"vague": Wrong("def f(x):\n    return -1", "off")}), "h": Answers({}, {})}
    assert list(shortfalls(bank, {"f", "g"})) == [
        "g: no answers",
        "h: answers to no exercise",
        "f: 1 different right answers, at least 2",
        "f, vague: 'off' is no part of a message",
        "h: 0 different right answers, at least 2",
        "h: 0 different wrong answers, at least 5",
    ]
