"""experiments/atis.py as a user runs it: a run that was killed goes on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import atis
import bookkeeping
import pytest
import torch
from safetensors.torch import load_file

import ttqlib as ttq

ROOT = Path(__file__).parents[2]
SMALL = ["--task", "atis", "--hidden", "64", "--epochs", "1", "--rank", "4", "--learning-rate", "4e-3"]
SMALL += ["--save-steps", "10", "--no-record"]
ROWS = {"train": 1600, "validation": 200, "test": 50}  # 50 steps of 32 sentences


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder for TTQ_DATA: under the name of ATIS so few of the embedded sentences that a run takes seconds."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "atis").mkdir()
    for split, count in ROWS.items():
        lines = (ROOT / "data" / "flights" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "atis" / f"{split}.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.fixture(scope="module")
def run(data):
    """The script in this process, as a function of the folder of its runs and further options.

    A process of its own would take longer to import its libraries than to train. One thread, as there.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as told:
        told.setenv("TTQ_DATA", str(data))

        def main(runs: Path, *more: str) -> None:
            told.setattr(sys, "argv", ["experiments/atis.py", *SMALL, "--runs", str(runs), *more])
            atis.main()

        yield main
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Path:
    """The runs of one that nothing has disturbed."""
    runs = tmp_path_factory.mktemp("runs") / "whole"
    run(runs)
    return runs


def start(runs: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, "experiments/atis.py", *SMALL, "--runs", str(runs)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "TTQ_DATA": str(data)}, **quiet
    )


def finished(runs: Path) -> tuple[dict, dict]:
    """The trained weights and the report."""
    (folder,) = runs.glob("*/seed-0")
    return load_file(folder / "weights.safetensors"), json.loads((folder / "finished.json").read_text())


