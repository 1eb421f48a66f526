"""How far a student's hidden states lie from its teacher's while it learns: layer by layer, step by step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from .. import plots
from .explorer import Explorer


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
    training = student.training
    right, count, pairs = 0, 0, []
    for batch in batches:
        real = batch["attention_mask"].bool()
        seen, goal = (model.eval()(**batch, output_hidden_states=True) for model in (student, teacher))
        right += int((seen.logits.argmax(-1) == batch["labels"]).sum())
        count += len(batch["labels"])
        states = (torch.stack(output.hidden_states)[:, real] for output in (seen, goal))  # (L + 1, tokens, hidden)
        pairs.append(tuple(states))
    student.train(training)
    states, goals = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
    off = (states - goals).square().sum((1, 2)) / (goals - goals.mean(1, keepdim=True)).square().sum((1, 2))
    return StudentPoint(tuple(off.sqrt().tolist()), 100 * right / count)


def distillation(runs: Mapping[str, Mapping[int, StudentPoint]], run: str, step: int) -> Explorer:
    """Choose a run and drag the step: how far each layer is off, then and at all other marks.

    `runs[name]` holds a point for each mark, a number of steps; the marks are the same for all runs and begin with 0.
    `run` and `step` are where the controls stand first.
    """
    controls = {
        "run": widgets.Dropdown(options=list(runs), value=run, description="run"),
        "step": widgets.SelectionSlider(
            options=sorted(runs[run]), value=step, description="step", continuous_update=False
        ),
    }

    def draw(run: str, step: int) -> tuple[Figure, str]:
        text = f"{run}, step {step}: {runs[run][step]}"
        if step > 0:
            before = max(mark for mark in runs[run] if mark < step)
            old, new = (runs[run][mark].errors for mark in (before, step))
            worse = [place for place, was, now in zip(_places(new), old, new, strict=True) if now > was]
            text += f"<br>further off than at step {before}: {', '.join(worse) or 'nowhere'}"
        return distillation_figure(runs, run, step), text

    return Explorer(controls, draw)


def distillation_figure(runs: Mapping[str, Mapping[int, StudentPoint]], run: str, step: int) -> Figure:
    """What `distillation` draws, for one choice: every layer at every mark of the run, the chosen one in a frame."""
    marks = sorted(runs[run])
    table = list(zip(*(runs[run][mark].errors for mark in marks), strict=True))  # a line for each layer
    rows = ("after", _places(table))
    return plots.heat_map(table, rows, ("step", marks), label="off by", darkest=1.2, framed=marks.index(step))


def _places(errors: Sequence) -> list[str]:
    """Where each of the errors was found."""
    return ["embeddings", *(f"layer {layer}" for layer in range(1, len(errors)))]
