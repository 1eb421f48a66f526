"""Distillation losses: each equals its definition in loops, and neither padding nor a repeated batch changes it."""

from functools import partial
from math import exp, log, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ttqlib as ttq
from tests.cases import random_tensor, refused

B, T, HEADS, HIDDEN, CLASSES = 3, 5, 2, 4, 3
LENGTHS = (5, 3, 1)
MASK = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]  # (B, T)


def hidden(seed: int) -> Tensor:
    return random_tensor((B, T, HIDDEN), seed)


def scores(seed: int) -> Tensor:
    return random_tensor((B, HEADS, T, T), seed)


def softmax(row: list[float]) -> list[float]:
    powers = [exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def kl(teacher: list[float], student: list[float]) -> float:
    return sum(p * log(p / q) for p, q in zip(softmax(teacher), softmax(student)))


def cosine(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y)) / sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def tokens():
    return [(b, t) for b in range(B) for t in range(LENGTHS[b])]


# ---------------------------------------------------------------------------------------------- equal to their loops


def test_hidden_states():
    student, teacher = hidden(0).tolist(), hidden(1).tolist()
    squares = mean((s - t) ** 2 for b, i in tokens() for s, t in zip(student[b][i], teacher[b][i]))
    angles = mean(1 - cosine(student[b][i], teacher[b][i]) for b, i in tokens())
    assert float(ttq.hidden_mse(hidden(0), hidden(1), MASK)) == pytest.approx(squares)
    assert float(ttq.hidden_cosine(hidden(0), hidden(1), MASK)) == pytest.approx(angles)


def test_attention():
    student, teacher = scores(0).tolist(), scores(1).tolist()
    rows = [
        kl(teacher[b][h][q][: LENGTHS[b]], student[b][h][q][: LENGTHS[b]]) for b, q in tokens() for h in range(HEADS)
    ]
    assert float(ttq.attention_kl(scores(0), scores(1), MASK)) == pytest.approx(mean(rows))
    maps = (scores(seed).masked_fill(~MASK[:, None, None], -torch.inf).softmax(-1) for seed in (0, 1))
    assert float(ttq.attention_kl(*(p.log() for p in maps), MASK)) == pytest.approx(mean(rows))


def test_attention_scores():
    student, teacher = scores(0).tolist(), scores(1).tolist()

    def row(b: int, h: int, q: int) -> float:
        return mean((student[b][h][q][k] - teacher[b][h][q][k]) ** 2 for k in range(LENGTHS[b]))

    expected = mean(row(b, h, q) for b, q in tokens() for h in range(HEADS))
    assert float(ttq.attention_mse(scores(0), scores(1), MASK)) == pytest.approx(expected)


@pytest.mark.parametrize("filling", [-torch.inf, torch.finfo(torch.float64).min])
def test_scores_of_keys_that_a_query_may_not_see_do_not_count(filling):
    future, everything = torch.ones(T, T, dtype=torch.bool).triu(1), torch.ones(B, T, dtype=torch.bool)
    student, teacher = (scores(seed).masked_fill(future, filling) for seed in (0, 1))
    rows = (scores(0) - scores(1)).square().masked_fill(future, 0).sum(-1) / torch.arange(1, T + 1)
    assert float(ttq.attention_mse(student, teacher, everything)) == pytest.approx(float(rows.mean()))
    assert float(ttq.attention_mse(student, scores(1), everything)) == pytest.approx(float(rows.mean()))


def test_adding_a_number_to_a_row_of_scores_shows_in_their_squares_alone():
    moved = scores(0) + 2
    assert float(ttq.attention_mse(moved, scores(0), MASK)) == pytest.approx(4)
    assert float(ttq.attention_kl(moved, scores(0), MASK)) == pytest.approx(0, abs=1e-12)


def test_torchs_own_reductions_are_wrong_by_tokens_and_heads():
    student, teacher, everything = scores(0), scores(1), torch.ones(B, T, dtype=torch.bool)
    ours = float(ttq.attention_kl(student, teacher, everything))
    inputs = student.log_softmax(-1), teacher.softmax(-1)
    assert float(F.kl_div(*inputs, reduction="none").mean()) == pytest.approx(ours / T)  # what its default does
    assert float(F.kl_div(*inputs, reduction="batchmean")) == pytest.approx(ours * HEADS * T)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_logits(temperature):
    student, teacher = (random_tensor((B, T, CLASSES), seed) for seed in (0, 1))
    cold = [(x / temperature).tolist() for x in (student, teacher)]
    whole = temperature**2 * mean(kl(cold[1][b][0], cold[0][b][0]) for b in range(B))
    each = temperature**2 * mean(kl(cold[1][b][t], cold[0][b][t]) for b, t in tokens())
    assert float(ttq.logits_kl(student[:, 0], teacher[:, 0], temperature=temperature)) == pytest.approx(whole)
    assert float(ttq.logits_kl(student, teacher, MASK, temperature=temperature)) == pytest.approx(each)


