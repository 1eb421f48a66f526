"""experiments/speed.py compares like with like, counts work by the book, and measures what is missing."""

import json
import multiprocessing
import os
import sys
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import builds
import contenders
import deployed
import floor
import jobs
import pytest
import results
import speed
import torch
from torch import nn
from transformers import BertConfig

import ttqlib as ttq

TINY = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96}
WIDE = BertConfig(vocab_size=20_000, max_position_embeddings=16, **{**TINY, "hidden_size": 256})
FORMS = ["dense", "dense-bf16", "dense-int8", "tt", "fused", "fused-bf16", "fused-int8", "fused-onnx-int8"]
RIVALS = ["svd", "narrow"]
IDS = torch.arange(1, 33).reshape(2, 16)


# ------------------------------------------------------------------------------------------------------------- floor


def test_the_work_of_a_layer_is_that_of_its_products_and_of_what_they_touch():
    rows, n, m = 10, 6, 4
    layer, x = nn.Linear(n, m), torch.randn(rows, n, requires_grad=True)
    forward = floor.work(lambda: layer(x).relu() + 1)
    assert forward.flops == 2 * rows * n * m
    assert forward.bytes == 4 * (rows * n + n * m + m + rows * m)  # x, weight, bias, y
    both = floor.work(lambda: layer(x).backward(torch.ones(rows, m)))
    assert both.flops == 3 * forward.flops
    backward = 4 * (rows * m + rows * n + n * m + rows * n + n * m)  # dy, x, weight, dx, dweight
    assert both.bytes == forward.bytes + backward


def test_what_a_pass_uses_twice_counts_once():
    a, b = torch.randn(5, 5), torch.randn(5, 5)
    assert floor.work(lambda: a @ b).bytes == 3 * 100
    assert floor.work(lambda: (a @ b, a @ b.T)).bytes == 4 * 100


def test_a_look_up_reads_the_rows_that_it_returns():
    table, ids = nn.Embedding(1000, 8), torch.tensor([3, 5, 5])
    assert (floor.work(lambda: table(ids)).flops, floor.work(lambda: table(ids)).bytes) == (0, 2 * 3 * 8 * 4)
    step = floor.work(lambda: table(ids).sum().backward())
    assert step.bytes >= 2 * 3 * 8 * 4 + 1000 * 8 * 4  # its gradient is as large as the table


def test_attention_is_among_the_products():
    q = torch.randn(2, 3, 16, 8)
    with torch.no_grad():
        counted = floor.work(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert counted.flops == 2 * 2 * 2 * 3 * 16 * 16 * 8 and counted.bytes >= 2 * q.nbytes


def test_a_tensor_train_has_less_to_do_than_the_dense_layer_but_not_nothing():
    x = torch.randn(64, 96)
    dense, tt = (floor.work(lambda layer=layer: layer(x)) for layer in (nn.Linear(96, 96), ttq.TTLinear(96, 96, 4)))
    assert 0 < tt.flops < dense.flops / 5 and 2 * x.nbytes < tt.bytes < dense.bytes


def test_a_floor_adds_the_time_of_products_to_that_of_copies():
    assert floor.Rates(flops=2e9, bytes=1e9).floor(flops=1_000_000, size=3_000_000) == pytest.approx(0.5 + 3)
    rates = floor.Rates.measured(rounds=2)
    assert rates.flops > 1e8 and rates.bytes > 1e7


# ------------------------------------------------------------------------------------------------------------- forms


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    deployed.write_forms(WIDE, folder, rank=4, names=FORMS + RIVALS)
    return folder


def test_forms_of_one_model_give_one_answer(forms):
    answers = {name: torch.as_tensor(deployed.load_form(forms / name)(IDS)) for name in FORMS}
    for name, answer in answers.items():
        same = answers["dense" if name.startswith("dense") else "tt"]
        assert torch.allclose(answer, same, atol=0.1 if "-" in name else 1e-5), name
    assert not any(torch.equal(answers[f"fused-{few}"], answers["fused"]) for few in ("bf16", "int8"))
    assert not torch.allclose(answers["dense"], answers["tt"], atol=0.1)


def test_a_compiled_form_gives_the_same_answer(forms, monkeypatch):
    """Traced and run, but by a backend that needs no C++ compiler, whose half a minute would tell nothing of ours."""
    compiled = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run: compiled.append(run) or compile_(run, backend="eager"))
    answer = deployed.load_form(forms / "fused", compiled=True)(IDS)
    assert len(compiled) == 1 and torch.allclose(answer, deployed.load_form(forms / "fused")(IDS), atol=1e-5)


