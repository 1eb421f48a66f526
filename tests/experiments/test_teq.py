"""experiments/teq.py: recipes in their order, runs on a small model that end in rows, and how rows are read."""

import math

import peers
import pytest
import results
import runs
import teq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ttqlib as ttq

WORDS = ["the", "a", "tree", "runs", "over", "one", "is", "long", "and", "green"]


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, tie_word_embeddings=True, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A model and texts of a moment."""
    teq.windows.cache_clear(), teq.text_sha256.cache_clear()
    texts = {name: " ".join(WORDS[(n * n + k) % 10] for n in range(900)) for k, name in enumerate(teq.TEXTS)}
    cut = ttq.text_windows
    monkeypatch.setattr(ttq, "pretrained_smollm2", small_model)
    monkeypatch.setattr(ttq, "smollm2_tokenizer", lambda: ttq.word_tokenizer([WORDS]))
    monkeypatch.setattr(ttq, "load_text", texts.__getitem__)
    monkeypatch.setattr(ttq, "text_windows", lambda text, tokenizer: cut(text, tokenizer, length=16, held_out=8))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    yield
    teq.windows.cache_clear(), teq.text_sha256.cache_clear(), runs.finished.cache_clear()


def run(tmp_path, *arguments: str) -> list[dict]:
    runs.main(teq.Teq, [*arguments, "--runs", str(tmp_path)])
    return results.read(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--bits", "3", "--recipe", "clip+awq"], "in this order"),
        (["--bits", "3", "--recipe", "clip+clip"], "in this order"),
        (["--bits", "3", "--recipe", "magic"], "--recipe must be rtn, a peer"),
        (["--recipe", "clip"], "needs --bits below 32"),
        (["--bits", "3", "--group", "0"], "--group must be 'channel' or a number"),
        (["--bits", "3", "--recipe", "gguf-q4_0"], "has --bits 4 --group 32"),
        (["--bits", "3", "--rank", "8"], "leave --rank and --rest out"),
        (["--rest", "8"], "leave --rank and --rest out"),
        (["--bits", "3", "--recipe", "auto-round", "--python", "/nowhere"], "--python must be an interpreter"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, problem, capsys):
    with pytest.raises(SystemExit):
        runs.parse(teq.Teq, arguments)
    assert problem in capsys.readouterr().err


def test_rows_of_a_small_model(tmp_path, capsys):
    run(tmp_path)
    run(tmp_path, "--bits", "3", "--group", "16")
    rows = run(tmp_path, "--bits", "3", "--group", "16", "--recipe", "clip+gptq", "--rows", "8", "--docstrings")
    assert [(row["method"], row["split"], row["bits"]) for row in rows] == [
        ("dense", "manual", 32),
        ("rtn", "manual", 3),
        ("clip+gptq", "manual", 3),
        ("clip+gptq", "docstrings", 3),
    ]
    dense, plain, best, _ = rows
    assert plain["settings"].keys() == {"group", "text_sha256"} and best["settings"]["rows"] == 8
    assert dense["ratio"] == 1 and best["stored_bytes"] == plain["stored_bytes"] < dense["stored_bytes"]
    assert {row["seeds"][0] for row in rows} == {0}
    assert "clip+gptq: " in capsys.readouterr().out
    (again,) = [row for row in run(tmp_path, "--bits", "3", "--group", "16") if row["method"] == "rtn"]
    assert again["metrics"] == plain["metrics"]


def test_the_model_that_is_measured_is_the_one_that_was_read_again(tmp_path):
    (row,) = run(tmp_path, "--bits", "3", "--group", "channel", "--recipe", "rounding", "--steps", "3", "--rows", "8")
    folder = next(tmp_path.glob("manual/rounding-3bit-*/seed-0/model"))
    model = LlamaForCausalLM.from_pretrained(folder)
    assert row["metrics"]["perplexity"]["mean"] == pytest.approx(
        ttq.perplexity(model, teq.windows("manual").held_out), abs=1e-3
    )
    assert row["settings"]["steps"] == 3 and row["settings"]["group"] == "channel"


def test_teq_trains_its_scales_once_in_a_run_of_their_own_and_folds_them(tmp_path):
    shape = ["--bits", "2", "--group", "16", "--rows", "16", "--scale-steps", "6", "--save-steps", "3"]
    plain, scaled = run(tmp_path, *shape), run(tmp_path, *shape, "--recipe", "teq")[-1]
    (folder,) = tmp_path.glob("manual/teq-folded-2bit-*/seed-0")
    assert (folder / "checkpoint-6").is_dir()
    float_model, folded = small_model(), LlamaForCausalLM.from_pretrained(folder / "model")
    ids = teq.windows("manual").held_out
    with torch.no_grad():
        torch.testing.assert_close(folded(ids).logits, float_model(ids).logits, rtol=1e-3, atol=1e-3)
    moved = [name for name, one in folded.named_parameters() if not torch.equal(one, float_model.get_parameter(name))]
    assert any("norm" in name for name in moved)
    assert scaled["method"] == "teq" and scaled["metrics"] != plain[0]["metrics"]
    assert scaled["settings"]["scale_steps"] == 6 and "folded" not in scaled["settings"]
    both = run(tmp_path, *shape, "--recipe", "teq+clip")[-1]
    assert both["method"] == "teq+clip" and len(list(tmp_path.glob("manual/teq-folded*"))) == 1


def test_windows_are_drawn_by_the_seed():
    settings = teq.Compression(bits=3, rows=8)
    one, same, other = (torch.cat([b["input_ids"] for b in teq.drawn(settings, seed)]) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (8, 16)
    held_out = {tuple(ids) for ids in teq.windows("manual").held_out.tolist()}
    assert len(held_out) > 1


def test_a_peers_row_counts_what_the_peer_would_store(tmp_path, monkeypatch):
    spared = {"hqq": 10_000}
    monkeypatch.setattr(teq, "converted", lambda name, model, tokenizer, job, python: (model, spared[name] + job.bits))
    (row,) = run(tmp_path, "--bits", "3", "--group", "16", "--recipe", "hqq")
    assert row["method"] == "hqq" and "rows" not in row["settings"]
    assert row["dense_bytes"] - row["stored_bytes"] == pytest.approx(10_003, abs=500)  # a plan in config.json


def row(method: str, perplexity: float, bits: int = 3, group: str = "64", split: str = "manual") -> dict:
    metrics = {"perplexity": {"mean": perplexity, "sd": None}}
    settings = {"group": group} if bits < 32 else {}
    made = {"split": split, "method": method, "bits": bits, "settings": settings, "metrics": metrics}
    return {**made, "data_sha256": "text", "stored_bytes": 10**6}


def test_the_share_of_the_gap_is_that_of_log_perplexities():
    rows = [row("dense", math.e, bits=32), row("rtn", math.e**3), row("clip", math.e**2), row("rtn", 99.0, group="32")]
    assert [teq.share_removed(one, rows) for one in rows[:3]] == [None, pytest.approx(0), pytest.approx(50)]
    assert teq.share_removed(row("clip", 9.0, bits=2), rows) is None
    shown = teq.table(rows)
    assert "clip" in shown and "50.0 % of the gap" in shown and len(shown.splitlines()) == 4


def test_the_list_names_what_is_missing():
    commands = teq.missing([row("dense", 2.0, bits=32), row("clip", 2.0)])
    assert "python experiments/teq.py --bits 3 --group 64 --recipe gptq" in commands
    assert not any(command.endswith(("teq.py", "--group 64 --recipe clip")) and "3" in command for command in commands)
    settings = [command.split()[2:] for command in commands]
    assert all(runs.parse(teq.Teq, arguments) for arguments in settings)


# -------------------------------------------------------------------------------------------------------------- peers


def test_a_peer_runs_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("gguf")
    model, windows = small_model(), torch.zeros(2, 8, dtype=torch.long)
    tokenizer = ttq.word_tokenizer([WORDS])
    job = peers.Job(4, 32, 1, 1, windows)
    made, spared = peers.converted("gguf-q4_0", small_model(), tokenizer, job, teq.sys.executable)
    count = sum(layer.weight.numel() for layer in peers.linear_layers(model).values())
    assert spared == round(count * (32 - 4.5) / 8)
    for name, layer in peers.linear_layers(made).items():
        error = (layer.weight - model.get_submodule(name).weight).abs().max() / layer.weight.abs().max()
        assert 0.01 < error < 0.15
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert torch.equal(made.lm_head.weight, model.lm_head.weight)


STAND_IN = """import gguf  # for llama_cpp: all matrices as Q8_0, but one as Q5_0

