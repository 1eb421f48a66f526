"""experiments/answering.py measures a process of its own, and records a row for each number of bits."""

import answering
import pytest
import results
import torch


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(answering, "SHAPE", answering.TINY | {"hidden_size": 64, "vocab_size": 3000})
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")


def test_what_few_bits_say_is_loaded_packed_and_what_many_say_is_not(small, tmp_path):
    ids = torch.arange(4)[None]
    for bits in answering.RECIPES:
        plan = answering.write(answering.SHAPE, bits, tmp_path / str(bits))
        model = answering.load(tmp_path / str(bits))
        assert (plan is None) == (bits == 32) and answering.answer(model, ids).shape == (1, 2)
        names = {type(module).__name__ for module in model.modules()}
        assert ("PackedWeight" in names) == (bits != 32)


def test_a_row_is_written_once_for_each_number_of_bits(small, tmp_path, monkeypatch, capsys):
    asked = []

    def alone(folder, tiny):
        asked.append((folder.name, tiny and tiny.name))
        return {"loading": 3_000_000, "answering": 2_000_000 if tiny is None else 1_000_000}

    monkeypatch.setattr(answering, "alone", alone)
    answering.main(["--runs", str(tmp_path)])
    rows = {row["bits"]: row for row in results.read(tmp_path / "results.json")}
    assert rows.keys() == {32, 1, 2} and set(asked) >= {("1", None), ("1", "tiny 1"), ("32", "tiny 32")}
    assert rows[1]["method"] == "packed" and rows[1]["plan"]["rest"] == 8 and rows[1]["ratio"] > rows[2]["ratio"] > 5
    means = {name: metric["mean"] for name, metric in rows[2]["metrics"].items()}
    assert (means["resident_bytes"], means["own_bytes"], means["loading_bytes"]) == (2_000_000, 1_000_000, 3_000_000)
    assert means["times_float"] > 0 and "own 1.0 MB" in capsys.readouterr().out
    answering.main(["--runs", str(tmp_path)])
    assert capsys.readouterr().out == ""