def test_files_shrink_from_form_to_form(forms):
    sizes = {name: deployed.file_bytes(forms / name) for name in FORMS}
    assert sizes["dense"] > sizes["dense-int8"] > sizes["fused"] > sizes["fused-onnx-int8"]
    assert all(1.9 < sizes[form] / sizes[f"{form}-bf16"] < 2 for form in ("dense", "fused"))
    assert sizes["fused"] > sizes["fused-int8"] and sizes["dense"] > sizes["tt"]


def test_rivals_have_the_rank_of_the_trains_or_no_more_bytes(forms):
    svd, narrow, fused = (torch.load(forms / name, weights_only=False) for name in (*RIVALS, "fused"))
    thin = [{layer.weight.shape for layer in model.modules() if type(layer) is nn.Linear} for model in (svd, fused)]
    assert thin[0] == thin[1]  # at run time a fused train is a low-rank product
    assert narrow.config.num_hidden_layers == WIDE.num_hidden_layers
    config, most = BertConfig(vocab_size=100, **{**TINY, "hidden_size": 96}), 200_000
    made = deployed.narrow(config, most)
    hidden, taken = made.config.hidden_size, ttq.parameter_bytes(made)
    assert hidden < 96 and hidden % 16 == 0 and taken <= most < taken * ((hidden + 16) / hidden) ** 2
    assert deployed.narrow(config, 10**9).config.to_dict() == config.to_dict()


@pytest.mark.skipif(not deployed.sys.platform.startswith("linux"), reason="read from /proc")
def test_a_fresh_process_grows_by_what_a_form_holds(forms):
    size = deployed.file_bytes(forms / "dense")
    assert size < deployed.process_bytes(forms / "dense", IDS) < 6 * size


def test_a_process_of_its_own_answers_until_it_ends(forms):
    before = set(multiprocessing.active_children())
    ask = deployed.own_process(forms / "fused", IDS)
    (process,) = set(multiprocessing.active_children()) - before
    ask()
    ask()
    assert process.is_alive()
    process.kill()
    with pytest.raises((EOFError, OSError)):
        ask()


@pytest.mark.parametrize("how", [set(), {"kept"}, {"kept", "compiled"}], ids=["as is", "kept", "kept and compiled"])
def test_that_process_keeps_memory_and_compiles_where_it_is_told_to(monkeypatch, how):
    """In a thread of this one, where memory cannot be kept."""
    here, there = multiprocessing.Pipe()
    loaded, answered = [], []
    monkeypatch.setattr(ttq, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(deployed, "load_form", lambda *given: loaded.append(given) or answered.append)
    serving = Thread(target=deployed._serve, args=(there, torch.get_num_threads(), "a form", IDS, "cpu", how))
    serving.start()
    assert here.poll(30) and here.recv() is ("kept" not in how) and loaded == [("a form", "cpu", "compiled" in how)]
    here.send(None)
    assert here.poll(30) and here.recv() is None and len(answered) == 1 and torch.equal(answered[0], IDS)
    here.close()
    serving.join(30)
    assert not serving.is_alive()


@pytest.fixture
def in_threads(monkeypatch):
    """What would be a process of its own is a thread of this one, which starts at once; connections are copied."""

    class InThread(Thread):
        def __init__(self, target, args, daemon):
            connection = Connection(os.dup(args[0].fileno()))
            super().__init__(target=target, args=(connection, *args[1:]), daemon=daemon)

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=InThread)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


def test_memory_that_cannot_be_kept_is_an_error(in_threads, monkeypatch):
    monkeypatch.setattr(deployed, "_serve", lambda connection, *_: connection.send(False))
    with pytest.raises(OSError, match="needs Linux with glibc"):
        deployed.own_process("a form", IDS, how={"kept"})


# -------------------------------------------------------------------------------------------------------------- rows


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two tasks of no size, and a folder of results of their own."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(floor, "SIZE", 64)
    monkeypatch.setattr(floor, "COPIED", 2**16)
    tasks = {
        "linear 8→8": (speed.LAYERS, contenders.linear_layers, (8, 8), 2),
        "embedding 50×96": (speed.LAYERS, contenders.embedding_layers, (50, 96), 2),
    }
    monkeypatch.setattr(speed, "TASKS", tasks)


