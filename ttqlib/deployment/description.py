"""What a model reads and what kind of answer it gives, found by asking it: the contents of deploy.json."""

import inspect
from bisect import bisect_left
from collections.abc import Mapping
from math import inf

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..tensors.shapes import whole_number
from .predictor import FIELDS, NUMBER, ONE_LABEL, WORDS

LONGEST = 512  # tokens, where `max_length` is not given: decoders have positions for 100 000 and more
PADDED = 1e-3  # how far padding may move an answer, of the largest
EXPORTED = "exported are models that read input_ids alone and answer logits of labels, of numbers or of a vocabulary"


def describe(model: PreTrainedModel, tokenizer, max_length: int | None, tolerance: float = PADDED) -> dict:
    """The contents of deploy.json, but for the digests, of a model in eval mode that answers nothing but logits.

    Raises:
        ValueError: as `export_onnx`.
    """
    if model.main_input_name != "input_ids":
        raise ValueError(f"{EXPORTED}; {type(model).__name__} reads {model.main_input_name}")
    config = {"inputs": _inputs(model, tokenizer), "padding": None if tokenizer is None else tokenizer.pad_token_id}
    config["max_length"] = _longest(model, config["inputs"], tokenizer, max_length)
    answer = ask(model, example(config, batch=2, length=2))
    config["problem_type"] = kind = _kind(model, answer)
    config["labels"] = {name: [] if kind == WORDS else _names(model, name, answer[name].shape[-1]) for name in answer}
    if tokenizer is not None and kind != WORDS:
        _check_padding(model, config, tolerance)
    return config


def example(config: Mapping, batch: int, length: int) -> dict[str, Tensor]:
    """Random inputs of shape (batch, length), the second half of the first row padded."""
    random = torch.Generator().manual_seed(0)
    inputs = {name: torch.randint(limit, (batch, length), generator=random) for name, limit in config["inputs"].items()}
    if "attention_mask" in inputs:
        inputs["attention_mask"][:] = 1
        inputs["attention_mask"][0, 1 + length // 2 :] = 0
    return inputs


def ask(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The logits that a model answers, by name.

    Raises:
        ValueError: it needs something else, or answers something else.
    """
    try:
        answer = model(**inputs)
    except Exception as error:  # every model says in its own way what it misses
        shape, why = tuple(inputs["input_ids"].shape), " ".join(str(error).split())
        kind, names = type(model).__name__, ", ".join(inputs)
        raise ValueError(f"{EXPORTED}; {kind} does not answer to {names} of shape {shape}: {why}") from error
    if not {*answer} <= {*FIELDS}:
        raise ValueError(f"{EXPORTED}; {type(model).__name__} answers {', '.join(answer)}")
    return dict(answer)


def _inputs(model: PreTrainedModel, tokenizer) -> dict[str, int]:
    """What the model reads, and below what number its entries stay."""
    config = model.config.get_text_config()
    limits = {"input_ids": config.vocab_size, "attention_mask": 2}
    taken = inspect.signature(model.forward).parameters
    given = [*limits, "token_type_ids"] if tokenizer is None else tokenizer.model_input_names
    if "token_type_ids" in given and "token_type_ids" in taken:  # what it leaves out, training left out too
        types = getattr(config, "type_vocab_size", None)
        if types is None and tokenizer is not None:
            raise ValueError(
                f"the tokenizer gives token_type_ids, and {type(model).__name__} does not say how many types it has: "
                "take them out of tokenizer.model_input_names if it was trained without them"
            )
        limits["token_type_ids"] = types or 0
    return {name: limit for name, limit in limits.items() if limit and name in taken and name in given}


def _longest(model: PreTrainedModel, inputs: Mapping[str, int], tokenizer, wanted: int | None) -> int:
    """How many tokens may go in: `wanted`, or by default what positions, tokenizer and LONGEST allow."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or inf
    positions = positions if positions > 0 else inf  # XLNet's −1
    allowed = min(positions, LONGEST, getattr(tokenizer, "model_max_length", inf))
    longest = whole_number("max_length", allowed if wanted is None else wanted, minimum=2)
    usable = _usable(model, inputs, min(longest, positions))
    if wanted is not None and usable < wanted:
        raise ValueError(f"max_length must be at most {usable}, the positions that the model has, got {wanted}")
    return usable


def _usable(model: PreTrainedModel, inputs: Mapping[str, int], limit: int) -> int:
    """The largest length up to `limit` that the model takes: RoBERTa, for one, counts positions from 2 on."""
    word = min({0, 1} - {_own_pad(model)})  # pads may count less

    def text(length: int) -> dict[str, Tensor]:
        values = {"input_ids": word, "attention_mask": 1, "token_type_ids": 0}
        return {name: torch.full((1, length), values[name]) for name in inputs}

    def fits(length: int) -> bool:
        try:
            model(**text(length))
        except Exception:  # of what kind depends on how it looks up a position
            return False
        return True

    ask(model, text(2))  # if it answers to this, it is the length that another one fails by
    if fits(limit):
        return limit
    lengths = range(2, limit)
    return lengths[bisect_left(lengths, True, key=lambda length: not fits(length)) - 1]


def _own_pad(model: PreTrainedModel) -> int | None:
    return model.config.get_text_config().pad_token_id


def _kind(model: PreTrainedModel, answer: Mapping[str, Tensor]) -> str:
    """What the logits are of, in transformers' words."""
    logits = answer.get("logits")
    if logits is not None and logits.ndim == 3 and logits.shape[-1] == model.config.get_text_config().vocab_size:
        return WORDS
    if model.config.problem_type:
        return model.config.problem_type
    return NUMBER if logits is not None and logits.ndim == 2 and logits.shape[-1] == 1 else ONE_LABEL


def _names(model: PreTrainedModel, output: str, count: int) -> list[str]:
    """The names of the labels, in the order of their numbers."""
    if output != "logits":
        names = dict(enumerate(getattr(model.config, output.replace("_logits", "s"), ())))  # config.intents and .slots
    else:
        names = {int(number): name for number, name in model.config.id2label.items()}
    if {*names} != {*range(count)}:
        numbers = ", ".join(map(str, sorted(names))) or "none"
        raise ValueError(
            f"{output} are {count} numbers: the labels in the config must name 0 … {count - 1}, got {numbers}"
        )
    return [names[number] for number in range(count)]


def _check_padding(model: PreTrainedModel, config: Mapping, tolerance: float) -> None:
    """A text must get the same answer beside a longer one, which has it padded, where the model looks for its own pad.

    Decoders take their answer from the last token that is none. Where the two agree, what padding does is the model's.
    """
    own = _own_pad(model)
    if own == config["padding"]:
        return
    inputs = {name: values[1:] for name, values in example(config, batch=2, length=2).items()}
    inputs["input_ids"].fill_(min({0, 1, 2} - {own, config["padding"]}))
    pad = {"input_ids": config["padding"]}
    padded = {
        name: torch.cat([values, torch.full((1, config["max_length"] - 2), pad.get(name, 0))], 1)
        for name, values in inputs.items()
    }
    answers = ask(model, inputs), ask(model, padded)
    for name, alone in answers[0].items():
        beside = answers[1][name] if alone.ndim == 2 else answers[1][name][:, :2]
        if not (alone - beside).abs().max() <= tolerance * alone.abs().max():
            raise ValueError(
                f"padding changes the answers of {type(model).__name__}: the tokenizer pads with token "
                f"{config['padding']}, model.config.pad_token_id is {own}: set both to the same"
            )
