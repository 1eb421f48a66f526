"""A wheel is all that `pip install .` needs: without the checkout the library loads its embedded data."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.chapters import ROOT

SPLITS = [f"{task}/{split}.jsonl" for task in ("flights", "reviews") for split in ("train", "validation", "test")]
LOAD = """
import ttqlib as ttq
from ttqlib import environment
sizes = {task: {split: len(rows) for split, rows in ttq.load_task(task).items()} for task in ("flights", "reviews")}
print(ttq.__file__, sizes, environment.setup_problems()["data"], sep="\\n")
"""


def build(source: Path, folder: Path, *kinds: str) -> None:
    """As pip does it, with what is installed here: nothing is fetched."""
    options = [option for kind in kinds for option in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder, "sdist", "wheel")
    return folder


def in_wheel(folder: Path) -> dict[str, bytes]:
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/RECORD")}


def tracked() -> set[str]:
    """What git holds; nothing where the suite came without it."""
    if not (ROOT / ".git").exists():
        return set()
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    return {name for name in names.split("\0") if name and (ROOT / name).is_file()}


def test_a_wheel_holds_the_library_and_its_data(built):
    files = in_wheel(built)
    kinds = (".py", ".js", ".css")  # modules, and what the page of an explorer runs and wears
    found = (path for path in (ROOT / "ttqlib").rglob("*") if path.suffix in kinds)
    modules = {path.relative_to(ROOT).as_posix() for path in found}
    data = {f"ttqlib/data/{name}": (ROOT / "data" / name).read_bytes() for name in SPLITS}
    assert {name for name in files if ".dist-info/" not in name} == modules | data.keys()
    assert {name: files[name] for name in data} == data
    assert sum(map(len, files.values())) < 6_000_000


def test_the_source_distribution_is_the_suite_and_gives_the_same_wheel(built, tmp_path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as source:
        source.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # not before 3.11.4
    (unpacked,) = tmp_path.iterdir()
    for name in ("Makefile", "requirements.lock", "notebooks/00_start_here.ipynb", "data/small_teacher/config.json"):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert held >= tracked() and len(held) < 1000  # no environment that lies in the checkout
    build(unpacked, tmp_path / "again", "wheel")
    assert in_wheel(tmp_path / "again") == in_wheel(built)


def test_without_the_checkout_the_data_are_found(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    ZipFile(wheel).extractall(tmp_path / "site")
    clean = {name: value for name, value in os.environ.items() if name not in ("TTQ_DATA", "PYTHONPATH")}
    environment = clean | {"PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    *_, where, sizes, missing = run.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path) and missing == "[]"
    assert sizes == str(
        {
            "flights": {"test": 900, "train": 4500, "validation": 500},
            "reviews": {"test": 1000, "train": 10000, "validation": 800},
        }
    )
