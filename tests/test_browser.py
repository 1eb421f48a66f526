"""The explorers of every chapter, moved in a real JupyterLab; and the same function rejects a widget that is not wired.

Skipped where there is no Chromium, unless TTQ_REQUIRE_BROWSER=1.
"""

import os

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests import browser
from tests.chapters import CHAPTERS, NOTEBOOKS, name_of
from tests.sample import write

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
    figure.value = blue


def tell(change):
    readout.value = f"rank {{change.new}}"


explorer = widgets.VBox([slider, figure, readout]).add_class("ttq-explorer")
"""
DRAW, TELL, SHOW = 'slider.observe(draw, "value")', 'slider.observe(tell, "value")', "explorer"
TWICE = 'explorer.children += (widgets.Image(value=red).add_class("ttq-figure"),)'
COMPLAIN = "from IPython.display import Javascript\n\nJavascript(\"console.error('something broke')\")"

# name -> (the cells of a notebook, what must be said of it)
FIXTURES = {
    "good": ([EXPLORER, DRAW, TELL, SHOW], []),
    "unwired": ([EXPLORER, SHOW], ["the readout did not change", "the figure did not change"]),
    "no_redraw": ([EXPLORER, TELL, SHOW], ["the figure did not change"]),
    "no_readout": ([EXPLORER, DRAW, SHOW], ["the readout did not change"]),
    "two_figures": ([EXPLORER, DRAW, TELL, TWICE, SHOW], ["2 figures, 1 readouts"]),
    "no_widget": (["1"], ["no explorer in the page"]),
    "failing": ([EXPLORER, DRAW, TELL, SHOW, "1 / 0"], ["cell 5: ZeroDivisionError: division by zero"]),
    "console": ([EXPLORER, DRAW, TELL, COMPLAIN, SHOW], ["console error: something broke"]),
}


@pytest.fixture(scope="module")
def page():
    if browser.chromium() is None:
        reason = "no Chromium on this machine: apt-get install --no-install-recommends chromium"
        (pytest.fail if os.environ.get("TTQ_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    with browser.window() as page:
        yield page


def problems(page, served, name: str, seconds: float = 20) -> list[str]:
    browser.open_notebook(page, served, name)
    found = browser.run_all(page) + browser.explorer_problems(page, seconds)
    browser.stop_kernel(page)
    return found


@pytest.fixture(scope="module")
def chapters(page):
    with browser.lab(NOTEBOOKS) as served:
        yield served


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_an_explorer_answers(page, chapters, path):
    assert problems(page, chapters, path.name) == []


@pytest.fixture(scope="module")
def fixtures(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("widgets") / "notebooks"
    folder.mkdir()
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, (sources, _) in FIXTURES.items():
        ready = [new_code_cell(source.strip()) for source in sources]
        write(new_notebook(cells=ready, metadata={"kernelspec": kernelspec}), folder / f"{name}.ipynb")
    with browser.lab(folder) as served:
        yield served


@pytest.mark.parametrize("name", FIXTURES)
def test_a_broken_explorer_is_rejected(page, fixtures, name):
    found, expected = problems(page, fixtures, f"{name}.ipynb", seconds=2), FIXTURES[name][1]
    assert len(found) == len(expected), found
    assert all(words in line for words, line in zip(expected, found)), found
