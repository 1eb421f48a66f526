"""Chapters in a real JupyterLab and pages under Voilà, driven in headless Chromium: for the tests, and to look at one:

    python -m tests.browser notebooks/01_tensor_train.ipynb out.png [--width 1400] [--page 1600] [--as-stored]

runs the notebook and writes one picture of all its cells; with --page also out-1.png, out-2.png, … of that height.
The folder of the notebook is copied first, because JupyterLab saves what it opens.
"""

import argparse
import ast
import html
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.chapters import ROOT

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
DARK = {"apputils-extension/themes": {"theme": "JupyterLab Dark"}}
PRIVATE = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")
CELLS = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"
KERNEL_IS_IDLE = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """() => {
    window.ttqRan = false;
    void window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ttqRan = true });
}"""
OPEN_ANOTHER = """async name => {
    window.jupyterapp.shell.currentWidget?.dispose();
    await window.jupyterapp.commands.execute('docmanager:open', {path: name});
}"""
FAILED_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, index) => {
    const errors = (cell.model.sharedModel.outputs ?? []).filter(output => output.output_type === 'error');
    const expected = (cell.model.getMetadata('tags') ?? []).includes('raises-exception');
    return expected ? [] : errors.map(error => `cell ${index + 1}: ${error.ename}: ${error.evalue}`);
})"""
EVALUATE = """async expression => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const asked = kernel.requestExecute({code: '', silent: true, user_expressions: {answer: expression}});
    return (await asked.done).content.user_expressions.answer;
}"""
ACTIVE_CELL = "() => window.jupyterapp?.shell?.currentWidget?.content?.activeCellIndex ?? null"
NO_SIDEBAR = "() => { window.jupyterapp.shell.collapseLeft() }"
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
SHOTS = ROOT / "runs" / "screenshots"  # which git ignores: to be looked at
KEYS = {  # the controls that explorers are made of, by class, and what is pressed on each
    "widget-hslider": ("End", "Home", "ArrowUp"),  # JupyterLab would take ArrowUp for a move to another cell
    "widget-toggle-buttons": ("End", "Home", "ArrowDown"),
}
ASK = """__import__("json").dumps([
    [c._options_labels[c.index] if hasattr(c, "index") else str(c.value) for c in explorer.controls.values()],
    explorer.draw(**{name: control.value for name, control in explorer.controls.items()})[1],
])"""
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
def lab(notebooks: Path, **variables: str) -> Iterator[Lab]:
    """JupyterLab over a copy of the folder, with settings of its own and nothing of the user's.

    `variables` are set in its environment.
    """
    with tempfile.TemporaryDirectory(prefix="ttq-lab-", ignore_cleanup_errors=True) as temporary:
        place = Path(temporary)
        copy = shutil.copytree(notebooks, place / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        if (data := notebooks.parent / "data").is_dir():  # chapters read ../data
            (place / "data").symlink_to(data.resolve())
        for name, values in SETTINGS.items():
            file = place / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        served = Lab(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
        command += [f"--ServerApp.port={served.address.rsplit(':')[-1]}", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={served.token}", f"--ServerApp.root_dir={copy}"]
        command += ["--LabApp.expose_app_in_browser=True"]
        with running(command, copy, place, f"{served.address}/api/status?token={served.token}", variables):
            yield served


@contextmanager
def voila(notebook: Path, theme: str = "light") -> Iterator[str]:
    """The address at which Voilà serves a notebook as a page, with the configuration that lies beside it."""
    with tempfile.TemporaryDirectory(prefix="ttq-voila-", ignore_cleanup_errors=True) as temporary:
        address = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={address.rsplit(':')[-1]}"]
        command.append(f"--theme={theme}")
        with running(command, notebook.parent, Path(temporary), f"{address}/static/favicon.ico"):
            yield address


@contextmanager
def running(
    command: list[str], folder: Path, place: Path, answers: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """A server with nothing of the user's settings, from when it answers at that address until it is left."""
    environment = {**os.environ, "IPYTHONDIR": str(place / "ipython")}
    environment |= {name: str(place / name.lower()) for name in PRIVATE} | dict(variables)
    log = place / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until_served(answers, server, log)
        yield
    finally:
        server.terminate()  # the server shuts its kernels down
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_served(address: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        if answers(address):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")


def answers(address: str) -> bool:
    """Whether a server answers there, be it with a refusal."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False


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
    if page.url.startswith(served.address):  # in the place of the one before: loading JupyterLab takes seconds
        page.errors.clear()
        page.evaluate(OPEN_ANOTHER, name)
    else:
        leave(page)
        page.goto(served.url(name))
    page.locator(CELLS).wait_for(timeout=60_000)
    page.wait_for_function(KERNEL_IS_IDLE, timeout=60_000)


def leave(page: Page) -> None:
    """Leaves a page whose server may be gone: what it complains of is not the next page's."""
    page.goto("about:blank")
    page.errors.clear()


def run_all(page: Page, seconds: float = 300) -> list[str]:
    """Runs all cells and waits for them; one line for each that fails, check cells apart."""
    page.evaluate(RUN_ALL)
    page.wait_for_function(RAN, timeout=seconds * 1000, polling=200)  # by default the page is read 60 times a second
    page.wait_for_function(KERNEL_IS_IDLE, timeout=60_000)
    return page.evaluate(FAILED_CELLS)


def stop_kernel(page: Page) -> None:
    """So that the kernels of many chapters do not pile up in memory."""
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def ask_kernel(page: Page, expression: str) -> str:
    """The string that an expression has in the kernel of the open notebook."""
    answer = page.evaluate(EVALUATE, expression)
    if answer["status"] != "ok":
        raise RuntimeError(f"{answer['ename']}: {answer['evalue']}")
    return ast.literal_eval(answer["data"]["text/plain"])


def explorers(page: Page) -> Locator:
    return page.locator(".ttq-explorer:visible")


class Control:
    """One control of an explorer, as somebody without a mouse meets it."""

    def __init__(self, root: Locator):
        self.root, self.kind = root, next(kind for kind in KEYS if kind in root.get_attribute("class").split())
        self.label = root.locator(".widget-label").first.inner_text().strip()

    def shown(self) -> str:
        """The value that it shows."""
        if self.kind == "widget-toggle-buttons":
            return self.root.locator("button.mod-active").inner_text().strip()
        return self.root.locator(".widget-readout").inner_text().strip()

    def press(self, key: str) -> None:
        part = "button.mod-active" if self.kind == "widget-toggle-buttons" else "[role=slider]"
        self.root.locator(part).press(key)

    def is_disabled(self) -> bool:
        return self.kind.endswith("slider") and self.root.locator("[disabled], .noUi-target[disabled]").count() > 0


def controls_of(explorer: Locator) -> list[Control]:
    found = explorer.locator(", ".join(f".{kind}" for kind in KEYS))
    return [Control(found.nth(number)) for number in range(found.count())]


def explorer_problems(page: Page, ask: Callable[[list[str]], tuple[list[str], str]], seconds: float = 20) -> list[str]:
    """After run_all: moves every control of the explorer in the page by keyboard, and says what did not follow.

    `ask`, given the values that its controls show, returns those that they have, and what the plain function reads out
    for them. A control that another one has disabled is left alone.
    """
    if explorers(page).count() != 1:
        return [f"{explorers(page).count()} explorers in the page", *console_errors(page)]
    found, one = [], explorers(page)
    figure, readout, controls = one.locator(".ttq-figure"), one.locator(".ttq-readout"), controls_of(one)
    if figure.count() != 1 or readout.count() != 1 or not controls:
        return [
            f"{figure.count()} figures, {readout.count()} readouts, {len(controls)} controls",
            *console_errors(page),
        ]
    found += [f"control {number + 1} has no label" for number, control in enumerate(controls) if not control.label]
    moved, cell = 0, page.evaluate(ACTIVE_CELL)
    for control in controls:
        pictures, texts = {figure.get_attribute("src")}, {readout.inner_text()}
        for key in KEYS[control.kind]:
            if control.is_disabled():
                continue
            before = control.shown()
            control.press(key)
            if page.evaluate(ACTIVE_CELL) != cell:
                return [*found, f"{key} on {control.label!r}: the notebook went to another cell"]
            if problem := _difference(controls, readout, ask, seconds):
                found.append(f"{key} on {control.label!r}: {problem}")
            if figure.count() != 1 or not figure.evaluate("image => image.complete && image.naturalWidth > 0"):
                found.append(f"{key} on {control.label!r}: {figure.count()} figures, or none that can be shown")
            pictures.add(figure.get_attribute("src"))
            texts.add(readout.inner_text())
            moved += control.shown() != before
        if len(texts) > 1 == len(pictures):  # one small step may move a line by less than a pixel, three do not
            found.append(f"moving {control.label!r}: the readout changed and the figure did not")
        if len(found) > 3:
            break  # the first few tell enough
    if moved < len(controls):
        found.append(f"{moved} moves by keyboard reached {len(controls)} controls")
    return found + console_errors(page)


def notebook_problems(page: Page, served: Lab, name: str, seconds: float = 20) -> list[str]:
    """Opens a notebook, runs it and moves its `explorer`: the cells that fail and what did not follow."""
    open_notebook(page, served, name)
    found = run_all(page)
    return found + explorer_problems(page, lambda _: json.loads(ask_kernel(page, ASK)), seconds)


def _difference(controls: list[Control], readout: Locator, ask, seconds: float) -> str | None:
    """Waits until the page and the plain function agree; what they say where they do not."""
    end, values = time.monotonic() + seconds, None
    while True:
        shown, text = [control.shown() for control in controls], readout.inner_text()
        if shown != values:  # else the plain function, which draws, has told already what belongs to these
            values, expected = ask(shown)
        if shown == values and _plain(text) == _plain(expected):
            return None
        if time.monotonic() > end:
            return f"the page shows {shown} and {_plain(text)!r}, the plain function {values} and {_plain(expected)!r}"
        time.sleep(0.1)


def _plain(text: str) -> str:
    return " ".join(html.unescape(text.replace("<br>", " ")).split())


def barriers(page: Page, part: str = ".ttq-explorer") -> list[str]:
    """What axe-core finds in a part that somebody with a screen reader, or no mouse, would stumble over."""
    options = {"preload": False}  # it would fetch the page's stylesheets once more
    found = Axe().run(page, context=part, options=options).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['impact']}: {one['id']}, as in {one['nodes'][0]['html'][:150]}" for one in serious]


def too_wide(page: Page) -> bool:
    """Whether an explorer is wider than its place, so that a part of it cannot be seen."""
    return explorers(page).evaluate("node => node.scrollWidth > node.clientWidth + 2")


def console_errors(page: Page) -> list[str]:
    return [f"console error: {error}" for error in page.errors]


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
    parser.add_argument("--dark", action="store_true", help="in JupyterLab's dark theme")
    options = parser.parse_args()
    SETTINGS.update(DARK if options.dark else {})
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
