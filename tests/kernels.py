"""Pytest plugin (`-p tests.kernels`, which loads it before nbval): threads, and the time that a chapter may take.

The budget is counted in seconds of CPU time of the notebook's kernel and its children, user and system, because on a
busy machine the clock on the wall says more about the neighbours than about the chapter. It is 60 s, or what the
notebook's metadata say: `{"ttq": {"seconds": 30}}`, on a machine whose thread multiplies matrices at `REFERENCE` speed.
Processors that are met in practice differ by a factor of three, and CPU time itself grows where neighbours fill caches
and share a core. So the same product is timed beside the chapter, after each cell: as much slower as it is there in the
median, as much more time the chapter gets. And where the chapter has to wait for a core, it gets up to `CROWDED` times
as much: a product of two matrices stays in its cache, a chapter does not. A chapter that waits instead of computing is
caught by a loose limit on wall time, a cell that hangs by nbval's own --nbval-cell-timeout.
"""

import os
import sys
import time
from functools import cache
from statistics import median

import psutil
import pytest

sys.modules["rfc3987_syntax"] = None  # with which jsonschema, and so nbformat, would spend two seconds on a grammar

SECONDS = 60
WALL = 10  # times the budget
REFERENCE = 150e9  # floating-point operations in a second
CROWDED = 1.5  # times the CPU time that it takes alone: chapter 3 with eight busy neighbours on two cores
SLOWEST = 3.5  # times slower: what is slower still is no machine to learn on

STARTED = pytest.StashKey[float]()
PROBES = pytest.StashKey[list[float]]()


def one_thread_per_worker() -> None:
    """Two workers with as many threads as cores would only get in each other's way. Kernels inherit it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


one_thread_per_worker()
os.environ["TQDM_DISABLE"] = "1"  # bars appear where work takes long, so that outputs would depend on the machine


def budget(notebook) -> float:
    return notebook.metadata.get("ttq", {}).get("seconds", SECONDS)


def product_seconds(times: int) -> list[float]:
    """CPU seconds of a product of two matrices, measured so many times."""
    import torch

    matrix, seconds = torch.ones(1024, 1024), []
    for _ in range(times):
        start = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - start)
    return seconds


def times_slower(seconds: float) -> float:
    """Than the reference, by what a product takes: from 1 to `SLOWEST`."""
    return min(max(1.0, REFERENCE * seconds / (2 * 1024**3)), SLOWEST)


@cache
def slowness() -> float:
    """How many times slower than the reference one thread of this machine is at its best."""
    return times_slower(min(product_seconds(8)))


def crowding(waited: float, used: float) -> float:
    """How much more CPU time a chapter gets that has had `used` in `waited` seconds: 1 if a core was its own."""
    return 1 + (CROWDED - 1) * min(max(0.0, waited / used - 1), 1)


def cpu_seconds(kernel) -> float:
    process = psutil.Process(kernel.km.provisioner.process.pid)
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return sum(one.user + one.system for one in times)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    notebook = getattr(item.parent, "nb", None)
    if notebook is None:
        return (yield)
    started = item.parent.stash.setdefault(STARTED, time.monotonic())
    result = yield
    probes = item.parent.stash.setdefault(PROBES, [])
    probes += product_seconds(2)[1:]  # the first one warms caches up
    allowed, used, waited = budget(notebook), cpu_seconds(item.parent.kernel), time.monotonic() - started
    slower = times_slower(median(probes)) * crowding(waited, used)
    if used > allowed * slower:
        said = f"its budget is {allowed:g} s, {slower:.2f} times that beside these neighbours"
        raise TimeoutError(f"the chapter has used {used:.1f} s of CPU time, {said}")
    if waited > WALL * allowed * slower:
        raise TimeoutError(f"the chapter has taken {waited:.1f} s, {WALL} times its budget is {WALL * allowed:g} s")
    return result
