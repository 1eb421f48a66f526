"""Answers to the exercises of chapter 0: where the bytes are, and what a sentence is."""

from tests.answers import Answers, Wrong

STORED_BYTES = Answers(
    right={
        "ceil of whole numbers": """
from math import prod


def stored_bytes(shapes, bits):
    return sum((prod(shape) * bits + 7) // 8 + 4 for shape in shapes)
""",
        "a loop, divmod and torch": """
def stored_bytes(shapes, bits):
    total = 0
    for shape in shapes:
        whole, rest = divmod(torch.Size(shape).numel() * bits, 8)
        total += whole + (1 if rest else 0) + 4
    return total
""",
    },
    wrong={
        "the step sizes are forgotten": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum((math.prod(shape) * bits + 7) // 8 for shape in shapes)
""",
            "for the bytes of shapes [(1, 8, 10)] at 4 bits expected 44, got 40",
        ),
        "one step size for all arrays": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum((math.prod(shape) * bits + 7) // 8 for shape in shapes) + 4
""",
            "for the bytes of shapes [(1, 3, 3), (3, 5, 1)] at 3 bits expected 18, got 14",
        ),
        "rounded down": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum(math.prod(shape) * bits // 8 + 4 for shape in shapes)
""",
            "for the bytes of shapes [(1, 3, 3), (3, 5, 1)] at 3 bits expected 18, got 16",
        ),
        "rounded up once, at the end": Wrong(
            """
def stored_bytes(shapes, bits):
    return (sum(math.prod(shape) * bits for shape in shapes) + 7) // 8 + 4 * len(shapes)
""",
            "for the bytes of shapes [(1, 3, 3), (3, 5, 1)] at 3 bits expected 18, got 17",
        ),
        "one byte each": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum(math.prod(shape) + 4 for shape in shapes)
""",
            "for the bytes of shapes [(1, 8, 10)] at 4 bits expected 44, got 84",
        ),
        "not whole": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum(math.prod(shape) * bits / 8 + 4 for shape in shapes)
""",
            "at 4 bits expected the whole number 44, got 44.0",
        ),
        "rounded up, but a float": Wrong(
            """
def stored_bytes(shapes, bits):
    return float(sum(math.ceil(math.prod(shape) * bits / 8) + 4 for shape in shapes))
""",
            "at 4 bits expected the whole number 44, got 44.0",
        ),
        "the sides of an array added up": Wrong(
            """
def stored_bytes(shapes, bits):
    return sum((sum(shape) * bits + 7) // 8 + 4 for shape in shapes)
""",
            "for the bytes of shapes [(1, 8, 10)] at 4 bits expected 44, got 14",
        ),
    },
)

MEAN_POOL = Answers(
    right={
        "a masked sum over its count": """
def mean_pool(states, mask):
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
""",
        "row by row": """
def mean_pool(states, mask):
    return torch.stack([row[real.bool()].mean(dim=0) for row, real in zip(states, mask)])
""",
        "a product with weights that add up to one": """
def mean_pool(states, mask):
    weights = mask / mask.sum(dim=1, keepdim=True)
    return torch.einsum("bt,bth->bh", weights.to(states.dtype), states)
""",
    },
    wrong={
        "padding counts": Wrong(
            """
def mean_pool(states, mask):
    return states.mean(dim=1)
""",
            "for sentences of 3, 1 and 5 tokens, padded to 7, the values are off",
        ),
        "divided by the padded length": Wrong(
            """
def mean_pool(states, mask):
    return (states * mask[..., None]).mean(dim=1)
""",
            "for sentences of 3, 1 and 5 tokens, padded to 7, the values are off",
        ),
        "one count for all": Wrong(
            """
def mean_pool(states, mask):
    return (states * mask[..., None]).sum(dim=1) / mask[0].sum()
""",
            "for sentences of 3, 1 and 5 tokens, padded to 7, the values are off",
        ),
        "the first token only": Wrong(
            """
def mean_pool(states, mask):
    return states[:, 0]
""",
            "for sentences of 4 and 4 tokens, padded to 4, the values are off",
        ),
        "over the sentences": Wrong(
            """
def mean_pool(states, mask):
    return (states * mask[..., None]).sum(dim=0) / mask.sum(dim=0)[:, None]
""",
            "for sentences of 4 and 4 tokens, padded to 4, expected shape (2, 8), got (4, 8)",
        ),
        "over the hidden axis": Wrong(
            """
def mean_pool(states, mask):
    return (states * mask[..., None]).mean(dim=-1)
""",
            "for sentences of 4 and 4 tokens, padded to 4, expected shape (2, 8), got (2, 4)",
        ),
        "padding taken from the states, not from the mask": Wrong(
            """
def mean_pool(states, mask):
    real = (states != 0).any(dim=-1, keepdim=True)
    return (states * real).sum(dim=1) / real.sum(dim=1)
""",
            "for sentences of 3, 1 and 5 tokens, padded to 7, the values are off",
        ),
        "padding thought to stand at the end": Wrong(
            """
def mean_pool(states, mask):
    return torch.stack([row[: real.sum()].mean(dim=0) for row, real in zip(states, mask)])
""",
            "for sentences of 2 and 6 tokens, padded in front to 9, the values are off",
        ),
        "the states are changed in place": Wrong(
            """
def mean_pool(states, mask):
    states *= mask[..., None]
    return states.sum(dim=1) / mask.sum(dim=1, keepdim=True)
""",
            "what it was given must stay as it was",
        ),
    },
)

ANSWERS = {"stored_bytes": STORED_BYTES, "mean_pool": MEAN_POOL}
