"""experiments/allocate.py as a user runs it, with a small teacher: equal bytes, predictions that are checked."""

import allocate
import pytest
import results
import runs
import torch

import ttqlib as ttq
from tests.experiments.small import write_task

TOLD = ["--task", "sst2", "--teacher", "small", "--teacher-epochs", "1", "--teacher-learning-rate", "1e-3"]
TOLD += ["--ratio", "20", "--steps", "8", "--core-bits", "2,8", "--batch-size", "4"]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_task(folder, "sst2", {"train": 48, "validation": 8})
    return folder


@pytest.fixture(autouse=True)
def apart(data_folder, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("TTQ_DATA", str(data_folder))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    yield
    torch.set_num_threads(threads)


def test_rules_spend_the_same_bytes_and_say_what_they_predicted(tmp_path):
    where = ["--runs", str(tmp_path / "runs")]
    for rule in ("knapsack", "uniform"):
        runs.main(allocate.AllocatedGlue, [*TOLD, *where, "--rule", rule])
    ours, uniform = results.read(tmp_path / "runs" / "results.json")
    assert (ours["method"], uniform["method"]) == ("allocated-qat", "uniform-qat")
    assert 0.97 * uniform["stored_bytes"] < ours["stored_bytes"] <= uniform["stored_bytes"]
    assert ours["metrics"]["predicted_mnat"]["mean"] <= uniform["metrics"]["predicted_mnat"]["mean"]
    assert ours["plan"] != uniform["plan"] and ours["settings"]["ratio"] == 20 and "word_cores" not in ours["settings"]
    assert len(list((tmp_path / "runs").glob("sst2/dense-*"))) == 1  # both start from one float run


def test_predictions_are_rows_and_so_is_their_agreement(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(allocate, "SPREAD", (1.0, 0.6))
    monkeypatch.setattr(allocate, "DISTURBED", ((2.0, 0),))
    allocate.predict(allocate.AllocatedGlue, [*TOLD, "--runs", str(tmp_path / "runs")])
    *plans, last = results.read(tmp_path / "runs" / "results.json")
    assert {row["method"] for row in plans} == {"predicted"} and last["method"] == "prediction"
    assert last["metrics"]["plans"]["mean"] == 10 and -1 <= last["metrics"]["rank_correlation"]["mean"] <= 1
    sizes = [row["stored_bytes"] for row in plans]
    assert max(sizes) < 2.1 * min(sizes)
    assert all({"predicted_mnat", "measured_mnat"} == row["metrics"].keys() for row in plans)
    assert "rank correlation" in capsys.readouterr().out


def test_losses_are_measured_and_checked_on_rows_that_nothing_was_trained_on(tmp_path, monkeypatch):
    """On rows that it has learned the float model is so sure that no error seems to cost anything."""
    study = allocate.AllocatedGlue(*runs.parse(allocate.AllocatedGlue, [*TOLD, "--runs", str(tmp_path)]))

    def sentences(batches) -> set:
        return {tuple(ids[ids > 0].tolist()) for batch in batches for ids in batch["input_ids"]}

    held, train = (sentences(study.batches(study.data.encoded[split])) for split in (study.scored[0], "train"))
    measured, checked = sentences(study.unseen(0)), sentences(study.unseen(1))
    assert measured | checked == held and not measured & checked and not held & train and len(held) > 1
    seen = []
    monkeypatch.setattr(ttq, "measure_candidates", lambda student, batches, **_: seen.append(sentences(batches)))
    study.candidates(None)
    assert seen == [measured]


def test_the_float_run_of_atis_is_that_of_its_own_script(tmp_path):
    told = ["--task", "flights", "--runs", str(tmp_path)]
    settings, _ = runs.parse(allocate.AllocatedAtis, [*told, "--ratio", "300", "--epochs", "40"])
    plain, _ = runs.parse(allocate.atis.Atis, told)
    assert settings.float_run == plain.dense and settings.float_run.folder == plain.dense.folder
    assert settings.folder != settings.float_run.folder and settings.trains and settings.method == "allocated-qat"
    assert ttq.TTQConfig().rest == 32 and settings.said()["ratio"] == 300


def test_a_ratio_below_one_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        runs.parse(allocate.AllocatedGlue, ["--ratio", "0.5"])
