"""Metrics: errors are counted as errors, and as GLUE counts them."""

import math
import warnings

import numpy as np
import pytest
import torch

import ttqlib as ttq
from tests.cases import refused
from ttqlib.tasks import metrics
from ttqlib.tasks import sources as tasks


def test_an_unseen_label_is_an_error():
    assert ttq.accuracy(["flight", "fare"], ["flight", "flight"]) == 50
    assert ttq.slot_f1([["B-stop"], ["B-toloc"]], [["B-toloc"], ["B-toloc"]]) == 50


def test_accuracy_of_tensors_and_arrays_is_a_float():
    for kind in (torch.tensor, np.array):
        assert type(found := ttq.accuracy(kind([1, 0]), kind([1, 1]))) is float and found == 50
        with refused(ValueError, "must have one axis"):
            ttq.accuracy(kind([[1, 0]]), kind([[1, 1]]))


@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2])])
def test_accuracy_refuses_what_it_cannot_count(pair):
    with pytest.raises(ValueError, match="need as many predictions as labels"):
        ttq.accuracy(*pair)


# -------------------------------------------------------------------------------------------------------------- slots


def test_slot_f1_counts_spans_not_tokens():
    assert ttq.slot_f1([["B-a", "I-a", "O"]], [["B-a", "O", "O"]]) == 0
    assert ttq.slot_f1([["B-a", "I-a", "B-b"]], [["B-a", "I-a", "O"]]) == pytest.approx(200 / 3)
    assert ttq.slot_f1([["B-a", "O"]], [["B-a", "O"]]) == 100


@pytest.mark.parametrize(
    ("expected", "predicted", "f1"),
    [
        (["date", "O"], ["rate", "O"], 0),  # seqeval by itself drops the first letters
        (["date", "O"], ["date", "O"], 100),
        (["date", "date", "city"], ["date", "O", "city"], 50),  # neighbours are one span
        (["date", "date"], ["date", "date"], 100),
        (["O", "date", "O", "date"], ["O", "date", "O", "O"], 200 / 3),
        (["O"], ["O"], 0),
    ],
)
def test_labels_without_a_beginning_are_spans_of_equal_neighbours(expected, predicted, f1):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # seqeval warns of labels that it does not know
        assert ttq.slot_f1([expected], [predicted]) == pytest.approx(f1)


def test_labels_with_and_without_a_beginning_do_not_mix():
    with refused(ValueError, "must all begin with B- or I-, or none of them, got 'date' beside 'B-date'"):
        ttq.slot_f1([["B-date", "O"]], [["date", "O"]])


def test_a_word_that_was_not_seen_is_a_missed_span():
    assert ttq.slot_f1([["B-a", "I-a", "B-b"]], [["B-a", "I-a", None]]) == pytest.approx(200 / 3)


def test_rows_of_other_lengths_are_named():
    with refused(ValueError, "row 1 has 2 labels but 1 predictions", "None for a word that was cut off"):
        ttq.slot_f1([["O"], ["B-a", "O"]], [["O"], ["B-a"]])
    for pair in ([["O"]], []), ([], []):
        with refused(ValueError, "need as many rows of predictions as of labels"):
            ttq.slot_f1(*pair)


# --------------------------------------------------------------------------------------------------------------- GLUE


def test_every_metric_is_one_of_the_table_and_is_used():
    used = {name for task in tasks.TASKS.values() for name in task.metrics}
    assert used == set(metrics.METRICS)


EXPECTED, PREDICTED = [1, 1, 1, 0, 0], [1, 1, 0, 0, 1]  # 2 hits, 1 miss, 1 right no, 1 false alarm


@pytest.mark.parametrize(
    ("task", "expected", "predicted", "scores"),
    [
        ("sst2", EXPECTED, PREDICTED, {"accuracy": 60}),
        ("mnli", [0, 1, 2, 2], [0, 1, 2, 0], {"accuracy": 75}),
        ("mrpc", EXPECTED, PREDICTED, {"accuracy": 60, "f1": 100 * 4 / 6}),  # 2 · hits / (2 · hits + errors)
        ("qqp", [0, 0], [0, 0], {"accuracy": 100, "f1": 0}),
        ("cola", EXPECTED, PREDICTED, {"matthews_correlation": 100 * (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)}),
        ("cola", EXPECTED, [1] * 5, {"matthews_correlation": 0}),
        ("stsb", [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], {"pearson": 100, "spearman": 100}),
        ("stsb", [1.0, 2.0, 3.0], [1.0, 10.0, 100.0], {"pearson": 100 * 99 / math.sqrt(2 * 5994), "spearman": 100}),
        ("stsb", [1.0, 2.0, 3.0], [2.5] * 3, {"pearson": 0, "spearman": 0}),  # a model that has collapsed
        ("reviews", ["positive", "negative"], ["positive", "positive"], {"accuracy": 50}),
        ("mrpc", EXPECTED, ["not_equivalent", "equivalent"][::-1] + ["not_equivalent"] * 3, {"accuracy": 60, "f1": 50}),
        ("rte", torch.tensor([1, 0]), np.array([1, 1]), {"accuracy": 50}),
    ],
)
def test_a_task_is_scored_as_glue_does(task, expected, predicted, scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ttq.score(task, expected, predicted) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sst3", [1], [1]), "task must be one of reviews, sst2, rte"),
        (("atis", [1], [1]), "got 'atis'; ttq.score_intent_slots"),
        (("sst2", [-1, -1], [0, 1]), "row 0 has no label, as in GLUE's test splits"),
        (("stsb", [1.0, math.nan], [0, 1]), "row 1 has no label"),
        (("rte", ["entailed"], [0]), "must be numbers or entailment, not_entailment, got 'entailed'"),
        (("mrpc", [0, 1], [5, 1]), "labels must be numbers below 2, got 5"),
        (("sst2", [0, None], [0, 1]), "labels must be numbers below 2, got None"),
        (("stsb", [0.5, "a"], [0, 1]), "'a'"),
        (("rte", [1, 0], [1]), "as many predictions as labels"),
        (("rte", [], []), "as many predictions as labels"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, says):
    with refused(ValueError, says):
        ttq.score(*arguments)
