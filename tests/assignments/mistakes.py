"""docs/mistakes.md, made of the assignments and of the bank of wrong answers:

    python -m tests.assignments.mistakes

What to say to a mistake stands beside it in the bank.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.assignments.running import ASSIGNMENTS, number, questions
from tests.chapters import ROOT
from tests.hygiene import read

PAGE = ROOT / "docs" / "mistakes.md"
HEAD = """# What students get wrong, and what to say

Made by `python -m tests.assignments.mistakes` from the assignments and from the wrong answers in `tests/answers`. A
test refuses each of them with the words that stand beside it. A student's message is longer: it names the function and
the case.
"""


def page() -> str:
    """The whole page as text."""
    return "\n".join([HEAD, *(line for path in ASSIGNMENTS for line in section(path))])


def section(path: Path) -> Iterator[str]:
    """One assignment: what it teaches, and a table of mistakes for each of its questions."""
    notebook, bank = read(path), import_module(f"tests.answers.{number(path)}").ANSWERS
    opening = notebook.cells[0].source
    yield f"## {opening.splitlines()[0].lstrip('# ')}\n"
    teaches = re.search(r"^\| \*\*You will learn\*\* \| (.*?) \|$", opening, re.M)[1]
    yield f"It teaches {LINK.sub(chr(92) + '1', teaches)}.\n"
    for question in questions(notebook):
        yield f"### `{question.name}`\n"
        yield "| mistake | in the message | what to say |\n|---|---|---|"
        for words, wrong in bank[question.name].wrong.items():
            yield f"| {cell(words)} | {cell(wrong.says)} | {cell(wrong.tell)} |"
        yield ""


LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
