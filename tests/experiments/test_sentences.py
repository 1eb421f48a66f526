"""experiments/sentences.py: what is held out shares no phrase with what is trained on."""

import pytest
from datasets import Dataset
from sentences import crossed_sentences, hold_out_rows, hold_out_sentences, parts_among, phrases, whole_sentences

WHOLE = [f"the {noun} was {word} from start to end" for noun in ("film", "book", "play") for word in "abcdefgh"]
PARTS = ["the film was a", "the film", "film was a from start", "was b from", "start to end", "to"]


def rows_of(texts: list[str], **more: list) -> Dataset:
    return Dataset.from_dict({"sentence": texts, "label": list(range(len(texts))), **more})


def test_phrases_are_all_runs_of_words_but_the_whole():
    assert list(phrases("a b c")) == ["a", "b", "c", "a b", "b c"] and list(phrases("one")) == []


def test_a_part_is_a_run_of_words_and_not_of_letters():
    assert parts_among(["a bad film", "bad film", "a bad", "bad fil", "ad film", "a film", "a bad film"]) == {
        "bad film",
        "a bad",
    }


def test_whole_sentences_are_the_rows_that_are_no_part_of_another():
    assert whole_sentences(rows_of(["a b c", "a b", "x", "a  b c ", "b c d"])) == [0, 2, 3, 4]


@pytest.mark.parametrize("seed", range(4))
def test_held_out_are_whole_sentences_and_no_part_of_one_is_trained_on(seed):
    rows = rows_of(WHOLE + PARTS)
    split = hold_out_sentences(rows, 4, seed)
    held_out, train = split["held_out"]["sentence"], split["train"]["sentence"]
    assert len(held_out) == 4 and set(held_out) < set(WHOLE)
    assert not any(f" {part} " in f" {text} " for part in train for text in held_out)
    kept = [part for part in PARTS if not any(f" {part} " in f" {text} " for text in held_out)]
    assert sorted(train) == sorted({*WHOLE} - {*held_out} | {*kept})  # and nothing else is lost
    assert hold_out_sentences(rows, 4, seed)["held_out"]["label"] == split["held_out"]["label"]
    assert hold_out_sentences(rows, 4, seed + 1)["held_out"]["label"] != split["held_out"]["label"]


def test_at_most_a_fifth_is_held_out():
    assert len(hold_out_sentences(rows_of(WHOLE), 1000, 0)["held_out"]) == len(WHOLE) // 5


def test_rows_of_one_premise_stay_together_and_blanks_make_no_difference():
    spaced = [text.replace(" ", "  ", 1) + " " for text in WHOLE]
    rows = rows_of([*WHOLE, *spaced]).rename_column("sentence", "sentence1").add_column("sentence2", ["?"] * 48)
    split = hold_out_sentences(rows, 4, 0)
    held_out, train = ({" ".join(text.split()) for text in split[name]["sentence1"]} for name in ("held_out", "train"))
    assert len(split["held_out"]) == 8 and len(held_out) == 4 and not held_out & train


def test_rows_held_out_at_random_leave_their_parts_behind():
    split = hold_out_rows(rows_of(WHOLE + PARTS), 5, 0)
    held_out, train = (list(split[name]["sentence"]) for name in ("held_out", "train"))
    assert len(held_out) == 5 and sorted(held_out + train) == sorted(WHOLE + PARTS)
    assert any(part in text for part in train for text in held_out)  # what hold_out_sentences is there to prevent


def test_crossed_sentences_are_sentences_with_phrases_of_others_in_them():
    sentences, parts = ["p q r s t u", "v w x y z"], ["q r", "y z", "p q r s", "w"]  # too long, too short
    made = crossed_sentences(rows_of(sentences + parts), 50, seed=0)
    assert made.column_names == ["sentence"], "no label of these would be true"
    texts = list(made["sentence"])
    assert texts[:2] == sentences and len(texts) == 2 + 2 * 50
    assert set(texts[2:52]) == {"p q r s t u", "p y z s t u"} and set(texts[52:]) == {"v w x q r", "v w x y z"}
    same, other = (list(crossed_sentences(rows_of(sentences + parts[::-1]), 50, seed)["sentence"]) for seed in (0, 1))
    assert texts == same != other


def test_a_task_without_phrases_has_nothing_to_cross():
    with pytest.raises(ValueError, match="only sst2"):
        crossed_sentences(rows_of(WHOLE), 3, 0)
    pairs = rows_of(WHOLE + PARTS, sentence2=WHOLE + PARTS)
    with pytest.raises(ValueError, match="two sentences"):
        crossed_sentences(pairs, 3, 0)
