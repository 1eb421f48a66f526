"""How fast tensor-train layers and models are beside dense ones and other libraries.

    python experiments/speed.py                          # measures what is missing
    python experiments/speed.py linear embedding         # only tasks of these names, or whose names contain them
    python experiments/speed.py "bert-base 1×128" --rounds 30 --force
    python experiments/speed.py "bert-base 1×128" --no-rest   # the control: no contender may rest
    python experiments/speed.py bert --device cuda       # dense, tensor-train and fused models on a GPU
    python experiments/speed.py compress_ --against HEAD~3 --force   # an older build of ttqlib beside this one
    python experiments/speed.py --list                   # the tasks
    python experiments/speed.py linear --record          # into data/results/speed.json, not runs/speed/results.json

Layers forward and backward; whole training steps on ATIS; and BERT-shaped models of random weights in every form in
which they could be deployed (`contenders.py`, `deployed.py`). Let nothing else run meanwhile. The contenders of a row
take turns in one process, so that their ratio holds on a machine whose clock does not, each after a rest and a call
that does not count: without, dense BERT paid for the threads of onnxruntime, whose turn was before. A process that many
share has a heap that has grown for all of them; so in the tasks called "own process" each contender has one that holds
nothing else, and those that are called "kept" have called `ttq.keep_freed_memory()` there, "compiled" `torch.compile`,
which needs g++. In the tasks on builds an older one of ttqlib and the present one take turns, each in its process
(`builds.py`). Medians, three repetitions with other random numbers. `floor` is what products and look-ups alone would
take (`floor.py`).
"""

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from shutil import which

import builds
import torch
from builds import compare
from contenders import PEER, Contender, embedding_layers, forward_pass, linear_layers, own_processes, training_step
from deployed import FORMS, ON_GPU, SHAPES
from floor import Rates, work
from results import add_options, check_runs, place, read, record, row_of

import ttqlib as ttq

SEEDS = (0, 1, 2)
LINEAR = ((768, 768), (768, 3072), (3072, 768))
VOCABULARY = (10_000, 30_522, 100_000, 300_000)
INPUTS = ((1, 32), (1, 128), (8, 128))  # sentences, tokens
SETTLE = 0.02  # seconds, then an untimed call: onnxruntime's threads outlast its calls, and slow down whoever is next
OWN = (  # the forms that are measured alone in a process, and how
    *("dense", "tt", "fused", "dense, kept", "tt, kept", "fused, kept"),
    *("dense, kept, compiled", "fused, kept, compiled", "dense-bf16, kept", "fused-bf16, kept"),
    *("dense-onnx-int8", "fused-onnx", "fused-onnx-int8"),
    *("svd, kept", "svd-onnx", "narrow, kept", "narrow-onnx"),
)
AGAINST = "5e0fcb8"  # the build that the present one is compared with
LAYERS, STEPS, FORWARD, ALONE = "forward + backward", "training step", "forward", "forward, own process"
BUILDS = "two builds"
BASE = {"shape": SHAPES["bert-base"]}
TASKS = {  # name → what is timed, how it is built, from what, rounds
    **{f"linear {n}→{m}": (LAYERS, linear_layers, (n, m), 30) for n, m in LINEAR},
    **{f"embedding {size}×768": (LAYERS, embedding_layers, (size, 768), 30) for size in VOCABULARY},
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
    **{
        f"eight steps of atis, {name}{threads}": (BUILDS, "AtisStep", {"task": "atis", "rank": 12, "bits": bits}, 12)
        for name, bits in {"tt": 32, "tt-qat": 4}.items()
        for threads in ("", ", one thread")
    },
    **{
        f"onnxruntime, {form} {batch}×{length}": (BUILDS, "Answer", {**BASE, "form": form, "ids": (batch, length)}, 10)
        for form in ("dense-int8", "fused", "fused-int8")
        for batch, length in INPUTS[1:]
    },
    "20 steps of distillation": (BUILDS, "DistillationSteps", {"steps": 20}, 5),
    "20 steps of distillation, one thread": (BUILDS, "DistillationSteps", {"steps": 20}, 3),
    "20 steps of distillation, by length": (BUILDS, "DistillationSteps", {"steps": 20, "by_length": True}, 3),
    "20 steps of distillation, float cores": (BUILDS, "DistillationSteps", {"steps": 20, "bits": 32}, 3),
    "200 steps of distillation": (BUILDS, "DistillationSteps", {"steps": 200}, 1),
}


def methods(split: str, device: str, against: str = AGAINST) -> list[str]:
    """The contenders that a task has: one whose row is missing makes it be measured again."""
    forms = list(FORMS if device == "cpu" else ON_GPU)
    compiles = which("g++") is not None
    return {
        LAYERS: ["dense", "tt", *([PEER] if find_spec("tltorch") else [])],
        STEPS: ["dense", "tt", "tt-qat"],
        FORWARD: forms,
        ALONE: [name for name in OWN if name.split(", ")[0] in forms and (compiles or "compiled" not in name)],
        BUILDS: [against, "present"],
    }[split]


