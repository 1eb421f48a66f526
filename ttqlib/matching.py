"""What a stage of a distillation matches, as data: recipes that turn two observations into losses.

A recipe is a frozen dataclass of weights. `check` says before any training whether two models fit it; `parts` gives
its losses by name, each times its weight. Weights of 0 leave a loss out.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from .losses import (
    attention_kl,
    hidden_cosine,
    hidden_mse,
    info_nce,
    logits_kl,
    relation_scores,
    sentence_vectors,
)
from .observation import Observation, records_attention


class Match:
    """What the recipes share."""

    needs_attention: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise a ValueError where these two models cannot be matched so."""

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        """The losses, by name, times their weights. Their sum is trained on."""
        raise NotImplementedError


@dataclass(frozen=True)
class MatchLayer(Match):
    """L_l, the loss of one layer: the student's layer `layer` after the teacher's layer `teacher_layer`.

    Layer 0 is what the embeddings give, layer l what the l-th transformer layer gives, so that it is
    `hidden_states[l]`; its attention is `attentions[l − 1]`, and layer 0 has none.
    """

    layer: int
    teacher_layer: int
    mse: float = 1.0
    cosine: float = 1.0
    attention: float = 1.0

    @property
    def needs_attention(self) -> bool:
        return self.attention > 0 and self.layer > 0

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        if self.mse or self.cosine:
            hint = "ttq.AttentionRelations matches models of different widths"
            _equal("hidden sizes", student.config.hidden_size, teacher.config.hidden_size, hint)
        if self.needs_attention:
            heads = (model.config.num_attention_heads for model in (student, teacher))
            _equal("numbers of attention heads", *heads, "attention=0 leaves the maps out")
            _check_attention(student, teacher, "attention=0 leaves the maps out")

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        parts, mask = {}, student.mask
        states = student.hidden_states[self.layer], teacher.hidden_states[self.teacher_layer]
        if self.mse:
            parts["mse"] = self.mse * hidden_mse(*states, mask)
        if self.cosine:
            parts["cosine"] = self.cosine * hidden_cosine(*states, mask)
        if self.needs_attention:
            maps = student.attentions[self.layer - 1], teacher.attentions[self.teacher_layer - 1]
            parts["attention"] = self.attention * attention_kl(*(one.scores() for one in maps), mask)
        return {f"L{self.layer} {name}": loss for name, loss in parts.items()}


@dataclass(frozen=True)
class MatchLogits(Match):
    """All outputs whose name ends in "logits": those of whole sentences, and those of tokens over real tokens."""

    temperature: float = 1.0
    weight: float = 1.0

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        for name in ("num_labels", "intents", "slots"):
            labels = (getattr(model.config, name, None) for model in (student, teacher))
            _equal(f"labels (config.{name})", *labels, "both must tell the same classes apart")

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        if not student.logits or student.logits.keys() != teacher.logits.keys():
            names = " and ".join(", ".join(one.logits) or "none" for one in (student, teacher))
            raise ValueError(f"student and teacher must return the same logits, got {names}")
        return {
            name: self.weight * logits_kl(logits, teacher.logits[name], self.temperature, _token_mask(logits, student))
            for name, logits in student.logits.items()
        }


@dataclass(frozen=True)
class TaskLoss(Match):
    """The student's own loss on the labels, as the model computes it; nothing where a batch has none."""

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

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        for who, model in (("student", student), ("teacher", teacher)):
            if model.config.hidden_size % self.heads:
                raise ValueError(f"heads={self.heads} must divide the {who}'s hidden size {model.config.hidden_size}")
        _check_attention(student, teacher, "relations cannot be matched")

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

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        hint = "sentence vectors need the same width"
        _equal("hidden sizes", student.config.hidden_size, teacher.config.hidden_size, hint)

    def parts(self, student: Observation, teacher: Observation) -> dict[str, Tensor]:
        vectors = (sentence_vectors(one.hidden_states[-1], student.mask) for one in (student, teacher))
        return {"contrast": self.weight * info_nce(*vectors, self.temperature)}


def _token_mask(logits: Tensor, seen: Observation) -> Tensor | None:
    return seen.mask if logits.ndim == 3 else None


def _equal(what: str, student, teacher, hint: str) -> None:
    if student != teacher:
        raise ValueError(f"{what} differ, {student} for the student and {teacher} for the teacher: {hint}")


def _check_attention(student: PreTrainedModel, teacher: PreTrainedModel, hint: str) -> None:
    for who, model in (("student", student), ("teacher", teacher)):
        if not records_attention(model):
            raise ValueError(
                f"the attention of the {who}, a {type(model).__name__}, cannot be recorded: it does not go through "
                f"transformers' AttentionInterface; {hint}"
            )
