"""What scripts that train have in common: settings, runs that can be interrupted, scores, rows of results.

A script describes a `Study`: its settings, which data it reads, what it trains and how it is scored. `main` does the
rest. A run, one seed of one settings, lives in a folder of its own and is trained once; where it was interrupted it
goes on as if nothing had happened, and what it starts from, as a student from its teacher, is trained before it.
"""

import argparse
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from math import inf
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from filelock import FileLock
from processes import is_first_process, of_step
from results import add_options, check_runs, fingerprint, origin, place, record, row_of
from transformers import HfArgumentParser, PreTrainedModel, Trainer, set_seed
from transformers.hf_argparser import HfArg
from transformers.utils import logging

import ttqlib as ttq
from ttqlib.storage.latent import load_latent_
from ttqlib.training.qat import last_checkpoint

COLUMNS = ("task", "rank", "bits")  # the settings that have a column of their own in a row
REPORT, MODEL = "finished.json", "model"  # in the folder of a run: its scores, and what `from_pretrained` reads
LIMITS = {  # of settings, from least to most
    **dict.fromkeys(("rank", "word_rank", "word_cores", "sides", "layers"), (1, inf)),
    **dict.fromkeys(("rows", "batch_size", "save_steps", "accumulate"), (1, inf)),
    **dict.fromkeys(("epochs", "float_epochs", "teacher_epochs", "steps", "teacher_seed"), (0, inf)),
    **dict.fromkeys(("learning_rate", "float_learning_rate", "last_learning_rate"), (1e-12, 1.0)),
    **dict.fromkeys(("teacher_learning_rate", "temperature"), (1e-12, 1e3)),
    **dict.fromkeys(("dropout", "layer_share"), (0.0, 0.99)),
}
ARGUMENTS = {  # for TrainingArguments, in all studies
    "weight_decay": 0.01,
    "train_sampling_strategy": "group_by_length",
    "save_total_limit": 1,
    "logging_steps": 100,
    "report_to": "none",
    "use_cpu": not torch.accelerator.is_available(),  # else processes of torchrun would train each for itself there
    "dataloader_pin_memory": torch.cuda.is_available(),  # else it warns
}
BITS = (1, 2, 3, 4, 5, 6, 7, 8, 32)


@dataclass(frozen=True)
class Settings:
    """What a run is made with, but for its seed. What it is made for has its own fields in a subclass.

    A subclass also tells its `form`, as "dense" or "tt", and whether it `trains` at all, or is only compressed.
    """

    task: str
    rank: int | None = HfArg(default=None, help="TT-rank of every layer; dense without it")
    bits: int = HfArg(default=32, help="of every core, or of the dense weights", metadata={"choices": BITS})
    rest: int = HfArg(default=32, help="bits of heads, positions, norms, biases", metadata={"choices": (8, 16, 32)})
    batch_size: int = 32
    dropout: float = 0.1
    rows: int | None = HfArg(default=None, help="of the training set; all without it")

    def __post_init__(self):
        check_limits(asdict(self))

    @property
    def quantized(self) -> bool:
        return min(self.bits, self.rest) < 32

    @property
    def method(self) -> str:
        return self.form + ("" if not self.quantized else "-qat" if self.trains else "-ptq")

    def idle(self) -> Sequence[str]:
        """The settings that do nothing in this run."""
        return ()

    def said(self) -> dict:
        """What a row says of it: all that matters and has no column of its own, without what was not given."""
        silent = {*COLUMNS, *self.idle()}
        return {name: value for name, value in asdict(self).items() if name not in silent and value is not None}

    @property
    def folder(self) -> str:
        """Where runs with these settings are kept: a name to read, and a digest of everything."""
        everything = {**self.said(), **{name: getattr(self, name) for name in COLUMNS}}
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:8]
        size = f"{self.rank or ''}-{self.bits}bit" if self.rank or self.quantized else ""
        return f"{Path(self.task).name}/{self.method}{size}-{digest}"


