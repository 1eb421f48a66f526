"""Which rows of a task to hold out, and which to learn from, when one row may be a part of another.

SST-2's training rows are the phrases of parsed sentences. A phrase held out at random is mostly a part of one that is
trained on, so that its label measures memory. Here whole sentences are held out, with everything that is a part of one.
"""

import random
from collections.abc import Iterable, Iterator

from datasets import Dataset, DatasetDict


def hold_out_sentences(rows: Dataset, count: int, seed: int) -> DatasetDict:
    """`held_out`, the rows of so many whole sentences, and `train`: all but what is a part of these, shuffled.

    Rows of two sentences are told by their first, so that those of one premise stay together. At most a fifth of the
    sentences are held out, whatever is asked.
    """
    texts = _texts(rows)
    whole = sorted({texts[row] for row in whole_sentences(rows)})  # sorted: a set has no order to draw from
    chosen = set(random.Random(seed).sample(whole, min(count, len(whole) // 5)))
    known = chosen.union(*map(phrases, chosen))
    held_out = rows.select([row for row, text in enumerate(texts) if text in chosen])
    train = rows.select([row for row, text in enumerate(texts) if text not in known])
    return DatasetDict(train=train.shuffle(seed=seed), held_out=held_out)


def hold_out_rows(rows: Dataset, count: int, seed: int) -> DatasetDict:
    """`held_out`, so many rows at random (at most a fifth), and `train`, the others: the naive way, to compare with."""
    parts = rows.train_test_split(min(count, len(rows) // 5), seed=seed)
    return DatasetDict(train=parts["train"], held_out=parts["test"])


def whole_sentences(rows: Dataset) -> list[int]:
    """The places of the rows that are no phrase of another row."""
    texts = _texts(rows)
    parts = parts_among(texts)
    return [row for row, text in enumerate(texts) if text not in parts]


def crossed_sentences(rows: Dataset, copies: int, seed: int) -> Dataset:
    """The whole sentences without their labels, and so many copies of each with two phrases of other sentences in it.

    Nobody wrote these copies, and nobody could label them but a teacher, which labels whatever it is shown. A phrase
    of two words up to half of the sentence gives way to any row of as many words. Source: the data augmentation of
    Jiao et al., "TinyBERT", 2020, section 3.2, with phrases in the place of words.

    Raises:
        ValueError: rows of two sentences; or no sentence has a phrase that is a row.
    """
    if "sentence2" in rows.column_names:
        raise ValueError("rows of two sentences cannot be crossed; only sst2 has phrases")
    draw, texts = random.Random(seed), _texts(rows)
    known = set(texts)
    of_length: dict[int, list[str]] = {}
    for text in sorted(known):  # sorted: a set has no order to draw from
        of_length.setdefault(len(text.split()), []).append(text)
    sentences = [texts[row] for row in whole_sentences(rows)]
    crossed = []
    for sentence in sentences:
        words = sentence.split()
        places = [
            slice(start, start + length)
            for length in range(2, len(words) // 2 + 1)
            for start in range(len(words) - length + 1)
            if " ".join(words[start : start + length]) in known
        ]
        for _ in range(copies if places else 0):
            copy = words.copy()
            for place in draw.choices(places, k=2):
                copy[place] = draw.choice(of_length[place.stop - place.start]).split()
            crossed.append(" ".join(copy))
    if not crossed:
        raise ValueError("no sentence has a phrase that is a row of its own; only sst2 has phrases")
    return Dataset.from_dict({_field(rows): sentences + crossed})


def parts_among(texts: Iterable[str]) -> set[str]:
    """The texts that are a phrase of another one."""
    texts = set(texts)
    return set().union(*(texts.intersection(phrases(text)) for text in texts))


def phrases(text: str) -> Iterator[str]:
    """All runs of consecutive words, shorter than the text."""
    words = text.split()
    for length in range(1, len(words)):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _field(rows: Dataset) -> str:
    return next(name for name in rows.column_names if name.startswith("sentence"))


def _texts(rows: Dataset) -> list[str]:
    return [" ".join(text.split()) for text in rows[_field(rows)]]
