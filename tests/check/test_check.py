"""Checks behind exercises: right answers pass however they are written, wrong ones are caught and told why."""

from math import ceil, prod

import pytest
import torch

import ttqlib as ttq
from ttqlib.check import CheckFailed
from ttqlib.check.verdict import call


def forward(x, cores, order):
    state = x[:, None]  # (rows, bond, modes still to come)
    for core in cores[:order]:
        state = torch.einsum("brnm,rns->bsm", state.reshape(*state.shape[:2], core.shape[1], -1), core)
    for core in cores[order:]:
        state = torch.einsum("brm,rns->bsmn", state, core).flatten(2)
    return state[:, 0]


def dense_forward(x, cores, order):
    return x @ ttq.tt_to_tensor(cores).reshape(prod(core.shape[1] for core in cores[:order]), -1)


def scale(ranks, std):
    return (std**2 / prod(ranks)) ** (0.5 / (len(ranks) - 1))


def gradient_of(cores, gradient, k):
    cores = [core.clone().requires_grad_() for core in cores]
    return torch.autograd.grad((ttq.tt_to_tensor(cores) * gradient).sum(), cores[k])[0]


RIGHT = {"tt_forward": forward, "core_scale": scale, "core_gradient": gradient_of}

WRONG = {
    ("tt_forward", "builds the weight"): dense_forward,
    ("tt_forward", "no batch"): lambda x, cores, order: forward(x, cores, order)[0],
    ("tt_forward", "one core too many on the left"): lambda x, cores, order: forward(x, cores, order + 1),
    ("tt_forward", "transposed"): lambda x, cores, order: forward(x.flip(-1), cores, order),
    ("core_scale", "a square root forgotten"): lambda ranks, std: (std / prod(ranks)) ** (1 / (len(ranks) - 1)),
    ("core_scale", "ranks forgotten"): lambda ranks, std: std ** (1 / (len(ranks) - 1)),
    ("core_scale", "a rank counted as a core"): lambda ranks, std: scale([*ranks, 1], std),
    ("core_gradient", "the first core's"): lambda cores, gradient, k: gradient_of(cores, gradient, 0),
    ("core_gradient", "of the sum"): lambda cores, gradient, k: gradient_of(cores, torch.ones_like(gradient), k),
    ("core_gradient", "the core itself"): lambda cores, gradient, k: cores[k],
}


