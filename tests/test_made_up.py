"""experiments/made_up.py: sentences from sentences, and the labels that a teacher gives them."""

import pytest
from made_up import labelled, make_up
from transformers import BertConfig, set_seed

import ttqlib as ttq

CITIES, DAYS, OTHERS = {"rome", "oslo", "bonn"}, {"monday", "friday"}, {"from", "to", "on"}
ROWS = {
    "tokens": [["from", "rome", "to", "oslo"], ["to", "bonn", "on", "monday"], ["on", "friday", "from", "oslo"]],
    "slots": [
        ["O", "B-fromloc.city_name", "O", "B-toloc.city_name"],
        ["O", "B-toloc.city_name", "O", "B-day_name"],
        ["O", "B-day_name", "O", "B-fromloc.city_name"],
    ],
}


def test_sentences_are_as_many_as_asked_for_and_the_same_for_a_seed():
    first, again, other = make_up(ROWS, 50, 0), make_up(ROWS, 50, 0), make_up(ROWS, 50, 1)
    assert len(first) == 50 and first == again != other
    assert len({tuple(tokens) for tokens in first} - {tuple(tokens) for tokens in ROWS["tokens"]}) > 20  # new ones


def test_sentences_are_no_longer_than_real_ones_and_never_empty():
    assert {len(tokens) for tokens in make_up(ROWS, 500, 0)} == {1, 2, 3, 4}


def test_words_are_swapped_for_words_of_their_kind(monkeypatch):
    monkeypatch.setattr("made_up.SPLICE", 0)
    monkeypatch.setattr("made_up.DROP", 0)
    kinds = [[OTHERS, CITIES, OTHERS, CITIES], [OTHERS, CITIES, OTHERS, DAYS], [OTHERS, DAYS, OTHERS, CITIES]]
    made = make_up(ROWS, 300, 0)
    assert all(any(all(w in k for w, k in zip(tokens, kind)) for kind in kinds) for tokens in made)
    assert any(tokens[:2] == ["to", "rome"] for tokens in made)  # Rome was never a destination


def test_the_teacher_labels_every_word():
    set_seed(0)
    names = {"intents": ["go", "stay"], "slots": ["O", "B-city", "B-day"]}
    tokenizer = ttq.word_tokenizer(ROWS["tokens"])
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    teacher = ttq.IntentSlotModel(BertConfig(vocab_size=len(tokenizer), initializer_range=1.0, **size, **names))
    sentences = [["from", "rome"], ["monday"], ["on", "monday", "to", "bonn"]]
    rows = labelled(sentences, teacher, tokenizer, 64)
    assert rows["tokens"] == sentences and set(rows["intent"]) <= set(names["intents"])
    for tokens, slots, intent in zip(rows["tokens"], rows["slots"], rows["intent"]):  # one by one, without padding
        output = teacher(**tokenizer(tokens, is_split_into_words=True, return_tensors="pt"))
        assert intent == names["intents"][output.intent_logits.argmax()]
        assert slots == [names["slots"][number] for number in output.slot_logits[0, 1:-1].argmax(-1)]
    assert len({slot for slots in rows["slots"] for slot in slots}) > 1  # it tells words apart


def test_a_teacher_that_knows_no_such_word_still_labels_it():
    set_seed(0)
    tokenizer = ttq.word_tokenizer(ROWS["tokens"])
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    teacher = ttq.IntentSlotModel(BertConfig(vocab_size=len(tokenizer), intents=["go"], slots=["O"], **config))
    assert labelled([["zanzibar"]], teacher, tokenizer, 64)["slots"] == [["O"]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_sentences(count):
    assert len(make_up(ROWS, count, 0)) == count
