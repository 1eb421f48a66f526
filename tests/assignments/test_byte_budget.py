"""What assignment 5 asks of a submission, where no student's answer in the bank can show it."""

import json
from collections import Counter

import pytest
import torch
from transformers import BertConfig

import ttqlib as ttq
from ttqlib.check import CheckFailed
from ttqlib.check.assignments import a5, submission
from ttqlib.check.assignments.fresh import fresh_rows, spans
from ttqlib.check.assignments.leaderboard import leaderboard
from ttqlib.tasks import sources

ROWS = [
    {
        "tokens": ["to", "new", "delhi", "on", "monday"],
        "slots": ["O", "B-to", "I-to", "O", "B-day"],
        "intent": "flight",
    },
    {"tokens": ["oslo", "lima"], "slots": ["B-to", "B-to"], "intent": "city"},
]


def untrained(train, seed: int = 0) -> ttq.IntentSlotModel:
    labels = {"intents": ttq.label_names(train, "intent"), "slots": ttq.label_names(train, "slots")}
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    words = len(ttq.word_tokenizer(train["tokens"]))
    torch.manual_seed(seed)
    model = ttq.IntentSlotModel(BertConfig(vocab_size=words, max_position_embeddings=40, **shape, **labels))
    return ttq.compress_(model, ttq.plan(model, bits=2, rest=8))


def test_spans_are_the_words_of_a_slot_together():
    assert list(spans(ROWS[0]["tokens"], ROWS[0]["slots"])) == [
        ("O", ["to"]),
        ("to", ["new", "delhi"]),
        ("O", ["on"]),
        ("day", ["monday"]),
    ]
    assert [slot for slot, _ in spans(ROWS[1]["tokens"], ROWS[1]["slots"])] == ["to", "to"]


def test_fresh_rows_keep_what_has_no_slot_and_draw_the_rest_from_rows_with_the_same_slot():
    known = {("to", "new delhi"), ("to", "oslo"), ("to", "lima"), ("day", "monday")}
    drawn = Counter()
    for seed in range(40):
        first, second = fresh_rows(ROWS, str(seed))
        assert (first["intent"], second["intent"]) == ("flight", "city")
        assert first["tokens"][0] == "to" and "on" in first["tokens"]
        for row in (first, second):
            found = [(slot, " ".join(words)) for slot, words in spans(row["tokens"], row["slots"]) if slot != "O"]
            assert set(found) <= known
            drawn.update(found)
    assert set(drawn) == known


def test_fresh_rows_are_new_sentences_and_the_same_for_the_same_seed():
    rows = list(sources.load_task("flights")["test"])
    one, again, other = (fresh_rows(rows, seed) for seed in ("1", "1", "2"))
    assert one == again and one != other
    published = {tuple(row["tokens"]) for row in rows}
    assert sum(tuple(row["tokens"]) in published for row in one) < len(rows) / 10
    assert len(one) == len(rows)


def test_a_submission_is_built_once_for_all_tests():
    calls = []

    def build(train):
        calls.append(len(train))
        return untrained(train)

    for _ in range(2):
        a5.fits(build)
        with pytest.raises(CheckFailed, match="slot F1 is wanted"):
            a5.validation(build)
    assert calls == [4500]


def test_what_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(submission, "SECONDS", 0.0)
    with pytest.raises(CheckFailed, match="0 s are allowed"):
        a5.fits(lambda train: untrained(train))


def test_a_model_class_that_was_changed_in_the_notebook_does_not_help(monkeypatch):
    forward = ttq.IntentSlotModel.forward

    def wiser(self, *arguments, **options):
        output = forward(self, *arguments, **options)
        output.intent_logits[:, self.config.intents.index("flight")] = 1e3  # the majority
        return output

    monkeypatch.setattr(ttq.IntentSlotModel, "forward", wiser)
    with pytest.raises(CheckFailed, match="alone in a new process, the saved model answers otherwise"):
        a5.held_out(lambda train: untrained(train), slot_f1=0.0)


def test_rows_are_drawn_when_the_model_has_been_saved(monkeypatch):
    seeds = []
    monkeypatch.setattr(submission, "fresh_rows", lambda rows, seed: seeds.append(seed) or ROWS)

    def elsewhere(folder, rows, scratch):
        given = submission.rows_given()
        known = submission.answers(ttq.load(folder), given["validation"].select(range(200)), given["train"])
        return tuple(side + [row[name] for row in rows[200:]] for side, name in zip(known, ("intent", "slots")))

    monkeypatch.setattr(submission, "answers_elsewhere", elsewhere)
    perfect = {"intent_accuracy": 100.0, "slot_f1": 100.0}
    for build in (lambda train: untrained(train), lambda train: untrained(train, seed=1)):
        for _ in range(2):
            assert submission.fresh_scores(build, 7) == (perfect, perfect)
    assert len(seeds) == len(set(seeds)) == 2 and all(seed.startswith("7/") for seed in seeds)


def test_a_folder_that_was_filled_up_afterwards_is_weighed_again():
    def build(train):
        return untrained(train)

    a5.fits(build)
    (submission.submitted(build).folder / "more.bin").write_bytes(bytes(60_000))
    with pytest.raises(CheckFailed, match="60,000 are allowed"):
        a5.validation(build)


def test_the_leaderboard_reads_graded_notebooks(tmp_path):
    lines = {"ada": (80.0, 50_000), "bo": (80.0, 40_000), "cy": (90.5, 59_999)}
    for student, (slots, stored) in lines.items():
        line = {
            "stored_bytes": stored,
            "intent_accuracy": 91.0,
            "slot_f1": slots,
            "seconds": 9.5,
            "better_on_test": 0.5,
        }
        cell = {"outputs": [{"text": ["flights: here\n", f"leaderboard {json.dumps(line)}\n", "build: correct\n"]}]}
        place = tmp_path / student / "a5_byte_budget"
        place.mkdir(parents=True)
        (place / "a5_byte_budget.ipynb").write_text(json.dumps({"cells": [{"source": []}, cell]}))
    (tmp_path / "dee" / "a5_byte_budget").mkdir(parents=True)
    (tmp_path / "dee" / "a5_byte_budget" / "a5_byte_budget.ipynb").write_text(json.dumps({"cells": []}))
    table = leaderboard(tmp_path).splitlines()
    assert [row.split(" | ")[1] for row in table[2:]] == ["cy", "bo", "ada"]
    assert "| 90.5 | 91.0 | 59,999 | 9.5 | 0.5 |" in table[2]


def test_a_leaderboard_of_nothing_says_which_folder_is_meant(tmp_path):
    with pytest.raises(ValueError, match="the folder that autograde writes to"):
        leaderboard(tmp_path)
