"""Every committed notebook passes `hygiene` and `style`; each of their checks rejects a chapter spoilt in one way."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tests import hygiene, style
from tests.chapters import CHAPTERS, name_of
from tests.sample import chapter, code, prose, renumber, write

SETUP, PRINT, EXPLORE, STILL, EXERCISE, CHECK, FOLDS = 2, 3, 5, 6, 9, 10, 11  # cells of the sample chapter


def problems(path: Path) -> list[str]:
    return hygiene.problems(path) + style.problems(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of notebooks in which the sample's link to chapter 2 is planned."""
    monkeypatch.setattr(style, "PLANNED", {"02_halving.ipynb"})
    return tmp_path


# ------------------------------------------------------------------------------------------ the committed notebooks


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_a_chapter_has_no_problem(path):
    assert problems(path) == []


def test_the_suite_has_no_problem():
    assert hygiene.suite_problems(CHAPTERS) + style.suite_problems(CHAPTERS) == []


def test_the_first_chapters_are_here():
    assert [path.name[:2] for path in CHAPTERS][:3] == ["00", "01", "02"]


# ------------------------------------------------------------------------------------------------- spoilt chapters


def test_the_sample_is_good(folder):
    assert problems(write(chapter(), folder / "01_sample.ipynb")) == []


def stdout(text):
    return lambda notebook: notebook.cells[PRINT].outputs[0].update(text=text)


def source(index, text):
    return lambda notebook: notebook.cells[index].update(source=text)


def replace(index, old, new):
    def spoil(notebook):
        cell = notebook.cells[index]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return spoil


def tagged(index, *tags, **metadata):
    return lambda notebook: notebook.cells[index].metadata.update(tags=list(tags), **metadata)


def error(**changes):
    return lambda notebook: notebook.cells[CHECK].outputs[0].update(changes)


def clear_everything(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)


def insert(*new, at=PRINT):
    def spoil(notebook):
        notebook.cells[at:at] = new
        renumber(notebook)

    return spoil


def remove(start, stop):
    def spoil(notebook):
        del notebook.cells[start:stop]
        renumber(notebook)

    return spoil


def excuse_many(notebook):
    for index in (SETUP, PRINT, STILL):
        notebook.cells[index].metadata.update(tags=["nbval-ignore-output"], reason="a test")


def add_png_text(notebook):
    notebook.cells[STILL].outputs[0].data["text/html"] = "<img src='/files/figures/a.png'>"


def stderr(notebook):
    notebook.cells[PRINT].outputs.append(new_output("stream", name="stderr", text="a warning\n"))


def unhandled_error(notebook):
    notebook.cells[PRINT].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])]


def describe(**metadata):
    return lambda notebook: notebook.cells[STILL].outputs[0].metadata.update({"image/png": metadata})


def show_twice(notebook):
    notebook.cells[STILL].outputs *= 2


CLASS = "class {}:\n    pass"
LAB_TRACEBACK = "\x1b[31mCheckFailed\x1b[39m: not written yet"

