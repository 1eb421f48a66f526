"""Settings for the tests of this folder. Runs of the notebooks themselves load tests/kernels.py instead."""

import os

from tests.kernels import one_thread_per_worker

one_thread_per_worker()

import matplotlib  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

# Not through MPLBACKEND: kernels would inherit it and draw nothing inline.
matplotlib.use("Agg")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# No deadline: the first call of a test may load a library. Under CI the examples are the same on every run.
settings.register_profile("ttq", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ttq")
