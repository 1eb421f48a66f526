"""How fast tensor-train layers and models are beside dense ones in training; writes data/results/speed.json.

    python experiments/speed.py            # measures what is missing, about a minute
    python experiments/speed.py --force    # measures everything again

Let nothing else run meanwhile. The contenders of a row take turns in one process, so that their ratio holds on a
machine whose clock does not; medians, three repetitions with other random numbers.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import cycle

import atis
import torch
from results import find, load, record
from torch import nn

import ttqlib as ttq

SEEDS = (0, 1, 2)
LINEAR = ((768, 768), (768, 3072), (3072, 768))
ROWS = (32, 32)  # sentences, tokens
RANK = 30
VOCABULARY = (10_000, 30_522, 100_000, 300_000)
HIDDEN, EMBEDDING_RANK, IDS = 768, 20, 2048
ATIS_RANK, BATCH, BATCHES = 12, 32, 40


# What a contender is made of: its rank and the bits of its cores.
Form = tuple[int | None, int]
DENSE: Form = (None, 32)


def linear_layers(sizes: tuple[int, int]) -> tuple[dict[str, nn.Module], Callable, dict[str, Form]]:
    inputs, outputs = sizes
    layers = {"dense": nn.Linear(inputs, outputs), "tt": ttq.TTLinear(inputs, outputs, RANK)}
    x, gradient = torch.randn(*ROWS, inputs, requires_grad=True), torch.randn(*ROWS, outputs)

    def backward(layer):
        x.grad = None  # inside a network the gradient of an input is handed on, never added up
        layer(x).backward(gradient)

    return layers, backward, {"dense": DENSE, "tt": (RANK, 32)}


def embedding_layers(vocabulary: int) -> tuple[dict[str, nn.Module], Callable, dict[str, Form]]:
    layers = {
        "dense": nn.Embedding(vocabulary, HIDDEN),
        "tt": ttq.TTMEmbedding(vocabulary, HIDDEN, EMBEDDING_RANK),
    }
    ids, gradient = torch.randint(0, vocabulary, (IDS,)), torch.randn(IDS, HIDDEN)
    return layers, lambda layer: layer(ids).backward(gradient), {"dense": DENSE, "tt": (EMBEDDING_RANK, 32)}


def training_step(task: str) -> tuple[dict[str, nn.Module], Callable, dict[str, Form]]:
    """Forward, backward and AdamW on the model of experiments/atis.py, over the same batches of `task` in turn."""
    train = ttq.load_task(task)["train"]
    tokenizer = ttq.word_tokenizer(train["tokens"])
    names = ttq.label_names(train, "intent"), ttq.label_names(train, "slots")
    collate, rows = ttq.IntentSlotCollator(tokenizer), ttq.encode(train, tokenizer, *names, atis.POSITIONS)
    by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))  # batches of like lengths, as there
    starts = range(0, len(rows) - BATCH, len(rows) // BATCHES)
    batches = [collate([rows[n] for n in by_length[start : start + BATCH]]) for start in starts]
    forms = {"dense": DENSE, "tt": (ATIS_RANK, 32), "tt-qat": (ATIS_RANK, 4)}
    layers, turn = {}, {}
    for name, (rank, bits) in forms.items():
        options = argparse.Namespace(**{**vars(atis.parse([])), "rank": rank, "bits": bits})
        layers[name] = model = ttq.compress_(*atis.build(options, len(tokenizer), *names)).train()
        turn[model] = cycle(batches), torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as Trainer does

    def step(model):
        own_batches, optimizer = turn[model]
        model(**next(own_batches)).loss.backward()
        optimizer.step()

    return layers, step, forms


TASKS = {
    **{f"linear {n}→{m}": (linear_layers, (n, m)) for n, m in LINEAR},
    **{f"embedding {size}×{HIDDEN}": (embedding_layers, size) for size in VOCABULARY},
    "atis": (training_step, "atis"),
    "atis, one thread": (training_step, "atis"),  # as runs on real ATIS were trained
}


def measure(build: Callable, argument) -> dict[str, dict]:
    """For each contender, over the seeds: median milliseconds, how many times faster than dense, peak bytes."""
    figures: dict[str, dict[str, list]] = {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        layers, backward, forms = build(argument)

        def step(layer, backward=backward):
            layer.zero_grad()  # to None, as optimizers do: what is timed includes making the gradients
            backward(layer)

        steps = {name: (lambda layer=layer, step=step: step(layer)) for name, layer in layers.items()}
        medians = ttq.interleaved_medians(steps, rounds=30, warmup=10)
        for name, layer in layers.items():
            figure = figures.setdefault(name, {"milliseconds": [], "speedup": [], "peak_bytes": []})
            figure["milliseconds"].append(medians[name])
            figure["speedup"].append(medians["dense"] / medians[name])
            figure["peak_bytes"].append(peak_of(layer, step))
    sizes = {name: ttq.parameter_bytes(layer) for name, layer in layers.items()}
    return {
        name: {
            "rank": forms[name][0],
            "bits": forms[name][1],
            "seeds": list(SEEDS),
            "metrics": {key: summary(values) for key, values in figure.items()},
            "stored_bytes": sizes[name],
            "dense_bytes": sizes["dense"],
            "ratio": round(sizes["dense"] / sizes[name], 2),
        }
        for name, figure in figures.items()
    }


def peak_of(layer: nn.Module, step: Callable) -> int:
    """Most bytes alive during a step, gradients included, parameters not."""
    layer.zero_grad()
    return ttq.peak_bytes(lambda: step(layer))


def summary(values: list[float]) -> dict[str, float]:
    return {"mean": round(statistics.mean(values), 3), "sd": round(statistics.stdev(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    force = parser.parse_args().force
    rows, threads = load("speed"), torch.get_num_threads()
    for task, (build, argument) in TASKS.items():
        split = "training step" if build is training_step else "forward + backward"
        key = {"task": task, "split": split, "settings": None}
        if not force and find(rows, **key, method="dense", rank=None, bits=32):
            print(f"{task}: there already")
            continue
        start = time.perf_counter()
        torch.set_num_threads(1 if "one thread" in task else threads)
        for name, figures in measure(build, argument).items():
            row = {**key, "method": name, "paper": None, "plan": None, **figures}
            record("speed", row, seconds=time.perf_counter() - start)
            m = row["metrics"]
            print(
                f"{task:22} {name:6} {m['milliseconds']['mean']:7.2f} ms  {m['speedup']['mean']:5.2f}×  "
                f"peak {m['peak_bytes']['mean'] / 2**20:6.1f} MiB  stored {row['ratio']:.1f}× smaller"
            )


if __name__ == "__main__":
    main()
