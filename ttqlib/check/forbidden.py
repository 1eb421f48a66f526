"""What an exercise forbids: gradients by autograd, tensors as large as all that the cores stand for."""

from collections.abc import Callable

import torch

from .verdict import CheckFailed, call, fail


def call_by_hand(function: Callable, *arguments):
    """As `call`, but where autograd records nothing: an answer that leans on it is told so."""
    try:
        with torch.inference_mode():
            return call(function, *arguments)
    except CheckFailed as failed:
        if "not require grad" not in str(failed):
            raise
    fail(function, "it asks autograd for a gradient; write that gradient down yourself")


def call_small(function: Callable, *arguments, whole: str):
    """As `call`, with arguments whose `whole`, terabytes, no machine can hold: an answer that builds it is told so."""
    try:
        return call(function, *arguments)
    except CheckFailed as failed:
        if "more memory than there is" not in str(failed):
            raise
    fail(function, f"it builds {whole}, which has 10¹² entries here; never make a tensor of that size")