def test_every_task_can_be_asked_for_by_itself(capsys):
    assert speed.parse([]).tasks == list(speed.TASKS)
    for task in speed.TASKS:
        assert speed.parse([task]).tasks == [task]  # a whole name is no part of another
        assert speed.methods(speed.TASKS[task][0], "cpu")
    words = ["linear", "embedding"]
    assert speed.parse(words).tasks == [task for task in speed.TASKS if any(word in task for word in words)]
    assert not any("compress_" in task for task in speed.parse(["--device", "cuda"]).tasks)  # they run on the CPU
    speed.main(["--list", "bert-large 8×128"])
    assert capsys.readouterr().out == "bert-large 8×128\n"
    for wrong, said in {"gpt": "no task contains 'gpt'", "--rounds=0": "--rounds must be at least 1"}.items():
        with pytest.raises(SystemExit):
            speed.parse([wrong])
        assert said in capsys.readouterr().err


def test_rows_are_complete_and_are_measured_once(small, capsys):
    speed.main(["linear", "--record"])
    rows = {row["method"]: row for row in results.load("speed")}
    assert list(rows) == speed.methods(speed.LAYERS, "cpu")
    assert [rows["dense"]["rank"], rows["tt"]["rank"]] == [None, 30]
    for row in rows.values():
        assert {"milliseconds", "speedup", "peak_bytes", "flops", "touched_bytes", "floor"} <= set(row["metrics"])
        assert row["metrics"]["milliseconds"]["mean"] > 0 and row["metrics"]["flops"]["sd"] == 0
    assert rows["dense"]["metrics"]["speedup"] == {"mean": 1, "sd": 0} and rows["dense"]["ratio"] == 1
    before = (results.RESULTS / "speed.json").read_bytes()
    speed.main(["linear", "--record"])
    assert "linear 8→8: there already" in capsys.readouterr().out
    assert (results.RESULTS / "speed.json").read_bytes() == before
    speed.main(["linear", "--force", "--record"])
    assert len(results.load("speed")) == len(rows) and (results.RESULTS / "speed.json").read_bytes() != before


def test_a_task_is_measured_again_where_a_row_is_missing(small, monkeypatch, capsys):
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    path = results.RUNS / "speed" / "results.json"
    speed.main(["embedding"])
    assert "tensorly-torch is left out" in capsys.readouterr().out
    rows = results.read(path)
    assert [row["method"] for row in rows] == ["dense", "tt"] and not results.RESULTS.exists()
    path.write_text(json.dumps({"rows": rows[:1]}))
    speed.main(["embedding", "--rounds", "1"])
    assert [row["method"] for row in results.read(path)] == ["dense", "tt"]
    assert "embedding 50×96: 1 of 1" in capsys.readouterr().out


def test_a_model_is_measured_in_all_its_forms(small, monkeypatch):
    monkeypatch.setitem(deployed.SHAPES, "tiny", {**TINY, "hidden_size": 192, "intermediate_size": 768})
    monkeypatch.setattr(speed, "SEEDS", (0, 1))
    forms = {name: deployed.FORMS[name] for name in ("dense", "tt", "fused", "fused-int8")}
    monkeypatch.setattr(contenders, "FORMS", forms)
    monkeypatch.setattr(contenders, "process_bytes", lambda path, ids: path.stat().st_size)
    rows = speed.measure(contenders.forward_pass, ("tiny", (1, 8)), list(forms), "cpu", rounds=1)
    contenders.forms.cache_clear()
    assert {name: (row["rank"], row["bits"]) for name, row in rows.items()} == forms
    metrics = {name: row["metrics"] for name, row in rows.items()}
    assert (
        "flops" not in metrics["fused-int8"] and metrics["fused"]["flops"]["mean"] < metrics["dense"]["flops"]["mean"]
    )
    assert metrics["fused"]["floor"]["mean"] < metrics["dense"]["floor"]["mean"]
    assert metrics["tt"]["process_bytes"] == {"mean": rows["tt"]["stored_bytes"], "sd": None}  # once is enough
    assert metrics["tt"]["speedup"]["sd"] is not None and rows["dense"]["ratio"] == 1 < rows["tt"]["ratio"]


