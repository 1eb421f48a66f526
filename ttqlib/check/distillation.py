"""Distillation: which layers belong together, and a loss that leaves padding out."""

from collections.abc import Callable, Mapping

import torch

from .verdict import call, close, exercise, fail


@exercise
def attention_loss(function: Callable) -> None:
    """`function(student, teacher, mask)` must return the mean KL(teacher ‖ student) over real (query, head) rows.

    Both are attention probabilities, (B, heads, T, T), whose entries at padded keys are 0; the mask is (B, T).
    """
    generator = torch.Generator().manual_seed(0)
    for lengths, heads, side in [((4, 4), 2, "right"), ((3, 1, 5), 3, "right"), ((2, 6), 1, "left")]:
        longest = max(lengths)
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        mask = mask.flip(1) if side == "left" else mask  # as many language models pad
        maps = torch.randn(2, len(lengths), heads, longest, longest, generator=generator, dtype=torch.float64)
        student, teacher = maps.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)
        rows = [
            (p[real] * (p[real] / q[real]).log()).sum()
            for sentence, real in enumerate(mask)
            for head in range(heads)
            for p, q in zip(teacher[sentence, head, real], student[sentence, head, real], strict=True)
        ]
        padded = ", padded in front," if side == "left" else ""
        where = f"for sentences of {', '.join(map(str, lengths))} tokens{padded} and {heads} heads"
        got = call(function, student, teacher, mask)
        if isinstance(got, torch.Tensor | float) and torch.as_tensor(got).isnan().any():
            fail(function, f"{where} the result is not a number: at padded keys both maps are 0")
        close(function, got, torch.stack(rows).mean(), where)


@exercise
def even_map(function: Callable) -> None:
    """`function(layers, teacher_layers)` must return {0: 0, …}, as even as whole numbers allow.

    Layer l of `layers` belongs to a layer at most 1/2 from l · teacher_layers / layers, and to a later one than l − 1.
    """
    for layers, height in [(3, 6), (4, 12), (2, 3), (5, 6), (4, 6), (6, 6), (1, 12), (5, 12)]:
        got = call(function, layers, height)
        where = f"for {layers} layers of a student and {height} of its teacher"
        if not isinstance(got, Mapping) or sorted(got) != list(range(layers + 1)):
            fail(function, f"{where} expected a dict with the keys 0 … {layers}, got {got!r}")
        if not all(type(layer) is int for layer in got.values()):
            fail(function, f"{where} expected whole numbers, got {got!r}")
        if got[0] != 0:
            fail(function, f"{where} embeddings, 0, belong to embeddings, got {got!r}")
        for layer in range(1, layers + 1):
            if got[layer] <= got[layer - 1]:
                fail(function, f"{where} layer {layer} must go to a later one than layer {layer - 1}, got {got!r}")
            if abs(got[layer] * layers - layer * height) > layers / 2:
                fail(function, f"{where} layer {layer} could be nearer to {layer * height / layers:g}, got {got!r}")
