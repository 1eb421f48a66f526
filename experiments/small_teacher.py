"""Trains the small teacher of the chapters on the embedded reviews.

    OMP_NUM_THREADS=1 python experiments/small_teacher.py            # about two minutes of CPU time
    OMP_NUM_THREADS=1 python experiments/small_teacher.py --record   # into data/small_teacher/

A BERT of three layers, 128 wide, from nothing, whose vocabulary is the words of the training sentences. The folder is
what `from_pretrained` of models and tokenizers reads, with float32 weights, and accuracy.json says what it is worth.
The same machine writes the same bytes again, with the same versions.
"""

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: sums in one order

import torch
from results import ROOT, RUNS
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import ttqlib as ttq

FOLDER = ROOT / "data" / "small_teacher"
SIZE = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
POSITIONS = 48  # tokens of a sentence at most
HIDDEN_WORDS = 0.08  # the share of words that are hidden while it trains, so that it has met unknown ones
EPOCHS, BATCH, LEARNING_RATE, SEED = 10, 64, 1e-3, 0


class HideWords(DataCollatorWithPadding):
    """Pads a batch, and makes some of its words unknown."""

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        ids = batch["input_ids"]
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        ids[(torch.rand(ids.shape) < HIDDEN_WORDS) & ~special] = self.tokenizer.unk_token_id
        return batch


@torch.no_grad()
def accuracy(model, rows, encoded, tokenizer) -> float:
    """In percent."""
    batches = DataLoader(encoded, batch_size=64, collate_fn=DataCollatorWithPadding(tokenizer))
    predicted = [label for batch in batches for label in model.eval()(**batch).logits.argmax(-1).tolist()]
    return round(ttq.accuracy(rows["label"], predicted), 2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=RUNS / "small_teacher", help="where it is written")
    tracked = "write it to data/small_teacher, which git tracks"
    parser.add_argument("--record", dest="folder", action="store_const", const=FOLDER, help=tracked)
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="anything else is for tests")
    options = parser.parse_args()
    if not options.epochs > 0:
        parser.error(f"--epochs must be more than 0, got {options.epochs}")
    try:
        options.folder.mkdir(parents=True, exist_ok=True)  # before anything is trained that could not be written there
    except OSError as problem:
        parser.error(f"--folder must be a folder to write to: {problem}")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    set_seed(SEED)
    splits = ttq.load_task("reviews")
    tokenizer = ttq.word_tokenizer([sentence.split() for sentence in splits["train"]["sentence"]])
    encoded = {name: ttq.encode(rows, tokenizer, max_length=POSITIONS) for name, rows in splits.items()}
    shape = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, num_labels=2, **SIZE)
    model = BertForSequenceClassification(shape)
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            warmup_steps=0.1,  # below 1: a share of all steps
            weight_decay=0.05,
            train_sampling_strategy="group_by_length",
            seed=SEED,
            use_cpu=True,
            save_strategy="no",
            logging_steps=100,
            report_to="none",
        )
        Trainer(model, arguments, HideWords(tokenizer), encoded["train"]).train()
    model.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    found = {name: accuracy(model, splits[name], encoded[name], tokenizer) for name in ("validation", "test")}
    (options.folder / "accuracy.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
