"""The assignments' notebooks, run in this process: what a student writes into a question, and what its tests say."""

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions

from tests.chapters import NOTEBOOKS
from tests.hygiene import read
from tests.slices import needed_by

FOLDER = NOTEBOOKS / "assignments"
ASSIGNMENTS = sorted(FOLDER.glob("a[0-9]*_*/*.ipynb"))


@dataclass(frozen=True)
class Question:
    """Places in `notebook.cells`: the solution cell of a question, and the test cells that follow it."""

    name: str
    solution: int
    tests: tuple[int, ...]


def number(path: Path) -> str:
    """ "a1" for `a1_arithmetic.ipynb`: what its checks and its answers are called."""
    return path.stem.partition("_")[0]


def about(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


def is_test(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(about(cell).get("grade")) and not about(cell).get("solution")


def is_manual(cell: NotebookNode) -> bool:
    return bool(about(cell).get("grade")) and bool(about(cell).get("solution"))


def questions(notebook: NotebookNode) -> list[Question]:
    """The solution cells that test cells follow, in their order; a solution cell without any is no question."""
    found, solution, tests = [], None, []
    for place, cell in [*enumerate(notebook.cells), (len(notebook.cells), None)]:
        if cell is not None and is_test(cell):
            tests.append(place)
        elif cell is None or about(cell).get("solution"):
            if tests:
                found.append(Question(about(notebook.cells[solution])["grade_id"], solution, tuple(tests)))
            solution, tests = place, []
    return found


def answered(path: Path, **sources: str) -> NotebookNode:
    """The notebook with these cells in the place of the solutions of the questions of these names."""
    notebook = read(path)
    for question in questions(notebook):
        if question.name in sources:
            notebook.cells[question.solution].source = sources.pop(question.name)
    assert not sources, f"{path.name} has no question {', '.join(sources)}"
    return notebook


def blank(path: Path) -> NotebookNode:
    """The notebook as students get it, but with the hidden tests still in it."""
    notebook, _ = ClearSolutions().preprocess(copy.deepcopy(read(path)), {})
    return notebook


def failures(notebook: NotebookNode, tests: Collection[int]) -> dict[int, Exception]:
    """Runs test cells with the cells that they need, top to bottom; what each test that fails has raised."""
    names, found = {"__name__": "__main__"}, {}
    others = {place for question in questions(notebook) for place in question.tests} - set(tests)
    for place in needed_by(notebook, tests):
        if place in others:
            continue
        try:
            exec(compile(notebook.cells[place].source, f"cell {place + 1}", "exec"), names)
        except Exception as error:
            if place not in tests:
                raise
            found[place] = error
    return found


def points(notebook: NotebookNode) -> Iterator[tuple[float, bool]]:
    """The points of each graded cell, and whether they are given by hand."""
    for cell in notebook.cells:
        if about(cell).get("grade"):
            yield about(cell)["points"], is_manual(cell)
