"""Files of results: `{"rows": [...]}`, written row by row as runs finish, each row with where it came from.

A row takes the place of the one with the same key, and no other: other seeds, another plan or fewer training rows make
another row. Processes that write to one file wait for each other, and a file is replaced in one rename: readers see
the old or the new one, whole. A reader's own rows go to runs/; only --record writes to data/results/, which git tracks.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
RESULTS, RUNS = ROOT / "data" / "results", ROOT / "runs"
KEY = ("task", "split", "method", "rank", "bits", "settings", "seeds", "plan")  # what tells one row from another
MEASURED = (*KEY, "metrics", "stored_bytes", "dense_bytes", "ratio", "paper")
TOLD = {"texts"}  # what a row may have besides
ORIGIN = ("command", "commit", "versions", "machine", "seconds", "data", "data_sha256")
PACKAGES = ("torch", "transformers", "tensorly", "numpy")


def add_options(parser: argparse.ArgumentParser, name: str, kept_with: str | None = None) -> None:
    """--runs and --record, for the script that measures `name`, whose runs may lie beside those of another one."""
    kept = f"of what is kept, with {name}'s rows in results.json"
    parser.add_argument("--runs", type=Path, default=RUNS / (kept_with or name), help=kept, metavar="FOLDER")
    tracked = f"write rows to data/results/{name}.json, which git tracks, and not to the folder of --runs"
    parser.add_argument("--record", action=argparse.BooleanOptionalAction, default=False, help=tracked)


def check_runs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse a folder of --runs that cannot be written to, before anything is trained or measured; none is made."""
    there = next(path for path in (options.runs, *options.runs.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        parser.error(f"--runs must be a folder to write to, which {there} is not")


def place(name: str, options: argparse.Namespace) -> Path:
    """The file that rows of `name` go to, as `add_options` had it chosen."""
    return RESULTS / f"{name}.json" if options.record else options.runs / "results.json"


def load(name: str) -> list[dict]:
    """The rows of data/results/`name`.json; none where there is no such file."""
    return read(RESULTS / f"{name}.json")


def read(path: Path) -> list[dict]:
    """The rows of a file; none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def key(row: dict) -> str:
    """What tells a row from another. Settings that are None say nothing; of a plan its layers and its rest count."""
    settings, plan = ({**(row[field] or {})} for field in ("settings", "plan"))
    said = {name: value for name, value in settings.items() if value is not None}
    layers = [plan.get("layers", {}), plan.get("rest", 32)]
    return json.dumps({field: row[field] for field in KEY} | {"settings": said, "plan": layers}, sort_keys=True)


def record(
    path: Path,
    row: dict,
    seconds: float,
    data: str | None = None,
    data_sha256: str | None = None,
    made: Mapping | None = None,
) -> None:
    """Add `row` to a file, or put it in the place of the one with the same key, and say where it came from.

    `made`, an earlier `origin()`: where and with what the model was made, if not here and now.

    Raises:
        ValueError: a field is missing or unknown.
    """
    if set(row) - TOLD != set(MEASURED):
        raise ValueError(f"a row needs exactly the fields {MEASURED}, got {tuple(row)}")
    script = Path(sys.argv[0])
    command = shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    row = {**row, "command": command, **(made or origin()), "seconds": round(seconds, 1)}
    row |= {"data": data, "data_sha256": data_sha256}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        rows = read(path)
        places = [number for number, old in enumerate(rows) if key(old) == key(row)] or [len(rows)]
        rows[places[0] : places[0] + 1] = [row]
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)


def row_of(
    figures: Mapping[str, Sequence[float]],
    rank: int | None,
    bits: int,
    seeds: Sequence[int],
    stored_bytes: int,
    dense_bytes: int,
    plan: dict | None = None,
) -> dict:
    """What is measured in a row, from figures that have an entry for each seed, or one that stands for all."""
    metrics = {name: summary(values) for name, values in figures.items()}
    sizes = {"stored_bytes": stored_bytes, "dense_bytes": dense_bytes, "ratio": round(dense_bytes / stored_bytes, 2)}
    return {"rank": rank, "bits": bits, "seeds": list(seeds), "metrics": metrics, "paper": None, "plan": plan, **sizes}


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Their mean and, where there are several, their standard deviation."""
    return {"mean": round(statistics.mean(values), 3), "sd": round(statistics.stdev(values), 3) if values[1:] else None}


def fingerprint(splits: Mapping) -> str:
    """The SHA-256 of all rows of all splits, in order."""
    rows = (
        json.dumps([name, row], sort_keys=True, ensure_ascii=False) for name in sorted(splits) for row in splits[name]
    )
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def origin() -> dict:
    """The code, the packages and the machine of this process, as a row tells them."""
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "machine": f"{_processor()}, {_cores()} cores{_accelerator()}",
    }


def _commit() -> str:
    """The commit that the code is of; a copy without git has none."""
    dirty = _git("status", "--porcelain", "ttqlib", "experiments")
    return (_git("rev-parse", "--short=12", "HEAD") or "no commit") + ("+changes" if dirty else "")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cores() -> int:
    """How many cores this process may use; macOS tells how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _accelerator() -> str:
    torch = sys.modules.get("torch")  # a process that only reads rows does without it, and then has trained nothing
    return f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
