"""Whole models: what is computed from their weights, inputs and outputs, and their plans."""

import copy
from collections.abc import Callable
from itertools import count

import torch
from torch import nn
from transformers import BertConfig, BertModel

from ..measures.report import report
from ..plans.configs import TTQConfig
from ..plans.planning import plan
from ..surgery.compress import compress_
from .verdict import answers, call, counts, exercise, fail, listed


@exercise
def mean_pool(function: Callable) -> None:
    """`function(states, mask)` must return the mean over the tokens whose mask is 1, for each sentence."""
    generator = torch.Generator().manual_seed(0)
    for lengths, padded, side in [((4, 4), 4, "right"), ((3, 1, 5), 7, "right"), ((2, 6), 9, "left")]:
        states = torch.randn(len(lengths), padded, 8, generator=generator, dtype=torch.float64)
        mask = (torch.arange(padded) < torch.tensor(lengths)[:, None]).long()
        mask = mask.flip(1) if side == "left" else mask  # as many language models pad
        expected = torch.stack([row[real.bool()].mean(0) for row, real in zip(states, mask, strict=True)])
        where = f"for sentences of {listed(lengths)} tokens, padded {'in front ' if side == 'left' else ''}to {padded},"
        answers(function, (states, mask), expected, where)


@exercise
def rank_for(function: Callable) -> None:
    """`function(values, error)` must return how many of the falling singular values `values` have to be kept."""
    cases = {(8.0, 4.0, 2.0, 1.0): (0.9, 0.5, 0.25, 0.2, 0.05), (3.0, 3.0, 3.0, 3.0): (0.8, 0.5, 0.4), (5.0,): (0.3,)}
    cases |= {tuple(torch.logspace(1, -4, 60, dtype=torch.float64).tolist()): (0.5, 0.01, 1e-4)}
    for values, errors in cases.items():
        values = torch.tensor(values, dtype=torch.float64)
        for error in errors:
            lost = [(values[rank:].norm() / values.norm()).item() for rank in range(len(values) + 1)]
            expected = next(rank for rank, loss in enumerate(lost) if loss <= error)
            shown = f"for {len(values)} values from {values[0]:g} to {values[-1]:g} and an error of at most {error:g}"
            counts(function, (values.clone(), error), expected, shown, whole=True)


@exercise
def corrected_bias(function: Callable) -> None:
    """`function(weight, bias, other, inputs)` must return the best bias for a layer that computes with `other`."""
    generator, double = torch.Generator().manual_seed(0), {"dtype": torch.float64}
    for rows, n, m in [(50, 4, 3), (7, 5, 9), (200, 16, 2)]:
        weight, other = torch.randn(2, n, m, generator=generator, **double)
        bias = torch.randn(m, generator=generator, **double)
        inputs = torch.randn(rows, n, generator=generator, **double) + torch.arange(n)
        expected = (inputs @ weight + bias - inputs @ other).mean(0)  # no constant comes closer than the mean
        answers(function, (weight, bias, other, inputs), expected, f"for {rows} inputs of a {n} × {m} layer")


@exercise
def fitting_plan(function: Callable) -> None:
    """`function(model, budget)` must return the plan of the largest uniform rank whose file has at most `budget` bytes.

    It is tried on small random models; the bytes are those of `report`.
    """
    for width, words, budget in [(48, 900, None), (96, 2000, 150_000), (96, 2000, 100_000)]:
        size = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4 * width}
        model = BertModel(BertConfig(vocab_size=words, max_position_embeddings=32, **size)).eval()
        budget = budget or _file_bytes(model, plan(model, 10))  # a file that fills it to the byte fits
        before, where = str(model), f"for a model {width} wide with {words:,} words and {budget:,} bytes"
        got = call(function, model, budget)
        if str(model) != before:
            fail(function, "the model it was given must stay as it was: compress a copy")
        if not isinstance(got, TTQConfig) or not got.layers:
            fail(function, f"{where} expected the plan that ttq.plan makes, got {type(got).__name__}")
        layers, ranks = got.layers.values(), {layer.format and layer.format.rank for layer in got.layers.values()}
        quantized = got.rest != 32 or any(layer.quantize not in (None, "float", "rest") for layer in layers)
        if len(ranks) > 1 or None in ranks:
            fail(function, f"{where} expected one rank for all layers, got ranks {sorted(map(str, ranks))}")
        if quantized:
            fail(function, f"{where} expected a plan in float32, got one with quantizers")
        try:
            stored = _file_bytes(model, got)
        except ValueError as error:
            fail(function, f"{where} the plan does not fit the model: {error}")
        best = _largest_file_within(model, budget)
        if stored > budget:
            fail(function, f"{where} the plan needs {stored:,} bytes")
        if stored < best:
            fail(function, f"{where} there is a larger rank: it fills {best:,} bytes, this one {stored:,}")


