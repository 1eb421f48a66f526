"""Where a task comes from, what is made of it, and what malformed files are told."""

import json
import math
import os
import socket
import time
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Value
from datasets.arrow_writer import ArrowWriter

import ttqlib as ttq
from tests.cases import refused
from ttqlib.tasks import sources as tasks

FLIGHT = {"tokens": ["to", "oslo"], "slots": ["O", "B-toloc"], "intent": "flight"}
REVIEW = {"sentence": "not bad at all", "label": 1}
PAIR = {"sentence1": "it rains", "sentence2": "it is wet", "label": 0}


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


# ------------------------------------------------------------------------------------------------------------ the hub


def texts(columns: str, classes: str = "") -> dict[str, dict]:
    """The schema of a GLUE task on the hub: columns of text, `label`, `idx`."""
    label = ClassLabel(names=classes.split()) if classes else Value("float32")
    return {**dict.fromkeys(columns.split(), Value("string")), "label": label, "idx": Value("int32")}


ENTAILED, MATCHES = "entailment not_entailment", ("train", "validation", "test")
HUB = {  # as nyu-mll/glue has them: the columns, the splits
    "cola": (texts("sentence", "unacceptable acceptable"), MATCHES),
    "sst2": (texts("sentence", "negative positive"), MATCHES),
    "mrpc": (texts("sentence1 sentence2", "not_equivalent equivalent"), MATCHES),
    "qqp": (texts("question1 question2", "not_duplicate duplicate"), MATCHES),
    "stsb": (texts("sentence1 sentence2"), MATCHES),
    "mnli": (
        texts("premise hypothesis", "entailment neutral contradiction"),
        ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"),
    ),
    "qnli": (texts("question sentence", ENTAILED), MATCHES),
    "rte": (texts("sentence1 sentence2", ENTAILED), MATCHES),
    "wnli": (texts("sentence1 sentence2", "not_entailment entailment"), MATCHES),
}


def as_on_the_hub(task: str, **changes) -> DatasetDict:
    """Two rows a split; GLUE keeps the labels of its test splits and writes −1."""
    columns, splits = HUB[task]
    columns = {**columns, **changes}

    def rows(split: str) -> Dataset:
        values = {name: [f"{name} {row}" for row in range(2)] for name in columns}
        values |= {"label": [-1, -1] if split.startswith("test") else [1, 0], "idx": [0, 1]}
        return Dataset.from_dict({name: values[name] for name in columns}, features=Features(columns))

    return DatasetDict({split: rows(split) for split in splits})


@pytest.fixture
def hub(monkeypatch):
    """Puts data sets on a hub that can be reached, by the arguments of `load_dataset`."""
    found = {}
    monkeypatch.delenv("TTQ_DATA", raising=False)
    monkeypatch.setattr(tasks, "getproxies", lambda: {"https": "a proxy"})  # then nothing is probed
    monkeypatch.setattr(datasets, "load_dataset", lambda *name: found[name])
    return found


def test_a_task_from_the_hub_gets_our_fields(hub, capsys):
    raw = {"id": ["1"], "intent": ["flight"], "text": ["to oslo"], "slots": ["O B-toloc"]}
    hub["tuetschek/atis",] = DatasetDict({"train": Dataset.from_dict(raw)})
    assert ttq.load_task("atis")["train"][0] == FLIGHT
    assert capsys.readouterr().out == "atis: from the Hugging Face hub\n"


@pytest.mark.parametrize("task", HUB)
def test_glue_comes_from_the_hub_in_our_fields_whatever_it_calls_them(task, hub):
    hub["nyu-mll/glue", task] = as_on_the_hub(task)
    splits, columns = ttq.load_task(task), [name for name in HUB[task][0] if name not in ("label", "idx")]
    ours = ["sentence"] if len(columns) == 1 else ["sentence1", "sentence2"]
    matched = ["train", "validation", "validation_mismatched", "test", "test_mismatched"]
    assert list(splits) == (matched if task == "mnli" else list(MATCHES))
    for split, rows in splits.items():
        assert rows.column_names == [*ours, "label"]
        assert [rows[0][name] for name in ours] == [f"{name} 0" for name in columns]
        if not split.startswith("test"):
            assert list(rows["label"]) == [1, 0]
        elif task == "stsb":
            assert all(math.isnan(label) for label in rows["label"])
        else:
            assert list(rows["label"]) == [-1, -1]
    if task != "stsb":
        assert splits["train"].features["label"].names == list(tasks.TASKS[task].classes)