LLAMA_FTYPE_MOSTLY_Q4_K_M = 15
llama_model_quantize_default_params = type("Settings", (), {})

def llama_model_quantize(source, made, settings):
    assert settings.ftype == LLAMA_FTYPE_MOSTLY_Q4_K_M
    reader, writer = gguf.GGUFReader(source.decode()), gguf.GGUFWriter(made.decode(), "llama")
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2
    for tensor in reader.tensors:
        if tensor.data.ndim == 1:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        kind = gguf.GGMLQuantizationType["Q5_0" if "ffn_down" in tensor.name else "Q8_0"]
        writer.add_tensor(tensor.name, gguf.quants.quantize(tensor.data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return 0
"""


def test_what_llama_cpp_took_for_each_layer_is_counted(tmp_path, monkeypatch):
    """The quantizer itself takes five minutes to build, so a stand-in writes the file."""
    (tmp_path / "llama_cpp.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model, windows = small_model(), torch.zeros(2, 8, dtype=torch.long)
    job = peers.Job(5, 256, 1, 1, windows)
    made, spared = peers.converted("gguf-q4_k_m", small_model(), ttq.word_tokenizer([WORDS]), job, teq.sys.executable)
    layers, number = peers.linear_layers(model), model.config.num_hidden_layers
    assert made.config.types == {"Q8_0": 6 * number, "Q5_0": number}
    of_type = {"Q8_0": 8.5, "Q5_0": 5.5}
    kept = {name: of_type["Q5_0" if "down" in name else "Q8_0"] for name in layers}
    assert spared == round(sum(layer.weight.numel() * (32 - kept[name]) / 8 for name, layer in layers.items()))
    for name, layer in layers.items():
        error = (made.get_submodule(name).weight - layer.weight).abs().max() / layer.weight.abs().max()
        assert (0.01 < error < 0.1) if "down" in name else 0 < error < 0.01


def test_a_peer_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no-such-peer failed"):
        job = peers.Job(4, 32, 1, 1, torch.zeros(2, 8, dtype=torch.long))
        peers.converted("no-such-peer", small_model(), ttq.word_tokenizer([WORDS]), job, teq.sys.executable)
