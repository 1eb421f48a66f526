"""Data sets, labels, tokenization and metrics: every experiment reads its data through here.

`load_task` takes a task from the folder that the environment variable TTQ_DATA names, else from the Hugging Face hub.
`flights` and `reviews` lie in the repository itself and need neither.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

EMBEDDED = Path(__file__).resolve().parent.parent / "data"
HUB_SECONDS = 2.0  # how long to wait for the hub before deciding that there is no network
UNSEEN = -1  # the number of a label that does not occur in training
NO_WORD = -100  # the slot label of what is not the first piece of a word; torch's cross-entropy leaves it out


@dataclass(frozen=True)
class Task:
    """What the rows of a task hold, and where the hub keeps them."""

    fields: tuple[str, ...]
    classes: tuple[str, ...] = ()  # the names of `label`, in the order of its numbers; tasks with slots have none
    hub: tuple[str, ...] = ()  # the arguments of datasets.load_dataset
    stand_in: str | None = None


SLOTS = ("tokens", "slots", "intent")
SENTENCE, PAIR = ("sentence", "label"), ("sentence1", "sentence2", "label")
GLUE = "nyu-mll/glue"
TASKS = {
    "flights": Task(SLOTS),
    "reviews": Task(SENTENCE, ("negative", "positive")),
    "atis": Task(SLOTS, hub=("tuetschek/atis",), stand_in="flights"),
    "sst2": Task(SENTENCE, ("negative", "positive"), (GLUE, "sst2"), stand_in="reviews"),
    "rte": Task(PAIR, ("entailment", "not_entailment"), (GLUE, "rte")),
    "mrpc": Task(PAIR, ("not_equivalent", "equivalent"), (GLUE, "mrpc")),
    "qnli": Task(PAIR, ("entailment", "not_entailment"), (GLUE, "qnli")),
    "mnli": Task(PAIR, ("entailment", "neutral", "contradiction"), (GLUE, "mnli")),
}


def load_task(name: str, stand_in: bool = False):
    """The splits of a task, as a `datasets.DatasetDict`, after one line that says where they came from.

    Looks in this order: the data embedded in the repository (`flights`, `reviews` only); the folder
    `$TTQ_DATA/<name>`, with one JSON-lines file a split; the Hugging Face hub, given up within seconds where there is
    no network. `stand_in=True` allows the embedded task of the same kind in place of one that cannot be had.

    Fields: `tokens`, `slots` (IOB), `intent`, all strings, for `flights` and `atis`; `sentence` or `sentence1` and
    `sentence2`, and a `ClassLabel` named `label`, for the others.

    Raises:
        ValueError: an unknown task, or a malformed line, named by file and line.
        FileNotFoundError: the task cannot be had; the message says what to do.
    """
    task = TASKS.get(name)
    if task is None:
        raise ValueError(f"name must be one of {', '.join(TASKS)}, got {name!r}")
    if not task.hub:
        print(f"{name}: embedded in this repository")
        return _read_folder(EMBEDDED / name, task)
    root = os.environ.get("TTQ_DATA")
    if root and (Path(root) / name).is_dir():
        print(f"{name}: from the folder that TTQ_DATA names")
        return _read_folder(Path(root) / name, task)
    try:
        splits = _from_hub(task)
    except (OSError, ValueError) as error:
        if stand_in and task.stand_in:
            print(f"{name} cannot be had here; {task.stand_in}, an embedded task of the same kind, stands in for it")
            return _read_folder(EMBEDDED / task.stand_in, TASKS[task.stand_in])
        advice = f"set TTQ_DATA to a folder that holds {name}/train.jsonl and its other splits, or connect to the hub"
        if task.stand_in:
            advice += f"; load_task({name!r}, stand_in=True) takes {task.stand_in} instead"
        raise FileNotFoundError(f"{name} cannot be had: {advice}") from error
    print(f"{name}: from the Hugging Face hub")
    return splits


def label_names(rows, field: str) -> tuple[str, ...]:
    """The sorted distinct labels in `field` ("intent" or "slots") of the training rows.

    Labels that occur only in validation or test are not among them: `encode` makes them −1, which is left out of the
    loss, and metrics count them as errors.
    """
    column = rows[field]
    return tuple(sorted({label for labels in column for label in labels} if field == "slots" else set(column)))


def word_tokenizer(sentences: Sequence[Sequence[str]]):
    """A `transformers` tokenizer whose vocabulary is the words of the training `sentences`, given as lists of words.

    [PAD], [UNK], [CLS] and [SEP] come first; a sentence becomes [CLS] words [SEP].
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for sentence in sentences for word in sentence} - set(special))
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def encode(rows, tokenizer, intents: Sequence[str] = (), slots: Sequence[str] = (), max_length: int = 64):
    """`rows` of one split as model inputs: `input_ids`, `attention_mask`, and labels; nothing is padded yet.

    Rows with slots get `intent_labels` (one number) and `slot_labels` (one a token: that of the word at its first
    piece, −100 elsewhere), numbers into `intents` and `slots`; a label that is not among them becomes −1. Other rows
    get `labels`, if they have a label.
    """
    if "tokens" in rows.column_names:
        intent_number, slot_number = _numbers(intents), _numbers(slots)

        def one(row: dict) -> dict:
            encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
            words = encoded.word_ids()
            first = [word is not None and word != before for word, before in zip(words, [None, *words])]
            labels = [slot_number(row["slots"][word]) if new else NO_WORD for word, new in zip(words, first)]
            return {**encoded, "intent_labels": intent_number(row["intent"]), "slot_labels": labels}
    else:
        texts = [field for field in rows.column_names if field.startswith("sentence")]

        def one(row: dict) -> dict:
            encoded = tokenizer(*(row[field] for field in texts), truncation=True, max_length=max_length)
            return {**encoded, "labels": row["label"]} if "label" in row else {**encoded}

    return rows.map(one, remove_columns=rows.column_names)


