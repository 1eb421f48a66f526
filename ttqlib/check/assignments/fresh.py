"""Sentences that nobody has seen: those of a split, with every name, day and number in them drawn anew."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

Row = Mapping[str, object]  # tokens, slots, intent


def fresh_rows(rows: Iterable[Row], seed: str) -> list[dict]:
    """As many rows as are given, each span of words with a slot replaced by one with the same slot, from any row.

    Where a slot says `B-toloc.city_name`, another city stands afterwards; what has no slot, and the intent, stays. The
    same `seed` gives the same rows.
    """
    rows, draw, known = list(rows), random.Random(seed), defaultdict(list)
    for row in rows:
        for slot, words in spans(row["tokens"], row["slots"]):
            if slot != "O":
                known[slot].append(words)
    return [_redrawn(row, known, draw) for row in rows]


def spans(words: Sequence[str], slots: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The words of a row in pieces: those of one slot together, without its B- and I-, and each O by itself."""
    piece: list[str] = []
    for place, (word, slot) in enumerate(zip(words, slots, strict=True)):
        piece.append(word)
        following = slots[place + 1] if place + 1 < len(slots) else "O"
        if slot == "O" or following != f"I-{slot[2:]}":
            yield slot.partition("-")[2] or "O", piece
            piece = []


def _redrawn(row: Row, known: Mapping[str, list], draw: random.Random) -> dict:
    tokens, slots = [], []
    for slot, words in spans(row["tokens"], row["slots"]):
        words = words if slot == "O" else draw.choice(known[slot])
        tokens += words
        slots += ["O"] if slot == "O" else [f"B-{slot}"] + [f"I-{slot}"] * (len(words) - 1)
    return {"tokens": tokens, "slots": slots, "intent": row["intent"]}