class Study(ABC):
    """What is trained, on which data, and how it is scored.

    A subclass names itself (`name`, that of its file of results), the class of its settings (`made_with`), the class
    whose `from_pretrained` reads a finished model (`kind`), and the splits that are not looked at before all is chosen
    (`last`, how their names begin). In `__init__` it reads its data, `splits` as they were loaded and the names of
    those that are `scored`, and refuses what cannot be done, before anything is trained: a ValueError or an OSError
    says what to type.
    """

    kept_with: str | None = None  # the name of a study whose runs it shares, as for their teachers

    def __init__(self, settings: Settings, options: argparse.Namespace):
        self.settings, self.options = settings, options

    def start(self, settings: Settings, seed: int) -> tuple[Settings, int] | None:
        """The run that this one starts from or learns from, if any."""
        return None

    def earlier(self, settings: Settings) -> Settings | None:
        """The run whose latent weights this one goes on from, if any: the stages before its last one."""
        return None

    def next_stage(self, settings: Settings, model: PreTrainedModel) -> PreTrainedModel:
        """The model of an earlier run, with its latent weights, as it begins the last stage."""
        raise NotImplementedError

    @abstractmethod
    def new(self, settings: Settings, start: PreTrainedModel | None) -> PreTrainedModel:
        """The model as it is before training, made from that of the run that it starts from."""

    @abstractmethod
    def trainer(self, settings: Settings, model: PreTrainedModel, start, arguments: dict) -> Trainer:
        """What trains it; `arguments` are those for TrainingArguments that all studies share."""

    @abstractmethod
    def score(self, model: PreTrainedModel, split: str, start: Callable | None) -> dict[str, float]:
        """Metrics by name; `start`, where there is such a run, gives the model of the one that this one starts from."""

    def stored_bytes(self, settings: Settings, model: PreTrainedModel, folder: Path) -> int:
        """Write the model to the folder, and tell the size of it on disk."""
        return stored_bytes(model, folder)

    @abstractmethod
    def dense_bytes(self) -> int:
        """The size on disk of the dense float32 model that sizes are compared with."""