class IntentSlotCollator:
    """Makes a batch of encoded rows: inputs padded by the tokenizer, slot labels by −100, all as tensors."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        inputs = [{key: row[key] for key in ("input_ids", "attention_mask")} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        slots = [torch.tensor(row["slot_labels"]) for row in rows]
        batch["slot_labels"] = pad_sequence(slots, batch_first=True, padding_value=NO_WORD)
        batch["intent_labels"] = torch.tensor([row["intent_labels"] for row in rows])
        return batch


def score_intent_slots(model, rows, encoded, collate: IntentSlotCollator) -> dict[str, float]:
    """`intent_accuracy` and `slot_f1` of an `IntentSlotModel` on `rows`, in percent, on the original strings.

    `encoded` are the same rows, in the same order, as `encode` made them. The model is left in eval mode.
    """
    intents, slots = predict_intent_slots(model, encoded, collate)
    return {"intent_accuracy": accuracy(rows["intent"], intents), "slot_f1": slot_f1(rows["slots"], slots)}


@torch.no_grad()
def predict_intent_slots(model, encoded, collate: IntentSlotCollator) -> tuple[list[str], list[list[str]]]:
    """The intent of every row that `encode` made, and the slot of every word in it, as an `IntentSlotModel` sees them.

    The model is left in eval mode.
    """
    model.eval()
    intents, slots = [], []
    for batch in DataLoader(encoded, batch_size=64, collate_fn=collate):
        output = model(**{key: value.to(model.device) for key, value in batch.items()})
        intents += [model.config.intents[number] for number in output.intent_logits.argmax(-1)]
        for numbers, labels in zip(output.slot_logits.argmax(-1).cpu(), batch["slot_labels"]):
            slots.append([model.config.slots[number] for number in numbers[labels != NO_WORD]])
    return intents, slots


def accuracy(expected: Sequence, predicted: Sequence) -> float:
    """The share of equal pairs, in percent. Labels are compared as they are, so an unseen one is always an error."""
    if len(expected) != len(predicted) or not len(expected):
        raise ValueError(f"need as many predictions as labels, at least one; got {len(predicted)} and {len(expected)}")
    return 100 * sum(e == p for e, p in zip(expected, predicted)) / len(expected)


def slot_f1(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Micro-averaged F1 of slot spans, in percent, by `seqeval` as conlleval counts them, on the IOB strings."""
    from seqeval.metrics import f1_score

    return 100 * float(f1_score([list(row) for row in expected], [list(row) for row in predicted], zero_division=0))


