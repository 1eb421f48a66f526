"""experiments/atis.py as a user runs it: what a run starts from is trained before it, and once; plans by groups."""

import copy
import json
from pathlib import Path

import atis
import pytest
import results
import runs
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import ttqlib as ttq

ROOT = Path(__file__).parents[2]
SMALL = ["--task", "atis", "--hidden", "64", "--epochs", "1", "--rank", "4", "--learning-rate", "4e-3"]
SMALL += ["--save-steps", "10"]
ROWS = {"train": 1280, "validation": 200, "test": 50}  # 40 steps of 32 sentences
COUNTS = 50, ["a", "b"], ["O", "B-x"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder for TTQ_DATA: under the name of ATIS so few of the embedded sentences that a run takes seconds."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "atis").mkdir()
    for split, count in ROWS.items():
        lines = (ROOT / "data" / "flights" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "atis" / f"{split}.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.fixture(autouse=True)
def small(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TTQ_DATA", str(data))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """The runs of one that nothing has disturbed."""
    with pytest.MonkeyPatch.context() as told:
        told.setenv("TTQ_DATA", str(data))
        folder = tmp_path_factory.mktemp("runs")
        runs.main(atis.Atis, [*SMALL, "--runs", str(folder)])
    return folder


def settings(told: str) -> atis.Training:
    return runs.parse(atis.Atis, told.split())[0]


def plan(told: str) -> dict:
    chosen = settings(told)
    with torch.device("meta"):
        return atis.plan(atis.new_model(chosen, *COUNTS), chosen).layers


def weights(folder: Path) -> dict:
    (found,) = folder.glob("atis/*/seed-0/model/model.safetensors")
    return load_file(found)


def test_a_run_learns_and_is_scored(whole):
    (row,) = results.read(whole / "results.json")
    assert (row["split"], row["method"], row["rank"], row["data"]) == ("validation", "tt", 4, "atis")
    assert row["metrics"]["intent_accuracy"]["mean"] > 30 and row["ratio"] > 50  # the dense model is 768 wide
    (report,) = whole.glob("atis/*/seed-0/finished.json")
    assert json.loads(report.read_text())["validation"]["slot_f1"] == pytest.approx(
        row["metrics"]["slot_f1"]["mean"], abs=1e-3
    )
    made = atis.Atis(*runs.parse(atis.Atis, SMALL))
    batch = made.data.collate(list(made.data.encoded["validation"]))
    untrained = made.new(made.settings, None).eval()
    trained = ttq.IntentSlotModel.from_pretrained(report.parent / "model")
    with torch.no_grad():
        assert trained(**batch).loss < 0.6 * untrained(**batch).loss


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(whole, tmp_path, monkeypatch):
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **others):
            if state.global_step == 25:
                raise KeyboardInterrupt

    own = atis.Atis.trainer

    def trainer(*given):
        made = own(*given)
        made.add_callback(Interrupt())
        return made

    told = [*SMALL, "--runs", str(tmp_path / "runs")]
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(atis.Atis, "trainer", trainer)
        runs.main(atis.Atis, told)
    assert list((tmp_path / "runs").glob("atis/*/seed-0/checkpoint-20"))
    assert not list((tmp_path / "runs").rglob("finished.json")) and not (tmp_path / "runs" / "results.json").exists()
    runs.main(atis.Atis, told)
    resumed, other = weights(tmp_path / "runs"), weights(whole)
    assert resumed.keys() == other.keys() and all(torch.equal(resumed[name], other[name]) for name in resumed)
    (row,), (expected,) = (results.read(folder / "results.json") for folder in (tmp_path / "runs", whole))
    assert results.key(row) == results.key(expected) and row["metrics"] == expected["metrics"]


def test_a_quantized_run_starts_from_the_float_run_of_its_rank_and_does_not_need_it_twice(whole, tmp_path):
    (float_run,) = whole.glob("atis/*")
    (tmp_path / "runs" / "atis").mkdir(parents=True)
    float_run.rename(tmp_path / "runs" / "atis" / float_run.name)
    given = ["--bits", "4", "--rest", "8", "--epochs", "0", "--float-epochs", "1", "--float-learning-rate", "4e-3"]
    told = [*SMALL, *given, "--runs", str(tmp_path / "runs")]
    try:
        runs.main(atis.Atis, told)
        (row,) = results.read(tmp_path / "runs" / "results.json")
        assert row["method"] == "tt-ptq" and row["metrics"]["intent_accuracy"]["mean"] > 30
        made = {path.name for path in (tmp_path / "runs" / "atis").iterdir()}
        assert len(made) == 2 and float_run.name in made  # the float run was found, not trained again
        (folder,) = (tmp_path / "runs").glob("atis/tt-ptq*/seed-0/model")
        floats = load_file(tmp_path / "runs" / "atis" / float_run.name / "seed-0" / "model" / "model.safetensors")
        core = ttq.IntentSlotModel.from_pretrained(folder).bert.encoder.layer[0].output.dense.core0
        error = (core - floats["bert.encoder.layer.0.output.dense.core0"]).abs().max()
        assert 0 < error < 0.2 * core.abs().max() and len(core.unique()) <= 16  # rounded, and not trained
    finally:
        (tmp_path / "runs" / "atis" / float_run.name).rename(float_run)
    runs.main(atis.Atis, told)  # the float run is not there any more, and is not missed
    assert len(list((tmp_path / "runs" / "atis").iterdir())) == 1
    runs.main(atis.Atis, [*told, "--test"])  # nor where another split is scored
    assert {row["split"] for row in results.read(tmp_path / "runs" / "results.json")} == {"validation", "test"}
    assert len(list((tmp_path / "runs" / "atis").iterdir())) == 1


def test_trains_can_start_from_the_dense_run_of_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(atis, "WIDTH", 64)
    monkeypatch.setattr(atis, "DENSE", {**atis.DENSE, "epochs": 1})
    monkeypatch.setattr(atis, "CALIBRATION", 48)
    given = ["--rank", "40", "--sides", "1", "--hidden", "64", "--start", "dense", "--rows", "64"]
    made = atis.Atis(*runs.parse(atis.Atis, [*given, "--dropout", "0.2", "--runs", str(tmp_path)]))
    start, seed = made.start(made.settings, 3)
    assert (start.method, start.dropout, seed) == ("dense", 0.1, 3) and made.start(start, 3) is None
    dense = runs.finished(made, start, 3)[0]
    assert [folder.name.split("-")[0] for folder in (tmp_path / "atis").iterdir()] == ["dense"]
    model, before = made.new(made.settings, dense), copy.deepcopy(dense.state_dict())
    rows = made.data.encoded["test"].select(range(8))
    batch = made.data.collate(list(rows))
    with torch.no_grad():
        small, large, other = (
            m.eval()(**batch).slot_logits for m in (model, dense, made.new(settings("--rank 40 --hidden 64"), None))
        )
    assert ttq.relative_error(large, small) < 0.4 < 0.8 < ttq.relative_error(large, other)  # a random start
    layer = model.bert.encoder.layer[0].intermediate.dense
    assert isinstance(layer, ttq.TTLinear) and layer.order == 2 and model.dropout.p == 0.2
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())  # it may start others
    quantized = settings("--rank 40 --sides 1 --start dense --epochs 0 --bits 8")
    assert quantized.method == "svd-ptq" and quantized.said()["start"] == "dense"
    assert made.start(quantized, 0) == (quantized.in_float, 0) and made.start(quantized.in_float, 0)[0].rank is None


def test_both_layers_can_share_a_side_of_every_matrix():
    for side in ("input", "output", "both"):
        layers = plan(f"--rank 12 --sides 1 --share {side} --bits 2")
        forms = {name: layer.format for name, layer in layers.items() if isinstance(layer.format, ttq.Shared)}
        assert len(forms) == 12 and {form.side for form in forms.values()} == {side}
        assert len({form.group for form in forms.values()}) == 6 and {form.rank for form in forms.values()} == {12}
        for place in (0, 1):
            assert forms[f"bert.encoder.layer.{place}.output.dense"].group == "output.dense"
    assert settings("--rank 12 --sides 1 --share both --bits 2").method == "shared-qat"
    assert settings("--rank 12 --sides 1 --share both --start dense").dense.share is None
    for told in ("--rank 12 --share both", "--share input --sides 1"):
        with pytest.raises(SystemExit):
            settings(told)


def test_a_narrow_model_is_measured_against_the_wide_one():
    made = atis.Atis(*runs.parse(atis.Atis, ["--hidden", "128", "--bits", "4"]))
    wide = sum(tensor.numel() for tensor in made.model(made.settings.dense).state_dict().values())
    assert made.settings.method == "narrow-qat" and 4 * wide < made.dense_bytes() < 4.1 * wide


def test_groups_of_layers_may_have_ranks_or_bits_of_their_own():
    layers = plan("--rank 4 --bits 2 --rest 8 --ranks positions=3 --dense-bits heads=5 --hidden 64 --activations 8")
    assert layers["bert.embeddings.position_embeddings"].format.rank == 3
    assert layers["bert.embeddings.word_embeddings"].format.rank == 4
    eight = ttq.DynamicActivation(8)
    assert layers["slot_head"] == layers["intent_head"] == ttq.LayerPlan(None, ttq.LSQ(5, per="channel"), eight)
    assert layers["bert.encoder.layer.0.attention.self.query"] == ttq.LayerPlan(ttq.TT(4), ttq.LSQ(2), eight)


def test_a_group_takes_its_layers_and_the_rest_theirs():
    layers = plan("--rank 4 --sides 2 --hidden 64 --ranks attention=3 feed-forward=2 heads=1")
    ranks = {name.removeprefix("bert."): layer.format.rank for name, layer in layers.items()}
    assert ranks["encoder.layer.1.attention.output.dense"] == ranks["encoder.layer.0.attention.self.key"] == 3
    assert ranks["encoder.layer.0.intermediate.dense"] == ranks["encoder.layer.1.output.dense"] == 2
    assert ranks["slot_head"] == ranks["intent_head"] == 1 and ranks["embeddings.word_embeddings"] == 4
    assert len(ranks) == 2 * 6 + 3 and len(layers["bert.encoder.layer.0.output.dense"].format.in_modes) == 2