# (the problem that must be reported, what was done to the sample)
SPOILT = [
    ("not valid nbformat", lambda notebook: notebook.cells[PRINT].outputs[0].pop("name")),
    ("two cells share an id", lambda notebook: notebook.cells[PRINT].update(id="cell-0")),
    ("kernelspec is 'julia'", lambda notebook: notebook.metadata.kernelspec.update(name="julia")),
    ("execution count is None, expected 1", clear_everything),
    ("execution count is 9, expected 2", lambda notebook: notebook.cells[PRINT].update(execution_count=9)),
    ("empty code cell", source(SETUP, "  ")),
    ("may store no count", tagged(PRINT, "nbval-skip", "skip-execution", reason="slow")),
    ("unknown tag 'nbval-raises-exception'", tagged(PRINT, "nbval-raises-exception")),
    ("go together", tagged(PRINT, "nbval-skip", reason="slow")),
    ("marker in a comment", replace(PRINT, "print", "# NBVAL_IGNORE_OUTPUT\nprint")),
    ("nbval-ignore-output without a 'reason'", tagged(PRINT, "nbval-ignore-output", reason=" ")),
    ("3 code cells are kept from nbval, at most 2", excuse_many),
    ("without the tag 'raises-exception'", unhandled_error),
    ("no error is stored", tagged(PRINT, "raises-exception")),
    ("renders as 2 lines", error(traceback=["CheckFailed", "not written yet"])),
    ("stderr output: a warning", stderr),
    ("ANSI escape", stdout("\x1b[1mbold\x1b[0m\n")),
    ("ANSI escape", error(traceback=[LAB_TRACEBACK])),
    ("memory address 0x7f3a2c11d0b0", stdout("<Axes at 0x7f3a2c11d0b0>\n")),
    ("version number 2.13.0", stdout("torch 2.13.0+cpu\n")),
    ("absolute path /srv/notes", stdout("read /srv/notes/a.txt\n")),
    ("absolute path /srv/notes", replace(PRINT, "print(", "open('/srv/notes/a.txt'); print(")),
    ("absolute path /files/figures", add_png_text),
    ("absolute path C:\\Users\\me", replace(1, "Twice", r"Twice C:\Users\me")),
    ("absolute path /srv/lib", error(traceback=["CheckFailed in /srv/lib/check.py: not written yet"])),
    ("notebook metadata: absolute path", lambda notebook: notebook.metadata.update(folder="/srv/notes/here")),
    ("code of 93 columns, at most 92", source(PRINT, "#" * 93)),
    ("output of 93 columns, at most 92: 9999", stdout("9" * 93 + "\n")),
    ("alternative text '' has 0 characters", lambda notebook: notebook.cells[STILL].outputs[0].metadata.clear()),
    ("alternative text 'A drawing.' has 10 characters, at least 20", describe(alt="A drawing.")),
    ("the same alternative text as in cell 7", show_twice),
    ("ends in ';'", replace(PRINT, "')", "');  # quiet")),
    (
        "'execution' metadata",
        lambda notebook: notebook.cells[PRINT].metadata.update(execution={"iopub.status.idle": ""}),
    ),
    ("the limit is", lambda notebook: notebook.cells[STILL].outputs[0].data.update({"image/png": "A" * 1_000_000})),
    ("does not open with '# 1 · Title'", replace(0, "# 1 ·", "# 3 ·")),
    (
        "does not open with '# 1 · Title'",
        lambda notebook: notebook.cells.insert(0, new_markdown_cell("Welcome", id="w")),
    ),
    ("no row 'You need'", replace(0, "| nothing", "|  ")),
    ("no row 'It runs in'", replace(0, "It runs in", "It takes")),
    ("no section '## Recap'", replace(-1, "## Recap", "## The end")),
    ("26 lines of code", source(PRINT, "\n".join(["print(1)"] * 26))),
    ("words of prose for", lambda notebook: [cell.update(source=cell.source[:90]) for cell in notebook.cells[1:]]),
    ("3 cells define classes", insert(prose("A"), code(CLASS.format("A")), prose("B"), code(CLASS.format("B")))),
    ("not one picture", lambda notebook: notebook.cells[STILL].update(outputs=[])),
    ("no widget under", lambda notebook: notebook.cells[EXPLORE].update(outputs=[])),
    ("no still picture", lambda notebook: notebook.cells.insert(1, notebook.cells.pop(STILL)) or renumber(notebook)),
    ("1 exercises, at least 2", remove(EXERCISE - 1, FOLDS + 1)),
    ("no rating and time", replace(EXERCISE - 1, "10 minutes", "not long")),
    ("no check cell that calls ttq.check", replace(CHECK, "ttq.check.doubled", "print")),
    ("its check cell has no tag", tagged(CHECK)),
    ("a CheckFailed that says 'not written yet'", error(evalue="twice 3 is 6")),
    ("a CheckFailed that says 'not written yet'", error(ename="NameError")),
    ("no folded hint", replace(FOLDS, "Hint", "Help")),
    ("no folded solution", lambda notebook: notebook.cells.pop(FOLDS)),
    ("0 ```python blocks", replace(FOLDS, "```python", "```")),
    ("leads nowhere", replace(0, "02_halving.ipynb", "03_thirds.ipynb")),
    ("leads nowhere", replace(1, "Twice one", "Twice <img src='missing.png'>")),
]