def test_a_killed_run_goes_on_as_if_nothing_had_happened(whole, run, data, tmp_path):
    process, end = start(tmp_path, data), time.monotonic() + 200
    while not list(tmp_path.glob("*/seed-0/checkpoint-[23]0")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # in the middle of the only epoch
    assert process.wait() == -signal.SIGKILL
    assert not list(tmp_path.glob("*/seed-0/weights.safetensors"))
    run(tmp_path)
    (weights, report), (resumed, resumed_report) = finished(whole), finished(tmp_path)
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert resumed_report["validation"] == report["validation"]


def test_a_run_learns(whole, run):
    splits = ttq.load_task("atis")
    tokenizer = ttq.word_tokenizer(splits["train"]["tokens"])
    names = ttq.label_names(splits["train"], "intent"), ttq.label_names(splits["train"], "slots")
    model, _ = atis.build(atis.parse(SMALL), len(tokenizer), *names)
    rows = ttq.encode(splits["validation"], tokenizer, *names, atis.POSITIONS)
    batch = ttq.IntentSlotCollator(tokenizer)(list(rows))
    with torch.no_grad():
        before = model.eval()(**batch).loss
        model.load_state_dict(finished(whole)[0])
        assert model(**batch).loss < 0.6 * before


def test_a_finished_run_is_not_trained_again(whole, run, tmp_path):
    runs = shutil.copytree(whole, tmp_path / "runs")
    run(runs)
    (weights, report), (again, same) = finished(whole), finished(runs)
    assert same == report and all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_quantized_run_starts_from_the_float_run_of_its_rank(whole, run, tmp_path):
    floats, _ = finished(whole)
    runs = shutil.copytree(whole, tmp_path / "runs")
    quantized = ["--bits", "4", "--rest", "8", "--epochs", "0", "--float-epochs", "1", "--float-learning-rate", "4e-3"]
    run(runs, *quantized)
    (folder,) = runs.glob("atis-tt4-4bit-*/seed-0")
    weights, latent = load_file(folder / "weights.safetensors"), ".parametrizations.core0.original"
    core = "bert.encoder.layer.0.output.dense"
    assert torch.equal(weights[core + latent], floats[core + ".core0"])  # zero epochs: quantized, and not trained
    assert "slot_head.parametrizations.weight.0.scale" in weights
    assert json.loads((folder / "finished.json").read_text())["validation"]["intent_accuracy"] > 30
    assert len(list(runs.iterdir())) == 2  # the float run was found, not trained again


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    for step, state in ((20, '{"global_step": 20}'), (9, '{"global_step": 9}'), (40, '{"global_st'), (60, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert bookkeeping.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "checkpoint-9"]
    assert bookkeeping.last_checkpoint(tmp_path / "nowhere") is None


def test_groups_of_layers_may_have_ranks_or_bits_of_their_own():
    given = "--rank 4 --bits 2 --rest 8 --ranks positions=3 --dense-bits heads=5 --hidden 64"
    options = atis.parse(given.split())
    _, recipes = atis.build(options, 50, ["a", "b"], ["O", "B-x"])
    layers = recipes.layers
    assert layers["bert.embeddings.position_embeddings"].format.rank == 3
    assert layers["bert.embeddings.word_embeddings"].format.rank == 4
    assert layers["slot_head"] == layers["intent_head"] == ttq.LayerPlan(quantize=ttq.LSQ(5, per="channel"))
    query = layers["bert.encoder.layer.0.attention.self.query"]
    assert query == ttq.LayerPlan(ttq.TT(4), ttq.LSQ(2))
    assert atis.settings(options)["ranks"] == "positions=3"
    floats = atis.settings(atis.float_run(options))  # which knows of ranks, and of no bits
    assert "dense_bits" not in floats and floats["ranks"] == "positions=3"


@pytest.mark.parametrize("wrong", ["--ranks tails=3", "--ranks heads=x", "--dense-bits heads", "--dense-bits =4"])
def test_a_group_that_is_not_there_or_has_no_number_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        atis.parse(["--rank", "4", *wrong.split()])
    assert "GROUP=N" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        atis.parse(["--ranks", "heads=3"])  # of what is not a tensor train


@pytest.mark.parametrize("twice", ["--ranks heads=3 --dense-bits heads=4", "--ranks heads=3 heads=4"])
def test_a_group_is_named_once(twice, capsys):
    with pytest.raises(SystemExit):
        atis.parse(["--rank", "4", *twice.split()])
    assert "each group once" in capsys.readouterr().err


def test_a_narrow_model_is_measured_against_the_wide_one():
    narrow = atis.parse(["--hidden", "128", "--bits", "4"])
    assert atis.method(narrow) == "narrow-qat" and atis.dense_run(narrow).hidden == 768
    assert atis.method(atis.parse([])) == "dense"
    assert atis.method(atis.parse(["--rank", "4", "--hidden", "64"])) == "tt"


def test_trains_can_start_from_the_dense_run_of_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(atis, "WIDTH", 64)
    monkeypatch.setattr(atis, "DENSE", {**atis.DENSE, "epochs": 1})
    monkeypatch.setattr(atis, "CALIBRATION", 48)
    splits = ttq.load_task("flights")
    splits = {name: rows.select(range(64)) for name, rows in splits.items()}
    tokenizer = ttq.word_tokenizer(splits["train"]["tokens"])
    names = ttq.label_names(splits["train"], "intent"), ttq.label_names(splits["train"], "slots")
    given = f"--task flights --rank 40 --sides 1 --hidden 64 --epochs 0 --start dense --runs {tmp_path}"
    given += " --dense-bits words=8"
    options = atis.float_run(atis.parse(given.split()))
    model = atis.from_dense(options, 0, splits, tokenizer, *names)
    assert [folder.name.split("-")[1] for folder in tmp_path.iterdir()] == ["dense"]
    dense, _ = atis.build(atis.dense_run(options), len(tokenizer), *names)
    dense.load_state_dict(load_file(next(tmp_path.rglob("weights.safetensors"))))
    collate = ttq.IntentSlotCollator(tokenizer)
    batch = collate(list(ttq.encode(splits["test"], tokenizer, *names, atis.POSITIONS).select(range(8))))
    with torch.no_grad():
        small, large, other = (
            m.eval()(**batch).slot_logits for m in (model, dense, atis.build(options, len(tokenizer), *names)[0])
        )
        assert ttq.relative_error(large, small) < 0.4 < 0.8 < ttq.relative_error(large, other)  # a random start
        layer = model.bert.encoder.layer[0].intermediate.dense
        assert isinstance(layer, ttq.TTLinear) and layer.order == 2
    quantized = atis.parse([*given.split(), "--bits", "8"])
    assert atis.method(quantized) == "svd-ptq" and atis.settings(quantized)["start"] == "dense"


def test_a_group_takes_its_layers_and_the_rest_theirs():
    options = atis.parse(
        ["--rank=4", "--sides=2", "--hidden=64", "--ranks", "attention=3", "feed-forward=2", "heads=1"]
    )
    layers = atis.build(options, 300, list("abcde"), list("abcdefgh"))[1].layers
    ranks = {name.removeprefix("bert."): layer.format.rank for name, layer in layers.items()}
    assert ranks["encoder.layer.1.attention.output.dense"] == ranks["encoder.layer.0.attention.self.key"] == 3
    assert ranks["encoder.layer.0.intermediate.dense"] == ranks["encoder.layer.1.output.dense"] == 2
    assert ranks["slot_head"] == ranks["intent_head"] == 1 and ranks["embeddings.word_embeddings"] == 4
    assert len(ranks) == 2 * 6 + 3 and len(layers["bert.encoder.layer.0.output.dense"].format.in_modes) == 2
