"""A course with these assignments: its folder, the students' copies, what the instructor has to know, the grades.

    python notebooks/assignments/course.py new FOLDER       a folder for nbgrader, with a seed of its own
    python notebooks/assignments/course.py release FOLDER   the students' copies alone, and a zip of each
    python course.py report a1_arithmetic                   in the course: points and remarks, a line for each student
    python course.py grades                                 in the course: grades.csv for a learning platform

`docs/instructor.md` walks through a course. This file stands beside the assignments and needs nbgrader alone: it is
copied into a course, which lives without a checkout.
"""

import argparse
import csv
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGraderAPI
from traitlets.config import PyFileConfigLoader

HERE = Path(__file__).resolve().parent
TOOLS = ("nbgrader_config.py", "grading.py", "course.py")
PLACE_OF_SEED = "SEED-OF-THIS-COURSE"


def new(folder: Path) -> None:
    """Makes the folder of a course: settings, a random seed, and the assignments with their solutions in `source`.

    Raises:
        SystemExit: the folder holds something, or there are no assignments beside this file.
    """
    sources = sorted(path.parent for path in HERE.glob("a[0-9]*_*/*.ipynb"))
    if not sources:
        sys.exit("course: no assignments lie beside this file; call notebooks/assignments/course.py of a checkout")
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"course: {folder} is not empty; name a folder that is not there yet")
    for path in sources:
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        shutil.copytree(path, folder / "source" / path.name, ignore=ignored)
    for name in TOOLS:
        shutil.copy(HERE / name, folder / name)
    settings = folder / "nbgrader_config.py"
    text = settings.read_text(encoding="utf-8").replace(PLACE_OF_SEED, secrets.token_urlsafe(12))
    settings.write_text(text, encoding="utf-8")


def release(folder: Path) -> None:
    """Writes the students' copies of all assignments: a folder and a zip each, in place of what has these names.

    Raises:
        SystemExit: nbgrader refuses an assignment; the reason is what it says.
    """
    with tempfile.TemporaryDirectory() as scratch:
        course = Path(scratch) / "course"
        new(course)
        config = PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()
        for name in sorted(path.name for path in (course / "source").iterdir()):
            done = NbGraderAPI(config=config).generate_assignment(name)
            if not done["success"]:
                sys.exit(f"course: {name} cannot be released\n{done['log']}")
            shutil.copytree(course / "release" / name, folder / name, dirs_exist_ok=True)
            zipped(folder / name)


def zipped(folder: Path) -> None:
    """A zip beside a folder, which unpacks to the folder."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))


def report(course: Path, assignment: str) -> Iterator[str]:
    """One line for each student who has handed something in, and below it one for each remark."""
    handed_in = sorted(path.parent.name for path in course.glob(f"submitted/*/{assignment}"))
    if not handed_in:
        yield f"nothing lies in submitted/STUDENT/{assignment}"
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for student in handed_in:
            graded = list(course.glob(f"autograded/{student}/{assignment}/*.ipynb"))
            if not graded:
                yield f"{student}: NOT GRADED: no notebook under its right name, or one that cannot be read"
                continue
            try:
                found = book.find_submission(assignment, student)
            except MissingEntry:
                yield f"{student}: NOT GRADED yet"
                continue
            points, late = found.score - found.late_submission_penalty, found.late_submission_penalty
            open_ = ", answers to read by hand" if found.needs_manual_grade else ""
            lost = f", {late:g} lost as late" if late else ""
            yield f"{student}: {points:g} of {found.max_score:g} points{lost}{open_}"
            for path in graded:
                for line in nbformat.read(path, 4).metadata.get("ttq", {}).get("remarks", []):
                    yield f"    {line}"


def grades(course: Path, file: Path) -> None:
    """Writes the points of all students as CSV: a row each, a column an assignment, late work reckoned in."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        names = sorted(one.name for one in book.assignments)
        points = {student.id: dict.fromkeys(names, "") for student in book.students}
        for name in names:
            for one in book.assignment_submissions(name):
                points[one.student.id][name] = f"{one.score - one.late_submission_penalty:g}"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["student", *names], *([who, *row.values()] for who, row in sorted(points.items()))])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="a course with the assignments of TTQ", prog="course.py")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("new", "make a course's folder"), ("release", "write the students' copies")):
        commands.add_parser(name, help=what).add_argument("folder", type=Path)
    commands.add_parser("report", help="points and remarks").add_argument("assignment")
    commands.add_parser("grades", help="write grades.csv")
    asked = parser.parse_args(arguments)
    if asked.command == "new":
        new(asked.folder)
        print(f"{asked.folder} is ready; its seed and settings stand in nbgrader_config.py")
    elif asked.command == "release":
        release(asked.folder)
        print(f"the students' copies lie in {asked.folder}")
    elif not (HERE / "gradebook.db").exists():
        sys.exit("course: nothing is graded here yet; call this in the folder of the course")
    elif asked.command == "report":
        print("\n".join(report(HERE, asked.assignment)))
    else:
        grades(HERE, HERE / "grades.csv")
        print("grades.csv is written")


if __name__ == "__main__":
    main()
