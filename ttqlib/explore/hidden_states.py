"""How far hidden states are off, layer by layer: where layers were compressed, and while a student learns.

Points that take long to compute are computed once, before: an explorer only looks them up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from .. import plots
from ..surgery.calibration import eval_mode
from .explorer import Explorer, choice, stops

DAMAGE_HINT = (
    "Try small ranks: a layer may be further off with its train than without its weights. Expect the error to grow "
    "from layer to layer, whichever layers are compressed."
)
RUN_HINT = (
    "Step through one run, then through another: matched one after the other, layers come near one by one; with labels "
    "only, expect inner layers to stay far away while answers get better."
)


@dataclass(frozen=True)
class DamagePoint:
    """A model some of whose layers were changed: its bytes, and how far off its hidden states are.

    `errors` are relative: first after the embeddings, then after each layer.
    """

    stored_bytes: int
    errors: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.stored_bytes / 1e6:.1f} MB, off by {self.errors[-1]:.0%} after the last layer"


def damage(
    points: Mapping[tuple[str, int], DamagePoint], deleted: Mapping[str, DamagePoint], layers: str, rank: int
) -> Explorer:
    """Drag the rank and choose the layers that get it; beside it the same layers without their weights.

    `points` holds every (layers, rank), `deleted` the control for each kind of layers. `layers` and `rank` are where
    the controls stand first.
    """
    controls = {
        "layers": choice("layers compressed", deleted, layers),
        "rank": stops("TT-rank", sorted({key[1] for key in points}), rank),
    }

    def draw(layers: str, rank: int) -> tuple[Figure, str]:
        chosen, control = points[layers, rank], deleted[layers]
        beaten = [k for k, pair in enumerate(zip(chosen.errors, control.errors, strict=True)) if pair[0] > pair[1]]
        verdict = f"worse than none after layer {', '.join(map(str, beaten))}" if beaten else "nowhere worse than none"
        text = f"{layers} at rank {rank}: {chosen}<br>without these weights: {control}<br>{verdict}"
        return damage_figure(points, deleted, layers, rank), text

    return Explorer(controls, draw, hint=DAMAGE_HINT)


def damage_figure(
    points: Mapping[tuple[str, int], DamagePoint], deleted: Mapping[str, DamagePoint], layers: str, rank: int
) -> Figure:
    """What `damage` draws, for one choice."""
    curves = {f"{layers}, rank {rank}": points[layers, rank], f"{layers}, no weights": deleted[layers]}
    return plots.lines(
        {label: dict(enumerate(point.errors)) for label, point in curves.items()},
        "after layer (0: the embeddings)",
        "off by, 1 = the mean of all tokens",
        y_scale="linear",
    )


# ------------------------------------------------------------------------------- while it learns


@dataclass(frozen=True)
class StudentPoint:
    """A student at one moment: how far its hidden states are off, and its accuracy in percent.

    `errors` are relative: first after the embeddings, then after each layer. 1 is what one would have who answers the
    mean of all the teacher's tokens there.
    """

    errors: tuple[float, ...]
    accuracy: float

    def __str__(self) -> str:
        return f"off by {self.errors[-1]:.0%} after the last layer, {self.accuracy:.0f} % right"


@torch.no_grad()
def student_point(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]
) -> StudentPoint:
    """Where a student stands: both models run in eval mode on batches with an `attention_mask` and `labels`.

    Padding does not count. The student must have as many layers as the teacher, and the same width.
    """
    right, count, pairs = 0, 0, []
    with eval_mode(student, teacher):
        for batch in batches:
            real = batch["attention_mask"].bool()
            seen, goal = (model(**batch, output_hidden_states=True) for model in (student, teacher))
            right += int((seen.logits.argmax(-1) == batch["labels"]).sum())
            count += len(batch["labels"])
            states = (torch.stack(output.hidden_states)[:, real] for output in (seen, goal))  # (L + 1, tokens, hidden)
            pairs.append(tuple(states))
    states, goals = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
    off = (states - goals).square().sum((1, 2)) / (goals - goals.mean(1, keepdim=True)).square().sum((1, 2))
    return StudentPoint(tuple(off.sqrt().tolist()), 100 * right / count)


def distillation(runs: Mapping[str, Mapping[int, StudentPoint]], run: str, step: int) -> Explorer:
    """Choose a run and drag the step: how far each layer is off, then and at all other marks.

    `runs[name]` holds a point for each mark, a number of steps; the marks are the same for all runs and begin with 0.
    `run` and `step` are where the controls stand first.
    """
    controls = {
        "run": choice("run", runs, run),
        "step": stops("training step", sorted(runs[run]), step),
    }

    def draw(run: str, step: int) -> tuple[Figure, str]:
        text = f"{run}, step {step}: {runs[run][step]}"
        if step > 0:
            before = max(mark for mark in runs[run] if mark < step)
            old, new = (runs[run][mark].errors for mark in (before, step))
            worse = [place for place, was, now in zip(_places(new), old, new, strict=True) if now > was]
            text += f"<br>further off than at step {before}: {', '.join(worse) or 'nowhere'}"
        return distillation_figure(runs, run, step), text

    return Explorer(controls, draw, hint=RUN_HINT)


def distillation_figure(runs: Mapping[str, Mapping[int, StudentPoint]], run: str, step: int) -> Figure:
    """What `distillation` draws, for one choice: every layer at every mark of the run, the chosen one in a frame."""
    marks = sorted(runs[run])
    table = list(zip(*(runs[run][mark].errors for mark in marks), strict=True))  # a line for each layer
    rows = ("after", _places(table))
    return plots.heat_map(table, rows, ("step", marks), label="off by", darkest=1.2, framed=marks.index(step))


def _places(errors: Sequence) -> list[str]:
    """Where each of the errors was found."""
    return ["embeddings", *(f"layer {layer}" for layer in range(1, len(errors)))]
