"""Answers to exercises and assignments, right and wrong, as readers write them: a check has to judge each rightly.

One module a chapter or an assignment, with `ANSWERS` by the name of the exercise or question. A source is a whole cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, and a part of the message with which it has to be refused."""

    source: str
    says: str


@dataclass(frozen=True)
class Mistake(Wrong):
    """A wrong answer to a question of an assignment, and what an instructor tells the student who gives it."""

    tell: str


@dataclass(frozen=True)
class Answers:
    """Right answers by how they are written, wrong ones by what is wrong with them."""

    right: Mapping[str, str]
    wrong: Mapping[str, Wrong]
