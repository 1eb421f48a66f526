"""tests/minutes.py adds up what each part of a run took."""

import subprocess
import sys

import pytest

from tests.chapters import ROOT
from tests.minutes import part_of

SLOW = "import time\n\n\ndef test_sleeps():\n    time.sleep(3.2)\n\n\ndef test_does_not():\n    pass\n"


@pytest.mark.parametrize(
    ("nodeid", "part"),
    [
        ("tests/storage/test_packed.py::test_a[1::2]", "storage"),
        ("tests/test_app.py::test_b", "app"),
        ("notebooks/03_tt_layers.ipynb::Cell 4", "03_tt_layers"),
    ],
)
def test_a_part_is_a_folder_a_file_or_a_chapter(nodeid, part):
    assert part_of(nodeid) == part


def test_a_run_ends_with_its_minutes_the_longest_part_first(tmp_path):
    for folder in ("quick", "slow"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    (tmp_path / "tests" / "quick" / "test_a.py").write_text("def test_fails():\n    assert False\n")
    (tmp_path / "tests" / "slow" / "test_b.py").write_text(SLOW)
    command = [sys.executable, "-m", "pytest", "-p", "tests.minutes", "-p", "no:cacheprovider", str(tmp_path)]
    said = subprocess.run([*command, f"--rootdir={tmp_path}"], cwd=ROOT, capture_output=True, text=True).stdout
    lines = said.partition("minutes of a worker")[2].splitlines()[1:4]
    assert [line.split() for line in lines] == [
        ["slow", "0.1", "2", "tests"],
        ["quick", "0.0", "1", "tests"],
        ["in", "all", "0.1", "3", "tests"],
    ]
