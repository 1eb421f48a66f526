#!/usr/bin/env bash
# nbgrader: a student copies a cell with an answer, and everybody after this student stays ungraded.
#
# Versions:    nbgrader 0.9.6; Python 3.11
# Expected:    Three students hand in the right answer. One of them, bob, has copied the answer's cell, as JupyterLab's menu
#              does it, and goes on in the copy. nbgrader says that it knows such copies ("exists multiple times") and
#              counts the last one: all three get their points.
# Behaviour:   To tell copies apart nbgrader empties what it has written into the first one, then reads the cell, takes
#              "nothing" for the format of years ago, and ends the whole command with the advice to convert the files.
#              Who comes before bob in the alphabet is graded. bob has 0 points, and nobody after him is looked at.
# Output seen: student  points of 5
#              ann      5.0
#              bob      0.0
#              eve      not graded
#              nbgrader says: Outdated schema version: 0 (expected 3)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile nbgrader==0.9.6

cd "$work"
export HOME="$work" PATH="$work/venv/bin:$PATH" # nbgrader calls other programs of its environment
python 2>stderr.txt - <<'PYTHON' || { tail -n 5 stderr.txt >&2 && exit 1; } # its log is long
import copy
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

EXPECTED = {"ann": 5.0, "bob": 0.0, "eve": "not graded"}

course = Path("course").resolve()
config = Config()
config.CourseDirectory.root = str(course)
config.CourseDirectory.course_id = "c"
config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"


def cell(source, name, **about):
    given = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False, "locked": False, "task": False}
    return new_code_cell(source, metadata={"nbgrader": given | about})


cells = [cell("x = 1", "answer", solution=True), cell("assert x == 1", "test", grade=True, locked=True, points=5)]
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
(course / "source" / "ps1").mkdir(parents=True)
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), course / "source" / "ps1" / "p.ipynb")

api = NbGraderAPI(config=config)
assert api.generate_assignment("ps1")["success"]
released = nbformat.read(course / "release" / "ps1" / "p.ipynb", 4)
for student in EXPECTED:
    notebook = copy.deepcopy(released)
    notebook.cells[0].source = "x = 1"
    if student == "bob":
        copied = copy.deepcopy(notebook.cells[0])
        copied.id = "a-new-one"
        notebook.cells.insert(1, copied)
    (course / "submitted" / student / "ps1").mkdir(parents=True)
    nbformat.write(notebook, course / "submitted" / student / "ps1" / "p.ipynb")
done = api.autograde("ps1", "*")

with Gradebook(config.CourseDirectory.db_url) as book:
    points = {student.id: student.score for student in book.students}
found = {student: points.get(student, "not graded") for student in EXPECTED}
print("student  points of 5")
for student, value in found.items():
    print(f"{student:8} {value}")
says = re.search(r"Outdated schema version.*", done["error"] or "")
print("nbgrader says:", says[0] if says else "nothing of a format")
sys.exit(0 if found == EXPECTED and says else "changed: other points or another message than described")
PYTHON
