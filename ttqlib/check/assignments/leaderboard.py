"""The leaderboard of assignment 5, from graded notebooks: python -m ttqlib.check.assignments.leaderboard autograded

In a graded notebook the last hidden tests have printed a line for it. Nothing is asked of the models again.
"""

import json
import sys
from pathlib import Path

MARK = "leaderboard "
COLUMNS = {"slot_f1": "slot F1, %", "intent_accuracy": "intents, %", "stored_bytes": "bytes", "seconds": "CPU seconds"}
COLUMNS |= {"better_on_test": "better on the published test rows by"}


def leaderboard(folder: Path) -> str:
    """A table in Markdown of all submissions below `folder`, which has a folder for each student: the best slots first.

    Raises:
        ValueError: no notebook in it has been graded with hidden tests.
    """
    found = {}
    for path in sorted(folder.glob("*/*/*.ipynb")):
        if line := _line(path):
            found[path.relative_to(folder).parts[0]] = line
    if not found:
        raise ValueError(f"no graded assignment 5 in {folder.name}: give the folder that autograde writes to")
    ranked = sorted(found.items(), key=lambda item: (-item[1]["slot_f1"], item[1]["stored_bytes"]))
    lines = [f"| | student | {' | '.join(COLUMNS.values())} |", "|--:|---|" + "--:|" * len(COLUMNS)]
    for place, (student, line) in enumerate(ranked, 1):
        lines.append(f"| {place} | {student} | {' | '.join(f'{line[name]:,}' for name in COLUMNS)} |")
    return "\n".join(lines)


def _line(path: Path) -> dict | None:
    """What the last of the lines in the outputs of a notebook says."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(output.get("text", ())) for cell in cells for output in cell.get("outputs", ())]
    lines = [line for text in texts for line in text.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK)) if lines else None


if __name__ == "__main__":
    print(leaderboard(Path(sys.argv[1])))
