"""docs/mistakes.md, made of the assignments and of the bank of wrong answers:

    python -m tests.assignments.mistakes

What to say to a mistake stands beside it in the bank; where nothing does, it follows from what the check said.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.answers import Wrong
from tests.assignments.running import ASSIGNMENTS, number, questions
from tests.chapters import ROOT
from tests.hygiene import read

PAGE = ROOT / "docs" / "mistakes.md"
HEAD = """# What students get wrong, and what to say

Made by `python -m tests.assignments.mistakes` from the assignments and from the wrong answers in `tests/answers`. A
test refuses each of them with the words that stand beside it. A student's message is longer: it names the function and
the case.
"""
ADVICE = (  # a part of the message → what to say, where the bank says nothing of its own
    ("write it yourself", "Which step of the question does that function do for you? That step is yours to write."),
    ("must stay as it was", "Work on a copy: `list(…)` of a list, `.clone()` of a tensor; no method that ends in `_`."),
    ("called twice", "Something outside of the function is changed by it. What is it, and what if it stood inside?"),
    (
        "more memory",
        "Write the shape beside each line. Which result grows with every step? Sum over it earlier.",
    ),
    ("expected a function", "The name now stands for something else. Where did you use it again?"),
    ("torch.float", "Do not name a dtype: `x.new_zeros(…)` and `torch.zeros_like(x)` take it from what you are given."),
    ("shape", "Compare the two shapes in the message. Which axis is too many, or at the wrong place?"),
    ("raised", "Read the last line of the error, and print the shapes just before that line."),
)
OTHERWISE = "Do the visible case on paper, and compare each step with what your code has there."


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
            yield f"| {cell(words)} | {cell(wrong.says)} | {cell(advice(wrong))} |"
        yield ""


LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def advice(wrong: Wrong) -> str:
    return wrong.tell or next((say for part, say in ADVICE if part in wrong.says), OTHERWISE)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
