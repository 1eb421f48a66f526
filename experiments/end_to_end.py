"""One task, from training to a user's answer: right answers, bytes and milliseconds of the very same programs.

    python experiments/end_to_end.py                # trains what is missing, as glue.py and xtc.py do
    python experiments/end_to_end.py --record       # into data/results/end_to_end.json, not runs/glue
    python experiments/end_to_end.py --keep         # the student of trains once more into data/sst2_student

A fine-tuned MiniLM and students of it on SST-2, each as `ttq.export_onnx` writes it and `ttq.Predictor` asks it, and
the MiniLM in PyTorch besides. `accuracy` is that of the program, on validation; `program_bytes` its graph, which holds
every weight, in float32 or as integers of 8 bits; `stored_bytes` what is sent to whoever builds the program, where that
is less. `milliseconds` are those of one sentence, from its text to the name of its label: the mean over sentences of
all lengths, one at a time, all programs in turns, each after a rest. Let nothing else run meanwhile.
"""

import argparse
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from glue import Glue
from results import ROOT, add_options, check_runs, fingerprint, place, record, row_of, summary
from runs import Study, finished, parse
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging
from xtc import XTC

import ttqlib as ttq

STUDENT = ROOT / "data" / "sst2_student"
TEACHER = "--task sst2 --hold-out rows --teacher-bf16"
DISTILLED = f"{TEACHER} --bf16 --inputs crossed --steps 3000"
PRODUCTS = f"{DISTILLED} --schedule all_layers --start rotated --dropout 0 --rest 8 --words low-rank"
ONE_BIT = f"{DISTILLED} --learning-rate 5e-4 --words low-rank"
THREADS, SENTENCES, REPETITIONS, ROUNDS, REST = 2, 16, (0, 1, 2), 10, 0.02


@dataclass(frozen=True)
class Form:
    """A model, by the study and the settings that make it, and the program that it becomes."""

    study: type[Study]
    settings: str
    int8: bool = False
    onnx: bool = True


MADE = {  # what → the script, and its settings
    "teacher": (Glue, TEACHER),
    "trains": (Glue, f"{PRODUCTS} --rank 48 --word-rank 96 --bits 3"),
    "low rank": (Glue, f"{PRODUCTS} --sides 1 --rank 39 --word-rank 96 --bits 3"),  # 8 % fewer bytes than the trains
    "one bit": (XTC, f"{ONE_BIT} --layers 5 --bits 1 --word-rank 64 --word-bits 2"),
}
FORMS = {"teacher, PyTorch": Form(*MADE["teacher"], onnx=False)}
FORMS |= {f"{name}{', 8 bits' * int8}": Form(*made, int8) for name, made in MADE.items() for int8 in (False, True)}

Ask = Callable[[Sequence[str]], list[str]]  # texts → names of labels


