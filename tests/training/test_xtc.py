"""XTC in four lines, those of a docstring: fewer layers of one bit, taught by the layers that they were copied from."""

import re

import torch
from transformers import AutoModelForSequenceClassification, TrainingArguments

import ttqlib as ttq
from tests.training.test_distill import batch_of, bert, rows

KEEP = [1, 3]


def four_lines() -> str:
    lines = [line.strip() for line in ttq.SingleStage.__doc__.splitlines()]
    return "\n".join(line for line in lines if re.match(r"(student = )?ttq\.", line))


def test_the_four_lines_of_the_docstring_make_a_model_that_another_program_reads(tmp_path):
    teacher = bert(num_hidden_layers=4, intermediate_size=64).eval()
    options = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "learning_rate": 3e-3}
    args = TrainingArguments(str(tmp_path / "training"), per_device_train_batch_size=8, **options)
    folder, batch = tmp_path / "student", batch_of(rows())
    place = {"ttq": ttq, "teacher": teacher, "keep": KEEP, "args": args, "folder": folder}
    place["given"] = {"teacher": teacher, "train_dataset": rows()}
    code = four_lines()
    assert len(code.splitlines()) == 4

    first, second, third, fourth = code.splitlines()
    exec(f"{first}\n{second}", place)
    untrained = divergence(place["student"], teacher, batch)
    exec(f"{third}\n{fourth}", place)
    assert divergence(place["student"], teacher, batch) < 0.7 * untrained
    student = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert student.config.num_hidden_layers == 2
    layers = student.ttq_config.layers
    assert layers["bert.encoder.layer.1.output.dense"].quantize == ttq.Binary(per="channel")
    assert layers["bert.embeddings.word_embeddings"].quantize == ttq.Binary(per="channel")
    assert layers["bert.encoder.layer.1.output.dense"].activations == ttq.DynamicActivation(8)
    with torch.no_grad():
        assert torch.equal(student(**batch).logits, place["student"].eval()(**batch).logits)
    words = student.get_input_embeddings().weight
    assert all(len(row.abs().unique()) == 1 for row in words), "one scale a row"


@torch.no_grad()
def divergence(student, teacher, batch) -> float:
    return float(ttq.logits_kl(student.eval()(**batch).logits, teacher(**batch).logits))