def test_a_folder_may_use_the_names_of_the_hub_too(write):
    row = {"premise": "it rains", "hypothesis": "it is wet", "idx": 3}
    write("mnli", train=[{**row, "label": "neutral"}], validation_matched=[row | {"label": 2}], test_matched=[row])
    splits = ttq.load_task("mnli")
    assert splits["train"][0] == {"sentence1": "it rains", "sentence2": "it is wet", "label": 1}
    assert [splits[name]["label"][0] for name in ("validation", "test")] == [2, -1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": ClassLabel(names=["not_entailment", "entailment"])}, "its classes are not_entailment, entailment"),
        ({"target": Value("string")}, "columns sentence1, text, label, idx, target, where sentence1, sentence2"),
    ],
)
def test_a_data_set_that_has_changed_on_the_hub_is_not_called_missing(hub, changes, says):
    found = as_on_the_hub("rte", **changes)
    hub["nyu-mll/glue", "rte"] = found if "label" in changes else found.rename_column("sentence2", "text")
    with pytest.raises(FileNotFoundError, match=says) as caught:
        ttq.load_task("rte")
    assert "connect" not in str(caught.value) and "TTQ_DATA" in str(caught.value)


def test_what_the_hub_answers_is_passed_on(hub, monkeypatch):
    def gated(*_):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'x' is gated.\n Ask for access.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with refused(FileNotFoundError, "the hub was reached, but: Dataset 'x' is gated. Ask for access."):
        ttq.load_task("rte")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """What `datasets` keeps of a task that was loaded from the hub: RTE here, and no other."""
    root = tmp_path / "kept"
    folder = root / "nyu-mll___glue" / "rte" / "0.0.0" / "abcdef"
    folder.mkdir(parents=True)
    found = as_on_the_hub("rte")
    for split, rows in found.items():
        with ArrowWriter(path=str(folder / f"glue-{split}.arrow"), features=rows.features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
    splits = {name: {"name": name, "num_examples": 2, "dataset_name": "glue"} for name in found}
    info = DatasetInfo(features=found["train"].features, splits=splits, version="0.0.0", dataset_name="glue")
    info.config_name, info.builder_name = "rte", "parquet"
    info.write_to_directory(str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root))
    return root


@pytest.mark.parametrize("reason", ["no network", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_what_was_kept_from_the_hub_is_asked_first(reason, kept, no_network, monkeypatch, capsys):
    if reason != "no network":
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    if reason == "HF_HUB_OFFLINE":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    before, start = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE), time.monotonic()
    splits = ttq.load_task("rte")
    assert splits["validation"][1] == {"sentence1": "sentence1 1", "sentence2": "sentence2 1", "label": 0}
    assert capsys.readouterr().out == "rte: kept from the Hugging Face hub\n"
    says = "the hub cannot be reached" if reason == "no network" else "the hub is switched off"
    with refused(FileNotFoundError, says, "datasets has kept nothing of it", "TTQ_DATA"):
        ttq.load_task("mnli")
    assert time.monotonic() - start < 10
    assert before == (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)


# ------------------------------------------------------------------------------------------------- folders of your own

ONE, TWO = {"text": "a b"}, {"b": "second", "a": "first"}
FOUND = [  # training rows, other rows, what is said of them, the first of the other rows
    ([FLIGHT], [FLIGHT], "words with slots, and an intent", FLIGHT),
    (
        [ONE | {"label": "no"}, ONE | {"label": "yes"}],
        [ONE | {"label": "yes"}],
        "a text (text) with 2 classes (no, yes)",
        {"sentence": "a b", "label": 1},
    ),
    (
        [{"id": "r1", "review": "a b", "stars": 3, "label": stars} for stars in (5, 1, 10)],
        [{"id": "r2", "review": "a b", "label": 10}],
        "a text (review) with 3 classes (1, 5, 10)",
        {"sentence": "a b", "label": 2},
    ),
    (
        [TWO | {"label": 0.5}, TWO | {"label": 3}],
        [TWO | {"label": -1}],
        "pairs of texts (b, a) with numbers",
        {"sentence1": "second", "sentence2": "first", "label": -1.0},
    ),
    (
        [{"hypothesis": "h", "premise": "p", "genre": "g", "label": 1}],
        [{"hypothesis": "h", "premise": "p", "genre": "g", "label": 1}],
        "pairs of texts (premise, hypothesis) with 1 classes (1)",
        {"sentence1": "p", "sentence2": "h", "label": 0},
    ),
    ([ONE | {"label": "no"}], [ONE], "1 of them with no label that is known", {"sentence": "a b", "label": -1}),
    ([ONE | {"label": 2}], [ONE | {"label": 7}], "1 of them with no label", {"sentence": "a b", "label": -1}),
]


@pytest.mark.parametrize(("train", "test", "says", "first"), FOUND)
def test_the_fields_of_any_folder_are_recognized(train, test, says, first, write, capsys):
    root = write("mine", train=train, test=test)
    named, place = ttq.load_task("mine"), root / "mine"
    assert named["test"][0] == first and named["train"].features == named["test"].features
    said = capsys.readouterr().out
    assert said.startswith("mine: from the folder that TTQ_DATA names, ") and said.count("\n") == 1
    assert says in said and f"rows: test {len(test)}" in said and f"train {len(train)}" in said
    for path in (place, str(place)):
        assert ttq.load_task(path)["test"][0] == first
    assert f"mine: from the folder {place}, " in capsys.readouterr().out


def test_numbers_that_are_not_given_are_nan(write):
    write("mine", train=[ONE | {"label": 0.5}], test=[ONE, ONE | {"label": None}])
    assert all(math.isnan(label) for label in ttq.load_task("mine")["test"]["label"])


def test_a_known_name_is_never_a_folder_here(write, monkeypatch):
    monkeypatch.chdir(write("reviews", train=[REVIEW]))
    assert len(ttq.load_task("reviews")["train"]) > 1
    assert len(ttq.load_task(Path("reviews"))["train"]) == 1  # a path is one


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "mine/train.jsonl holds no rows"),
        ([{"label": 1}], "line 1: one or two columns of text are needed"),
        ([{"a": "", "b": "", "c": "", "label": 1}], "the strings here are a, b, c"),
        ([ONE], "line 1: label must be a string or a number, got None"),
        ([ONE | {"label": 1}, ONE | {"label": True}], "line 2: label must be a string or a number, got True"),
        ([ONE | {"label": 1}, ONE | {"label": "1"}], "line 2: label '1', but other rows have 1"),
        ([ONE | {"label": "a"}, {"label": "a"}], "line 2: an object with the fields text, label is needed"),
        ([{**FLIGHT, "intent": None}], "line 1: intent must be a string"),
    ],
)
def test_a_folder_that_cannot_be_understood_says_why(rows, says, write):
    write("mine", train=rows)
    with refused(ValueError, says):
        ttq.load_task("mine")


