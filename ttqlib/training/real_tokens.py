"""The real tokens of a batch side by side, without its padding: where they stand, and the way there and back."""

from contextvars import ContextVar

from torch import Tensor


class RealTokens:
    """Where the N real tokens of a batch of B sentences, T tokens with padding, stand.

    Args:
        mask: (B, T), true at real tokens.
    """

    def __init__(self, mask: Tensor):
        self.shape = mask.shape
        self.places = mask.flatten().nonzero().squeeze(1)  # (N,)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, …) → (1, N, …). What is the same for all sentences may come as (1, T, …)."""
        x = x.expand(*self.shape, *x.shape[2:])
        return x.flatten(0, 1).index_select(0, self.places).unsqueeze(0)

    def pad(self, x: Tensor) -> Tensor:
        """(1, N, …) → (B, T, …), zeros at padding."""
        padded = x.new_zeros(self.shape.numel(), *x.shape[2:])
        return padded.index_copy(0, self.places, x.squeeze(0)).unflatten(0, self.shape)

    def are_in(self, x: Tensor) -> bool:
        """Whether `x` is what `pack` gives."""
        return x.shape[:2] == (1, len(self.places))


# Those of the forward pass that is on its way, where its layers are to get no padding.
alone: ContextVar[RealTokens | None] = ContextVar("alone", default=None)
