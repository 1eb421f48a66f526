"""Kernels that are forked from a warm process behave as those that are started, as tests/test_nbval.py starts some."""

import os

import psutil
import pytest
from jupyter_client.manager import start_new_kernel


@pytest.fixture
def kernel(warm, monkeypatch, tmp_path):
    """A manager with a kernel in `tmp_path`, and a client."""
    monkeypatch.setenv("JUPYTER_PATH", warm)
    monkeypatch.setenv("TTQ_SAYS", "hello")
    manager, client = start_new_kernel(kernel_name="python3", cwd=tmp_path)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def printed(client, source: str) -> str:
    found = []
    client.execute_interactive(source, timeout=60, output_hook=lambda message: found.append(message["content"]))
    return "".join(content.get("text", "") for content in found)


def test_it_has_the_folder_and_the_environment_that_it_was_given(kernel, tmp_path):
    says = printed(kernel[1], "import os\n\nprint(os.getcwd(), os.environ['TTQ_SAYS'], __name__, 'ttq' in globals())")
    assert says == f"{tmp_path} hello __main__ False\n"


def test_it_runs_in_a_process_of_its_own_and_draws_inline(kernel):
    source = "import os\n\nimport matplotlib\n\nprint(os.getpid(), matplotlib.get_backend())"
    pid, backend = printed(kernel[1], source).split()
    assert int(pid) not in (os.getpid(), kernel[0].provisioner.process.pid) and backend.endswith("inline")


def test_it_is_interrupted(kernel):
    manager, client = kernel

    def interrupt(message):
        if message["msg_type"] == "stream":
            manager.interrupt_kernel()

    source = "import time\n\nprint('asleep')\ntime.sleep(60)"
    reply = client.execute_interactive(source, timeout=30, output_hook=interrupt)
    assert reply["content"]["ename"] == "KeyboardInterrupt"


def test_it_ends_with_the_process_that_its_manager_has_started(kernel):
    one = psutil.Process(int(printed(kernel[1], "import os\n\nprint(os.getpid())")))
    kernel[0].provisioner.process.kill()
    assert psutil.wait_procs([one], timeout=20)[1] == []
