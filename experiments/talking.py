"""How fast a language model talks on two threads, in how much memory, at what perplexity: engines side by side.

    python -m venv venv                                             # the engines of others, beside ours:
    venv/bin/python -m pip install --no-deps onnxruntime-genai==0.18.0 llama-cpp-python==0.3.34   # builds, 5 minutes
    python experiments/teq.py --bits 4 --group 64 --recipe clip+gptq   # the model that ours is, 10 minutes
    python experiments/talking.py --python venv/bin/python          # 10 minutes; let nothing else run meanwhile
    python experiments/talking.py --python venv/bin/python --record # into data/results/talking.json
    python experiments/talking.py --engines ours pytorch --rounds 2 --windows 4   # small: do they answer?

In `venv` there must also be numpy and jinja2, diskcache, typing_extensions (llama.cpp), and for the builder of
onnxruntime-genai what ttqlib has: a line in a .pth file of it that names the other environment's packages does.

One prompt of 55 tokens, 128 new ones, always the likeliest. Each engine has a process of its own (`talkers.py`), they
take turns; `tokens_per_second` is of the tokens after the first, by the median of the rounds, `times_fastest` compares
it with the fastest engine of others in the same rounds. `resident_bytes` is the whole process after that, `peak_bytes`
the most it had. Perplexity is of the engine itself, on the windows of teq.py: what rounds its inputs pays for it.

Ours is teq.py's model at 4 bits, with the table of words in 4 bits as well, its codes chosen by GPTQ on what the head
is given. `floor_tokens_per_second` is what reading all bytes of its file once a token would allow, at the rate at which
as many threads read memory here: no engine that reads every weight is faster, where they fit no cache.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import teq
import torch
from results import RUNS, add_options, check_runs, place, record, row_of
from runs import fingerprint
from torch.nn.utils import parametrize
from transformers.utils import logging

import ttqlib as ttq
from ttqlib.models.smollm2 import packaged_smollm2
from ttqlib.quantizers.gptq import compensated
from ttqlib.quantizers.parametrizing import register_

TALKERS = Path(__file__).with_name("talkers.py")
TASK, SPLIT, TOKENS, NEW, THREADS, ROUNDS = "manual", "talking", 55, 128, 2, 7
CODES = {"bits": 4, "group": "64"}  # of the linear layers, in teq.py's words
WORDS = ttq.GroupRTN(4, per=64, symmetric=False)  # of the table
CALIBRATION = 8  # batches of teq.py's that the head is shown
REST = 0.5  # seconds between two engines, until the threads of the last one sleep
READ = 2**27  # bytes that a thread reads to find the rate of memory: more than a cache holds


@dataclass(frozen=True)
class Engine:
    """`kind` is a name of `talkers.ENGINES`; `bits` what most weights take; `package` what --python must have."""

    kind: str
    bits: int
    package: str | None = None


GENAI = "onnxruntime_genai"
ENGINES = {
    "pytorch": Engine("pytorch", 32),
    "genai-float": Engine("onnxruntime-genai", 32, GENAI),
    "genai-4bit": Engine("onnxruntime-genai", 4, GENAI),
    "llama.cpp": Engine("llama.cpp", 4, "llama_cpp"),
    "ours": Engine("ours", 4),
}


# -------------------------------------------------------------------------------------------------- what engines open


def our_model(runs: Path, recipe: str) -> torch.nn.Module:
    """teq.py's model of this recipe, its table of words in few bits as well.

    Raises:
        FileNotFoundError: there is none.
    """
    codes = teq.Compression(**CODES, recipe=recipe)
    kept = runs / codes.folder / "seed-0" / "model"
    if not (kept / "config.json").exists():
        command = f"python experiments/teq.py --bits {codes.bits} --group {codes.group} --recipe {recipe}"
        raise FileNotFoundError(f"there is no model to export yet: type {command}")
    return with_words(ttq.load(kept).eval(), teq.drawn(codes, seed=0)[:CALIBRATION])


@torch.no_grad()
def with_words(model: torch.nn.Module, batches: Sequence[Mapping]) -> torch.nn.Module:
    """The model with its table, which is its head as well, in few bits: rounded knowing what the head is given."""
    moments = 0.0
    with parametrize.cached():
        for batch in batches:
            given = model.base_model(**batch, use_cache=False).last_hidden_state.flatten(0, 1)
            moments = moments + given.T @ given
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    weight, grid = table.weight, WORDS.build(table.weight)
    weight.copy_(compensated(WORDS, weight, grid.scales(weight), moments))
    register_([(table, "weight"), (head, "weight")], grid)
    return model


def build(names: Sequence[str], folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """What each engine opens, written into `folder` where it is not there."""
    dense, tokenizer = folder / "float", ttq.smollm2_tokenizer()
    ttq.pretrained_smollm2().save_pretrained(dense)
    tokenizer.save_pretrained(dense)
    paths = {"pytorch": dense, "llama.cpp": packaged_smollm2()}
    for name, precision in {"genai-float": "fp32", "genai-4bit": "int4"}.items():
        if name in names:
            paths[name] = folder / name
            how = ["-i", dense, "-o", paths[name], "-p", precision, "-e", "cpu"]
            run = [options.python, "-m", "onnxruntime_genai.models.builder", *how]
            made = subprocess.run(run, capture_output=True, text=True)
            if made.returncode:
                raise RuntimeError(f"{name} failed: " + "\n".join(made.stderr.splitlines()[-15:]))
    if "ours" in names:
        paths["ours"] = folder / "ours"
        ttq.export_talker(our_model(options.models, options.recipe), paths["ours"], tokenizer)
    return {name: paths[name] for name in names}


def weight_bytes(path: Path) -> int:
    """The size of a file, or of the weights in a folder."""
    files = [path] if path.is_file() else path.iterdir()
    return sum(one.stat().st_size for one in files if one.suffix in (".gguf", ".onnx", ".data", ".safetensors"))


# ---------------------------------------------------------------------------------------------------- what is measured


class Process:
    """An engine in a process of its own: `ask` waits for an answer."""

    def __init__(self, name: str, path: Path, python: str, log: Path):
        self.name, self.log = name, log
        command = [python, TALKERS, ENGINES[name].kind, path, str(THREADS)]
        threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=os.environ | threads,
        )

    def ask(self, *question):
        """
        Raises:
            RuntimeError: the engine failed; the message ends with the last lines that it wrote.
        """
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        if answer := self.process.stdout.readline():
            return json.loads(answer)
        raise RuntimeError(f"{self.name} failed: " + "\n".join(self.log.read_text().splitlines()[-15:]))

    def close(self) -> None:
        self.process.communicate()


def measure(processes: Mapping[str, Process], windows: torch.Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Figures by engine. All decode once for nothing, then in turns; then each reads the windows."""
    prompt, rates, firsts = windows[0, :TOKENS].tolist(), {}, {}
    for turn in range(rounds + 1):
        for name, process in processes.items():
            time.sleep(REST)
            found = process.ask("decode", prompt, NEW)
            if turn:
                rates.setdefault(name, []).append((NEW - 1) / found["others"])
                firsts.setdefault(name, []).append(1000 * found["first"])
    peers = {name: rates[name] for name in rates if name != "ours"} or rates
    fastest = max(peers, key=lambda name: statistics.median(peers[name]))
    figures = {}
    for name, process in processes.items():
        own = {f"{key}_bytes": size for key, size in process.ask("memory").items()}
        ratios = [mine / theirs for mine, theirs in zip(rates[name], rates[fastest])]
        figures[name] = {
            "tokens_per_second": statistics.median(rates[name]),
            "times_fastest": statistics.median(ratios),
            "prompt_milliseconds": statistics.median(firsts[name]),
            **own,
        }
    for name, process in processes.items():
        total = sum(process.ask("loss", ids)["loss"] for ids in windows.tolist())
        figures[name]["perplexity"] = math.exp(total / (len(windows) * (windows.shape[1] - 1)))
    return figures


