"""Distillation losses on plain tensors: how far what a student computes lies from what its teacher computes.

Every loss takes (student, teacher, mask), all else by keyword. Shapes: B sentences of T tokens, padding included.
`mask`, (B, T), is true at real tokens. What stands at padding changes no loss, nor does more padding; and each loss is
a mean, so a batch that is repeated does not change it either (`info_nce` says where it differs). Everything is computed
in float32 at least.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quantizers.fake_quantization import widen


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The mean squared difference of two layers' hidden states, (B, T, hidden), over real tokens and features.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    return _mean((widen(student) - widen(teacher)).square().mean(-1), mask)


def hidden_relative(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """‖student − teacher‖² / ‖teacher‖² of each token's hidden state, (B, T, hidden): the mean over real tokens.

    The first token of a decoder has states a hundred times as large as the others', whatever it is (M. Sun et al.,
    "Massive Activations in Large Language Models", 2024). `hidden_mse` is ruled by it; here every token counts alike.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    error, size = (x.square().sum(-1) for x in (widen(student) - widen(teacher), widen(teacher)))
    return _mean(error / size.clamp_min(torch.finfo(size.dtype).tiny), mask)


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """1 − cos(student, teacher) of two layers' hidden states, (B, T, hidden): the mean over real tokens.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    return _mean(1 - F.cosine_similarity(widen(student), widen(teacher), dim=-1), mask)


def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher ‖ student) of attention distributions: the mean over real (query, head) rows.

    Both are scores before the softmax, (B, heads, T, T): row (b, h, q) says how much query q attends to every key.
    Keys that are padding get no attention. The logarithm of a softmax is a score too: `attention_kl(p.log(), …)`.
    Where the teacher attends and the student's scores are the lowest there are, as outside of a window, the loss is
    as good as infinite: above 1e30.

    `torch.nn.functional.kl_div` has no such mean: its default also divides by the T keys of a row, and "batchmean"
    divides by B alone, so that it grows with heads and tokens.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    _check_mask(mask, student[:, 0, :, 0].shape)
    student, teacher = (_masked(scores, mask[:, None, None, :]) for scores in (student, teacher))
    goal = teacher.softmax(-1)  # not the exponential of the logarithm, which is slow where it comes to 0
    rows = (goal * (_log_softmax(teacher) - _log_softmax(student))).sum(-1)  # (B, heads, T)
    return _mean(rows.mean(1), mask)


def logits_kl(student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) at temperature T: the mean over sentences or tokens.

    Logits are (B, classes) for whole sentences, without a mask, or (B, T, classes) for tokens, with one. The factor
    T² keeps the size of the gradients about the same at any temperature (Hinton et al., "Distilling the Knowledge in
    a Neural Network", 2015, §2).

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens, or there is one class only, of which a
            softmax knows nothing.
    """
    _same_shape(student, teacher)
    if student.shape[-1] < 2:
        raise ValueError(f"logits must have at least 2 classes, got shape {tuple(student.shape)}")
    student, teacher = ((widen(logits) / temperature).log_softmax(-1) for logits in (student, teacher))
    rows = (teacher.exp() * (teacher - student)).sum(-1)
    return temperature**2 * (rows.mean() if mask is None else _mean(rows, mask))


def bernoulli_kl(student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """T² · KL(teacher ‖ student) of labels that are on or off, each by itself: the mean over labels and sentences.

    For multi-label classification, where a label's probability is the sigmoid of its logit / T. A softmax would
    compare labels with each other, and not see what adds the same to all logits. Shapes as in `logits_kl`; one label
    is enough. The mean over labels is that of transformers' own loss on them, `torch.nn.BCEWithLogitsLoss`.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    student, teacher = (widen(logits) / temperature for logits in (student, teacher))
    on, off = (F.logsigmoid(sign * teacher) - F.logsigmoid(sign * student) for sign in (1, -1))
    rows = (teacher.sigmoid() * on + (-teacher).sigmoid() * off).mean(-1)
    return temperature**2 * (rows.mean() if mask is None else _mean(rows, mask))


def logits_mse(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean squared difference of outputs that are numbers, as in regression. Shapes as in `logits_kl`.

    Raises:
        ValueError: the shapes differ, or those of the mask and the tokens.
    """
    _same_shape(student, teacher)
    rows = (widen(student) - widen(teacher)).square().mean(-1)
    return rows.mean() if mask is None else _mean(rows, mask)


def relation_scores(vectors: Tensor, heads: int) -> Tensor:
    """Scores of a self-attention relation, for `attention_kl`: (B, T, size) → (B, heads, T, T).

    `vectors` are the queries, keys or values of all of a layer's attention heads side by side. They are cut into
    `heads` pieces x of length size / heads; the scores are x xᵀ/√length. Their shape does not depend on the size, so
    that models of different widths can be compared (W. Wang et al., "MiniLMv2", 2021, eq. 4–6).

    Raises:
        ValueError: `heads` does not divide the size.
    """
    if vectors.shape[-1] % heads:
        raise ValueError(f"heads must divide the size of the vectors, {vectors.shape[-1]}, got {heads!r}")
    x = widen(vectors).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, T, size / heads)
    return x @ x.mT * x.shape[-1] ** -0.5


def sentence_vectors(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of a sentence's hidden states over its real tokens: (B, T, hidden) → (B, hidden).

    Raises:
        ValueError: the mask is not (B, T).
    """
    _check_mask(mask, hidden.shape[:-1])
    real = mask[..., None]
    return widen(hidden).masked_fill(~real, 0).sum(1) / real.sum(1).clamp_min(1)


def info_nce(student: Tensor, teacher: Tensor, *, temperature: float = 0.05) -> Tensor:
    """InfoNCE: find a sentence's teacher vector among those of the whole batch. Vectors are (B, hidden).

    −log softmax_j(cos(student_i, teacher_j) / temperature) at j = i, the mean over i: the other sentences are the
    negatives, so a batch of one teaches nothing. A batch repeated twice adds log 2, whatever the vectors; the
    gradient stays the same. Source: A. van den Oord et al., "Representation Learning with Contrastive Predictive
    Coding", 2018, eq. 4.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(student, teacher)
    student, teacher = (F.normalize(widen(vectors), dim=-1) for vectors in (student, teacher))
    return F.cross_entropy(student @ teacher.T / temperature, torch.arange(len(student), device=student.device))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values`, (B, T), over real tokens."""
    _check_mask(mask, values.shape)
    return values[mask].sum() / mask.sum().clamp_min(1)


def _masked(scores: Tensor, real: Tensor) -> Tensor:
    scores = widen(scores)
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min)


def _log_softmax(scores: Tensor) -> Tensor:
    """Finite even where a probability is 0: −∞ − −∞ would be NaN, and 0 · NaN is NaN."""
    return scores.log_softmax(-1).clamp_min(torch.finfo(scores.dtype).min)


def _check_mask(mask: Tensor, shape: torch.Size) -> None:
    if mask.shape != shape:
        raise ValueError(f"mask must have one entry a token, shape {tuple(shape)}, got {tuple(mask.shape)}")


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have the same shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
