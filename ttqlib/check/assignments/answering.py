"""What a saved model answers in a process of its own, where a folder is all there is: no notebook has been run in it.

python -m ttqlib.check.assignments.answering FOLDER ROWS prints, as JSON, an intent and the slots of each row of a file.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ...storage.checkpoint import load
from ...tasks.encoding import IntentSlotCollator, encode, predict_intent_slots, word_tokenizer
from ...tasks.sources import load_task

Answers = tuple[list[str], list[list[str]]]


def tokenizer_of(train):
    """The tokenizer of everybody: its vocabulary is the words of the training rows of `flights`."""
    return word_tokenizer(train["tokens"])


def answers(model, rows, train) -> Answers:
    """An intent and a list of slots for each row."""
    tokenizer = tokenizer_of(train)
    encoded = encode(rows, tokenizer, model.config.intents, model.config.slots)
    return predict_intent_slots(model, encoded, IntentSlotCollator(tokenizer))


def answers_elsewhere(folder: Path, rows: Sequence[dict], scratch: Path) -> Answers:
    """The same of the model in `folder`, from a new process.

    Raises:
        RuntimeError: it ended with an error, whose last line the message gives.
    """
    (scratch / "rows.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", __spec__.name, str(folder), str(scratch / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    intents, slots = json.loads(done.stdout.splitlines()[-1])
    return intents, slots


def main(folder: str, rows: str) -> None:
    import datasets

    datasets.disable_progress_bars()
    asked = datasets.Dataset.from_list(json.loads(Path(rows).read_text()))
    print(json.dumps(answers(load(folder), asked, load_task("flights")["train"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
