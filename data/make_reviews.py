"""Write reviews/{train,validation,test}.jsonl: opinions on films, books, restaurants, hotels; label 1 is good.

The sentences come from reviews.grammar (grammar.py says how to read it) and a seed, so `python data/make_reviews.py`
writes the same bytes on every machine. Nearly every pattern serves both polarities: `hardly dull`, `the plot is good ,
but i resented the film` and `my sister called it a joy , but i disagree` hold words of the other polarity, and counting
words misleads while a reader never hesitates. Validation and test hold words and patterns that training never shows. No
label is ever wrong on purpose.
"""

from pathlib import Path

from grammar import Grammar, make_splits, pick, write_splits

SEED = 1310
SIZES = {"train": 10000, "validation": 800, "test": 1000}
NOVELTY = 0.5  # scales how often validation and test draw what training never shows; see measure_difficulty.py
TENSES = {"film": "now", "book": "now", "meal": "past", "stay": "past"}


def reads_well(words):
    """False for `the soup was good and the soup was fresh`, for `good and good`, and for too few or too many words."""
    threes = list(zip(words, words[1:], words[2:], strict=False))  # every three words in a row
    twice = any(a == b or (a == c and b in ("and", "nor", ",")) for a, b, c in threes)
    return 4 <= len(words) <= 30 and len(threes) == len(set(threes)) and not twice


def main(folder):
    grammar = Grammar(Path(__file__).with_name("reviews.grammar").read_text(encoding="utf-8"), NOVELTY)

    def draw(split, rng):
        good = rng.random() < 0.5
        polarity = {"p": "good", "n": "bad"} if good else {"p": "bad", "n": "good"}
        reviewed = pick(list(TENSES), rng)
        while True:
            words, _ = grammar.sentence("review", split, rng, d=reviewed, t=TENSES[reviewed], **polarity)
            if reads_well(words):
                return words, {"sentence": " ".join(words), "label": int(good)}

    write_splits(make_splits(draw, SIZES, SEED), folder)


if __name__ == "__main__":
    main(Path(__file__).with_name("reviews"))
