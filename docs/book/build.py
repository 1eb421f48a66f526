"""Builds the book, build/book/index.html: `make book`, or `python docs/book/build.py CHAPTER …` for some chapters.

The pages are those of the checkout: README, chapters with their stored outputs, docs/, and the public names of ttqlib
by the room that they live in. They lie in build/book-source as they lie here, so that links between them hold; sliders
become their still picture and a word on how to move them.
"""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "findings/README.md"]
WIDGET = "application/vnd.jupyter.widget-view+json"
SLIDERS = (
    "*Here are sliders. To move them, open this chapter with `make lab` and run it. The picture below shows where they "
    "stand at first.*"
)
LINK = re.compile(r"(\]\()([^)\s#:]+)")
ROOMS = ("tensors", "quantizers", "layers", "inventory", "tasks", "models", "plans", "surgery", "storage", "measures")
ROOMS += ("allocation", "training", "deployment")
START = """
```{toctree}
:caption: Chapters
:hidden:
:glob:
notebooks/[0-9]*
```

```{toctree}
:caption: For teachers
:hidden:
docs/instructor
docs/mistakes
docs/assignments_measured
```

```{toctree}
:caption: Reference
:hidden:
docs/install
docs/own_model
docs/cluster
docs/results
docs/families
docs/extend
docs/house
docs/profile
api/index
```

```{toctree}
:caption: The project
:hidden:
CONTRIBUTING
CODE_OF_CONDUCT
SECURITY
CHANGELOG
data/README
findings/README
```
"""


def lay_out(source: Path, chapters: list[Path]) -> None:
    """The sources of the book, as they lie in the checkout; README becomes the first page."""
    shutil.rmtree(source, ignore_errors=True)
    pages = [ROOT / name for name in PAGES] + sorted((ROOT / "docs").glob("*.md"))
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in pages}
    texts[Path("index.md")] = (ROOT / "README.md").read_text(encoding="utf-8") + START
    for path in chapters:
        texts[path.relative_to(ROOT)] = nbformat.writes(readable(nbformat.read(path, as_version=4)))
    texts |= {Path("api") / name: text for name, text in api_pages().items()}
    for name, text in texts.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(_linked(text, name, source, texts), encoding="utf-8")


def readable(notebook):
    """A notebook for reading: a word in the place of sliders, and on every picture what it shows."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
            continue
        described = [_described(output, heading) for output in cell.outputs if "image/png" in output.get("data", {})]
        if described:
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(described)}}
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/markdown": SLIDERS}
    return notebook


def _described(output, heading: str) -> str:
    """The alternative text that `ttqlib.plots` gave a figure; of others, where they stand."""
    return output.metadata.get("image/png", {}).get("alt") or f"Figure in the section “{heading.replace('$', '')}”."


def _linked(text: str, name: Path, source: Path, texts) -> str:
    """Links to README lead to the first page; what a page links to that is none of the book lies beside it."""

    def settle(match: re.Match) -> str:
        target = (ROOT / name.parent / match[2]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        inside = target.relative_to(ROOT)
        if inside == Path("README.md"):
            return f"{match[1]}{'../' * (len(name.parts) - 1)}index.md"
        if target.is_file() and inside not in texts:
            (source / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, source / inside)
        return match[0]

    return text if name.suffix == ".ipynb" else LINK.sub(settle, text)


def api_pages() -> dict[str, str]:
    """A page for each room, with its public names in the order of their modules, and one that lists the rooms."""
    import ttqlib

    homes: dict[str, list[str]] = {}
    for name in ttqlib.__all__:
        value = getattr(ttqlib, name)
        module = getattr(value, "__module__", "")
        if callable(value) and module.startswith("ttqlib."):
            homes.setdefault(module.split(".")[1], []).append(f"{module}.{name}")
    for space in ("plots", "explore", "check"):
        module = importlib.import_module(f"ttqlib.{space}")
        homes[space] = [f"ttqlib.{space}.{name}" for name in module.__all__ if callable(getattr(module, name))]
    order = [room for room in ROOMS if room in homes] + sorted(set(homes).difference(ROOMS))
    pages = {f"{room}.md": _api_page(room, homes[room]) for room in order}
    listed = "\n".join(order)
    pages["index.md"] = (
        "# ttqlib\n\nEvery public name, by the room that it lives in; `import ttqlib as ttq` has them all. "
        f"[The house](../docs/house.md) says what the rooms are.\n\n```{{toctree}}\n{listed}\n```\n"
    )
    return pages


def _api_page(room: str, names: list[str]) -> str:
    import ttqlib

    said = importlib.import_module(f"ttqlib.{room}").__doc__ or ""
    directives = []
    for full in names:
        value = getattr(ttqlib, full.rpartition(".")[2], None) or getattr(
            getattr(ttqlib, room), full.rpartition(".")[2]
        )
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        directives.append(f"```{{eval-rst}}\n.. {kind}:: {full}\n" + "   :members:\n" * (kind == "autoclass") + "```")
    return f"# {room}\n\n{said}\n\n" + "\n\n".join(directives) + "\n"


def build(target: Path, source: Path, chapters: list[Path]) -> int:
    """Lay the sources out and run Sphinx on them; every warning is an error. Returns its exit status."""
    lay_out(source, chapters)
    from conf import MATHJAX  # which stands beside this file

    static = source / "_static"
    static.mkdir()
    shutil.copy(MATHJAX, static)
    for name in ("book.css", "favicon.svg"):
        shutil.copy(Path(__file__).with_name(name), static)
    shutil.copy(Path(__file__).with_name("conf.py"), source)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", "2"]
    return subprocess.run([*command, "-d", source.with_name("doctrees"), source, target], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("chapters", nargs="*", type=Path, help="only these, to look at one quickly")
    parser.add_argument("--target", type=Path, default=ROOT / "build" / "book")
    options = parser.parse_args()
    chapters = options.chapters or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    status = build(options.target, options.target.with_name("book-source"), [path.resolve() for path in chapters])
    if not status:
        print(f"open {options.target / 'index.html'} in a browser")
    return status


if __name__ == "__main__":
    sys.exit(main())
