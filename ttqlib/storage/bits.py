"""Codes of 1 to 8 bits as one stream of bits: bytes are what compression is about, so a 3-bit code takes 3 bits."""

from collections.abc import Sequence
from mmap import mmap

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**16  # codes that are unpacked at a time


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
    stream, parts, start = packed.cpu().numpy(), [], 0
    for count, bits in counts:
        parts.append(torch.from_numpy(_codes(stream, start, count, bits)))
        start += count * bits
    if start % 8 and stream[-1] >> start % 8:
        raise ValueError("packed codes are followed by bits that are no code")
    return parts


def _codes(stream: np.ndarray, start: int, count: int, bits: int) -> np.ndarray:
    """The codes, uint8 (count,), from bit `start` on; block after block, since each bit takes a byte meanwhile."""
    codes = _own_memory(count)
    for first in range(0, count, BLOCK):
        block = codes[first : first + BLOCK]
        begin = start + first * bits
        end = begin + len(block) * bits
        rows = np.unpackbits(stream[begin // 8 : -(-end // 8)], bitorder="little")[begin % 8 :][: end - begin]
        block[:] = np.packbits(rows.reshape(-1, bits), axis=1, bitorder="little")[:, 0]
    return codes


def _own_memory(count: int) -> np.ndarray:
    """Room for numbers of a byte, which goes back to the system when it is freed.

    Of codes that are freed again the C library would keep the place, and later scatter what a model computes over it.
    """
    return np.frombuffer(mmap(-1, count), np.uint8) if count > BLOCK else np.empty(count, np.uint8)


def _width(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 1 to 8, got {bits!r}")
    return bits
