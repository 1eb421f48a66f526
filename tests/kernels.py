"""Pytest plugin (`-p tests.kernels`, which loads it before nbval): threads, and the time that a chapter may take.

The budget is counted in seconds of CPU time of the notebook's kernel, because on a busy machine the clock on the wall
says more about the neighbours than about the chapter. A chapter that waits instead of computing is caught by a loose
limit on wall time, a cell that hangs by nbval's own --nbval-cell-timeout. The budget is 90 s, or what the notebook's
metadata say: `{"ttq": {"seconds": 30}}`. It is meant for a machine whose thread multiplies matrices at `REFERENCE`
speed; processors that are met in practice differ by a factor of three, and a slower one gets as much more time.
"""

import os
import sys
import time
from functools import cache

import psutil
import pytest

sys.modules["rfc3987_syntax"] = None  # with which jsonschema, and so nbformat, would spend two seconds on a grammar

SECONDS = 90
WALL = 3  # times the budget
REFERENCE = 150e9  # floating-point operations in a second
SLOWEST = 3.5  # times slower: what is slower still is no machine to learn on

STARTED = pytest.StashKey[float]()


def one_thread_per_worker() -> None:
    """Two workers with as many threads as cores would only get in each other's way. Kernels inherit it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


one_thread_per_worker()
os.environ["TQDM_DISABLE"] = "1"  # bars appear where work takes long, so that outputs would depend on the machine


def budget(notebook) -> float:
    return notebook.metadata.get("ttq", {}).get("seconds", SECONDS)


@cache
def slowness() -> float:
    """How many times slower than the reference one thread of this machine is, from 1 to `SLOWEST`."""
    import torch

    matrix, seconds = torch.ones(1024, 1024), []
    for _ in range(8):
        start = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - start)
    return min(max(1.0, REFERENCE * min(seconds) / (2 * 1024**3)), SLOWEST)


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
    allowed, used, waited = budget(notebook), cpu_seconds(item.parent.kernel), time.monotonic() - started
    if used > allowed * slowness():
        raise TimeoutError(f"the chapter has used {used:.1f} s of CPU time, its budget is {allowed:g} s")
    if waited > WALL * allowed * slowness():
        raise TimeoutError(f"the chapter has taken {waited:.1f} s, {WALL} times its budget is {WALL * allowed:g} s")
    return result
