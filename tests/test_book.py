"""The book: built from what is stored, without a warning, and read in headless Chromium without a network.

The pages are built once, all of them, which takes a minute. The tests in a browser are skipped where there is none.
"""

import json
import os
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.browser import SHOTS, barriers
from tests.chapters import CHAPTERS, ROOT

BUILD = ROOT / "docs" / "book" / "build.py"
MATH = """async () => {
    const written = [...document.querySelectorAll('.math')];
    if (written.length) await MathJax.startup.promise;
    const shown = node => node.closest('details') || node.getBoundingClientRect().height > 0;
    const drawn = written.filter(node => [...node.querySelectorAll('mjx-container svg')].some(shown));
    const wrong = document.querySelectorAll('[data-mjx-error], mjx-merror, [data-mml-node=merror]').length;
    const texts = [...document.querySelectorAll('p, li, td')].map(node => node.innerText);
    const raw = texts.filter(text => /\\$\\$|\\\\frac/.test(text)).length;
    return [written.length, drawn.length, wrong + raw];
}"""


class Page(HTMLParser):
    """The links, the anchors and the pictures of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.update(filter(None, (found.get("id"), found.get("name"))))
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append(found.get("alt") or "")


def link_problems(folder: Path) -> list[str]:
    """Links that lead nowhere, and pictures without words."""
    pages, found = {path: Page(path) for path in sorted(folder.rglob("*.html"))}, []
    for path, page in pages.items():
        name = path.relative_to(folder)
        found += [f"{name}: a picture without alternative text" for alt in page.pictures if not alt.strip()]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name}: {link} leads nowhere")
            elif (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors | {"", "#"}
            ):
                found.append(f"{name}: {link} names no place of that page")
    return found


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    if "TTQ_BOOK" in os.environ:  # one that is built already, to work on these tests
        return Path(os.environ["TTQ_BOOK"])
    folder = tmp_path_factory.mktemp("book") / "book"
    command = [sys.executable, str(BUILD), "--target", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr[-4000:]  # every warning is an error
    return folder


@pytest.fixture(scope="module")
def served(book):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_link_leads_somewhere_and_every_picture_has_words(book):
    assert link_problems(book) == []
    for path in CHAPTERS:
        assert (book / "notebooks" / f"{path.stem}.html").exists()


def test_every_public_function_has_its_place(book):
    import ttqlib

    anchors = set().union(*(Page(path).anchors for path in (book / "api").glob("*.html")))
    ends = {anchor.rpartition(".")[2] for anchor in anchors}
    assert [name for name in ttqlib.__all__ if callable(getattr(ttqlib, name)) and name not in ends] == []


def test_formulas_are_drawn_and_nothing_comes_from_outside(page, book, served):
    outside = []
    page.on(
        "request", lambda request: None if request.url.startswith((served, "data:")) else outside.append(request.url)
    )
    formulas = 0
    for path in sorted(book.rglob("*.html")):
        name = path.relative_to(book).as_posix()
        page.goto(f"{served}/{name}")
        written, drawn, wrong = page.evaluate(MATH)
        assert drawn == written and wrong == 0, f"{name}: {drawn} of {written} formulas, {wrong} with an error"
        assert page.errors == [], f"{name}: {page.errors}"
        formulas += written
    assert formulas > 500 and outside == []


def test_the_book_is_searched_read_in_the_dark_and_used_without_a_mouse(page, served):
    page.goto(f"{served}/search.html?q=staircase")
    page.locator("#search-results li a").first.wait_for(timeout=30_000)
    page.goto(f"{served}/index.html")
    reached, skipped = [], "() => document.activeElement.textContent.trim()"
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(skipped))
        if any("Tensor trains" in name for name in reached):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/notebooks/01_tensor_train.html")
    theme = "() => getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(theme)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(theme) != light
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), width
    assert page.errors == []


READ = ["index", *(f"notebooks/{name}" for name in ("00_start_here", "04_quantization", "12_choose_rank_and_bits"))]


@pytest.mark.parametrize("name", READ)
def test_nobody_stumbles_over_the_first_page_or_a_chapter(page, served, name):
    page.goto(f"{served}/{name}.html")
    SHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1400, 900, 400):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(300)
            page.screenshot(path=str(SHOTS / f"book-{Path(name).name}-{scheme}-{width}.png"))
        assert barriers(page, "body") == [], scheme


# -------------------------------------------------------------------------------------------- what a checker must see


def test_a_broken_page_is_rejected(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a><img src="c.png" alt=" "><a href="#top">up</a>')
    (tmp_path / "b.html").write_text('<p id="there">')
    assert link_problems(tmp_path) == [
        "a.html: a picture without alternative text",
        "a.html: b.html#here names no place of that page",
        "a.html: c.png leads nowhere",
        "a.html: #top names no place of that page",
    ]


def test_sliders_become_a_word_and_pictures_keep_theirs():
    sys.path.insert(0, str(BUILD.parent))
    try:
        import build
    finally:
        sys.path.pop(0)
    shown = new_output("display_data", {build.WIDGET: {"model_id": "x"}, "text/plain": "VBox()"})
    described = new_output("display_data", {"image/png": "aa"}, metadata={"image/png": {"alt": "loss against step."}})
    bare = new_output("display_data", {"image/png": "aa"})
    cells = [new_markdown_cell("## A $x$"), *(new_code_cell("1", outputs=[one]) for one in (shown, described, bare))]
    notebook = build.readable(new_notebook(cells=cells))
    assert "make lab" in notebook.cells[1].outputs[0].data["text/markdown"]
    alts = [cell.metadata.mystnb["image"]["alt"] for cell in notebook.cells[2:]]
    assert alts == ["loss against step.", "Figure in the section “A x”."]
    nbformat.validate(notebook)
    assert json.dumps(notebook)