def bernoulli(teacher: float, student: float) -> float:
    """KL of one label that is on or off, from its two logits: a softmax over (logit, 0)."""
    return kl([teacher, 0], [student, 0])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_labels_that_are_on_or_off(temperature):
    student, teacher = (random_tensor((B, T, CLASSES), seed) for seed in (0, 1))
    cold = [(x / temperature).tolist() for x in (student, teacher)]
    each = {(b, t): mean(map(bernoulli, cold[1][b][t], cold[0][b][t])) for b, t in tokens()}
    whole = temperature**2 * mean(each[b, 0] for b in range(B))
    assert float(ttq.bernoulli_kl(student[:, 0], teacher[:, 0], temperature=temperature)) == pytest.approx(whole)
    found = float(ttq.bernoulli_kl(student, teacher, MASK, temperature=temperature))
    assert found == pytest.approx(temperature**2 * mean(each.values()))


def test_a_softmax_does_not_see_what_labels_do():
    """Both labels at 0.98, and both at 0.50: the same to a softmax, which only compares them."""
    teacher, student = torch.full((2, 2), 3.9), torch.zeros(2, 2)
    assert float(ttq.logits_kl(student, teacher)) == pytest.approx(0, abs=1e-6)
    assert float(ttq.bernoulli_kl(student, teacher)) > 0.5
    assert ttq.bernoulli_kl(torch.full((1, 1), -500.0), torch.full((1, 1), 500.0)) == 500  # and it stays finite


def test_outputs_that_are_numbers():
    student, teacher = (random_tensor((B, T, 2), seed) for seed in (0, 1))
    squares = {(b, t): mean((student[b, t] - teacher[b, t]).square().tolist()) for b, t in tokens()}
    found = float(ttq.logits_mse(student[:, 0], teacher[:, 0])), float(ttq.logits_mse(student, teacher, MASK))
    assert found == pytest.approx((mean(squares[b, 0] for b in range(B)), mean(squares.values())))


def test_logits_of_one_class_are_refused():
    with refused(ValueError, "2 classes", "(3, 1)"):
        ttq.logits_kl(torch.zeros(3, 1), torch.zeros(3, 1))


def test_relations():
    vectors = random_tensor((B, T, 6))
    relations, rows = ttq.relation_scores(vectors, heads=3), vectors.tolist()
    assert relations.shape == (B, 3, T, T)
    for b, h, q, k in [(0, 0, 0, 0), (1, 2, 3, 1), (2, 1, 0, 4)]:
        expected = sum(rows[b][q][i] * rows[b][k][i] for i in (2 * h, 2 * h + 1)) / sqrt(2)
        assert float(relations[b, h, q, k]) == pytest.approx(expected)
    with refused(ValueError, "heads", "6", "4"):
        ttq.relation_scores(vectors, heads=4)


def test_sentence_vectors():
    vectors = ttq.sentence_vectors(hidden(0), MASK)
    assert vectors.shape == (B, HIDDEN)
    expected = [[mean(hidden(0)[b, t, i].item() for t in range(LENGTHS[b])) for i in range(HIDDEN)] for b in range(B)]
    torch.testing.assert_close(vectors, torch.tensor(expected, dtype=torch.float64))


def test_info_nce():
    student, teacher = (random_tensor((B, HIDDEN), seed).tolist() for seed in (0, 1))
    found = [-log(softmax([cosine(student[i], other) / 0.1 for other in teacher])[i]) for i in range(B)]
    lost = ttq.info_nce(torch.tensor(student), torch.tensor(teacher), temperature=0.1)
    assert float(lost) == pytest.approx(mean(found))


# -------------------------------------------------------------------------------- padding and repetition


