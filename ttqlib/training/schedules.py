"""Schedules of a distillation, as data: which stages it goes through, and what each matches, how long and how fast.

A schedule, such as `LayerByLayer(steps=500)`, is a frozen dataclass that knows no model; `stages` unrolls it for a
student of given layers. `to_dict` and `Schedule.from_dict` take it to JSON and back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..catalog import Catalog
from ..tensors.shapes import whole_number
from .bounds import check_choice, check_number, entries
from .matching import Match, MatchBlock, MatchLayer, MatchLogits, MatchRelations, MatchSentences, TaskLoss
from .stages import DECAYS, Stage

ORDERS = ("bottom_up", "top_down")
WEIGHTS = {name: {"at_least": 0} for name in ("mse", "cosine", "attention", "scores", "logits", "task")}
TEMPERATURE = {"temperature": {"above": 0}}


@dataclass(frozen=True)
class Schedule:
    """What all schedules share. One of your own says `stages`, or `matches` and `label` where it has one stage.

    `ttq.register` lets files name it.

    Args:
        steps: optimizer steps.
        learning_rate: the highest one; by default that of the training arguments.
        warmup: the share of a stage, from 0 to below 1, over which it is reached.
        decay: how it falls to 0 by the end of the stage: "linear" or "cosine"; or "constant".

    Raises:
        ValueError: a number out of its range, or a word that is none of those.
    """

    steps: int
    _: KW_ONLY
    learning_rate: float | None = None
    warmup: float = 0.1
    decay: str = "linear"

    label: ClassVar[str]  # the name of the stage, where there is one only
    by_layers: ClassVar[bool] = False  # whether layers are matched one to one
    by_stage: ClassVar[tuple[str, ...]] = ()  # what may be a list, with one entry a stage
    bounds: ClassVar[Mapping[str, Mapping]] = {"warmup": {"at_least": 0, "below": 1}}  # of the fields

    def __post_init__(self):
        for name in self.by_stage:
            if isinstance(value := getattr(self, name), Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))  # how a frozen dataclass sets its own fields
        for steps in entries(self.steps):
            whole_number("steps", steps)
        for rate in entries(self.learning_rate):
            if rate is not None:
                check_number("learning_rate", rate, above=0)
        for name, bounds in self.bounds.items():
            check_number(name, getattr(self, name), **bounds)
        check_choice("decay", self.decay, DECAYS)

    def stages(self, layer_map: Mapping[int, int]) -> list[Stage]:
        """The stages for a student whose layer l is matched to the teacher's layer `layer_map[l]`; 0: embeddings."""
        return [self._stage(self.label, self.matches())]

    def matches(self) -> list[Match]:
        """What the only stage matches."""
        raise NotImplementedError

    def to_dict(self) -> dict:
        """The schedule as plain strings, numbers and lists: what `json.dumps` takes.

        Raises:
            ValueError: its class is one of your own that is not registered (`ttq.register`).
        """
        return SCHEDULES.to_dict(self)

    @staticmethod
    def from_dict(data: Mapping) -> "Schedule":
        """The schedule that `to_dict` wrote, or one by hand: what has a default may be left out.

        Raises:
            ValueError: an unknown type, a field that is missing or unknown, or one that holds what it must not.
        """
        return SCHEDULES.from_dict("a schedule", data)

    def _stage(self, name: str, matches: Sequence[Match], number: int = 0, only: int | None = None) -> Stage:
        steps, rate = (v[number] if isinstance(v, tuple) else v for v in (self.steps, self.learning_rate))
        return Stage(name, steps, tuple(matches), rate, self.warmup, self.decay, only)


@dataclass(frozen=True)
class LayerWise(Schedule):
    """What schedules share that match layers one to one: weights of the losses.

    Args:
        mse, cosine, attention, scores: weights of the parts of the layers' losses L_0 … L_L, see `MatchLayer`.
        logits, task: weights of the losses of the output; that of the task counts where a batch has labels.
        temperature: of the logits.
    """

    _: KW_ONLY
    mse: float = 1.0
    cosine: float = 1.0
    attention: float = 1.0
    scores: float = 0.0
    logits: float = 1.0
    task: float = 1.0
    temperature: float = 1.0

    by_layers: ClassVar[bool] = True
    bounds: ClassVar[Mapping[str, Mapping]] = {**Schedule.bounds, **WEIGHTS, **TEMPERATURE}

    def _layer(self, layer: int, layer_map: Mapping[int, int]) -> MatchLayer:
        return MatchLayer(layer, layer_map[layer], self.mse, self.cosine, self.attention, self.scores)

    def _output(self) -> list[Match]:
        logits = [MatchLogits(self.temperature, self.logits)] if self.logits else []
        return logits + ([TaskLoss(self.task)] if self.task else [])


