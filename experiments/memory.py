"""What a training step takes in memory, dense and as tensor trains; writes data/results/memory.json.

    python experiments/memory.py                             # ATIS; rows that are there are left alone
    python experiments/memory.py --task flights --no-record  # the embedded set

The bytes of parameters, gradients and Adam's averages are counted after a real step of a model of experiments/atis.py.
Beside them stands how far a fresh process grows in three steps: with activations, buffers of the libraries, and
what the allocator does not give back. The batch is the longest sentences of the task, which training meets as well.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import atis
import torch
from bookkeeping import fingerprint
from deployed import process_growth
from results import load, record
from speed import BATCH
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils import logging

import ttqlib as ttq

SPLIT = "training memory"
SEED, STEPS = 0, 3
MODELS = {  # name → what experiments/atis.py is told; the second is the first in 2 bits, as in its smallest rows
    "dense": "",
    "tt": "--rank 12",
    "tt-qat": "--rank 12 --bits 2 --rest 8 --dense-bits heads=4 positions=4",
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="atis", choices=["atis", "flights"])
    parser.add_argument("--hidden", type=int, default=atis.WIDTH, help="a multiple of 64")
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    parser.add_argument("--no-record", action="store_true", help="write no row into data/results")
    return parser.parse_args(arguments)


def longest(train, tokenizer, intents, slots) -> dict[str, Tensor]:
    """The batch of the longest sentences."""
    rows = ttq.encode(train, tokenizer, intents, slots, atis.POSITIONS)
    by_length = sorted(range(len(rows)), key=lambda number: -len(rows[number]["input_ids"]))
    return ttq.IntentSlotCollator(tokenizer)([rows[number] for number in by_length[:BATCH]])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> None:
    """Forward, backward and AdamW; the gradients are there until the next step, as in transformers' Trainer."""
    model.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as Trainer does


def train(folder: Path, batch: dict[str, Tensor]) -> None:
    """A few steps of a stored model: what the fresh process does."""
    model = ttq.load(folder).train()
    optimizer = adam(model)
    for _ in range(STEPS):
        step(model, optimizer, batch)


def kept_bytes(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, int]:
    """What is kept from one step to the next: parameters, their gradients, and the optimizer's state."""
    optimizer = adam(model)
    step(model.train(), optimizer, batch)
    averages = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    found = {
        "parameter_bytes": ttq.parameter_bytes(model),
        "gradient_bytes": sum(parameter.grad.nbytes for parameter in model.parameters()),
        "adam_bytes": sum(tensor.nbytes for tensor in averages),
    }
    return {**found, "kept_bytes": sum(found.values())}


def measure(options: argparse.Namespace, batch: dict[str, Tensor], sizes: tuple) -> dict:
    """The fields of a row that are measured, and the plan; `options` are those of experiments/atis.py."""
    set_seed(SEED)
    model, recipes = atis.build(options, *sizes)
    ttq.compress_(model, recipes)
    with TemporaryDirectory() as folder:
        ttq.save(model, folder)
        grown = process_growth(train, Path(folder), batch)
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
    found = kept_bytes(model, batch) | ({} if grown is None else {"process_bytes": grown})
    metrics = {name: {"mean": size, "sd": None} for name, size in found.items()}
    return {"metrics": metrics, "stored_bytes": stored, "plan": recipes.to_dict()}


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    there = {row["method"] for row in load("memory") if (row["task"], row["split"]) == (options.task, SPLIT)}
    if set(MODELS) <= there and not options.force and not options.no_record:
        print(f"{options.task}: there already")
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    splits = ttq.load_task(options.task)
    tokenizer = ttq.word_tokenizer(splits["train"]["tokens"])
    intents, slots = ttq.label_names(splits["train"], "intent"), ttq.label_names(splits["train"], "slots")
    batch = longest(splits["train"], tokenizer, intents, slots)
    settings = {"hidden": options.hidden, "layers": atis.LAYERS, "positions": atis.POSITIONS, "batch_size": BATCH}
    settings |= {"tokens": batch["input_ids"].shape[1], "vocabulary": len(tokenizer)}
    settings |= {"intents": len(intents), "slots": len(slots)}
    dense_bytes = None
    for name, told in MODELS.items():
        start = time.perf_counter()
        chosen = atis.parse([*told.split(), "--task", options.task, "--hidden", str(options.hidden)])
        row = measure(chosen, batch, (len(tokenizer), intents, slots))
        dense_bytes = dense_bytes or row["stored_bytes"]
        row |= {"task": options.task, "split": SPLIT, "method": name, "rank": chosen.rank, "bits": chosen.bits}
        row |= {"settings": settings, "seeds": [SEED], "paper": None}
        row |= {"dense_bytes": dense_bytes, "ratio": round(dense_bytes / row["stored_bytes"], 2)}
        if not options.no_record:
            seconds = time.perf_counter() - start
            record("memory", row, seconds, data=options.task, data_sha256=fingerprint(splits))
        print(line(row))


def line(row: dict) -> str:
    sizes = (f"{name.removesuffix('_bytes')} {metric['mean'] / 1e6:.2f} MB" for name, metric in row["metrics"].items())
    return f"{row['method']:7} {', '.join(sizes)}"


if __name__ == "__main__":
    main()
