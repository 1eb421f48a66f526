"""How fast tensor-train layers and models are beside dense ones and other libraries; writes data/results/speed.json.

    python experiments/speed.py                          # measures what is missing
    python experiments/speed.py linear embedding         # only tasks of these names, or whose names contain them
    python experiments/speed.py "bert-base 1×128" --rounds 30 --force
    python experiments/speed.py "bert-base 1×128" --no-rest   # the control: no contender may rest
    python experiments/speed.py bert --device cuda       # dense, tensor-train and fused models on a GPU
    python experiments/speed.py compress_ --against HEAD~3 --force   # an older build of ttqlib beside this one
    python experiments/speed.py --list                   # the tasks

Layers forward and backward; whole training steps on ATIS; and BERT-shaped models of random weights in every form in
which they could be deployed (`deployed.py`). Let nothing else run meanwhile. The contenders of a row take turns in one
process, so that their ratio holds on a machine whose clock does not, each after a rest and a call that does not count:
without, dense BERT paid for the threads of onnxruntime, whose turn was before. A process that many share has a heap
that has grown for all of them; so in the tasks called "own process" each contender has one that holds nothing else, and
those that are called "kept" have called `ttq.keep_freed_memory()` there, "compiled" `torch.compile`, which needs g++.
In the tasks on builds an older one of ttqlib and the present one take turns, each in its process (`builds.py`).
Medians, three repetitions with other random numbers. `floor` is what products and look-ups alone would take
(`floor.py`).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import cycle
from math import prod
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import atis
import torch
from builds import BITS, compare
from deployed import FORMS, ON_GPU, RANK, SHAPES, file_bytes, load_form, own_process, process_bytes, write_forms
from floor import Rates, work
from results import load, record
from torch import nn
from transformers import BertConfig

import ttqlib as ttq

SEEDS = (0, 1, 2)
LINEAR = ((768, 768), (768, 3072), (3072, 768))
ROWS = (32, 32)  # sentences, tokens
VOCABULARY = (10_000, 30_522, 100_000, 300_000)
HIDDEN, EMBEDDING_RANK, IDS = 768, 20, 2048
ATIS_RANK, BATCH, BATCHES = 12, 32, 40
INPUTS = ((1, 32), (1, 128), (8, 128))  # sentences, tokens
SETTLE = 0.02  # seconds, then an untimed call: onnxruntime's threads outlast its calls, and slow down whoever is next
OWN = (  # the forms that are measured alone in a process, and how
    *("dense", "tt", "fused", "dense, kept", "tt, kept", "fused, kept"),
    *("dense, kept, compiled", "fused, kept, compiled", "fused-onnx", "fused-onnx-int8"),
)
PEER = "tensorly-torch"  # installed by the extra `bench`
AGAINST = "5e0fcb8"  # the build that the present one is compared with


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: what is timed, and what there is to say about it."""

    run: Callable[[], object]
    rank: int | None
    bits: int
    stored_bytes: int
    is_pytorch: bool = True  # made of PyTorch's operations alone, so that they can be counted
    process_bytes: Callable[[], int | None] = lambda: None


def of_layer(layer: nn.Module, backward: Callable, rank: int | None, bits: int = 32) -> Contender:
    """`backward(layer)`, its gradients made afresh as after an optimizer's step: that takes time too."""

    def step() -> None:
        layer.zero_grad()
        backward(layer)

    return Contender(step, rank, bits, ttq.parameter_bytes(layer))


def linear_layers(sizes: tuple[int, int], device: str) -> dict[str, Contender]:
    inputs, outputs = sizes
    layers = {"dense": nn.Linear(inputs, outputs), "tt": ttq.TTLinear(inputs, outputs, RANK)}
    if find_spec("tltorch"):
        from tltorch import FactorizedLinear

        modes = ttq.factorize(inputs), ttq.factorize(outputs)
        layers[PEER] = FactorizedLinear(*modes, factorization="blocktt", rank=RANK)
    x = torch.randn(*ROWS, inputs, device=device, requires_grad=True)
    gradient = torch.randn(*ROWS, outputs, device=device)

    def backward(layer: nn.Module) -> None:
        x.grad = None  # inside a network the gradient of an input is handed on, never added up
        layer(x).backward(gradient)

    return {
        name: of_layer(layer.to(device), backward, None if name == "dense" else RANK) for name, layer in layers.items()
    }