def measure(
    build: Callable, argument, names: list[str], device: str, rounds: int, settle: float = SETTLE
) -> dict[str, dict]:
    """For each contender, over the seeds: milliseconds, how many times faster than dense, memory, work and floor."""
    figures: dict[str, dict[str, list]] = {name: {} for name in names}
    for seed in SEEDS:
        torch.manual_seed(seed)
        contenders, rates = build(argument, names, device), Rates.measured(device)
        runs = {name: contender.run for name, contender in contenders.items()}
        medians = ttq.interleaved_medians(runs, rounds, warmup=1 + rounds // 3, settle=settle)
        for name, contender in contenders.items():
            found = {"milliseconds": medians[name], "speedup": medians["dense"] / medians[name]}
            found |= counted(contender, rates) if contender.is_pytorch else {}
            grown = contender.process_bytes() if seed == SEEDS[0] else None  # it takes a while, and hardly varies
            found |= {} if grown is None else {"process_bytes": grown}
            for key, value in found.items():
                figures[name].setdefault(key, []).append(value)
    dense = contenders["dense"].stored_bytes
    return {
        name: row_of(figures[name], one.rank, one.bits, SEEDS, one.stored_bytes, dense)
        for name, one in contenders.items()
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
    the weights: the largest ratio, over the layers, to that of the older build. Of a training, losses are compared.
    """
    found = compare(job, arguments, against, rounds)
    older, rows = found[against], {}
    for name, seen in found.items():
        figures = {
            "milliseconds": [1000 * seconds for seconds in seen["seconds"]],
            "speedup": [a / b for a, b in zip(older["seconds"], seen["seconds"], strict=True)],
            "process_bytes": [max(seen["process_bytes"])],
        }
        rows[name] = row_of(
            figures, *(seen[name] for name in ("rank", "bits")), (0,), seen["stored_bytes"], seen["dense_bytes"]
        )
        if "errors" in seen:
            worst = max(error / older["errors"][layer] for layer, error in seen["errors"].items())
            rows[name]["metrics"]["worst_error_ratio"] = {"mean": round(worst, 6), "sd": None}
        if "losses" in seen:
            rows[name]["metrics"] |= loss_differences(seen["losses"], older["losses"])
    return rows


def loss_differences(losses: list[float], older: list[float]) -> dict[str, dict]:
    """By how much losses of the same steps differ, relative to the older ones: at worst, and the mean over all."""
    worst = max(abs(a - b) / b for a, b in zip(losses, older, strict=True))
    found = {"worst_loss_difference": worst, "mean_loss_difference": abs(sum(losses) / sum(older) - 1)}
    return {name: {"mean": float(f"{value:.2g}"), "sd": None} for name, value in found.items()}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="measure only tasks of these names, or whose names contain them")
    parser.add_argument("--list", action="store_true", help="name the tasks and stop")
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    parser.add_argument("--rounds", type=int, help="how often a contender is timed in each of the three repetitions")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, …")
    parser.add_argument("--against", default=AGAINST, help="the commit whose build is compared with the present one")
    parser.add_argument("--no-rest", action="store_true", help="each contender pays for the threads of the one before")
    add_options(parser, "speed")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    options.tasks = [
        task
        for task, (split, *_) in TASKS.items()
        if any(word == task if word in TASKS else word in task for word in options.words or [""])
        and (split != BUILDS or options.device == "cpu")
    ]
    if not options.tasks:
        parser.error(f"no task contains {' or '.join(map(repr, options.words))}; --list names them")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        print("\n".join(options.tasks))
        return
    if not find_spec("tltorch") and any(TASKS[task][0] == LAYERS for task in options.tasks):
        print(f"{PEER} is left out of the comparison of layers: python -m pip install -e '.[bench]' brings it")
    try:  # before the first task has taken its minutes
        torch.empty(0, device=options.device)
        if any(TASKS[task][0] == BUILDS for task in options.tasks):
            with builds.tree(options.against):
                pass
    except (AssertionError, RuntimeError, ValueError) as problem:
        raise SystemExit(f"--device {options.device}, --against {options.against}: {problem}") from None
    path, threads = place("speed", options), torch.get_num_threads()
    for number, task in enumerate(options.tasks, start=1):
        key = {"task": task, "split": TASKS[task][0], "settings": settings(options)}
        there = {row["method"] for row in read(path) if all(row[field] == key[field] for field in key)}
        if there.issuperset(methods(key["split"], options.device, options.against)) and not options.force:
            print(f"{task}: there already")
            continue
        print(f"{task}: {number} of {len(options.tasks)}")
        start = time.perf_counter()
        torch.set_num_threads(1 if "one thread" in task else threads)
        for name, figures in measured(task, options).items():
            row = {**key, "method": name, **figures}
            record(path, row, seconds=time.perf_counter() - start)
            print(line(row))


def measured(task: str, options: argparse.Namespace) -> dict[str, dict]:
    """What is measured of each contender of a task."""
    split, build, argument, rounds = TASKS[task]
    if split == BUILDS:
        return measure_builds(build, argument, options.against, options.rounds or rounds)
    names = methods(split, options.device)
    return measure(build, argument, names, options.device, options.rounds or rounds, 0.0 if options.no_rest else SETTLE)


def settings(options: argparse.Namespace) -> dict[str, str] | None:
    """What the machine alone does not tell; None on a CPU with nothing changed."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    found = {"device": None if device == "cpu" else device, "rest": "none" if options.no_rest else None}
    return {name: value for name, value in found.items() if value} or None


SHOWN = {"floor": "floor {:.2f} ms", "peak_bytes": "peak {:.1f} MB", "process_bytes": "process {:.0f} MB"}


def line(row: dict) -> str:
    values = {name: metric["mean"] / (1e6 if "bytes" in name else 1) for name, metric in row["metrics"].items()}
    shown = [words.format(values[name]) for name, words in SHOWN.items() if name in values]
    parts = [f"{row['task']:22} {row['method']:16} {values['milliseconds']:8.2f} ms  {values['speedup']:5.2f}×"]
    return "  ".join([*parts, *shown, f"stored {row['ratio']:.1f}× smaller"])


if __name__ == "__main__":
    main()
