"""Chapters in a real JupyterLab, driven in headless Chromium: for tests/test_browser.py, and to look at one:

    python -m tests.browser notebooks/01_tensor_train.ipynb out.png [--width 1400] [--page 1600] [--as-stored]

runs the notebook and writes one picture of all its cells; with --page also out-1.png, out-2.png, … of that height.
The folder of the notebook is copied first, because JupyterLab saves what it opens.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SETTINGS = {
    # every cell is in the page, not only those in view, and no blank screen follows the last
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PRIVATE = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")
CELLS = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"
KERNEL_IS_IDLE = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """() => {
    window.ttqRan = false;
    void window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ttqRan = true });
}"""
FAILED_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, index) => {
    const errors = (cell.model.sharedModel.outputs ?? []).filter(output => output.output_type === 'error');
    const expected = (cell.model.getMetadata('tags') ?? []).includes('raises-exception');
    return expected ? [] : errors.map(error => `cell ${index + 1}: ${error.ename}: ${error.evalue}`);
})"""
RAN = "() => window.ttqRan && !document.body.innerText.includes('[*]:')"


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


class Lab(NamedTuple):
    address: str
    token: str

    def url(self, notebook: str) -> str:
        return f"{self.address}/lab/tree/{notebook}?token={self.token}&reset"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def lab(notebooks: Path) -> Iterator[Lab]:
    """JupyterLab over a copy of the folder, with settings of its own and nothing of the user's."""
    with tempfile.TemporaryDirectory(prefix="ttq-lab-", ignore_cleanup_errors=True) as temporary:
        place = Path(temporary)
        copy = shutil.copytree(notebooks, place / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        if (data := notebooks.parent / "data").is_dir():  # chapters read ../data
            (place / "data").symlink_to(data)
        environment = {**os.environ, "IPYTHONDIR": str(place / "ipython")}
        environment |= {name: str(place / name.lower()) for name in PRIVATE}
        for name, values in SETTINGS.items():
            file = place / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        served = Lab(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
        command += [f"--ServerApp.port={served.address.rsplit(':')[-1]}", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={served.token}", f"--ServerApp.root_dir={copy}"]
        command += ["--LabApp.expose_app_in_browser=True"]
        log = place / "log.txt"
        with log.open("w") as file:
            server = subprocess.Popen(command, env=environment, cwd=copy, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_until_served(served, server, log)
            yield served
        finally:
            server.terminate()  # the server shuts its kernels down
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_until_served(served: Lab, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{served.address}/api/status?token={served.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def window(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A browser window; what it logs as an error is collected in `page.errors`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.errors = []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        try:
            yield page
        finally:
            browser.close()


def open_notebook(page: Page, served: Lab, name: str) -> None:
    """Opens a notebook and waits for its kernel: run before that, and a dialog asks for one."""
    page.errors.clear()
    page.goto(served.url(name))
    page.locator(CELLS).wait_for(timeout=60_000)
    page.wait_for_function(KERNEL_IS_IDLE, timeout=60_000)


def run_all(page: Page, seconds: float = 300) -> list[str]:
    """Runs all cells and waits for them; one line for each that fails, check cells apart."""
    page.evaluate(RUN_ALL)
    page.wait_for_function(RAN, timeout=seconds * 1000)
    page.wait_for_function(KERNEL_IS_IDLE, timeout=60_000)
    return page.evaluate(FAILED_CELLS)


def stop_kernel(page: Page) -> None:
    """So that the kernels of many chapters do not pile up in memory."""
    page.evaluate("() => { void window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")


def explorers(page: Page) -> Locator:
    return page.locator(f"{CELLS} .ttq-explorer")


def move_slider(explorer: Locator, key: str = "ArrowRight") -> None:
    """One step of the explorer's first slider, from the keyboard, as a reader without a mouse would."""
    slider = explorer.get_by_role("slider").first
    slider.scroll_into_view_if_needed()
    slider.focus()
    slider.press(key)


def explorer_problems(page: Page, seconds: float = 20) -> list[str]:
    """After run_all: moves the first slider of every explorer in the page and says what did not follow."""
    found = []
    count = explorers(page).count()
    if count == 0:
        found.append("no explorer in the page")
    for number in range(count):
        one = explorers(page).nth(number)
        figure, readout = one.locator(".ttq-figure"), one.locator(".ttq-readout")
        here = f"explorer {number + 1}: "
        if figure.count() != 1 or readout.count() != 1 or one.get_by_role("slider").count() == 0:
            found.append(f"{here}{figure.count()} figures, {readout.count()} readouts, not one of each and a slider")
            continue
        old_source, old_text = figure.get_attribute("src"), readout.inner_text()
        move_slider(one)
        try:
            expect(readout).not_to_have_text(re.compile(f"^{re.escape(old_text.strip())}$"), timeout=seconds * 1000)
        except AssertionError:
            found.append(f"{here}the readout did not change when the slider moved")
        try:
            expect(figure).not_to_have_attribute("src", old_source or "", timeout=seconds * 1000)
        except AssertionError:
            found.append(f"{here}the figure did not change when the slider moved")
        if not figure.evaluate("image => image.complete && image.naturalWidth > 0"):
            found.append(f"{here}the figure is not a picture that can be shown")
        if figure.count() != 1:
            found.append(f"{here}{figure.count()} figures after the slider moved")
    return found + [f"console error: {error}" for error in page.errors]


def screenshot(page: Page, target: Path, page_height: int | None = None) -> list[Path]:
    """All cells of the open notebook in one picture, and on request cut into pages of a given height."""
    from PIL import Image

    page.evaluate("() => { void window.jupyterapp.commands.execute('application:toggle-left-area') }")
    width, scroller = page.viewport_size["width"], page.locator(f"{CELLS} .jp-WindowedPanel-outer")
    for _ in range(2):  # a taller window may wrap lines elsewhere
        page.wait_for_timeout(500)
        height = scroller.evaluate("node => node.scrollHeight + window.innerHeight - node.clientHeight")
        page.set_viewport_size({"width": width, "height": int(height)})
    page.wait_for_timeout(1000)
    page.screenshot(path=str(target))
    if page_height is None:
        return [target]
    whole, pages = Image.open(target), []
    for number, top in enumerate(range(0, whole.height, page_height), start=1):
        pages.append(target.with_name(f"{target.stem}-{number}{target.suffix}"))
        whole.crop((0, top, whole.width, min(top + page_height, whole.height))).save(pages[-1])
    return [target, *pages]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook in JupyterLab and take a picture of all its cells.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--page", type=int, help="also cut the picture into pages of this height")
    parser.add_argument("--as-stored", action="store_true", help="show the stored outputs, run nothing")
    options = parser.parse_args()
    with lab(options.notebook.resolve().parent) as served, window(options.width) as page:
        open_notebook(page, served, options.notebook.name)
        found = []
        if not options.as_stored:
            try:
                found += run_all(page)
            except PlaywrightTimeout:
                found.append("not all cells ran in time")
        found += [f"console error: {error}" for error in page.errors]
        print(*screenshot(page, options.picture, options.page), *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