def of_sentences(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return ttq.info_nce(*(ttq.sentence_vectors(x, mask) for x in (student, teacher)))


def of_relations(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return ttq.attention_kl(*(ttq.relation_scores(x, 2) for x in (student, teacher)), mask)


def of_logits(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return ttq.logits_kl(student, teacher, mask, temperature=2.0)


def of_labels(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return ttq.bernoulli_kl(student, teacher, mask, temperature=2.0)


def no_mask(loss, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return loss(student, teacher, torch.ones_like(mask))


LOSSES = {
    "mse": (ttq.hidden_mse, hidden),
    "cosine": (ttq.hidden_cosine, hidden),
    "attention": (ttq.attention_kl, scores),
    "scores": (ttq.attention_mse, scores),
    "logits": (of_logits, hidden),
    "labels": (of_labels, hidden),
    "numbers": (ttq.logits_mse, hidden),
    "relations": (of_relations, hidden),
    "sentences": (of_sentences, hidden),
}


def widened(x: Tensor, filling: float) -> Tensor:
    """With two more tokens of padding, and with other values at all padding."""
    padded = F.pad(x, (0, 0, 0, 2)) if x.ndim == 3 else F.pad(x, (0, 2, 0, 2))
    real = F.pad(MASK, (0, 2))
    if x.ndim == 3:
        return padded.masked_fill(~real[..., None], filling)
    return padded.masked_fill(~(real[:, None, :, None] & real[:, None, None, :]), filling)


def sees_padding(loss, make) -> bool:
    before = loss(make(0), make(1), MASK)
    after = loss(widened(make(0), 3.0), widened(make(1), -7.0), F.pad(MASK, (0, 2)))
    return not torch.isclose(before, after, rtol=1e-12, atol=0)


def sees_repetition(loss, make) -> bool:
    once, twice = (loss(*(x.repeat(n, *[1] * (x.ndim - 1)) for x in (make(0), make(1), MASK))) for n in (1, 2))
    return not torch.isclose(once, twice, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(name):
    loss, make = LOSSES[name]
    assert not sees_padding(loss, make)
    assert sees_padding(partial(no_mask, loss), make)  # the control: without the mask it would


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "sentences"])
def test_a_repeated_batch_changes_nothing(name):
    loss, make = LOSSES[name]
    assert not sees_repetition(loss, make)
    assert sees_repetition(lambda *x: len(x[0]) * loss(*x), make)  # the control: a sum over sentences would


def test_a_repeated_batch_adds_log_2_to_info_nce_and_nothing_to_its_gradient():
    student, teacher = (random_tensor((B, HIDDEN), seed) for seed in (0, 1))
    student.requires_grad_()
    once, twice = (ttq.info_nce(student.repeat(n, 1), teacher.repeat(n, 1)) for n in (1, 2))
    assert float((twice - once).detach()) == pytest.approx(log(2))
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (once, twice)))


# ---------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_student_has_no_loss_and_others_do(name):
    loss, make = LOSSES[name]
    least = float(loss(make(0), make(0), MASK))
    assert float(loss(make(1), make(0), MASK)) > least + 0.01
    if name != "sentences":  # whose least value depends on how alike the sentences are
        assert least == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "sentences"])
def test_batches_of_one_add_up_to_the_whole(name):
    loss, make = LOSSES[name]
    real = MASK[:1].expand(B, T)  # equally many tokens each
    alone = [loss(make(0)[b : b + 1], make(1)[b : b + 1], real[:1]) for b in range(B)]
    torch.testing.assert_close(torch.stack(alone).mean(), loss(make(0), make(1), real))


def test_a_batch_of_one_has_no_negatives():
    assert float(ttq.info_nce(random_tensor((1, HIDDEN)), random_tensor((1, HIDDEN), 1))) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_and_computed_in_float32(name):
    loss, make = LOSSES[name]
    student = make(0).bfloat16()
    if make is scores:
        student[0, 0, 0, 1] = -torch.inf  # no attention at all, as where a map is exactly 0
    student.requires_grad_()
    teacher, mask = make(1).bfloat16(), MASK.clone()
    if make is scores:
        teacher[0, 0, 0, 1] = -torch.inf
    mask[2] = False  # a sentence of padding only
    value = loss(student, teacher, mask)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0
    where = student.grad if make is not scores else student.grad.transpose(1, 2)
    assert not where[~mask].any()  # and padding gets none


@pytest.mark.parametrize("name", ["mse", "cosine", "attention", "scores", "logits", "labels", "numbers"])
def test_different_shapes_are_refused(name):
    loss, make = LOSSES[name]
    with refused(ValueError, "same shape", str(tuple(make(0).shape))):
        loss(make(0), make(1)[..., :-1], MASK)
    with refused(ValueError, "mask must have one entry a token", "(3, 5)", "(2, 5)"):
        loss(make(0), make(1), MASK[:2])
