"""experiments/answering.py measures a process of its own, and records a row for each number of bits."""

import answering
import pytest
import results
import torch


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(answering, "SHAPE", answering.TINY | {"hidden_size": 64, "vocab_size": 3000})
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")


def test_a_folder_is_loaded_in_the_way_that_the_row_says(small, tmp_path):
    ids = torch.arange(4)[None]
    for method, bits in answering.FORMS:
        plan = answering.write(answering.SHAPE, bits, tmp_path / str(bits))
        model = answering.load(tmp_path / str(bits), method)
        assert (plan is None) == (bits == 32) and answering.answer(model, ids).shape == (1, 2)
        names = {type(module).__name__ for module in model.modules()}
        assert ("PackedWeight" in names) == (method == "packed")


def test_a_row_is_written_once_for_each_form(small, tmp_path, monkeypatch, capsys):
    asked = []

    def alone(folder, method, tiny):
        asked.append((folder.name, method, tiny and tiny.name))
        return {"loading": 3_000_000, "answering": 2_000_000 if tiny is None else 1_000_000}

    monkeypatch.setattr(answering, "alone", alone)
    answering.main(["--runs", str(tmp_path)])
    rows = {(row["method"], row["bits"]): row for row in results.read(tmp_path / "results.json")}
    assert [*rows] == answering.FORMS
    assert set(asked) >= {("1", "packed", None), ("1", "ordinary", "tiny 1"), ("32", "dense", "tiny 32")}
    one, two = rows["packed", 1], rows["packed", 2]
    assert one["plan"]["rest"] == 8 and one["ratio"] > two["ratio"] > 5 and rows["ordinary", 1]["ratio"] == one["ratio"]
    means = {name: metric["mean"] for name, metric in two["metrics"].items()}
    assert (means["resident_bytes"], means["own_bytes"], means["loading_bytes"]) == (2_000_000, 1_000_000, 3_000_000)
    assert means["times_float"] > 0 and "own 1.0 ± 0.0 MB" in capsys.readouterr().out
    assert asked.count(("2", "packed", None)) == asked.count(("2", "packed", "tiny 2")) == answering.PROCESSES
    answering.main(["--runs", str(tmp_path)])
    assert capsys.readouterr().out == ""
