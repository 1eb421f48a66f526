"""experiments/runs.py: what was ever typed still means the same, and what cannot be is refused before training."""

import json
import shlex
from pathlib import Path

import atis
import glue
import memory
import models
import pytest
import results
import runs
import schedules
import speed
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

ROWS = {name: results.load(name) for name in ("atis", "glue", "memory", "speed")}
STUDIES = {"atis": atis.Atis, "glue": glue.Glue}
GONE = {"--made-up"}  # an option that its row's commit had, and that was taken back since
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def arguments(row: dict) -> list[str]:
    return shlex.split(row["command"])[2:]


@pytest.mark.parametrize("name", STUDIES)
def test_an_old_command_means_what_it_meant(name):
    """Its settings, its key and its plan, layer by layer, are those of the row that it once wrote."""
    sizes = ROWS["memory"][0]["settings"]
    counts = sizes["vocabulary"], ["i"] * sizes["intents"], ["s"] * sizes["slots"]
    checked = 0
    for row in ROWS[name]:
        if GONE.intersection(arguments(row)):
            continue
        settings, options = runs.parse(STUDIES[name], arguments(row))
        with torch.device("meta"):
            if name == "atis":
                plan = atis.plan(atis.new_model(settings, *counts), settings)
            else:
                bare = AutoModelForSequenceClassification.from_config(BertConfig(**MINILM))
                plan = models.student_plan(bare, settings) if settings.is_student else None
        own = {"task": settings.task, "method": settings.method, "rank": settings.rank, "bits": settings.bits}
        own |= {"split": row["split"], "seeds": options.seeds, "plan": plan and plan.to_dict()}
        own["settings"] = settings.said()
        if "--hold-out" not in arguments(row) and name == "glue":  # its default has changed once
            own["settings"]["hold_out"] = row["settings"]["hold_out"]
        assert results.key(own) == results.key(row), row["command"]
        assert options.record == ("--record" in arguments(row))  # which older commands did without
        assert options.last or row["split"] in ("validation", "held_out")
        checked += 1
    assert checked >= 50


def test_old_commands_of_measurements_can_still_be_typed():
    for row in ROWS["speed"]:
        assert row["task"] in speed.parse(arguments(row)).tasks
    for row in ROWS["memory"]:
        options = memory.parse(arguments(row))
        assert (options.task, options.hidden) == (row["task"], row["settings"]["hidden"])
        assert options.models[row["method"]].rank == row["rank"]


def test_rows_go_to_runs_unless_they_are_to_be_recorded():
    for study in STUDIES.values():
        _, options = runs.parse(study, [])
        assert results.place(study.name, options) == results.ROOT / "runs" / study.name / "results.json"
        _, options = runs.parse(study, ["--no-record", "--runs", "elsewhere"])
        assert results.place(study.name, options) == Path("elsewhere/results.json")
        _, options = runs.parse(study, ["--record"])
        assert results.place(study.name, options) == results.ROOT / "data" / "results" / f"{study.name}.json"
    for options in (speed.parse([]), memory.parse([])):
        assert not options.record
    assert "runs/" in (results.ROOT / ".gitignore").read_text().splitlines()


# ---------------------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "glue --task sst3": "invalid choice: 'sst3'",
    "glue --schedule sideways": "invalid choice: 'sideways'",
    "glue --rank 0": "--rank must be from 1",
    "glue --rank 8 --bits 9": "invalid choice: 9",
    "glue --rank 8 --rest 4": "invalid choice: 4",
    "glue --rank 8 --word-bits 0": "invalid choice: 0",
    "glue --rank 8 --steps -1": "--steps must be from 0",
    "glue --rank 8 --learning-rate 0": "--learning-rate must be from",
    "glue --rank 8 --learning-rate nan": "--learning-rate must be from",
    "glue --dropout 1": "--dropout must be from 0 to 0.99",
    "glue --rows 0": "--rows must be from 1",
    "glue --seeds": "expected at least one argument",
    "glue --seeds 1 0 1": "different numbers from 0 on, got 1 0 1",
    "glue --seeds -1": "different numbers from 0 on, got -1",
    "glue --save-steps 0": "--save-steps must be from 1",
    "glue --inputs crossed --schedule task": "have no labels for --schedule task",
    "glue --rank 8 --no-such 3": "unrecognized arguments: --no-such 3",
    "atis --task reviews": "invalid choice: 'reviews'",
    "atis --activations 4": "--activations needs --rank",
    "atis --hidden 100 --rank 4": None,  # one head of 100
    "atis --hidden 193": "--hidden must be a multiple of 64",
    "atis --hidden 32": "--hidden must be a multiple of 64",
    "atis --ranks heads=3": "'heads=3' needs --rank",
    "atis --rank 4 --ranks tails=3": "the form GROUP=N",
    "atis --rank 4 --ranks heads=x": "the form GROUP=N",
    "atis --rank 4 --dense-bits heads": "the form GROUP=N",
    "atis --rank 4 --dense-bits =4": "the form GROUP=N",
    "atis --rank 4 --ranks heads=3 --dense-bits heads=4": "each group once",
    "atis --rank 4 --ranks heads=3 heads=4": "each group once",
}


