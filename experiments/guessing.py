"""What guessing is worth: the answer that is commonest in training, given to every row.

    python experiments/guessing.py            # all tasks whose data is there
    python experiments/guessing.py sst2 mrpc  # these
    python experiments/guessing.py --record   # into data/results/guessing.json, not runs/guessing/results.json

The floor under every score of these tasks. Slots are guessed word by word, and the commonest slot label is O, so their
F1 is 0. Of GLUE's tasks the held-out rows are those that `glue.py` chooses on, in both ways of holding out. Real data
comes from the folder that TTQ_DATA names, or from the hub.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator

from datasets import Dataset, DatasetDict
from glue import HELD_OUT_SEED, HOLD_OUT
from results import add_options, check_runs, place, record, row_of
from runs import fingerprint

import ttqlib as ttq
from ttqlib.tasks.records import SLOTS, labelled
from ttqlib.tasks.sources import TASKS

TOLD = ("atis", "sst2", "mrpc", "rte")  # the tasks that chapters and the README tell of


def guesses(splits: DatasetDict, task: str) -> Iterator[tuple[str, dict | None, dict[str, float]]]:
    """Split, settings, and figures of each split that is scored."""
    if TASKS[task].fields == SLOTS:
        for split in ("validation", "test"):
            yield split, None, intents_and_slots(splits["train"], splits[split])
        return
    for way, hold_out in HOLD_OUT.items():
        parts = hold_out(splits["train"], seed=HELD_OUT_SEED)
        yield "held_out", {"hold_out": way}, classes(task, parts["train"], parts["held_out"])
    for split in (name for name in splits if name != "train"):
        if all(map(labelled, splits[split]["label"])):
            yield split, None, classes(task, splits["train"], splits[split])


def classes(task: str, train: Dataset, rows: Dataset) -> dict[str, float]:
    """GLUE's metrics of the class that is commonest in `train`, and how many rows there are."""
    ((guess, _),) = Counter(train["label"]).most_common(1)
    return {**ttq.score(task, rows["label"], [guess] * len(rows)), "rows": len(rows)}


def intents_and_slots(train: Dataset, rows: Dataset) -> dict[str, float]:
    """Both metrics of the commonest intent, and of the commonest slot label for every word; and the number of rows."""
    ((intent, _),) = Counter(train["intent"]).most_common(1)
    ((slot, _),) = Counter(label for row in train["slots"] for label in row).most_common(1)
    return {
        "intent_accuracy": ttq.accuracy(rows["intent"], [intent] * len(rows)),
        "slot_f1": ttq.slot_f1(rows["slots"], [[slot] * len(row) for row in rows["slots"]]),
        "rows": len(rows),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help=f"names of tasks, by default {', '.join(TOLD)}")
    add_options(parser, "guessing")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    known = [name for name, one in TASKS.items() if one.fields == SLOTS or one.classes]
    if unknown := [name for name in options.tasks if name not in known]:
        parser.error(f"no task is called {', '.join(unknown)}; there are {', '.join(known)}")
    for task in options.tasks or TOLD:
        began, splits = time.perf_counter(), ttq.load_task(task)
        for split, settings, figures in guesses(splits, task):
            found = {name: [value] for name, value in figures.items()}
            row = row_of(found, None, 32, (0,), 1, 1)  # there is no model: a guess is one number, of a byte
            row |= {"task": task, "split": split, "method": "guess", "settings": settings}
            record(place("guessing", options), row, time.perf_counter() - began, task, fingerprint(splits))
            print(f"{task:6} {split:10}", ", ".join(f"{name} {value:.1f}" for name, value in figures.items()), settings)


if __name__ == "__main__":
    main()
