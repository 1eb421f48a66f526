"""Codes of 1 to 8 bits as one stream of bits: bytes are what compression is about, so a 3-bit code takes 3 bits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def packed_bytes(counts: Sequence[tuple[int, int]]) -> int:
    """How many bytes a stream of `count` codes of `bits` bits each, for every (count, bits), takes."""
    return -(-sum(count * _width(bits) for count, bits in counts) // 8)


def pack(parts: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Codes as one stream of bits: a 1-D uint8 tensor of `packed_bytes` bytes.

    `parts` are pairs (codes, bits): uint8 tensors of any shape with values below 2^bits. Part follows part and code
    follows code without a gap, the lowest bit first, from the lowest bit of the first byte on; zeros fill the last
    byte.

    Raises:
        TypeError: codes that are not uint8.
        ValueError: `bits` outside 1 … 8, or a code that needs more of them.
    """
    streams = [np.empty(0, np.uint8)]
    for codes, bits in parts:
        if codes.dtype != torch.uint8:
            raise TypeError(f"codes must be uint8, got {codes.dtype}")
        if codes.numel() and int(codes.max()) >= 2 ** _width(bits):
            raise ValueError(f"codes must be below 2^{bits} to fit into {bits} bits, got {int(codes.max())}")
        column = codes.detach().cpu().reshape(-1, 1).numpy()
        streams.append(np.unpackbits(column, axis=1, count=_width(bits), bitorder="little").reshape(-1))
    return torch.from_numpy(np.packbits(np.concatenate(streams), bitorder="little"))


def unpack(packed: Tensor, counts: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The inverse of `pack`: a 1-D uint8 tensor of codes for each (count, bits).

    Raises:
        ValueError: `packed` has another length than these counts need, or bits set after the last code.
    """
    if packed.dtype != torch.uint8 or packed.shape != (packed_bytes(counts),):
        raise ValueError(f"packed codes must be {packed_bytes(counts)} bytes, got {packed.dtype} {tuple(packed.shape)}")
    stream = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    parts, start = [], 0
    for count, bits in counts:
        rows = stream[start : start + count * bits].reshape(count, bits)
        parts.append(torch.from_numpy(np.packbits(rows, axis=1, bitorder="little").reshape(-1)))
        start += count * bits
    if stream[start:].any():
        raise ValueError("packed codes are followed by bits that are no code")
    return parts


def _width(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 1 to 8, got {bits!r}")
    return bits
