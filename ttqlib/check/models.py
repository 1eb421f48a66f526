"""Whole models: what is computed from their weights, inputs and outputs, and their plans."""

import copy
from collections.abc import Callable
from itertools import count
from operator import index

import torch
from torch import nn
from transformers import BertConfig, BertModel

from ..compress import compress_
from ..measure import report
from ..planning import TTQConfig, plan
from .verdict import call, close, fail, listed, passed


def mean_pool(function: Callable) -> None:
    """`function(states, mask)` must return the mean over the tokens whose mask is 1, for each sentence."""
    generator = torch.Generator().manual_seed(0)
    for lengths, padded in [((4, 4), 4), ((3, 1, 5), 5), ((2, 6), 9)]:
        states = torch.randn(len(lengths), padded, 8, generator=generator, dtype=torch.float64)
        mask = (torch.arange(padded) < torch.tensor(lengths)[:, None]).long()
        expected = torch.stack([row[:length].mean(0) for row, length in zip(states, lengths, strict=True)])
        got = call(function, states.clone(), mask.clone())
        close(function, got, expected, f"for sentences of {listed(lengths)} tokens, padded to {padded},")
    passed(function)


def rank_for(function: Callable) -> None:
    """`function(values, error)` must return how many of the falling singular values `values` have to be kept."""
    cases = {(8.0, 4.0, 2.0, 1.0): (0.9, 0.5, 0.25, 0.2, 0.05), (3.0, 3.0, 3.0, 3.0): (0.8, 0.6, 0.4), (5.0,): (0.3,)}
    cases |= {tuple(torch.logspace(1, -4, 60, dtype=torch.float64).tolist()): (0.5, 0.01, 1e-4)}
    for values, errors in cases.items():
        values = torch.tensor(values, dtype=torch.float64)
        for error in errors:
            lost = [(values[rank:].norm() / values.norm()).item() for rank in range(len(values) + 1)]
            expected = next(rank for rank, loss in enumerate(lost) if loss <= error)
            got = call(function, values.clone(), error)
            shown = f"for {len(values)} values from {values[0]:g} to {values[-1]:g} and an error of at most {error:g}"
            try:
                number = index(got)
            except TypeError:
                fail(function, f"{shown} expected the whole number {expected}, got {type(got).__name__}")
            if isinstance(got, bool) or number != expected:
                fail(function, f"{shown} expected {expected}, got {got}")
    passed(function)


def corrected_bias(function: Callable) -> None:
    """`function(weight, bias, other, inputs)` must return the best bias for a layer that computes with `other`."""
    generator, double = torch.Generator().manual_seed(0), {"dtype": torch.float64}
    for rows, n, m in [(50, 4, 3), (7, 5, 9), (200, 16, 2)]:
        weight, other = torch.randn(2, n, m, generator=generator, **double)
        bias = torch.randn(m, generator=generator, **double)
        inputs = torch.randn(rows, n, generator=generator, **double) + torch.arange(n)
        expected = (inputs @ weight + bias - inputs @ other).mean(0)  # no constant comes closer than the mean
        given = [tensor.clone() for tensor in (weight, bias, other, inputs)]
        got = call(function, *given)
        if not all(map(torch.equal, given, (weight, bias, other, inputs))):
            fail(function, "the tensors it was given must stay as they were")
        close(function, got, expected, f"for {rows} inputs of a {n} × {m} layer")
    passed(function)


def fitting_plan(function: Callable) -> None:
    """`function(model, budget)` must return the plan of the largest uniform rank whose file has at most `budget` bytes.

    It is tried on small random models; the bytes are those of `report`.
    """
    for width, words, budget in [(48, 900, 60_000), (96, 2000, 150_000), (96, 2000, 100_000)]:
        size = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4 * width}
        model = BertModel(BertConfig(vocab_size=words, max_position_embeddings=32, **size)).eval()
        before, where = str(model), f"for a model {width} wide with {words:,} words and {budget:,} bytes"
        got = call(function, model, budget)
        if str(model) != before:
            fail(function, "the model it was given must stay as it was: compress a copy")
        if not isinstance(got, TTQConfig) or not got.layers:
            fail(function, f"{where} expected the plan that ttq.plan makes, got {type(got).__name__}")
        ranks = {None if layer.format is None else layer.format.rank for layer in got.layers.values()}
        if len(ranks) > 1 or None in ranks or any(layer.quantize for layer in got.layers.values()) or got.rest != 32:
            fail(function, f"{where} expected one rank for all layers and float32, got ranks {sorted(map(str, ranks))}")
        try:
            stored = _file_bytes(model, got)
        except ValueError as error:
            fail(function, f"{where} the plan does not fit the model: {error}")
        best = _largest_file_within(model, budget)
        if stored > budget:
            fail(function, f"{where} the plan needs {stored:,} bytes")
        if stored < best:
            fail(function, f"{where} there is a larger rank: it fills {best:,} bytes, this one {stored:,}")
    passed(function)


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