def test_a_model_is_measured_in_processes_of_its_own(small, in_threads, monkeypatch):
    monkeypatch.setattr(ttq, "keep_freed_memory", lambda: True)
    monkeypatch.setitem(deployed.SHAPES, "tiny", TINY)
    monkeypatch.setattr(speed, "SEEDS", (0,))
    monkeypatch.setattr(contenders, "FORMS", {name: deployed.FORMS[name] for name in ("dense", "fused")})
    names = ["dense", "fused", "fused, kept"]
    rows = speed.measure(contenders.own_processes, ("tiny", (1, 8)), names, "cpu", rounds=1)
    contenders.forms.cache_clear()
    assert list(rows) == names and "floor" not in rows["fused"]["metrics"]
    assert rows["fused, kept"]["stored_bytes"] == rows["fused"]["stored_bytes"] < rows["dense"]["stored_bytes"]
    assert min(row["metrics"]["milliseconds"]["mean"] for row in rows.values()) > 0


def test_a_training_step_is_that_of_atis_py():
    step = contenders.training_step("flights", ["dense", "tt-qat"], "cpu")
    assert (step["dense"].rank, step["tt-qat"].rank, step["tt-qat"].bits) == (None, 12, 4)
    assert step["dense"].stored_bytes > 20 * step["tt-qat"].stored_bytes
    step["tt-qat"].run()


# ------------------------------------------------------------------------------------------------------------ builds

SHAPE = {**TINY, "vocab_size": 200}


@pytest.mark.parametrize(
    "job",
    [
        lambda: jobs.Compression(SHAPE, rank=4),
        lambda: jobs.Compression(SHAPE, rank=4, batches=1),
        lambda: jobs.TrainingStep(SHAPE, rank=4),
        lambda: jobs.Answer(SHAPE, "fused-int8", (1, 8), rank=4),
    ],
    ids=["compress_", "calibrated", "training step", "answer"],
)
def test_a_job_can_be_done_again_and_tells_what_it_made(job):
    made = job()
    assert made.run() > 0 and made.run() > 0
    facts = made.facts()
    assert facts["stored_bytes"] < facts["dense_bytes"]
    if "errors" in facts:
        assert facts["errors"].keys() == made.plan.layers.keys() and 0 < min(facts["errors"].values()) < 1


def test_an_older_build_is_the_tree_of_its_commit():
    with builds.tree("HEAD") as folder:
        assert (folder / "ttqlib/__init__.py").is_file() and not (folder / ".git").exists()
    assert not folder.exists()
    with pytest.raises(ValueError, match="no commit 'no such one' in this repository"), builds.tree("no such one"):
        pass


STUB = """
import json, sys
sys.path.insert(0, "{root}")
import ttqlib
for line in sys.stdin:
    where = line == "where\\n"
    print(json.dumps(ttqlib.__file__ if where else [sys.argv[1:3], line.strip()]), flush=True)
    if line == "end\\n":
        break
"""


def test_a_build_runs_in_a_process_of_its_own(tmp_path, monkeypatch):
    """Here one that imports no PyTorch, so that it starts at once."""
    (tmp_path / "ttqlib").mkdir()
    (tmp_path / "ttqlib/__init__.py").write_text("")
    stub = tmp_path / "stub.py"
    stub.write_text(STUB.format(root=tmp_path))
    monkeypatch.setattr(builds, "__file__", str(stub))
    with builds.process(tmp_path, "Job", {"rank": 3}) as ask:
        assert ask("run") == [["Job", '{"rank": 3}'], "run"] and ask("end")[1] == "end"
        with pytest.raises(RuntimeError, match="could not do Job with"):
            ask("run")
    with pytest.raises(RuntimeError, match="which is not in"), builds.process(builds.ROOT, "Job", {}):
        pass


def test_a_process_serves_a_job(monkeypatch, capsys):
    class Job:
        def __init__(self, size):
            self.size = size

        def run(self):
            print("a line that is no answer")
            return float(self.size)

        def facts(self):
            return {"stored_bytes": self.size}

    monkeypatch.setitem(jobs.JOBS, "Job", Job)
    monkeypatch.setattr(sys, "stdin", iter(["where\n", "run\n", "facts\n"]))
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which `serve` turns away
    builds.serve("Job", {"size": 3}, torch.get_num_threads())
    where, ran, facts = map(json.loads, capsys.readouterr().out.splitlines())
    assert Path(where).parent.name == "ttqlib" and facts == {"stored_bytes": 3}
    assert ran["seconds"] == 3 and ran["process_bytes"] >= 0


