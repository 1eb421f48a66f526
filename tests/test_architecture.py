"""The library keeps its shape: modules import downwards only, stay short and documented, and importing it is cheap."""

import ast
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.chapters import ROOT

# The rooms of docs/house.md from the ground up, and three modules that stand alone: each imports only what is above it.
ORDER = ["progress", "catalog", "tensors", "inventory", "quantizers", "layers", "tasks", "models", "environment"]
ORDER += ["plans", "surgery", "storage", "measures", "allocation", "training", "deployment"]
ORDER += ["plots", "explore", "check"]
NAMESPACES = {"plots", "explore", "check"}  # the modules that are part of the public face
NAMESPACES |= {"assignments", *(f"a{number}" for number in range(1, 9))}  # those of check
HEAVY = ["tensorly", "matplotlib", "ipywidgets", "datasets", "transformers.modeling_utils"]  # loaded on first use
MAX_LINES = 300
MAX_FUNCTION = 40  # lines of a function, its docstring among them
PACKAGE = "ttqlib"
SHORT = [PACKAGE, "experiments"]  # the folders whose modules and functions stay short


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
        if name == "__init__":
            continue
        if name not in order:
            found.append(f"{name}: not one of the modules of the design")
            continue
        for target in sorted(set(imported(ast.parse(path.read_text(encoding="utf-8")), 1 + len(inner)))):
            if target not in order:
                found.append(f"{name}: imports {target or 'the package itself'}, not a module of it")
            elif order.index(target) >= order.index(name):
                found.append(f"{name}: imports {target}, which does not stand above it")
    return found


