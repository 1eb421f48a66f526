"""Result files: each row says where it came from, a file is never half-written, the README shows what is in them."""

import json
from pathlib import Path

import pytest
import readme
import results

ROOT = Path(__file__).parents[1]
ROW = {
    "task": "toy",
    "split": "test",
    "method": "tt",
    "rank": 4,
    "bits": 32,
    "settings": {"epochs": 3},
    "seeds": [0],
    "metrics": {"accuracy": {"mean": 90.0, "sd": 0.0}},
    "stored_bytes": 10,
    "dense_bytes": 100,
    "ratio": 10.0,
    "paper": None,
    "plan": None,
}
FILES = sorted((ROOT / "data" / "results").glob("*.json"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "_commit", lambda: "0123456789ab")
    return tmp_path / "results"


def test_a_row_comes_back_with_its_origin(folder):
    results.record("toy", ROW, seconds=1.26)
    (row,) = results.load("toy")
    assert {key: row[key] for key in ROW} == ROW
    assert set(row) == {*results.MEASURED, *results.ORIGIN}
    assert row["seconds"] == 1.3 and row["commit"] == "0123456789ab" and "torch" in row["versions"]


def test_the_same_key_is_replaced_and_another_added(folder):
    results.record("toy", ROW, seconds=1)
    results.record("toy", {**ROW, "rank": 8}, seconds=1)
    results.record("toy", {**ROW, "ratio": 11.0}, seconds=1)
    rows = results.load("toy")
    assert [(row["rank"], row["ratio"]) for row in rows] == [(4, 11.0), (8, 10.0)]
    key = {field: ROW[field] for field in results.KEY}
    assert results.find(rows, **{**key, "rank": 8}) is rows[1]
    assert results.find(rows, **{**key, "settings": {"epochs": 4}}) is None


@pytest.mark.parametrize("broken", [{k: v for k, v in ROW.items() if k != "plan"}, {**ROW, "note": "hand-made"}])
def test_a_row_with_missing_or_unknown_fields_is_refused(folder, broken):
    with pytest.raises(ValueError, match="exactly the fields"):
        results.record("toy", broken, seconds=1)
    assert not folder.exists()


def test_a_write_that_fails_leaves_the_old_file_whole(folder, monkeypatch):
    results.record("toy", ROW, seconds=1)
    before = (folder / "toy.json").read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.record("toy", {**ROW, "ratio": 1.0}, seconds=1)
    assert (folder / "toy.json").read_bytes() == before


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_committed_rows_are_complete_and_name_no_machine_path(path):
    text = path.read_text()
    assert "/root/" not in text and "/work/" not in text and "/home/" not in text
    rows = json.loads(text)["rows"]
    assert rows
    for row in rows:
        assert set(row) == {*results.MEASURED, *results.ORIGIN}
        assert row["command"].startswith("python experiments/") and row["seeds"] and row["seconds"] > 0
        assert all(set(value) == {"mean", "sd"} for value in row["metrics"].values())
    keys = [json.dumps([row[field] for field in results.KEY]) for row in rows]
    assert len(set(keys)) == len(keys)


def stored(name: str) -> list[dict]:
    return json.loads((ROOT / "data" / "results" / f"{name}.json").read_text())["rows"]


@pytest.mark.parametrize("changed", ["atis", "glue", "speed"])
def test_the_readme_shows_what_the_result_files_hold(changed):
    text, rows = (ROOT / "README.md").read_text(), {name: stored(name) for name in ("atis", "glue", "speed")}
    assert readme.with_table(text, readme.tables(**rows)) == text, "run: python experiments/readme.py"
    for row in rows[changed]:
        row["ratio"] += 1
    assert readme.with_table(text, readme.tables(**rows)) != text


def test_the_speeds_that_the_suite_claims_were_measured():
    found = {(row["task"], row["method"]): row["metrics"] for row in stored("speed") if not row["settings"]}
    speedup = {key: metrics["speedup"]["mean"] for key, metrics in found.items()}
    for task in ("linear 768→768", "linear 768→3072", "linear 3072→768"):
        assert speedup[task, "tt"] >= 4 and speedup[task, "tt"] >= 6 * speedup[task, "tensorly-torch"]
        assert found[task, "tt"]["milliseconds"]["mean"] <= 2 * found[task, "tt"]["floor"]["mean"]
    bert = "embedding 30522×768"
    assert speedup[bert, "tt"] >= 1.6 and speedup[bert, "tt"] >= 4 * speedup[bert, "tensorly-torch"]
    assert speedup["atis, one thread", "tt"] >= 3.5
    for task in ("atis", "atis, one thread"):  # what fake quantization adds to a step
        assert speedup[task, "tt"] <= 1.2 * speedup[task, "tt-qat"]


def test_the_speeds_of_whole_models_that_the_suite_claims_were_measured():
    rows = [row for row in stored("speed") if row["split"] == "forward"]
    speedup = {(r["task"], r["method"]): r["metrics"]["speedup"]["mean"] for r in rows if not r["settings"]}
    one, eight = "bert-base 1×128", "bert-base 8×128"
    assert speedup[one, "fused"] >= 5.5 and speedup[f"{one}, one thread", "fused"] >= 6.5
    assert speedup[one, "fused-onnx"] >= 6.5
    for library in ("int8", "onnx-int8"):
        assert speedup[one, f"fused-{library}"] >= 1.6 * speedup[one, f"dense-{library}"]
    assert min(speedup[eight, form] for form in ("fused", "fused-onnx", "fused-onnx-int8")) >= 7
    unrested = {r["method"]: r["metrics"]["milliseconds"]["mean"] for r in rows if r["settings"] == {"rest": "none"}}
    rested = {r["method"]: r["metrics"]["milliseconds"]["mean"] for r in rows if r["task"] == one and not r["settings"]}
    assert unrested["dense"] >= 1.2 * rested["dense"]  # the control: what it pays for the threads of the one before


def test_the_speeds_of_models_alone_that_the_suite_claims_were_measured():
    took: dict[str, dict[str, float]] = {}
    for row in stored("speed"):
        if row["split"] == "forward, own process":
            took.setdefault(row["task"], {})[row["method"]] = row["metrics"]["milliseconds"]["mean"]
    one, eight = took["bert-base 1×128, own process"], took["bert-base 8×128, own process"]
    assert one["dense, kept, compiled"] >= 6.5 * one["fused, kept, compiled"]
    assert eight["dense, kept"] >= 7 * eight["fused, kept"] and eight["dense, kept"] >= 8 * eight["fused-onnx"]
    dense, fused = (1 - eight[f"{form}, kept"] / eight[form] for form in ("dense", "fused"))
    assert fused >= 0.3 and dense <= 0.1  # what kept memory is worth: most to whom has the least to do besides


def test_the_readme_says_in_words_what_the_speeds_are():
    rows: dict[str, dict[str, dict]] = {}
    for row in stored("speed"):
        if not row["settings"]:
            rows.setdefault(row["task"], {})[row["method"]] = row["metrics"]

    def times(task: str, slow: str, fast: str) -> float:
        return rows[task][slow]["milliseconds"]["mean"] / rows[task][fast]["milliseconds"]["mean"]

    one, eight, own = "bert-base 1×128", "bert-base 8×128", "bert-base 8×128, own process"
    eager, graph = times(one, "dense", "fused"), times(one, "dense", "fused-onnx")
    compiled = times(f"{one}, own process", "dense, kept, compiled", "fused, kept, compiled")
    eager8, graph8 = times(one, "dense-int8", "fused-int8"), times(one, "dense-onnx-int8", "fused-onnx-int8")
    shared = [times(eight, "dense", form) for form in ("fused", "fused-onnx", "fused-onnx-int8")]
    kept = ("fused, kept", "fused, kept, compiled", "fused-onnx", "fused-onnx-int8")
    alone = [times(own, "dense, kept", form) for form in kept]
    limit = rows[eight]["dense"]["milliseconds"]["mean"] / rows[eight]["fused"]["floor"]["mean"]
    assert rows[eight]["dense"]["floor"]["mean"] >= 0.85 * rows[eight]["dense"]["milliseconds"]["mean"]  # "nearly"
    text = " ".join((ROOT / "README.md").read_text().split())
    for words in (
        f"{eager:.1f} times sooner than the dense one in PyTorch, {compiled:.1f} times where both are compiled",
        f"and {graph:.1f} times in onnxruntime; {eager8:.1f} and {graph8:.1f} times where both are in 8 bits",
        f"gain {min(shared):.1f} to {max(shared):.1f} times, {min(alone):.1f} to {max(alone):.1f} where each",
        f"{limit:.1f} times would be all",
    ):
        assert words in text


def test_the_table_of_the_readme_takes_rows_of_a_gpu():
    rows = stored("speed")
    (row,) = (r for r in rows if (r["task"], r["method"], r["settings"]) == ("bert-base 1×128", "fused", None))
    faster = {"milliseconds": {"mean": 1.0, "sd": 0}, "speedup": {"mean": 2.0, "sd": 0}}
    settings = {"device": "Some GPU"}
    rows += [{**row, "method": name, "settings": settings, "metrics": faster} for name in ("dense", "fused")]
    table = readme.inference_table(rows)
    (line,) = (line for line in table.splitlines() if "Some GPU" in line)
    assert line.startswith("| bert-base 1×128, Some GPU | 1 ms |") and line.count("1 ms (2.0×)") == 1
    assert line.count("|") == table.splitlines()[0].count("|")


def behind(dense: dict, row: dict) -> list[float]:
    """By how many points a row is worse than the dense one, for each metric."""
    return [dense["metrics"][name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1")]


def test_the_accuracies_that_the_suite_claims_were_measured():
    rows = [row for row in stored("atis") if row["split"] == "test"]

    def tested(method: str, start: str = "random", rank: int | None = 12) -> dict:
        found = [
            r for r in rows if (r["method"], r["settings"].get("start", "random"), r["rank"]) == (method, start, rank)
        ]
        (row,) = found
        assert len(row["seeds"]) == 3
        return row

    dense = tested("dense", rank=None)
    assert dense["metrics"]["intent_accuracy"]["mean"] >= 96.5 and dense["metrics"]["slot_f1"]["mean"] >= 92
    float32 = tested("tt", "dense")
    assert float32["bits"] == 32 and float32["ratio"] >= 40 and max(behind(dense, float32)) <= 1
    assert max(behind(dense, tested("tt"))) > 1  # the control: as many numbers, trained from a random start
    headline = tested("tt-qat", "dense", 24)
    assert headline["ratio"] >= 200 and max(behind(dense, headline)) <= 0.5
    smallest = tested("tt-qat")
    assert smallest["ratio"] >= 400 and max(behind(dense, smallest)) <= 1.5
    for trained, rounded in ((headline, tested("tt-ptq", "dense", 24)), (smallest, tested("tt-ptq"))):
        assert rounded["plan"] == trained["plan"]  # the control: the same bits, and no training with them
        assert min(behind(trained, rounded)) >= 10


def test_memory_of_a_tt_embedding_does_not_follow_the_vocabulary():
    rows = [row for row in stored("speed") if row["split"] == "forward + backward"]
    peaks = {(row["task"], row["method"]): row["metrics"]["peak_bytes"]["mean"] for row in rows}
    for method, grows in (("dense", True), ("tt", False)):
        small, large = peaks["embedding 10000×768", method], peaks["embedding 300000×768", method]
        assert (large > 20 * small) == grows and (large < 1.5 * small) != grows


def test_what_training_keeps_in_memory_shrinks_with_the_parameters():
    rows = {row["method"]: row["metrics"] for row in stored("memory") if row["task"] == "atis"}
    for name in ("tt", "tt-qat"):
        kept, process = (
            rows["dense"][key]["mean"] / rows[name][key]["mean"] for key in ("kept_bytes", "process_bytes")
        )
        assert kept >= 10 and 1 < process < kept  # activations stay


def test_the_students_that_the_suite_tells_of_were_measured():
    rows = [row for row in stored("glue") if row["task"] == "sst2" and row["settings"]["hold_out"] == "rows"]
    rows = [row for row in rows if row["split"] == "validation"]
    (teacher,) = (row for row in rows if row["method"] == "dense")
    assert teacher["metrics"]["accuracy"]["mean"] >= 90

    def behind(row: dict) -> float:
        return teacher["metrics"]["accuracy"]["mean"] - row["metrics"]["accuracy"]["mean"]

    def distilled(**settings) -> dict[float, dict]:
        """By ratio; those of the ablation are not among them."""
        students = [row for row in rows if row["settings"].get("steps", 0) > 500]
        return {row["ratio"]: row for row in students if settings.items() <= row["settings"].items()}

    first = distilled(schedule="layer_by_layer")
    second = distilled(inputs="sentences", steps=2000)
    assert second and second.keys() <= first.keys(), "chapter 08 compares the two rounds point by point"
    assert all(behind(second[ratio]) < behind(first[ratio]) - 1 for ratio in second)
    plain = distilled(schedule="all_layers", inputs="sentences", steps=5000, start="calibrated")
    turned, crossed = (distilled(inputs=name, start="rotated", steps=3000) for name in ("sentences", "crossed"))
    for ratio, control in zip(sorted(turned), sorted(plain), strict=True):  # as good with as many bytes, in fewer steps
        assert abs(ratio / control - 1) < 0.02 and abs(behind(turned[ratio]) - behind(plain[control])) < 1
    for ratio, (bound, paper) in zip(sorted(plain), ((45, 3.6), (88, 4.5)), strict=True):  # 2306.01076, on BERT-base
        assert ratio >= bound and behind(plain[ratio]) < paper
    forms = [{(row["rank"], row["bits"]): row for row in found.values()} for found in (turned, crossed)]
    assert len(forms[0].keys() & forms[1].keys()) == 2
    for form in forms[0].keys() & forms[1].keys():  # sentences that nobody wrote bring students closer
        far, near = (found[form]["metrics"]["divergence"]["mean"] for found in forms)
        assert near < 0.8 * far
    for bound, points in ((20, 1.0), (45, 2.0), (88, 4.0)):
        assert any(ratio >= bound and behind(row) <= points for ratio, row in crossed.items())
    assert len(crossed[46.1]["seeds"]) == 3
    ablation = [row for row in rows if row["settings"].get("steps") == 500]
    assert {(row["rank"], row["bits"]) for row in ablation} == {(34, 4)}
    schedules = {row["settings"]["schedule"] for row in ablation if row["settings"]["start"] == "calibrated"}
    assert len(schedules) >= 7 and "task" in schedules  # the control without a teacher
    starts = {row["settings"]["start"]: behind(row) for row in ablation if row["settings"]["schedule"] == "all_layers"}
    assert starts["random"] > starts["svd"] > starts["calibrated"]


def test_schedules_were_compared_on_a_second_task():
    rows = [row for row in stored("glue") if row["task"] == "rte" and row["split"] == "validation"]
    students = [row for row in rows if row["method"] != "dense"]
    assert len(students) + 1 == len(rows) and {row["settings"]["steps"] for row in students} == {300}
    assert len({row["settings"]["schedule"] for row in students}) == len(students) == 7
    assert "task" in {row["settings"]["schedule"] for row in students}  # the control without a teacher
