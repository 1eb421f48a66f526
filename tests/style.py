"""What makes a notebook a chapter: its opening, its length of cells, its prose, its exercises, its links.

`problems(path)` returns one-line problems of one chapter, `suite_problems(paths)` those of all chapters together.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.hygiene import cells, is_valid, outputs, read, tags

MAX_LINES = 25
MIN_WORDS = 25  # of prose, for each code cell
MAX_CLASS_CELLS = 2
MIN_EXERCISES = 2
OPENING_ROWS = ("You will be able to", "You need", "It runs in", "Before / after")
SECTIONS = ("Explore", "Exercises", "Recap")

# Chapters that others already link to and nobody has written yet. Take a name out when its notebook arrives.
PLANNED: set[str] = set()

FENCE = re.compile(r"^```.*?^```", re.M | re.S)
FOLD = re.compile(r"<details>\s*<summary>\s*(Hint|Solution)\b.*?</summary>(.*?)</details>", re.S)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:src|href)=[\"']([^\"']+)")
WIDGET = "application/vnd.jupyter.widget-view+json"


class Exercise(NamedTuple):
    """Positions in `notebook.cells` of an exercise and its check, and the code of its folded solution."""

    cell: int
    check: int | None
    folds: dict[str, str]  # "Hint", "Solution" -> their text

    @property
    def solutions(self) -> list[str]:
        return PYTHON_BLOCK.findall(self.folds.get("Solution", ""))


def exercises(notebook) -> list[Exercise]:
    found = []
    for index, cell in enumerate(notebook.cells):
        if "exercise" in tags(cell):
            check, fold = [*notebook.cells[index + 1 : index + 3], None, None][:2]
            has_check = check is not None and check.cell_type == "code" and "ttq.check." in check.source
            has_fold = fold is not None and fold.cell_type == "markdown"
            folds = dict(FOLD.findall(fold.source)) if has_fold else {}
            found.append(Exercise(index, index + 1 if has_check else None, folds))
    return found


def prose(notebook) -> str:
    """All markdown, without its blocks of code."""
    return FENCE.sub("", "\n\n".join(cell.source for _, cell in cells(notebook, "markdown")))


def section(notebook, name: str) -> list[tuple[int, dict]]:
    """The cells from the heading `## name` up to the next heading of that level."""
    found, inside = [], False
    for number, cell in cells(notebook):
        if cell.cell_type == "markdown" and (heading := re.search(r"^## (.+)$", cell.source, re.M)):
            inside = heading[1].startswith(name)
        if inside:
            found.append((number, cell))
    return found


def definitions(source: str) -> list[ast.AST]:
    """The functions and classes defined at the top of a cell; a cell with magics defines nothing."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    return [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


# ---------------------------------------------------------------------------------------------------------- checks


def has_opening(notebook, path) -> Iterator[str]:
    first = notebook.cells[0]
    opening = first.source if first.cell_type == "markdown" else ""
    title = re.match(r"# (\d+) · \S", opening)
    if not title or int(title[1]) != int(path.stem[:2]):
        yield f"does not open with '# {int(path.stem[:2])} · Title'"
    for row in OPENING_ROWS:
        if not re.search(rf"^\| \*\*{row}\*\* \| *[^| ]", opening, re.M):
            yield f"the opening table has no row '{row}'"


def has_sections(notebook, path) -> Iterator[str]:
    for name in SECTIONS:
        if not section(notebook, name):
            yield f"no section '## {name}'"


def cells_are_short(notebook, path) -> Iterator[str]:
    for number, cell in cells(notebook, "code"):
        lines = len(cell.source.splitlines())
        if lines > MAX_LINES:
            yield f"cell {number}: {lines} lines of code, at most {MAX_LINES}"


def prose_outweighs_code(notebook, path) -> Iterator[str]:
    words, code = len(prose(notebook).split()), len(list(cells(notebook, "code")))
    if words < MIN_WORDS * code:
        yield f"{words} words of prose for {code} code cells, at least {MIN_WORDS} each"


def classes_are_few(notebook, path) -> Iterator[str]:
    defining = [
        number
        for number, cell in cells(notebook, "code")
        if any(isinstance(node, ast.ClassDef) for node in definitions(cell.source))
    ]
    if len(defining) > MAX_CLASS_CELLS:
        yield f"{len(defining)} cells define classes, at most {MAX_CLASS_CELLS}: should the library hold them?"


