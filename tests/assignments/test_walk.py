"""A course as docs/instructor.md walks through it, with its commands only: from an empty folder to feedback."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from nbgrader.api import Gradebook

from tests.answers.a1 import ANSWERS
from tests.assignments.mistakes import PAGE, page
from tests.assignments.running import ASSIGNMENTS, number, questions
from tests.chapters import CHAPTERS, ROOT
from tests.hygiene import read

INSTRUCTOR = (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8")
NAME = "a1_arithmetic"
HALF = ("multiply", "inner", "left_orthogonal")  # 45 of the 90 points that tests give
HOSTILE = f"""
import ttqlib

for check in {list(ANSWERS)}:
    setattr(ttqlib.check.assignments.a1, check, print)
    setattr(ttqlib.check.assignments.a1, check + "_by_hand", print)
"""
PRINTS = "def multiply(a, b):\n    print('SEEN', a)\n    return a"


def blocks(heading: str) -> list[str]:
    """The commands of a section of the page, block by block."""
    section = INSTRUCTOR.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)


def filled(released, sources: dict[str, str]):
    """A student's copy with these sources as answers."""
    notebook = copy.deepcopy(released)
    for question in questions(notebook):
        if question.name in sources:
            notebook.cells[question.solution].source = sources[question.name]
    return notebook


def solutions() -> dict[str, str]:
    notebook = read(next(path for path in ASSIGNMENTS if path.stem == NAME))
    marks = re.compile(r" *### (BEGIN|END) SOLUTION\n?")
    return {one.name: marks.sub("", notebook.cells[one.solution].source) for one in questions(notebook)}


def handed_in(released) -> dict[str, nbformat.NotebookNode]:
    """What five students send, by the name of their file."""
    right = solutions()
    wrong = {name: f"def {name}(*arguments):\n    return arguments[0]" for name in ANSWERS}
    wrong["norm"] = ANSWERS["norm"].right["only R is carried"]
    hostile = filled(released, wrong | {"norm": "def size(cores):\n    return 1", "multiply": PRINTS})
    for question in questions(hostile):
        for place in question.tests:
            hostile.cells[place].source = "pass"
    hostile.cells.insert(0, new_code_cell(HOSTILE))
    hostile.cells = [cell for cell in hostile.cells if cell.metadata.get("nbgrader", {}).get("grade_id") != "setup"]
    return {
        f"perfect_{NAME}.ipynb": filled(released, right),
        f"blank_{NAME} (1).ipynb": released,
        f"half_{NAME}.ipynb": filled(released, {name: right[name] for name in HALF}),
        f"wrong_2026-03-04_{NAME}.ipynb": filled(released, wrong),
        f"hostile_{NAME}.ipynb": hostile,
    }


class Walk:
    """Calls the page's commands in one folder, as an instructor would, and keeps what they said."""

    def __init__(self, home: Path, jupyter: str):
        self.home, self.course = home, home / "my-course"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "HOME": str(home), "JUPYTER_PATH": jupyter}
        self.said = ""

    def call(self, commands: str) -> str:
        commands = commands.replace("../my-course", str(self.course)).replace("python ", f"{sys.executable} ")
        folder = self.course if self.course.exists() else ROOT
        run = ["bash", "-ec", commands]
        done = subprocess.run(run, cwd=folder, env=self.env, capture_output=True, text=True, timeout=170)
        assert done.returncode == 0, done.stderr[-2000:]
        self.said += done.stdout
        return done.stdout

    def grades(self) -> dict[str, dict[str, float]]:
        """By student: the points of each cell that tests have graded."""
        with Gradebook(f"sqlite:///{self.course / 'gradebook.db'}") as book:
            return {
                one.student.id: {grade.name: grade.auto_score for grade in one.notebooks[0].grades}
                for one in book.assignment_submissions(NAME)
            }


@pytest.fixture(scope="module")
def walk(tmp_path_factory, warm):
    walk = Walk(tmp_path_factory.mktemp("home"), warm)
    new, hand_out, collect, grade, finish, _ = blocks("A course without a server")
    walk.call(new)
    walk.call(hand_out)
    walk.released = nbformat.read(walk.course / "release" / NAME / f"{NAME}.ipynb", 4)
    (walk.home / "mail").mkdir()
    for file, notebook in handed_in(walk.released).items():
        nbformat.write(notebook, walk.home / "mail" / file)
    walk.call(collect)
    walk.report = walk.call(grade)
    walk.call(finish)
    return walk


def test_the_solution_gets_all_the_blank_nothing_and_half_of_it_a_half(walk):
    points = {student: sum(value or 0 for value in cells.values()) for student, cells in walk.grades().items()}
    assert points == {"perfect": 90, "half": 45, "wrong": 10, "blank": 0, "hostile": 0}


