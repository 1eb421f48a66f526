"""experiments/guessing.py: the commonest answer of training, and what it is worth on rows that were not looked at."""

import guessing
import pytest
import results
from datasets import Dataset

from tests.experiments.small import COUNTS, write_task


def test_the_class_that_is_commonest_in_training_is_given_to_every_row():
    train, rows = Dataset.from_dict({"label": [0, 1, 1]}), Dataset.from_dict({"label": [0, 0, 0, 1]})
    assert guessing.classes("sst2", train, rows) == {"accuracy": 25.0, "rows": 4}


def test_intents_and_slots_of_training_are_given_to_every_sentence():
    train = Dataset.from_dict({"intent": ["a", "b", "b"], "slots": [["O", "O"], ["B-x"], ["O"]]})
    rows = Dataset.from_dict({"intent": ["b", "a"], "slots": [["O", "B-x"], ["O"]]})
    assert guessing.intents_and_slots(train, rows) == {"intent_accuracy": 50.0, "slot_f1": 0.0, "rows": 2}


def test_rows_are_written_for_each_split_that_has_labels(tmp_path, monkeypatch, capsys):
    write_task(tmp_path, "sst2", COUNTS)
    monkeypatch.setenv("TTQ_DATA", str(tmp_path))
    guessing.main(["sst2", "--runs", str(tmp_path / "runs")])
    rows = results.read(tmp_path / "runs" / "results.json")
    ways = [(row["split"], (row["settings"] or {}).get("hold_out")) for row in rows]
    assert ways == [("held_out", "sentences"), ("held_out", "rows"), ("validation", None)]
    assert all(0 < row["metrics"]["accuracy"]["mean"] <= 100 for row in rows)
    assert "accuracy" in capsys.readouterr().out


def test_an_unknown_task_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        guessing.main(["sst3"])
    assert "no task is called sst3" in capsys.readouterr().err
