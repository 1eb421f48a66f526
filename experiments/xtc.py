"""XTC: fewer layers, one or two bits, one stage of distillation; and what it adds to tensor trains.

    python experiments/xtc.py --task sst2 --layers 4 --bits 1                          # four layers of 1 bit
    python experiments/xtc.py --task sst2 --layers 4 --bits 1 --words low-rank --word-rank 64 --word-bits 2
    python experiments/xtc.py --task sst2 --bits 1 --through 32,2                      # the rival: 32, 2, then 1 bit
    python experiments/xtc.py --task sst2 --layers 3 --keep costs --bits 2 --activations 8
    python experiments/xtc.py --task sst2 --rank 128 --bits 2 --words low-rank         # trains, at equal bytes
    python experiments/xtc.py --task sst2 --bits 1 --steps 0                           # only its size
    python experiments/xtc.py --task sst2 --bits 1 --vocabulary trained                # a control: no bound counts it

All linear layers under the head have --bits with a scale for each row, the words --word-bits, everything else --rest.
Which layers a student keeps says --keep: a rule of `ttq.kept_layers`, a measurement on training sentences, or places,
as 0,2,4. The student's config.json lists them. --through names the bits of earlier stages, each a run of its own with
an equal share of --steps, so that the bits come down as training goes on. --vocabulary trained leaves only the word
pieces of training sentences in student and teacher alike; any other piece is then the unknown one. The row's teacher
is the whole one in any case.

The rest is glue.py's: tasks, teachers, splits, sentences to learn from, how runs are kept and go on. They are kept
under runs/glue, where the teachers are. Each row has the teacher's own score and how far behind it the student is.
Scores are written to runs/glue/results.json, with --record to data/results/xtc.json. A new rule of layers, or a new
way to round, is one entry in a table below.

The runs, most telling first, with minutes on two idle cores. Settings are chosen on held-out sentences; --validation
--record are added once they are. All have --task sst2 --hold-out rows --teacher-bf16 --bf16 --inputs crossed:

    --bits 1 --steps 1000, 2000, 4000, 8000                                          6, 12, 25, 50: is it under-trained?
    --bits 2 --steps 4000                                                            25: two bits
    --bits 1 --layers 5 --words low-rank --word-rank 64 --word-bits 2 --steps 8000   3 × 45: 51 times smaller
    --bits 1 --layers 3 --words low-rank --word-rank 48 --word-bits 2 --steps 8000   35: 79 times
    --rank 116 --bits 2 --words low-rank --word-rank 64 --steps 8000                 45: trains of the bytes of 50 times
    --rank 232 --bits 1 --words low-rank --word-rank 64 --word-bits 2 --steps 4000   25: 1-bit cores, the same bytes
    --bits 1 --steps 4000 --through 32,2                                             25: stages against one
    --bits 1 --steps 2000 --layers 4, 3; --keep last, costs                          10 each: which layers
    --bits 1 --steps 2000 --learning-rate 2e-4, 1e-3; --schedule all_layers, logits  12 each: how it learns
    --bits 1 --steps 2000 --rounding learned; --rest 32; --activations 8             12 each: what is rounded
    --bits 2 --steps 2000 --rounding lsq                                             12: four levels against three

Source: X. Wu et al., "XTC: Extreme Compression for Pre-trained Transformers Made Simple and Efficient", NeurIPS 2022
(arXiv 2206.01859).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from glue import CALIBRATION, Distillation, Glue
from models import STARTS, WORDS, copied, groups_of
from runs import BITS, finished, first, main
from schedules import SCHEDULES
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer
from transformers.hf_argparser import HfArg

import ttqlib as ttq
from ttqlib.plans.configs import LayerPlan
from ttqlib.plans.groups import Choice, layer_plan, plan_by_groups
from ttqlib.plans.planning import recipe_for
from ttqlib.surgery.kept import RULES
from ttqlib.training.pairing import stages_of

MEASURED: Mapping[str, Callable] = {"costs": ttq.layer_costs, "similarity": ttq.layer_similarity}  # of the teacher
KEEP = [*(rule.replace(" ", "-") for rule in RULES), *MEASURED]
MEASURING = 256  # training rows, that layers are measured on
MEAN = {1: ttq.Binary, 2: ttq.Ternary}  # recipes whose scale is a mean |w|
ROUNDING: Mapping[str, Callable] = {  # --rounding → (bits, what shares a scale) → what 1 and 2 bits are
    "mean": lambda bits, per: MEAN[bits](per=per),  # computed anew at each step, as XTC does
    "learned": lambda bits, per: MEAN[bits](per=per, learnable=True),  # it trains, from there
    "lsq": recipe_for,  # at 2 bits four levels with a trained step
}
VOCABULARY = ("all", "trained")


@dataclass(frozen=True)
class Extreme(Distillation):
    """How a student is made and trained, and its teacher; the teacher alone, where nothing is made smaller."""

    layers: int | None = HfArg(default=None, help="how many of the teacher's layers; all without it")
    keep: str = HfArg(default="every-other", help=f"which: {', '.join(KEEP)}, or places, as 0,2,4")
    rounding: str = HfArg(default="mean", help="of 1 and 2 bits", metadata={"choices": ROUNDING})
    activations: int = HfArg(
        default=32, help="bits, by token, of what linear layers take", metadata={"choices": [8, 32]}
    )
    through: str | None = HfArg(default=None, help="bits of the stages before the last, as 32,2; one stage without it")
    vocabulary: str = HfArg(
        default="all", help="trained: the pieces of training rows", metadata={"choices": VOCABULARY}
    )
    words: str = HfArg(default="dense", help="their format", metadata={"choices": WORDS})
    start: str = HfArg(default="rotated", help="of the cores", metadata={"choices": STARTS})
    rest: int = HfArg(default=8, help="bits of heads, positions, norms, biases", metadata={"choices": (8, 16, 32)})
    schedule: str = HfArg(default="single_stage", metadata={"choices": SCHEDULES})
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not self.places and self.keep not in KEEP:
            raise ValueError(f"--keep must be one of {', '.join(KEEP)}, or places, as 0,2,4, got {self.keep!r}")
        if any(bits not in BITS for bits in self.before):
            raise ValueError(f"--through must be bits among {', '.join(map(str, BITS))}, as 32,2, got {self.through!r}")
        if 0 < self.steps <= len(self.before):
            raise ValueError(f"--steps must be at least 1 for each stage, got {self.steps}")

    def filled_in(self) -> dict:
        rank = None if self.words == "dense" else self.word_rank or self.rank
        if self.words != "dense" and rank is None:
            raise ValueError(f"--words {self.words} needs a --word-rank")
        layers = len(self.places) or self.layers
        return {"word_rank": rank, "word_bits": self.word_bits or self.bits, "layers": layers}

    @property
    def places(self) -> list[int]:
        """Those that --keep names, if it does."""
        parts = self.keep.split(",")
        return [int(part) for part in parts] if all(part.strip().isdecimal() for part in parts) else []

    @property
    def before(self) -> list[int]:
        """The bits of the stages before the last."""
        return [int(bits) if bits.strip().isdecimal() else 0 for bits in (self.through or "").split(",") if bits]

    @property
    def is_student(self) -> bool:
        return super().is_student or self.layers is not None or self.words != "dense"

    @property
    def method(self) -> str:
        return ("tt" if self.rank else "xtc") if self.is_student else "dense"

    @property
    def of_teacher(self) -> "Extreme":
        whole = {"layers": None, "keep": KEEP[0], "words": "dense", "word_bits": None}
        return replace(self, rank=None, bits=32, rest=32, **whole)

    @property
    def earlier(self) -> "Extreme | None":
        """The run of all stages before the last one, which have their share of the steps."""
        if not self.before:
            return None
        *first_ones, bits = self.before
        words = bits if self.words == "dense" and self.word_bits == self.bits else self.word_bits
        steps = self.steps * len(self.before) // (len(self.before) + 1)
        through = ",".join(map(str, first_ones)) or None
        return replace(self, bits=bits, word_bits=words, steps=steps, through=through)


def rounded(settings: Extreme, bits: int, per: str):
    """The quantizer of so many bits, or "float"."""
    if bits == 32:
        return "float"
    return ROUNDING[settings.rounding](bits, per) if bits < 3 else recipe_for(bits, per)


def extreme_plan(model: PreTrainedModel, settings: Extreme) -> ttq.TTQConfig:
    """All linear layers under the head, as matrices or trains, of one number of bits; the words have their own."""

    def words(table: nn.Embedding) -> LayerPlan:
        return quantized(table, WORDS[settings.words](settings, table), settings.word_bits)

    def layers(layer: nn.Linear) -> LayerPlan:
        return quantized(layer, Choice(settings.rank, cores=settings.sides if settings.rank else None), settings.bits)

    def quantized(layer: nn.Module, choice: Choice | LayerPlan, bits: int) -> LayerPlan:
        form = layer_plan(layer, choice).format
        return LayerPlan(form, rounded(settings, bits, "tensor" if form else "channel"))

    activations = ttq.DynamicActivation(settings.activations) if settings.activations < 32 else None
    choices = {"words": words, "layers": layers}
    return plan_by_groups(model, groups_of(model), choices, settings.rest, activations)


class XTC(Glue):
    """Distils a fine-tuned encoder into fewer layers of one or two bits, in one stage."""

    name, made_with, kept_with = "xtc", Extreme, "glue"

    def check(self, settings: Extreme) -> None:
        """Every stage is looked at, with the first layers where those that stay are not known yet."""
        teacher = self.data.bare()
        keep = self.kept(settings, teacher, measured=dict.fromkeys(range(depth(teacher)), 0.0))
        while settings:
            student = self.reduced(settings, teacher, keep)
            extreme_plan(student, settings)
            if settings.steps:
                stages = SCHEDULES[settings.schedule](settings, student.config)
                stages_of(student, self.shown(settings, teacher), stages, ttq.layer_map(keep))
            settings = settings.earlier

    def earlier(self, settings: Extreme) -> Extreme | None:
        return settings.earlier

    def new(self, settings: Extreme, start: PreTrainedModel | None) -> PreTrainedModel:
        """A teacher before it is tuned; or some of a teacher's layers, compressed."""
        if start is None:
            return super().new(settings, start)
        student = self.reduced(settings, start, self.kept(settings, start))
        plan = extreme_plan(student, settings)
        trains = any(layer.format for layer in plan.layers.values())
        return STARTS[settings.start if trains else "svd"](student, plan, self.batches(CALIBRATION, student))

    def next_stage(self, settings: Extreme, model: PreTrainedModel) -> PreTrainedModel:
        return ttq.requantized(model, extreme_plan(model, settings))

    def kept(self, settings: Extreme, teacher: PreTrainedModel, measured: Mapping | None = None) -> list[int]:
        """The places of the layers that stay; `measured` stands for a measurement that cannot be made yet."""
        if settings.places or settings.layers is None:
            return settings.places or list(range(depth(teacher)))
        rule = settings.keep.replace("-", " ")
        if rule in MEASURED:
            rule = measured or MEASURED[rule](teacher, list(self.batches(MEASURING, teacher)))
        return ttq.kept_layers(depth(teacher), settings.layers, rule)

    def reduced(self, settings: Extreme, teacher: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
        """A student before it is compressed, whose config lists the layers that it has of its teacher."""
        student = ttq.reduce_layers(teacher, keep)
        student = copied(student, settings.dropout, self.data.length, self.pieces(settings))
        student.config.kept_layers = keep
        return student

    def shown(self, settings: Extreme, teacher: PreTrainedModel) -> PreTrainedModel:
        """The teacher with the word pieces that its students have."""
        pieces = self.pieces(settings)
        return teacher if pieces is None else copied(teacher, settings.dropout, words=pieces).to(teacher.device)

    def pieces(self, settings: Extreme) -> torch.Tensor | None:
        """The ids of the word pieces that stay; None, all."""
        return self.occurring if settings.vocabulary == "trained" else None

    @cached_property
    def occurring(self) -> torch.Tensor:
        """The ids of the word pieces of the training rows, and of those that stand for no word."""
        ids = {*self.data.tokenizer.all_special_ids}.union(*self.data.encoded["train"]["input_ids"])
        return torch.tensor(sorted(ids))

    def collate_for(self, model: PreTrainedModel) -> Callable:
        """Where the model has not all word pieces, others are the unknown one for it."""
        if model.config.vocab_size == self.data.config.vocab_size:
            return self.data.collate
        unknown = torch.searchsorted(self.occurring, self.data.tokenizer.unk_token_id)
        places = torch.full((self.data.config.vocab_size,), int(unknown))
        places[self.occurring] = torch.arange(len(self.occurring))

        def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
            batch = self.data.collate(rows)
            return {**batch, "input_ids": places[batch["input_ids"]]}

        return collate

    def batches(self, count: int, model: PreTrainedModel) -> DataLoader:
        return DataLoader(first(self.data.inputs, count), batch_size=64, collate_fn=self.collate_for(model))

    def distillation(self, settings: Extreme, model: PreTrainedModel, start: PreTrainedModel, how) -> Trainer:
        """What trains the last stage."""
        done = settings.earlier.steps if settings.earlier else 0
        stages = SCHEDULES[settings.schedule](
            replace(settings, through=None, steps=settings.steps - done), model.config
        )
        return ttq.DistillTrainer(
            model,
            how,
            teacher=self.shown(settings, start),
            stages=stages,
            layer_map=ttq.layer_map(model.config.kept_layers),
            data_collator=self.collate_for(model),
            train_dataset=self.data.inputs,
        )

    def score(self, model: PreTrainedModel, split: str, start: Callable | None) -> dict[str, float]:
        """GLUE's metrics; beside a teacher also its own, and how many points the student is behind."""
        scores = super().score(model, split, start)
        if start is not None:
            _, report = finished(self, *self.start(self.settings, 0))
            for name, value in report[split].items():
                scores |= {f"teacher_{name}": value, f"{name}_behind": value - scores[name]}
        return scores


def depth(model: PreTrainedModel) -> int:
    return model.config.num_hidden_layers


if __name__ == "__main__":
    main(XTC)
