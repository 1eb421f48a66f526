"""A model that was handed in: built once by the student's function, saved, weighed on disk, and asked from there."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from unittest import mock

from ...models.intent_slot import IntentSlotModel
from ...storage.checkpoint import load, save
from ...tasks import sources
from ...tasks.metrics import accuracy, slot_f1
from ..verdict import CheckFailed, call, fail
from .answering import Answers, answers, answers_elsewhere, tokenizer_of
from .fresh import fresh_rows

BUDGET, SECONDS = 60_000, 60.0  # of the folder, in bytes; of building it, in CPU time
COMPARED, ALIKE = 200, 0.99  # rows on which a model and the saved one must say the same, and how much of it
MODEL = "model"  # the name of the folder
Scores = dict[str, float]


# Where a function keeps what it has handed in: not in a module, for grading imports the checks anew before each test.
# The folder is weighed and scored each time, so nothing is believed but how long it took.
KEPT = "_handed_in"


@dataclass(frozen=True)
class Submission:
    """The folder of a model that was handed in. `scratch` holds it, and it goes with the student's function."""

    scratch: tempfile.TemporaryDirectory
    folder: Path
    stored_bytes: int
    seconds: float


_asked: dict[str, tuple[Scores, Scores]] = {}  # scores of a saved model, by what its rows were drawn by


def rows_given():
    """The training and the validation split of `flights`."""
    splits = sources.load_task("flights")
    del splits["test"]
    return splits


def submitted(build: Callable) -> Submission:
    """What `build` hands in. It is called once: several tests ask for the same submission.

    Raises:
        CheckFailed: it is none, with the reason.
    """
    if not isinstance(build, FunctionType):
        raise CheckFailed(f"expected a function, got {type(build).__name__}")
    if KEPT not in vars(build):
        try:
            setattr(build, KEPT, (*_handed_in(build), None))
        except CheckFailed as refused:
            setattr(build, KEPT, (None, 0.0, str(refused)))
    scratch, seconds, refused = vars(build)[KEPT]
    if refused:
        raise CheckFailed(refused)
    folder = Path(scratch.name) / MODEL
    stored = bytes_of(folder)
    if stored > BUDGET:
        fail(build, f"its folder has {stored:,} bytes, {BUDGET:,} are allowed")
    return Submission(scratch, folder, stored, seconds)


def validation_scores(build: Callable) -> Scores:
    """Scores of the saved model on the validation split."""
    rows = rows_given()
    return scored(rows["validation"], *answers(load(submitted(build).folder), rows["validation"], rows["train"]))


def fresh_scores(build: Callable, seed: int) -> tuple[Scores, Scores]:
    """Scores of the saved model, alone in a new process: on rows drawn after it was saved, and on the test split.

    The rows are drawn by the seed of the course and by the bytes of the model: nobody can have trained on them. The
    test split lies open. Who has trained on it is better there than on the drawn rows, which have its turns of phrase.
    """
    mine = submitted(build)
    drawn_by = f"{seed}/{hashlib.sha256((mine.folder / 'model.safetensors').read_bytes()).hexdigest()}"
    if drawn_by not in _asked:
        _asked[drawn_by] = _scores_elsewhere(build, mine, drawn_by)
    return _asked[drawn_by]


def _scores_elsewhere(build: Callable, mine: Submission, drawn_by: str) -> tuple[Scores, Scores]:
    given, published = rows_given(), list(sources.load_task("flights")["test"])
    rows = fresh_rows(published, drawn_by)
    known = given["validation"].select(range(COMPARED))
    try:
        there = answers_elsewhere(mine.folder, [*known, *rows, *published], Path(mine.scratch.name))
    except RuntimeError as error:
        fail(build, f"alone in a new process, the saved model fails: {error}")
    ends = (0, COMPARED, COMPARED + len(rows), None)
    parts = [tuple(side[start:end] for side in there) for start, end in pairwise(ends)]
    if not _alike(answers(load(mine.folder), known, given["train"]), parts[0]):
        fail(build, "alone in a new process, the saved model answers otherwise than in your notebook")
    return scored(rows, *parts[1]), scored(published, *parts[2])


def scored(rows, intents: list[str], slots: list[list[str]]) -> Scores:
    expected = [[row[name] for row in rows] for name in ("intent", "slots")]
    return {"intent_accuracy": accuracy(expected[0], intents), "slot_f1": slot_f1(expected[1], slots)}


def bytes_of(folder: Path) -> int:
    """What all files in a folder have together, those in folders inside of it among them."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _handed_in(build: Callable) -> tuple[tempfile.TemporaryDirectory, float]:
    """The model that `build` returns, saved, and the CPU time that it took."""
    rows = rows_given()
    began = time.process_time()
    with _no_other_rows(build):
        model = call(build, rows["train"])
    seconds = time.process_time() - began
    if type(model) is not IntentSlotModel:
        fail(build, f"expected an IntentSlotModel, got {type(model).__name__}")
    if seconds > SECONDS:
        fail(build, f"it took {seconds:.0f} s of CPU time, {SECONDS:.0f} s are allowed")
    if (words := len(tokenizer_of(rows["train"]))) != model.config.vocab_size:
        fail(build, f"expected a vocabulary of {words}, that of the tokenizer, got {model.config.vocab_size}")
    scratch = tempfile.TemporaryDirectory()
    folder = Path(scratch.name) / MODEL
    try:
        save(model, folder)
    except Exception as error:  # whatever a student has done to the model
        fail(build, f"ttq.save refuses the model: {type(error).__name__}: {' '.join(str(error).split())}")
    known = rows["validation"].select(range(COMPARED))
    if not _alike(*(answers(one, known, rows["train"]) for one in (model, load(folder)))):
        fail(build, "the model that was saved answers otherwise than the one that you return: what counts is saved")
    return scratch, seconds


def _alike(one: Answers, other: Answers) -> bool:
    """Whether two models say the same, but for what rounding may turn."""
    slots = [a == b for rows in zip(one[1], other[1], strict=True) for a, b in zip(*rows, strict=True)]
    intents = [a == b for a, b in zip(one[0], other[0], strict=True)]
    return min(sum(same) / len(same) for same in (slots, intents)) >= ALIKE


@contextmanager
def _no_other_rows(build: Callable) -> Iterator[None]:
    """While this block runs, loading a task fails the check, also where the block catches the error."""
    asked = []

    def refuse(folder, *others):
        asked.append(Path(folder).name)
        raise CheckFailed("load_task was called")

    try:
        with mock.patch.object(sources, "read_folder", refuse):
            yield
    finally:
        if asked:
            fail(build, f"it loads {asked[0]} itself: the rows that it is given are all that it may see")
