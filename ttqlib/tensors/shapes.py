"""Mode sizes, TT-ranks and parameter counts: the arithmetic that all tensor-train formats share.

A tensor train writes an array of shape (n_1, …, n_d) as d *cores* of shape (r_{k-1}, n_k, r_k). The n_k are its
*mode sizes*, the r_k its *TT-ranks*; the two outer ranks are 1. Nothing here touches a tensor.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import isqrt, prod
from operator import index

# An exact factorization is kept as long as its modes add up to at most this much more than those of the best padded
# one. A train costs at most rank² · (sum of modes), so 2·3·5087 is refused for 30 522 and 12·8·8 kept for 768.
MAX_EXCESS = 1.25


def whole_number(name: str, value, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; else a ValueError that names the parameter and what is allowed."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return number


def mode_sizes(name: str, modes: Sequence[int]) -> tuple[int, ...]:
    """`modes` as a tuple of positive ints; ValueError where it is empty, no sequence, or holds anything else."""
    if isinstance(modes, str) or not isinstance(modes, Sequence) or not len(modes):
        raise ValueError(f"{name} must be a non-empty sequence of mode sizes such as (12, 8, 8), got {modes!r}")
    return tuple(whole_number(f"every entry of {name}", mode) for mode in modes)


def factorize(size: int, parts: int = 3) -> tuple[int, ...]:
    """`parts` balanced mode sizes, largest first, whose product is `size`, or slightly more where `size` resists.

    An exact factorization is preferred: 768 → (12, 8, 8). A prime, or a size such as 30522 = 2 · 3 · 5087, has none
    that is balanced, so the size is padded: 30522 → (32, 31, 31), a product of 30752. Whoever uses the modes ignores
    the entries past `size`.

    Raises:
        ValueError: `size` or `parts` is not a whole number of at least 1.

    >>> ttq.factorize(768), ttq.factorize(30522)
    ((12, 8, 8), (32, 31, 31))
    """
    size, parts = whole_number("size", size), whole_number("parts", parts)
    padded = _smallest_cover(size, parts)
    exact = min(_descending_factorizations(size, parts, largest=size), key=sum)
    return exact if sum(exact) <= MAX_EXCESS * sum(padded) else padded


def fit_modes(name: str, modes: Sequence[int] | None, size: int, largest: str = "first") -> tuple[int, ...]:
    """The mode sizes for a dimension of `size` entries: `modes`, checked, or three from `factorize` when it is None.

    Padding is allowed, waste is not: the product must reach `size`, and no single mode may be larger than that takes.
    `largest` says at which end, "first" or "last", `factorize`'s largest mode stands.

    Raises:
        ValueError: the modes multiply out to less than `size`, or one of them could be smaller.
    """
    if modes is None:
        return factorize(size)[:: 1 if largest == "first" else -1]
    modes = mode_sizes(name, modes)
    total = prod(modes)
    if total < size or any(total // mode * (mode - 1) >= size for mode in modes):
        problem = "less than" if total < size else "needlessly more than"
        raise ValueError(
            f"{name}={modes} multiplies out to {total}, {problem} the {size} entries it stands for; "
            f"{factorize(size, len(modes))[:: 1 if largest == 'first' else -1]} would do"
        )
    return modes


def clip_ranks(modes: Sequence[int], rank: int | Sequence[int]) -> tuple[int, ...]:
    """All d + 1 TT-ranks (1, r_1, …, r_{d-1}, 1) of a train with these `modes`, none above what it can use.

    `rank` is one number for all inner ranks, or the whole tuple. The k-th unfolding has n_1 ⋯ n_k rows and
    n_{k+1} ⋯ n_d columns, so a larger r_k would only store zeros (Oseledets 2011, §2).

    Raises:
        ValueError: modes or ranks that are no whole numbers of at least 1, or a tuple of ranks that is not d + 1 long
            with 1 at both ends.

    >>> ttq.clip_ranks((2, 3, 4), 10)
    (1, 2, 4, 1)
    """
    modes = mode_sizes("modes", modes)
    if isinstance(rank, Sequence) and not isinstance(rank, str):
        ranks = [whole_number("every rank", r) for r in rank]
        if len(ranks) != len(modes) + 1 or ranks[0] != 1 or ranks[-1] != 1:
            raise ValueError(
                f"rank must be one number, or {len(modes) + 1} of them with 1 at both ends for {len(modes)} modes, "
                f"got {tuple(rank)}"
            )
    else:
        ranks = [1, *[whole_number("rank", rank)] * (len(modes) - 1), 1]
    for k in range(1, len(modes)):  # a rank cannot outgrow what stands on its left …
        ranks[k] = min(ranks[k], ranks[k - 1] * modes[k - 1])
    for k in range(len(modes) - 1, 0, -1):  # … nor what stands on its right
        ranks[k] = min(ranks[k], ranks[k + 1] * modes[k])
    return tuple(ranks)


def tt_parameters(modes: Sequence[int], rank: int | Sequence[int]) -> int:
    """How many numbers the cores hold: Σ_k r_{k-1} · n_k · r_k, ranks clipped as in `clip_ranks`.

    For a TT-matrix pass the products m_k · n_k of its row and column modes.

    Raises:
        ValueError: as `clip_ranks`.

    >>> ttq.tt_parameters((12, 8, 8, 8, 8, 12), 30)
    20448
    """
    ranks = clip_ranks(modes, rank)
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:], strict=False))


def largest_rank(modes: Sequence[int], parameters: int) -> int:
    """The largest uniform rank whose train has at most `parameters` numbers: what a budget buys.

    Raises:
        ValueError: not even rank 1 fits.

    >>> ttq.largest_rank((12, 8, 8, 8, 8, 12), 30_000)
    37
    """
    parameters = whole_number("parameters", parameters)
    if tt_parameters(modes, 1) > parameters:
        raise ValueError(
            f"parameters must be at least {tt_parameters(modes, 1)}, the size at rank 1 for modes {tuple(modes)}, "
            f"got {parameters}"
        )
    ranks = range(1, max(clip_ranks(modes, prod(modes))) + 1)  # the count never falls when the rank rises, so bisect
    return bisect_right(ranks, parameters, key=lambda rank: tt_parameters(modes, rank))


def _smallest_cover(size: int, parts: int) -> tuple[int, ...]:
    """The most balanced modes whose product reaches `size`: all equal, then raised by one from the left as needed."""
    base = max(1, round(size ** (1 / parts)) - 1)  # the float root may be off by one; the loop settles it
    while (base + 1) ** parts <= size:
        base += 1
    raised = next(k for k in range(parts + 1) if (base + 1) ** k * base ** (parts - k) >= size)
    return (base + 1,) * raised + (base,) * (parts - raised)


def _descending_factorizations(size: int, parts: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `size` as a product of `parts` factors in descending order, none above `largest`."""
    if parts == 1:
        if size <= largest:
            yield (size,)
        return
    for first in _divisors(size):
        if first <= largest and first**parts >= size:  # the largest of `parts` factors is at least their mean
            for rest in _descending_factorizations(size // first, parts - 1, first):
                yield (first, *rest)


def _divisors(size: int) -> list[int]:
    small = [d for d in range(1, isqrt(size) + 1) if size % d == 0]
    return sorted({*small, *(size // d for d in small)})
