"""The examples in docstrings give what they say; `ttq` and `torch` are there, as a reader has imported them."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import torch

import ttqlib as ttq

AT_LEAST = 15  # functions with an example


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for found in pkgutil.walk_packages(ttq.__path__, "ttqlib."):
        module = importlib.import_module(found.name)
        yield from (test for test in finder.find(module, globs={"ttq": ttq, "torch": torch}) if test.examples)


def failures(test: doctest.DocTest) -> str:
    said: list[str] = []
    torch.manual_seed(0)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


EXAMPLES = list(examples())


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_says(test):
    assert failures(test) == ""


def test_main_functions_have_examples():
    assert len(EXAMPLES) >= AT_LEAST


def test_a_wrong_example_is_rejected():
    wrong = doctest.DocTestParser().get_doctest(">>> ttq.factorize(768)\n(12, 8, 9)\n", {"ttq": ttq}, "wrong", None, 0)
    assert "Got:\n    (12, 8, 8)" in failures(wrong)
