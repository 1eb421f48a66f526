"""Data: where a task comes from, what malformed files are told, how labels and tokens become numbers."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

import ttqlib as ttq
from ttqlib import tasks

FLIGHT = {"tokens": ["to", "oslo"], "slots": ["O", "B-toloc"], "intent": "flight"}
REVIEW = {"sentence": "not bad at all", "label": 1}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes splits of a task into a folder that TTQ_DATA then names; a row may be a raw line."""
    monkeypatch.setenv("TTQ_DATA", str(tmp_path))

    def into(task: str, **splits) -> Path:
        (tmp_path / task).mkdir(exist_ok=True)
        for split, rows in splits.items():
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (tmp_path / task / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return into


@pytest.fixture
def no_network(monkeypatch):
    """Every connection fails as on a machine without a network, and none is tried through a proxy."""

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(tasks, "getproxies", dict)
    monkeypatch.delenv("TTQ_DATA", raising=False)


def test_the_folder_that_ttq_data_names_comes_first(write, capsys):
    write("atis", train=[FLIGHT, FLIGHT], test=[FLIGHT])
    splits = ttq.load_task("atis")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 1}
    assert splits["test"][0] == FLIGHT
    assert capsys.readouterr().out == "atis: from the folder that TTQ_DATA names\n"


def test_classes_have_names(write):
    write("sst2", train=[REVIEW])
    label = ttq.load_task("sst2")["train"].features["label"]
    assert label.names == ["negative", "positive"]


@pytest.mark.parametrize("name", ["flights", "reviews"])
def test_embedded_tasks_need_nothing_and_ignore_ttq_data(name, write, no_network, capsys):
    write(name, train=[])
    splits = ttq.load_task(name)
    assert set(splits) == {"train", "validation", "test"} and len(splits["train"]) >= 4000
    assert capsys.readouterr().out == f"{name}: embedded in this repository\n"


def test_without_a_network_the_answer_comes_within_seconds_and_says_what_to_do(no_network):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"TTQ_DATA.*stand_in=True") as caught:
        ttq.load_task("sst2")
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


def test_a_silent_network_is_given_up_within_seconds(monkeypatch):
    with socket.socket() as silent:  # a queue that is full and never answered: connecting hangs
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        monkeypatch.delenv("TTQ_DATA", raising=False)
        monkeypatch.setattr(tasks, "getproxies", dict)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(FileNotFoundError):
            ttq.load_task("rte")
        assert time.monotonic() - start < 5
        for one in fill:
            one.close()


def test_offline_means_offline_at_once(monkeypatch):
    monkeypatch.delenv("TTQ_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def never(*_, **__):
        raise AssertionError("no connection may be tried")

    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(FileNotFoundError):
        ttq.load_task("mrpc")


def test_a_stand_in_is_taken_only_when_asked_for_and_says_so(no_network, capsys):
    splits = ttq.load_task("atis", stand_in=True)
    assert splits["train"][0] == ttq.load_task("flights")["train"][0]
    assert "flights, an embedded task of the same kind, stands in" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="rte cannot be had"):
        ttq.load_task("rte", stand_in=True)  # nothing here is of its kind


def test_a_task_from_the_hub_gets_our_fields(monkeypatch, capsys):
    import datasets

    raw = {"id": ["1"], "intent": ["flight"], "text": ["to oslo"], "slots": ["O B-toloc"]}
    monkeypatch.delenv("TTQ_DATA", raising=False)
    monkeypatch.setattr(tasks, "getproxies", lambda: {"https": "a proxy"})  # then nothing is probed
    found = datasets.DatasetDict({"train": datasets.Dataset.from_dict(raw)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *name: found if name == ("tuetschek/atis",) else None)
    assert ttq.load_task("atis")["train"][0] == FLIGHT
    assert capsys.readouterr().out == "atis: from the Hugging Face hub\n"


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"flights, reviews, atis, sst2, rte.*got 'atiss'"):
        ttq.load_task("atiss")


