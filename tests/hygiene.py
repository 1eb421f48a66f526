"""What the stored form of a committed notebook must be, so that nbval re-checks it and a reader can trust it.

`problems(path)` returns one-line problems. A check is a function from a notebook to such lines; `tests/style.py` holds
those about teaching. No maintained tool does these; nbval, for one, accepts a notebook whose outputs were all cleared.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode, validator

MAX_BYTES = 1_000_000
MAX_COLUMNS = 92  # of code and of what it prints: at 900 pixels JupyterLab cuts longer lines
MIN_ALT = 20  # characters that say what a picture shows
TAGS = {"exercise", "raises-exception", "nbval-ignore-output", "nbval-skip", "skip-execution"}
SKIP = {"nbval-skip", "skip-execution"}  # both: nbclient obeys the second, nbval the first
EXCUSED = SKIP | {"nbval-ignore-output"}  # tags that keep an output from being re-checked

ANSI = re.compile(r"\x1b\[")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
VERSION = re.compile(r"\b\d+\.\d+\.\d+")
PICTURES = {"image/png", "image/jpeg", "image/gif"}
BINARY = PICTURES | {"application/pdf"}
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[\w+/=]+")
# "/two/names" not inside a word, an address or a closing tag; "X:\two\names"; a file address
ABSOLUTE = re.compile(r"(?<![\w.:/\\<>~+*)}\]-])/[A-Za-z_][\w.-]*/[\w.-]+|\b[A-Z]:\\[\w.-]+\\[\w.-]+|file:///?\w")
COMMENT_MARKER = re.compile(r"^\s*#+\s*(NBVAL_|PYTEST_VALIDATE_)", re.M)


def read(path: Path) -> NotebookNode:
    """As it lies on disk: nbformat.read would quietly repair what `is_valid` must see."""
    return nbformat.v4.reads(Path(path).read_text(encoding="utf-8"))


def cells(notebook, kind: str | None = None) -> Iterator[tuple[int, NotebookNode]]:
    """(number, cell), counted from 1 as a reader would; `kind` is "code" or "markdown"."""
    for number, cell in enumerate(notebook.cells, start=1):
        if kind in (None, cell.cell_type):
            yield number, cell


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def outputs(notebook) -> Iterator[tuple[int, NotebookNode, NotebookNode]]:
    for number, cell in cells(notebook, "code"):
        for output in cell.outputs:
            yield number, cell, output


def strings(value) -> Iterator[str]:
    """Every piece of text inside, decoded; pictures and other base64 are left out."""
    if isinstance(value, str):
        yield DATA_URI.sub("", value)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in BINARY and not (key == "data" and value.get("encoding") == "base64"):
                yield from strings(item)


def shorten(line: str) -> str:
    return " ".join(line.split())[:60]


# ---------------------------------------------------------------------------------------------------------- checks


def is_valid(notebook) -> Iterator[str]:
    for error in validator.iter_validate(notebook):
        yield f"not valid nbformat: {str(error).splitlines()[0]}"
    ids = [cell.get("id") for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        yield "not valid nbformat: two cells share an id"


def kernel_is_python3(notebook) -> Iterator[str]:
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"kernelspec is {name!r}, not 'python3'"


def was_run_in_order(notebook) -> Iterator[str]:
    expected = 1
    for number, cell in cells(notebook, "code"):
        if not cell.source.strip():
            yield f"cell {number}: empty code cell"
        elif tags(cell) >= SKIP:
            if cell.execution_count is not None or cell.outputs:
                yield f"cell {number}: skipped by every test, so it may store no count and no output"
        else:
            if cell.execution_count != expected:
                yield f"cell {number}: execution count is {cell.execution_count}, expected {expected}"
            expected += 1


def tags_are_known(notebook) -> Iterator[str]:
    for number, cell in cells(notebook):
        for tag in sorted(tags(cell) - TAGS):
            yield f"cell {number}: unknown tag {tag!r}"
        if len(tags(cell) & SKIP) == 1:
            yield f"cell {number}: 'nbval-skip' and 'skip-execution' go together"
        if COMMENT_MARKER.search(cell.source):
            yield f"cell {number}: an nbval marker in a comment; use tags, which are counted"


def exceptions_have_reasons(notebook) -> Iterator[str]:
    for number, cell in excused(notebook):
        if not str(cell.metadata.get("reason", "")).strip():
            yield f"cell {number}: {', '.join(sorted(tags(cell) & EXCUSED))} without a 'reason' in its metadata"


def exceptions_are_few(notebook) -> Iterator[str]:
    count, limit = len(excused(notebook)), max(2, len(list(cells(notebook, "code"))) // 4)
    if count > limit:
        yield f"{count} code cells are kept from nbval, at most {limit} may be"


def errors_are_expected(notebook) -> Iterator[str]:
    failing = {number for number, _, output in outputs(notebook) if output.output_type == "error"}
    for number, cell in cells(notebook, "code"):
        if number in failing and "raises-exception" not in tags(cell):
            yield f"cell {number}: an error output without the tag 'raises-exception'"
        if number not in failing and "raises-exception" in tags(cell):
            yield f"cell {number}: tagged 'raises-exception' but no error is stored"


def errors_are_one_line(notebook) -> Iterator[str]:
    for number, _, output in outputs(notebook):
        if output.output_type == "error":
            shown = "\n".join(output.traceback).strip()
            if len(shown.splitlines()) != 1:
                yield f"cell {number}: {output.ename} renders as {len(shown.splitlines())} lines, not as one"


def no_stderr(notebook) -> Iterator[str]:
    for number, _, output in outputs(notebook):
        if output.output_type == "stream" and output.name != "stdout":
            yield f"cell {number}: {output.name} output: {shorten(output.text)}"


def outputs_are_plain(notebook) -> Iterator[str]:
    for number, _, output in outputs(notebook):
        for shown in strings(output):
            if ANSI.search(shown):
                yield f"cell {number}: ANSI escape in an output"
            if match := ADDRESS.search(shown):
                yield f"cell {number}: memory address {match[0]} in an output"
            if match := VERSION.search(shown):
                yield f"cell {number}: version number {match[0]} in an output (verdicts, not versions)"


def no_absolute_path(notebook) -> Iterator[str]:
    for number, cell in cells(notebook):
        for shown in strings(cell):
            if match := ABSOLUTE.search(shown):
                yield f"cell {number}: absolute path {match[0]}"
    for shown in strings(notebook.metadata):
        if match := ABSOLUTE.search(shown):
            yield f"notebook metadata: absolute path {match[0]}"


def no_trailing_semicolon(notebook) -> Iterator[str]:
    for number, cell in cells(notebook, "code"):
        code = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if code and re.search(r";\s*(#.*)?$", code[-1]):
            yield f"cell {number}: ends in ';' (nbval fails on it; use `_ =` or plt.show())"


def lines_fit_the_page(notebook) -> Iterator[str]:
    """Code, and what is shown as text: printed lines, and the value of a cell that has no other form."""
    for number, cell in cells(notebook, "code"):
        yield from too_wide(f"cell {number}: code", cell.source)
    for number, _, output in outputs(notebook):
        if output.output_type == "stream":
            yield from too_wide(f"cell {number}: output", output.text)
        elif set(output.get("data", {})) == {"text/plain"}:
            yield from too_wide(f"cell {number}: output", output.data["text/plain"])


def too_wide(place: str, text: str) -> Iterator[str]:
    for line in text.splitlines():
        if len(line) > MAX_COLUMNS:
            yield f"{place} of {len(line)} columns, at most {MAX_COLUMNS}: {shorten(line)}"


def pictures_are_described(notebook) -> Iterator[str]:
    """Alternative text in the metadata of each picture, where the book reads it, and no two the same."""
    homes = {}
    for number, _, output in outputs(notebook):
        for kind in sorted(PICTURES & set(output.get("data", {}))):
            said = output.metadata.get(kind, {}).get("alt", "").strip()
            if len(said) < MIN_ALT:
                yield f"cell {number}: alternative text {said!r} has {len(said)} characters, at least {MIN_ALT}"
            elif said in homes:
                yield f"cell {number}: the same alternative text as in cell {homes[said]}"
            homes.setdefault(said, number)


def no_execution_times(notebook) -> Iterator[str]:
    for number, cell in cells(notebook):
        if "execution" in cell.metadata:
            yield f"cell {number}: 'execution' metadata (run with record_timing=False)"


CHECKS = [
    kernel_is_python3,
    was_run_in_order,
    tags_are_known,
    exceptions_have_reasons,
    exceptions_are_few,
    errors_are_expected,
    errors_are_one_line,
    no_stderr,
    outputs_are_plain,
    no_absolute_path,
    no_trailing_semicolon,
    lines_fit_the_page,
    pictures_are_described,
    no_execution_times,
]


def excused(notebook) -> list[tuple[int, NotebookNode]]:
    """The code cells whose output no test compares."""
    return [(number, cell) for number, cell in cells(notebook, "code") if tags(cell) & EXCUSED]


def problems(path: Path) -> list[str]:
    notebook = read(path)
    if invalid := list(is_valid(notebook)):  # the other checks rely on the form
        return [f"{path.name}: {problem}" for problem in invalid]
    found = [f"{path.name}: {problem}" for check in CHECKS for problem in check(notebook)]
    if (size := path.stat().st_size) >= MAX_BYTES:
        found.append(f"{path.name}: {size:,} bytes, the limit is {MAX_BYTES:,}")
    return found


def suite_problems(paths: Iterable[Path]) -> list[str]:
    """Over all notebooks together, at most one code cell in ten (and two in any case) may be kept from nbval."""
    notebooks = [read(path) for path in paths]
    count = sum(len(excused(notebook)) for notebook in notebooks)
    limit = max(2, sum(len(list(cells(notebook, "code"))) for notebook in notebooks) // 10)
    return [f"the suite: {count} code cells are kept from nbval, at most {limit} may be"] if count > limit else []