def has_picture(notebook, path) -> Iterator[str]:
    if not any("image/png" in output.get("data", {}) for _, _, output in outputs(notebook)):
        yield "not one picture"


def has_explorer(notebook, path) -> Iterator[str]:
    """The widget, and under it a picture that stands still for those who read without a kernel."""
    shown = [output.get("data", {}) for _, cell in section(notebook, "Explore") for output in cell.get("outputs", [])]
    widgets = [index for index, data in enumerate(shown) if WIDGET in data]
    if not widgets:
        yield "no widget under '## Explore'"
    elif not any("image/png" in data for data in shown[widgets[0] :]):
        yield "no still picture under the widget"


def has_exercises(notebook, path) -> Iterator[str]:
    found = exercises(notebook)
    if len(found) < MIN_EXERCISES:
        yield f"{len(found)} exercises, at least {MIN_EXERCISES}"
    for exercise in found:
        for problem in exercise_problems(notebook, exercise):
            yield f"exercise in cell {exercise.cell + 1}: {problem}"


def exercise_problems(notebook, exercise) -> Iterator[str]:
    before = notebook.cells[exercise.cell - 1]
    if before.cell_type != "markdown" or not re.search(r"[●○]{5}, \d+ minutes", before.source):
        yield "the text before it gives no rating and time, as in '(●●○○○, 10 minutes)'"
    if exercise.check is None:
        yield "no check cell that calls ttq.check follows it"
    else:
        check = notebook.cells[exercise.check]
        errors = [output for output in check.outputs if output.output_type == "error"]
        if "raises-exception" not in tags(check):
            yield "its check cell has no tag 'raises-exception'"
        if not any(error.ename == "CheckFailed" and "not written yet" in error.evalue for error in errors):
            yield "its check does not store a CheckFailed that says 'not written yet'"
    for fold in ("Hint", "Solution"):
        if not exercise.folds.get(fold, "").strip():
            yield f"no folded {fold.lower()} after its check"
    if "Solution" in exercise.folds and len(exercise.solutions) != 1:
        yield f"its solution holds {len(exercise.solutions)} ```python blocks, not one"


def links_resolve(notebook, path) -> Iterator[str]:
    for number, cell in cells(notebook, "markdown"):
        for pair in LINK.findall(FENCE.sub("", cell.source)):
            target = (pair[0] or pair[1]).split("#")[0]
            if not target or re.match(r"[a-z][a-z+.-]*:", target) or target in PLANNED:
                continue
            if not (path.parent / target).exists():
                yield f"cell {number}: the link to {target} leads nowhere"


CHECKS = [
    has_opening,
    has_sections,
    cells_are_short,
    prose_outweighs_code,
    classes_are_few,
    has_picture,
    has_explorer,
    has_exercises,
    links_resolve,
]


def problems(path: Path) -> list[str]:
    notebook = read(path)
    if any(is_valid(notebook)):  # hygiene reports it
        return []
    return [f"{path.name}: {problem}" for check in CHECKS for problem in check(notebook, path)]


# ------------------------------------------------------------------------------------------------------- the suite


def defined_twice(paths: Iterable[Path]) -> Iterator[str]:
    """A helper that two chapters define belongs in the library. Exercises may share a name."""
    homes = defaultdict(list)
    for path in paths:
        for _, cell in cells(read(path), "code"):
            if "exercise" not in tags(cell):
                for node in definitions(cell.source):
                    homes[node.name].append(path.name)
    for name, files in sorted(homes.items()):
        if len(set(files)) > 1:
            yield f"{name} is defined in {' and '.join(sorted(set(files)))}"


def planned_is_current(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        if path.name in PLANNED:
            yield f"{path.name} exists, so it is no longer PLANNED"


def numbered_in_order(paths: Iterable[Path]) -> Iterator[str]:
    for number, path in enumerate(sorted(paths)):
        if not re.fullmatch(rf"{number:02}_[a-z0-9_]+\.ipynb", path.name):
            yield f"{path.name} should be called {number:02}_name.ipynb: chapters count up from 00"


SUITE_CHECKS = [defined_twice, planned_is_current, numbered_in_order]


def suite_problems(paths: Iterable[Path]) -> list[str]:
    paths = list(paths)
    return [f"the suite: {problem}" for check in SUITE_CHECKS for problem in check(paths)]