@pytest.mark.parametrize(
    ("task", "line", "says"),
    [
        ("atis", "{", "not JSON"),
        ("atis", "[1]", "tokens, slots, intent is missing"),
        ("atis", {"tokens": ["a"], "slots": ["O"]}, "intent is missing"),
        ("atis", {**FLIGHT, "slots": ["O"]}, "2 tokens and 1 slots must be equally many"),
        ("atis", {**FLIGHT, "tokens": "to oslo"}, "tokens must be a non-empty list of strings"),
        ("atis", {**FLIGHT, "tokens": [], "slots": []}, "tokens must be a non-empty list of strings"),
        ("atis", {**FLIGHT, "intent": 3}, "intent must be a string, got 3"),
        ("sst2", {**REVIEW, "label": 2}, "label must be one of 0 … 1, got 2"),
        ("sst2", {**REVIEW, "label": "1"}, "label must be one of 0 … 1, got '1'"),
        ("sst2", {**REVIEW, "label": True}, "label must be one of 0 … 1, got True"),
        ("sst2", {**REVIEW, "sentence": None}, "sentence must be a string, got None"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(task, line, says, write):
    good = FLIGHT if task == "atis" else REVIEW
    write(task, train=[good, line, good])
    with pytest.raises(ValueError) as caught:
        ttq.load_task(task)
    assert str(caught.value).startswith(f"{task}/train.jsonl, line 2: ") and says in str(caught.value)


def test_a_folder_without_training_rows_says_what_is_missing(write):
    write("atis", test=[FLIGHT])
    with pytest.raises(FileNotFoundError, match=r"atis/train\.jsonl is missing"):
        ttq.load_task("atis")


def two_splits(write):
    unseen = {"tokens": ["via", "oslo"], "slots": ["O", "B-stop"], "intent": "fare"}
    write("atis", train=[FLIGHT, {**FLIGHT, "intent": "airline"}], test=[unseen])
    return ttq.load_task("atis")


def test_label_names_come_from_training_sorted(write):
    rows = two_splits(write)["train"]
    assert ttq.label_names(rows, "intent") == ("airline", "flight")
    assert ttq.label_names(rows, "slots") == ("B-toloc", "O")


def test_encoding_marks_specials_and_unseen_labels(write):
    splits = two_splits(write)
    tokenizer = ttq.word_tokenizer(splits["train"]["tokens"])
    names = [ttq.label_names(splits["train"], field) for field in ("intent", "slots")]
    train, test = (ttq.encode(splits[split], tokenizer, *names)[0] for split in ("train", "test"))
    assert tokenizer.convert_ids_to_tokens(train["input_ids"]) == ["[CLS]", "to", "oslo", "[SEP]"]
    assert train["slot_labels"] == [-100, 1, 0, -100] and train["intent_labels"] == 1
    assert tokenizer.convert_ids_to_tokens(test["input_ids"]) == ["[CLS]", "[UNK]", "oslo", "[SEP]"]
    assert test["slot_labels"] == [-100, 1, -1, -100] and test["intent_labels"] == -1


def test_only_the_first_piece_of_a_word_carries_its_slot(write):
    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "to", "os", "##lo"]
    tokenizer = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)})
    splits = two_splits(write)
    row = ttq.encode(splits["train"], tokenizer, ("airline", "flight"), ("B-toloc", "O"))[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["[CLS]", "to", "os", "##lo", "[SEP]"]
    assert row["slot_labels"] == [-100, 1, 0, -100, -100]


def test_pairs_and_sentences_keep_their_label(write):
    pair = {"sentence1": "it rains", "sentence2": "it is wet", "label": 0}
    write("rte", train=[pair])
    rows = ttq.load_task("rte")["train"]
    tokenizer = ttq.word_tokenizer([["it", "rains", "is", "wet"]])
    encoded = ttq.encode(rows, tokenizer)[0]
    words = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert words == ["[CLS]", "it", "rains", "[SEP]", "it", "is", "wet", "[SEP]"] and encoded["labels"] == 0


def test_long_sentences_are_cut():
    import datasets

    rows = datasets.Dataset.from_dict({"sentence": ["a " * 100], "label": [1]})
    assert len(ttq.encode(rows, ttq.word_tokenizer([["a"]]), max_length=10)[0]["input_ids"]) == 10


def test_an_unseen_label_is_an_error():
    assert ttq.accuracy(["flight", "fare"], ["flight", "flight"]) == 50
    assert ttq.slot_f1([["B-stop"], ["B-toloc"]], [["B-toloc"], ["B-toloc"]]) == 50


def test_slot_f1_counts_spans_not_tokens():
    assert ttq.slot_f1([["B-a", "I-a", "O"]], [["B-a", "O", "O"]]) == 0
    assert ttq.slot_f1([["B-a", "I-a", "B-b"]], [["B-a", "I-a", "O"]]) == pytest.approx(200 / 3)
    assert ttq.slot_f1([["B-a", "O"]], [["B-a", "O"]]) == 100


@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2])])
def test_accuracy_refuses_what_it_cannot_count(pair):
    with pytest.raises(ValueError, match="need as many predictions as labels"):
        ttq.accuracy(*pair)


@pytest.mark.skipif("TTQ_DATA" not in os.environ, reason="TTQ_DATA names no folder with the real data")
def test_the_real_atis_is_what_the_papers_use():
    splits = ttq.load_task("atis")
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [4478, 500, 893]
    known = set(ttq.label_names(splits["train"], "intent"))
    assert len(known) == 21 and set(splits["test"]["intent"]) - known  # some intents occur in no training row
