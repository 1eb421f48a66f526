"""Training with quantizers through transformers' Trainer: a checkpoint keeps everything, or is refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

import ttqlib as ttq
from tests.cases import refused
from tests.storage.test_checkpoint import IDS, bert, same_tensors

ROOT = Path(__file__).parents[2]
PLAN = {"rank": 4, "bits": 3, "rest": 8, "activations": ttq.StaticActivation(batches=6)}


def rows() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 97, (32, 6), generator=generator)
    return [{"input_ids": row, "labels": int(row.sum()) % 3} for row in ids]


def student(**plan):
    model = bert()
    ttq.compress_(model, ttq.plan(model, **(plan or PLAN)))
    return model


class Die(TrainerCallback):
    """Kills its own process in the middle of step 6, as the machine would."""

    def on_substep_end(self, args, state, control, **others):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


class Forgetful(ttq.QATTrainer):
    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        pass


def trainer(folder, model=None, kind=None, callbacks=(), **options):
    options = {"max_steps": 8, "save_steps": 4, "save_strategy": "steps", **options}
    options |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 3e-3}
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no", "seed": 3}
    args = TrainingArguments(str(folder), weight_decay=0.1, **{**quiet, **options})
    model = model or student()
    return (kind or ttq.QATTrainer)(model, args, train_dataset=rows(), eval_dataset=rows(), callbacks=list(callbacks))


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = trainer(tmp_path / "whole")
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    moved = {name for name, value in whole.model.state_dict().items() if not torch.equal(value, start[name])}
    assert any(name.endswith("core0.0.scale") for name in moved) and any("input_quantizer" in name for name in moved)

    code = (
        f"from tests.training.test_training import *\ntrainer({str(tmp_path / 'killed')!r}, callbacks=[Die()]).train()"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert os.listdir(tmp_path / "killed") == ["checkpoint-4"]
    resumed = trainer(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8
    assert_same_state(whole.model, resumed.model)

    forgetful = trainer(tmp_path / "killed", kind=Forgetful)  # the control: optimizer and all, but not the model
    forgetful.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-4"))
    with pytest.raises(AssertionError):
        assert_same_state(whole.model, forgetful.model)


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    states, options = {}, {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "learning_rate": 0.3}

    class Remember(TrainerCallback):
        def on_save(self, args, state, control, model, **others):
            states[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}

    best = trainer(tmp_path, callbacks=[Remember()], load_best_model_at_end=True, **options)
    best.train()
    step = int(best.state.best_model_checkpoint.rpartition("-")[2])
    assert step in states and len(states) == 4
    assert all(torch.equal(value, states[step][name]) for name, value in best.model.state_dict().items())


def test_a_checkpoint_that_a_kill_has_cut_off_is_passed_over(tmp_path):
    trainer(tmp_path).train()
    cut_off = tmp_path / "checkpoint-99"
    cut_off.mkdir()
    (cut_off / "model.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoint-mine").mkdir()  # no number: nobody's business
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step and not cut_off.exists() and (tmp_path / "checkpoint-mine").is_dir()
    (aside,) = tmp_path.glob("unfinished-checkpoint-99-*")  # and nothing is lost
    assert (aside / "model.safetensors").read_bytes() == b"half"
    with refused(ValueError, "No valid checkpoint found"):
        trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    trainer(tmp_path, max_steps=4).train()
    with safe_open(tmp_path / "checkpoint-4" / "model.safetensors", "pt") as file:
        assert any(name.endswith("core0.original") for name in file.keys())  # noqa: SIM118
    for plan in ({**PLAN, "bits": 2}, {**PLAN, "rank": 3}, {**PLAN, "rest": 32}):
        other = student(**plan)
        with refused(ValueError, "another plan"):
            trainer(tmp_path, other).train(resume_from_checkpoint=True)
    config = ttq.plan(bert(), **PLAN)
    other = bert()
    other.classifier = nn.Linear(24, 5)
    ttq.compress_(other, config)
    with refused(ValueError, "classifier.parametrizations.weight", "shape (5, 24)"):
        trainer(tmp_path, other).train(resume_from_checkpoint=True)
    with refused(ValueError, "QATTrainer"):
        type(other).from_pretrained(tmp_path / "checkpoint-4")
    with refused(ValueError, "QATTrainer"):
        ttq.load(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "model.safetensors").unlink()
    with refused(FileNotFoundError, "no checkpoint of ttq.QATTrainer"):
        trainer(tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("plan", [PLAN, {"bits": 3}, {"rank": 4, "rest": 16}], ids=["cores", "dense", "half rest"])
def test_a_plain_trainer_cannot_lose_latent_weights_in_silence(tmp_path, plan):
    trainer(tmp_path, student(**plan), Trainer, max_steps=4).train()
    with refused(ValueError, "latent weight is gone", "ttq.QATTrainer"):
        trainer(tmp_path, student(**plan), Trainer).train(resume_from_checkpoint=True)
    with refused(ValueError, "is packed"):
        trainer(tmp_path, student(**plan)).train(resume_from_checkpoint=True)


def test_without_quantizers_a_plain_trainer_does(tmp_path):
    whole = trainer(tmp_path, student(rank=4), Trainer)
    whole.train()
    resumed = trainer(tmp_path, student(rank=4), Trainer)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same_state(resumed.model, whole.model)


def test_save_model_writes_the_finished_model(tmp_path):
    finished = trainer(tmp_path, max_steps=4)
    finished.train()
    finished.save_model()
    loaded = ttq.load(tmp_path)
    assert same_tensors(finished.model.eval(), loaded)
    assert torch.equal(loaded(IDS).logits, finished.model(IDS).logits)
    again = trainer(tmp_path / "again", loaded, max_steps=2)  # and a loaded model trains
    again.train()


class Scores(nn.Module):
    """A module of one's own around a BERT, which transformers cannot save."""

    def __init__(self):
        super().__init__()
        self.inner = bert()

    def forward(self, input_ids, labels=None):
        return self.inner(input_ids=input_ids, labels=labels)


