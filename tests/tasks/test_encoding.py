"""How labels and tokens become numbers, and what a model says of each word."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertTokenizerFast

import ttqlib as ttq
from tests.cases import refused

ROWS = Dataset.from_list(
    [
        {"tokens": ["to", "oslo"], "slots": ["O", "B-toloc"], "intent": "flight"},
        {"tokens": ["to", "oslo"], "slots": ["O", "B-toloc"], "intent": "airline"},
    ]
)
UNSEEN = Dataset.from_list([{"tokens": ["via", "oslo"], "slots": ["O", "B-stop"], "intent": "fare"}])
NAMES = ("airline", "flight"), ("B-toloc", "O")


def pieces(*words: str) -> BertTokenizerFast:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    return BertTokenizerFast(vocab={piece: number for number, piece in enumerate(vocabulary)})


def test_label_names_come_from_training_sorted():
    assert ttq.label_names(ROWS, "intent") == NAMES[0]
    assert ttq.label_names(ROWS, "slots") == NAMES[1]


def test_encoding_marks_specials_and_unseen_labels():
    tokenizer = ttq.word_tokenizer(ROWS["tokens"])
    train, test = (ttq.encode(rows, tokenizer, *NAMES)[0] for rows in (ROWS, UNSEEN))
    assert tokenizer.convert_ids_to_tokens(train["input_ids"]) == ["[CLS]", "to", "oslo", "[SEP]"]
    assert train["slot_labels"] == [-100, 1, 0, -100] and train["intent_labels"] == 1
    assert tokenizer.convert_ids_to_tokens(test["input_ids"]) == ["[CLS]", "[UNK]", "oslo", "[SEP]"]
    assert test["slot_labels"] == [-100, 1, -1, -100] and test["intent_labels"] == -1


def test_only_the_first_piece_of_a_word_carries_its_slot():
    tokenizer = pieces("to", "os", "##lo")
    row = ttq.encode(ROWS, tokenizer, *NAMES)[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["[CLS]", "to", "os", "##lo", "[SEP]"]
    assert row["slot_labels"] == [-100, 1, 0, -100, -100] and row["word_starts"] == [1, 2]


def test_pairs_and_sentences_keep_their_label():
    rows = Dataset.from_list([{"sentence1": "it rains", "sentence2": "it is wet", "label": 0}])
    tokenizer = ttq.word_tokenizer([["it", "rains", "is", "wet"]])
    encoded = ttq.encode(rows, tokenizer)[0]
    words = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert words == ["[CLS]", "it", "rains", "[SEP]", "it", "is", "wet", "[SEP]"] and encoded["labels"] == 0
    theirs = rows.rename_columns({"sentence1": "premise", "sentence2": "hypothesis"})
    assert ttq.encode(theirs, tokenizer)[0] == encoded


def test_long_sentences_are_cut():
    rows = Dataset.from_dict({"sentence": ["a " * 100], "label": [1]})
    assert len(ttq.encode(rows, ttq.word_tokenizer([["a"]]), max_length=10)[0]["input_ids"]) == 10


@pytest.mark.parametrize(
    ("labels", "encoded"),
    [
        ([1, -1], [1, -100]),  # unseen in training: the loss leaves it out
        ([-1, -1], None),  # secret: there is nothing to learn from
        ([0.5, -1.0], [0.5, -1.0]),  # numbers to predict
        ([math.nan, math.nan], None),
        (None, None),
    ],
)
def test_rows_without_a_label_cost_no_loss(labels, encoded):
    rows = Dataset.from_dict({"text": ["a", "b"]} | ({"label": labels} if labels else {}))
    found = ttq.encode(rows, ttq.word_tokenizer([["a", "b"]]))
    assert found["labels"][:] == encoded if encoded else "labels" not in found.column_names


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"tokens": [["a"]], "intent": ["b"]}, "rows with tokens need slots and intent too, slots is missing"),
        ({"words": ["a"], "label": [1]}, "or sentence1 and sentence2, got the columns words, label"),
        ({"text": ["a", "b"], "label": [0.5, math.nan]}, "row 1 has no number to predict"),
    ],
)
def test_what_is_no_task_is_refused(columns, says):
    with refused(ValueError, says):
        ttq.encode(Dataset.from_dict(columns), ttq.word_tokenizer([["a"]]))


# ----------------------------------------------------------------------------------------- words that are not seen

DROPPED = "\u200b"  # the tokenizer makes nothing of a zero-width space


def knowing(rows: Dataset, tokenizer) -> torch.nn.Module:
    """A model that answers every piece in the vocabulary with its own slot, whatever stands around it."""
    intents, slots = (ttq.label_names(rows, field) for field in ("intent", "slots"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1)
    model = ttq.IntentSlotModel(BertConfig.from_dict({**config.to_dict(), "intents": intents, "slots": slots}))
    known = {word: label for row in rows for word, label in zip(row["tokens"], row["slots"])}
    table = torch.zeros(len(tokenizer), len(slots))
    for word, label in known.items():
        table[tokenizer.convert_tokens_to_ids(word), slots.index(label)] = 1

    def forward(input_ids, **_):
        output = model.__class__.forward(model, input_ids)
        output.slot_logits = table[input_ids]
        return output

    model.forward = forward
    return model


def test_a_word_that_is_cut_off_or_dropped_is_missed_and_shifts_no_other():
    words, labels = ["to", "oslo", "monday", "noon"], ["O", "B-toloc", "B-date", "I-date"]
    whole = {"tokens": words, "slots": labels, "intent": "flight"}
    holed = {"tokens": [words[0], DROPPED, *words[1:]], "slots": ["O", "O", *labels[1:]], "intent": "flight"}
    rows, tokenizer = Dataset.from_list([whole, holed]), pieces(*words)
    model, collate = knowing(rows.select([0]), tokenizer), ttq.IntentSlotCollator(tokenizer)

    def seen(length: int):
        encoded = ttq.encode(rows, tokenizer, *(ttq.label_names(rows, field) for field in ("intent", "slots")), length)
        slots = ttq.predict_intent_slots(model, encoded, collate)[1]
        return slots, ttq.score_intent_slots(model, rows, encoded, collate)

    slots, scores = seen(length=64)
    assert slots == [labels, ["O", None, *labels[1:]]]
    assert scores == {"intent_accuracy": 100, "slot_f1": 100}
    slots, scores = seen(length=5)  # noon is cut off, so that no date is found whole
    assert slots == [[*labels[:3], None], ["O", None, *labels[1:3], None]]
    assert scores == {"intent_accuracy": 100, "slot_f1": pytest.approx(50)}


@pytest.mark.parametrize("side", ("right", "left"))
def test_slots_stay_under_their_words_whichever_side_the_tokenizer_pads(side):
    words = ["to", "oslo", "monday", "noon"]
    tokenizer = pieces(*words)
    tokenizer.padding_side = side
    long = {"input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4, "slot_labels": [0, 1, -100, 2], "intent_labels": 1}
    short = {"input_ids": [9], "attention_mask": [1], "slot_labels": [3], "intent_labels": 0}
    batch = ttq.IntentSlotCollator(tokenizer)([long, short])
    pad = tokenizer.pad_token_id
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, 8], [9, pad, pad, pad]],
        "attention_mask": [[1, 1, 1, 1], [1, 0, 0, 0]],
        "slot_labels": [[0, 1, -100, 2], [3, -100, -100, -100]],
        "intent_labels": [1, 0],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_tokenizer_that_cannot_pad_is_refused_with_what_to_do():
    tokenizer = pieces("oslo")
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no pad_token: set one"):
        ttq.IntentSlotCollator(tokenizer)
