"""The plan builder as a page of its own, under Voilà; and broken explorers, which the browser tests must reject.

Skipped where there is no Chromium, unless TTQ_REQUIRE_BROWSER=1.
"""

import os
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests import browser
from tests.chapters import NOTEBOOKS
from tests.plan_export import check
from tests.sample import write

APP = NOTEBOOKS / "app" / "plan_builder.ipynb"
RED = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
BLUE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"
EXPLORER = f"""
import base64

import ipywidgets as widgets

red, blue = base64.b64decode("{RED}"), base64.b64decode("{BLUE}")
slider = widgets.IntSlider(value=1, min=1, max=5, description="rank", continuous_update=False)
figure = widgets.Image(value=red).add_class("ttq-figure")
readout = widgets.HTML("rank 1").add_class("ttq-readout")


def draw(change):
    figure.value = blue if figure.value == red else red


def tell(change):
    readout.value = f"rank {{change.new}}"


explorer = widgets.VBox([slider, figure, readout]).add_class("ttq-explorer")
explorer.controls, explorer.draw = {{"rank": slider}}, lambda rank: (None, f"rank {{rank}}")
"""
DRAW, TELL, SHOW = 'slider.observe(draw, "value")', 'slider.observe(tell, "value")', "explorer"
LATE = TELL.replace("tell", "lambda change: setattr(readout, 'value', f'rank {change.old}')")
UNNAMED = "slider.description = ''"
TWICE = 'explorer.children += (widgets.Image(value=red).add_class("ttq-figure"),)'
COMPLAIN = "from IPython.display import Javascript\n\nJavascript(\"console.error('something broke')\")"

# name -> (the cells of a notebook, what must be said of it)
FIXTURES = {
    "good": ([EXPLORER, DRAW, TELL, SHOW], []),
    "unwired": ([EXPLORER, SHOW], ["End on 'rank': the page shows ['5'] and 'rank 1', the plain function ['5'] and"]),
    "no_redraw": ([EXPLORER, TELL, SHOW], ["moving 'rank': the readout changed and the figure did not"]),
    "no_readout": ([EXPLORER, DRAW, SHOW], ["the page shows ['5'] and 'rank 1'"]),
    "one_behind": ([EXPLORER, DRAW, LATE, SHOW], ["'rank 1', the plain function ['5'] and 'rank 5'"]),
    "no_label": ([EXPLORER, DRAW, TELL, UNNAMED, SHOW], ["control 1 has no label"]),
    "two_figures": ([EXPLORER, DRAW, TELL, TWICE, SHOW], ["2 figures, 1 readouts, 1 controls"]),
    "no_widget": (["1"], ["0 explorers in the page"]),
    "two_widgets": ([EXPLORER, DRAW, TELL, SHOW, SHOW], ["2 explorers in the page"]),
    "failing": ([EXPLORER, DRAW, TELL, SHOW, "1 / 0"], ["cell 5: ZeroDivisionError: division by zero"]),
    "console": ([EXPLORER, DRAW, TELL, COMPLAIN, SHOW], ["console error: something broke"]),
}


def test_the_app_answers_under_voila(page):
    namespace: dict = {}
    cells = [cell.source for cell in nbformat.read(APP, as_version=4).cells if cell.cell_type == "code"]
    folder = os.getcwd()
    try:
        os.chdir(APP.parent)
        exec("\n".join(cells), namespace)
    finally:
        os.chdir(folder)
    twin = namespace["explorer"]  # the same builder in this process: what the page must show

    def ask(shown: list[str]) -> tuple[list[str], str]:
        for control, label in zip(twin.controls.values(), shown, strict=True):
            control.label = label
        return shown, twin.readout.value

    browser.leave(page)
    # Voilà's own template asks a server for icons; there may be no network
    page.route(re.compile("^https:"), lambda route: route.fulfill(body="", content_type="text/css"))
    with browser.voila(APP) as address:
        page.goto(address)
        browser.explorers(page).locator(".ttq-figure[src]").wait_for(timeout=60_000)
        assert (found := browser.explorer_problems(page, ask)) == [], "\n".join(found)
        check(page)
        for width in (900, 1400):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), width
        browser.leave(page)


@pytest.fixture(scope="module")
def fixtures(page, warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("widgets") / "notebooks"
    folder.mkdir()
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, (sources, _) in FIXTURES.items():
        ready = [new_code_cell(source.strip()) for source in sources]
        write(new_notebook(cells=ready, metadata={"kernelspec": kernelspec}), folder / f"{name}.ipynb")
    with browser.lab(folder, JUPYTER_PATH=warm) as served:
        yield served


@pytest.mark.parametrize("name", FIXTURES)
def test_a_broken_explorer_is_rejected(page, fixtures, name):
    expected = FIXTURES[name][1]
    found = browser.notebook_problems(page, fixtures, f"{name}.ipynb", seconds=1 if expected else 20)
    browser.stop_kernel(page)
    assert bool(found) == bool(expected), found
    assert all(any(words in line for line in found) for words in expected), found
