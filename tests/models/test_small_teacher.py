"""The shipped small teacher: small, what its script writes, and far better than counting words."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import small_teacher
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.utils import logging

import ttqlib as ttq
from tests.chapters import ROOT

LEAST = 8  # points ahead of a bag of words, on validation
FILES = {"accuracy.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def rows():
    return ttq.load_task("reviews")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(small_teacher.FOLDER)


def bag_of_words() -> float:
    """Its accuracy on validation, from all training sentences, as measure_difficulty.py has found it."""
    measured = json.loads((ROOT / "data" / "difficulty.json").read_text())["reviews"]["rows"]
    (row,) = [row for row in measured if row["model"] == "bag of words" and row["sentences"] == 10000]
    return row["metrics"]["validation_accuracy"]["mean"]


def test_it_is_small():
    files = list(small_teacher.FOLDER.iterdir())
    assert {file.name for file in files} == FILES
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_its_vocabulary_is_that_of_the_training_sentences(rows, tokenizer):
    words = {word for sentence in rows["train"]["sentence"] for word in sentence.split()}
    assert set(tokenizer.get_vocab()) == words | {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}
    longest = max(len(sentence.split()) for split in rows.values() for sentence in split["sentence"])
    assert longest + 2 <= small_teacher.POSITIONS  # nothing is cut off


def test_it_is_as_good_as_it_says_and_better_than_counting_words(rows, tokenizer):
    teacher = BertForSequenceClassification.from_pretrained(small_teacher.FOLDER)
    assert teacher.config.vocab_size == len(tokenizer)
    encoded = ttq.encode(rows["validation"], tokenizer, max_length=small_teacher.POSITIONS)
    found = small_teacher.accuracy(teacher, rows["validation"], encoded, tokenizer)
    said = json.loads((small_teacher.FOLDER / "accuracy.json").read_text())
    assert found == pytest.approx(said["validation"], abs=0.5)  # other processors may round otherwise
    assert found > bag_of_words() + LEAST
    readme = (small_teacher.FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert f"{said['validation']} % of validation and {said['test']} % of test" in readme


@pytest.fixture
def write(monkeypatch):
    """The script in this process, which it leaves as it was: one of its own imports libraries longer than it trains."""
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()

    def main(folder: Path) -> None:
        monkeypatch.setattr(sys, "argv", ["small_teacher.py", "--epochs", "0.05", "--folder", str(folder)])
        small_teacher.main()

    yield main
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)


def test_the_script_writes_the_same_bytes_twice(write, tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert set(files[0]) == FILES and files[0] == files[1]
    assert meaning(tmp_path / "one") == meaning(small_teacher.FOLDER)


def meaning(folder: Path) -> tuple[dict, str, dict]:
    """The shape of the model and its tokenizer, as the libraries that are installed read them.

    Not the bytes of the files: those hold a version of transformers, and fields that its releases add and drop.
    """
    shape = BertConfig.from_pretrained(folder).to_dict()
    del shape["transformers_version"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return shape, tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("config.json", '"transformers_version": "5', '"transformers_version": "55', True),
        ("config.json", '  "is_decoder": false,\n', "", True),  # a default that a release does not write
        ("config.json", '"num_attention_heads": 4', '"num_attention_heads": 2', False),
        ("tokenizer.json", '"bad"', '"batty"', False),
        ("tokenizer_config.json", '"[UNK]"', '"[PAD]"', False),
    ],
)
def test_what_was_written_by_another_release_means_the_same(file, old, new, same, tmp_path):
    folder = shutil.copytree(small_teacher.FOLDER, tmp_path / "other")
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    assert (meaning(folder) == meaning(small_teacher.FOLDER)) is same
