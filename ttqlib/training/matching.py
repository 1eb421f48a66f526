"""What a stage of a distillation matches, as data: recipes that turn two observations into losses.

A recipe is a frozen dataclass of weights. `fitted` says before any training whether two models can be matched so;
`parts` gives its losses by name, each times its weight. Weights of 0 leave a loss out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from .labels import MULTI, REGRESSION, SINGLE, label_order, problem_type
from .losses import (
    attention_kl,
    attention_mse,
    bernoulli_kl,
    hidden_cosine,
    hidden_mse,
    hidden_relative,
    info_nce,
    logits_kl,
    logits_mse,
    relation_scores,
    sentence_vectors,
)
from .observation import Observation, records_attention


class Match:
    """What the recipes share."""

    needs_attention: ClassVar[bool] = False
    needs_maps: ClassVar[bool] = False  # the scores of its attention
    needs_labels: ClassVar[bool] = False

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "Match":
        """The recipe for these two models.

        Raises:
            ValueError: they cannot be matched so.
        """
        return self

    def check_batch(self, config: PreTrainedConfig, inputs: Mapping[str, Tensor]) -> None:
        """Raise a ValueError where a batch shows that the recipe was fitted to something else."""

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        """The losses, by name, times their weights. Their sum is trained on."""
        raise NotImplementedError


@dataclass(frozen=True)
class MatchLayer(Match):
    """L_l, the loss of one layer: the student's layer `layer` after the teacher's layer `teacher_layer`.

    Layer 0 is what the embeddings give, layer l what the l-th transformer layer gives, so that it is
    `hidden_states[l]`; its attention is `attentions[l − 1]`, and layer 0 has none. `attention` weighs `attention_kl`
    of what is attended to, `scores` weighs `attention_mse` of the scores behind that.
    """

    layer: int
    teacher_layer: int
    mse: float = 1.0
    cosine: float = 1.0
    attention: float = 1.0
    scores: float = 0.0

    @property
    def needs_attention(self) -> bool:
        return self.layer > 0 and max(self.attention, self.scores) > 0

    needs_maps = needs_attention

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "MatchLayer":
        if self.mse or self.cosine:
            hint = "ttq.AttentionRelations matches models of different widths"
            _equal("hidden sizes", *sizes_of(student, teacher, "hidden_size"), hint)
        if self.needs_attention:
            hint = "attention=0, scores=0 leave the maps out"
            _equal("numbers of attention heads", *sizes_of(student, teacher, "num_attention_heads"), hint)
            _check_attention(student, teacher, hint)
        return self

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        parts = {}
        states = student.hidden_states[self.layer], teacher.hidden_states[self.teacher_layer]
        if self.mse:
            parts["mse"] = self.mse * hidden_mse(*states, student.states_mask)
        if self.cosine:
            parts["cosine"] = self.cosine * hidden_cosine(*states, student.states_mask)
        if self.needs_attention:
            attentions = student.attentions[self.layer - 1], teacher.attentions[self.teacher_layer - 1]
            scores = [one.scores() for one in attentions]
            for name, weight, loss in (
                ("attention", self.attention, attention_kl),
                ("scores", self.scores, attention_mse),
            ):
                if weight:
                    parts[name] = weight * loss(*scores, student.mask)
        return {f"L{self.layer} {name}": loss for name, loss in parts.items()}


@dataclass(frozen=True)
class MatchBlock(Match):
    """The output of one layer alone, each token by its own size (`hidden_relative`). Layers as in `MatchLayer`."""

    layer: int
    teacher_layer: int

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "MatchBlock":
        _equal("hidden sizes", *sizes_of(student, teacher, "hidden_size"), "a block's output has no other width")
        return self

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        states = student.hidden_states[self.layer], teacher.hidden_states[self.teacher_layer]
        return {f"L{self.layer} relative": hidden_relative(*states, student.states_mask)}


@dataclass(frozen=True)
class MatchLogits(Match):
    """All outputs whose name ends in "logits": those of whole sentences, and those of tokens over real tokens.

    Logits of classes are compared by `logits_kl`. Where there is one logit for each label of the config, its
    `problem_type` decides: labels that are on or off by `bernoulli_kl`, numbers by `logits_mse`, and the teacher's
    labels are put into the student's order, by their names. Logits of places in a sentence, as in question answering,
    are compared over real tokens.
    """

    temperature: float = 1.0
    weight: float = 1.0
    # These two follow from the models, so that no schedule holds them.
    problem: str = field(default=SINGLE, repr=False)
    order: tuple[int, ...] = field(default=(), repr=False)  # for each of the student's labels, the teacher's

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "MatchLogits":
        for name in ("num_labels", "intents", "slots"):
            labels = (getattr(model.config, name, None) for model in (student, teacher))
            _equal(f"labels (config.{name})", *labels, "both must tell the same classes apart")
        problems = [problem_type(model.config) for model in (student, teacher)]
        _equal("kinds of labels (config.problem_type)", *problems, "set it on both")
        if problems[0] == REGRESSION and self.temperature != 1:
            raise ValueError(f"temperature={self.temperature} softens probabilities, and a regression has none: use 1")
        return replace(self, problem=problems[0], order=label_order(student.config, teacher.config))

    def check_batch(self, config: PreTrainedConfig, inputs: Mapping[str, Tensor]) -> None:
        problem = problem_type(config, inputs.get("labels"))
        if problem != self.problem:
            raise ValueError(
                f"the labels are those of a {problem}, the logits were to be matched as {self.problem}: "
                f'set config.problem_type = "{problem}" on student and teacher'
            )

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        if not student.logits or student.logits.keys() != teacher.logits.keys():
            names = " and ".join(", ".join(one.logits) or "none" for one in (student, teacher))
            raise ValueError(f"student and teacher must return the same logits, got {names}")
        return {
            name: self.weight * self._loss(logits, teacher.logits[name], student.mask)
            for name, logits in student.logits.items()
        }

    def _loss(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        mask = real if student.ndim == 3 else None
        if student.shape[-1] == teacher.shape[-1] == len(self.order):
            teacher = teacher[..., list(self.order)]
            if self.problem == MULTI:
                return bernoulli_kl(student, teacher, mask, temperature=self.temperature)
            if self.problem == REGRESSION:
                return logits_mse(student, teacher, mask)
        elif student.shape == teacher.shape == real.shape:
            student, teacher = (one.masked_fill(~real, torch.finfo(one.dtype).min) for one in (student, teacher))
        return logits_kl(student, teacher, mask, temperature=self.temperature)


@dataclass(frozen=True)
class TaskLoss(Match):
    """The student's own loss on the labels, as the model computes it; 0 where all are −100, nothing where none are."""

    needs_labels: ClassVar[bool] = True
    weight: float = 1.0

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        return {} if student.loss is None else {"task": self.weight * student.loss}


