"""The solutions that a chapter folds away pass the checks of its exercises, run with the cells that they need."""

from pathlib import Path

import pytest
from nbclient import NotebookClient

from tests import sample
from tests.chapters import CHAPTERS, name_of
from tests.hygiene import outputs, read
from tests.slices import needed_by
from tests.style import exercises


def problems(path: Path) -> list[str]:
    """Runs the exercises of a solved copy in the notebook's own folder; one line for each cell that fails."""
    notebook = read(path)
    found, wanted = [], set()
    for exercise in exercises(notebook):
        if len(exercise.solutions) == 1:
            notebook.cells[exercise.cell].source = exercise.solutions[0]
        else:
            found.append(f"cell {exercise.cell + 1}: no solution to run")
        wanted |= {exercise.cell, exercise.check} - {None}
    kept = needed_by(notebook, wanted)  # the other cells are nbval's
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.source = [], cell.source if place in kept else ""
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True, resources=where).execute()
    for number, _, output in outputs(notebook):
        if output.output_type == "error":
            found.append(f"cell {number}: {output.ename}: {output.evalue}")
    return found


@pytest.fixture(autouse=True)
def warm_kernels(warm, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", warm)


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
