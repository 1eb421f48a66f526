"""What a model takes in memory while it answers: dense, of few bits, packed. Random weights of MiniLM's shape.

    python experiments/answering.py             # rows that are there are left alone
    python experiments/answering.py --record    # into data/results/answering.json, not runs/answering

`resident_bytes` is how much more than after its imports a fresh process has in memory at most while it answers one
sentence after another, each of other words: a table in floating point comes into memory as it is read. `own_bytes` is
the same above a process that has answered with a tiny model of the same kind, which leaves out the pages of PyTorch's
own code. `loading_bytes` is the peak before. All three are means of three processes, with their standard deviation:
where the C library places things is chance. `ordinary` is `ttq.load` as it is, with a number for each weight that is
rounded in every answer. `times_float` compares medians of answers that take turns with the model in floating point: on
a busy machine no other time means anything.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from deployed import forget_peak, resident
from results import add_options, check_runs, place, read, record, row_of
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import logging

import ttqlib as ttq

TASK, SPLIT, SEED, TOKENS, ANSWERS, PROCESSES = "random weights", "answering memory", 0, 32, 200, 3
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 16}
RECIPES = {32: None, 1: ttq.Binary(per="channel"), 2: ttq.Ternary(per="channel")}  # bits → of every matrix, by rows
FORMS = [("dense", 32), *((method, bits) for bits in (1, 2) for method in ("ordinary", "packed"))]  # how it is loaded


def write(shape: dict, bits: int, folder: Path) -> dict | None:
    """Save a model of random weights, packed where it has few bits; its plan."""
    torch.manual_seed(SEED)
    model = BertForSequenceClassification(BertConfig(**shape)).eval()
    if bits == 32:
        model.save_pretrained(folder)
        return None
    config = ttq.plan(model, rules={".*": ttq.LayerPlan(None, RECIPES[bits])}, rest=8)
    ttq.save(ttq.compress_(model, config), folder)
    return config.to_dict()


def load(folder: Path, method: str) -> nn.Module:
    """One of few bits with a number for each weight, or packed."""
    if method == "dense":
        return BertForSequenceClassification.from_pretrained(folder)
    return ttq.load(folder, packed=method == "packed")


@torch.no_grad()
def answer(model: nn.Module, ids: Tensor) -> Tensor:
    return model(ids, attention_mask=torch.ones_like(ids)).logits


def memory(folder: Path, method: str, tiny: Path | None) -> dict[str, int]:
    """Runs in a process of its own: what it grows by, above the answers of a tiny model if there is one."""
    torch.set_num_threads(1)
    _ = ttq.load  # which imports what it needs only now
    if tiny is not None:
        answer(load(tiny, method), torch.zeros(1, TOKENS, dtype=torch.long))
    forget_peak()
    before = resident("VmRSS")
    model = load(folder, method)
    loading = resident("VmHWM") - before
    forget_peak()
    draw = torch.Generator().manual_seed(SEED)
    for _ in range(ANSWERS):
        answer(model, torch.randint(model.config.vocab_size, (1, TOKENS), generator=draw))
    return {"loading": loading, "answering": resident("VmHWM") - before}


def alone(*arguments) -> dict[str, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(memory, *arguments).result()


def measure(folder: Path, method: str, dense: Path, tiny: Path) -> dict[str, list[float]]:
    """Bytes in memory, of each process, and the time beside the model in floating point, by name."""
    strict = [alone(folder, method, None) for _ in range(PROCESSES)]
    own = [alone(folder, method, tiny)["answering"] for _ in range(PROCESSES)]
    ids = torch.arange(1, 1 + TOKENS)[None]
    models = {"float": load(dense, "dense"), "this": load(folder, method)}
    took = ttq.interleaved_medians({name: lambda model=model: answer(model, ids) for name, model in models.items()})
    answering, loading = ([one[when] for one in strict] for when in ("answering", "loading"))
    found = {"resident_bytes": answering, "own_bytes": own, "loading_bytes": loading}
    return {**found, "times_float": [took["this"] / took["float"]]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    add_options(parser, "answering")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    path = place("answering", options)
    known = set() if options.force else {(row["method"], row["bits"]) for row in read(path)}
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        plans = {bits: write(SHAPE, bits, root / f"{bits}") for bits in RECIPES}
        sizes = {bits: (root / f"{bits}" / "model.safetensors").stat().st_size for bits in RECIPES}
        for method, bits in (form for form in FORMS if form not in known):
            start = time.perf_counter()
            write(TINY, bits, root / f"tiny {bits}")
            figures = measure(root / f"{bits}", method, root / "32", root / f"tiny {bits}")
            row = row_of(figures, None, bits, [SEED], sizes[bits], sizes[32])
            row |= {"task": TASK, "split": SPLIT, "method": method, "plan": plans[bits]}
            row["settings"] = SHAPE | {"tokens": TOKENS, "answers": ANSWERS, "processes": PROCESSES, "threads": 1}
            record(path, row, time.perf_counter() - start)
            print(line(row))


def line(row: dict) -> str:
    metrics = row["metrics"]
    sizes = (
        f"{name.removesuffix('_bytes')} {metric['mean'] / 1e6:.1f} ± {metric['sd'] / 1e6:.1f} MB"
        for name, metric in metrics.items()
        if "_bytes" in name
    )
    times = metrics["times_float"]["mean"]
    return f"{row['method']:8} {row['bits']:2} bits, {', '.join(sizes)}, {times:.2f} times float"


if __name__ == "__main__":
    main()
