"""Whatever is handed in ends in points and a line for the instructor, and costs no other student anything."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from tests.assignments import tiny
from tests.assignments.running import FOLDER

RELEASED_NAME = f"{tiny.NAME}/{tiny.NAME}.ipynb"
SETTINGS = {
    "SECONDS_FOR_A_CELL = 180": "SECONDS_FOR_A_CELL = 6",
    "SECONDS_FOR_A_NOTEBOOK = 600": "SECONDS_FOR_A_NOTEBOOK = 40",
    "GIGABYTES = 4.0": "GIGABYTES = 1.0\nget_config().WatchedExecute.most = 2_000_000",
}
DOUBLES = 4 * (len(tiny.TESTS) + 1)  # what the answer `double` is worth
SHOUT = 4

GREEDY = """
    import time

    kept = []
    for _ in range(60):  # at most 3 GB where nobody watches
        kept.append(bytearray(b"1") * 50_000_000)
        time.sleep(0.02)
    return x + x"""
DEAF = """
    while True:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            pass"""
PRINTS = """
    for _ in range(400):
        print("x" * 1_000)
    return x + x"""
PRINTS_ON = """
    import time

    for _ in range(100_000):  # a gigabyte where nobody watches; more at once would fill the kernel's memory first
        print("x" * 10_000)
        time.sleep(0.0005)
    return x + x"""
UNRUN = """
import ast


class Nothing(ast.NodeTransformer):
    def visit_Module(self, node):
        node.body = []
        return node


get_ipython().ast_transformers.append(Nothing())"""


def wrong(released):
    return tiny.answered(released, "    return 2")


def rewritten(released):
    notebook = wrong(released)
    for name in tiny.TESTS:
        tiny.named(notebook, name).source = "pass"
    return notebook


def skipped(released):
    notebook = wrong(released)
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution"]
    return notebook


def deleted(released):
    notebook = tiny.answered(released)
    kept = ("double", "shout")
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.nbgrader.grade_id in kept]
    return notebook


def stripped(released):
    notebook = tiny.answered(released)
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
    return notebook


def renamed(released):
    notebook = tiny.answered(released)
    tiny.named(notebook, "double").source = "def twice(x):\n    return x + x"
    return notebook


def out_of_order(released):
    notebook = tiny.answered(released)
    for count, cell in zip(range(40, 0, -1), notebook.cells):
        if cell.cell_type == "code":
            cell.execution_count = count
    tiny.named(notebook, "double").source = "later\n\n\ndef double(x):\n    return x + x"
    notebook.cells.append(new_code_cell("later = 1"))
    return notebook


def doubled(released):
    notebook = tiny.answered(released)
    notebook.cells.insert(
        1, new_code_cell("copied = 1", metadata=copy.deepcopy(tiny.named(notebook, "double").metadata))
    )
    notebook.cells.append(new_code_cell("1 / 1", metadata={"nbgrader": {"grade_id": "from_elsewhere", "grade": True}}))
    return notebook


def first(source):
    def made(released):
        notebook = wrong(released)
        notebook.cells.insert(0, new_code_cell(source))
        return notebook

    return made


def body(double="    return x + x", shout="    return word.upper()"):
    return lambda released: tiny.answered(released, double, shout)


SUBMISSIONS = {  # who: (what they hand in, points, a part of a remark)
    "perfect": (tiny.answered, DOUBLES + SHOUT, None),
    "blank": (copy.deepcopy, 0, None),
    "wrong": (wrong, SHOUT, None),
    "warns": (body("    import warnings\n    warnings.warn('mind')\n    return x + x"), DOUBLES + SHOUT, None),
    "loops": (
        lambda released: tiny.answered(released, shout="    while word:\n        pass"),
        DOUBLES,
        "loud: TimeOut: a cell took more than 6 s",
    ),
    "deaf": (body(DEAF), 0, "could not be interrupted"),
    "greedy": (body(GREEDY), 0, "used more than 1 GB of memory"),
    "prints": (body(PRINTS), DOUBLES + SHOUT, "the rest was cut"),
    "prints_on": (body(PRINTS_ON), 0, "printed more than 2,000,000 characters"),
    "dies": (body("    import os\n    os._exit(1)"), 0, "its kernel ended"),
    "rewritten": (rewritten, SHOUT, "the cell warns was changed: put back"),
    "skipped": (skipped, SHOUT, None),
    "unrun": (first(UNRUN), 0, "hidden: NotRun"),
    "deleted": (deleted, DOUBLES + SHOUT, "the cell setup was missing: put back at the beginning"),
    "stripped": (stripped, DOUBLES + SHOUT, "the cell hidden was missing: put back at the end"),
    "renamed": (renamed, SHOUT, "name 'double' is not defined"),
    "imports": (first("import nothing_like_this"), SHOUT, "No module named 'nothing_like_this'"),
    "out_of_order": (out_of_order, SHOUT, "was not run from top to bottom"),
    "doubled": (doubled, DOUBLES + SHOUT, "the cell double is there more than once"),
}


def course_tools():
    spec = importlib.util.spec_from_file_location("course", FOLDER / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(course: Path, *command: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=course, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=170
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course in which everybody has handed in and everything is graded."""
    folder = tmp_path_factory.mktemp("graded") / "course"
    course_tools().new(folder)
    settings = (folder / "nbgrader_config.py").read_text(encoding="utf-8")
    seed = settings.partition("SEED = ")[2].partition("\n")[0]
    for old, new in {**SETTINGS, seed: '"123"'}.items():
        assert settings.count(old) == 1, old
        settings = settings.replace(old, new)
    (folder / "nbgrader_config.py").write_text(settings, encoding="utf-8")
    (folder / "source" / tiny.NAME).mkdir()
    nbformat.write(tiny.source(), folder / "source" / RELEASED_NAME)
    assert run(folder, "nbgrader", "generate_assignment", tiny.NAME).returncode == 0
    released = nbformat.read(folder / "release" / RELEASED_NAME, 4)
    for student, (made, *_) in SUBMISSIONS.items():
        hand_in(folder, student, nbformat.writes(made(copy.deepcopy(released))))
    hand_in(folder, "broken", "no notebook at all")
    graded = run(folder, "nbgrader", "autograde", tiny.NAME)
    assert graded.returncode == 1 and "for student 'broken'" in graded.stderr
    return folder


def hand_in(course: Path, student: str, text: str) -> None:
    (course / "submitted" / student / tiny.NAME).mkdir(parents=True)
    (course / "submitted" / student / RELEASED_NAME).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def lines(course) -> dict[str, list[str]]:
    """What the report says of each student."""
    found, student = {}, None
    for line in run(course, sys.executable, "course.py", "report", tiny.NAME).stdout.splitlines():
        if not line.startswith(" "):
            student, _, line = line.partition(": ")
        found.setdefault(student, []).append(line.strip())
    return found


@pytest.mark.parametrize("student", SUBMISSIONS)
def test_points_and_remarks(lines, student):
    _, points, says = SUBMISSIONS[student]
    head, *remarks = lines[student]
    assert head.startswith(f"{points} of {tiny.POINTS + 10} points"), lines[student]
    if says is None:
        assert remarks == [] or student == "blank"
    else:
        assert any(says in remark for remark in remarks), remarks
    assert len(remarks) <= 12


def test_what_cannot_be_read_is_named(lines):
    assert lines["broken"][0].startswith("NOT GRADED")