def test_runs_must_be_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(SystemExit):
            runs.parse(atis.Atis, ["--runs", str(tmp_path / name)])
        assert "--runs must be a folder to write to" in capsys.readouterr().err


@pytest.mark.parametrize("told", REFUSED)
def test_bad_settings_are_refused_by_name(told, capsys):
    name, *given = told.split()
    if REFUSED[told] is None:
        runs.parse(STUDIES[name], given)
        return
    with pytest.raises(SystemExit):
        runs.parse(STUDIES[name], given)
    assert REFUSED[told] in capsys.readouterr().err


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_data_that_are_missing_are_asked_for_before_anything_is_trained(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTQ_DATA", str(tmp_path))
    monkeypatch.setattr("ttqlib.tasks.sources._from_hub", lambda task: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(runs, "finished", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        runs.main(study, ["--runs", str(tmp_path / "runs")])
    assert "set TTQ_DATA to a folder that holds" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_bits_of_a_group_that_no_quantizer_has_are_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "finished", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        runs.main(atis.Atis, ["--task", "flights", "--rank", "4", "--dense-bits", "heads=9", "--runs", str(tmp_path)])
    assert "bits must be one of 1 … 8 or 32, got 9" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ settings


def test_methods_and_folders_tell_runs_apart():
    def settings(told: str):
        name, *given = told.split()
        return runs.parse(STUDIES[name], given)[0]

    methods = {
        "glue": "dense",
        "glue --rank 8 --bits 4": "tt-qat",
        "glue --rank 8 --bits 4 --steps 0": "tt-ptq",
        "glue --rank 8": "tt",
        "glue --rank 8 --rest 8": "tt-qat",
        "glue --rest 8": "dense-qat",
        "atis": "dense",
        "atis --hidden 128 --bits 4": "narrow-qat",
        "atis --rank 4 --hidden 64": "tt",
        "atis --rank 4 --sides 1 --activations 8 --epochs 0": "svd-ptq",
    }
    assert {told: settings(told).method for told in methods} == methods
    student = "glue --rank 8 --bits 4 "
    changes = ["", "--rank 9", "--start random", "--schedule task", "--teacher-seed 1", "--dropout 0", "--rows 99"]
    changes += ["--bits 3", "--rest 8", "--task rte", "--teacher small", "--word-rank 7"]
    assert len({settings(student + change).folder for change in changes}) == len(changes)
    alike = ["", "--batch-size 8", "--steps 9", "--rank 3", "--words dense"]  # students of one teacher
    assert len({settings(student + change).of_teacher.folder for change in alike}) == 1
    assert settings(student).of_teacher.folder == settings("glue").folder
    assert settings("atis").folder == settings("atis --word-cores 3 --float-epochs 9").folder  # which do nothing there
    assert settings("atis --rank 4").folder != settings("atis --rank 4 --word-cores 3").folder
    ranks = settings("atis --rank 4 --bits 2 --rest 8 --ranks positions=3 heads=9")
    assert ranks.said()["ranks"] == "heads=9,positions=3" and "dense_bits" not in ranks.in_float.said()
    assert "start" not in ranks.said() and settings("atis --rank 4 --start dense").said()["start"] == "dense"
    assert ranks.dense.folder == settings("atis --learning-rate 2e-4 --epochs 15").folder


@pytest.mark.parametrize("layers", [2, 6, 12])
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_has_the_same_number_of_steps(name, layers):
    settings, _ = runs.parse(glue.Glue, ["--steps", "301", "--last-learning-rate", "1e-4"])
    made = schedules.SCHEDULES[name](settings, BertConfig(num_hidden_layers=layers))
    stages = [stage for schedule in made for stage in schedule.stages({layer: layer for layer in range(layers + 1)})]
    assert sum(stage.steps for stage in stages) == 301
    if name in ("layer_by_layer", "top_down", "one_by_one", "frozen", "states"):
        assert [stage.steps for stage in stages[:-1]] == [round(0.4 * 301 / (layers + 1))] * (layers + 1)
    if len(stages) > 1:
        assert (stages[0].learning_rate, stages[-1].learning_rate) == (None, 1e-4)


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    for step, state in ((20, '{"global_step": 20}'), (9, '{"global_step": 9}'), (40, '{"global_st'), (60, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert runs.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == ["checkpoint-20", "checkpoint-9"]
    assert [name.rpartition("-")[0] for name in names[2:]] == ["unfinished-checkpoint-40", "unfinished-checkpoint-60"]
    assert runs.last_checkpoint(tmp_path / "nowhere") is None


def test_data_are_told_by_all_their_rows():
    rows = {"train": [{"a": 1}, {"a": 2}], "test": [{"a": 3}]}
    changed = [{**rows, "test": [{"a": 4}]}, {**rows, "test": []}, {**rows, "dev": rows["test"]}]
    prints = [runs.fingerprint(splits) for splits in (rows, *changed)]
    assert len(set(prints)) == 4 and runs.fingerprint(json.loads(json.dumps(rows))) == prints[0]