def affine(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return (((x / step).round() + zero_point).clamp(0, 2**bits - 1) - zero_point) * step


def gradient_of_step(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    return torch.where(u < low, low, torch.where(u > high, high, u.round() - u))


def searched_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    steps = x.abs().max() / high * torch.logspace(-2, 0, 200)
    return min(steps, key=lambda step: float(((x / step).clamp(low, high).round() * step - x).square().sum()))


def closest_ternary(w):
    candidates = [torch.zeros_like(w)]
    for threshold in w.abs():
        kept = w.abs() >= threshold
        candidates.append(w[kept].abs().mean() * w.sign() * kept)
    return min(candidates, key=lambda candidate: float((candidate - w).square().sum()))


RIGHT |= {"affine_quantize": affine, "step_gradient": gradient_of_step}
RIGHT |= {"best_step": searched_step, "best_ternary": closest_ternary}
WRONG |= {
    ("affine_quantize", "symmetric"): lambda x, bits: ttq.GroupRTN(bits, per="tensor").build(x)(x),
    ("affine_quantize", "range without 0"): lambda x, bits: (
        ((x - x.min()) / (x.max() - x.min()) * (2**bits - 1)).round() * (x.max() - x.min()) / (2**bits - 1) + x.min()
    ),
    ("affine_quantize", "one level too many"): lambda x, bits: affine(x, bits) * 2**bits / (2**bits - 1),
    ("affine_quantize", "codes"): lambda x, bits: affine(x, bits).round(),
    ("step_gradient", "true derivative"): lambda x, step, bits: (
        (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()
    ),
    ("step_gradient", "clipping forgotten"): lambda x, step, bits: (x / step).round() - x / step,
    ("step_gradient", "sign"): lambda x, step, bits: -gradient_of_step(x, step, bits),
    ("step_gradient", "summed"): lambda x, step, bits: gradient_of_step(x, step, bits).sum(),
    ("best_step", "max-abs"): lambda x, bits: x.abs().max() / (2 ** (bits - 1) - 1),
    ("best_step", "three sigma"): lambda x, bits: 3 * x.std() / 2 ** (bits - 1),
    ("best_step", "grid in absolute units"): lambda x, bits: searched_step(x / x.std(), bits),
    ("best_step", "negative"): lambda x, bits: -searched_step(x, bits),
    ("best_step", "no number"): lambda x, bits: x,
    ("best_step", "infinite"): lambda x, bits: float("inf"),
    ("best_ternary", "the rule of thumb"): lambda w: ttq.Ternary().build(w)(w),
    ("best_ternary", "binary"): lambda w: ttq.Binary().build(w)(w),
    ("best_ternary", "NaN on zeros"): lambda w: closest_ternary(w) / (w.abs().sum() > 0),
    ("best_ternary", "not rounded"): lambda w: w,
    ("best_ternary", "a scalar"): lambda w: w.abs().mean(),
    ("best_ternary", "signs lost"): lambda w: closest_ternary(w).abs(),
}


def largest_rank(inputs, outputs):
    return ceil(inputs * outputs / (inputs + outputs)) - 1


def compute_bound_rows(inputs, outputs, balance):
    def intensity(rows):
        return 2 * rows * inputs * outputs / (4 * (rows * (inputs + outputs) + inputs * outputs))

    return next((rows for rows in range(1, 2000) if intensity(rows) >= balance), None)


def ride_along(u, v, bias):
    first_bias = torch.cat([torch.zeros_like(v[:, 0]), torch.ones_like(bias[:1])])
    return torch.cat([u.T, 0 * u.T[:1]]), first_bias, torch.cat([v, bias[None]]).T.contiguous()


RIGHT |= {"largest_rank": largest_rank, "compute_bound_rows": compute_bound_rows, "ride_along": ride_along}
WRONG |= {
    ("largest_rank", "as many is not fewer"): lambda n, m: n * m // (n + m),
    ("largest_rank", "half of the inputs"): lambda n, m: n // 2,
    ("largest_rank", "not whole"): lambda n, m: n * m / (n + m),
    ("compute_bound_rows", "rounded down"): lambda n, m, c: (compute_bound_rows(n, m, c) or 1) - 1,
    ("compute_bound_rows", "never None"): lambda n, m, c: compute_bound_rows(n, m, c) or 0,
    ("compute_bound_rows", "only weights move"): lambda n, m, c: ceil(2 * c),
    ("compute_bound_rows", "bytes are numbers"): lambda n, m, c: compute_bound_rows(n, m, c / 4),
    ("ride_along", "no constant"): lambda u, v, b: (
        ride_along(u, v, b)[0],
        0 * v[:, 0].sum() + torch.zeros(len(v) + 1, dtype=u.dtype),
        ride_along(u, v, b)[2],
    ),
    ("ride_along", "not transposed"): lambda u, v, b: (
        tuple(part.T for part in ride_along(u, v, b)[:1]) + ride_along(u, v, b)[1:]
    ),
    ("ride_along", "no bias"): lambda u, v, b: ride_along(u, v, torch.zeros_like(b)),
    ("ride_along", "two tensors"): lambda u, v, b: ride_along(u, v, b)[::2],
}


def kl_rows(student, teacher):
    return torch.where(teacher > 0, teacher * (teacher / student).log(), 0).sum(-1)


def attention_loss(student, teacher, mask):
    return kl_rows(student, teacher).mean(1)[mask].mean()


def even_map(layers, teacher_layers):
    return {layer: (2 * layer * teacher_layers + layers) // (2 * layers) for layer in range(layers + 1)}


RIGHT |= {"attention_loss": attention_loss, "even_map": even_map}
WRONG |= {
    ("attention_loss", "not a number"): lambda s, t, mask: (t * (t / s).log()).sum(-1).mean(1)[mask].mean(),
    ("attention_loss", "padded queries"): lambda s, t, mask: kl_rows(s, t).mean(),
    ("attention_loss", "sum of the heads"): lambda s, t, mask: kl_rows(s, t).sum(1)[mask].mean(),
    ("attention_loss", "also over keys"): lambda s, t, mask: attention_loss(s, t, mask) / s.shape[-1],
    ("attention_loss", "over sentences"): lambda s, t, mask: (kl_rows(s, t).mean(1) * mask).sum() / len(s),
    ("attention_loss", "the other way"): lambda s, t, mask: attention_loss(t, s, mask),
    ("even_map", "the first layers"): lambda layers, height: {k: k for k in range(layers + 1)},
    ("even_map", "off by one"): lambda layers, height: {k: max(0, m - 1) for k, m in even_map(layers, height).items()},
    ("even_map", "no embeddings"): lambda layers, height: {k: m for k, m in even_map(layers, height).items() if k},
    ("even_map", "embeddings to a layer"): lambda layers, height: even_map(layers, height) | {0: 1},
    ("even_map", "rounded down"): lambda layers, height: {k: k * height // layers for k in range(layers + 1)},
    ("even_map", "fractions"): lambda layers, height: {k: k * height / layers for k in range(layers + 1)},
    ("even_map", "a list"): lambda layers, height: list(even_map(layers, height).values()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes_twice(name, capsys):
    for _ in range(2):
        getattr(ttq.check, name)(RIGHT[name])
    assert capsys.readouterr().out == f"{RIGHT[name].__name__}: correct\n" * 2


@pytest.mark.parametrize("name, mistake", WRONG, ids=lambda part: part)
def test_a_wrong_answer_is_caught(name, mistake):
    with pytest.raises(CheckFailed) as caught:
        getattr(ttq.check, name)(WRONG[name, mistake])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RIGHT)
def test_an_unwritten_exercise_says_so(name):
    def exercise(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(CheckFailed, match=r"^exercise: not written yet$"):
        getattr(ttq.check, name)(exercise)


@pytest.mark.parametrize("name", RIGHT)
def test_returning_nothing_is_told_not_crashed_on(name):
    with pytest.raises(CheckFailed):
        getattr(ttq.check, name)(lambda *_: None)


def test_an_exception_of_the_readers_is_told_in_one_line():
    def exercise(cores, index):
        raise KeyError("two\nlines")

    with pytest.raises(CheckFailed, match=r"^exercise: raised KeyError: [^\n]*$") as caught:
        ttq.check.tt_entry(exercise)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def grow(value):
    value.update(more=1) if isinstance(value, dict) else value.reverse()


@pytest.mark.parametrize("given", [[1, 2], [[0], [1, 2]], {"mean": 1.0}, [(3, 1), (1, 2)]], ids=str)
def test_what_an_answer_was_given_has_to_stay_as_it_was(given):
    assert call(str, given) == str(given)
    with pytest.raises(CheckFailed, match="what it was given must stay as it was"):
        call(grow, given)


def test_memory_that_is_not_there_is_told_in_plain_words():
    for ask in (lambda: torch.empty(2**60), lambda: bytearray(2**60)):
        with pytest.raises(CheckFailed, match="asked for more memory than there is"):
            call(ask)


def test_a_failed_check_renders_as_one_plain_line():
    assert CheckFailed("f: no")._render_traceback_() == ["CheckFailed: f: no"]
