"""Distillation under torchrun: two processes stay in step through every stage, and learn what one would.

This file is also the script that torchrun starts, with a folder to write to as its argument.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

import ttqlib as ttq
from tests.quantizers.test_activations import activations
from tests.training.test_distill import bert, moved, rows, state, tensor_train, trainer
from tests.training.test_training import after_one_step, close
from ttqlib.training.observation import observe

ROOT = Path(__file__).parents[2]
STEPS = [2, 3, 2, 2]
CALIBRATED = {"rank": 4, "bits": 4, "rest": 8, "activations": ttq.StaticActivation(batches=3)}


def training(folder: Path, schedule, kind=None, plan=None, **options):
    """Without dropout and with sentences of one length, so that processes and accumulated batches are the same."""
    teacher = bert(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    options = {"per_device_train_batch_size": 4, "weight_decay": 0.1, **options}
    return trainer(
        folder, tensor_train(teacher, **(plan or {})), teacher, schedule, rows(32, (8, 9)), kind=kind, **options
    )


class InStep(TrainerCallback):
    """Collects the steps at whose end both processes have the same parameters and buffers, to the bit."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state_, control, model=None, **others):
        ours = torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])
        theirs = [torch.empty_like(ours) for _ in range(2)]
        dist.all_gather(theirs, ours)
        if torch.equal(*theirs):
            self.steps.append(state_.global_step)


class Alone(ttq.DistillTrainer):
    """The control: each process goes its own way."""

    def compute_loss(self, model, inputs, **others):
        return super().compute_loss(self.accelerator.unwrap_model(model), inputs, **others)


class Outside(ttq.DistillTrainer):
    """The control: forward returns hidden states and logits, and the loss is computed behind its back."""

    def compute_loss(self, model, inputs, **others):
        return sum(self.stage.matches[0].parts(observe(model, inputs), observe(self.teacher, inputs)).values())


def two_processes(folder: Path) -> None:
    """What each of the two processes does."""
    whole = training(folder / "whole", ttq.LayerByLayer(STEPS), callbacks=[watch := InStep()])
    whole.train()
    assert dist.get_world_size() == 2 and watch.steps == list(range(1, 10))
    if dist.get_rank() == 0:
        save_file(state(whole.model), folder / "whole.safetensors")

    schedule, saving = ttq.LayerByLayer(STEPS, freeze=True), {"save_strategy": "steps", "save_steps": 4}
    frozen = training(folder / "frozen", schedule, plan=CALIBRATED, callbacks=[watch := InStep()], **saving)
    frozen.train()
    assert watch.steps == list(range(1, 10))
    resumed = training(folder / "frozen", schedule, plan=CALIBRATED)
    resumed.train(resume_from_checkpoint=str(folder / "frozen" / "checkpoint-4"))  # in the middle of the second stage
    assert moved(state(frozen.model), state(resumed.model)) == set()

    quantizer = ttq.StaticActivation(4, batches=1).build()
    quantizer(activations(seed=dist.get_rank()))
    steps = [ttq.LSQ(4).build(activations(seed=rank)).step.item() for rank in range(2)]
    assert quantizer.step.item() == pytest.approx(sum(steps) / 2)  # both start from the same one

    found, _ = after_one_step(folder / "labels", "tokens", 2, batch=2)
    if dist.get_rank() == 0:
        save_file(found, folder / "labels.safetensors")

    training(folder / "alone", ttq.TaskOnly(2), kind=Alone, callbacks=[watch := InStep()]).train()
    assert watch.steps == []
    with pytest.raises(RuntimeError, match="finished reduction"):
        training(folder / "outside", ttq.AttentionRelations(3, heads=4), kind=Outside).train()


def test_two_processes_learn_what_one_does(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.training.test_distill_two_processes", str(tmp_path)]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-4000:]
    expected, _ = after_one_step(tmp_path, "tokens", 1)
    assert close(load_file(tmp_path / "labels.safetensors"), expected)  # labels count, wherever they are
    alone = training(tmp_path / "one", ttq.LayerByLayer(STEPS), gradient_accumulation_steps=2)
    start = state(alone.model)
    alone.train()
    found, expected = load_file(tmp_path / "whole.safetensors"), state(alone.model)
    assert found.keys() == expected.keys() and len(moved(start, expected)) > 60
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
        assert name not in moved(start, expected) or not torch.allclose(found[name], start[name], rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
