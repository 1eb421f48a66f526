"""Several workers: a module's fixtures are made once."""

import os
import subprocess
import sys

import pytest

from tests.chapters import ROOT
from tests.scheduling import unit

MODULE = """
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shared(worker_id):
    Path(f"{Path(__file__).stem}-made-by-{worker_id}").touch()


@pytest.mark.parametrize("number", range(8))
def test_slow(shared, number):
    time.sleep(0.05)
"""


def made(folder, *options: str) -> list[str]:
    """Which fixtures two workers make for two modules of eight tests."""
    for name in ("one", "other"):
        (folder / f"test_{name}.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", *options, "-p", "no:cacheprovider", "-q", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # it starts at once
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert "16 passed" in run.stdout, run.stdout + run.stderr
    return sorted(path.name.split("-")[0] for path in folder.glob("*-made-by-*"))


def test_a_modules_fixtures_are_made_once(tmp_path):
    assert made(tmp_path, "--dist", "loadscope", "-p", "tests.scheduling") == ["test_one", "test_other"]


def test_fixtures_that_are_made_twice_are_seen(tmp_path):
    assert len(made(tmp_path, "--dist", "load")) > 2


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/test_shapes.py::test_a[1-2]", "tests/test_shapes.py"),
        ("tests/test_browser.py::test_b[01]", "tests/test_browser.py::test_b[01]"),
        ("tests/test_families.py::test_c[Bert untied-save]", "tests/test_families.py::test_c[Bert untied"),
        ("tests/test_families.py::test_d", "tests/test_families.py::"),
    ],
)
def test_units(nodeid, expected):
    assert unit(nodeid) == expected
