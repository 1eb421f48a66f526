"""The embedded sets: made by their scripts byte for byte, of the promised shape, and as hard as the README says."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
SPLITS = ("train", "validation", "test")
TASKS = ("flights", "reviews")


def rows(task, split):
    return [json.loads(line) for line in (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def sentence(row):
    return row["sentence"] if "sentence" in row else " ".join(row["tokens"])


@pytest.fixture
def script(monkeypatch):
    """Import a module from data/, where the scripts import their neighbours."""
    monkeypatch.syspath_prepend(str(DATA))
    return __import__


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("hashseed", ["0", "1"])
def test_the_script_writes_the_committed_bytes(task, hashseed, tmp_path):
    for name in (f"make_{task}.py", f"{task}.grammar", "grammar.py"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    environment = os.environ | {"PYTHONHASHSEED": hashseed}
    subprocess.run([sys.executable, str(tmp_path / f"make_{task}.py")], check=True, env=environment, cwd=tmp_path)
    for split in SPLITS:
        made = (tmp_path / task / f"{split}.jsonl").read_bytes()
        assert made == (DATA / task / f"{split}.jsonl").read_bytes(), f"{task} {split}: run data/make_{task}.py"


@pytest.mark.parametrize("task", TASKS)
def test_a_grammar_names_only_symbols_that_it_defines(task, script):
    grammar = script("grammar")
    rules = grammar.Grammar((DATA / f"{task}.grammar").read_text(encoding="utf-8"), 1).rules
    items = [item for alternatives in rules.values() for _, _, found in alternatives for item in found]
    references = [grammar.REFERENCE.fullmatch(item) for item in items if item.startswith("{")]
    assert all(references)
    symbols = {match[2] for match in references if not match[2].startswith('"')}
    assert not {symbol for symbol in symbols if "$" not in symbol} - rules.keys()
    for symbol in symbols:  # one with a feature in its name stands for at least one rule
        pattern = re.compile(re.sub(r"\\\$[a-z]+", r"[\\w.]+", re.escape(symbol)))
        assert any(pattern.fullmatch(name) for name in rules), symbol


@pytest.mark.parametrize(
    ("task", "least", "most_bytes"), [("flights", (4000, 500, 800), 2.5e6), ("reviews", (6000, 800, 800), 1.5e6)]
)
def test_sizes(task, least, most_bytes):
    for split, size in zip(SPLITS, least, strict=True):
        assert len(rows(task, split)) >= size
    assert sum((DATA / task / f"{split}.jsonl").stat().st_size for split in SPLITS) < most_bytes


@pytest.mark.parametrize("task", TASKS)
def test_no_sentence_occurs_twice(task):
    found = Counter(sentence(row) for split in SPLITS for row in rows(task, split))
    assert found.most_common(1)[0][1] == 1


@pytest.mark.parametrize("task", TASKS)
def test_sentences_are_lower_case_words_at_single_spaces(task):
    for split in SPLITS:
        for row in rows(task, split):
            text = sentence(row)
            assert re.fullmatch(r"[a-z0-9',:;/]+( [a-z0-9',:;/]+)*", text), text
            assert 4 <= len(text.split()) <= 30, text
            assert not re.search(r"\b(a [aeio]|an [^aeiouh8])", re.sub(r"\ba on", "", text)), text
            assert not re.search(r"\b([a-z]+) \1\b", text), text


@pytest.mark.parametrize("task", TASKS)
def test_words_held_out_by_the_grammar_do_not_reach_training(task, script):
    grammar = script("grammar")
    rules = grammar.Grammar((DATA / f"{task}.grammar").read_text(encoding="utf-8"), 1).rules

    def words(levels):
        bodies = [body for found in rules.values() for _, level, body in found if level in levels]
        return {word for body in bodies for item in body for word in re.findall(r"[a-z0-9']+", item.split(":")[0])}

    late = words({1, 2}) - words({0})
    assert len(late) > 50
    assert not late & {word for row in rows(task, "train") for word in sentence(row).split()}
    assert late & {word for row in rows(task, "test") for word in sentence(row).split()}


def test_flights_labels():
    train = rows("flights", "train")
    intents = Counter(row["intent"] for row in train)
    assert len(intents) >= 18
    assert 0.6 <= intents["flight"] / len(train) <= 0.7
    slots = {slot for row in train for slot in row["slots"]}
    assert len(slots) >= 60
    late = [row for split in SPLITS[1:] for row in rows("flights", split)]
    assert {row["intent"] for row in late} - intents.keys()
    assert {slot for row in late for slot in row["slots"]} - slots


def test_flights_slots_are_valid_iob2():
    for split in SPLITS:
        for row in rows("flights", split):
            assert len(row["tokens"]) == len(row["slots"])
            for before, slot in zip(["O", *row["slots"]], row["slots"], strict=False):
                assert slot == "O" or slot[:2] in ("B-", "I-")
                assert not slot.startswith("I-") or before[2:] == slot[2:]


def test_one_word_fills_several_slots():
    found = {}
    for row in rows("flights", "train"):
        for word, slot in zip(row["tokens"], row["slots"], strict=True):
            found.setdefault(word, set()).add(slot)
    assert {"B-fromloc.city_name", "B-toloc.city_name", "B-stoploc.city_name", "I-airline_name"} <= found["lisbon"]
    assert {f"B-{when}_date.day_name" for when in ("depart", "arrive", "return")} <= found["monday"]
    assert {"B-flight_number", "B-depart_time.time", "B-fare_amount"} <= found["430"]


def test_reviews_are_balanced():
    for split in SPLITS:
        labels = Counter(row["label"] for row in rows("reviews", split))
        assert labels.keys() == {0, 1}
        assert 0.45 <= labels[1] / labels.total() <= 0.55


@pytest.mark.parametrize(("task", "real"), [("flights", "atis"), ("reviews", "sst2")])
def test_no_sentence_of_the_real_set_is_among_them(task, real):
    folder = Path(os.environ.get("TTQ_DATA", "")) / real
    if "TTQ_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"TTQ_DATA holds no {real}")
    theirs = set()
    for path in folder.glob("*.jsonl"):
        theirs |= {sentence(json.loads(line)).strip() for line in path.read_text(encoding="utf-8").splitlines()}
    assert theirs
    assert not theirs & {sentence(row) for split in SPLITS for row in rows(task, split)}


def test_the_readme_holds_the_stored_numbers(script):
    difficulty = script("measure_difficulty")
    stored = json.loads((DATA / "difficulty.json").read_text(encoding="utf-8"))
    for task in TASKS:
        assert stored[task]["data_sha256"] == difficulty.digest(task), "stale: run data/measure_difficulty.py"
    text = (DATA / "README.md").read_text(encoding="utf-8")
    assert difficulty.fill_readme(text, stored) == text


@pytest.mark.parametrize(
    ("task", "baseline", "score"), [("flights", "word alone", "slot_f1"), ("reviews", "bag of words", "accuracy")]
)
def test_order_and_context_are_worth_eight_points(task, baseline, score):
    stored = json.loads((DATA / "difficulty.json").read_text(encoding="utf-8"))[task]["rows"]
    most = max(row["sentences"] for row in stored)
    found = {row["model"].split(",")[0]: row["metrics"] for row in stored if row["sentences"] == most}
    transformer = found["transformer"][f"test_{score}"]["mean"]
    assert found[baseline][f"test_{score}"]["mean"] + 8 <= transformer < 99
