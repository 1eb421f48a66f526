"""The plan builder as a page of its own, under Voilà; and broken explorers, which the browser tests must reject.

Skipped where there is no Chromium, unless TTQ_REQUIRE_BROWSER=1.
"""

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests import browser
from tests.chapters import NOTEBOOKS
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


WIDTHS = (1400, 900, 400)
VOILAS = (  # errors of its own pages, not of ours
    "Content Security Policy",  # its template asks a network for a font: voila.json has the browser refuse
    "403 (Forbidden)",  # it refuses what its page sends when it is left, to stop the kernel
)


def opened(page, address: str):
    """The app in a page that Voilà serves, once all of it is there."""
    page.goto(address, wait_until="commit")
    page.locator(".ttq-picture svg").wait_for(timeout=90_000)
    return browser.explorers(page)


def shows(app, *words: str) -> None:
    """Waits until the read-out says all of these."""
    for text in words:
        app.locator(".ttq-readout", has_text=text).wait_for(timeout=20_000)


def test_the_app_is_moved_by_mouse_and_keyboard_under_voila(page):
    browser.leave(page)
    outside = []
    page.on("requestfinished", lambda request: outside.append(request.url))
    with browser.voila(APP) as address:
        app = opened(page, address)
        app.locator(".ttq-within").click()  # one action: the smallest plan within a point of slot F1
        shows(app, "256.6 kB", "234× smaller", "measured, 3 seeds")
        dot = app.locator("circle[role=button][tabindex='0']")
        dot.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        told = app.locator(".ttq-told").inner_text()
        assert told == page.evaluate("() => document.activeElement.getAttribute('aria-label')") and "3.8 MB" in told
        page.keyboard.press("Enter")
        shows(app, "3.8 MB", "15.9×")
        app.locator("circle[role=button]").nth(0).click()
        shows(app, "138.4 kB", "434×")
        app.locator(".ttq-undo").press("Enter")
        shows(app, "3.8 MB")
        app.locator(".ttq-scroll th button", has_text="slot F1, %, validation").click()
        app.locator(".ttq-scroll th[aria-sort=ascending]", has_text="validation").wait_for()
        app.locator(".ttq-scroll th button", has_text="slot F1, %, validation").press("Enter")
        app.locator(".ttq-scroll tbody button").first.press("Enter")
        shows(app, "3.8 MB", "96.2 %")  # the best that was measured
        three_actions_by_keyboard(page, app)
        link = app.locator(".ttq-link").get_attribute("href")
        code = app.locator(".ttq-program textarea").input_value()
        compile(code, "plan.py", "exec")
        page.set_viewport_size({"width": 1400, "height": 1000})
        assert browser.barriers(page) == []
        check_widths(page, "voila-light")
        app = opened(page, address + "/" + link)
        shows(app, "50× smaller", "measured, 3 seeds")
        assert app.locator(".ttq-program textarea").input_value() == code
        assert [error for error in page.errors if not any(words in error for words in VOILAS)] == []
        browser.leave(page)
    assert [url for url in outside if not url.startswith((address, "data:", "blob:"))] == []


def three_actions_by_keyboard(page, app) -> None:
    """MiniLM, two points, the smallest: each by one key."""
    app.locator("button.mod-active", has_text="ATIS transformer").press("ArrowRight")
    shows(app, "than 90.9 MB")
    slider = app.locator(".widget-hslider", has_text="points behind dense").locator("[role=slider]")
    slider.press("ArrowUp")
    app.locator(".ttq-within", has_text="Smallest within 2 points").press("Enter")
    shows(app, "50× smaller", "measured, 3 seeds")


def check_widths(page, name: str) -> None:
    """Nothing is cut off at any width; one picture of each is kept."""
    browser.SHOTS.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        assert not browser.too_wide(page), width
        height = browser.explorers(page).evaluate("node => Math.ceil(node.getBoundingClientRect().height)")
        page.set_viewport_size({"width": width, "height": height + 400})  # the page scrolls inside itself
        page.screenshot(path=str(browser.SHOTS / f"{name}-{width}.png"))


@pytest.mark.matrix
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_model_of_the_app_can_be_read_in_both_themes(page, theme):
    browser.leave(page)
    with browser.voila(APP, theme) as address:
        app = opened(page, address)
        app.locator(".ttq-beside").click()
        labels = app.locator(".widget-toggle-buttons").first.locator("button").all_inner_texts()
        for number, label in enumerate(labels[:-1]):
            app.locator(".widget-toggle-buttons button", has_text=label).first.click()
            page.wait_for_timeout(1500)
            assert browser.barriers(page) == [], label
            check_widths(page, f"voila-{theme}-{number}")
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
