"""Assignment 4, a student of fewer layers: which layers belong together, what is copied, what is matched, one stage.

A check whose name ends in `_by_hand` has one case that fits on paper; the others draw theirs from a seed.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from ..verdict import CheckFailed, call, close, exercise, fail
from .asking import ask_twice, call_without
from .own_work import without_library
from .pairs import check_distilled, closeness
from .pairs import flights_pair as flights_pair  # notebooks find it here
from .seeds import generator
from .stages import check_stage
from .tiny import mask_of, same_numbers, tiny_bert

REDUCTION = ("reduce_layers", "layer_map")
LOSSES = ("hidden_mse", "hidden_cosine", "attention_kl", "logits_kl", "DistillTrainer")
DOUBLE = {"dtype": torch.float64}


@exercise
def layer_map(function: Callable, seed: int = 0) -> None:
    """`function(places, height)` must say which of the teacher's hidden states belongs to each of the student's.

    `places` are those of the layers that were copied, in the teacher's list of `height` layers, from 0.
    """
    draw = generator(seed, "layer map")
    for height in (1, 4, 12, *torch.randint(3, 30, (3,), generator=draw).tolist()):
        _check_map(function, _places(draw, height), height)
    last = int(torch.randint(4, 9, (), generator=draw))
    _must_refuse(function, [last - 1, last - 2], last, "layers must keep their order")
    _must_refuse(function, [1, 1, 2], last, "no layer can be copied twice")
    _must_refuse(function, [0, last], last, f"the last of {last} layers stands at place {last - 1}")
    _must_refuse(function, [-1, 0], last, "places are counted from 0")
    _must_refuse(function, [], last, "a student needs a layer")


@exercise
def layer_map_by_hand(function: Callable) -> None:
    """The second and the fourth of four layers were copied: the embeddings, and what comes out of these two."""
    _check_map(function, [1, 3], 4)


@exercise
def shorter(function: Callable, seed: int = 0) -> None:
    """`function(teacher, places)` must return a student that has copies of these layers and of all that is no layer."""
    draw = generator(seed, "shorter")
    for height in (3, 5):
        teacher = tiny_bert(draw, height).double()
        _check_student(function, teacher, _places(draw, height))


@exercise
def shorter_by_hand(function: Callable) -> None:
    """Three layers, of which the first and the last are copied."""
    _check_student(function, tiny_bert(generator(0, "by hand"), 3), [0, 2])


@exercise
def hidden_loss(function: Callable, seed: int = 0) -> None:
    """`function(student, teacher, mask, layers)` must return the sum of MSE and 1 − cosine over the layers of a map.

    `student` and `teacher` are tuples of hidden states (B, T, hidden), embeddings first; the mask, (B, T), is that of
    a tokenizer, 1 at real tokens. Each part is a mean over real tokens.
    """
    draw = generator(seed, "hidden loss")
    for lengths, layers in _sentences(draw):
        mask = mask_of(lengths)
        depth, height = len(layers), max(layers.values()) + 2
        states = [torch.randn(height, *mask.shape, 6, generator=draw, **DOUBLE) * 2 for _ in range(2)]
        student, teacher = tuple(states[0][:depth]), tuple(states[1])
        _check_loss(function, student, teacher, mask, layers, _hidden_parts)


@exercise
def hidden_loss_by_hand(function: Callable) -> None:
    """One sentence of two tokens, padded to three, and two columns: the numbers of chapter 8, for a map of two."""
    theirs, ours = torch.tensor([[[3.0, 4], [0, 2], [9, 9]]]), torch.tensor([[[4.0, 3], [0, 1], [5, 0]]])
    expected, mask = torch.tensor(0.75 + 0.02), torch.tensor([[1, 1, 0]])
    got = ask_twice(function, (ours, ours), (ours, theirs * 7, theirs), mask, {0: 0, 1: 2}, without=LOSSES)
    close(function, got, expected, "for one layer that is matched to itself, and one 0.75 and 0.02 off,")


@exercise
def attention_loss(function: Callable, seed: int = 0) -> None:
    """`function(student, teacher, mask, layers)` must return the sum of KL(teacher ‖ student) over the layers of a map.

    `student` and `teacher` are tuples of scores before the softmax, (B, heads, T, T), one for each layer. Each part is
    a mean over real (query, head) rows; keys that are padding get no attention.
    """
    draw = generator(seed, "attention loss")
    for lengths, layers in _sentences(draw):
        mask = mask_of(lengths)
        depth, height, longest = len(layers) - 1, max(layers.values()) + 1, mask.shape[1]
        scores = [torch.randn(height, len(mask), 3, longest, longest, generator=draw, **DOUBLE) for _ in range(2)]
        student, teacher = tuple(scores[0][:depth]), tuple(scores[1])
        _check_loss(function, student, teacher, mask, layers, _attention_parts)


@exercise
def attention_loss_by_hand(function: Callable) -> None:
    """One head, two queries, the numbers of chapter 8: half of ½ ln 4/3. The second layer belongs to the first."""
    p, q = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]]), torch.tensor([[[[0.25, 0.75], [0.25, 0.75]]]])
    expected = torch.tensor(4 / 3).log() / 4
    got = ask_twice(
        function, (q.log(),), (p.flip(-1).log(), p.log()), torch.ones(1, 2).long(), {0: 0, 1: 2}, without=LOSSES
    )
    close(function, got, expected, "for ½ ½ against ¼ ¾ in one row of two")


@exercise
def stage(function: Callable, seed: int = 0) -> None:
    """`function(student, teacher, batches, loss, rate)` must take a step of Adam on each batch; it returns the losses.

    `loss(seen, goal)` is given two observations. They must be complete, and the teacher's without dropout and without
    gradients. Losses are numbers, each from before its step.
    """
    draw = generator(seed, "stage")
    for steps, rate in ((1, 1e-2), (4, 3e-3)):
        check_stage(function, draw, steps, rate)


@exercise
def stage_by_hand(function: Callable) -> None:
    """Two steps: the losses that come back, and a student that has moved."""
    check_stage(function, generator(0, "by hand"), 2, 1e-2)


@exercise
def distilled(function: Callable, seed: int = 0) -> None:
    """`function(teacher, batches)` must return a trained student of two layers of the teacher of `flights_pair`."""
    check_distilled(function, seed)


def distance(student: nn.Module) -> tuple[float, float]:
    """How far a student of the pair is off after its last layer, and on how many percent of intents it agrees.

    On 240 sentences that no student is trained on. 1 is what one would be off who answers the mean of all tokens.
    """
    return closeness(student)


# ------------------------------------------------------------------------------------------------- layers and maps


def _check_map(function: Callable, places: list[int], height: int) -> None:
    got = ask_twice(function, places, height, without=REDUCTION)
    expected = {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
    if not isinstance(got, dict) or got != expected or not all(type(n) is int for pair in got.items() for n in pair):
        fail(function, f"for places {places} of {height} layers expected {expected}, got {got!r}")


def _must_refuse(function: Callable, places: list[int], height: int, why: str) -> None:
    try:
        with without_library(*REDUCTION):
            got = function(list(places), height)
    except ValueError:
        return
    except CheckFailed as refused:
        fail(function, str(refused))
    except NotImplementedError:
        fail(function, "not written yet")
    except Exception as error:
        fail(function, f"for places {places} of {height} layers expected a ValueError, got {type(error).__name__}")
    fail(function, f"for places {places} of {height} layers expected a ValueError, for {why}; got {got!r}")


def _places(draw: torch.Generator, height: int) -> list[int]:
    """Two thirds of the places of a list of this height, or all of one."""
    return torch.randperm(height, generator=draw)[: max(1, 2 * height // 3)].sort().values.tolist()


def _check_student(function: Callable, teacher: BertForSequenceClassification, places: list[int]) -> None:
    before, height = copy.deepcopy(teacher), teacher.config.num_hidden_layers
    where = f"for places {places} of {height} layers"
    student = call_without(function, teacher, list(places), without=REDUCTION)
    if type(student) is not type(teacher):
        fail(function, f"{where} expected a {type(teacher).__name__}, got {type(student).__name__}")
    layers = student.bert.encoder.layer
    if not isinstance(layers, nn.ModuleList) or len(layers) != len(places):
        count = len(layers) if isinstance(layers, Sequence | nn.ModuleList) else "no"
        fail(function, f"{where} expected an nn.ModuleList of {len(places)} layers, got {count}")
    intact = len(teacher.bert.encoder.layer) == height and teacher.config.num_hidden_layers == height
    if not intact or not same_numbers(teacher, before):
        fail(function, f"{where} the teacher must stay as it was: cut a copy")
    if student.config.num_hidden_layers != len(places):
        fail(function, f"{where} student.config still says {student.config.num_hidden_layers} layers: it is saved")
    if {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}:
        fail(function, f"{where} student and teacher share parameters: training one would change the other")
    expected = _copied(before, places)
    for name, tensor in student.state_dict().items():
        if tensor.dtype != expected[name].dtype or not torch.equal(tensor, expected[name]):
            fail(function, f"{where} {name} is not what the teacher has in its place")


def _copied(teacher: nn.Module, places: Sequence[int]) -> dict[str, Tensor]:
    """What a student's state must hold, by name."""
    state, prefix = teacher.state_dict(), "bert.encoder.layer."
    found = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    for layer, place in enumerate(places):
        own = f"{prefix}{place}."
        found |= {
            f"{prefix}{layer}.{name.removeprefix(own)}": tensor
            for name, tensor in state.items()
            if name.startswith(own)
        }
    return found


