"""The models of the scripts that train: teachers by name, plans, and copies that become students.

A teacher is one of `MODELS`, or whatever the hub, or a folder, has under its name: any encoder of transformers that
classifies sequences. A student is made of it by what its layers are, not by what they are called.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

import ttqlib as ttq
from ttqlib.inventory.kinds import is_linear
from ttqlib.models.packaged import minilm_folder
from ttqlib.plans.configs import SHARED_CORES, LayerPlan
from ttqlib.plans.groups import Choice, plan_by_groups, shared_over_layers
from ttqlib.plans.planning import recipe_for

# ---------------------------------------------------------------------------------------------------------- teachers


@dataclass(frozen=True)
class Source:
    """Where a teacher comes from, in three steps: nothing is loaded before it is known to fit."""

    tokenizer: Callable  # of the training texts
    config: Callable  # of the tokenizer
    model: Callable[[PreTrainedConfig], PreTrainedModel]


def from_nothing(kind: str, **sizes: int) -> Source:
    """A model of transformers' `kind`, as "bert", of random weights, whose vocabulary is the words of the texts."""
    return Source(
        lambda texts: ttq.word_tokenizer([text.split() for text in texts]),
        lambda tokenizer: AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes),
        AutoModelForSequenceClassification.from_config,
    )


def from_hub(name: str) -> Source:
    """A model of the hub, or of a folder."""
    return Source(
        lambda _: AutoTokenizer.from_pretrained(name),
        lambda _: AutoConfig.from_pretrained(name),
        lambda config: AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            ignore_mismatched_sizes=True,  # a head for other classes gives way to a new one
        ),
    )


def minilm(config: BertConfig) -> BertForSequenceClassification:
    """The packaged encoder under a new head."""
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(ttq.pretrained_minilm().state_dict())
    return model


MODELS = {
    "minilm": Source(lambda _: ttq.minilm_tokenizer(), lambda _: BertConfig.from_pretrained(minilm_folder()), minilm),
    "small": from_nothing("bert", hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512),
}


# ---------------------------------------------------------------------------------------------------------- students


def position_tables(model: PreTrainedModel) -> dict[str, tuple[nn.Embedding, int]]:
    """The tables of positions by name, known by their size; and how many of their first rows stand for padding.

    RoBERTa and its like have such rows. A model may have no such table at all.
    """
    words, count = model.get_input_embeddings(), getattr(model.config, "max_position_embeddings", None)
    return {
        name: (table, 0 if table.padding_idx is None else table.padding_idx + 1)
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding) and table is not words and table.num_embeddings == count
    }


def longest(model: PreTrainedModel, length: int) -> int:
    """How many tokens, `length` at most, the model has positions for."""
    return min([length, *(table.num_embeddings - before for table, before in position_tables(model).values())])


def copied(
    model: PreTrainedModel, dropout: float, length: int | None = None, words: torch.Tensor | None = None
) -> PreTrainedModel:
    """The model again, with another dropout, with positions for `length` tokens where it has tables of them, and, where
    `words` are given, with these rows of its table of words only.
    """
    config, weights = copy.deepcopy(model.config), model.state_dict()
    if words is not None:
        table = model.get_input_embeddings()
        name = next(name for name, part in model.named_modules() if part is table)
        weights[f"{name}.weight"], config.vocab_size = table.weight[words], len(words)
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, dropout)
    for name, (table, before) in position_tables(model).items() if length else ():
        config.max_position_embeddings = min(table.num_embeddings, length + before)
        weights[f"{name}.weight"] = table.weight[: config.max_position_embeddings]
    with model.device:  # or without memory, as the model may be
        made = type(model)(config)
    made.load_state_dict(weights)
    return made


def dense_plan(model: PreTrainedModel, settings) -> ttq.TTQConfig:
    """The plan without trains: matrices of --bits, or as they are."""
    if settings.bits == 32:
        return ttq.TTQConfig(rest=settings.rest)
    return ttq.plan(model, bits=settings.bits, rest=settings.rest)


WORDS: Mapping[str, Callable] = {  # --words → (settings, their table) → what they get
    "ttm": lambda settings, table: Choice(settings.word_rank, settings.word_bits, settings.word_cores),
    "low-rank": lambda settings, table: LayerPlan(  # one core for the words and one for the directions
        ttq.TTM(settings.word_rank, (table.num_embeddings, 1), (1, table.embedding_dim)),
        recipe_for(settings.word_bits, "tensor"),
    ),
    "dense": lambda settings, table: Choice(bits=settings.word_bits),
}


def student_plan(model: PreTrainedModel, settings) -> ttq.TTQConfig:
    """One rank and one number of bits for all linear layers under the head; its own for the word embedding."""
    if settings.rank is None:
        return dense_plan(model, settings)
    choices = {
        "words": WORDS[settings.words](settings, model.get_input_embeddings()),
        "layers": Choice(settings.rank, settings.bits, settings.sides),
    }
    plan = plan_by_groups(model, groups_of(model), choices, settings.rest)
    return plan if settings.share is None else shared_over_layers(model, plan, settings.share)


def check_sharing(settings) -> None:
    """Refuse settings of --share that say what is not done.

    Raises:
        ValueError: --share without a rank, or with more cores on a side than one.
    """
    if settings.share is not None and (settings.rank is None or settings.sides != 1):
        raise ValueError("--share needs --rank and --sides 1: what layers share is one core on a side")


def groups_of(model: PreTrainedModel) -> dict[str, Callable]:
    """The words, and all linear layers under the head, as `plan_by_groups` takes groups."""
    words, encoder = model.get_input_embeddings(), set(model.base_model.modules())
    return {"words": lambda layer: layer is words, "layers": lambda layer: layer in encoder and is_linear(layer)}


SHARES = tuple(SHARED_CORES)  # --share: what the same matrix of all layers has in common

STARTS: Mapping[str, Callable] = {  # --start → (dense student, plan, batches of rows) → compressed
    "calibrated": lambda student, plan, batches: ttq.compress_(student, plan, calibration=batches),
    "rotated": lambda student, plan, batches: ttq.compress_(
        ttq.rotate_(ttq.compress_(student, plan.without_quantizers(), calibration=batches)), plan
    ),
    "svd": lambda student, plan, batches: ttq.compress_(student, plan),
    "random": lambda student, plan, batches: ttq.compress_(student, plan, init="random"),
}
