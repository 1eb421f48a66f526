"""How long a newcomer waits, by README's own commands: from `git clone` to the first slider that has moved.

    python -m tests.first_minutes [--ready VENV] [--only lab]

Clones what is committed here, types `make lab`, goes through chapter 0 by Shift+Enter in headless Chromium until there
is a slider, and moves it with an arrow key; then `make app` and its first button, then `make book`. Prints minutes of
each, and how busy the machine was. `--ready` names an environment that is set up already: what is measured is the rest.
With a warm package cache some ten minutes of two quiet cores, most of them pip's.
"""

import argparse
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from tests import browser
from tests.chapters import ROOT

PATIENCE = 3600  # seconds for each step
IS_READY = "is ready"  # what set-up says last


class Minutes:
    """The minutes since the step before, by the name of each step."""

    def __init__(self):
        self.last, self.steps = time.monotonic(), {}

    def reached(self, step: str) -> None:
        now = time.monotonic()
        self.steps[step], self.last = (now - self.last) / 60, now
        print(f"{step:42} {self.steps[step]:5.1f} minutes", flush=True)


@contextmanager
def typed(clone: Path, target: str, ready: Path | None, flags: str = "") -> Iterator[Path]:
    """`make target` in the clone while this is open, with nothing of the user's settings; yields its log."""
    log, place = clone.parent / f"{target}.txt", clone.parent / "settings"
    environment = {**os.environ, "IPYTHONDIR": str(place / "ipython"), "PYTHONPATH": str(clone)}
    environment |= {name: str(place / name.lower()) for name in browser.PRIVATE}
    command = ["make", target, f"LAB_FLAGS={flags}"]
    if ready is not None:  # make takes it for up to date, and leaves it as it is
        command += [f"VENV={ready}", *(f"--old-file={ready}/.ttq-ready-for-{part}" for part in ("lab", "app", "book"))]
    with log.open("w") as file:
        server = subprocess.Popen(
            command, cwd=clone, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield log
        if not flags:  # no server: it comes to its end
            assert server.wait(timeout=PATIENCE) == 0, log.read_text()[-3000:]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)


def served(address: str, log: Path, minutes: Minutes, ready: Path | None, step: str) -> None:
    """Waits for the end of set-up, if there is one, then for the server."""
    end = time.monotonic() + PATIENCE
    while ready is None and IS_READY not in log.read_text():
        assert "Error" not in log.read_text()[-300:] and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(1)
    if ready is None:
        minutes.reached(f"{step}: set-up")
    while not browser.answers(address):
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.5)
    minutes.reached(f"{step}: the server answers")


def move_first_slider(page: Page) -> None:
    """Shift+Enter from the top until a slider is there, then one arrow key."""
    page.locator(browser.CELLS).wait_for(timeout=1000 * PATIENCE)
    page.wait_for_function(browser.KERNEL_IS_IDLE, timeout=1000 * PATIENCE)  # before that, a key opens a dialog
    page.locator(f"{browser.CELLS} .jp-Cell").first.click()
    slider = page.locator("[role=slider]").first
    for _ in range(6):
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(300)
    slider.wait_for(timeout=1000 * PATIENCE)
    readout = page.locator(".widget-readout").first
    before = readout.inner_text()
    slider.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.widget-readout').innerText !== before", arg=before, timeout=1000 * PATIENCE
    )


def lab(clone: Path, minutes: Minutes, ready: Path | None) -> None:
    port, token = browser.free_port(), secrets.token_hex(16)
    flags = f"--no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port={port} --IdentityProvider.token={token}"
    flags += " --LabApp.expose_app_in_browser=True"  # so that the page says when the kernel is there
    address = f"http://127.0.0.1:{port}"
    with typed(clone, "lab", ready, flags) as log, browser.window() as page:
        served(f"{address}/api/status?token={token}", log, minutes, ready, "make lab")
        page.goto(f"{address}/lab/tree/notebooks/00_start_here.ipynb?token={token}")
        move_first_slider(page)
        minutes.reached("the first slider has moved")


def app(clone: Path, minutes: Minutes, ready: Path | None) -> None:
    port = browser.free_port()
    with typed(clone, "app", ready, f"--no-browser --port={port}") as log, browser.window() as page:
        served(f"http://127.0.0.1:{port}/static/favicon.ico", log, minutes, ready, "make app")
        page.goto(f"http://127.0.0.1:{port}", wait_until="commit", timeout=1000 * PATIENCE)
        page.locator(".ttq-picture svg").wait_for(timeout=1000 * PATIENCE)
        minutes.reached("the app is open")
        page.locator(".ttq-within").click()
        page.locator(".ttq-readout", has_text="measured").wait_for(timeout=1000 * PATIENCE)
        minutes.reached("its first answer")


def book(clone: Path, minutes: Minutes, ready: Path | None) -> None:
    with typed(clone, "book", ready):
        pass
    assert (clone / "build" / "book" / "index.html").is_file()
    minutes.reached("make book")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a newcomer's minutes.")
    parser.add_argument("--ready", type=Path, help="an environment that is set up already, and is left as it is")
    parser.add_argument("--only", choices=["lab", "app", "book"], action="append")
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before: above 1 the minutes are others' too")
    with tempfile.TemporaryDirectory(prefix="ttq-first-", ignore_cleanup_errors=True) as folder:
        clone, minutes = Path(folder) / "ttq", Minutes()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        minutes.reached("git clone, from this disk")
        for name, way in {"lab": lab, "app": app, "book": book}.items():
            if name in (options.only or ["lab", "app", "book"]):
                way(clone, minutes, options.ready)
    print(f"{'in all':42} {sum(minutes.steps.values()):5.1f} minutes")


if __name__ == "__main__":
    main()