def parse(study: type[Study], arguments: Sequence[str] | None = None) -> tuple[Settings, argparse.Namespace]:
    """The settings that a user has typed, checked, and the options that are no settings."""
    parser = HfArgumentParser(study.made_with, description=study.__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--save-steps", type=int, default=200, help="between two checkpoints")
    parser.add_argument("--accumulate", type=int, default=1, help="batches that a process makes of its part of a step")
    parser.add_argument(f"--{study.last}", dest="last", action="store_true", help=f"score {study.last} splits too")
    add_options(parser, study.name, study.kept_with)
    options = parser.parse_args(arguments)
    if len(set(options.seeds)) < len(options.seeds) or min(options.seeds) < 0:
        parser.error(f"--seeds must be different numbers from 0 on, got {' '.join(map(str, options.seeds))}")
    options.seeds.sort()
    options.refuse = parser.error
    check_runs(parser, options)
    try:
        check_limits({"save_steps": options.save_steps, "accumulate": options.accumulate})
        settings = parser.parse_dict(vars(options), allow_extra_keys=True)[0]
        of_step(settings.batch_size, options)
        return settings, options
    except ValueError as problem:
        parser.error(str(problem))


def check_limits(settings: Mapping) -> None:
    """Refuse, by a ValueError, a number that is beyond its `LIMITS`."""
    for name, value in settings.items():
        least, most = LIMITS.get(name, (-inf, inf))
        if isinstance(value, int | float) and not least <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')} must be from {least:g} to {most:g}, got {value:g}")


def main(study: type[Study], arguments: Sequence[str] | None = None) -> None:
    """Train what is missing of all seeds; write a row for each split that is scored, and print it."""
    settings, options = parse(study, arguments)
    logging.set_verbosity_error()
    ttq.keep_freed_memory()  # thin layers are quick, and fresh pages at every step would not be
    try:
        made = study(settings, options)
    except (ValueError, OSError) as problem:
        options.refuse(str(problem))
    began, done = time.perf_counter(), []
    for seed in options.seeds:
        left = (time.perf_counter() - began) / max(len(done), 1) * (len(options.seeds) - len(done))
        print(f"seed {seed}, {len(done) + 1} of {len(options.seeds)}" + f"; about {_clock(left)} left" * bool(done))
        done.append(finished(made, settings, seed))
    if is_first_process():
        write_rows(made, *zip(*done))


@lru_cache(maxsize=2)  # a teacher is asked for by each of its students
def finished(study: Study, settings: Settings, seed: int) -> tuple[PreTrainedModel, dict]:
    """The model of a run, trained where that has not been done, as `from_pretrained` reads it; and its report.

    The report holds `seconds`, `stored_bytes`, `settings`, `made` (where: `origin`), and each split's metrics.
    """
    folder = _folder(study, settings, seed)
    folder.mkdir(parents=True, exist_ok=True)
    before = study.start(settings, seed)
    print(folder.relative_to(study.options.runs))
    with FileLock(folder / "lock") if is_first_process() else nullcontext():  # somebody else may be at the same run
        if not (folder / REPORT).exists():
            if earlier := study.earlier(settings):
                finished(study, earlier, seed)
            _train(study, settings, seed, folder, finished(study, *before)[0] if before else None)
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        model = study.kind.from_pretrained(folder / MODEL).to("cuda" if torch.cuda.is_available() else "cpu")
        missing = [split for split in study.scored if split not in report]
        if missing and is_first_process():
            beside = (lambda: finished(study, *before)[0]) if before else None
            report |= {split: study.score(model, split, beside) for split in missing}
            _replace(folder / REPORT, report)
    return model, report


def _train(study: Study, settings: Settings, seed: int, folder: Path, start: PreTrainedModel | None) -> None:
    set_seed(seed)
    began = time.perf_counter()  # fitting step sizes is part of it
    model = _begun(study, settings, seed, start)
    if settings.trains:
        arguments = {"output_dir": str(folder), "seed": seed, "save_steps": study.options.save_steps, **ARGUMENTS}
        study.trainer(settings, model, start, arguments).train(resume_from_checkpoint=last_checkpoint(folder))
    seconds = time.perf_counter() - began
    if is_first_process():
        told = {"seconds": seconds, "settings": settings.said(), "made": origin()}
        _replace(folder / REPORT, told | {"stored_bytes": study.stored_bytes(settings, model, folder / MODEL)})
    PartialState(cpu=ARGUMENTS["use_cpu"]).wait_for_everyone()  # all processes read it


def _begun(study: Study, settings: Settings, seed: int, start: PreTrainedModel | None) -> PreTrainedModel:
    """The model before training: a new one, or what an earlier run has come to, with its latent weights."""
    earlier = study.earlier(settings)
    if earlier is None:
        return study.new(settings, start)
    model = study.new(earlier, start)
    load_latent_(model, Path(last_checkpoint(_folder(study, earlier, seed))))
    return study.next_stage(settings, model)


def _folder(study: Study, settings: Settings, seed: int) -> Path:
    return study.options.runs / settings.folder / f"seed-{seed}"


def stored_bytes(model: PreTrainedModel, folder: Path) -> int:
    """The size on disk of the folder that the model is written to."""
    model.save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.iterdir())


def write_rows(study: Study, models: Sequence[PreTrainedModel], reports: Sequence[dict]) -> None:
    """A row for each split, written and printed."""
    settings, options, path = study.settings, study.options, place(study.name, study.options)
    plan, seconds = getattr(models[0], "ttq_config", None), sum(report["seconds"] for report in reports)
    sizes = reports[0]["stored_bytes"], study.dense_bytes()
    print(f"{settings.method}: {sizes[0]:,} bytes, the dense model has {sizes[1]:,}; {_clock(seconds)} of training")
    digest = fingerprint(study.splits)
    for split in study.scored:
        figures = {metric: [report[split][metric] for report in reports] for metric in reports[0][split]}
        row = row_of(figures, settings.rank, settings.bits, options.seeds, *sizes, plan and plan.to_dict())
        row |= {"task": settings.task, "split": split, "method": settings.method, "settings": settings.said()}
        record(path, row, seconds, settings.task, digest, reports[0].get("made"))
        for metric, found in row["metrics"].items():
            spread = "" if found["sd"] is None else f" ± {found['sd']:.3f}"
            print(f"  {split:22} {metric:22} {found['mean']:9.3f}{spread}")
    print(f"{row['ratio']}× fewer bytes; written to {path}")


def first(rows: Dataset, count: int | None) -> Dataset:
    """So many rows, or all."""
    return rows.select(range(min(count or len(rows), len(rows))))


def _replace(path: Path, report: dict) -> None:
    """Write a file in one rename: it is there when it is whole."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(report), encoding="utf-8")
    draft.replace(path)


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
