"""Each chapter, its exercises replaced by the solutions that it folds away, runs from top to bottom without error."""

from pathlib import Path

import pytest
from nbclient import NotebookClient

from tests import sample
from tests.chapters import CHAPTERS, name_of
from tests.hygiene import cells, outputs, read
from tests.style import exercises


def problems(path: Path) -> list[str]:
    """Runs a solved copy from the notebook's own folder; one line for each cell that fails."""
    notebook = read(path)
    found = []
    for exercise in exercises(notebook):
        if len(exercise.solutions) == 1:
            notebook.cells[exercise.cell].source = exercise.solutions[0]
        else:
            found.append(f"cell {exercise.cell + 1}: no solution to run")
    for _, cell in cells(notebook, "code"):
        cell.outputs = []
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True, resources=where).execute()
    for number, _, output in outputs(notebook):
        if output.output_type == "error":
            found.append(f"cell {number}: {output.ename}: {output.evalue}")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_solutions_pass_their_checks(path):
    assert problems(path) == []


FOLDS = 11  # the sample's cell with the first solution; the check stands just above it


def test_the_samples_solutions_pass(tmp_path):
    assert problems(sample.write(sample.chapter(), tmp_path / "01_sample.ipynb")) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return x + x", "return x + 1", ["cell 11: CheckFailed: twice 3 is 6, not 4"]),
        ("return x + x", "return y + y", ["cell 11: NameError: name 'y' is not defined"]),
        ("```python", "```", ["cell 10: no solution to run", "cell 11: CheckFailed: not written yet"]),
    ],
    ids=["wrong", "broken", "missing"],
)
def test_a_bad_solution_is_reported(tmp_path, old, new, expected):
    notebook = sample.chapter()
    notebook.cells[FOLDS].source = notebook.cells[FOLDS].source.replace(old, new)
    assert problems(sample.write(notebook, tmp_path / "01_sample.ipynb")) == expected
