"""Strict nbval, as `make test` runs it, notices every kind of change to a stored output."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.chapters import ROOT
from tests.kernels import CROWDED, REFERENCE, SECONDS, SLOWEST, budget, crowding, slowness, times_slower

PATTERNS = ROOT / "tests" / "nbval.cfg"
FLAGS = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={PATTERNS}", "-p", "tests.kernels"]
PRINT = "print(f'two thirds: {2 / 3:.4f}')"
TABLE = "import pandas as pd\n\npd.DataFrame({'rank': [1, 2], 'error': [0.25, 0.125]})"
RAISE = "raise ValueError('rank must be at least 1, not 0')"


def alter(key: str, old: str, new: str):
    def change(output) -> list:
        holder = output.data if "data" in output else output
        assert old in holder[key]
        holder[key] = holder[key].replace(old, new)
        return [output]

    return change


# name -> (the source of a cell, what is done to its one stored output)
CHANGES = {
    "a digit in a printed line": (PRINT, alter("text", "0.6667", "0.6668")),
    "a digit in a table": (TABLE, alter("text/plain", "0.125", "0.126")),
    "a digit in a table as shown": (TABLE, alter("text/html", "0.125", "0.126")),
    "a digit in a list": ("[0.25, 0.125]", alter("text/plain", "0.125", "0.126")),
    "an exception's message": (RAISE, alter("evalue", "not 0", "not 1")),
    "a deleted output": (PRINT, lambda output: []),
}


def write_notebooks(folder: Path) -> None:
    """A notebook as it was executed, one in which every cell was tampered with, and one with too small a budget."""
    notebook = new_notebook(cells=[new_code_cell(source) for source, _ in CHANGES.values()])
    for cell in notebook.cells:
        cell.metadata["tags"] = ["raises-exception"] if cell.source == RAISE else []
    NotebookClient(notebook, timeout=60).execute()
    nbformat.write(notebook, folder / "unaltered.ipynb")
    altered, slow = nbformat.from_dict(notebook), nbformat.from_dict(notebook)
    for cell, (_, change) in zip(altered.cells, CHANGES.values()):
        cell.outputs = change(*cell.outputs)
    nbformat.write(altered, folder / "altered.ipynb")
    slow.cells = slow.cells[:1]
    slow.metadata["ttq"] = {"seconds": 0.01}
    nbformat.write(slow, folder / "slow.ipynb")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, list[str]]:
    """For each notebook what nbval says of its cells, '' where it has no complaint."""
    folder = tmp_path_factory.mktemp("notebooks")
    write_notebooks(folder)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", *FLAGS, "-p", "no:cacheprovider", f"--junitxml={report}", str(folder)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=300)
    assert report.exists(), run.stdout + run.stderr
    said = {"unaltered": [], "altered": [], "slow": []}
    for case in ElementTree.parse(report).iter("testcase"):
        notebook = next(name for name in said if f".{name}" in f".{case.get('classname')}")
        said[notebook].append("\n".join(failure.text for failure in case if failure.tag in ("failure", "error")))
    return said


def test_an_unaltered_notebook_passes(verdicts):
    assert verdicts["unaltered"] == [""] * len(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(verdicts, change):
    assert "Cell outputs differ" in verdicts["altered"][list(CHANGES).index(change)]


def test_a_chapter_over_its_budget_fails(verdicts):
    (said,) = verdicts["slow"]
    assert "its budget is 0.01 s" in said


def test_a_slower_machine_gets_more_time_within_reason():
    assert 1 <= slowness() <= SLOWEST
    assert slowness() == slowness()  # measured once


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1), (1, 1), (2, 2), (100, SLOWEST)])
def test_a_product_that_takes_longer_gives_more_time(share, expected):
    assert times_slower(share * 2 * 1024**3 / REFERENCE) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("waited", "expected"), [(9, 1), (10, 1), (15, (1 + CROWDED) / 2), (20, CROWDED), (900, CROWDED)]
)
def test_a_chapter_that_waits_for_a_core_gets_more_time(waited, expected):
    assert crowding(waited, used=10) == pytest.approx(expected)


def test_the_budget_is_the_notebooks_own_or_the_common_one():
    assert budget(new_notebook()) == SECONDS == 60
    assert budget(new_notebook(metadata={"ttq": {"seconds": 5}})) == 5


def unexplained(config: str) -> list[str]:
    """Patterns that are not a comment, a 'regex:' and a 'replace:' line, one under the other."""
    lines = config.splitlines()
    found = []
    for number, line in enumerate(lines):
        if line.startswith("regex:"):
            before, after = lines[number - 1] if number else "", lines[number + 1 :][:1]
            if not (before.startswith("# ") and after and after[0].startswith("replace: ")):
                found.append(line)
    return found


def swallows_digits(config: str) -> list[str]:
    """Patterns under which one altered digit in a result would go unseen."""
    results = [
        "two thirds: 0.6667",
        "rank 30, 4 bits, 12.5x smaller",
        "   rank  error\n0     1  0.250",
        "[0.25, 0.125]",
    ]
    patterns = re.findall(r"^regex: (.*)$", config, re.M)
    return [pattern for pattern in patterns if any(re.search(pattern, result) for result in results)]


def test_sanitize_patterns_are_explained_and_narrow():
    config = PATTERNS.read_text(encoding="utf-8")
    assert unexplained(config) == []
    assert swallows_digits(config) == []


def test_loose_sanitize_patterns_are_rejected():
    assert unexplained("regex: a\nreplace: b\n") == ["regex: a"]
    assert unexplained("# ids are random\nregex: a\nreplace: b\n") == []
    assert swallows_digits("# numbers vary\nregex: 0\\.\\d+\nreplace: NUMBER\n") == ["0\\.\\d+"]


def test_make_runs_nbval_with_these_flags():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in recipe.splitlines() if "--nbval " in line]
    for flag in ("--nbval-current-env", "--nbval-sanitize-with tests/nbval.cfg", "-p tests.kernels", "--dist loadfile"):
        assert flag in line, f"make test runs nbval without {flag}"
