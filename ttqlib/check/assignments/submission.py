"""A model that was handed in: built once by the student's function, saved, weighed on disk, and asked from there."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock
from weakref import WeakKeyDictionary

from ...models.intent_slot import IntentSlotModel
from ...storage.checkpoint import load, save
from ...tasks import sources
from ...tasks.metrics import accuracy, slot_f1
from ..verdict import CheckFailed, call, fail
from .answering import answers, answers_elsewhere, tokenizer_of
from .fresh import fresh_rows

BUDGET, SECONDS = 60_000, 60.0  # of the folder, in bytes; of building it, in CPU time
ALIKE = 0.995  # of the slots that a model names, how many the saved one must name as well
Scores = dict[str, float]


@dataclass
class Submission:
    """A model's folder, with what was measured of it. `fresh` holds scores by seed, once they were asked for."""

    scratch: tempfile.TemporaryDirectory  # gone with the submission
    folder: Path
    stored_bytes: int
    seconds: float
    validation: Scores
    fresh: dict[int, Scores] = field(default_factory=dict)


_known: WeakKeyDictionary[Callable, Submission | CheckFailed] = WeakKeyDictionary()


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
    if not callable(build):
        raise CheckFailed(f"expected a function, got {type(build).__name__}")
    if build not in _known:
        try:
            _known[build] = _submit(build)
        except CheckFailed as refused:
            _known[build] = refused
    if isinstance(found := _known[build], CheckFailed):
        raise CheckFailed(str(found))
    return found


def fresh_scores(build: Callable, seed: int) -> Scores:
    """Scores of the saved model, alone in a new process, on rows that are drawn after it was saved.

    They are drawn by the seed of the course and by the bytes of the model: nobody can have trained on them.
    """
    mine = submitted(build)
    if seed not in mine.fresh:
        digest = hashlib.sha256((mine.folder / "model.safetensors").read_bytes()).hexdigest()
        rows = fresh_rows(sources.load_task("flights")["test"], f"{seed}/{digest}")
        known = list(rows_given()["validation"])
        try:
            intents, slots = answers_elsewhere(mine.folder, rows + known, Path(mine.scratch.name))
        except RuntimeError as error:
            fail(build, f"alone in a new process, the saved model fails: {error}")
        if scored(known, intents[len(rows) :], slots[len(rows) :]) != mine.validation:
            fail(build, "alone in a new process, the saved model answers otherwise than in your notebook")
        mine.fresh[seed] = scored(rows, intents[: len(rows)], slots[: len(rows)])
    return mine.fresh[seed]


def scored(rows, intents: list[str], slots: list[list[str]]) -> Scores:
    expected = [[row[name] for row in rows] for name in ("intent", "slots")]
    return {"intent_accuracy": accuracy(expected[0], intents), "slot_f1": slot_f1(expected[1], slots)}


def bytes_of(folder: Path) -> int:
    """What all files in a folder have together, those in folders inside of it among them."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _submit(build: Callable) -> Submission:
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
    folder = Path(scratch.name) / "model"
    try:
        save(model, folder)
    except Exception as error:  # whatever a student has done to the model
        fail(build, f"ttq.save refuses the model: {type(error).__name__}: {' '.join(str(error).split())}")
    stored = bytes_of(folder)
    if stored > BUDGET:
        fail(build, f"its folder has {stored:,} bytes, {BUDGET:,} are allowed")
    here, there = (answers(one, rows["validation"], rows["train"]) for one in (model, load(folder)))
    if _share_of_equal(here[1], there[1]) < ALIKE or _share_of_equal([here[0]], [there[0]]) < ALIKE:
        fail(build, "the model that was saved answers otherwise than the one that you return: what counts is saved")
    return Submission(scratch, folder, stored, seconds, scored(rows["validation"], *there))


def _share_of_equal(one: list[list[str]], other: list[list[str]]) -> float:
    pairs = [a == b for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]
    return sum(pairs) / len(pairs)


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
