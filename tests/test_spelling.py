"""The spell checker finds what it should where it should look, and all of the suite is spelt right."""

import importlib.util

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.chapters import ROOT

SPEC = importlib.util.spec_from_file_location("spelling", ROOT / "docs" / "spelling.py")
spelling = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(spelling)
WRONG = "reci" + "eve"  # in pieces: this file is read, too


def test_pages_notebooks_and_docstrings_are_read_outputs_are_not(tmp_path):
    for folder in ("docs", "ttqlib", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "README.md").write_text(f"We {WRONG} a colour.\n")  # which is British
    (tmp_path / "ttqlib" / "plan.py").write_text(f'"""To\n{WRONG}."""\n')
    output = new_output("stream", name="stdout", text=WRONG)
    cells = [new_markdown_cell(f"Right.\n\nTo {WRONG}."), new_code_cell("1", outputs=[output])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "01_a.ipynb")
    found = spelling.misspelt(tmp_path)
    assert sorted(line.split(" ")[0] for line in found) == ["01_a.md:3:", "README.md:1:", "ttqlib/plan.py:2:"]


def test_words_are_needed_and_in_order():
    words = spelling.WORDS.read_text(encoding="utf-8").split()
    assert words == sorted(words)
    text = "".join(path.read_text(encoding="utf-8").lower() for path in (ROOT / "ttqlib").rglob("*.py"))
    text += "".join(path.read_text(encoding="utf-8").lower() for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert [word for word in words if word not in text] == []