def test_lines_are_cut_at_newlines_only_and_counted_as_an_editor_does(write):
    odd = {"text": "a\u2028b\x85c", "label": 1}  # splitlines would cut here
    root = write("mine", train=[json.dumps(odd, ensure_ascii=False), "", ONE | {"label": 0}])
    path = root / "mine" / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert ttq.load_task("mine")["train"]["sentence"][:] == [odd["text"], "a b"]
    write("mine", train=[json.dumps(odd, ensure_ascii=False), "", "{"])
    with refused(ValueError, "mine/train.jsonl, line 3: not JSON"):
        ttq.load_task("mine")
    path.write_bytes(b"\xff{}")
    with refused(ValueError, "mine/train.jsonl: not UTF-8 at byte 0"):
        ttq.load_task("mine")


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"flights, reviews, atis, sst2, rte.*got 'atiss'"):
        ttq.load_task("atiss")


@pytest.mark.parametrize(
    ("task", "line", "says"),
    [
        ("atis", "{", "not JSON"),
        ("atis", "[1]", "an object is needed, as {...}, got [1]"),
        ("atis", {"tokens": ["a"], "slots": ["O"]}, "intent is missing"),
        ("atis", {**FLIGHT, "slots": ["O"]}, "2 tokens and 1 slots must be equally many"),
        ("atis", {**FLIGHT, "tokens": "to oslo"}, "tokens must be a non-empty list of strings"),
        ("atis", {**FLIGHT, "tokens": [], "slots": []}, "tokens must be a non-empty list of strings"),
        ("atis", {**FLIGHT, "intent": 3}, "intent must be a string, got 3"),
        ("sst2", {**REVIEW, "label": 2}, "label must be one of 0 … 1 or negative, positive, got 2"),
        ("sst2", {**REVIEW, "label": -1}, "got -1"),  # in training it says nothing
        ("sst2", {**REVIEW, "label": []}, "got []"),
        ("sst2", {**REVIEW, "label": "1"}, "got '1'"),
        ("sst2", {**REVIEW, "label": True}, "got True"),
        ("sst2", {**REVIEW, "sentence": None}, "sentence must be a string, got None"),
        ("rte", {"premise": "a", "label": 1}, "sentence1, sentence2, label is needed, sentence1, sentence2 is missing"),
        ("stsb", {**PAIR, "label": "3"}, "label must be a finite number, got '3'"),
        ("stsb", '{"sentence1": "a", "sentence2": "b", "label": NaN}', "label must be a finite number, got nan"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(task, line, says, write):
    good = {"atis": FLIGHT, "sst2": REVIEW}.get(task, PAIR)
    write(task, train=[good, line, good])
    with pytest.raises(ValueError) as caught:
        ttq.load_task(task)
    assert str(caught.value).startswith(f"{task}/train.jsonl, line 2: ") and says in str(caught.value)


def test_a_folder_without_training_rows_says_what_is_missing(write):
    write("atis", test=[FLIGHT])
    with refused(FileNotFoundError, "atis/train.jsonl is missing; the folder holds test.jsonl"):
        ttq.load_task("atis")


@pytest.mark.skipif("TTQ_DATA" not in os.environ, reason="TTQ_DATA names no folder with the real data")
def test_the_real_atis_is_what_the_papers_use():
    splits = ttq.load_task("atis")
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [4478, 500, 893]
    known = set(ttq.label_names(splits["train"], "intent"))
    assert len(known) == 21 and set(splits["test"]["intent"]) - known  # some intents occur in no training row
