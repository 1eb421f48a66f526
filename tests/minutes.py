"""Pytest plugin (`-p tests.minutes`): the minutes of each part at the end of a run, the longest first.

A part is a folder of tests, a file beside the folders, or a chapter. Minutes are those of a worker: of two workers each
minute has two.
"""

from collections import Counter
from pathlib import PurePath

from pytest import TestReport


def part_of(nodeid: str) -> str:
    path = PurePath(nodeid.partition("::")[0])
    return path.parts[1] if len(path.parts) > 2 else path.stem.removeprefix("test_")


def pytest_terminal_summary(terminalreporter) -> None:
    seconds, calls = Counter(), Counter()
    for report in (one for found in terminalreporter.stats.values() for one in found if isinstance(one, TestReport)):
        seconds[part_of(report.nodeid)] += report.duration
        calls[part_of(report.nodeid)] += report.when == "call"
    terminalreporter.write_sep("=", "minutes of a worker, by part")
    for part, took in seconds.most_common():
        terminalreporter.write_line(f"{part:32} {took / 60:6.1f}   {calls[part]:5} tests")
    terminalreporter.write_line(f"{'in all':32} {seconds.total() / 60:6.1f}   {calls.total():5} tests")
