"""Checks what the allocator predicts, and trains its plans beside those of rivals at equal bytes.

    python experiments/allocate.py atis --predict --ratio 60             # 24 plans before training: predicted, measured
    python experiments/allocate.py atis --ratio 300 --seeds 0 1 2        # the knapsack's plan, trained; on validation
    python experiments/allocate.py atis --ratio 300 --rule uniform --seeds 0 1 2          # a rival at the same bytes
    python experiments/allocate.py atis --ratio 300 --seeds 0 1 2 --test                  # once it is chosen
    python experiments/allocate.py glue --task sst2 --ratio 60 --steps 8000               # distilled, as glue.py does
    python experiments/allocate.py glue --task reviews --teacher small --predict --ratio 20

A ratio is that of the dense float model's bytes on disk to a budget; what the uniform plan of that budget takes is what
every rule may take, so that sizes are equal. The float model is trained where it is missing, by atis.py's or glue.py's
own settings, which are options here too: with --runs runs/atis it is found where atis.py has put it. --quantization is
for plans that will be trained: the part of what quantizers lose that counts. --epochs 0, --steps 0: no training.

Rows go to runs/allocate, with --record to data/results/allocate.json. With --predict each plan has a row, and another
says how the two orders agree: Spearman's rank correlation, over plans within a factor of two of each other's bytes.
Losses are KL between the float model's answers and the plan's, in thousandths of a nat.
"""

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import atis
import glue
import numpy as np
import torch
from models import copied
from results import place, record, row_of
from runs import fingerprint, finished, first, main, parse
from scipy.stats import spearmanr
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.hf_argparser import HfArg
from transformers.utils import logging

import ttqlib as ttq
from ttqlib.allocation.budgets import RULES
from ttqlib.allocation.choices import KINDS
from ttqlib.surgery.calibration import placed

CALIBRATION = 512  # training rows that ranks are cut by, and rows of the other split that losses are measured on
SPREAD = (1.0, 0.72, 0.52)  # of the ratios of --predict: bytes within a factor of two
DISTURBED = ((1.0, 0), (1.0, 1), (2.0, 2), (2.0, 3))  # plans of --predict that are not the best: noise, and its seed


def spent(base: type) -> type:
    """The settings of a script, and those of an allocation."""

    @dataclass(frozen=True)
    class Spent(base):
        ratio: float = HfArg(default=100.0, help="bytes of the dense float model for one of the budget")
        rule: str = HfArg(default="knapsack", metadata={"choices": RULES})
        kinds: str = HfArg(default="dense,low rank", help=f"of candidates, among {','.join(KINDS)}")
        core_bits: str = HfArg(default="1,2,3,4,8", help="of candidates")
        quantization: float = HfArg(default=1.0, help="the part of what quantizers lose that counts")

        def __post_init__(self):
            super().__post_init__()
            if not 1 <= self.ratio < math.inf or not 0 <= self.quantization <= 1:
                raise ValueError("--ratio must be at least 1, --quantization from 0 to 1")

        form = property(lambda self: "allocated" if self.rule == "knapsack" else self.rule)
        quantized = property(lambda self: True)
        is_student = property(lambda self: True)
        plain = property(lambda self: base(**{field.name: getattr(self, field.name) for field in fields(base)}))
        dense = property(lambda self: self.plain.dense)  # of atis.py
        of_teacher = property(lambda self: self.plain.of_teacher)  # of glue.py
        float_run = property(lambda self: self.dense if base is atis.Training else self.of_teacher)

        def idle(self):
            trained = "epochs" if base is atis.Training else "steps"
            unused = ("rank", "ranks", "dense_bits", "start", "sides", "word_cores", "word_rank", "word_bits", "words")
            rest = ("rest", "float_learning_rate", "float_epochs", "activations")
            return [*unused, *rest] if getattr(self, trained) else [*unused, *rest, "learning_rate", trained]

    return Spent


class Spending:
    """What both studies do with a budget."""

    def start(self, settings, seed: int):
        if not isinstance(settings, self.made_with):
            return super().start(settings, seed)
        return settings.float_run, getattr(settings, "teacher_seed", seed)

    def new(self, settings, start: PreTrainedModel | None):
        if not isinstance(settings, self.made_with):
            return super().new(settings, start)
        student = self.student(start)
        config = self.spend(student, settings)
        return ttq.compress_(student, config, calibration=self.calibration)

    def score(self, model: PreTrainedModel, split: str, start: Callable | None) -> dict[str, float]:
        scores = super().score(model, split, start)
        if isinstance(self.settings, self.made_with) and start is not None and hasattr(model, "ttq_config"):
            scores["predicted_mnat"] = 1000 * self.candidates(self.student(start())).loss(model.ttq_config)
        return scores

    def student(self, start: PreTrainedModel) -> PreTrainedModel:
        return copied(start, self.settings.dropout, getattr(self.data, "length", None))

    @property
    def calibration(self) -> list[dict]:
        return self.batches(first(self.data.encoded["train"].shuffle(seed=0), CALIBRATION))

    def unseen(self, half: int) -> list[dict]:
        """A half of the rows that choices are made on: losses are measured on the first, checked on the second.

        Of rows that it has learned by heart the float model is sure, so that nothing seems to cost it anything: ATIS'
        intents were given rank 1, and 78 % of them were right.
        """
        rows = self.data.encoded[self.scored[0]].shuffle(seed=0)
        return self.batches(first(rows.shard(2, half), CALIBRATION))

    def batches(self, rows) -> list[dict]:
        return list(DataLoader(rows, batch_size=64, collate_fn=self.data.collate))

    def candidates(self, student: PreTrainedModel) -> ttq.Candidates:
        kinds, bits = self.settings.kinds.split(","), [int(number) for number in self.settings.core_bits.split(",")]
        return ttq.measure_candidates(student, self.unseen(0), kinds=kinds, bits=bits)

    def spend(self, student: PreTrainedModel, settings) -> ttq.TTQConfig:
        """The plan of a rule, at the bytes of the uniform one."""
        found, how = self.candidates(student), {"quantization": settings.quantization}
        uniform = ttq.allocation_front(found, [int(self.float_bytes(found) / settings.ratio)], rule="uniform", **how)[0]
        if settings.rule == "uniform":
            return uniform.config
        return ttq.allocate(student, uniform.bytes, candidates=found, rule=settings.rule, **how)

    def float_bytes(self, found: ttq.Candidates) -> int:
        return found.range[1]

    @torch.no_grad()
    def divergence(self, model: PreTrainedModel, other: PreTrainedModel) -> float:
        """KL(model ‖ other) of all logits, summed as the prediction does it, on rows that nothing was fitted to."""
        here = (placed(batch, model) for batch in self.unseen(1))
        pairs = ((model.eval()(**batch), other.eval()(**batch), batch["attention_mask"].bool()) for batch in here)
        return float(np.mean([_divergence(*pair) for pair in pairs]))


