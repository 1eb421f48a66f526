"""Tasks and where their data come from: the folder that TTQ_DATA names, any other folder, the Hugging Face hub.

`flights` and `reviews` are embedded and need none of these.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import nan
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from .embedded import embedded_folder
from .records import PAIR, SENTENCE, SLOTS, SPLITS, UNSEEN, Contents, features, read_folder, text_columns

HUB_SECONDS = 2.0  # how long to wait for the hub before deciding that there is no network


@dataclass(frozen=True)
class Task(Contents):
    """What the rows of a known task hold, where the hub keeps them, and by what its answers are scored."""

    hub: tuple[str, ...] = ()  # the arguments of datasets.load_dataset
    metrics: tuple[str, ...] = ("accuracy",)  # what `score` computes
    stand_in: str | None = None

    def __post_init__(self):
        """Labels are written as numbers from 0, or by the names in `classes`."""
        numbers = {label: number for number, name in enumerate(self.classes) for label in (number, name)}
        object.__setattr__(self, "numbers", numbers)  # how a frozen dataclass sets its own fields


GLUE = "nyu-mll/glue"
TASKS = {
    "flights": Task(SLOTS, metrics=()),
    "reviews": Task(SENTENCE, ("negative", "positive")),
    "atis": Task(SLOTS, hub=("tuetschek/atis",), metrics=(), stand_in="flights"),
    "sst2": Task(SENTENCE, ("negative", "positive"), (GLUE, "sst2"), stand_in="reviews"),
    "rte": Task(PAIR, ("entailment", "not_entailment"), (GLUE, "rte")),
    "mrpc": Task(PAIR, ("not_equivalent", "equivalent"), (GLUE, "mrpc"), ("accuracy", "f1")),
    "qnli": Task(PAIR, ("entailment", "not_entailment"), (GLUE, "qnli")),
    "mnli": Task(PAIR, ("entailment", "neutral", "contradiction"), (GLUE, "mnli")),
    "cola": Task(SENTENCE, ("unacceptable", "acceptable"), (GLUE, "cola"), ("matthews_correlation",)),
    "qqp": Task(PAIR, ("not_duplicate", "duplicate"), (GLUE, "qqp"), ("accuracy", "f1")),
    "stsb": Task(PAIR, (), (GLUE, "stsb"), ("pearson", "spearman")),
    "wnli": Task(PAIR, ("not_entailment", "entailment"), (GLUE, "wnli")),
}


def load_task(name: str | os.PathLike, stand_in: bool = False):
    """The splits of a task, as a `datasets.DatasetDict`, after one line that says where they came from.

    `name` is one of `TASKS`, or a folder of your own with one JSON-lines file a split, `train.jsonl` among them: the
    name of one in the folder that TTQ_DATA names, or a path. What its rows hold is recognized: tokens, slots, intent;
    or one or two texts and a `label`, which is a class (strings, whole numbers) or a number to predict. The line says
    what was found.

    A known task is looked for in this order: the data embedded in the repository (`flights`, `reviews` only); the
    folder `$TTQ_DATA/<name>`; the Hugging Face hub; without a network, or where the hub is switched off, what
    `datasets` has kept from it, within seconds. `stand_in=True` allows the embedded task of the same kind in place of
    one that cannot be had.

    Fields: `tokens`, `slots`, `intent`, all strings, for `flights` and `atis`; for the others `sentence`, or
    `sentence1` and `sentence2`, whatever a source calls them, and `label`, a `ClassLabel` (−1: unseen in training, or
    secret, as in GLUE's test splits) or, as `stsb`'s, a float (NaN: secret). The matched splits of `mnli` are
    `validation` and `test`, the others `validation_mismatched` and `test_mismatched`.

    Raises:
        ValueError: an unknown name, or a malformed line, named by file and line.
        FileNotFoundError: the task or the folder cannot be had; the message says what to do.
    """
    if isinstance(name, str) and name in TASKS:
        return _known_task(name, TASKS[name], stand_in)
    return _own_folder(name)


def _known_task(name: str, task: Task, stand_in: bool):
    """The splits of one of `TASKS`, from where they are found first, after a line that says where that is."""
    root = os.environ.get("TTQ_DATA")
    if not task.hub:
        folder, place = embedded_folder(name), "embedded in this repository"
    elif root and (Path(root) / name).is_dir():
        folder, place = Path(root) / name, "from the folder that TTQ_DATA names"
    else:
        return _fetched(name, task, stand_in)
    print(f"{name}: {place}")
    return read_folder(folder, task)[0]


def _fetched(name: str, task: Task, stand_in: bool):
    """The splits of a task that no folder holds: from the hub, or the embedded task that may stand in for it."""
    try:
        splits, place = _from_hub(task)
    except (OSError, ValueError) as error:
        if stand_in and task.stand_in:
            other = f"{task.stand_in}, an embedded task of the same kind, stands in for it"
            print(f"{name} cannot be had here, {error}; {other}")
            return read_folder(embedded_folder(task.stand_in), TASKS[task.stand_in])[0]
        advice = f"set TTQ_DATA to a folder that holds {name}/train.jsonl and its other splits"
        if task.stand_in:
            advice += f"; load_task({name!r}, stand_in=True) takes {task.stand_in} instead"
        raise FileNotFoundError(f"{name} cannot be had, {error}; {advice}") from error
    print(f"{name}: {place}")
    return splits


def _own_folder(name: str | os.PathLike):
    """The splits in a folder of a user's own, after a line that says what was found."""
    root = os.environ.get("TTQ_DATA")
    places = {Path(os.path.abspath(name)): f"the folder {os.fspath(name)}"}
    if root and not Path(name).is_absolute():
        places = {Path(root) / name: "the folder that TTQ_DATA names"} | places
    folder = next((folder for folder in places if folder.is_dir()), None)
    if folder is None:
        raise ValueError(
            f"name must be one of {', '.join(TASKS)}, or a folder of your own in the one that TTQ_DATA names, or its "
            f"path, got {os.fspath(name)!r}"
        )
    splits, found = read_folder(folder)
    print(f"{folder.name}: from {places[folder]}, {found}")
    return splits


# ------------------------------------------------------------------------------------------------------------ the hub


def reach_hub() -> None:
    """Return at once or within seconds where the Hugging Face hub can be asked.

    Raises:
        OSError: the hub is switched off (HF_HUB_OFFLINE), or there is no network.
    """
    import huggingface_hub.constants

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise OSError("the hub is switched off (HF_HUB_OFFLINE is set)")
    if getproxies():  # behind a proxy a direct connection says nothing
        return
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:  # without this probe the libraries would go on trying for half a minute
        socket.create_connection((hub.hostname, hub.port or 443), timeout=HUB_SECONDS).close()
    except OSError as error:
        raise OSError(f"the hub cannot be reached ({error})") from error


def _from_hub(task: Task):
    """The task in our fields, and the words for where it came from: the hub, or what was kept of it.

    Raises:
        OSError: it cannot be had from either; the message says why.
        ValueError: its columns or its classes are not the ones expected.
    """
    import datasets

    no_hub = _why_no_hub()
    try:
        with _offline() if no_hub else nullcontext():
            splits = datasets.load_dataset(*task.hub)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        why = f"{no_hub} and datasets has kept nothing of it" if no_hub else f"the hub was reached, but: {error}"
        raise OSError(" ".join(why.split())) from error
    ours = {SPLITS.get(name, name): _in_our_fields(rows, task) for name, rows in splits.items()}
    return datasets.DatasetDict(ours), f"{'kept ' if no_hub else ''}from the Hugging Face hub"


def _in_our_fields(rows, task: Task):
    """One split of the hub's, its columns renamed and typed."""
    types = features(task)
    if task.fields == SLOTS:
        _need_columns(rows, ("text", "slots", "intent"))
        rows = rows.map(lambda row: {"tokens": row["text"].split(), "slots": row["slots"].split()})
        return rows.select_columns(list(SLOTS)).cast(types)
    texts = text_columns(rows.column_names, len(task.fields) - 1) or task.fields[:-1]
    _need_columns(rows, (*texts, "label"))
    classes = getattr(rows.features["label"], "names", list(task.classes))
    if classes != list(task.classes):  # a cast would keep the numbers and call them something else
        raise ValueError(f"on the hub its classes are {', '.join(classes)}, where {', '.join(task.classes)} are needed")
    rows = rows.select_columns([*texts, "label"]).rename_columns(dict(zip(texts, task.fields)))
    if not task.classes:
        rows = rows.map(lambda row: {"label": nan if row["label"] == UNSEEN else row["label"]})
    return rows.cast(types)


def _need_columns(rows, names: tuple[str, ...]) -> None:
    if not {*names} <= {*rows.column_names}:
        found = ", ".join(rows.column_names)
        raise ValueError(f"on the hub it has the columns {found}, where {', '.join(names)} are needed")


def _why_no_hub() -> str | None:
    """Why the hub cannot be asked, or None."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        return "the hub is switched off (HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set)"
    try:
        reach_hub()
    except OSError as error:
        return str(error)
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` asks only what it has kept, at once; the setting has a copy in each of the two libraries."""
    import datasets
    import huggingface_hub.constants

    places = huggingface_hub.constants, datasets.config
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before):
            place.HF_HUB_OFFLINE = value
