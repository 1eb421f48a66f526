"""Where the embedded data sets lie: beside the package in a checkout, inside it where a wheel was installed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED = ("flights", "reviews")
SPLITS = ("train", "validation", "test")


def embedded_folder(task: str) -> Path:
    """The folder of an embedded `task`, which holds one file of JSON lines a split.

    Raises:
        FileNotFoundError: a file is missing; the message says what to do.
    """
    if problem := next(missing_data((task,)), None):
        raise FileNotFoundError(problem)
    return _data() / task


def missing_data(tasks: Sequence[str] = EMBEDDED) -> Iterator[str]:
    """One line for every embedded task that lacks a file: which, and what to do."""
    for task in tasks:
        files = [f"{task}/{split}.jsonl" for split in SPLITS]
        if missing := [name for name in files if not (_data() / name).is_file()]:
            yield f"{', '.join(missing)} missing: install ttqlib again, or in a checkout type git checkout -- data"


def _data() -> Path:
    # a wheel carries the sets inside the package, where a checkout has none
    inside = PACKAGE / "data"
    return inside if inside.is_dir() else PACKAGE.parent / "data"
