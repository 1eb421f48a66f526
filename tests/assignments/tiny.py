"""A tiny assignment that needs no torch, so that a dozen submissions of it are graded in seconds."""

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "a9_tiny"
DOUBLE = "def double(x):\n    ### BEGIN SOLUTION\n    return x + x\n    ### END SOLUTION"
SHOUT = "def shout(word):\n    ### BEGIN SOLUTION\n    return word.upper()\n    ### END SOLUTION"
HIDDEN = """# Hidden tests
### BEGIN HIDDEN TESTS
assert double(int(os.environ["TTQ_COURSE_SEED"])) == 246
### END HIDDEN TESTS"""
TESTS = {  # what nbgrader would read points from, or take points for
    "ends_in_a_part": "assert double(2) == 4\n0.5",
    "ends_below_zero": "assert double(2) == 4\n-1",
    "ends_in_false": "assert double(2) == 4\nFalse",
    "warns": "import warnings\nassert double(2) == 4\nwarnings.warn('mind')",
    "draws_a_bar": "from tqdm import tqdm\nfor k in tqdm(range(3), disable=False):\n    assert double(k) == 2 * k",
}
POINTS = 4 * (len(TESTS) + 2)  # the hidden test and the one of shout are worth as much


def cell(source: str, name: str, kind=new_code_cell, **about) -> NotebookNode:
    given = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False, "locked": False, "task": False}
    return kind(source, metadata={"nbgrader": given | about})


def test(source: str, name: str) -> NotebookNode:
    return cell(source, name, grade=True, locked=True, points=4)


def source() -> NotebookNode:
    cells = [cell("import os", "setup", locked=True), cell(DOUBLE, "double", solution=True)]
    cells += [test(text, name) for name, text in TESTS.items()] + [test(HIDDEN, "hidden")]
    cells += [cell(SHOUT, "shout", solution=True), test("assert shout('a') == 'A'", "loud")]
    cells.append(cell("Because.", "why", new_markdown_cell, grade=True, solution=True, points=10))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def named(notebook: NotebookNode, name: str) -> NotebookNode:
    """The cell with this grade_id."""
    (found,) = (cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)
    return found


def answered(released: NotebookNode, double: str = "    return x + x", shout: str = "    return word.upper()"):
    """A student's copy with these bodies of the two functions."""
    copy = nbformat.from_dict(released)
    named(copy, "double").source = f"def double(x):\n{double}"
    named(copy, "shout").source = f"def shout(word):\n{shout}"
    return copy
