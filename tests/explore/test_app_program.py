"""What is exported: programs that run as they stand and write the bytes that the app shows, to the byte."""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from transformers import RobertaConfig, RobertaForMaskedLM

import ttqlib as ttq
from tests.explore.models import SIZE
from tests.explore.test_app_costs import WEIGHERS, plans
from ttqlib.explore.app.costs import Weigher
from ttqlib.explore.app.program import plan_code, program
from ttqlib.explore.app.sources import known, opened

ATIS = Path(os.environ.get("TTQ_DATA", ".")) / "atis" / "train.jsonl"
ROBERTA = RobertaConfig(**SIZE, max_position_embeddings=20, architectures=["RobertaForSequenceClassification"])


@settings(max_examples=30, phases=[Phase.generate])
@given(plans())
def test_the_lines_of_a_plan_make_it(case):
    family, plan = case
    layers, made = WEIGHERS[family].layers, {}
    exec(plan_code(layers, plan), {"ttq": ttq, "model": layers.model}, made)
    assert made["config"] == plan


def test_layers_that_stand_alike_share_a_line():
    layers = WEIGHERS["bert"].layers
    plan = layers.turned(layers.plan({}, 8), layers.groups["attention"], form="train of 2", rank=3, bits=2)
    code = plan_code(layers, plan)
    assert code.count("ttq.TT(") == 4 and r"layer\.\d+\.attention" in code
    plan = layers.turned(plan, layers.groups["attention"][:1], bits=4)
    assert plan_code(layers, plan).count("ttq.TT(") == 5 and r"layer\.(0)\.attention" in plan_code(layers, plan)


def mixed(weigher: Weigher) -> ttq.TTQConfig:
    """A plan that has everything: trains, a low rank, dense, 1 bit, one layer apart, one left to the rest."""
    layers, groups = weigher.layers, weigher.layers.groups
    plan = layers.turned(layers.plan({}, 8), groups["words"], form="low rank", rank=8, bits=4)
    for group in ("attention", "feed-forward"):
        plan = layers.turned(plan, groups[group], form="train of 2", rank=6, bits=2)
    plan = layers.turned(plan, groups["attention"][:1], form="dense", bits=1)
    return layers.turned(plan, groups["feed-forward"][-1:], form="as the rest")


def run(text: str, folder: Path) -> tuple[int, int, dict]:
    """The bytes that a program says, those of the folder that it writes, and its names."""
    told, names = io.StringIO(), {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(told):
        exec(text, names)
    written = sum(file.stat().st_size for file in (folder / "compressed").iterdir())
    return int(re.search(r"(\d+) bytes\n$", told.getvalue())[1]), written, names


def check(key: str, folder: Path) -> dict:
    source = opened(key)
    weigher = Weigher(source.bare())
    plan = mixed(weigher)
    size = weigher.cost(plan).stored_bytes
    text = program(source, weigher.layers, plan, size)
    said, written, names = run(text, folder)
    assert said == written == size and f"{size:,} bytes" in text
    assert names["config"] == plan and names["model"].ttq_config == plan
    return {**names, "text": text}


@pytest.mark.parametrize("weights", [False, True])
def test_a_folder_that_the_suite_has_never_seen(tmp_path, weights):
    place = tmp_path / "roberta"
    if weights:
        RobertaForMaskedLM(ROBERTA).save_pretrained(place)
    else:
        ROBERTA.save_pretrained(place)
    names = check(str(place), tmp_path)
    assert ("from_pretrained" in names["text"].split("model =")[1]) == weights
    assert type(ttq.load(tmp_path / "compressed")) is type(names["model"])


def test_minilm(tmp_path):
    check("minilm-sst2", tmp_path)


@pytest.mark.skipif(not ATIS.is_file(), reason="ATIS is not here: TTQ_DATA names no folder with it")
def test_atis_and_the_lines_that_train_it(tmp_path):
    names = check("atis", tmp_path)
    lines = [line[2:] for line in names["text"].split("take the # away:\n")[1].splitlines() if line.startswith("# ")]
    short = "\n".join(lines).replace("num_train_epochs=20", "max_steps=1, report_to=[], use_cpu=True")
    assert short != "\n".join(lines)
    names["task"]["train"] = names["task"]["train"].select(range(8))
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
        exec(short, names)
    assert names["trainer"].state.global_step == 1


@pytest.mark.matrix
@pytest.mark.parametrize("key", [key for key in known() if key not in ("atis", "minilm-sst2")])
def test_every_other_model(tmp_path, key):
    check(key, tmp_path)


def test_what_is_no_model_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'nowhere' is no folder here, and the hub cannot be reached"):
        opened("nowhere")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        opened(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        opened(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["Nonsense"]}')
    with pytest.raises(ValueError, match="must name one of transformers' models, got"):
        opened(str(tmp_path))
