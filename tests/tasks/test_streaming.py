"""Data that do not fit into memory: a stream is encoded row by row, trains a model, and does not grow."""

import json
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import psutil
import pytest
from datasets import IterableDataset, load_dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, TrainerCallback, TrainingArguments

import ttqlib as ttq
from tests.training.test_training import student

WORDS = [f"w{number}" for number in range(90)]
TOKENIZER = ttq.word_tokenizer([WORDS])
FEW, MANY = 600, 6000  # rows
FLAT, GROWN = 2e6, 4e6  # bytes: what ten times the rows may add in a stream, and what they must add where they are kept


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Two files of JSON lines, each with half of the rows."""
    folder, draw = tmp_path_factory.mktemp("stream"), random.Random(0)
    for name in ("a", "b"):
        rows = ({"sentence": " ".join(draw.choices(WORDS, k=100)), "label": n % 3} for n in range(MANY // 2))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(file) for file in sorted(folder.iterdir())]


@pytest.fixture
def stream(files, tmp_path) -> IterableDataset:
    """As docs/cluster.md says it; in small chunks, for the files are small."""
    rows = load_dataset("json", data_files=files, split="train", streaming=True, chunksize=2**16, cache_dir=tmp_path)
    return ttq.encode(rows, TOKENIZER)


def growth(rows: Iterable) -> int:
    """How many bytes the process grows by while it goes from `FEW` rows to ten times as many."""
    memory, rows = psutil.Process().memory_info, iter(rows)
    seen = sum(1 for _ in islice(rows, FEW))
    before = memory().rss
    assert seen + sum(1 for _ in rows) == MANY
    return memory().rss - before


def test_ten_times_the_rows_take_no_more_memory(stream):
    assert growth(stream) < FLAT
    before, kept = psutil.Process().memory_info().rss, list(stream)  # the control
    assert len(kept) == MANY and psutil.Process().memory_info().rss - before > GROWN


def test_a_stream_is_encoded_as_rows_in_memory_are(stream, files, tmp_path):
    rows = load_dataset("json", data_files=files, split="train", cache_dir=tmp_path).select(range(20))
    assert list(islice(stream, 20)) == list(ttq.encode(rows, TOKENIZER))


def test_two_workers_tokenize_a_file_each(stream):
    read = list(DataLoader(stream, batch_size=None, num_workers=2))
    assert len(read) == MANY
    expected = sorted(row["input_ids"] for row in stream)
    assert sorted(row["input_ids"] for row in read) == expected != sorted(expected[: MANY // 2] * 2)


class Memory(TrainerCallback):
    """Bytes of the process after each step."""

    def __init__(self):
        self.bytes: list[int] = []

    def on_step_end(self, args, state, control, **others):
        self.bytes.append(psutil.Process().memory_info().rss)


def test_a_model_is_trained_on_a_stream(stream, tmp_path: Path):
    model, watch = student(rank=2, bits=4), Memory()
    quiet = {"save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments(str(tmp_path / "run"), max_steps=20, per_device_train_batch_size=8, **quiet)
    short = stream.map(lambda row: {name: row[name][:8] for name in ("input_ids", "attention_mask")})
    collate = DataCollatorWithPadding(TOKENIZER)
    training = ttq.QATTrainer(model, args, train_dataset=short, data_collator=collate, callbacks=[watch])
    assert training.train().global_step == 20 == len(watch.bytes)
    assert watch.bytes[-1] - watch.bytes[4] < 8 * FLAT
