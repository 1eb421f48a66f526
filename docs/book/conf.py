"""Settings of the book, for Sphinx; `build.py` beside this file lays its sources out and runs it.

Sphinx with MyST-NB and the theme Furo, and not Jupyter Book: version 2 of that needs Node and fetches its theme when it
builds, version 1 is these with more around them.
"""

import re
from importlib.metadata import files
from pathlib import Path

project, author, copyright = "TTQ", "The TTQ authors", "2026 The TTQ authors, Apache 2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["**.ipynb_checkpoints"]

nb_execution_mode = "off"  # what is stored has been compared by `make chapters`
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # a chapter may begin a section one level lower
    "misc.highlighting_failure",  # %magics in code
]

html_theme = "furo"
html_title = "TTQ: quantized tensor-train transformers"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_theme_options = {"navigation_with_keys": True}
html_show_sourcelink = html_copy_source = False

# One file, laid beside the pages by build.py, which draws formulas without fonts of its own and without a network.
mathjax_path = "tex-svg.js"
(MATHJAX,) = (Path(file.locate()) for file in files("sphinx-mathjax-offline") if file.name == "tex-svg.js")

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "literal"  # docstrings write names as Markdown does


def plain(app, what, name, object, options, lines: list[str]) -> None:
    """What docstrings write as people do: |w| is an absolute value, and a plural ends right behind a `name`s."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = line.split("`")  # those of odd places are code
            lines[number] = "`".join(
                part if place % 2 else part.replace("|", "\\|") for place, part in enumerate(parts)
            )
            lines[number] = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", lines[number])


def reachable(app, exception) -> None:
    """What the theme leaves out: levels of the sidebar's headings, and keys that scroll what is wider than the page."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = text.replace('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">')
        page.write_text(
            re.sub(r'<(pre(?=>)|div(?= class="table-wrapper))', r'<\1 tabindex="0"', text), encoding="utf-8"
        )


def setup(app) -> None:
    app.connect("autodoc-process-docstring", plain)
    app.connect("build-finished", reachable)
