"""Assignment 5, a mini-project: meet a byte budget on `flights` with a plan of your own.

`build(train)` is called once; its model is saved, weighed as a folder on disk, loaded again and scored, as `submission`
says. The last tests have rows that are drawn after the model was saved.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

import torch
from transformers import BertConfig

from ...models.intent_slot import IntentSlotModel
from ...plans.configs import TTQConfig
from ...plans.planning import plan
from ...storage.checkpoint import save
from ...surgery.compress import compress_
from ..verdict import exercise, fail
from .asking import ask_twice
from .seeds import generator
from .submission import BUDGET, bytes_of, fresh_scores, rows_given, submitted, validation_scores

FLOOR = {"slot_f1": 68.0, "intent_accuracy": 88.0}  # of validation
NAMES = {"intent_accuracy": "intent accuracy", "slot_f1": "slot F1"}


def rows():
    """The rows of `flights` that the project may use: its splits `train` and `validation`."""
    return rows_given()


@exercise
def weigh(function: Callable, seed: int = 0) -> None:
    """`function(model, config)` must return the bytes of the folder that a model with this plan would have on disk."""
    draw = generator(seed, "weigh")
    for _ in range(2):
        width, names = (16 * int(torch.randint(1, 4, (), generator=draw)) for _ in range(2))
        model = _small_model(width, names)
        bits, rank = (int(torch.randint(2, 8, (), generator=draw)) for _ in range(2))
        _check_weigh(function, model, plan(model, bits=bits, rest=8))
        _check_weigh(function, model, plan(model, rank, bits, rest=16))


@exercise
def weigh_by_hand(function: Callable) -> None:
    """A model of 16 columns, all of whose weights get 8 bits."""
    model = _small_model(16, 4)
    _check_weigh(function, model, plan(model, bits=8, rest=8))


@exercise
def leaderboard_row(function: Callable, seed: int = 0) -> None:
    """`function(name, folder, dense_bytes, scores, seconds)` must return what a folder says of itself, as a dict."""
    draw = generator(seed, "row")
    for depth in range(3):
        sizes = torch.randint(1, 5000, (4,), generator=draw).tolist()
        kept = {"format": depth, "layers": {"words": {"bits": sizes[0]}}, "rest": 8}
        _check_row(function, kept, sizes[: 2 + depth], dense_bytes=sizes[3] * 100)


@exercise
def leaderboard_row_by_hand(function: Callable) -> None:
    """A folder of two files, 36 bytes of plan and 64 of weights, where the dense model had 1 000."""
    _check_row(function, {"rest": 8}, [64], dense_bytes=1000)


@exercise
def fits(build: Callable) -> None:
    """`build(train)` must return a model whose folder is within the budget, in the time that is allowed."""
    mine = submitted(build)
    print(f"{mine.stored_bytes:,} of {BUDGET:,} bytes; built in {mine.seconds:.0f} s of CPU time")


@exercise
def validation(build: Callable) -> None:
    """The saved model must reach the floor on the validation split."""
    _reaches(build, validation_scores(build), FLOOR, "on validation")


@exercise
def held_out(build: Callable, slot_f1: float, intent_accuracy: float = 85.0, seed: int = 0) -> None:
    """The saved model must reach this on sentences drawn after it was saved. Prints a line of a leaderboard."""
    found, published = fresh_scores(build, seed)
    mine = submitted(build)
    line = {"stored_bytes": mine.stored_bytes, **found, "seconds": mine.seconds}
    line["better_on_test"] = published["slot_f1"] - found["slot_f1"]
    print("leaderboard", json.dumps({name: round(value, 1) for name, value in line.items()}))
    _reaches(build, found, {"slot_f1": slot_f1, "intent_accuracy": intent_accuracy}, "on sentences drawn for it")


# ------------------------------------------------------------------------------------------- what the checks share


def _reaches(build: Callable, found: Mapping[str, float], wanted: Mapping[str, float], where: str) -> None:
    said = ", ".join(f"{NAMES[name]} {value:.1f} %" for name, value in found.items())
    for name, least in wanted.items():
        if not found[name] >= least:
            fail(build, f"{where} {said}; at least {least:g} % of {NAMES[name]} is wanted")
    print(f"{where}: {said}")


def _check_weigh(function: Callable, model: IntentSlotModel, config: TTQConfig) -> None:
    with tempfile.TemporaryDirectory() as here, chdir(here):
        got = ask_twice(function, model, config)
        if left := next(Path().iterdir(), None):
            fail(function, f"it leaves {left.name} behind: weigh in a folder that goes away, tempfile makes one")
    with tempfile.TemporaryDirectory() as folder:
        copied = IntentSlotModel(model.config)
        save(compress_(copied, config, init="random"), folder)
        expected = bytes_of(Path(folder))
    ranks = {layer.format.rank for layer in config.layers.values() if layer.format}
    where = f"for a model {model.config.hidden_size} wide, " + (f"rank {ranks.pop()}" if ranks else "no trains")
    if isinstance(got, bool) or not isinstance(got, int) or got != expected:
        fail(function, f"{where} and the rest in {config.rest} bits expected {expected} bytes, got {got!r}")


def _small_model(width: int, names: int) -> IntentSlotModel:
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * width}
    labels = {name: [f"{name} {number}" for number in range(names)] for name in ("intents", "slots")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return IntentSlotModel(BertConfig(vocab_size=60, max_position_embeddings=16, **sizes, **labels))


def _check_row(function: Callable, kept: dict, sizes: list[int], dense_bytes: int) -> None:
    scores, fixed = {"intent_accuracy": 91.5, "slot_f1": 77.25}, {"name": "mine", "seconds": 12.5}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps({"quantization_config": kept}))
        for depth, size in enumerate(sizes):  # the first beside config.json, the others in folders inside of folders
            inner = folder.joinpath(*["inside"] * depth)
            inner.mkdir(exist_ok=True)
            (inner / "model.safetensors").write_bytes(bytes(size))
        stored = bytes_of(folder)
        got = ask_twice(function, fixed["name"], folder, dense_bytes, scores, fixed["seconds"])
    expected = {**fixed, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": kept, **scores}
    if not isinstance(got, dict) or sorted(got) != sorted(expected):
        fail(function, f"expected a dict with the keys {', '.join(sorted(expected))}, got {_keys(got)}")
    for name, value in expected.items():
        alike = abs(got[name] - value) < 1e-9 * value if name == "ratio" and _number(got[name]) else got[name] == value
        if not alike:
            fail(function, f"for a folder of {stored:,} bytes {name} must be {value!r}, got {got[name]!r}")
    try:
        json.dumps(got)
    except TypeError as error:
        fail(function, f"JSON cannot write the row: {error}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _keys(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, dict) else type(value).__name__
