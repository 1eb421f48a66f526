"""The library keeps its shape: modules import downwards only, stay short and documented, and importing it is cheap."""

import ast
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.chapters import ROOT

# From the ground up, as in design §3: a module imports only modules above it. `layers` became two files there.
ORDER = ["allocator", "shapes", "benchmark", "fake_quantization", "quantizers", "activations", "tasks", "models"]
ORDER += ["environment", "tensor_train", "layers", "embeddings", "rotation", "planning", "calibration", "compress"]
ORDER += ["thin_products", "attention", "fusion"]
ORDER += ["packing", "folders", "stored", "checkpoint", "pretrained", "training", "measure", "losses", "observation"]
ORDER += ["matching", "schedules", "pairing", "distill", "teq", "allocation", "predictor", "deploy", "plots"]
ORDER += ["explore", "check"]
NAMESPACES = {"plots", "explore", "check"}  # the modules that are part of the public face
HEAVY = ["tensorly", "matplotlib", "ipywidgets", "datasets", "transformers.modeling_utils"]  # loaded on first use
MAX_LINES = 300
PACKAGE = "ttqlib"


# ------------------------------------------------------------------------------------------------ imports and sizes


def imported(tree: ast.AST, depth: int = 1) -> Iterator[str]:
    """The modules of the package that a module imports, at any depth; '' stands for the package itself.

    A module may be a folder: its files lie at `depth` 2, and what they import from each other does not count.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if 0 < node.level < depth:
                continue
            base = ".".join(filter(None, [PACKAGE if node.level else "", node.module]))
            names = [f"{base}.{alias.name}" if base == PACKAGE else base for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            names = [PACKAGE + name if name.startswith(".") else name for name in names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield (name.split(".") + [""])[1]


def problems(folder: Path, order: list[str] = ORDER) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        name, *inner = path.relative_to(folder).with_suffix("").parts
        source = path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > MAX_LINES:
            found.append(f"{'/'.join([name, *inner])}: {lines} lines, at most {MAX_LINES}: two ideas?")
        if name == "__init__":
            continue
        if name not in order:
            found.append(f"{name}: not one of the modules of the design")
            continue
        for target in sorted(set(imported(ast.parse(source), 1 + len(inner)))):
            if target not in order:
                found.append(f"{name}: imports {target or 'the package itself'}, not a module of it")
            elif order.index(target) >= order.index(name):
                found.append(f"{name}: imports {target}, which does not stand above it")
    return found


def test_modules_import_downwards_and_stay_short():
    assert problems(ROOT / PACKAGE) == []


def package(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def test_a_good_package_passes(tmp_path):
    good = package(
        tmp_path,
        __init__="from .layers import *",
        shapes="import math\nimport torch.nn",
        layers="from . import shapes\nfrom .shapes import balanced\nimport ttqlib.shapes\nfrom ttqlib import shapes",
    )
    assert problems(good) == []


@pytest.mark.parametrize(
    "line",
    [
        "from .layers import TTLinear",
        "from . import layers",
        "from ttqlib import layers",
        "from ttqlib.layers import TTLinear",
        "import ttqlib.layers as below",
        "def late():\n    from .layers import TTLinear",
        "import importlib\nimportlib.import_module('ttqlib.layers')",
        "import importlib\nimportlib.import_module('.layers', __package__)",
        "from .shapes import itself_is_not_above\nfrom .layers import TTLinear",
    ],
)
def test_an_import_upwards_is_rejected(tmp_path, line):
    assert "shapes: imports layers, which does not stand above it" in problems(package(tmp_path, shapes=line))


def test_a_module_may_be_a_folder_whose_files_import_each_other(tmp_path):
    folder = tmp_path / "layers"
    folder.mkdir()
    package(folder, __init__="from .linear import TTLinear", linear="from .base import Base\nfrom ..shapes import x")
    assert problems(package(tmp_path, __init__="")) == []
    package(folder, base="from ..compress import x", linear="x = 1\n" * 301)
    assert problems(tmp_path) == [
        "layers: imports compress, which does not stand above it",
        "layers/linear: 301 lines, at most 300: two ideas?",
    ]


@pytest.mark.parametrize("line", ["import ttqlib", "import ttqlib as ttq", "from . import TTLinear"])
def test_an_import_of_the_package_itself_is_rejected(tmp_path, line):
    (found,) = problems(package(tmp_path, layers=line))
    assert found.endswith("not a module of it")


def test_a_module_outside_the_design_is_rejected(tmp_path):
    (tmp_path / "helpers").mkdir()
    package(tmp_path, utils="")
    package(tmp_path / "helpers", more="")
    assert problems(tmp_path) == [
        "helpers: not one of the modules of the design",
        "utils: not one of the modules of the design",
    ]


def test_a_long_module_is_rejected(tmp_path):
    assert problems(package(tmp_path, shapes="x = 1\n" * 300)) == []
    assert problems(package(tmp_path, shapes="x = 1\n" * 301)) == ["shapes: 301 lines, at most 300: two ideas?"]


# -------------------------------------------------------------------------------------------------- the public face


def members(module) -> dict[str, object]:
    """What a module offers: its `__all__`, or else the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def has_docstring(value) -> bool:
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    written = bool(text and text.strip())
    return written and not text.startswith(f"{value.__name__}(")  # what @dataclass puts there by itself


