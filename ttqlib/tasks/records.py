"""Folders of JSON lines, one file a split, become typed columns: what their rows hold is known, or recognized."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from pathlib import Path

SLOTS, SENTENCE, PAIR = ("tokens", "slots", "intent"), ("sentence", "label"), ("sentence1", "sentence2", "label")
TEXTS = (  # the columns that usually hold texts, pairs first
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("sentence",),
    ("text",),
)
ROW_NAMES = {"id", "idx", "index", "guid", "uid"}  # no texts, even where they are strings
UNSEEN = -1  # the number of a label that does not occur in training, or is not given
SPLITS = {"validation_matched": "validation", "test_matched": "test"}  # what MNLI's are called here
SHOWN = 6  # classes in the line that says what was found

Object = tuple[str, dict]  # where it stands, for errors; what it holds


@dataclass(frozen=True)
class Contents:
    """What the rows of a task hold: words with slots and an intent, or one or two texts with a label."""

    fields: tuple[str, ...]  # as they are called here: SLOTS, SENTENCE or PAIR
    classes: tuple[str, ...] = ()  # the names of `label`, in the order of its numbers; without any it is a float
    numbers: Mapping[str | int, int] = field(default_factory=dict, kw_only=True)  # by the labels as files have them
    columns: tuple[str, ...] = field(default=(), kw_only=True)  # which hold the texts; only where that was recognized


def text_columns(columns: Iterable[str], count: int) -> tuple[str, ...] | None:
    """Those of the `columns` that hold `count` texts, by their usual names; None where there are none."""
    return next((names for names in TEXTS if len(names) == count and {*names} <= {*columns}), None)


def features(contents: Contents):
    """The types of the columns, as `datasets` wants them."""
    from datasets import ClassLabel, Features, List, Value

    if contents.fields == SLOTS:
        words = List(Value("string"))
        return Features({"tokens": words, "slots": words, "intent": Value("string")})
    label = ClassLabel(names=list(contents.classes)) if contents.classes else Value("float32")
    return Features({**dict.fromkeys(contents.fields[:-1], Value("string")), "label": label})


def read_folder(folder: Path, contents: Contents | None = None):
    """The splits in `folder`, as a `datasets.DatasetDict`, and half a line that says what they hold.

    Every `*.jsonl` is a split, one object a line. Without `contents` they are recognized from the training rows: texts
    are the one or two columns of strings, or those of a usual name; classes are the labels, sorted, where they are
    strings or whole numbers; with a fraction among them they are numbers to predict. In splits other than training a
    class that does not occur there, or no label, becomes −1, and no number NaN.

    Raises:
        FileNotFoundError: there is no `train.jsonl`.
        ValueError: a malformed line, named by file and line.
    """
    from datasets import Dataset, DatasetDict

    files = {SPLITS.get(file.stem, file.stem): file for file in sorted(folder.glob("*.jsonl"))}
    if "train" not in files:
        others = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise FileNotFoundError(f"{folder.name}/train.jsonl is missing; the folder holds {others}")
    objects = {split: list(_objects(file)) for split, file in files.items()}
    if contents is None:
        contents = _recognize(f"{folder.name}/{files['train'].name}", objects["train"])
    splits = {split: [_row(one, contents, split == "train") for one in found] for split, found in objects.items()}
    types = features(contents)
    typed = {split: Dataset.from_list(rows, features=types) for split, rows in splits.items()}
    return DatasetDict(typed), _described(contents, splits)


def _objects(file: Path) -> Iterator[Object]:
    name = f"{file.parent.name}/{file.name}"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 at byte {error.start}") from None
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut inside of strings, at U+2028
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: an object is needed, as {{...}}, got {line[:40]}")
        yield where, row


# -------------------------------------------------------------------------------------------------------- recognizing


def _recognize(file: str, objects: list[Object]) -> Contents:
    """What the rows of a training split hold, by the first of them and by all labels."""
    if not objects:
        raise ValueError(f"{file} holds no rows")
    where, first = objects[0]
    if "tokens" in first:
        return Contents(SLOTS)
    columns = _text_columns(where, first)
    labels = _labels(objects)
    classes = () if any(isinstance(label, float) for label in labels) else tuple(map(str, labels))
    numbers = {label: number for number, label in enumerate(labels)} if classes else {}
    return Contents(SENTENCE if len(columns) == 1 else PAIR, classes, numbers=numbers, columns=columns)


def _text_columns(where: str, row: dict) -> tuple[str, ...]:
    found = [name for name, value in row.items() if isinstance(value, str) and name not in {"label", *ROW_NAMES}]
    usual = text_columns(found, 2) or text_columns(found, 1)
    if usual and (len(usual) == len(found) or len(found) > 2):
        return usual
    if len(found) in (1, 2):
        return tuple(found)
    raise ValueError(
        f"{where}: one or two columns of text are needed, sentence or sentence1 and sentence2, beside label; "
        f"or tokens, slots and intent; the strings here are {', '.join(found) or 'none'}"
    )


def _labels(objects: list[Object]) -> list[str | int | float]:
    """The distinct labels of the training rows, sorted, all of them strings or all of them numbers."""
    found, kinds = set(), {str: None, int: None}
    for where, row in objects:
        label = row.get("label")
        kind = str if isinstance(label, str) else int
        if not isinstance(label, str | int | float) or isinstance(label, bool):
            raise ValueError(f"{where}: label must be a string or a number, got {label!r}")
        kinds[kind] = kinds[kind] or where
        if all(kinds.values()):
            raise ValueError(f"{where}: label {label!r}, but other rows have {next(iter(found))!r}: one kind, please")
        found.add(label)
    return sorted(found)


def _described(contents: Contents, splits: Mapping[str, list[dict]]) -> str:
    if contents.fields == SLOTS:
        what = "words with slots, and an intent"
    else:
        columns = contents.columns or contents.fields[:-1]
        classes = [*contents.classes[:SHOWN], *["…"] * (len(contents.classes) > SHOWN)]
        label = f"{len(contents.classes)} classes ({', '.join(classes)})" if classes else "numbers"
        what = f"{'a text' if len(columns) == 1 else 'pairs of texts'} ({', '.join(columns)}) with {label}"
    return f"{what}; rows: {', '.join(_counted(split, rows) for split, rows in splits.items())}"


def _counted(split: str, rows: list[dict]) -> str:
    unknown = sum(not labelled(row["label"]) for row in rows if "label" in row)
    return f"{split} {len(rows)}" + f" ({unknown} of them with no label that is known)" * (unknown > 0)


def labelled(label: float) -> bool:
    """Whether `label` is one: of a class not −1, of a number not NaN."""
    return not isnan(label) and not (isinstance(label, int) and label == UNSEEN)


# ------------------------------------------------------------------------------------------------------------ one row


def _row(one: Object, contents: Contents, training: bool) -> dict:
    """The fields of one object, checked."""
    where, row = one
    try:
        if contents.fields == SLOTS:
            return _words(row)
        columns = contents.columns or text_columns(row, len(contents.fields) - 1) or contents.fields[:-1]
        _need(row, [*columns, *["label"] * training])
        for name in columns:
            if not isinstance(row[name], str):
                raise ValueError(f"{name} must be a string, got {row[name]!r}")
        texts = dict(zip(contents.fields, (row[name] for name in columns)))
        return {**texts, "label": _label(row.get("label"), contents, training)}
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _need(row: dict, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise ValueError(f"an object with the fields {', '.join(names)} is needed, {', '.join(missing)} is missing")


def _words(row: dict) -> dict:
    _need(row, SLOTS)
    for name in ("tokens", "slots"):
        value = row[name]
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise ValueError(f"{name} must be a non-empty list of strings")
    if not isinstance(row["intent"], str):
        raise ValueError(f"intent must be a string, got {row['intent']!r}")
    if len(row["tokens"]) != len(row["slots"]):
        raise ValueError(f"{len(row['tokens'])} tokens and {len(row['slots'])} slots must be equally many")
    return {name: row[name] for name in SLOTS}


def _label(value, contents: Contents, training: bool) -> int | float:
    """The number of a class, −1 where it is unseen or not given; or the number to predict, NaN where none is given."""
    given = value is not None and (contents.columns or value != UNSEEN)  # GLUE writes −1 for labels that it keeps
    if not given and not training:
        return UNSEEN if contents.classes else nan
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not contents.classes:
        if not number or not isfinite(value):
            raise ValueError(f"label must be a finite number, got {value!r}")
        return float(value)
    if (number or isinstance(value, str)) and (value in contents.numbers or contents.columns):
        return contents.numbers.get(value, UNSEEN)
    numbers, names = f"0 … {len(contents.classes) - 1}", ", ".join(contents.classes)
    raise ValueError(f"label must be one of {numbers} or {names}, got {value!r}")
