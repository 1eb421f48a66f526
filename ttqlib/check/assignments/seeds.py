"""Where hidden tests take their numbers from: a seed that the instructor sets in one place.

Solutions lie in a public repository, so an answer that knows the inputs must be of no use. The course's
`nbgrader_config.py` sets the environment variable `TTQ_COURSE_SEED`, which the kernel of a graded notebook inherits.
"""

import hashlib
import os

import torch

VARIABLE = "TTQ_COURSE_SEED"


def seed() -> int:
    """The seed of the course, below 2⁶³: made of any text in the environment variable `TTQ_COURSE_SEED`.

    Without one it is that of an empty text: everybody can compute it, so a course sets its own.
    """
    digest = hashlib.sha256(os.environ.get(VARIABLE, "").encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, question: str) -> torch.Generator:
    """A generator of random numbers of its own for each seed and question: variants and inputs are drawn from it.

    A variant is picked as `choices[int(torch.randint(len(choices), (), generator=generator))]`.
    """
    digest = hashlib.sha256(f"{seed}/{question}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