def compressed_scores(part: str) -> Scores:
    model = Scores()
    compressed = model if part == "whole" else model.inner
    ttq.compress_(compressed, ttq.plan(compressed, rank=4, bits=3))
    return model


@pytest.mark.parametrize("part", ["whole", "inner"])
def test_save_model_writes_a_finished_module_of_ones_own(part, tmp_path):
    model = compressed_scores(part)
    finished = trainer(tmp_path, model, max_steps=4)
    finished.train()
    finished.save_model()
    loaded = ttq.load(tmp_path, into=Scores())
    assert torch.equal(loaded(IDS).logits, model.eval()(IDS).logits)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "original" in name]
    resumed = trainer(tmp_path, compressed_scores(part))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))  # checkpoints are latent as ever


# ----------------------------------------------------------------------------------------------------- accumulation

SIZES = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "initializer_range": 0.3, "num_labels": 3}
STILL = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}


class NamesItsInputs(BertForTokenClassification):
    """A forward that takes nothing but what it names, and no `num_items_in_batch`."""

    def forward(self, input_ids=None, labels=None):
        return super().forward(input_ids=input_ids, labels=labels)


MODELS = {  # the first two take `num_items_in_batch` and ignore it, the last heeds it
    "sentences": (BertForSequenceClassification, BertConfig, STILL),
    "tokens": (BertForTokenClassification, BertConfig, STILL),
    "named": (NamesItsInputs, BertConfig, STILL),
    "next tokens": (LlamaForCausalLM, LlamaConfig, {}),
}


def labelled(kind: str) -> list[dict]:
    """Eight sentences; where tokens are labelled, from all six in the first to none in the last two."""
    data = rows()[:8]
    for number, row in enumerate(data):
        if kind != "sentences":
            labels = row["input_ids"] if kind == "next tokens" else row["input_ids"] % 3
            row["labels"] = labels.masked_fill(torch.arange(6) >= 6 - number, -100)
    return data


def after_one_step(folder, name: str, parts: int, kind=ttq.QATTrainer, batch=None) -> tuple[dict, float]:
    torch.manual_seed(0)
    model, config, changes = MODELS[name]
    model = model(config(**SIZES, **changes))
    sizes = {"per_device_train_batch_size": batch or 8 // parts, "gradient_accumulation_steps": parts, "max_steps": 1}
    quiet = {"save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments(str(folder), optim="sgd", learning_rate=0.1, max_grad_norm=0, **sizes, **quiet)
    training = kind(model, args, train_dataset=labelled(name))
    loss = training.train().training_loss
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, loss


def close(one: dict, other: dict) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


@pytest.mark.parametrize("name", MODELS)
def test_accumulated_batches_equal_one_large_one(tmp_path, name):
    whole, loss = after_one_step(tmp_path, name, 1)
    found, mean = after_one_step(tmp_path, name, 8)
    assert close(found, whole) and mean == pytest.approx(loss, rel=1e-5)
    plain, _ = after_one_step(tmp_path, name, 4, Trainer)  # the control
    assert close(plain, whole) is (name == "next tokens")


def test_the_loss_of_an_evaluation_is_a_mean(tmp_path):
    evaluating = trainer(tmp_path, bert().eval())
    with torch.no_grad():
        expected = evaluating.model(**default_data_collator(rows())).loss
    assert evaluating.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_a_loss_function_of_ones_own_gets_the_number_of_labels(tmp_path):
    seen = []

    def mean(outputs, labels, num_items_in_batch=None):
        seen.append(int(num_items_in_batch))
        return nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    def kind(*others, **options):
        return ttq.QATTrainer(*others, compute_loss_func=mean, **options)

    found, _ = after_one_step(tmp_path, "sentences", 4, kind)
    assert seen == [8] * 4 and close(found, after_one_step(tmp_path, "sentences", 1)[0])


def test_engines_that_cannot_train_quantizers_are_refused(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    args._n_gpu = 2
    with refused(ValueError, "2 GPUs in one process", "torchrun"):
        ttq.QATTrainer(bert(), args, train_dataset=rows())
    for engine in ("fsdp", "deepspeed"):
        args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
        setattr(args, engine, True)
        with refused(ValueError, "FSDP and DeepSpeed", "torchrun"):
            ttq.QATTrainer(bert(), args, train_dataset=rows())


def test_scales_biases_and_norms_are_not_decayed(tmp_path):
    model = student()
    decayed = set(trainer(tmp_path, model).get_decay_parameter_names(model))
    names = {name for name, _ in model.named_parameters()}
    assert decayed < names
    assert {name for name in names if name.endswith("core0.original")} < decayed
    left_out = [name for name in decayed if "scale" in name or "bias" in name or "LayerNorm" in name]
    assert left_out == [] and any(name.endswith("scale") for name in names)
    plain = set(trainer(tmp_path, model, Trainer).get_decay_parameter_names(model))
    assert any(name.endswith("core0.0.scale") for name in plain)  # the control: transformers' own would decay them
