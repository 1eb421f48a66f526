"""experiments/talking.py and continued.py: engines in processes of their own, the same prompts to all, rows of both."""

import math
import sys
from pathlib import Path

import continued
import numpy as np
import pytest
import results
import runs
import talkers
import talking
import teq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ttqlib as ttq

pytest.importorskip("onnxruntime", reason="onnxruntime is of the extra deploy")
WORDS = ["the", "a", "tree", "runs", "over", "one", "is", "long", "and", "green"]


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 64}  # or turns by position take more than weights
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, tie_word_embeddings=True, eos_token_id=None, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return model.eval()


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A model and texts of a moment."""
    teq.windows.cache_clear(), teq.text_sha256.cache_clear()
    text, cut = " ".join(WORDS[n * n % 10] for n in range(900)), ttq.text_windows
    monkeypatch.setattr(ttq, "pretrained_smollm2", small_model)
    monkeypatch.setattr(ttq, "smollm2_tokenizer", lambda: ttq.word_tokenizer([WORDS]))
    monkeypatch.setattr(ttq, "load_text", lambda name: text)
    monkeypatch.setattr(ttq, "text_windows", lambda text, tokenizer: cut(text, tokenizer, length=16, held_out=8))
    monkeypatch.setattr(talking, "packaged_smollm2", lambda: None)
    monkeypatch.setattr(talking, "READ", 2**20)
    monkeypatch.setattr(talking, "REST", 0.0)
    monkeypatch.setattr(talking, "TOKENS", 9)
    monkeypatch.setattr(talking, "NEW", 6)
    yield
    teq.windows.cache_clear(), teq.text_sha256.cache_clear(), runs.finished.cache_clear()


def teq_runs(tmp_path: Path, *arguments: str) -> Path:
    folder = tmp_path / "teq"
    runs.main(teq.Teq, [*arguments, "--runs", str(folder)])
    return folder


def test_two_engines_talk_in_turns_and_end_in_rows(tmp_path, capsys):
    models = teq_runs(tmp_path, "--bits", "4", "--group", "64", "--recipe", "rtn")
    common = ["--models", str(models), "--runs", str(tmp_path), "--recipe", "rtn", "--rounds", "2", "--windows", "3"]
    talking.main(["--engines", "pytorch", "ours", *common])
    rows = {row["method"]: row for row in results.read(tmp_path / "results.json")}
    assert rows.keys() == {"pytorch", "ours"} and rows["ours"]["settings"]["recipe"] == "rtn"
    mean = {name: {key: one["mean"] for key, one in row["metrics"].items()} for name, row in rows.items()}
    windows = teq.windows("manual").held_out[:3]
    assert mean["pytorch"]["perplexity"] == pytest.approx(ttq.perplexity(small_model(), windows), rel=1e-3)
    made = talking.our_model(models, "rtn")
    assert mean["ours"]["perplexity"] == pytest.approx(ttq.perplexity(made, windows), rel=0.1)  # its inputs are rounded
    assert mean["ours"]["perplexity"] != mean["pytorch"]["perplexity"]
    assert mean["pytorch"]["times_fastest"] == 1 and mean["ours"]["tokens_per_second"] > 0
    assert rows["ours"]["stored_bytes"] < rows["pytorch"]["stored_bytes"] == rows["pytorch"]["dense_bytes"]
    out = capsys.readouterr().out
    assert "pytorch" in out and "tokens a second" in out


def test_the_table_of_our_model_is_one_in_few_bits(tmp_path):
    made = talking.our_model(teq_runs(tmp_path, "--bits", "4", "--group", "64"), "rtn")
    table, head = made.get_input_embeddings(), made.get_output_embeddings()
    assert table.parametrizations["weight"].original is head.parametrizations["weight"].original
    quantizer = table.parametrizations["weight"][0]
    assert quantizer.recipe == talking.WORDS
    levels = table.weight / quantizer.scales(None)["scale"].repeat_interleave(64, 1)
    assert (levels - levels.round()).abs().max() < 1e-3
    assert not torch.equal(table.weight, small_model().get_input_embeddings().weight)


def test_what_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=r"teq\.py --bits 4 --group 64 --recipe clip\+gptq"):
        talking.main(["--engines", "ours", "--models", str(tmp_path), "--runs", str(tmp_path), "--windows", "1"])
    assert not talking.has(sys.executable, "no_such_engine") and talking.has(sys.executable, "json")
    with pytest.raises(SystemExit):
        talking.parse(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err


def test_an_engine_that_fails_says_why(tmp_path):
    process = talking.Process("ours", tmp_path / "nothing", sys.executable, tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"ours failed.*(\n.*)*talk\.json"):
        process.ask("ready")
    process.close()


class Chain:
    """Always the next number, sure of it to a half."""

    def tokens(self, ids):
        return iter(range(ids[-1] + 1, 99))

    def logits(self, ids):
        logits = np.full((len(ids), 16), -math.inf)
        for place, token in enumerate(ids):
            logits[place, [token + 1, token + 2]] = 7.0
        return logits


def test_decoding_counts_the_first_token_apart_and_a_loss_is_that_of_the_next_token():
    found = talkers.decode(Chain(), [3, 4], 5)
    assert found["tokens"] == [5, 6, 7, 8, 9] and found["first"] >= 0 and found["others"] >= 0
    assert talkers.loss(Chain(), [3, 4, 5, 6])["loss"] == pytest.approx(3 * math.log(2))
    assert talkers.loss(Chain(), [3, 4, 5, 9])["loss"] == math.inf


@pytest.mark.parametrize("name", ["genai-4bit", "llama.cpp"])
def test_engines_of_others_are_known_by_their_package(name):
    engine = talking.ENGINES[name]
    if not talking.has(sys.executable, engine.package):
        pytest.skip(f"{engine.package} is not installed: the top of experiments/talking.py says how")
    assert engine.kind in talkers.ENGINES


# ---------------------------------------------------------------------------------------------------------- continued


def test_prompts_are_continued_by_all_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(continued, "FEW", {"bits": 3, "group": "16"})
    monkeypatch.setattr(continued, "PROMPTS", ("the tree", "a long tree runs"))
    models = teq_runs(tmp_path)
    for recipe, problem in (("clip", "teq.py --bits 3 --group 16 --recipe rtn"), ("magic", "--recipe must be rtn")):
        with pytest.raises(SystemExit):
            continued.main(["--models", str(models), "--runs", str(tmp_path), "--recipe", recipe])
        assert problem in capsys.readouterr().err
    for recipe in ("rtn", "clip"):
        teq_runs(tmp_path, "--bits", "3", "--group", "16", "--recipe", recipe)
    continued.main(["--models", str(models), "--runs", str(tmp_path), "--recipe", "clip"])
    rows = results.read(tmp_path / "results.json")
    assert [row["method"] for row in rows] == ["dense", "rtn", "clip"]
    assert all([one["prompt"] for one in row["texts"]] == ["the tree", "a long tree runs"] for row in rows)
    dense, plain, _ = (row["metrics"]["tokens_alike"]["mean"] for row in rows)
    assert dense == continued.NEW > plain
    assert "tokens as float" in capsys.readouterr().out


def test_texts_are_alike_up_to_their_first_difference():
    assert continued.alike([1, 2, 3], [1, 2, 4]) == 2 == continued.alike([1, 2], [1, 2, 3])
    assert continued.alike([5], [6]) == 0