@exercise
def rest_bits(function: Callable) -> None:
    """`function(dense, cores, rest, bits, ratio)` must return how many bits a number of the rest may have.

    Counts of numbers of the dense model, in cores and in the rest; the bits of a core's number; how many times smaller
    than the dense float32 model the whole shall be.
    """
    cases = [(1_000_000, 10_000, 6_000, 2, 100), (15_000_000, 146_000, 181_000, 4, 60), (5_000, 600, 200, 1, 12)]
    cases.append((1_000, 900, 100, 8, 10))  # where cores alone are too large
    for dense, cores, rest, bits, ratio in cases:
        expected = torch.tensor((32 * dense / ratio - bits * cores) / rest, dtype=torch.float64)
        where = f"for {dense:,} numbers, {cores:,} in cores of {bits} bits, {rest:,} in the rest and {ratio}×"
        answers(function, (dense, cores, rest, bits, ratio), expected, where)


@exercise
def standard_errors(function: Callable) -> None:
    """`function(one, other, seeds)` must return how many standard errors two means of `seeds` runs are apart."""
    pairs = [((92.6, 0.25), (91.9, 0.18), 3), ((80.0, 1.0), (83.0, 2.0), 5), ((50.0, 0.0), (49.0, 0.3), 2)]
    for (mean, sd), (other_mean, other_sd), seeds in pairs:
        one, other = {"mean": mean, "sd": sd}, {"mean": other_mean, "sd": other_sd}
        expected = torch.tensor((mean - other_mean) / ((sd**2 + other_sd**2) / seeds) ** 0.5, dtype=torch.float64)
        where = f"for {mean:g} ± {sd:g} and {other_mean:g} ± {other_sd:g}, {seeds} seeds,"
        answers(function, (one, other, seeds), expected, where)


@exercise
def smallest_within(function: Callable) -> None:
    """`function(rows, points)` must return the row of the test split with the largest ratio among the good ones.

    Good is who is at most `points` behind the dense row of that split, in intent accuracy and in slot F1.
    """
    names, rows = ("intent_accuracy", "slot_f1"), []
    for split, method, ratio, *values in [
        ("validation", "dense", 1.0, 99.0, 99.0),
        ("test", "tt", 50.0, 94.5, 95.5),  # better on one side, and 1.5 behind on the other
        ("test", "narrow", 200.0, 95.5, 92.5),
        ("test", "dense", 1.0, 96.0, 93.0),
        ("test", "tt", 100.0, 95.2, 92.2),
        ("validation", "tt", 900.0, 98.9, 98.9),
        ("test", "tt-qat", 400.0, 94.9, 91.0),
        ("test", "tt-ptq", 500.0, 70.0, 55.0),
        ("test", "svd", 20.0, 97.0, 94.0),
    ]:
        metrics = {name: {"mean": value, "sd": 0.1} for name, value in zip(names, values, strict=True)}
        rows.append({"split": split, "method": method, "ratio": ratio, "metrics": metrics})
    for points, best in [(0.5, 200.0), (0.4, 20.0), (1.5, 200.0), (2.5, 400.0), (60, 500.0)]:
        for order in (rows, rows[::-1]):
            got = call(function, copy.deepcopy(order), points)
            ratio = got.get("ratio") if isinstance(got, dict) else None
            if ratio != best:
                found = f"ratio {ratio:g}" if ratio else f"{type(got).__name__}"
                fail(function, f"within {points} points expected the row of ratio {best:g}, got {found}")


def _file_bytes(model: nn.Module, config: TTQConfig) -> int:
    small = compress_(copy.deepcopy(model), config, init="random")  # the size does not depend on the values
    return report(small).total.stored_bytes


def _largest_file_within(model: nn.Module, budget: int) -> int:
    best = 0
    for rank in count(1):
        try:
            stored = _file_bytes(model, plan(model, rank))
        except ValueError:  # nothing gets smaller at this rank
            return best
        if stored > budget:
            return best
        best = stored
