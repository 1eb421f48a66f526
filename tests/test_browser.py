"""The explorers of every chapter, moved by keyboard in a real JupyterLab.

Only the cells run that an explorer needs, some with less to do (tests/slices.py): the chapters as a whole are nbval's.
Skipped where there is no Chromium, unless TTQ_REQUIRE_BROWSER=1. Pages of other kinds, and broken explorers:
tests/test_app.py.
"""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests import browser, plan_export
from tests.chapters import CHAPTERS, ROOT, name_of
from tests.kernels import slowness
from tests.sample import write
from tests.slices import SHORTER, explorer_slice, shortened

REDRAW = 0.15  # seconds of CPU time that 95 of 100 redraws stay below, on a machine as fast as the reference
TIME = """
import time


def seconds_of_redraws():
    found = []
    for control in explorer.controls.values():
        first = control.value
        values = [value for _, value in control._options_full] if hasattr(control, "_options_full") else [
            control.min, (control.min + control.max) // 2, control.max
        ]
        for value in [*values[:: 1 + len(values) // 4], first]:
            if value != control.value:
                start = time.process_time()
                control.value = value
                found.append(time.process_time() - start)
    return sorted(found)
"""


def sliced(paths, folder) -> None:
    for path in paths:
        slice_ = explorer_slice(nbformat.read(path, as_version=4))
        write(shortened(slice_, SHORTER.get(path.stem, {})), folder / path.name)


@pytest.fixture(scope="module")
def chapters(page, warm, tmp_path_factory):
    place = tmp_path_factory.mktemp("chapters")
    (place / "notebooks").mkdir()
    (place / "data").symlink_to(ROOT / "data")
    sliced(CHAPTERS, place / "notebooks")
    with browser.lab(place / "notebooks", JUPYTER_PATH=warm) as served:
        yield served


@pytest.mark.parametrize("path", CHAPTERS[::-1], ids=name_of)  # the longest begin (tests/scheduling.py)
def test_an_explorer_answers(page, chapters, path, record_property):
    assert (found := browser.notebook_problems(page, chapters, path.name)) == [], "\n".join(found)
    for _ in range(3):  # beside a neighbour that computes some take longer; what is slow by itself is slow every time
        if percentile(times := redraws(page)) < REDRAW * slowness():
            break
    record_property(f"redraws of {path.stem}", f"{len(times)}, p95 {1000 * percentile(times):.0f} ms")
    assert len(times) >= 4 and percentile(times) < REDRAW * slowness()
    if path.name.startswith("07"):
        plan_export.check(page)
    browser.stop_kernel(page)


@pytest.mark.matrix
@pytest.mark.parametrize("path", CHAPTERS[::-1], ids=name_of)
def test_an_explorer_can_be_read_at_every_width_in_both_themes(page, chapters, path):
    browser.open_notebook(page, chapters, path.name)
    assert browser.run_all(page) == []
    browser.explorers(page).locator(".ttq-figure[src]").wait_for(timeout=20_000)
    page.evaluate(browser.NO_SIDEBAR)  # as somebody with a narrow window does: it takes 300 px
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(browser.THEME, theme)
        for width in (1400, 900, 400):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(1500)
            assert browser.barriers(page) == [] and not browser.too_wide(page), (theme, width)
            browser.SHOTS.mkdir(parents=True, exist_ok=True)
            browser.explorers(page).screenshot(path=str(browser.SHOTS / f"{path.stem}-{theme[11:]}-{width}.png"))
    page.set_viewport_size({"width": 1400, "height": 1000})
    browser.stop_kernel(page)


def redraws(page) -> list[float]:
    define = f"[exec({TIME!r}, globals()), __import__('json').dumps(seconds_of_redraws())][1]"
    return json.loads(browser.ask_kernel(page, define))


def percentile(times: list[float]) -> float:
    """The 95th."""
    return sorted(times)[int(0.95 * (len(times) - 1))]


# ------------------------------------------------------------------------------------------------------------- slices


def slice_of(*sources: str) -> list[str]:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    return [cell.source for cell in explorer_slice(notebook).cells]


@pytest.mark.parametrize(
    "needed",
    [
        ["a = 1", "explorer = a"],
        ["a = []", "a.append(1)", "explorer = a"],
        ["a = {}", "a[0] = 1", "explorer = a"],
        ["a = 1", "a += 1", "explorer = a"],
        ["b = 2", "a = [1]", "change(a, b)", "explorer = a"],
        ["import library", "def make():\n    return library.thing", "explorer = make()"],
        ["a = 3", "def make(x):\n    y = a\n    return x + y", "explorer = make(1)"],
        ["a = 3", "explorer = [a for x in range(3)]"],
        ["a = 3", "explorer = lambda x: x + a"],
    ],
    ids=lambda sources: " | ".join(sources),
)
def test_a_slice_holds_what_the_explorer_needs(needed):
    others = ["x = 5", "print(a)", "for y in range(3):\n    x = y", "[a for a in range(2)]", "library.seed(0)"]
    assert slice_of(*others[:1], *needed[:-1], *others[1:], needed[-1], "explorer.after = 1") == needed


def test_what_a_cell_makes_and_changes_itself_needs_no_older_cell():
    assert slice_of("a = {}", "a = {}\na[0] = 1", "explorer = a") == ["a = {}\na[0] = 1", "explorer = a"]


def test_a_chapter_without_an_explorer_has_no_slice():
    with pytest.raises(ValueError, match="no cell makes 'explorer'"):
        slice_of("a = 1", "print(explorer)")


@pytest.mark.parametrize("sources", [["a = 1"], ["a = 160", "b = 160"], ["a = 160 + 160"]], ids=" | ".join)
def test_what_makes_a_slice_shorter_must_stand_there_once(sources):
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    with pytest.raises(ValueError, match="'160' must stand in the slice once"):
        shortened(notebook, {"160": "16"})


def test_a_slice_is_made_shorter():
    assert shortened(new_notebook(cells=[new_code_cell("a = 160")]), {"160": "16"}).cells[0].source == "a = 16"
