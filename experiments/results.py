"""Result files: `{"rows": [...]}`, written row by row as runs finish, each row with where it came from.

A row that is already there is not measured again, so an interrupted sweep goes on where it stopped; `force` in the
scripts replaces it. A file is replaced in one rename: readers see the old or the new one, whole.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results"
KEY = ("task", "split", "method", "rank", "bits", "settings")  # what tells one row of a file from another
MEASURED = (*KEY, "seeds", "metrics", "stored_bytes", "dense_bytes", "ratio", "paper", "plan")
ORIGIN = ("command", "commit", "versions", "machine", "seconds", "data", "data_sha256")
PACKAGES = ("torch", "transformers", "tensorly", "numpy")


def load(name: str) -> list[dict]:
    """The rows of data/results/`name`.json; none where there is no such file."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def find(rows: list[dict], **key) -> dict | None:
    """The row with these key fields, or None."""
    return next((row for row in rows if all(row[field] == key[field] for field in KEY)), None)


def record(name: str, row: dict, seconds: float, data: str | None = None, data_sha256: str | None = None) -> None:
    """Add `row`, or put it in the place of the one with the same key, and say where it came from.

    Raises:
        ValueError: a field is missing or unknown.
    """
    if set(row) != set(MEASURED):
        raise ValueError(f"a row needs exactly the fields {MEASURED}, got {tuple(row)}")
    row = {**row, **_origin(), "seconds": round(seconds, 1), "data": data, "data_sha256": data_sha256}
    rows = load(name)
    old = find(rows, **{field: row[field] for field in KEY})
    if old is None:
        rows.append(row)
    else:
        rows[rows.index(old)] = row
    RESULTS.mkdir(parents=True, exist_ok=True)
    draft = RESULTS / f".{name}.json.{os.getpid()}"
    draft.write_text(json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n")
    draft.replace(RESULTS / f"{name}.json")


def _origin() -> dict:
    script = Path(sys.argv[0])
    return {
        "command": " ".join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
    }


def _commit() -> str:
    git = ["git", "-C", str(RESULTS.parent.parent)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout
    code = ["ttqlib", "experiments"]
    dirty = subprocess.run([*git, "status", "--porcelain", *code], capture_output=True, text=True, check=True).stdout
    return head.strip() + ("+changes" if dirty else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
