"""An older build of ttqlib beside the present one, each in a process of its own, in turns: for experiments/speed.py.

The older one is the tree of a commit. This file runs in both processes, so a job must be written in names that both
builds have, or in the present ones with the older ones in `RENAMED`. A new job is one function and one line in `JOBS`.
"""

import copy
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from results import ROOT
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq

RANK, BITS, REST = 30, 4, 8
SENTENCES, TOKENS = 16, 32  # of a batch
QUANTIZED = {bits: ttq.LSQ(bits) for bits in range(2, 9)}
RENAMED: dict[str, tuple[str, ...]] = {}  # present name → what older builds called it


class Api:
    """The public names of this process's build, old or new: `Api().plan` is `ttq.plan`, whatever it is called there."""

    def __getattr__(self, name: str):
        for known in (name, *RENAMED.get(name, ())):
            if hasattr(ttq, known):
                return getattr(ttq, known)
        raise AttributeError(f"this build has no {name}: name its predecessor in RENAMED of experiments/builds.py")


# --------------------------------------------------------------------------------------------------------------- jobs


class Compression:
    """`compress_` of a BERT-shaped classifier of random weights."""

    def __init__(self, shape: dict, batches: int = 0, rank: int = RANK):
        self.api = Api()
        torch.manual_seed(0)
        self.dense = BertForSequenceClassification(BertConfig(**shape))
        self.plan = self.api.plan(self.dense, rank=rank, bits=BITS, rest=REST)
        size = (self.dense.config.vocab_size, (SENTENCES, TOKENS))
        inputs = [{"input_ids": torch.randint(*size)} for _ in range(batches)]
        self.options = {"calibration": inputs} if batches else {}

    def run(self) -> float:
        """Seconds; the copy that is compressed is made before."""
        self.model = None  # one copy at a time: the most memory is measured too
        self.model = copy.deepcopy(self.dense)
        start = time.perf_counter()
        self.api.compress_(self.model, self.plan, **self.options)
        return time.perf_counter() - start

    def facts(self) -> dict:
        """Bytes of the file, of the dense one, and the relative error of each layer's weight before it is quantized.

        With calibration the errors of weights say nothing: outputs are kept, not weights.
        """
        total = self.api.report(self.model).total
        found = {"stored_bytes": total.stored_bytes, "dense_bytes": total.dense_bytes}
        if self.options:
            return found
        cores = self.api.compress_(copy.deepcopy(self.dense), self.plan.without_quantizers())
        layers = {name: layer for name, layer in self.plan.layers.items() if layer.format is not None}
        return found | {"errors": {name: self._error(cores, name) for name in layers}}

    @torch.no_grad()
    def _error(self, cores: nn.Module, name: str) -> float:
        made, weight = cores.get_submodule(name), self.dense.get_submodule(name).weight
        dense = made.to_embedding() if hasattr(made, "to_embedding") else made.to_linear()
        return float((dense.weight - weight).double().norm() / weight.double().norm())


class TrainingStep:
    """Forward, backward and AdamW on such a classifier with quantized cores."""

    def __init__(self, shape: dict, rank: int = RANK):
        api = Api()
        torch.manual_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**shape))
        api.compress_(self.model, api.plan(self.model, rank=rank, bits=BITS, rest=REST), init="random")
        self.report = api.report(self.model).total
        self.ids = torch.randint(self.model.config.vocab_size, (SENTENCES, TOKENS))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.model.train()

    def run(self) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.model(input_ids=self.ids, labels=self.ids[:, 0] % 2).loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def facts(self) -> dict:
        return {"stored_bytes": self.report.stored_bytes, "dense_bytes": self.report.dense_bytes}


class AtisStep:
    """Forward, backward and AdamW on the model of experiments/atis.py, with the means that each build has for it.

    Batches of like lengths of the real sentences, in the same order in both builds; two cores a side.
    """

    def __init__(self, task: str, rank: int, bits: int, batch: int = 32, batches: int = 40):
        api = Api()
        torch.manual_seed(0)
        train = api.load_task(task)["train"]
        tokenizer = api.word_tokenizer(train["tokens"])
        intents, slots = api.label_names(train, "intent"), api.label_names(train, "slots")
        rows = api.encode(train, tokenizer, intents, slots, 64)
        by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))
        starts = range(0, len(rows) - batch, len(rows) // batches)
        collate = api.IntentSlotCollator(tokenizer)
        self.batches = cycle([collate([rows[n] for n in by_length[start : start + batch]]) for start in starts])
        config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=64)
        config.intents, config.slots = list(intents), list(slots)
        self.model = api.IntentSlotModel(config)
        plan = api.plan(self.model, rules=self._rules(api, len(tokenizer), rank), quantize=QUANTIZED.get(bits))
        api.compress_(self.model, plan, init="random")
        self.report = api.report(self.model).total
        getattr(ttq, "quick_dropout_", nn.Module.train)(self.model)
        self.forward = getattr(ttq, "merged_together", lambda model: nullcontext())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)  # as Trainer does
        self.model.train()

    @staticmethod
    def _rules(api: Api, words: int, rank: int) -> dict:
        wide, narrow = api.factorize(3072, 2), api.factorize(768, 2)
        return {
            "word_embeddings": api.TTM(rank, api.factorize(words, 2), narrow[::-1]),
            "intermediate.dense": api.TT(rank, narrow[::-1], wide),
            r"\d.output.dense": api.TT(rank, wide[::-1], narrow),
            "encoder": api.TT(rank, narrow[::-1], narrow),
        }

    def run(self) -> float:
        """Seconds of eight steps, over which lengths of batches even out."""
        start = time.perf_counter()
        for _ in range(8):
            self.optimizer.zero_grad()
            with self.forward(self.model):
                loss = self.model(**next(self.batches)).loss
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - start

    def facts(self) -> dict:
        return {"stored_bytes": self.report.stored_bytes, "dense_bytes": self.report.dense_bytes}


