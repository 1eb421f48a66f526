"""Settings for the tests of this folder. Runs of the notebooks themselves load tests/kernels.py instead."""

import os
from collections import Counter

from tests.kernels import one_thread_per_worker
from tests.scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401

one_thread_per_worker()

import matplotlib  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Not through MPLBACKEND: kernels would inherit it and draw nothing inline.
matplotlib.use("Agg")

if "PYTEST_XDIST_WORKER" in os.environ:
    import torch

    torch.set_num_threads(1)

# No deadline: the first call of a test may load a library. Under CI the examples are the same on every run.
settings.register_profile("ttq", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ttq")


@pytest.fixture(scope="module")
def page():
    """A browser window; its tests are skipped where there is no Chromium, unless TTQ_REQUIRE_BROWSER=1."""
    from tests import browser

    if browser.chromium() is None:
        reason = "no Chromium on this machine: apt-get install --no-install-recommends chromium"
        (pytest.fail if os.environ.get("TTQ_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    with browser.window() as page:
        yield page


@pytest.fixture(scope="session")
def warm():
    """What to set JUPYTER_PATH to for kernels that start at once (tests/warm.py)."""
    from tests.warm import kernels

    with kernels() as path:
        yield path


def pytest_terminal_summary(terminalreporter):
    """How long redraws take, how many steps of families of models work, how many wrong answers were refused."""
    steps, refused = Counter(), Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "step of a family":
                steps[value] += 1
            elif name == "wrong answer refused":
                refused[value] += 1
            else:
                terminalreporter.write_line(f"{name}: {value}")
    if steps:
        terminalreporter.write_line(f"families of models: {steps['works']} steps work, {steps['refuses']} are refused")
    if refused:
        each = ", ".join(f"{assignment}: {count}" for assignment, count in sorted(refused.items()))
        terminalreporter.write_line(f"assignments: {refused.total()} wrong answers are refused ({each})")
