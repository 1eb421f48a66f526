"""What assignment 4 asks of a stage of training: complete observations, a teacher that learns nothing, Adam's steps."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...training.observation import observe, recorded_attention
from ..verdict import close, fail
from .asking import call_without
from .tiny import batch_of, same_numbers, tiny_bert


def check_stage(function: Callable, draw: torch.Generator, steps: int, rate: float) -> None:
    teacher, student = tiny_bert(draw, 3, dropout=0.3).train(), tiny_bert(draw, 2)
    batches = [batch_of(draw) for _ in range(steps)]
    before, twin = copy.deepcopy(teacher), copy.deepcopy(student)
    expected = _reference_stage(twin, before, batches, rate)
    where = f"for {steps} batches and a rate of {rate:g}"

    def loss(seen, goal) -> Tensor:
        _check_observations(function, seen, goal)
        return _plain_loss(seen, goal)

    got = call_without(function, student, teacher, batches, loss, rate, without=["DistillTrainer"])
    if not isinstance(got, list | tuple) or not all(type(value) is float for value in got) or len(got) != steps:
        fail(function, f"{where} expected a list of {steps} floats, got {_described(got)}")
    if not same_numbers(teacher, before) or any(p.grad is not None for p in teacher.parameters()):
        fail(function, f"{where} the teacher must learn nothing: neither its weights nor their gradients may change")
    close(function, got, torch.tensor(expected), f"{where} the losses:")
    for (name, one), other in zip(student.named_parameters(), twin.parameters(), strict=True):
        close(function, one.detach(), other.detach(), f"{where} the losses are right, but {name} afterwards:")


def _described(value) -> str:
    return (
        f"{len(value)} of type {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else repr(value)
    )


def _check_observations(function: Callable, seen, goal) -> None:
    """What a loss is given: the student's observation with gradients, then the teacher's without, both complete."""
    if len(seen.hidden_states) != 3 or len(goal.hidden_states) != 4:
        fail(function, "the loss is to be called with the student's observation first and then the teacher's")
    if not seen.attentions or not goal.attentions:
        fail(function, "the observations hold no attention: observe inside ttq.recorded_attention(student, teacher)")
    if goal.hidden_states[-1].requires_grad:
        fail(function, "the teacher was observed with gradients: it learns nothing, and they cost time and memory")


def _plain_loss(seen, goal) -> Tensor:
    """Of the last layer's states and of attention, so that either observation is needed in full."""
    states = (seen.hidden_states[-1] - goal.hidden_states[-1])[seen.mask]
    scores = (seen.attentions[0].scores() - goal.attentions[1].scores())[
        seen.mask[:, None, :, None].expand(-1, 2, -1, 6)
    ]
    return states.square().mean() + scores.tanh().square().mean()


def _reference_stage(student: nn.Module, teacher: nn.Module, batches: Sequence[dict], rate: float) -> list[float]:
    teacher.eval()
    optimizer, losses = torch.optim.Adam(student.train().parameters(), lr=rate), []
    with recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = observe(teacher, batch)
            loss = _plain_loss(observe(student, batch), goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses
