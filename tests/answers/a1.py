"""Assignment 1: answers about the arithmetic of trains."""

from tests.answers import Answers, Wrong

ANSWERS = {
    "multiply": Answers(
        right={
            "kron of each pair of matrices": """
def multiply(a, b):
    return [torch.stack([torch.kron(x[:, i], y[:, i]) for i in range(x.shape[1])], dim=1) for x, y in zip(a, b)]
""",
        },
        wrong={
            "cores entry by entry": Wrong(
                """
def multiply(a, b):
    return [x * y for x, y in zip(a, b)]
""",
                "raised",
            ),
            "the library": Wrong(
                """
from ttqlib import tt_svd, tt_to_tensor


def multiply(a, b):
    return tt_svd(tt_to_tensor(a) * tt_to_tensor(b), 6)
""",
                "write it yourself",
            ),
        },
    ),
}
