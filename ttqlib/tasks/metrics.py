"""How right answers are: the metrics that the papers report, all in percent."""

import re
from collections.abc import Sequence
from functools import partial
from numbers import Real

from .encoding import IntentSlotCollator, predict_intent_slots
from .records import labelled
from .sources import TASKS

SPAN = re.compile("[BIES]-.")  # how a slot label begins where it says what part of a span a word is


def accuracy(expected: Sequence, predicted: Sequence) -> float:
    """The share of equal pairs of two sequences of N labels each, in percent.

    Labels, numbers or strings, are compared as they are, so one that is unseen in training is always an error.

    Raises:
        ValueError: sequences of different lengths, or empty ones.

    >>> ttq.accuracy(["good", "bad", "good", "bad"], ["good", "bad", "bad", "bad"])
    75.0
    """
    if len(expected) != len(predicted) or not len(expected):
        raise ValueError(f"need as many predictions as labels, at least one; got {len(predicted)} and {len(expected)}")
    if any(getattr(labels, "ndim", 1) != 1 for labels in (expected, predicted)):
        raise ValueError("labels and predictions must have one axis: flatten them, or take an argmax, first")
    return float(100 * sum(bool(e == p) for e, p in zip(expected, predicted)) / len(expected))


def score(task: str, expected: Sequence, predicted: Sequence) -> dict[str, float]:
    """What GLUE reports of a task: accuracy, F1, Matthews' correlation, Pearson's and Spearman's, in percent, by name.

    `expected` and `predicted` are N labels each: classes as numbers or names, for `stsb` numbers. F1 is that of class
    1, as `mrpc` and `qqp` want it. A correlation with answers that are all the same is 0. A task of your own with
    numbers to predict may be scored as "stsb".

    Raises:
        ValueError: an unknown task, or one of slots; a row without a label, as in GLUE's test splits; a name that is
            no class; sequences of different lengths, or empty ones.
    """
    known = TASKS.get(task)
    if known is None or not known.metrics:
        scored = ", ".join(name for name, one in TASKS.items() if one.metrics)
        raise ValueError(
            f"task must be one of {scored}, got {task!r}; ttq.score_intent_slots scores slots, ttq.accuracy classes "
            "of your own"
        )
    numbers = [[_number(label, known.classes) for label in labels] for labels in (expected, predicted)]
    secret = next((row for row, label in enumerate(numbers[0]) if not labelled(label)), None)
    if secret is not None:
        raise ValueError(f"row {secret} has no label, as in GLUE's test splits: score on validation")
    accuracy(*numbers)  # refuses what cannot be compared
    return {name: METRICS[name](*numbers) for name in known.metrics}


def slot_f1(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str | None]]) -> float:
    """Micro-averaged F1 of slot spans, in percent, by `seqeval` as conlleval counts them.

    `expected` and `predicted` are N rows of a label for each word: O, B-name or I-name (IOB; E- and S- are understood
    too). Where no label has such a beginning, neighbours of the same label are one span. A word whose label is None,
    because the model has not seen it, counts as O: a span that it belongs to is missed.

    Raises:
        ValueError: another number of rows, or of labels in a row, which is named; labels with a beginning and without.

    >>> ttq.slot_f1([["O", "B-city", "I-city"]], [["O", "B-city", "O"]])  # half of a name is no name
    0.0
    """
    from seqeval.metrics import f1_score

    if len(expected) != len(predicted) or not len(expected):
        raise ValueError(
            f"need as many rows of predictions as of labels, at least one; got {len(predicted)} and {len(expected)}"
        )
    for row, (labels, answers) in enumerate(zip(expected, predicted)):
        if len(labels) != len(answers):
            raise ValueError(
                f"row {row} has {len(labels)} labels but {len(answers)} predictions: give one a word, None for a word "
                "that was cut off"
            )
    rows = [[["O" if label is None else label for label in row] for row in rows] for rows in (expected, predicted)]
    slots = {label for side in rows for row in side for label in row} - {"O"}
    spans = {label for label in slots if SPAN.match(label)}
    if spans and spans != slots:
        raise ValueError(
            "slot labels other than O must all begin with B- or I-, or none of them, got "
            f"{min(slots - spans)!r} beside {min(spans)!r}"
        )
    if not spans:  # seqeval would drop the first letter of each
        rows = [[_iob(row) for row in side] for side in rows]
    return 100 * float(f1_score(*rows, zero_division=0))


def score_intent_slots(model, rows, encoded, collate: IntentSlotCollator) -> dict[str, float]:
    """`intent_accuracy` and `slot_f1` of an `IntentSlotModel` on N rows, in percent, on the original strings.

    `encoded` are the same rows, in the same order, as `encode` made them. Spans in words that were cut off there, or
    that the tokenizer drops, are missed: raise `max_length` of `encode` if they should not be. The model is left in
    eval mode.

    Raises:
        ValueError: `encoded` are other rows, there are none, or slot labels are as `slot_f1` refuses them.
    """
    intents, slots = predict_intent_slots(model, encoded, collate)
    return {"intent_accuracy": accuracy(rows["intent"], intents), "slot_f1": slot_f1(rows["slots"], slots)}


def _iob(labels: Sequence[str]) -> list[str]:
    """Labels without a beginning, with one: B- where a run of the same label starts, I- inside of it."""
    before = ["O", *labels]
    return [
        label if label == "O" else f"{'I' if label == last else 'B'}-{label}" for last, label in zip(before, labels)
    ]


def _number(label, classes: tuple[str, ...]) -> int | float:
    if isinstance(label, str):
        if label not in classes:
            raise ValueError(f"labels must be numbers or {', '.join(classes)}, got {label!r}")
        return classes.index(label)
    number = getattr(label, "item", lambda: label)()  # of NumPy's or torch's numbers
    if not isinstance(number, Real) or (classes and labelled(number) and number not in range(len(classes))):
        raise ValueError(f"labels must be numbers{f' below {len(classes)}' if classes else ''}, got {label!r}")
    return number


def _of_classes(name: str, expected: list, predicted: list, **options) -> float:
    from sklearn import metrics

    return 100 * float(getattr(metrics, name)(expected, predicted, **options))


def _correlation(name: str, expected: list, predicted: list) -> float:
    from scipy import stats

    if len({*expected}) == 1 or len({*predicted}) == 1:
        return 0.0  # not defined; as Matthews' is
    return 100 * float(getattr(stats, name)(expected, predicted).statistic)


METRICS = {
    "accuracy": accuracy,
    "f1": partial(_of_classes, "f1_score", zero_division=0),
    "matthews_correlation": partial(_of_classes, "matthews_corrcoef"),
    "pearson": partial(_correlation, "pearsonr"),
    "spearman": partial(_correlation, "spearmanr"),
}