class InPyTorch:
    """Answers as `Predictor` does, by the model itself."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int):
        self.model, self.tokenizer, self.max_length = model.eval(), tokenizer, max_length

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[str]:
        kept = {"truncation": True, "max_length": self.max_length}
        inputs = self.tokenizer(list(texts), padding=True, return_tensors="pt", **kept)
        return [self.model.config.id2label[place] for place in self.model(**inputs).logits.argmax(-1).tolist()]


def program(form: Form, model: PreTrainedModel, study: Glue, folder: Path) -> tuple[Ask, int]:
    """What answers, and the bytes of all its weights."""
    if not form.onnx:
        return InPyTorch(model, study.data.tokenizer, study.data.length), ttq.parameter_bytes(model)
    ttq.export_onnx(model, folder, study.data.tokenizer, int8=form.int8, max_length=study.data.length)
    predictor = ttq.Predictor(folder, truncate=True, threads=THREADS)
    return (lambda texts: [one["label"] for one in predictor.predict(texts)]), (folder / "model.onnx").stat().st_size


def accuracy(ask: Ask, rows: Dataset, names: dict[int, str]) -> float:
    """In percent."""
    return ttq.accuracy([names[label] for label in rows["label"]], ask(rows["sentence"]))


def of_all_lengths(texts: Sequence[str], count: int) -> list[str]:
    """So many of the texts, from the shortest to the longest, at even distances."""
    ordered = sorted(texts, key=len)
    return [ordered[k * (len(ordered) - 1) // max(count - 1, 1)] for k in range(count)]


def one_at_a_time(ask: Ask, texts: Sequence[str]) -> None:
    for text in texts:
        ask([text])


def measure(forms: dict[str, Form], runs: Path) -> tuple[dict[str, dict], dict]:
    """The row of each form without what all rows share, and the splits that were read."""
    rows, asks = {}, {}
    with TemporaryDirectory() as scratch:
        for name, form in forms.items():
            settings, options = parse(form.study, [*shlex.split(form.settings), "--validation", "--runs", str(runs)])
            study = form.study(settings, options)
            model, report = finished(study, settings, options.seeds[0])
            asks[name], size = program(form, model, study, Path(scratch) / name)
            validation = study.data.rows["validation"]
            figures = {"accuracy": [accuracy(asks[name], validation, model.config.id2label)], "program_bytes": [size]}
            sizes = size if form.int8 and not settings.is_student else report["stored_bytes"], study.dense_bytes()
            plan = getattr(model, "ttq_config", None)
            row = row_of(figures, settings.rank, settings.bits, options.seeds, *sizes, plan and plan.to_dict())
            told = {"int8": form.int8, "onnx": form.onnx, "threads": THREADS, "sentences": SENTENCES}
            row |= {"task": settings.task, "split": "validation", "method": name}
            rows[name] = row | {"settings": settings.said() | told}
            print(f"{name}: {row['metrics']['accuracy']['mean']} % right, a program of {size:,} bytes", flush=True)
        texts = of_all_lengths(validation["sentence"], SENTENCES)
        calls = {name: lambda ask=ask: one_at_a_time(ask, texts) for name, ask in asks.items()}
        took = [ttq.interleaved_medians(calls, ROUNDS, settle=REST) for _ in REPETITIONS]
    for name, row in rows.items():
        row["metrics"]["milliseconds"] = summary([medians[name] / SENTENCES for medians in took])
    return rows, study.splits


def keep(runs: Path) -> None:
    """Put the student of trains where a clone has it, with the names of its labels."""
    form = FORMS["trains"]
    settings, options = parse(form.study, [*shlex.split(form.settings), "--runs", str(runs)])
    study = form.study(settings, options)
    model = finished(study, settings, options.seeds[0])[0]
    model.config.id2label = dict(enumerate(study.data.classes))
    model.config.label2id = {name: label for label, name in model.config.id2label.items()}
    ttq.save(model, STUDENT)
    print(f"written to {STUDENT}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help=f"write the student of trains to data/{STUDENT.name}")
    add_options(parser, "end_to_end", Glue.name)
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    logging.set_verbosity_error()
    torch.set_num_threads(THREADS)
    if options.keep:
        return keep(options.runs)
    start = time.perf_counter()
    rows, splits = measure(FORMS, options.runs)
    path = place("end_to_end", options) if options.record else options.runs / "end_to_end.json"
    for row in rows.values():
        record(path, row, time.perf_counter() - start, row["task"], fingerprint(splits))
        print(line(row))


def line(row: dict) -> str:
    means = {name: metric["mean"] for name, metric in row["metrics"].items()}
    sizes = f"{row['stored_bytes'] / 1e6:5.1f} MB sent, {means['program_bytes'] / 1e6:5.1f} MB at work"
    return f"{row['method']:17} {means['accuracy']:5.2f} % right, {sizes}, {means['milliseconds']:6.2f} ms a sentence"


if __name__ == "__main__":
    main()
