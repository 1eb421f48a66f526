"""What the README tells a reader to type in Python does what it says."""

import re

import torch
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq
from tests.chapters import ROOT


def test_the_readme_compresses_stores_and_loads_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    size = {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 768}
    names = {"model": BertForSequenceClassification(BertConfig(vocab_size=900, **size)).eval()}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        exec(block, names)
    ids = torch.tensor([[2, 7, 300, 3]])
    assert torch.equal(names["again"](ids).logits, names["model"](ids).logits)
    stored = (tmp_path / "small" / "model.safetensors").stat().st_size
    assert f"{stored:,}" in capsys.readouterr().out.splitlines()[-1]
    assert isinstance(names["model"].bert.encoder.layer[0].output.dense, ttq.TTLinear)
