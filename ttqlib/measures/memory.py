"""How the C library hands out memory to tensors: freed memory can be kept for the next pass."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h
KEPT = 2**30  # bytes that may lie unused before some of them go back to the system
OLD_LIMIT = 2**25  # bytes: the most that glibc before 2.35 takes for MMAP_THRESHOLD


def keep_freed_memory() -> bool:
    """Ask glibc to keep the memory that tensors give back, for this process and from now on; whether it agrees.

    Otherwise large activations go back to the system, and the next pass gets them again page by page, filled with
    zeros: time that has nothing to do with products, and the thinner the layers, the larger its share. Costs up to
    1 GB that other processes cannot use. False, and nothing changes, where the C library is another one (macOS,
    Windows, Alpine): there jemalloc or tcmalloc, loaded before Python, do the same.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # no such function; on Windows CDLL takes no None
        return False
    takes_heap = any(mallopt(MMAP_THRESHOLD, size) for size in (KEPT, OLD_LIMIT))
    return takes_heap and bool(mallopt(TRIM_THRESHOLD, KEPT))
