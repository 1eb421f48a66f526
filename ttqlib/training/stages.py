"""One stage of a distillation: what is matched, for how many steps, and how fast."""

from dataclasses import dataclass
from math import ceil, cos, pi

from .matching import Match

DECAYS = {  # the share of the learning rate that is left after the share t of a stage
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + cos(pi * t)) / 2,
    "constant": lambda t: 1.0,
}


@dataclass(frozen=True)
class Stage:
    """One stage: what it matches, for how many optimizer steps, and its learning rate.

    The rate rises in equal steps to `learning_rate` (None: that of the training arguments) over the first `warmup`,
    a share of the stage, and then falls by `decay` to 0. `only`: the only layer that trains, or None for all.
    """

    name: str
    steps: int
    matches: tuple[Match, ...]
    learning_rate: float | None
    warmup: float
    decay: str
    only: int | None = None

    def rate(self, step: int, default: float) -> float:
        """The learning rate at `step` = 0 … steps − 1; it is 0 at none of them."""
        highest = default if self.learning_rate is None else self.learning_rate
        rising = ceil(self.warmup * self.steps)
        if step < rising:
            return highest * (step + 1) / rising
        return highest * DECAYS[self.decay]((step - rising) / (self.steps - rising))
