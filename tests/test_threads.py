"""Threads of a kernel sleep while they wait: what set-up writes, and what it is good for."""

import os
import subprocess
import sys

import pytest
from jupyter_client.kernelspec import KernelSpecManager

# small parallel work and pauses: the time of CPU that the pauses cost is that of threads which spin
PAUSES = """import time, torch
torch.set_num_threads(2)
x = torch.randn(200_000)
for _ in range(20):
    x.relu()
start = time.process_time()
for _ in range(100):
    x.relu()
    time.sleep(0.003)
print(time.process_time() - start)"""


def kernel_environment() -> dict[str, str]:
    return KernelSpecManager().get_kernel_spec("python3").env


def seconds(**variables: str) -> float:
    """Of CPU time, in a process with these variables and without what says how threads wait."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    run = subprocess.run([sys.executable, "-c", PAUSES], env=inherited | variables, capture_output=True, check=True)
    return float(run.stdout)


def test_kernels_of_this_environment_have_threads_that_sleep():
    assert kernel_environment().get("OMP_WAIT_POLICY") == "passive", "make lab sets it; docs/install.md says how"


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores under Linux")
def test_threads_that_sleep_leave_the_core_to_others():
    """2.0 s of CPU against 0.04 s were seen; a third would do."""
    assert seconds(**kernel_environment()) < seconds() / 3