@pytest.mark.parametrize(("problem", "spoil"), SPOILT, ids=[problem for problem, _ in SPOILT])
def test_a_spoilt_chapter_is_rejected(folder, problem, spoil):
    notebook = chapter()
    spoil(notebook)
    found = problems(write(notebook, folder / "01_sample.ipynb"))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("check", hygiene.CHECKS + style.CHECKS, ids=lambda check: check.__name__)
def test_every_check_rejects_one_of_them(folder, check, monkeypatch):
    """So that a check added without a spoilt chapter is noticed."""
    monkeypatch.setattr(hygiene, "CHECKS", [check] if check in hygiene.CHECKS else [])
    monkeypatch.setattr(style, "CHECKS", [check] if check in style.CHECKS else [])
    monkeypatch.setattr(hygiene, "MAX_BYTES", float("inf"))
    for _, spoil in SPOILT:
        notebook = chapter()
        spoil(notebook)
        if problems(write(notebook, folder / "01_sample.ipynb")):
            return
    pytest.fail(f"no spoilt chapter is rejected by {check.__name__}")


def test_what_a_chapter_may_do(folder):
    """Things close to a fault that are none."""
    notebook = chapter()
    skipped = new_code_cell(
        "1", metadata={"tags": ["nbval-skip", "skip-execution"], "reason": "needs a GPU"}, id="skip"
    )
    notebook.cells[SETUP].metadata.update(tags=["nbval-ignore-output"], reason="a random name")
    notebook.cells.insert(PRINT, skipped)
    notebook.cells[1].source += "\n\nSee [above](#Exercises), and/or `a/b/c`, $x/\\delta/y$, https://example.org/a/b."
    notebook.cells[1].source += "\n\n```python\nopen('missing.png')  # [not a link](missing.png)\n```"
    notebook.cells[STILL + 1].outputs[0].data["text/html"] = "<img src='data:image/png;base64,+/ab/cd/ef=='></img>"
    assert problems(write(notebook, folder / "01_sample.ipynb")) == []


# -------------------------------------------------------------------------------------------------- spoilt suites


def suite(folder: Path, **notebooks) -> list[str]:
    paths = [write(notebook, folder / f"{name[1:]}.ipynb") for name, notebook in notebooks.items()]
    return hygiene.suite_problems(paths) + style.suite_problems(paths)


def other():
    """A second chapter that defines nothing of the first but exercises of the same names, which is allowed."""
    notebook = chapter()
    notebook.cells[SETUP].source = "1"
    return notebook


def test_a_good_suite(folder):
    assert suite(folder, _00_one=chapter(), _01_two=other()) == []


def test_a_name_defined_in_two_chapters(folder):
    found = suite(folder, _00_one=chapter(), _01_two=chapter())
    assert "the suite: doubled is defined in 00_one.ipynb and 01_two.ipynb" in found
    assert "the suite: CheckFailed is defined in 00_one.ipynb and 01_two.ipynb" in found
    assert len(found) == 2  # and not the exercises, `double` and `twice`


def test_a_planned_chapter_that_exists(folder):
    found = suite(folder, _00_one=chapter(), _01_two=other(), _02_halving=other())
    assert found == ["the suite: 02_halving.ipynb exists, so it is no longer PLANNED"]


def test_a_gap_in_the_numbers(folder):
    (found,) = suite(folder, _00_one=chapter(), _02_two=other())
    assert "02_two.ipynb should be called 01_name.ipynb" in found


def test_a_suite_that_begins_at_one(folder):
    (found,) = suite(folder, _01_one=chapter())
    assert "01_one.ipynb should be called 00_name.ipynb" in found


def test_too_many_exceptions_in_the_suite(folder):
    notebooks = {"_00_one": chapter(), "_01_two": other()}
    for notebook in notebooks.values():
        for index in (SETUP, PRINT):  # two in each: right for a chapter, too many for the suite
            notebook.cells[index].metadata.update(tags=["nbval-ignore-output"], reason="a test")
    assert suite(folder, **notebooks) == ["the suite: 4 code cells are kept from nbval, at most 2 may be"]
