"""Training on several processes gives the curve of one: also accumulated, in bfloat16, killed and gone on with others.

This file is also the script that torchrun starts, with a folder to write to and what to do as its arguments.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from transformers import BertForSequenceClassification, TrainerCallback, TrainingArguments

import ttqlib as ttq
from tests.training.test_distill import bert, moved, state
from tests.training.test_training import rows

ROOT = Path(__file__).parents[2]
BATCH, STEPS, SAVED, DEAD = 8, 10, 4, 6
STILL = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}  # each process would draw its own dropout
FLOAT, FEW_BITS = {"rank": 4}, {"rank": 4, "bits": 4, "rest": 8}
CURVE = 1e-4  # how far losses may be from those of one process: float32 is summed up in another order, for ten steps
ROUNDED = 0.01  # where weights are rounded, or in bfloat16: a last bit may put a number on the other side of a step
WEIGHTS = {"rtol": 1e-3, "atol": 2e-4}  # how far float weights may be after the ten steps, each of up to 1e-3


class Curve(TrainerCallback):
    """The loss of each step, a mean over the processes."""

    def __init__(self):
        self.losses: list[float] = []

    def on_log(self, args, state_, control, logs=None, **others):
        if "loss" in logs:
            self.losses.append(logs["loss"])


class Die(TrainerCallback):
    """Kills the last process in the middle of a training, as a machine would."""

    def on_step_end(self, args, state_, control, **others):
        if state_.global_step == DEAD and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def student(plan: dict) -> BertForSequenceClassification:
    model = bert(**STILL)
    return ttq.compress_(model, ttq.plan(model, **plan))


def training(folder: Path, processes: int, plan: dict = FLOAT, parts: int = 1, callbacks=(), **options):
    """Steps of `BATCH` rows, shared by the processes, of which each takes its share in `parts`."""
    sizes = {"per_device_train_batch_size": BATCH // processes // parts, "gradient_accumulation_steps": parts}
    how = {"max_steps": STEPS, "learning_rate": 1e-3, "weight_decay": 0.1, "seed": 3, "use_cpu": True, **sizes}
    how |= {"save_strategy": "steps", "save_steps": SAVED, "logging_steps": 1, "report_to": [], "disable_tqdm": True}
    args, watch = TrainingArguments(str(folder), **{**how, **options}), Curve()
    return ttq.QATTrainer(student(plan), args, train_dataset=rows(), callbacks=[watch, *callbacks]), watch


def trained(folder: Path, processes: int, plan: dict = FLOAT, **options) -> list[float]:
    """The curve; the weights at the end are written by the first process."""
    made, watch = training(folder, processes, plan, **options)
    made.train(resume_from_checkpoint=True if (folder / f"checkpoint-{SAVED}").exists() else None)
    if made.is_world_process_zero():
        save_file(state(made.model), folder.with_suffix(".safetensors"))
    return watch.losses


def shard(plan: dict) -> None:
    """Shards a model over the processes and trains a step, as FSDP2 does."""
    model, batch = student(plan), rows()[:BATCH]
    for layer in model.bert.encoder.layer:
        fully_shard(layer)
    fully_shard(model)
    inputs = {name: torch.stack([torch.as_tensor(row[name]) for row in batch]) for name in batch[0]}
    model(**inputs).loss.backward()
    assert all(p.grad.full_tensor().isfinite().all() for p in model.parameters() if p.grad is not None)


def process(folder: Path, task: str) -> None:
    """What each of the processes does."""
    count = int(os.environ["WORLD_SIZE"])
    if task == "resume":
        curves = {"resumed": trained(folder / "four", count, FEW_BITS)}
    else:
        quiet = {"save_strategy": "no"}
        curves = {
            "float": trained(folder / "float", count, **quiet),
            "accumulated": trained(folder / "accumulated", count, parts=2, **quiet),
            "few bits": trained(folder / "few bits", count, FEW_BITS, **quiet),
            "bfloat16": trained(folder / "bfloat16", count, bf16=True, **quiet),
        }
        shard(FLOAT)
        with pytest.raises(ValueError, match="scalar parameters"):  # why `QATTrainer` refuses FSDP
            shard(FEW_BITS)
    if dist.get_rank() == 0:
        (folder / f"{task}.json").write_text(json.dumps(curves))
    if task == "train":
        training(folder / "killed", count, FEW_BITS, callbacks=[Die()])[0].train()


def launched(folder: Path, task: str, processes: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", f"{processes}"]
    command += ["-m", "tests.training.test_processes", str(folder), task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, dict[str, list[float]]]:
    """The folder and the curves of two processes, whose last training was killed."""
    folder = tmp_path_factory.mktemp("two")
    run = launched(folder, "train", 2)
    assert run.returncode and "SIGKILL" in run.stderr, run.stderr[-4000:]
    return folder, json.loads((folder / "train.json").read_text())


@pytest.mark.parametrize("name", ["float", "accumulated"])
def test_two_processes_train_what_one_does(two, tmp_path, name):
    folder, curves = two
    one = trained(tmp_path / "one", 1, save_strategy="no")
    assert curves[name] == pytest.approx(one, abs=CURVE)
    found, expected = load_file(folder / f"{name}.safetensors"), load_file(tmp_path / "one.safetensors")
    assert found.keys() == expected.keys() and len(moved(state(student(FLOAT)), expected)) > 60
    for weight, tensor in expected.items():
        if not weight.endswith("key.bias"):  # which no score depends on: its gradient is rounding, and Adam blows it up
            torch.testing.assert_close(found[weight], tensor, **WEIGHTS, msg=weight)


def test_also_in_few_bits_and_in_bfloat16(two, tmp_path):
    _, curves = two
    few, half, control = (
        trained(tmp_path / name, *how, save_strategy="no", **options)
        for name, how, options in (("few", (1, FEW_BITS), {}), ("half", (1,), {"bf16": True}), ("control", (2,), {}))
    )
    assert curves["few bits"] == pytest.approx(few, abs=ROUNDED)
    assert curves["bfloat16"] == pytest.approx(half, abs=ROUNDED)
    assert curves["bfloat16"] != curves["float"] and max(few) - min(few) > 10 * ROUNDED  # a curve to be told apart
    assert control != pytest.approx(curves["float"], abs=10 * ROUNDED)  # one of the two processes, alone


@pytest.mark.parametrize("processes", [1, 4])
def test_a_training_killed_on_two_processes_goes_on_with_other_numbers(two, tmp_path, processes):
    folder, curves = two
    assert [path.name for path in (folder / "killed").iterdir()] == [f"checkpoint-{SAVED}"]
    shutil.copytree(folder / "killed", tmp_path / "four")
    if processes == 1:
        resumed = trained(tmp_path / "four", 1, FEW_BITS, save_strategy="no")
    else:
        run = launched(tmp_path, "resume", processes)
        assert run.returncode == 0, run.stderr[-4000:]
        resumed = json.loads((tmp_path / "resume.json").read_text())["resumed"]
    assert resumed == pytest.approx(curves["few bits"][SAVED:], abs=ROUNDED)


if __name__ == "__main__":
    process(Path(sys.argv[1]), sys.argv[2])
