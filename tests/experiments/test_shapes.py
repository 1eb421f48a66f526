"""experiments/shapes.py: parameters of public models, and bytes that equal those of real files of small ones."""

import struct

import pytest
import results
import shapes
import torch
from safetensors import safe_open
from transformers.utils import logging

import ttqlib as ttq

PUBLIC = {  # millions of parameters, as their papers or model cards count them
    "BERT-base": 109.5,
    "BERT-large": 335.1,
    "RoBERTa-base": 124.6,
    "DistilBERT": 66.4,
    "GPT-2": 124.4,
    "GPT-2 XL": 1557.6,
    "ViT-B/16": 86.6,
    "wav2vec2-base": 94.4,
    "Llama-2-7B": 6738.4,
    "Llama-2-70B": 68976.6,
    "Mixtral-8x7B": 46702.8,
}
NARROW = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
WAVE = {"num_feat_extract_layers": 2, "conv_dim": (16, 16), "conv_stride": (8, 4), "conv_kernel": (8, 4)}
WAVE |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
SMALL = {  # each class of SHAPES, small enough to be made and written
    "BertModel": {**NARROW, "vocab_size": 300},
    "RobertaModel": {**NARROW, **shapes.ROBERTA, "vocab_size": 300},
    "DistilBertModel": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 300},
    "GPT2LMHeadModel": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "n_positions": 128},
    "ViTForImageClassification": {**NARROW, "image_size": 16, "patch_size": 4, "num_labels": 5},
    "Wav2Vec2Model": {**NARROW, **WAVE},
    "LlamaForCausalLM": {**NARROW, "num_key_value_heads": 2, "vocab_size": 300},
    "MixtralForCausalLM": {**NARROW, **shapes.MIXTURE, "num_key_value_heads": 2, "vocab_size": 300},
}
INPUTS = {shape.kind: shape.inputs for shape in shapes.SHAPES.values()}


@pytest.fixture(autouse=True)
def quiet():
    logging.set_verbosity_error()


def test_each_class_of_the_shapes_has_a_small_one():
    assert SMALL.keys() == INPUTS.keys() and PUBLIC.keys() == shapes.SHAPES.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_shapes_have_the_parameters_that_are_known_of_them(name):
    assert round(ttq.count_parameters(shapes.SHAPES[name].build()) / 1e6, 1) == PUBLIC[name]


@pytest.mark.parametrize("method", shapes.METHODS)
@pytest.mark.parametrize("kind", SMALL)
def test_predicted_bytes_are_those_on_disk(kind, method, tmp_path):
    shape = shapes.Shape(kind, SMALL[kind], INPUTS[kind])
    predicted, _ = shapes.weighed(shape, method)
    torch.manual_seed(0)
    model = shape.build("cpu")
    if method != "dense":
        ttq.compress_(model, ttq.plan(model, shapes.rank_of(model, method), shapes.BITS, shapes.REST))
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    assert file.stat().st_size == predicted + longer_names(model, file)


def longer_names(model, file) -> int:
    """By how much a dense file's header is longer because transformers writes some tensors under their older names."""
    if hasattr(model, "ttq_config"):
        return 0
    with safe_open(file, "pt") as opened:
        if set(opened.keys()) <= set(model.state_dict()):
            return 0
    (length,) = struct.unpack("<Q", file.read_bytes()[:8])
    return 8 + length - ttq.report(model).rows[-1].stored_bytes


@pytest.mark.parametrize("kind", SMALL)
def test_the_flops_on_meta_are_those_of_a_real_pass(kind):
    shape = shapes.Shape(kind, {**SMALL[kind], "attn_implementation": "eager"}, INPUTS[kind])
    for method in ("dense", "tt"):
        here, there = (ttq.traced_work(shapes.forward(shape, method, device)) for device in ("cpu", "meta"))
        assert sum(one.flops for one in there) == sum(one.flops for one in here) > 0


def test_rows_are_recorded_and_time_is_told_only_where_it_was_asked_for(tmp_path, monkeypatch, capsys):
    small = shapes.Shape("BertModel", SMALL["BertModel"])
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": small})
    shapes.main(["--runs", str(tmp_path)])
    first = results.read(tmp_path / "results.json")
    assert [row["method"] for row in first] == list(shapes.METHODS)
    assert all(row["metrics"].keys() == {"parameters", "flops"} for row in first)
    shapes.main(["--runs", str(tmp_path), "--time"])
    dense, rtn, train = results.read(tmp_path / "results.json")  # rows took the place of those before
    for row in (dense, train):
        figures = {name: metric["mean"] for name, metric in row["metrics"].items()}
        assert 0 < figures["predicted_ms"] <= figures["expected_ms"] and figures["measured_ms"] > 0
        error = 100 * (figures["predicted_ms"] / figures["measured_ms"] - 1)
        assert figures["error_percent"] == pytest.approx(error, abs=1)
    assert "predicted_ms" not in rtn["metrics"] and rtn["ratio"] > 4
    with pytest.raises(SystemExit):
        shapes.main(["BERT-huge"])
    assert "no shape is called BERT-huge" in capsys.readouterr().err