def memory_rate(threads: int = THREADS, rounds: int = 9) -> float:
    """Bytes a second that so many threads read together, at best: each looks for the largest of more than a cache."""
    arrays = [np.ones(READ // 8) for _ in range(threads)]
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            list(pool.map(np.max, arrays))
            best = min(best, time.perf_counter() - began)
    return threads * READ / best


# --------------------------------------------------------------------------------------------------------- the script


def has(python: str, package: str | None) -> bool:
    return package is None or not subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES, metavar="NAME")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the engines of others")
    parser.add_argument("--models", type=Path, default=RUNS / "teq", help="where teq.py keeps its runs")
    parser.add_argument("--recipe", default="clip+gptq", help="of teq.py, by which the codes of ours were chosen")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each engine has its turn")
    parser.add_argument("--windows", type=int, default=48, help="of held-out text, for perplexity")
    add_options(parser, "talking")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    for name in ("rounds", "windows"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    try:
        teq.Compression(**CODES, recipe=options.recipe, python=options.python)
    except ValueError as problem:
        parser.error(str(problem))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options, began = parse(arguments), time.perf_counter()
    names = [name for name in options.engines if has(options.python, ENGINES[name].package)]
    for name in set(options.engines) - set(names):
        print(f"{name} is left out: {options.python} has no {ENGINES[name].package}; the top of this script says more")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    windows, rate = teq.windows(TASK).held_out[: options.windows], memory_rate()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        root, processes = Path(scratch), {}
        paths = build(names, root, options)
        for name in names:
            python = options.python if ENGINES[name].package else sys.executable
            processes[name] = Process(name, paths[name], python, root / f"{name}.log")
            stack.callback(processes[name].close)
            processes[name].ask("ready")
        figures = measure(processes, windows, options.rounds)
        sizes = {name: weight_bytes(path) for name, path in paths.items()}
        dense = weight_bytes(root / "float")
    settings = {"prompt": TOKENS, "new": NEW, "threads": THREADS, "rounds": options.rounds, "windows": len(windows)}
    for name, found in figures.items():
        found |= {"gigabytes_per_second": rate / 1e9, "floor_tokens_per_second": rate / sizes[name]}
        row = row_of({key: [one] for key, one in found.items()}, None, ENGINES[name].bits, [0], sizes[name], dense)
        row |= {
            "task": TASK,
            "split": SPLIT,
            "method": name,
            "settings": settings | ({"recipe": options.recipe} if name == "ours" else {}),
        }
        digest = fingerprint({TASK: [ttq.load_text(TASK)]})
        record(place("talking", options), row, time.perf_counter() - began, TASK, digest)
        print(line(row))


def line(row: Mapping) -> str:
    means = {name: metric["mean"] for name, metric in row["metrics"].items()}
    memory = f"{means['resident_bytes'] / 1e6:6.0f} MB in memory" if "resident_bytes" in means else ""
    return (
        f"{row['method']:12} {means['tokens_per_second']:7.1f} tokens a second, {means['times_fastest']:5.2f} × the "
        f"fastest of others, floor {means['floor_tokens_per_second']:6.0f}, {memory}, "
        f"{row['stored_bytes'] / 1e6:6.1f} MB of weights, perplexity {means['perplexity']:.2f}"
    )


if __name__ == "__main__":
    main()