def face_problems(module) -> list[str]:
    found = []
    for name, value in members(module).items():
        if isinstance(value, types.ModuleType):
            if name not in NAMESPACES:
                found.append(f"{name} is a module in the public face")
            found += [f"{name}.{problem}" for problem in face_problems(value)]
        elif name in ORDER:
            found.append(f"{name} is named like a module, which would replace it")
        elif callable(value) and not has_docstring(value):
            found.append(f"{name} has no docstring")
    return found


def test_the_public_face_is_documented_and_named_apart():
    import ttqlib

    assert ttqlib.__all__
    assert face_problems(ttqlib) == []


def test_a_bad_public_face_is_rejected():
    face, plots = types.ModuleType("face"), types.ModuleType("plots")
    source = """
from dataclasses import dataclass
class Base:
    "A base."
class Bare(Base): pass
@dataclass
class Recipe:
    rank: int
def layers(): "Named like a module."
def fine(): "Says what it does."
def silent(): pass
"""
    exec(source, vars(face))
    exec("def draw(): pass\ndef _hidden(): pass", vars(plots))
    face.plots = plots
    face.shapes = types.ModuleType("shapes")
    face.__all__ = ["Base", "Bare", "Recipe", "layers", "fine", "silent", "plots", "shapes"]
    assert face_problems(face) == [
        "Bare has no docstring",
        "Recipe has no docstring",
        "layers is named like a module, which would replace it",
        "silent has no docstring",
        "plots.draw has no docstring",
        "shapes is a module in the public face",
    ]


# ------------------------------------------------------------------------------------------------- cost of importing


def python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return run.stdout


def loaded(statement: str, names: list[str]) -> list[str]:
    return json.loads(
        python(f"{statement}\nimport json, sys\nprint(json.dumps([n for n in {names} if n in sys.modules]))")
    )


def test_importing_the_library_loads_nothing_heavy():
    assert loaded("import ttqlib", HEAVY) == []


def test_what_is_loaded_is_seen():
    assert loaded("import wave, colorsys", ["wave", "colorsys", "turtle"]) == ["wave", "colorsys"]


def import_cost(statement: str, baseline: str, limit: float, rounds: int = 8, at_least: int = 3) -> float:
    """CPU time of one statement over another's: medians of several fresh processes each, which take turns.

    CPU time is what a busy machine disturbs least. Stops early once the ratio is under `limit`.
    """
    seconds = {baseline: [], statement: []}
    for number in range(rounds + 1):
        for one, times in seconds.items():
            times.append(float(python(f"import time\n{one}\nprint(time.process_time())")))
            if not number:
                times.clear()  # the first round only warms the disk cache
        if number >= at_least and median(seconds[statement]) <= limit * median(seconds[baseline]):
            break
    return median(seconds[statement]) / median(seconds[baseline])


def test_importing_the_library_costs_little_more_than_what_it_registers_with():
    """torch and transformers' registry of quantizers: without them plain `from_pretrained` could not know of plans."""
    assert import_cost("import ttqlib", "import torch, transformers.quantizers.auto", limit=1.2) <= 1.2


def test_an_expensive_import_is_noticed():
    burn = "import json\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    assert import_cost(burn, "import json", limit=1.2, rounds=3) > 1.2
