"""Data that do not fit into memory: a stream is encoded row by row, trains a model, and does not grow."""

import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
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


def streamed(files: list[str], folder: Path) -> IterableDataset:
    """As docs/cluster.md says it; in small chunks, for the files are small."""
    rows = load_dataset("json", data_files=files, split="train", streaming=True, chunksize=2**16, cache_dir=folder)
    return ttq.encode(rows, TOKENIZER)


@pytest.fixture
def stream(files, tmp_path) -> IterableDataset:
    return streamed(files, tmp_path)


def growth(files: list[str], folder: Path, keep: bool) -> int:
    """How many bytes a process grows by while it goes from `FEW` rows to ten times as many, and keeps them or not."""
    memory, rows = psutil.Process().memory_info, iter(streamed(files, folder))
    kept = list(islice(rows, FEW))
    before, count = memory().rss, len(kept)
    for row in rows:
        count += 1
        if keep:
            kept.append(row)
    assert count == MANY
    return memory().rss - before


def test_ten_times_the_rows_take_no_more_memory(files, tmp_path):
    """Each in a process of its own: one that has worked before has memory to spare, and does not grow."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as fresh:
        flat, grown = (fresh.submit(growth, files, tmp_path, keep).result() for keep in (False, True))
    assert flat < FLAT and grown > GROWN


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
