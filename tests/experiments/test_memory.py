"""experiments/memory.py counts what a training step keeps, and records a row for each model."""

import atis
import memory
import pytest
import results
import torch
from datasets import DatasetDict

import ttqlib as ttq

WORDS, INTENTS, SLOTS = 40, ["a", "b"], ["O", "B-x", "I-x"]


def build(name: str) -> ttq.IntentSlotModel:
    torch.manual_seed(0)
    return atis.built(atis.Training(hidden=64, **memory.MODELS[name]), WORDS, INTENTS, SLOTS)


def batch(sentences: int = 3, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.arange(sentences * tokens).reshape(sentences, tokens) % WORDS
    labels = {"intent_labels": torch.zeros(sentences, dtype=torch.long), "slot_labels": ids % len(SLOTS)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels}


@pytest.mark.parametrize("name", memory.MODELS)
def test_adam_keeps_four_numbers_for_each_parameter(name):
    model = build(name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    kept = memory.kept_bytes(model, batch())
    own = 4 * ttq.count_parameters(model)
    assert kept["parameter_bytes"] == kept["gradient_bytes"] == own
    assert kept["adam_bytes"] == 2 * own and kept["kept_bytes"] == 4 * own
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))  # a real step


@pytest.fixture
def few(monkeypatch):
    rows = DatasetDict({name: rows.select(range(200)) for name, rows in ttq.load_task("flights").items()})
    monkeypatch.setattr(ttq, "load_task", lambda name: rows)


def test_the_batch_is_the_longest_sentences(few):
    data = atis.Data("flights")
    lengths = sorted((len(words) + 2 for words in data.splits["train"]["tokens"]), reverse=True)[: memory.BATCH]
    assert memory.longest(data)["attention_mask"].sum(1).tolist() == lengths


def test_a_row_is_written_once_for_each_model(few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(memory, "process_growth", lambda *_: None)  # as where there is no /proc
    arguments = ["--task", "flights", "--hidden", "64", "--runs", str(tmp_path)]
    memory.main(arguments)
    assert "process" not in capsys.readouterr().out and not (tmp_path / "results").exists()
    dense, _, trains = results.read(tmp_path / "results.json")
    assert (dense["method"], trains["method"], trains["rank"], trains["bits"]) == ("dense", "tt-qat", 12, 2)
    for row in (dense, trains):
        assert row["metrics"]["kept_bytes"]["mean"] > row["metrics"]["adam_bytes"]["mean"] > 0
        assert row["settings"]["vocabulary"] > 300 and row["settings"]["hidden"] == 64
    assert trains["ratio"] == round(dense["stored_bytes"] / trains["stored_bytes"], 2) > 4
    assert dense["metrics"]["kept_bytes"]["mean"] > 1.5 * trains["metrics"]["kept_bytes"]["mean"]
    memory.main(arguments)
    assert capsys.readouterr().out == "flights: there already\n"
    memory.main([*arguments, "--record"])
    assert len(results.load("memory")) == len(memory.MODELS)
    with pytest.raises(SystemExit):
        memory.main(["--hidden", "193"])
    assert "--hidden must be a multiple of 64" in capsys.readouterr().err


def test_a_fresh_process_trains_the_stored_model(few, monkeypatch):
    """Here it is this one, for a process of its own takes longer to import its libraries than to train."""
    losses, own = [], memory.step

    def step(model, optimizer, batch):
        losses.append(model(**batch).loss.item())
        own(model, optimizer, batch)

    monkeypatch.setattr(memory, "process_growth", lambda function, *given: function(*given) or 10**9)
    monkeypatch.setattr(memory, "step", step)
    data = atis.Data("flights")
    found, *_ = memory.measure(atis.Training(hidden=64, **memory.MODELS["tt-qat"]), data, memory.longest(data))
    assert found["process_bytes"] == 10**9 > found["kept_bytes"] > 0
    assert len(losses) == memory.STEPS + 1 and losses[memory.STEPS - 1] < losses[0]
