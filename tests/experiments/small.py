"""Small tasks and models for the tests of this folder: runs take seconds, data lie in a folder of JSON lines."""

import json
import random
from pathlib import Path

import transformers

import ttqlib as ttq
from tests.families import FAMILIES

WORDS = [f"w{number}" for number in range(60)]
LABELS = {"mnli": 3, "stsb": None, "cola": 2, "mrpc": 2, "sst2": 2}
COUNTS = {"train": 64, "validation": 24}


def write_task(folder: Path, task: str, splits: dict[str, int]) -> None:
    """A folder for TTQ_DATA with rows of a task, whose label follows from their words."""
    draw, place = random.Random(0), folder / task
    place.mkdir(parents=True)
    for split, count in splits.items():
        lines = []
        for _ in range(count):
            first, second = (" ".join(draw.choices(WORDS, k=6)) for _ in range(2))
            number = sum(word < "w3" for word in first.split())
            texts = {"sentence": first} if task in ("cola", "sst2") else {"sentence1": first, "sentence2": second}
            label = number / 2 if LABELS[task] is None else number % LABELS[task]
            lines.append(json.dumps({**texts, "label": label}) + "\n")
        (place / f"{split}.jsonl").write_text("".join(lines))


def write_model(folder: Path, kind: str, **sizes) -> Path:
    """A random model of a family of the common test, with a tokenizer of `WORDS`, as `--teacher` takes it."""
    family = FAMILIES[kind]
    model = type(family.config())(**{**family.sizes, **sizes})
    getattr(transformers, kind)(model).save_pretrained(folder)
    ttq.word_tokenizer([WORDS]).save_pretrained(folder)
    return folder
