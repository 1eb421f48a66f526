#!/usr/bin/env bash
# IPython and nbconvert: alternative text that one stores, the other does not read.
#
# Versions:    ipython 9.18.1, nbconvert 7.17.2; Python 3.11
# Expected:    IPython.display.Image(…, alt="…", width=8) stores both beside the picture, in its metadata. On the HTML
#              page of nbconvert the picture has that width, and that text for those who cannot see it.
# Behaviour:   The width is there. The text is another: "No description has been provided for this image", for every
#              picture. (JupyterLab 4.6.6 too reads the width there and no text; it shows an img without alt.)
# Output seen: stored in the notebook  {'width': 8, 'alt': 'loss against step, falling'}
#              on the page             width=8, alt='No description has been provided for this image'
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile nbconvert==7.17.2 ipython==9.18.1

cd "$work"
export HOME="$work" PATH="$work/venv/bin:$PATH"
python 2>stderr.txt - <<'PYTHON' || { tail -n 5 stderr.txt >&2 && exit 1; }
import base64
import re
import sys

from IPython.core.formatters import DisplayFormatter
from IPython.display import Image
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="  # one pixel
SAID = "loss against step, falling"

data, metadata = DisplayFormatter().format(Image(data=base64.b64decode(DOT), alt=SAID, width=8))
data["image/png"] = DOT  # a kernel sends it so
print("stored in the notebook ", metadata["image/png"])
cell = new_code_cell("…", outputs=[new_output("display_data", data, metadata=metadata)])
page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[cell]))
(picture,) = [tag for tag in re.findall(r"<img.*?>", page, re.S) if DOT in tag]
width, alt = re.search(r'width="?(\d+)', picture), re.search(r'alt="(.*?)"', picture)
print(f"on the page             width={width and width[1]}, alt={alt and alt[1]!r}")
stored = metadata["image/png"]["alt"] == SAID
sys.exit(0 if stored and width and width[1] == "8" and alt and alt[1] != SAID else "changed: not as described")
PYTHON
