"""experiments/memory.py counts what a training step keeps, and records a row for each model."""

import sys

import atis
import memory
import pytest
import results
import torch
from datasets import DatasetDict

import ttqlib as ttq

WORDS, INTENTS, SLOTS = 40, ["a", "b"], ["O", "B-x", "I-x"]


def build(told: str) -> ttq.IntentSlotModel:
    torch.manual_seed(0)
    options = atis.parse([*told.split(), "--hidden", "64"])
    return ttq.compress_(*atis.build(options, WORDS, INTENTS, SLOTS))


def batch(sentences: int = 3, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.arange(sentences * tokens).reshape(sentences, tokens) % WORDS
    labels = {"intent_labels": torch.zeros(sentences, dtype=torch.long), "slot_labels": ids % len(SLOTS)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels}


@pytest.mark.parametrize("name", memory.MODELS)
def test_adam_keeps_four_numbers_for_each_parameter(name):
    model = build(memory.MODELS[name])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    kept = memory.kept_bytes(model, batch())
    own = 4 * ttq.count_parameters(model)
    assert kept["parameter_bytes"] == kept["gradient_bytes"] == own
    assert kept["adam_bytes"] == 2 * own and kept["kept_bytes"] == 4 * own
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))  # a real step


def test_the_batch_is_the_longest_sentences():
    rows = ttq.load_task("flights")["train"].select(range(100))
    tokenizer = ttq.word_tokenizer(rows["tokens"])
    names = ttq.label_names(rows, "intent"), ttq.label_names(rows, "slots")
    lengths = sorted((len(words) + 2 for words in rows["tokens"]), reverse=True)[: memory.BATCH]
    assert memory.longest(rows, tokenizer, *names)["attention_mask"].sum(1).tolist() == lengths


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_rows_are_recorded_once_and_a_process_grows_by_more_than_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "_commit", lambda: "0123456789ab")
    monkeypatch.setattr(memory, "MODELS", {name: memory.MODELS[name] for name in ("dense", "tt-qat")})
    few = DatasetDict({name: rows.select(range(400)) for name, rows in ttq.load_task("flights").items()})
    monkeypatch.setattr(ttq, "load_task", lambda name: few)
    arguments = ["--task", "flights", "--hidden", "128"]
    with monkeypatch.context() as elsewhere:  # where there is no /proc
        elsewhere.setattr(memory, "process_growth", lambda *_: None)
        memory.main([*arguments, "--no-record"])
    assert results.load("memory") == [] and "process" not in capsys.readouterr().out
    memory.main(arguments)
    dense, trains = results.load("memory")
    assert (dense["method"], trains["method"], trains["rank"], trains["bits"]) == ("dense", "tt-qat", 12, 2)
    for row in (dense, trains):
        metrics = {name: metric["mean"] for name, metric in row["metrics"].items()}
        assert metrics["process_bytes"] > metrics["kept_bytes"] > metrics["adam_bytes"] > 0
        assert row["settings"]["vocabulary"] > 500 and row["settings"]["hidden"] == 128
    assert trains["ratio"] == round(dense["stored_bytes"] / trains["stored_bytes"], 2) > 10
    assert dense["metrics"]["kept_bytes"]["mean"] > 2 * trains["metrics"]["kept_bytes"]["mean"]
    capsys.readouterr()
    memory.main(arguments)
    assert capsys.readouterr().out == "flights: there already\n"
