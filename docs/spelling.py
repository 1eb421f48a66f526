"""Spelling of what people read: pages, the prose of notebooks, docstrings and comments. `make lint` runs it.

codespell looks for known misspellings and asks of no right word whether it is one; a right word that it takes for a
misspelling goes into words.txt beside this file.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
WORDS = Path(__file__).with_name("words.txt")
FOLDERS = ("docs", "ttqlib", "experiments", "tests", "findings", "notebooks")
KINDS = {".md", ".py", ".cff", ".sh"}
LISTS = "clear,rare,code"  # of codespell; none that takes British spelling for wrong


def prose(folder: Path, scratch: Path) -> list[Path]:
    """The files to read; of each notebook, its text and its code without outputs."""
    files = [path for path in sorted(folder.glob("*")) if path.is_file() and path.suffix in KINDS]
    for part in FOLDERS:
        files += [path for path in sorted((folder / part).rglob("*")) if path.is_file() and path.suffix in KINDS]
    for path in sorted((folder / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            copy = scratch / f"{path.stem}.md"
            cells = nbformat.read(path, as_version=4).cells
            copy.write_text("\n\n".join(cell.source for cell in cells), encoding="utf-8")
            files.append(copy)
    return files


def misspelt(folder: Path) -> list[str]:
    """One line for each: the file, the line, the word and what it may mean."""
    with tempfile.TemporaryDirectory() as scratch:
        files = prose(folder, Path(scratch))
        command = [sys.executable, "-m", "codespell_lib", "--builtin", LISTS, "-I", str(WORDS)]
        run = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
        return [line.replace(f"{scratch}/", "").replace(f"{folder}/", "") for line in run.stdout.splitlines()]


if __name__ == "__main__":
    print(*(found := misspelt(ROOT)), sep="\n")
    sys.exit(bool(found))