def test_the_instructor_is_told_in_clear_lines(walk):
    lines = walk.report.splitlines()
    assert "perfect: 90 of 100 points" in lines
    assert "wrong: 8 of 100 points, 2 lost as late" in lines  # two days have begun
    hostile = lines[lines.index("hostile: 0 of 100 points") + 1 :]
    assert "    the cell multiply_hidden was changed: put back as it was" in hostile
    assert "    the cell setup was missing: put back at the beginning" in hostile
    assert "    norm_hidden: NameError: name 'norm' is not defined" in hostile
    assert (walk.course / "grades.csv").read_text().split() == [
        f"student,{NAME}",
        *("blank,0", "half,45", "hostile,0", "perfect,90", "wrong,8"),
    ]


def test_students_see_no_solution_no_hidden_test_and_no_seed(walk):
    settings = (walk.course / "nbgrader_config.py").read_text()
    seed = re.search(r'^SEED = "(.*)"$', settings, re.M)[1]
    assert len(seed) >= 12 and seed != "SEED-OF-THIS-COURSE"
    feedback = {path.parts[-3]: path.read_text() for path in walk.course.glob(f"feedback/*/{NAME}/*.html")}
    assert len(feedback) == 5
    for text in [nbformat.writes(walk.released), *feedback.values()]:
        for secret in (seed, "HIDDEN TESTS", "assignments.seed", "TTQ_COURSE_SEED", "_sys.modules"):
            assert secret not in text
    assert "SOLUTION" not in nbformat.writes(walk.released)
    assert feedback["hostile"].count("SEEN") <= 3  # in its source, and in the test that it could see
    assert "CheckFailed" in feedback["wrong"] and "not written yet" in feedback["blank"]


def test_grading_again_gives_the_same(walk):
    before = walk.grades()
    again = blocks("A course without a server")[-1].replace("--force", "--force --student=half")
    walk.call(again)
    assert walk.grades() == before


# ------------------------------------------------------------------------------------------------ what the pages say


def test_make_assignments_writes_what_students_get(tmp_path):
    command = re.search(r"^assignments:.*\n\t.*\$\(PY\) (.*)$", (ROOT / "Makefile").read_text(), re.M)[1]
    *script, folder = command.split()
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, *script, str(tmp_path / folder)], cwd=ROOT, env=env, check=True, timeout=170)
    for path in ASSIGNMENTS:
        text = (tmp_path / folder / path.stem / path.name).read_text()
        assert "SOLUTION" not in text and "HIDDEN TESTS" not in text and ".ipynb)" not in text
        shutil.unpack_archive(tmp_path / folder / f"{path.stem}.zip", tmp_path / "unpacked")
        assert (tmp_path / "unpacked" / path.stem / path.name).read_text() == text


def test_the_page_of_mistakes_is_made_of_the_bank():
    assert PAGE.read_text(encoding="utf-8") == page(), "call: python -m tests.assignments.mistakes"


def test_the_plan_names_every_chapter_and_assignment_with_its_minutes():
    rows = re.findall(r"^\| (\d+) \| ([\d, ]*) \| ?(\d*) \| ?(A?\d*) \| ?(\d*) \|$", INSTRUCTOR, re.M)
    assert [int(week) for week, *_ in rows][:9] == list(range(1, 10))
    reading = {int(path.stem[:2]): int(minutes(path, r"reading takes (\d+) minutes")) for path in CHAPTERS}
    assert [int(k) for _, chapters, *_ in rows for k in chapters.split(", ") if k] == list(reading)
    for _, chapters, said, *_ in rows:
        assert int(said or 0) == sum(reading[int(k)] for k in chapters.split(", ") if k)
    planned = {name.lower(): int(said) for *_, name, said in rows if name}
    for path in ASSIGNMENTS:
        assert planned[number(path)] == int(minutes(path, r"about (\d+) minutes")), path.stem


def minutes(path: Path, pattern: str) -> str:
    return re.search(pattern, read(path).cells[0].source)[1]


def test_the_settings_that_the_page_names_are_there():
    settings = (ROOT / "notebooks" / "assignments" / "nbgrader_config.py").read_text(encoding="utf-8")
    table = INSTRUCTOR.partition("\n## Settings\n")[2].partition("\n## ")[0]
    named = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.M))
    assert list(named) == re.findall(r"^([A-Z_]{4,}) = ", settings, re.M)[1:]
    for name, value in named.items():
        assert name == "SEED" or re.search(rf"^{name} = {re.escape(value.strip())}(\.0)?\b", settings, re.M), name
