"""Where the committed notebooks are. Assignments have tests of their own."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = sorted(NOTEBOOKS.glob("*.ipynb"))


def name_of(path: Path) -> str:
    return path.stem
