"""Both ways: right answers get all points, however they are written; wrong ones are refused by their test."""

from importlib import import_module

import pytest

from tests.answers import Answers, Mistake
from tests.assignments.running import ASSIGNMENTS, answered, blank, failures, number, points, questions
from tests.hygiene import is_valid, kernel_is_python3, no_absolute_path, read
from ttqlib.check import CheckFailed

ENOUGH_WRONG, ENOUGH_RIGHT, AUTOMATIC = 8, 2, 85
BANK: dict[str, dict[str, Answers]] = {
    number(path): import_module(f"tests.answers.{number(path)}").ANSWERS for path in ASSIGNMENTS
}


def bank(kind: str) -> list:
    """One parameter for each answer of the bank: assignment, question, answer."""
    return [
        pytest.param(path, question, answer, id=f"{number(path)}-{question}-{words}")
        for path in ASSIGNMENTS
        for question, answers in BANK[number(path)].items()
        for words, answer in getattr(answers, kind).items()
    ]


@pytest.fixture(autouse=True)
def course(monkeypatch):
    monkeypatch.setenv("TTQ_COURSE_SEED", "a course of the tests")


@pytest.mark.parametrize("path, question, source", bank("right"))
def test_a_right_answer_passes(path, question, source):
    notebook = answered(path, **{question: source})
    (asked,) = (one for one in questions(notebook) if one.name == question)
    assert failures(notebook, asked.tests) == {}


@pytest.mark.parametrize("path, question, wrong", bank("wrong"))
def test_a_wrong_answer_is_refused_by_the_test_meant_for_it(path, question, wrong, record_property):
    notebook = answered(path, **{question: wrong.source})
    (asked,) = (one for one in questions(notebook) if one.name == question)
    errors = failures(notebook, asked.tests)
    assert errors, "no test has noticed"
    said = [str(error) for error in errors.values() if isinstance(error, CheckFailed)]
    assert len(said) == len(errors), f"raised instead of refused: {errors}"
    assert any(wrong.says in message for message in said), said
    assert not any("\n" in message for message in said)
    record_property("wrong answer refused", number(path))


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=number)
def test_the_solution_passes_all_and_the_blank_nothing(path):
    solved, empty = read(path), blank(path)
    tests = [place for question in questions(solved) for place in question.tests]
    assert failures(solved, tests) == {}
    assert set(failures(empty, tests)) == set(tests)


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=number)
def test_a_source_is_clean_and_its_questions_have_both_kinds_of_tests(path):
    notebook = read(path)
    assert [problem for check in (is_valid, kernel_is_python3, no_absolute_path) for problem in check(notebook)] == []
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    for question in questions(notebook):
        hidden = ["### BEGIN HIDDEN TESTS" in notebook.cells[place].source for place in question.tests]
        assert set(hidden) == {True, False}, question.name
        assert "### BEGIN SOLUTION" in notebook.cells[question.solution].source


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=number)
def test_points_and_the_bank_are_complete(path):
    notebook = read(path)
    worth = list(points(notebook))
    assert sum(value for value, _ in worth) == 100
    assert sum(value for value, by_hand in worth if not by_hand) >= AUTOMATIC
    assert {question.name for question in questions(notebook)} == set(BANK[number(path)])
    for name, answers in BANK[number(path)].items():
        assert len(answers.wrong) >= ENOUGH_WRONG and len(answers.right) >= ENOUGH_RIGHT, name
        told = {words for words, wrong in answers.wrong.items() if isinstance(wrong, Mistake) and wrong.tell.strip()}
        assert told == set(answers.wrong), f"{name}: say what to tell the student, tests.answers.Mistake"
