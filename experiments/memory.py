"""What a training step takes in memory, dense and as tensor trains.

    python experiments/memory.py                             # ATIS; rows that are there are left alone
    python experiments/memory.py --task flights              # the embedded set
    python experiments/memory.py --record                    # into data/results/memory.json, not runs/memory

The bytes of parameters, gradients and Adam's averages are counted after a real step of a model of experiments/atis.py.
Beside them stands how far a fresh process grows in three steps: with activations, buffers of the libraries, and
what the allocator does not give back. The batch is the longest sentences of the task, which training meets as well.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import atis
import torch
from contenders import BATCH
from deployed import process_growth
from results import add_options, check_runs, place, read, record, row_of
from runs import fingerprint, stored_bytes
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils import logging

import ttqlib as ttq

SPLIT = "training memory"
SEED, STEPS = 0, 3
MODELS = {  # name → settings of experiments/atis.py; the last is the one before in 2 bits, as in its smallest rows
    "dense": {},
    "tt": {"rank": 12},
    "tt-qat": {"rank": 12, "bits": 2, "rest": 8, "dense_bits": "heads=4,positions=4"},
}


def longest(data: atis.Data) -> dict[str, Tensor]:
    """The batch of the longest sentences."""
    rows = data.encoded["train"]
    by_length = sorted(range(len(rows)), key=lambda number: -len(rows[number]["input_ids"]))
    return data.collate([rows[number] for number in by_length[:BATCH]])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Mapping[str, Tensor]) -> None:
    """Forward, backward and AdamW; the gradients are there until the next step, as in transformers' Trainer."""
    model.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as Trainer does


def train(folder: Path, batch: Mapping[str, Tensor]) -> None:
    """A few steps of a stored model: what the fresh process does."""
    model = ttq.load(folder).train()
    optimizer = adam(model)
    for _ in range(STEPS):
        step(model, optimizer, batch)


def kept_bytes(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, int]:
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


def measure(settings: atis.Training, data: atis.Data, batch: Mapping[str, Tensor]) -> tuple[dict, int, dict]:
    """Bytes in memory by name, those on disk, and the plan."""
    set_seed(SEED)
    model = atis.built(settings, len(data.tokenizer), *data.labels)
    with TemporaryDirectory() as folder:
        stored = stored_bytes(model, Path(folder))
        grown = process_growth(train, Path(folder), batch)
    found = kept_bytes(model, batch) | ({} if grown is None else {"process_bytes": grown})
    return found, stored, model.ttq_config.to_dict()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="atis", choices=["atis", "flights"])
    parser.add_argument("--hidden", type=int, default=atis.WIDTH, help="a multiple of 64")
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    add_options(parser, "memory")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    try:
        shape = {"task": options.task, "hidden": options.hidden}
        options.models = {name: atis.Training(**shape, **how) for name, how in MODELS.items()}
    except ValueError as problem:
        parser.error(str(problem))
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    path = place("memory", options)
    known = [row for row in read(path) if (row["task"], row["settings"]["hidden"]) == (options.task, options.hidden)]
    if MODELS.keys() <= {row["method"] for row in known} and not options.force:
        print(f"{options.task}: there already")
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data, dense_bytes = atis.Data(options.task), None
    batch = longest(data)
    counts = {"tokens": batch["input_ids"].shape[1], "vocabulary": len(data.tokenizer)}
    counts |= {name: len(labels) for name, labels in zip(("intents", "slots"), data.labels)}
    shape = {"hidden": options.hidden, "layers": atis.LAYERS, "positions": atis.POSITIONS, "batch_size": BATCH}
    for name, settings in options.models.items():
        start = time.perf_counter()
        found, stored, plan = measure(settings, data, batch)
        dense_bytes, figures = dense_bytes or stored, {name: [size] for name, size in found.items()}
        row = row_of(figures, settings.rank, settings.bits, [SEED], stored, dense_bytes, plan)
        row |= {"task": options.task, "split": SPLIT, "method": name, "settings": shape | counts}
        record(path, row, time.perf_counter() - start, data=options.task, data_sha256=fingerprint(data.splits))
        print(line(row))


def line(row: dict) -> str:
    sizes = (f"{name.removesuffix('_bytes')} {metric['mean'] / 1e6:.2f} MB" for name, metric in row["metrics"].items())
    return f"{row['method']:7} {', '.join(sizes)}"


if __name__ == "__main__":
    main()