class Answer:
    """A forward pass of such a classifier in onnxruntime, as each build exports it.

    Args:
        form: "dense", "fused", "dense-int8" or "fused-int8".
        ids: how many sentences, of how many tokens.
    """

    def __init__(self, shape: dict, form: str, ids: tuple[int, int], rank: int = RANK):
        api, (kind, *integers) = Api(), form.split("-")
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**shape)).eval()
        self.known = {"dense_bytes": api.parameter_bytes(model), "bits": 8 if integers else 32, "rank": None}
        if kind == "fused":
            api.compress_(model, api.plan(model, rank=rank), init="random")
            self.known["rank"] = rank
        self.folder = TemporaryDirectory()
        api.export_onnx(model, self.folder.name, int8=bool(integers))
        self.predictor = api.Predictor(self.folder.name, threads=torch.get_num_threads())
        self.ids = torch.randint(1, model.config.vocab_size, tuple(ids)).numpy()

    def run(self) -> float:
        """The median of five passes, in seconds, after one that does not count."""
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            self.predictor.logits(self.ids)
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])

    def facts(self) -> dict:
        return {"stored_bytes": Path(self.folder.name, "model.onnx").stat().st_size, **self.known}


JOBS = {job.__name__: job for job in (Compression, TrainingStep, AtisStep, Answer)}


# ------------------------------------------------------------------------------------------------ the other processes


@contextmanager
def tree(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, which lives as long as the block.

    Raises:
        ValueError: there is no such commit here.
    """
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True)
    if packed.returncode:
        raise ValueError(f"no commit {commit!r} in this repository: {packed.stderr.decode().strip()}")
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


@contextmanager
def process(build: Path, job: str, arguments: dict) -> Iterator[Callable[[str], dict]]:
    """A process with the ttqlib of the folder `build`; what is yielded has it "run" the job once, or tell its "facts".

    It ends with the block.
    """
    command = [sys.executable, __file__, job, json.dumps(arguments), str(torch.get_num_threads())]
    environment = {**os.environ, "PYTHONPATH": str(build)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, env=environment, **pipes) as child:

        def ask(what: str):
            with suppress(BrokenPipeError):  # it has ended: nothing will be heard
                child.stdin.write(f"{what}\n".encode())
            if not (answer := child.stdout.readline()):
                raise RuntimeError(f"the build in {build} could not do {job} with {arguments}: see above")
            return json.loads(answer)

        loaded = Path(ask("where"))
        if build.resolve() not in loaded.resolve().parents:
            raise RuntimeError(f"that process has loaded {loaded}, which is not in {build}")
        yield ask  # when the pipe to it is closed, it ends


def serve(job: str, arguments: dict, threads: int) -> None:
    """In the other process: answer each line of the input with one of JSON: "where" its ttqlib is, a "run", "facts".

    Whatever else is printed goes to stderr.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(threads)
    before, made = peak_bytes(), JOBS[job](**arguments)
    ask = {
        "where": lambda: ttq.__file__,
        "run": lambda: {"seconds": made.run(), "process_bytes": peak_bytes() - before},
        "facts": made.facts,
    }
    for line in sys.stdin:
        print(json.dumps(ask[line.strip()]()), file=answers, flush=True)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux kibibytes


# -------------------------------------------------------------------------------------------------------- comparisons


def compare(job: str, arguments: dict, commit: str, rounds: int) -> dict[str, dict]:
    """What each build takes for a job: `commit` and "present" → metrics over the rounds (lists), and `facts`.

    The builds take turns. A first turn does not count: it loads libraries and makes threads.
    """
    found = {name: {"seconds": [], "process_bytes": []} for name in (commit, "present")}
    with tree(commit) as older, process(older, job, arguments) as old, process(ROOT, job, arguments) as new:
        for turn in range(1 + rounds):
            for name, ask in zip(found, (old, new)):
                answer = ask("run")
                for key in found[name] if turn else ():
                    found[name][key].append(answer[key])
        return {name: figures | ask("facts") for (name, figures), ask in zip(found.items(), (old, new))}


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
