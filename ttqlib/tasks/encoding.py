"""From words to numbers and back: tokenizers, labels, batches, and what a model says of each word."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .records import SLOTS, UNSEEN, labelled, text_columns

NO_LABEL = -100  # what torch's cross-entropy leaves out: a slot label where no word starts, a class unseen in training


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
    """`rows` of one split as model inputs; nothing is padded yet.

    Args:
        rows: a split as `load_task` gives them, or any `datasets.Dataset` with the same columns; or a stream, an
            `IterableDataset`, whose labels are then read through once: all rows are encoded when they are asked for.
        tokenizer: of transformers; rows with slots need a fast one.
        intents, slots: the names that labels are numbers into; rows without slots need none.
        max_length: longer rows are cut to so many tokens.

    Returns:
        A `datasets.Dataset` of as many rows, or a stream, whose lists are as long as the row has tokens,
        T ≤ `max_length`: `input_ids`, `attention_mask` and what else the tokenizer gives.
        Rows with slots: `intent_labels`, one number; `slot_labels` (T), that of a word at its first piece and −100
        elsewhere; `word_starts`, for each word where its first piece stands, −1 where it was cut off or the tokenizer
        drops it. A label that is not among the names becomes −1.
        Other rows: `labels`, a number, unless no row has a label; −100, which torch's cross-entropy leaves out, where
        it is a class unseen in training.

    Raises:
        ValueError: columns that are no task's; a number to predict that is missing in some rows.
    """
    names = rows.column_names
    if "tokens" in names:
        if missing := [name for name in SLOTS if name not in names]:
            raise ValueError(f"rows with tokens need slots and intent too, {', '.join(missing)} is missing")
        one = _word_encoder(tokenizer, _numbers(intents), _numbers(slots), max_length)
    else:
        one = _text_encoder(rows, tokenizer, max_length)
    return rows.map(one, remove_columns=names)


def _word_encoder(tokenizer, intent_number, slot_number, max_length: int):
    def one(row: dict) -> dict:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        starts = {word: place for place, word in reversed(list(enumerate(encoded.word_ids()))) if word is not None}
        labels = [NO_LABEL] * len(encoded["input_ids"])
        for word, place in starts.items():
            labels[place] = slot_number(row["slots"][word])
        places = [starts.get(word, -1) for word in range(len(row["tokens"]))]
        return {**encoded, "intent_labels": intent_number(row["intent"]), "slot_labels": labels, "word_starts": places}

    return one


def _text_encoder(rows, tokenizer, max_length: int):
    texts = text_columns(rows.column_names, 2) or text_columns(rows.column_names, 1)
    if texts is None:
        raise ValueError(
            "rows must have tokens, slots and intent, or sentence, or sentence1 and sentence2, got the columns "
            f"{', '.join(rows.column_names)}"
        )
    labels = list(rows["label"]) if "label" in rows.column_names else []
    any_label = any(map(labelled, labels))
    missing = next((number for number, label in enumerate(labels) if label != label), None)  # NaN
    if any_label and missing is not None:
        raise ValueError(f"row {missing} has no number to predict, where others have: leave it out")

    def one(row: dict) -> dict:
        encoded = {**tokenizer(*(row[name] for name in texts), truncation=True, max_length=max_length)}
        if any_label:
            encoded["labels"] = row["label"] if labelled(row["label"]) else NO_LABEL
        return encoded

    return one


def _numbers(names: Sequence[str]):
    known = {name: number for number, name in enumerate(names)}
    return lambda name: known.get(name, UNSEEN)


class IntentSlotCollator:
    """Makes a batch of B encoded rows, with T tokens in the longest: all as tensors, padded at the end.

    `input_ids`, `attention_mask` and `slot_labels`, padded by −100, are (B, T); `intent_labels` are (B,).

    Raises:
        ValueError: the tokenizer has no token to pad with.
    """

    def __init__(self, tokenizer):
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no pad_token: set one, any token will do")
        self.padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "slot_labels": NO_LABEL}

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        batch = {key: _padded([row[key] for row in rows], filler) for key, filler in self.padding.items()}
        return batch | {"intent_labels": torch.tensor([row["intent_labels"] for row in rows])}


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of unequal length as one tensor, (B, T)."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


@torch.no_grad()
def predict_intent_slots(model, encoded, collate: IntentSlotCollator) -> tuple[list[str], list[list[str | None]]]:
    """What an `IntentSlotModel` says of the N rows that `encode` made: N intents, and N lists of a slot for each word.

    A word that was cut off or dropped gets None: the model has not seen it. The model is left in eval mode.
    """
    model.eval()
    intents, slots, starts = [], [], (row["word_starts"] for row in encoded)
    for batch in DataLoader(encoded, batch_size=64, collate_fn=collate):
        output = model(**{key: value.to(model.device) for key, value in batch.items()})
        intents += [model.config.intents[number] for number in output.intent_logits.argmax(-1)]
        for numbers, places in zip(output.slot_logits.argmax(-1).tolist(), starts):
            slots.append([None if place < 0 else model.config.slots[numbers[place]] for place in places])
    return intents, slots