@dataclass(frozen=True)
class MatchRelations(Match):
    """Relations among the queries, among the keys and among the values of the last layers, by `heads` heads.

    Source: W. Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation", 2021, §3.
    """

    needs_attention: ClassVar[bool] = True
    heads: int
    weight: float = 1.0

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "MatchRelations":
        for who, model in (("student", student), ("teacher", teacher)):
            for width in _attention_widths(who, model):
                if width % self.heads:
                    raise ValueError(f"heads={self.heads} must divide the width of the {who}'s attention, {width}")
        _check_attention(student, teacher, "relations cannot be matched")
        return self

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        last = student.attentions[-1], teacher.attentions[-1]
        return {
            f"{name} relations": self.weight
            * attention_kl(*(relation_scores(one.side_by_side(name), self.heads) for one in last), student.mask)
            for name in ("query", "key", "value")
        }


@dataclass(frozen=True)
class MatchSentences(Match):
    """Contrast: each sentence's vector, the mean of its last hidden states, is to be found among the teacher's."""

    temperature: float = 0.05
    weight: float = 1.0

    def fitted(self, student: PreTrainedModel, teacher: PreTrainedModel) -> "MatchSentences":
        hint = "sentence vectors need the same width"
        _equal("hidden sizes", *sizes_of(student, teacher, "hidden_size"), hint)
        return self

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        vectors = (sentence_vectors(one.last_hidden_state, student.mask) for one in (student, teacher))
        return {"contrast": self.weight * info_nce(*vectors, temperature=self.temperature)}


def size_of(who: str, model: PreTrainedModel, name: str) -> int:
    """One number of a model's config.

    Raises:
        ValueError: the config has none of that name, as where a model has two towers, or one for each layer.
    """
    value = getattr(model.config, name, None)
    if not isinstance(value, Integral):
        raise ValueError(
            f"the {who}, a {type(model).__name__}, must be one stack of equal layers with a number config.{name}, "
            f"got {value!r}"
        )
    return value


def sizes_of(student: PreTrainedModel, teacher: PreTrainedModel, name: str) -> tuple[int, int]:
    """`size_of` both."""
    return size_of("student", student, name), size_of("teacher", teacher, name)


def _attention_widths(who: str, model: PreTrainedModel) -> set[int]:
    """Heads · size of a head of the queries, and of keys and values, which may have fewer heads."""
    heads = size_of(who, model, "num_attention_heads")
    size = getattr(model.config, "head_dim", None) or size_of(who, model, "hidden_size") // heads
    return {heads * size, (getattr(model.config, "num_key_value_heads", None) or heads) * size}


def _equal(what: str, student, teacher, hint: str) -> None:
    if student != teacher:
        raise ValueError(f"{what} differ, {student} for the student and {teacher} for the teacher: {hint}")


def _check_attention(student: PreTrainedModel, teacher: PreTrainedModel, hint: str) -> None:
    for who, model in (("student", student), ("teacher", teacher)):
        if not records_attention(model):
            raise ValueError(
                f"the attention of the {who}, a {type(model).__name__}, cannot be recorded: it does not go through "
                f"transformers' AttentionInterface, or is more than a softmax of scores; {hint}"
            )