# --------------------------------------------------------------------------------------------------------- losses


def _sentences(draw: torch.Generator) -> list[tuple[list[int], dict[int, int]]]:
    """Lengths of the sentences of a batch, and a map of layers; one batch without padding and one of one sentence."""
    drawn = torch.randint(1, 7, (3,), generator=draw).tolist()
    return [([4, 4], {0: 0, 1: 1, 2: 3}), ([*drawn, 7], {0: 0, 1: 2}), ([3], {0: 0, 1: 1, 2: 2, 3: 4})]


def _check_loss(function: Callable, student: tuple, teacher: tuple, mask: Tensor, layers: dict, parts: Callable):
    where = f"for sentences of {', '.join(map(str, mask.sum(1).tolist()))} tokens and the map {layers}"
    ours = tuple(tensor.clone().requires_grad_() for tensor in student)
    expected = parts(ours, teacher, mask, layers)
    got = ask_twice(function, student, teacher, mask, layers, without=LOSSES)
    close(function, got, expected.detach(), where)
    wanted = torch.autograd.grad(expected, ours, allow_unused=True)
    theirs = tuple(tensor.clone().requires_grad_() for tensor in student)
    loss = call(function, theirs, teacher, mask, layers)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        fail(function, f"{where} the loss has no gradient: no student can be trained with it")
    found = torch.autograd.grad(loss, theirs, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        if (one is None) != (other is None) or (one is not None and not torch.allclose(one, other, atol=1e-7)):
            fail(function, f"{where} the gradient is wrong, or not a number, where the loss itself is right")
    longer = [tuple(_with_rubbish(tensor) for tensor in side) for side in (student, teacher)]
    got = ask_twice(function, *longer, nn.functional.pad(mask, (0, 2)), layers, without=LOSSES)
    close(function, got, expected.detach(), f"{where}, with two more tokens of padding that hold 1000s,")


def _with_rubbish(tensor: Tensor) -> Tensor:
    """Two more tokens: behind (B, T, hidden), or as queries and keys of (B, heads, T, T)."""
    places = (0, 0, 0, 2) if tensor.ndim == 3 else (0, 2, 0, 2)
    return nn.functional.pad(tensor, places, value=1000.0)


def _hidden_parts(student: tuple, teacher: tuple, mask: Tensor, layers: dict) -> Tensor:
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]  # (real tokens, hidden)
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total


def _attention_parts(student: tuple, teacher: tuple, mask: Tensor, layers: dict) -> Tensor:
    """Sentence by sentence, cut to its real tokens, so that there is nothing to mask."""
    total, lengths = 0.0, mask.sum(1).tolist()
    for layer, goal in layers.items():
        if layer == 0:
            continue
        rows = []
        for sentence, length in enumerate(lengths):
            q, p = (
                side[sentence, :, :length, :length].log_softmax(-1) for side in (student[layer - 1], teacher[goal - 1])
            )
            rows.append((p.exp() * (p - q)).sum(-1).flatten())
        total = total + torch.cat(rows).mean()
    return total
