"""Freed memory is kept: a pass that made the system hand out pages makes it hand out hardly any."""

import ctypes
import json
import subprocess
import sys

import pytest

import ttqlib as ttq
from ttqlib.measures import memory as allocator

FAULTS = """
import json, resource, sys, torch, ttqlib as ttq

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones(10 * 2**20) for _ in range(2)]  # 40 MiB each, as activations of a wide layer and a large batch
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
before, agreed, _ = faults(), ttq.keep_freed_memory(), faults()
print(json.dumps([before, agreed, faults()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has mallopt")
def test_memory_is_not_asked_for_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120)
    before, agreed, after = json.loads(done.stdout)
    assert agreed is True
    assert before > 20 * 1000  # pages of 4 KiB: the test means something
    assert after < before / 20


@pytest.mark.parametrize("error", [AttributeError, TypeError, OSError])
def test_another_c_library_is_no_error(monkeypatch, error):
    def refuse(name):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", refuse)
    assert ttq.keep_freed_memory() is False
