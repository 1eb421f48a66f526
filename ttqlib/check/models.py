"""What is computed from a model's outputs."""

from collections.abc import Callable

import torch

from .verdict import call, close, listed, passed


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
