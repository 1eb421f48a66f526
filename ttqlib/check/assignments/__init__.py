"""The checks behind the graded assignments, one module an assignment, and what they share.

They are called in the test cells of `notebooks/assignments`: `a1.inner_product(function, seed=0)` tries the student's
function and raises `CheckFailed` with one plain line. A module `aN.py` put here is found by its name.
"""

from pathlib import Path

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[path.stem for path in sorted(Path(__file__).parent.glob("a[0-9]*.py"))],
    submod_attrs={"seeds": ["generator", "seed"], "own_work": ["without_library"], "asking": ["ask", "ask_twice"]},
)
