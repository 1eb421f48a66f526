"""The report: its rows are the file on disk, and say the same as text and as HTML."""

import re

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=97, max_position_embeddings=16, **SIZES))


PLANS = {
    "float cores": {"rank": 4},
    "two bits, rest 8": {"rank": 4, "bits": 2, "rest": 8},
    "three bits, rest 16": {"rank": 3, "bits": 3, "rest": 16},
    "dense, one bit": {"bits": 1},
    "calibrated inputs": {"rank": 4, "activations": ttq.StaticActivation(8)},
}


@pytest.mark.parametrize("options", [None, *PLANS.values()], ids=["no plan", *PLANS])
def test_the_rows_sum_to_the_file_on_disk(options, tmp_path):
    model = bert()
    if options is not None:
        ttq.compress_(model, ttq.plan(model, **options))
    if options == PLANS["calibrated inputs"]:
        model.train()(torch.tensor([[2, 5, 3]]))
    dense_bytes = ttq.parameter_bytes(bert())
    report = ttq.report(model)
    model.save_pretrained(tmp_path)
    assert report.total.stored_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert sum(row.stored_bytes for row in report.rows) == report.total.stored_bytes
    steps = 4 * sum(row.layer.endswith("input_quantizer") for row in report.rows)  # of which no dense layer has any
    assert report.total.dense_bytes == dense_bytes + steps
    assert report.rows[-1].layer == "header"


def test_a_model_around_a_compressed_part_has_a_report(tmp_path):
    outer = nn.ModuleDict({"inner": bert(), "own": nn.Linear(24, 5)})
    ttq.compress_(outer["inner"], ttq.plan(outer["inner"], rank=4, bits=2))
    report = ttq.report(outer)
    ttq.save(outer, tmp_path)
    assert report.total.stored_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_a_row_says_what_a_layer_is_and_costs():
    model = bert()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=2, rest=8))
    rows = {row.layer: row for row in ttq.report(model, tokens=10).rows}
    row = rows["bert.encoder.layer.0.intermediate.dense"]
    layer = model.bert.encoder.layer[0].intermediate.dense
    cores = sum(core.numel() for core in layer.cores)
    assert row.format == "TTLinear rank 4: core 2 bit, bias 8 bit"
    assert row.parameters == cores + 48
    assert row.stored_bytes == -(-(2 * cores + 8 * 48) // 8) + 4 * 7  # a stream of bits, six cores' scales and a bias'
    assert row.dense_bytes == 4 * (24 * 48 + 48)
    assert row.ratio == row.dense_bytes / row.stored_bytes
    assert row.flops == ttq.flops(layer, 10, merged=True)
    assert rows["bert.embeddings.word_embeddings"].format == "TTMEmbedding rank 4: core 2 bit"
    assert rows["classifier"].format == "Linear: weight 8 bit, bias 8 bit"
    assert rows["classifier"].flops == 2 * 10 * 24 * 2


def test_a_layer_that_holds_float_numbers_says_no_bits():
    model = nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24))
    ttq.compress_(model, ttq.TTQConfig({"0": ttq.TT(3)}))
    formats = [row.format for row in ttq.report(model).rows]
    assert formats == ["TTLinear rank 3", "LayerNorm", "safetensors"]


def test_text_and_html_show_the_same_table():
    model = bert()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=2, rest=8))
    report = ttq.report(model, tokens=64)
    lines = [re.split(r"\s{2,}", line) for line in str(report).splitlines()]
    html = [
        re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in re.findall(r"<tr>.*?</tr>", report._repr_html_())
    ]
    assert [[cell for cell in line if cell] for line in html] == [[cell for cell in line if cell] for line in lines]
    assert lines[0][-1] == "FLOPs for 64 tokens" and lines[-1][0] == "total"
    assert len(lines) == len(report.rows) + 2
    assert max(map(len, str(report).splitlines())) < 200


def test_names_are_escaped_in_html():
    model = nn.ModuleDict({"<b>": nn.Linear(2, 2)})
    assert "&lt;b&gt;" in ttq.report(model)._repr_html_() and "<b>" not in ttq.report(model)._repr_html_()


@pytest.mark.parametrize("tokens", [0, -3, 2.5])
def test_bad_numbers_of_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match="tokens must be a whole number of at least 1"):
        ttq.report(bert(), tokens)


@pytest.mark.parametrize("options", [None, *PLANS.values()], ids=["no plan", *PLANS])
def test_a_model_without_weights_has_the_report_of_one_that_has_them(options):
    real = bert()
    with torch.device("meta"):
        bare = bert()
    for model in (real, bare) if options is not None else ():
        ttq.compress_(model, ttq.plan(model, **options))
        if options == PLANS["calibrated inputs"] and model is real:
            model.train()(torch.tensor([[2, 5, 3]]))
    assert bare.bert.embeddings.LayerNorm.weight.is_meta and not real.bert.embeddings.LayerNorm.weight.is_meta
    assert ttq.report(bare).table() == ttq.report(real).table()
    assert ttq.report(bare).total.stored_bytes > 1000