def _numbers(names: Sequence[str]):
    known = {name: number for number, name in enumerate(names)}
    return lambda name: known.get(name, UNSEEN)


def _features(task: Task):
    from datasets import ClassLabel, Features, List, Value

    if task.fields == SLOTS:
        return Features({"tokens": List(Value("string")), "slots": List(Value("string")), "intent": Value("string")})
    texts = {field: Value("string") for field in task.fields[:-1]}
    return Features({**texts, "label": ClassLabel(names=list(task.classes))})


def _read_folder(folder: Path, task: Task):
    from datasets import Dataset, DatasetDict

    files = sorted(folder.glob("*.jsonl"))
    if not (folder / "train.jsonl").exists():
        raise FileNotFoundError(f"{folder.name}/train.jsonl is missing from the folder that TTQ_DATA names")
    features = _features(task)
    return DatasetDict({file.stem: Dataset.from_list(list(_rows(file, task)), features=features) for file in files})


def _rows(file: Path, task: Task) -> Iterator[dict]:
    where = f"{file.parent.name}/{file.name}"
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}, line {number}: not JSON ({error.msg})") from None
        problem = _problem(row, task)
        if problem:
            raise ValueError(f"{where}, line {number}: {problem}")
        yield {field: row[field] for field in task.fields}


def _problem(row, task: Task) -> str | None:
    """What is wrong with a row, or None."""
    missing = [field for field in task.fields if not isinstance(row, dict) or field not in row]
    if missing:
        return f"an object with the fields {', '.join(task.fields)} is needed, {', '.join(missing)} is missing"
    for field in task.fields:
        value = row[field]
        if field in ("tokens", "slots"):
            if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
                return f"{field} must be a non-empty list of strings"
        elif field == "label":
            if isinstance(value, bool) or value not in range(len(task.classes)):
                return f"label must be one of 0 … {len(task.classes) - 1}, got {value!r}"
        elif not isinstance(value, str):
            return f"{field} must be a string, got {value!r}"
    if task.fields == SLOTS and len(row["tokens"]) != len(row["slots"]):
        return f"{len(row['tokens'])} tokens and {len(row['slots'])} slots must be equally many"
    return None


def reach_hub() -> None:
    """Return at once or within seconds where the Hugging Face hub can be asked.

    Raises:
        OSError: the hub is switched off (HF_HUB_OFFLINE), or there is no network.
    """
    import huggingface_hub.constants

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise OSError("the hub is switched off (HF_HUB_OFFLINE)")
    if not getproxies():  # behind a proxy a direct connection says nothing
        hub = urlsplit(huggingface_hub.constants.ENDPOINT)
        # without this probe the libraries would go on trying for half a minute
        socket.create_connection((hub.hostname, hub.port or 443), timeout=HUB_SECONDS).close()


def _from_hub(task: Task):
    """The task from the hub, in our fields. OSError where there is no network."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise OSError("the hub is switched off (HF_DATASETS_OFFLINE)")
    reach_hub()
    splits = datasets.load_dataset(*task.hub)
    if task.fields == SLOTS:
        splits = splits.map(lambda row: {"tokens": row["text"].split(), "slots": row["slots"].split()})
    kept = {name: rows.select_columns(list(task.fields)).cast(_features(task)) for name, rows in splits.items()}
    return datasets.DatasetDict(kept)