def _divergence(one, other, mask: torch.Tensor) -> float:
    names = [name for name in one if name.endswith("logits")]
    return sum(float(ttq.logits_kl(other[name], one[name], mask if one[name].ndim == 3 else None)) for name in names)


class AllocatedAtis(Spending, atis.Atis):
    """Spends a budget on the 2-layer transformer for intent and slots."""

    name, made_with = "allocate", spent(atis.Training)


class AllocatedGlue(Spending, glue.Glue):
    """Spends a budget on a fine-tuned encoder."""

    name, made_with = "allocate", spent(glue.Distillation)


STUDIES = {"atis": AllocatedAtis, "glue": AllocatedGlue}


# ------------------------------------------------------------------------------------------ predicted and measured


def plans(found: ttq.Candidates, ratio: float, quantization: float) -> Iterator[ttq.TTQConfig]:
    """Twenty-four: of each rule, and the knapsack's for losses that are wrong, at three budgets."""
    dense = found.range[1]
    for share in SPREAD:
        budget = [int(dense / (share * ratio))]
        for rule in RULES:
            yield ttq.allocation_front(found, budget, rule=rule, quantization=quantization)[0].config
        for noise, seed in DISTURBED:
            yield ttq.allocation_front(disturbed(found, noise, seed), budget, quantization=quantization)[0].config


def disturbed(found: ttq.Candidates, noise: float, seed: int) -> ttq.Candidates:
    """With the losses of each layer multiplied by a number of its own: e to a Gaussian of deviation `noise`."""
    draw, layers = np.random.default_rng(seed), {}
    for name, some in found.layers.items():
        factor = math.exp(noise * draw.standard_normal())
        layers[name] = tuple(replace(one, loss=factor * one.loss, truncation=factor * one.truncation) for one in some)
    return replace(found, layers=layers)


def predict(kind: type, arguments: list[str]) -> None:
    """A row for each plan, and one for how well predicted and measured losses agree in their order."""
    settings, options = parse(kind, arguments)
    logging.set_verbosity_error()
    study, began = kind(settings, options), time.perf_counter()
    path, digest = place(study.name, options), fingerprint(study.splits)
    for seed in options.seeds:
        start = finished(study, *study.start(settings, seed))[0]
        student, pairs = study.student(start), []
        found = study.candidates(student)
        for config in plans(found, settings.ratio, settings.quantization):
            model = ttq.compress_(copy.deepcopy(student), config, calibration=study.calibration)
            pairs.append((found.loss(config), study.divergence(start, model)))
            figures = {name: [1000 * loss] for name, loss in zip(("predicted_mnat", "measured_mnat"), pairs[-1])}
            _row(study, figures, "predicted", seed, found.weigh(config), found.range[1], config, path, digest, began)
            print(f"{found.weigh(config):12,} bytes: predicted {pairs[-1][0]:.4f}, measured {pairs[-1][1]:.4f}")
        correlation = float(spearmanr(*zip(*pairs)).statistic)
        figures = {"rank_correlation": [correlation], "plans": [len(pairs)]}
        budget = int(found.range[1] / settings.ratio)
        _row(study, figures, "prediction", seed, budget, found.range[1], None, path, digest, began)
        print(f"seed {seed}: rank correlation {correlation:.3f} over {len(pairs)} plans; written to {path}")


def _row(study, figures, method, seed, size, dense, config, path, digest, began) -> None:
    settings = study.settings
    row = row_of(figures, None, 32, [seed], size, dense, config and config.to_dict())
    row |= {"task": settings.task, "split": study.scored[0], "method": method, "settings": settings.said()}
    record(path, row, time.perf_counter() - began, settings.task, digest)


if __name__ == "__main__":
    chosen, *told = sys.argv[1:] or [""]
    if chosen not in STUDIES:
        sys.exit(f"the first word must be one of {', '.join(STUDIES)}, got {chosen!r}; more: --help after it")
    if "--predict" in told:
        predict(STUDIES[chosen], [word for word in told if word != "--predict"])
    else:
        main(STUDIES[chosen], told)
