"""Where several workers share the tests (pytest-xdist): those of a module go to one worker, since they share fixtures.

xdist's own `--dist loadgroup` is no help: 3.8 writes groups into ids that pytest 9.2 no longer reads, and says nothing
(its issue 1386), so that fixtures were made twice.
"""

from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

APART = {  # modules whose tests may be shared out: test → what stays together
    "test_browser.py": lambda test: test,
    "test_families.py": lambda test: test.rpartition("-")[0],  # the steps of a family use one model
}
LONGEST = ("test_browser.py", "test_book.py", "test_app.py")  # these begin, so that no worker waits for one of them
SHORTEST = ("test_families.py",)  # many short units, which end: the worker that is done first takes more of them


def unit(nodeid: str) -> str:
    """What a test belongs to: tests of one unit run one after the other on one worker."""
    module, _, test = nodeid.partition("::")
    apart = APART.get(PurePosixPath(module).name)
    return f"{module}::{apart(test)}" if apart else module


class ByModule(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


@pytest.hookimpl(optionalhook=True)  # -p no:xdist asks for none
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # units begin in the order of the tests
    return ByModule(config, log)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (item.path.name in SHORTEST) - (item.path.name in LONGEST))
