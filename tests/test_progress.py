"""Bars: gone when done, off where tqdm's own switch says so."""

import pytest

from ttqlib import progress


@pytest.mark.parametrize(("switch", "off"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_switch_of_tqdm_is_obeyed(monkeypatch, switch, off):
    seen = {}
    monkeypatch.setattr(progress, "tqdm", lambda items, **options: seen.update(options) or items)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if switch is not None:
        monkeypatch.setenv("TQDM_DISABLE", switch)
    assert list(progress.bar(range(3), desc="work")) == [0, 1, 2]
    assert seen == {"delay": progress.DELAY, "leave": False, "disable": off, "desc": "work"}
