"""experiments/end_to_end.py: the program that is timed is the one whose answers are counted, and a clone has it."""

from collections.abc import Iterator
from pathlib import Path

import end_to_end
import models
import pytest
import results
import runs
import torch
from glue import Glue
from xtc import XTC

import ttqlib as ttq
from tests.experiments.small import COUNTS, write_task

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEACHER = "--task sst2 --teacher two --teacher-epochs 1"
STUDENT = f"{TEACHER} --steps 6 --batch-size 4 --rest 8 --words low-rank"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory) -> Iterator[Path]:
    """A small task, a teacher of two layers, two students, results of their own, a single round; one folder for all."""
    folder, threads = tmp_path_factory.mktemp("end_to_end"), torch.get_num_threads()
    write_task(folder / "data", "sst2", COUNTS)
    trains, one_bit = f"{STUDENT} --rank 4 --bits 3", f"{STUDENT} --word-rank 4 --word-bits 2 --layers 1 --bits 1"
    forms = {
        "teacher, PyTorch": end_to_end.Form(Glue, TEACHER, onnx=False),
        "teacher, 8 bits": end_to_end.Form(Glue, TEACHER, int8=True),
        "trains": end_to_end.Form(Glue, trains),
        "one bit, 8 bits": end_to_end.Form(XTC, one_bit, int8=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTQ_DATA", str(folder / "data"))
        patch.setattr(results, "RESULTS", folder / "results")
        patch.setitem(models.MODELS, "two", models.from_nothing("bert", **SIZES))
        for name, value in {"FORMS": forms, "ROUNDS": 1, "SENTENCES": 3}.items():
            patch.setattr(end_to_end, name, value)
        yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows(folder) -> dict[str, dict]:
    end_to_end.main(["--runs", str(folder / "runs"), "--record"])
    return {row["method"]: row for row in results.load("end_to_end")}


def test_every_form_has_its_answers_bytes_and_time(rows):
    assert rows.keys() == end_to_end.FORMS.keys()
    for row in rows.values():
        assert row["metrics"]["milliseconds"]["mean"] > 0 and row["metrics"]["milliseconds"]["sd"] is not None
        assert row["split"] == "validation" and 0 <= row["metrics"]["accuracy"]["mean"] <= 100
    teacher, in_8_bits, trains, one_bit = rows.values()
    assert teacher["ratio"] == 1 and teacher["plan"] is None and trains["plan"]["rest"] == 8
    program = in_8_bits["metrics"]["program_bytes"]["mean"]
    assert in_8_bits["stored_bytes"] == program < teacher["metrics"]["program_bytes"]["mean"]
    for student in (trains, one_bit):  # what is sent is smaller than what works
        assert student["stored_bytes"] < student["metrics"]["program_bytes"]["mean"]
    assert all(end_to_end.line(row).endswith(" ms a sentence") for row in rows.values())


def test_the_answers_that_are_counted_are_those_of_the_model(rows, folder):
    """A program without rounding is right on the sentences on which the model is, which glue.py has counted."""
    for name in ("teacher, PyTorch", "trains"):
        form = end_to_end.FORMS[name]
        said = [*form.settings.split(), "--validation", "--runs", str(folder / "runs")]
        settings, options = runs.parse(form.study, said)
        report = runs.finished(form.study(settings, options), settings, 0)[1]
        assert rows[name]["metrics"]["accuracy"]["mean"] == pytest.approx(report["validation"]["accuracy"], abs=1e-3)


def test_the_student_that_is_kept_is_that_of_the_run(rows, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(end_to_end, "STUDENT", tmp_path / "student")
    end_to_end.main(["--runs", str(folder / "runs"), "--keep"])
    (made,) = (folder / "runs").glob("sst2/tt-qat*/seed-0/model")
    student = tmp_path / "student"
    assert (student / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert ttq.load(student).config.id2label == {0: "negative", 1: "positive"}


def test_sentences_are_taken_from_the_shortest_to_the_longest():
    texts = ["xxxx", "x", "xxx", "xx", "xxxxx"]
    assert end_to_end.of_all_lengths(texts, 3) == ["x", "xxx", "xxxxx"]
    assert end_to_end.of_all_lengths(texts, 1) == ["x"]
    assert end_to_end.of_all_lengths(texts[:1], 2) == ["xxxx", "xxxx"]