def test_a_renamed_name_is_found_under_its_older_one(monkeypatch):
    monkeypatch.setitem(jobs.RENAMED, "compress_better_", ("never_there", "compress_"))
    assert jobs.Api().compress_better_ is ttq.compress_ and jobs.Api().plan is ttq.plan
    with pytest.raises(AttributeError, match="no missing: name its predecessor in RENAMED"):
        _ = jobs.Api().missing


class Fake:
    """A build that takes as long as it is told, the first time a hundred times longer."""

    def __init__(self, seconds, errors):
        self.seconds, self.errors, self.asked = seconds, errors, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, what):
        if what == "facts":
            sizes = {"rank": 30, "bits": 4, "stored_bytes": 5, "dense_bytes": 20}
            return {**sizes, "errors": self.errors, "losses": list(self.errors.values())}
        self.asked += 1
        return {"seconds": self.seconds * (100 if self.asked == 1 else 1), "process_bytes": 1000 * self.asked}


def test_two_builds_are_compared_in_turns(small, monkeypatch, capsys):
    fakes = {"old": Fake(3.0, {"a": 0.5, "b": 0.1}), builds.ROOT: Fake(0.5, {"a": 0.5, "b": 0.11})}
    monkeypatch.setattr(builds, "tree", lambda commit: nullcontext("old"))
    monkeypatch.setattr(builds, "process", lambda build, *_: fakes[build])
    monkeypatch.setitem(speed.TASKS, "compress_", (speed.BUILDS, "Compression", {}, 2))
    speed.main(["compress_", "--against", "abc1234"])
    rows = {row["method"]: row for row in results.read(results.RUNS / "speed" / "results.json")}
    assert list(rows) == ["abc1234", "present"] == speed.methods(speed.BUILDS, "cpu", "abc1234")
    metrics = {name: row["metrics"] for name, row in rows.items()}
    assert [metrics[name]["milliseconds"] for name in rows] == [{"mean": 3000, "sd": 0}, {"mean": 500, "sd": 0}]
    assert [metrics[name]["speedup"]["mean"] for name in rows] == [1, 6]
    assert metrics["present"]["worst_error_ratio"] == {"mean": 1.1, "sd": None}
    assert (
        metrics["present"]["worst_loss_difference"]["mean"] == 0.1
        and metrics["abc1234"]["worst_loss_difference"]["mean"] == 0
    )
    assert metrics["present"]["mean_loss_difference"]["mean"] == 0.017
    assert metrics["present"]["process_bytes"]["mean"] == 3000 and rows["present"]["ratio"] == 4
    speed.main(["compress_", "--against", "abc1234"])
    assert "compress_: there already" in capsys.readouterr().out


def test_a_gpu_has_rows_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert speed.settings(speed.parse([])) is None
    assert speed.settings(speed.parse(["--device", "cuda"])) == {"device": "Some GPU"}
    assert speed.methods(speed.FORWARD, "cuda") == ["dense", "tt", "fused"]
    assert {name.split(", ")[0] for name in speed.methods(speed.ALONE, "cuda")} == {"dense", "tt", "fused"}


def test_nothing_is_compiled_where_no_compiler_is(monkeypatch):
    monkeypatch.setattr(speed, "which", lambda program: None)
    missing = set(speed.OWN) - set(speed.methods(speed.ALONE, "cpu"))
    assert missing == {"dense, kept, compiled", "fused, kept, compiled"}


def test_turns_without_a_rest_have_rows_of_their_own(small, monkeypatch):
    rests, medians = [], ttq.interleaved_medians
    monkeypatch.setattr(ttq, "interleaved_medians", lambda *a, **k: rests.append(k.get("settle")) or medians(*a, **k))
    speed.main(["linear", "--rounds", "1"])
    speed.main(["linear", "--rounds", "1", "--no-rest"])
    assert {rest for rest in rests if rest is not None} == {0.02, 0.0}
    rows = results.read(results.RUNS / "speed" / "results.json")
    assert [row["settings"] for row in rows if row["method"] == "tt"] == [None, {"rest": "none"}]