def embedding_layers(vocabulary: int, device: str) -> dict[str, Contender]:
    rank = EMBEDDING_RANK
    layers = {"dense": nn.Embedding(vocabulary, HIDDEN), "tt": ttq.TTMEmbedding(vocabulary, HIDDEN, rank)}
    if find_spec("tltorch"):
        from tltorch import FactorizedEmbedding

        rows, columns = layers["tt"].vocabulary_modes, layers["tt"].hidden_modes  # it does not pad by itself
        layers[PEER] = FactorizedEmbedding(prod(rows), HIDDEN, False, 3, rows, columns, rank=rank)
    ids = torch.randint(vocabulary, (IDS,), device=device)
    gradient = torch.randn(IDS, HIDDEN, device=device)

    def backward(layer: nn.Module) -> None:
        layer(ids).backward(gradient)

    return {
        name: of_layer(layer.to(device), backward, None if name == "dense" else rank) for name, layer in layers.items()
    }


def training_step(task: str, device: str) -> dict[str, Contender]:
    """Forward, backward and AdamW on the model of experiments/atis.py, over the same batches of `task` in turn."""
    train = ttq.load_task(task)["train"]
    tokenizer = ttq.word_tokenizer(train["tokens"])
    names = ttq.label_names(train, "intent"), ttq.label_names(train, "slots")
    collate, rows = ttq.IntentSlotCollator(tokenizer), ttq.encode(train, tokenizer, *names, atis.POSITIONS)
    by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))  # batches of like lengths, as there
    starts = range(0, len(rows) - BATCH, len(rows) // BATCHES)
    batches = [collate([rows[n] for n in by_length[start : start + BATCH]]) for start in starts]
    batches = [{key: values.to(device) for key, values in batch.items()} for batch in batches]
    contenders = {}
    for name, (rank, bits) in {"dense": (None, 32), "tt": (ATIS_RANK, 32), "tt-qat": (ATIS_RANK, 4)}.items():
        chosen = {"rank": rank, "bits": bits, "sides": 2}  # the form of the models that do best
        options = argparse.Namespace(**{**vars(atis.parse([])), **chosen})
        model = ttq.quick_dropout_(ttq.compress_(*atis.build(options, len(tokenizer), *names)).train().to(device))
        contenders[name] = of_layer(model, optimizer_step(model, cycle(batches)), rank, bits)
    return contenders


def optimizer_step(model: nn.Module, batches: Iterator[dict]) -> Callable:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as Trainer does

    def step(model: nn.Module) -> None:
        with ttq.merged_together(model):
            loss = model(**next(batches)).loss
        loss.backward()
        optimizer.step()

    return step


def forward_pass(argument: tuple[str, tuple[int, int]], device: str) -> dict[str, Contender]:
    """A BERT-shaped classifier over ids of shape (sentences, tokens), in every form that runs on the device."""
    shape, size = argument
    known = forms(shape, device, torch.get_num_threads())
    ids = torch.randint(1, BertConfig().vocab_size, size)

    def contender(name: str, run: Callable) -> Contender:
        path, inputs, (rank, bits) = Path(known.folder.name) / name, ids.to(device), FORMS[name]
        grows = (lambda: process_bytes(path, ids)) if device == "cpu" else (lambda: None)
        return Contender(lambda: run(inputs), rank, bits, file_bytes(path), name in ON_GPU, grows)

    return {name: contender(name, run) for name, run in known.runs.items()}


def own_processes(argument: tuple[str, tuple[int, int]], device: str) -> dict[str, Contender]:
    """The same classifier in processes that hold nothing else, as it would be deployed."""
    shape, size = argument
    folder = Path(forms(shape, device, torch.get_num_threads()).folder.name)
    ids = torch.randint(1, BertConfig().vocab_size, size)

    def contender(name: str) -> Contender:
        form, *how = name.split(", ")
        run = own_process(folder / form, ids, device, frozenset(how))
        return Contender(run, *FORMS[form], file_bytes(folder / form), is_pytorch=False)

    return {name: contender(name) for name in methods(ALONE, device)}


@dataclass(frozen=True)
class Forms:
    """The files of a model in every form, which live as long as this, and what was loaded from them."""

    folder: TemporaryDirectory
    runs: dict[str, Callable]


@lru_cache(maxsize=1)
def forms(shape: str, device: str, threads: int) -> Forms:
    """One model serves all sizes of inputs; `threads`, those of PyTorch, are what onnxruntime will use from then on."""
    folder, names = TemporaryDirectory(), FORMS if device == "cpu" else ON_GPU
    write_forms(BertConfig(**SHAPES[shape]), Path(folder.name), RANK, names)
    return Forms(folder, {name: load_form(Path(folder.name) / name, device) for name in names})


def measure(build: Callable, argument, device: str, rounds: int, settle: float = SETTLE) -> dict[str, dict]:
    """For each contender, over the seeds: milliseconds, how many times faster than dense, memory, work and floor."""
    figures: dict[str, dict[str, list]] = {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        contenders, rates = build(argument, device), Rates.measured(device)
        runs = {name: contender.run for name, contender in contenders.items()}
        medians = ttq.interleaved_medians(runs, rounds, warmup=1 + rounds // 3, settle=settle)
        for name, contender in contenders.items():
            figure = figures.setdefault(name, {})
            found = {"milliseconds": medians[name], "speedup": medians["dense"] / medians[name]}
            found |= counted(contender, rates) if contender.is_pytorch else {}
            grown = contender.process_bytes() if seed == SEEDS[0] else None  # it takes a while, and hardly varies
            found |= {} if grown is None else {"process_bytes": grown}
            for key, value in found.items():
                figure.setdefault(key, []).append(value)
    dense = contenders["dense"].stored_bytes
    return {
        name: {
            "rank": contender.rank,
            "bits": contender.bits,
            "seeds": list(SEEDS),
            "metrics": {key: summary(values) for key, values in figures[name].items()},
            "stored_bytes": contender.stored_bytes,
            "dense_bytes": dense,
            "ratio": round(dense / contender.stored_bytes, 2),
        }
        for name, contender in contenders.items()
    }


def counted(contender: Contender, rates: Rates) -> dict[str, float]:
    """The most bytes alive in a pass, parameters not among them; its work, and the floor of that in milliseconds."""
    done = work(contender.run)
    return {
        "peak_bytes": ttq.peak_bytes(contender.run),
        "flops": done.flops,
        "touched_bytes": done.bytes,
        "floor": rates.floor(done.flops, done.bytes),
        "gflops_per_second": rates.flops / 1e9,
        "gigabytes_per_second": rates.bytes / 1e9,
    }


def measure_builds(job: str, arguments: dict, against: str, rounds: int) -> dict[str, dict]:
    """For the older build and the present one: milliseconds, how many times faster than the older one, and memory.

    `process_bytes` is by how much a process grows. `worst_error_ratio` compares the errors that `compress_` leaves in
    the weights: the largest ratio, over the layers, to that of the older build.
    """
    found = compare(job, arguments, against, rounds)
    older, rows = found[against], {}
    for name, figures in found.items():
        metrics = {
            "milliseconds": summary([1000 * seconds for seconds in figures["seconds"]]),
            "speedup": summary([a / b for a, b in zip(older["seconds"], figures["seconds"], strict=True)]),
            "process_bytes": summary([max(figures["process_bytes"])]),
        }
        if "errors" in figures:
            ratios = [error / older["errors"][layer] for layer, error in figures["errors"].items()]
            metrics["worst_error_ratio"] = {"mean": round(max(ratios), 6), "sd": None}
        sizes = {key: figures[key] for key in ("stored_bytes", "dense_bytes")}
        ratio = round(sizes["dense_bytes"] / sizes["stored_bytes"], 2)
        rows[name] = {"rank": RANK, "bits": BITS, "seeds": [0], "metrics": metrics, **sizes, "ratio": ratio}
    return rows


def summary(values: list[float]) -> dict[str, float | None]:
    return {"mean": round(statistics.mean(values), 3), "sd": round(statistics.stdev(values), 3) if values[1:] else None}


LAYERS, STEPS, FORWARD, ALONE = "forward + backward", "training step", "forward", "forward, own process"
BUILDS = "two builds"
BASE = {"shape": SHAPES["bert-base"]}
TASKS = {  # name → what is timed, how it is built, from what, rounds
    **{f"linear {n}→{m}": (LAYERS, linear_layers, (n, m), 30) for n, m in LINEAR},
    **{f"embedding {size}×{HIDDEN}": (LAYERS, embedding_layers, size, 30) for size in VOCABULARY},
    "atis": (STEPS, training_step, "atis", 30),
    "atis, one thread": (STEPS, training_step, "atis", 30),  # as runs on real ATIS were trained
    **{
        f"{shape} {batch}×{length}": (FORWARD, forward_pass, (shape, (batch, length)), 10)
        for shape in SHAPES
        for batch, length in INPUTS
    },
    **{
        f"bert-base {batch}×{length}, one thread": (FORWARD, forward_pass, ("bert-base", (batch, length)), 10)
        for batch, length in INPUTS[1:]
    },
    **{
        f"bert-base {batch}×{length}, own process": (ALONE, own_processes, ("bert-base", (batch, length)), 10)
        for batch, length in INPUTS[1:]
    },
    "compress_": (BUILDS, "Compression", BASE, 3),
    "compress_, one thread": (BUILDS, "Compression", BASE, 3),
    "compress_ with calibration, one thread": (BUILDS, "Compression", BASE | {"batches": 4}, 1),
}


def methods(split: str, device: str, against: str = AGAINST) -> list[str]:
    """The contenders that a task has: one whose row is missing makes it be measured again."""
    if split == STEPS:
        return ["dense", "tt", "tt-qat"]
    if split == FORWARD:
        return list(FORMS if device == "cpu" else ON_GPU)
    if split == ALONE:
        runs = FORMS if device == "cpu" else ON_GPU
        return [n for n in OWN if n.split(", ")[0] in runs and (which("g++") or "compiled" not in n)]
    if split == BUILDS:
        return [against, "present"]
    return ["dense", "tt", *([PEER] if find_spec("tltorch") else [])]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="measure only tasks of these names, or whose names contain them")
    parser.add_argument("--list", action="store_true", help="name the tasks and stop")
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    parser.add_argument("--rounds", type=int, help="how often a contender is timed in each of the three repetitions")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, …")
    parser.add_argument("--against", default=AGAINST, help="the commit whose build is compared with the present one")
    parser.add_argument("--no-rest", action="store_true", help="each contender pays for the threads of the one before")
    parser.add_argument("--no-record", action="store_true", help="write no row into data/results")
    options = parser.parse_args(arguments)
    options.tasks = [
        task
        for task, (split, *_) in TASKS.items()
        if any(word == task if word in TASKS else word in task for word in options.words or [""])
        and (split != BUILDS or options.device == "cpu")
    ]
    if not options.tasks:
        parser.error(f"no task contains {' or '.join(map(repr, options.words))}; --list names them")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        print("\n".join(options.tasks))
        return
    if not find_spec("tltorch") and any(TASKS[task][0] == LAYERS for task in options.tasks):
        print(f"{PEER} is left out of the comparison of layers: python -m pip install -e '.[bench]' brings it")
    threads = torch.get_num_threads()
    for task in options.tasks:
        split, build, argument, rounds = TASKS[task]
        key = {"task": task, "split": split, "settings": settings(options)}
        if not options.force and set(methods(split, options.device, options.against)) <= recorded(key):
            print(f"{task}: there already")
            continue
        start = time.perf_counter()
        torch.set_num_threads(1 if "one thread" in task else threads)
        settle, rounds = 0.0 if options.no_rest else SETTLE, options.rounds or rounds
        if split == BUILDS:
            rows = measure_builds(build, argument, options.against, rounds)
        else:
            rows = measure(build, argument, options.device, rounds, settle)
        for name, figures in rows.items():
            row = {**key, "method": name, "paper": None, "plan": None, **figures}
            if not options.no_record:
                record("speed", row, seconds=time.perf_counter() - start)
            print(line(row))


def settings(options: argparse.Namespace) -> dict[str, str] | None:
    """What the machine alone does not tell; None on a CPU with nothing changed."""
    device, found = options.device, {}
    if device != "cpu":
        found["device"] = torch.cuda.get_device_name() if device == "cuda" else device
    if options.no_rest:
        found["rest"] = "none"
    return found or None


def recorded(key: dict) -> set[str]:
    """The methods whose rows are there."""
    return {row["method"] for row in load("speed") if all(row[field] == key[field] for field in key)}


SHOWN = {"floor": "floor {:.2f} ms", "peak_bytes": "peak {:.1f} MB", "process_bytes": "process {:.0f} MB"}


def line(row: dict) -> str:
    values = {name: metric["mean"] for name, metric in row["metrics"].items()}
    parts = [f"{row['task']:22} {row['method']:16} {values['milliseconds']:8.2f} ms  {values['speedup']:5.2f}×"]
    for name, words in SHOWN.items():
        if name in values:
            parts.append(words.format(values[name] / (1e6 if "bytes" in name else 1)))
    return "  ".join([*parts, f"stored {row['ratio']:.1f}× smaller"])


if __name__ == "__main__":
    main()
