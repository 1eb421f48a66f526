"""Sentences made up from those of a training set, for a student of a trained model.

A teacher has learnt its training sentences by heart: about them it says no more than their labels do. What it knows
beyond them shows on sentences that it has not seen, also on senseless ones, and these cost nothing to make.
"""

import random
from collections import Counter, defaultdict

from datasets import Dataset

import ttqlib as ttq

SPLICE, SWAP, DROP = 0.5, 0.7, 0.3  # how often a sentence is changed in each way
SWAPPED, DROPPED = 0.25, 0.1  # and then, how often each of its words


def make_up(rows, count: int, seed: int) -> list[list[str]]:
    """`count` sentences from the tokens of `rows`: spliced from two, with words swapped for others, or dropped.

    A word is swapped for one of its kind, which is the last part of the label it has most often: Boston, whether a
    `B-toloc.city_name` or a `B-fromloc.city_name`, is a city_name.
    """
    generator, sentences = random.Random(seed), list(rows["tokens"])
    labels = defaultdict(Counter)
    for tokens, slots in zip(sentences, rows["slots"]):
        for word, slot in zip(tokens, slots):
            labels[word][slot.removeprefix("B-").removeprefix("I-").rpartition(".")[2]] += 1
    kinds = {word: counts.most_common(1)[0][0] for word, counts in labels.items()}
    words = defaultdict(list)
    for word, kind in kinds.items():
        words[kind].append(word)
    longest = max(map(len, sentences))

    def one() -> list[str]:
        tokens = list(generator.choice(sentences))
        if generator.random() < SPLICE:
            other = generator.choice(sentences)
            tokens = tokens[: generator.randint(1, len(tokens))] + other[generator.randrange(len(other)) :]
        if generator.random() < SWAP:
            tokens = [generator.choice(words[kinds[word]]) if generator.random() < SWAPPED else word for word in tokens]
        if generator.random() < DROP:
            tokens = [word for word in tokens if generator.random() > DROPPED] or tokens
        return tokens[:longest]

    return sorted((one() for _ in range(count)), key=len)  # little padding in a batch; training shuffles them


def labelled(sentences: list[list[str]], teacher: ttq.IntentSlotModel, tokenizer, max_length: int) -> Dataset:
    """The sentences as rows of a data set, with the intent and the slots that `teacher` gives them."""
    blank = [{"tokens": tokens, "slots": ["O"] * len(tokens), "intent": ""} for tokens in sentences]
    encoded = ttq.encode(Dataset.from_list(blank), tokenizer, (), teacher.config.slots, max_length)
    intents, slots = ttq.predict_intent_slots(teacher, encoded, ttq.IntentSlotCollator(tokenizer))
    rows = zip(sentences, slots, intents)
    return Dataset.from_list([{"tokens": tokens, "slots": slot, "intent": intent} for tokens, slot, intent in rows])