@dataclass(frozen=True)
class LayerByLayer(LayerWise):
    """A stage for each layer, from the embeddings up, and then one for the output: L + 2 stages.

    Errors of lower layers travel up, so these are mended first. Source: arXiv 2306.01076.

    Args:
        steps, learning_rate: one number, the same for every stage, or a list with one for each of the L + 2 stages.
        order: "bottom_up", or "top_down": from the last layer to the embeddings, the output last all the same.
        cumulative: whether a stage keeps the losses of the layers before it; else it matches its own layer alone.
        freeze: whether a stage trains its own layer only; the last one trains the whole model all the same.

    Without `freeze` a stage trains everything its losses depend on, so layer l and all layers below it.

    Raises:
        ValueError: as `LayerWise`; a stage that would match nothing; from `stages`, a list of another length.
    """

    _: KW_ONLY
    order: str = "bottom_up"
    cumulative: bool = True
    freeze: bool = False

    by_stage: ClassVar[tuple[str, ...]] = ("steps", "learning_rate")

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ORDERS)
        for name in ("cumulative", "freeze"):
            check_choice(name, getattr(self, name), (True, False))
        if not (self.mse or self.cosine):
            raise ValueError("mse and cosine must not both be 0: the stage of the embeddings would match nothing")
        if not (self.logits or self.task):
            raise ValueError("logits and task must not both be 0: the last stage would match nothing")

    def stages(self, layer_map: Mapping[int, int]) -> list[Stage]:
        layers = sorted(layer_map, reverse=self.order == "top_down")
        for name in self.by_stage:
            if isinstance(values := getattr(self, name), tuple) and len(values) != len(layers) + 1:
                raise ValueError(
                    f"{name} must be one number or a list of {len(layers) + 1}, for the embeddings, {len(layers) - 1} "
                    f"layers and the output; got {len(values)}"
                )
        stages = []
        for number, layer in enumerate(layers):
            matched = layers[: number + 1] if self.cumulative else [layer]
            matches = [self._layer(one, layer_map) for one in matched]
            stages.append(self._stage(f"L{layer}", matches, number, layer if self.freeze else None))
        return [*stages, self._stage("output", self._output(), len(layers))]


@dataclass(frozen=True)
class AllLayers(LayerWise):
    """All layers and the output at once, in one stage. `SingleStage` is that with the losses of XTC."""

    def stages(self, layer_map: Mapping[int, int]) -> list[Stage]:
        layers = [self._layer(layer, layer_map) for layer in sorted(layer_map)]
        return [self._stage("all layers", layers + self._output())]


@dataclass(frozen=True)
class BlockByBlock(Schedule):
    """A stage for each layer, from the first up: it alone trains, on its own output, where every token counts alike.

    What it takes comes from the layers before, which have trained. The embeddings have no stage: it is for what trains
    inside of layers, as the scales of `equivalent_`. For the last one transformers shows what comes behind its norm.
    """

    by_layers: ClassVar[bool] = True

    def stages(self, layer_map: Mapping[int, int]) -> list[Stage]:
        layers = sorted(layer_map)[1:]
        return [self._stage(f"L{layer}", [MatchBlock(layer, layer_map[layer])], only=layer) for layer in layers]


@dataclass(frozen=True)
class SingleStage(AllLayers):
    """XTC's distillation: `AllLayers` with mean squares of hidden states and attention scores, and the logits.

    XTC is four lines, here with 1-bit weights, scales by row, and 8-bit activations by token; `given` holds the teacher
    and the data::

        student = ttq.reduce_layers(teacher, keep)
        ttq.compress_(student, ttq.plan(student, bits=1, rest=8, activations=ttq.DynamicActivation(8)))
        ttq.DistillTrainer(student, args, stages=ttq.SingleStage(200), layer_map=ttq.layer_map(keep), **given).train()
        ttq.save(student, folder)

    Nothing is distilled before, and the labels are not used. KL has the gradient of the paper's soft cross-entropy.
    Source: X. Wu et al., "XTC", arXiv 2206.01859; the losses are those of Jiao et al., "TinyBERT", 2020, eq. 7–10.
    """

    _: KW_ONLY
    cosine: float = 0.0
    attention: float = 0.0
    scores: float = 1.0
    task: float = 0.0


@dataclass(frozen=True)
class LogitsOnly(Schedule):
    """The teacher's logits at a `temperature`, nothing else.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, §2.
    """

    _: KW_ONLY
    temperature: float = 1.0

    label: ClassVar[str] = "logits"
    bounds: ClassVar[Mapping[str, Mapping]] = {**Schedule.bounds, **TEMPERATURE}

    def matches(self) -> list[Match]:
        return [MatchLogits(self.temperature)]


@dataclass(frozen=True)
class AttentionRelations(Schedule):
    """Relations among queries, keys and values of the last layer, by `heads` heads: models of any depth and width.

    What lies above the last layer's queries, keys and values does not train: let another schedule follow. Source:
    W. Wang et al., "MiniLM", 2020, and "MiniLMv2", 2021, which matches all three.
    """

    _: KW_ONLY
    heads: int

    label: ClassVar[str] = "relations"

    def __post_init__(self):
        super().__post_init__()
        whole_number("heads", self.heads)

    def matches(self) -> list[Match]:
        return [MatchRelations(self.heads)]


@dataclass(frozen=True)
class Contrastive(Schedule):
    """InfoNCE between sentence vectors of student and teacher; the other sentences of a batch are the negatives.

    What lies above the last layer does not train: let another schedule follow. Source: S. Sun et al., "Contrastive
    Distillation on Intermediate Representations for Language Model Compression", 2020.
    """

    _: KW_ONLY
    temperature: float = 0.05

    label: ClassVar[str] = "contrast"
    bounds: ClassVar[Mapping[str, Mapping]] = {**Schedule.bounds, **TEMPERATURE}

    def matches(self) -> list[Match]:
        return [MatchSentences(self.temperature)]


@dataclass(frozen=True)
class TaskOnly(Schedule):
    """No distillation: the task's own loss on the labels, the control of all the others."""

    label: ClassVar[str] = "task"

    def matches(self) -> list[Match]:
        return [TaskLoss()]


SCHEDULES = Catalog(
    LayerByLayer,
    AllLayers,
    BlockByBlock,
    SingleStage,
    LogitsOnly,
    AttentionRelations,
    Contrastive,
    TaskOnly,
    base=Schedule,
)
