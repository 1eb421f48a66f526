#!/usr/bin/env bash
# nbgrader and NumPy 2: half of the points, counted with NumPy, become all points.
#
# Versions:    nbgrader 0.9.6, numpy 2.4.6; Python 3.11
# Expected:    The last line of a test cell gives partial credit: 2.5 of 5 points, whether it is a Python float or a
#              NumPy one, such as the mean of some scores. What is no number of points (False, -1) is an error, or 0.
# Behaviour:   nbgrader reads the cell's output as text. NumPy 2 shows a scalar as np.float64(2.5), which float() does
#              not read, and what cannot be read counts as full credit, with a warning in the log of the command. So
#              does False; -1 too. A student who got half, or nothing, gets all.
# Output seen: last line of the test       points of 5
#              2.5                         2.5
#              float(np.mean([0, 5]))      2.5
#              np.mean([0, 5])             5.0
#              False                       5.0
#              -1                          5.0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile nbgrader==0.9.6 numpy==2.4.6

cd "$work"
export HOME="$work" PATH="$work/venv/bin:$PATH" # nbgrader calls other programs of its environment
python 2>stderr.txt - <<'PYTHON' || { tail -n 5 stderr.txt >&2 && exit 1; } # its log is long
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

LINES = {"2.5": 2.5, "float(np.mean([0, 5]))": 2.5, "np.mean([0, 5])": 5, "False": 5, "-1": 5}

course = Path("course").resolve()
config = Config()
config.CourseDirectory.root = str(course)
config.CourseDirectory.course_id = "c"
config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"

cells = [new_code_cell("import numpy as np")]
for number, line in enumerate(LINES):
    about = {"schema_version": 3, "grade_id": f"test{number}", "points": 5}
    about |= {"grade": True, "locked": True, "solution": False, "task": False}
    cells.append(new_code_cell(line, metadata={"nbgrader": about}))
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
(course / "source" / "ps1").mkdir(parents=True)
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), course / "source" / "ps1" / "p.ipynb")

api = NbGraderAPI(config=config)
assert api.generate_assignment("ps1")["success"]
shutil.copytree(course / "release" / "ps1", course / "submitted" / "ann" / "ps1")
assert api.autograde("ps1", "ann")["success"]
with Gradebook(config.CourseDirectory.db_url) as book:
    (notebook,) = book.find_submission("ps1", "ann").notebooks
    points = {grade.name: grade.auto_score for grade in notebook.grades}

found = {line: points[f"test{number}"] for number, line in enumerate(LINES)}
print(f"{'last line of the test':27} points of 5")
for line, value in found.items():
    print(f"{line:27} {value}")
sys.exit(0 if found == LINES else "changed: other points than described")
PYTHON