def long(folder: Path) -> list[str]:
    """The modules and functions that are too long to be read at once."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        name, source = path.relative_to(folder).with_suffix("").as_posix(), path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > MAX_LINES:
            found.append(f"{name}: {lines} lines, at most {MAX_LINES}: two ideas?")
        for node in ast.walk(ast.parse(source)):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if function and (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
                found.append(f"{name}, {node.name}: {lines} lines, at most {MAX_FUNCTION}: two steps?")
    return found


def loops(folder: Path) -> list[str]:
    """The modules of a room that, over others, import themselves."""
    found = []
    for room in sorted(path for path in folder.iterdir() if path.is_dir()):
        imports = {path.stem: set(_beside(ast.parse(path.read_text(encoding="utf-8")))) for path in room.glob("*.py")}
        for name in sorted(imports):
            reached, todo = set(), imports[name].copy()
            while todo:
                reached.add(one := todo.pop())
                todo |= imports.get(one, set()) - reached
            if name in reached:
                found.append(f"{room.name}/{name}: imports itself, over others of its room")
    return found


def _beside(tree: ast.AST) -> Iterator[str]:
    """The modules that one imports from its own room."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def untold(folder: Path, namespaces: set[str] = NAMESPACES) -> list[str]:
    """The rooms whose `__init__.py` is no docstring, or more than one."""
    found = []
    for path in sorted(folder.glob("*/__init__.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            found.append(f"{path.parent.name}: says not what lives in it")
        elif len(tree.body) > 1 and path.parent.name not in namespaces:
            found.append(f"{path.parent.name}: has code in its __init__.py, which every import would run")
    return found


def absent(folder: Path, order: list[str] = ORDER) -> list[str]:
    """Names of the order that are no module: neither a file nor a folder of the package."""
    return [name for name in order if not any((folder / place).exists() for place in (f"{name}.py", name))]


def test_modules_import_downwards():
    assert problems(ROOT / PACKAGE) == []


@pytest.mark.parametrize("folder", SHORT)
def test_modules_and_functions_stay_short(folder):
    assert long(ROOT / folder) == []


def test_the_order_names_every_module_once_and_no_other():
    assert absent(ROOT / PACKAGE) == []
    assert len(set(ORDER)) == len(ORDER)


def test_rooms_have_no_loops_and_say_what_lives_in_them():
    assert loops(ROOT / PACKAGE) == [] and untold(ROOT / PACKAGE) == []


def test_a_loop_inside_a_room_is_rejected(tmp_path):
    (tmp_path / "layers").mkdir()
    circle = {"base": "from . import linear", "linear": "from .thin import pad", "thin": "from .base import x"}
    package(tmp_path / "layers", **circle, embedding="from .base import x\nfrom ..embedding import y")
    assert loops(tmp_path) == [f"layers/{name}: imports itself, over others of its room" for name in circle]


def test_a_room_that_says_nothing_or_does_something_is_rejected(tmp_path):
    for room, source in {"layers": "", "plans": '"""Plans."""', "tasks": '"""Data."""\nimport torch'}.items():
        (tmp_path / room).mkdir()
        package(tmp_path / room, __init__=source)
    expected = ["layers: says not what lives in it", "tasks: has code in its __init__.py, which every import would run"]
    assert untold(tmp_path) == expected
    assert untold(tmp_path, {"tasks"}) == expected[:1]


def test_a_name_without_a_module_is_rejected(tmp_path):
    (tmp_path / "plots").mkdir()
    package(tmp_path, shapes="", layers="")
    assert absent(tmp_path, ["shapes", "teq", "layers", "plots", "allocation"]) == ["teq", "allocation"]


def package(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def test_a_good_package_passes(tmp_path):
    good = package(
        tmp_path,
        __init__="from .layers import *",
        tensors="import math\nimport torch.nn",
        layers="from . import tensors\nfrom .tensors import even\nimport ttqlib.tensors\nfrom ttqlib import tensors",
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
        "from .tensors import itself_is_not_above\nfrom .layers import TTLinear",
    ],
)
def test_an_import_upwards_is_rejected(tmp_path, line):
    assert "tensors: imports layers, which does not stand above it" in problems(package(tmp_path, tensors=line))


def test_a_module_may_be_a_folder_whose_files_import_each_other(tmp_path):
    folder = tmp_path / "layers"
    folder.mkdir()
    package(folder, __init__="from .linear import TTLinear", linear="from .base import Base\nfrom ..tensors import x")
    assert problems(package(tmp_path, __init__="")) == []
    package(folder, base="from ..surgery import x")
    assert problems(tmp_path) == ["layers: imports surgery, which does not stand above it"]


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
    assert long(package(tmp_path, tensors="x = 1\n" * 300)) == []
    (tmp_path / "layers").mkdir()
    package(tmp_path / "layers", linear="x = 1\n" * 301)
    assert long(tmp_path) == ["layers/linear: 301 lines, at most 300: two ideas?"]


@pytest.mark.parametrize("head", ["def f():\n", "async def f():\n", "class A:\n def f(self):\n", "if 1:\n def f():\n"])
def test_a_long_function_is_rejected(tmp_path, head):
    body = '  "A docstring."\n' + "  x = 1\n" * 38
    assert long(package(tmp_path, tensors=head + body)) == []
    assert long(package(tmp_path, tensors=head + body + "  x = 1\n")) == [
        "tensors, f: 41 lines, at most 40: two steps?"
    ]


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


IMPORTS = """
import sys
before = time.process_time()
{baseline}
between = time.process_time()
{statement}
after = time.process_time()
loaded = [name for name in {names} if name in sys.modules]
print(json.dumps([between - before, after - between, loaded]))
"""


def fresh(baseline: str, statement: str, names: list[str]) -> tuple[float, float, list[str]]:
    """In a process of its own: CPU seconds of an import, of another after it, and which modules are loaded then."""
    code = "import json, time" + IMPORTS.format(baseline=baseline, statement=statement, names=names)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def added_cost(measure: Callable[[], tuple[float, float, list[str]]], limit: float, tries: int = 3) -> float:
    """What the second import adds to the first, as a share of it: the least of a few tries, or the first below `limit`.

    CPU time is what a busy machine disturbs least, and it disturbs both alike; only the first process ever may have to
    compile and read the files.
    """
    least = float("inf")
    for _ in range(tries):
        baseline, added, _ = measure()
        least = min(least, added / baseline)
        if least <= limit:
            break
    return least


@cache
def library() -> tuple[float, float, list[str]]:
    """Imported on top of what it registers with: torch, and transformers' registry of quantizers.

    Without them plain `from_pretrained` could not know of plans.
    """
    return fresh("import torch, transformers.quantizers.auto", "import ttqlib", HEAVY)


def test_importing_the_library_loads_nothing_heavy():
    assert library()[2] == []


def test_what_is_loaded_is_seen():
    assert fresh("import wave", "import colorsys", ["wave", "colorsys", "turtle"])[2] == ["wave", "colorsys"]


def test_importing_the_library_costs_little_more_than_what_it_registers_with():
    def measure():
        found = library()
        library.cache_clear()  # the next try is another process
        return found

    assert added_cost(measure, limit=0.05) <= 0.05


def test_an_expensive_import_is_noticed():
    burn = "end = time.process_time() + {}\nwhile time.process_time() < end: pass"
    assert 0.4 < added_cost(lambda: fresh(burn.format(0.4), burn.format(0.2), []), limit=0.2, tries=2) < 0.6


def test_the_best_try_counts_and_no_more_are_made_than_needed():
    tries = iter([(1.0, 0.5, []), (1.0, 0.1, []), (1.0, 0.0, [])])
    assert added_cost(lambda: next(tries), limit=0.2) == 0.1
    assert next(tries) == (1.0, 0.0, [])
