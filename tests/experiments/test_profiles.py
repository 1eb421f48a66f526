"""experiments/profiles.py: kinds of operations, a training that is watched, and the page that its rows make."""

import sys

import pytest
import torch
from torch import nn

from tests.chapters import ROOT

sys.path.insert(0, str(ROOT / "experiments"))

import profiles
from results import load


def test_the_page_is_made_of_the_rows():
    assert profiles.PAGE.read_text(encoding="utf-8") == profiles.page(load("profile"))


def test_parts_are_those_of_the_operations_and_sum_to_the_whole():
    layer, x = nn.Linear(64, 256), torch.randn(512, 64)

    def run():
        nn.functional.gelu(layer(x)).sum().backward()

    found = profiles.parts(run)
    assert found["products"] > 0 and found["GELU"] > 0 and found["floor"] > 0
    assert found["random numbers"] == found["optimizer"] == found["softmax and norms"] == 0
    inside = sum(found[name] for name in [*profiles.KINDS, profiles.REST, profiles.BETWEEN])
    assert inside >= found["whole"] * (1 - 1e-9)  # more where the profiler itself slows operations down


def test_a_watched_training_is_stopped_and_its_second_step_counted(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=16, **sizes))
    rows = [{"input_ids": [1, 2, 3], "labels": k % 2} for k in range(400)]
    how = {"report_to": "none", "use_cpu": True, "per_device_train_batch_size": 2, "disable_tqdm": True}
    watch = profiles.Watch()
    Trainer(model, TrainingArguments(tmp_path, **how), train_dataset=rows, callbacks=[watch]).train()
    assert len(watch.milliseconds) == 2 * profiles.STEPS + 1
    assert watch.work.flops > 0 and watch.work.bytes > 0


@pytest.mark.parametrize("name", ["mm", "random_", "gelu_backward", "native_layer_norm_backward", "_fused_adamw_"])
def test_every_named_operation_is_one_of_pytorchs(name):
    assert f"aten::{name}" in profiles.KIND and hasattr(torch.ops.aten, name)
