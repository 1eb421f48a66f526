"""Write flights/{train,validation,test}.jsonl: travel questions with an intent and a slot label for every word.

The sentences come from flights.grammar (grammar.py says how to read it) and a seed, so `python data/make_flights.py`
writes the same bytes on every machine. Cities and airports are real, airlines and codes are invented. The task is hard
where it teaches something: one word can fill many slots (`lisbon` is left, reached, stopped at or part of an airline's
name; `430` is a time, a price or a flight), and validation and test hold names and turns of phrase that training never
shows. No label is ever wrong on purpose.
"""

from itertools import pairwise
from pathlib import Path

from grammar import SPLITS, Grammar, make_splits, pick, write_splits

SEED = 2306
SIZES = {"train": 4500, "validation": 500, "test": 900}
NOVELTY = 0.25  # scales how often validation and test draw what training never shows; see measure_difficulty.py

# Intent: share in a thousand. The last two occur only from validation, only in test on: ATIS has such intents, too.
INTENTS = {
    "flight": 620,
    "airfare": 75,
    "ground_service": 45,
    "airline": 35,
    "abbreviation": 25,
    "flight_time": 25,
    "aircraft": 20,
    "flight+airfare": 18,
    "quantity": 18,
    "airport": 15,
    "distance": 14,
    "city": 12,
    "flight_no": 12,
    "capacity": 11,
    "ground_fare": 11,
    "baggage": 10,
    "meal": 10,
    "change": 9,
    "status": 8,
    "restriction": 7,
    "seat": 7,
    "cancellation": 6,
    "day_name": 4,
    "airfare+flight_time": 4,
}
FIRST_SPLIT = {"day_name": "validation", "airfare+flight_time": "test"}

# Airports with the city they serve, for questions that name both; the last rows are held out of training.
AIRPORTS = {
    "train": {
        "heathrow": "london",
        "gatwick": "london",
        "charles de gaulle": "paris",
        "orly": "paris",
        "schiphol": "amsterdam",
        "barajas": "madrid",
        "el prat": "barcelona",
        "portela": "lisbon",
        "fiumicino": "rome",
        "malpensa": "milan",
        "linate": "milan",
        "marco polo": "venice",
        "capodichino": "naples",
        "schwechat": "vienna",
        "kloten": "zurich",
        "zaventem": "brussels",
        "kastrup": "copenhagen",
        "arlanda": "stockholm",
        "bromma": "stockholm",
        "gardermoen": "oslo",
        "vantaa": "helsinki",
        "ben gurion": "tel aviv",
        "narita": "tokyo",
        "haneda": "tokyo",
        "incheon": "seoul",
        "suvarnabhumi": "bangkok",
        "tan son nhat": "ho chi minh city",
        "soekarno hatta": "jakarta",
        "indira gandhi": "new delhi",
        "jorge chavez": "lima",
        "el dorado": "bogota",
        "ezeiza": "buenos aires",
        "galeao": "rio de janeiro",
        "guarulhos": "sao paulo",
    },
    "validation": {
        "luton": "london",
        "ferenc liszt": "budapest",
        "vaclav havel": "prague",
        "chopin": "warsaw",
    },
    "test": {
        "itami": "osaka",
        "kingsford smith": "sydney",
        "mariscal sucre": "quito",
        "jomo kenyatta": "nairobi",
        "santos dumont": "rio de janeiro",
    },
}


def makes_sense(words, slots):
    """False for from lisbon to lisbon, nonstop flights via lisbon, evening flights in the morning and the like."""
    names = []
    for word, slot in zip(words, slots, strict=True):
        if slot.startswith("B-"):
            names.append(word)
        elif slot.startswith("I-"):
            names[-1] += " " + word
    once = ["B-class_type", "B-round_trip", "B-flight_stop", "B-depart_time.period_of_day"]
    if "or" not in words:
        once += ["B-airline_name", "B-depart_date.day_name"]
    never = [
        ("B-flight_stop", "B-stoploc.city_name"),
        ("B-depart_date.day_name", "B-depart_date.today_relative"),
        ("B-depart_time.period_of_day", "B-depart_time.time"),
    ]
    return (
        len(names) == len(set(names))
        and all(word != following for word, following in pairwise(words))
        and all(slots.count(slot) <= 1 for slot in once)
        and not any(one in slots and other in slots for one, other in never)
    )


def main(folder):
    grammar = Grammar(Path(__file__).with_name("flights.grammar").read_text(encoding="utf-8"), NOVELTY)

    def draw(split, rng):
        allowed = SPLITS[: SPLITS.index(split) + 1]
        intents = [intent for intent in INTENTS if FIRST_SPLIT.get(intent, "train") in allowed]
        intent = pick(intents, rng, weight=INTENTS.get)
        pairs = [pair for name in allowed for pair in AIRPORTS[name].items()]
        while True:
            air, town = pick(pairs, rng)
            words, slots = grammar.sentence(f"@{intent}", split, rng, air=air, town=town, when="depart")
            if 4 <= len(words) <= 30 and makes_sense(words, slots):
                return words, {"tokens": words, "slots": slots, "intent": intent}

    write_splits(make_splits(draw, SIZES, SEED), folder)


if __name__ == "__main__":
    main(Path(__file__).with_name("flights"))
