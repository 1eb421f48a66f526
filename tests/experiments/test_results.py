"""Result files: each row says where it came from, a file is never half-written, pages show what is in them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import headline
import pytest
import readme
import results
import tables

import ttqlib as ttq

ROOT = Path(__file__).parents[2]
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
def path(tmp_path) -> Path:
    return tmp_path / "results" / "toy.json"


def test_a_row_comes_back_with_its_origin(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/experiments/speed.py", "atis, one thread", "--force"])
    results.record(path, ROW, seconds=1.26)
    (row,) = results.read(path)
    assert {key: row[key] for key in ROW} == ROW
    assert set(row) == {*results.MEASURED, *results.ORIGIN}
    assert row["seconds"] == 1.3 and "torch" in row["versions"] and row["commit"]
    assert row["command"] == "python experiments/speed.py 'atis, one thread' --force"  # as it can be typed again


def test_a_row_needs_neither_git_nor_linux(path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delattr(results.os, "sched_getaffinity", raising=False)
    results.record(path, ROW, seconds=1)
    (row,) = results.read(path)
    assert row["commit"] == "no commit" and row["machine"].endswith(" cores")


def test_the_same_key_is_replaced_and_any_other_added(path):
    results.record(path, ROW, seconds=1)
    others = [{"rank": 8}, {"seeds": [0, 1]}, {"split": "validation"}, {"settings": {"epochs": 3, "rows": 100}}]
    others += [{"plan": {"layers": {"a": {}}, "rest": 8}}, {"plan": {"layers": {}, "rest": 8}}]
    for other in others:
        results.record(path, {**ROW, **other}, seconds=1)
    same = [
        {"ratio": 11.0},
        {"settings": {"epochs": 3, "rows": None}},
        {"plan": {"layers": {}, "rest": 32, "format": 1}},
    ]
    for change in same:
        results.record(path, {**ROW, "ratio": 11.0, **change}, seconds=1)
    rows = results.read(path)
    assert [row["ratio"] for row in rows] == [11.0] + [10.0] * len(others)
    assert [{name: row[name] for name in other} for row, other in zip(rows[1:], others, strict=True)] == others


def test_a_rerun_with_fewer_seeds_leaves_the_row_of_more(path):
    for seeds in ([0, 1, 2], [0], [0, 1, 2]):
        results.record(path, {**ROW, "seeds": seeds, "ratio": float(len(seeds))}, seconds=1)
    assert [(row["seeds"], row["ratio"]) for row in results.read(path)] == [([0, 1, 2], 3.0), ([0], 1.0)]


WRITER = """
import sys
sys.path.insert(0, "experiments")
import json, pathlib, results
path, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for rank in range(5):
    results.record(path, {**json.loads(sys.argv[3]), "rank": 10 * number + rank}, seconds=1)
assert not {"torch", "numpy", "transformers"}.intersection(sys.modules)
"""


def test_processes_that_write_at_once_lose_no_row(path):
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(number), json.dumps(ROW)], cwd=ROOT) for number in range(12)]
    assert [writer.wait(120) for writer in writers] == [0] * 12
    rows = results.read(path)
    assert sorted(row["rank"] for row in rows) == [10 * number + rank for number in range(12) for rank in range(5)]
    assert {file.suffix for file in path.parent.iterdir()} <= {".json", ".lock"}  # no draft is left


@pytest.mark.parametrize("broken", [{k: v for k, v in ROW.items() if k != "plan"}, {**ROW, "note": "hand-made"}])
def test_a_row_with_missing_or_unknown_fields_is_refused(path, broken):
    with pytest.raises(ValueError, match="exactly the fields"):
        results.record(path, broken, seconds=1)
    assert not path.parent.exists()


def test_a_write_that_fails_leaves_the_old_file_whole(path, monkeypatch):
    results.record(path, ROW, seconds=1)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.record(path, {**ROW, "ratio": 1.0}, seconds=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_committed_rows_are_complete_and_name_no_machine_path(path):
    text = path.read_text()
    assert "/root/" not in text and "/work/" not in text and "/home/" not in text
    rows = json.loads(text)["rows"]
    assert rows
    for row in rows:
        assert set(row) - results.TOLD == {*results.MEASURED, *results.ORIGIN}
        assert row["command"].startswith("python experiments/") and row["seconds"] > 0
        assert row["seeds"] and row["seeds"] == sorted(set(row["seeds"]))
        assert all(set(value) == {"mean", "sd"} for value in row["metrics"].values())
        assert row["ratio"] == round(row["dense_bytes"] / row["stored_bytes"], 2)
    assert len({results.key(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_plan_that_was_ever_recorded_can_be_read(path):
    for row in json.loads(path.read_text())["rows"]:
        if row["plan"] is not None:
            config = ttq.TTQConfig.from_dict(row["plan"])
            assert config.layers.keys() == row["plan"]["layers"].keys() and config.rest == row["plan"]["rest"]


# --------------------------------------------------------------------------------------------- the tables of the pages


def stored(name: str) -> list[dict]:
    return json.loads((ROOT / "data" / "results" / f"{name}.json").read_text())["rows"]


def all_stored() -> dict[str, list[dict]]:
    return {name: stored(name) for name in tables.TABLES}


@pytest.mark.parametrize("changed", tables.TABLES)
def test_pages_show_what_the_result_files_hold(changed):
    rows = all_stored()
    as_they_are = {path: path.read_text(encoding="utf-8") for path in (readme.README, readme.RESULTS)}
    assert readme.pages(rows) == as_they_are, "run: python experiments/readme.py"
    for row in rows[changed]:
        row["ratio"] += 1
        row["stored_bytes"] += 10**6
    made = readme.pages(rows)
    shown = [readme.RESULTS] + [readme.README] * (changed in {name for _, name, _ in headline.HEADLINE})
    assert all(made[path] != as_they_are[path] for path in shown)


def test_the_readme_has_a_dozen_rows_and_fits_a_few_screens():
    text = readme.README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert len(lines(text.split(readme.BEGIN)[1].split(readme.END)[0])) <= 12


def numbers_apart(drawing: str) -> tuple[list[str], list[float]]:
    number = re.compile(r"-?\d+\.?\d*")
    return number.split(drawing), [float(one) for one in number.findall(drawing)]


def test_the_picture_is_drawn_from_the_rows(tmp_path):
    """To a tenth of a point: the last digit is the processor's."""
    rows = all_stored()
    headline.draw(rows, tmp_path / "drawn.svg")
    words, drawn = numbers_apart((tmp_path / "drawn.svg").read_text())
    kept_words, kept = numbers_apart(headline.PICTURE.read_text())
    if kept_words != words:
        pytest.fail("docs/results.svg is another picture: run python experiments/readme.py")
    assert drawn == pytest.approx(kept, abs=0.1)
    for row in rows["atis"]:
        row["metrics"]["slot_f1"]["mean"] -= 3 * (row["method"] == "svd-qat")
    headline.draw(rows, tmp_path / "changed.svg")
    assert numbers_apart((tmp_path / "changed.svg").read_text())[1] != pytest.approx(kept, abs=0.1)


def test_the_words_beside_the_picture_are_those_of_the_rows():
    points = headline.points(all_stored())
    atis, sst2 = (by_ratio(panel) for panel in points.values())
    assert abs(atis["trains"][232]) < 0.1 > abs(atis["low-rank products"][234])  # "level with", "tie"
    text = " ".join(readme.README.read_text(encoding="utf-8").split())
    low_rank, one_bit = sst2["low-rank products"][50], sst2["one bit (XTC)"][52]
    told = f"trains lose {sst2['trains'][46]:.1f} points at 46 times, low-rank products {low_rank:.1f} at 50, "
    assert told + f"one bit for each weight {one_bit:.1f} at 52" in text
    found = atis["chosen by ttq.allocate"]
    assert f"plans of ttq.allocate lose {found[441]:.1f} points at 441 times and {found[603]:.1f} at 603" in text
    told = f"by `ttq.allocate` are {found[441]:.1f} points behind at 441 times and {found[603]:.1f} at 603, "
    assert told + f"where a narrow model is {atis['narrow'][618]:.1f} behind" in text
    dense, *cut = [headline.pick(stored("atis"), **headline.DENSE)] + [
        row for row in stored("atis") if row["method"] == "tt-ptq" and row["split"] == "test"
    ]
    lost = {f"{dense['metrics']['slot_f1']['mean'] - row['metrics']['slot_f1']['mean']:.0f}" for row in cut}
    assert lost == {"39"} and "loses 39 points" in readme.RESULTS.read_text(encoding="utf-8")


def by_ratio(families: dict[str, list[tuple[float, float]]]) -> dict[str, dict[int, float]]:
    return {family: {round(ratio): behind for ratio, behind in found} for family, found in families.items()}


def test_a_row_is_picked_only_where_it_is_the_only_one():
    rows = [ROW, {**ROW, "rank": 8, "settings": {"epochs": 3, "start": "dense"}}]
    assert headline.pick(rows, rank=8) is rows[1] and headline.pick(rows, start=None) is rows[0]
    for said in ({"method": "tt"}, {"rank": 5}):
        with pytest.raises(LookupError, match="exactly one must"):
            headline.pick(rows, **said)


def lines(table: str) -> list[list[str]]:
    """The cells of each line of a table but its head, and nothing of the note below it."""
    found = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in found}) == 1  # else it is no table for Markdown
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[2:]]


def scores(intent: float, slots: float, sd: float | None = None) -> dict:
    return {"intent_accuracy": {"mean": intent, "sd": sd}, "slot_f1": {"mean": slots, "sd": sd}}


def test_the_table_of_atis_has_the_test_rows_alone_by_size():
    own = {"start": "dense", "rest": 8, "ranks": "heads=3", "dense_bits": "heads=5,positions=4"}
    rows = [
        {**ROW, "bits": 2, "settings": own, "ratio": 412.4, "seeds": [0, 1, 2], "metrics": scores(95.94, 90.06, 0.26)},
        {**ROW, "method": "dense", "rank": None, "settings": {}, "ratio": 1.0, "metrics": scores(97, 92)},
        {**ROW, "split": "validation", "ratio": 5.0, "metrics": scores(99, 99)},
    ]
    assert lines(tables.atis_table(rows)) == [
        ["dense", "random", "", "32, 32", "1×", "97.0 %", "92.0 %", "1"],
        ["tt", "dense", "4, heads 3", "2, heads 5, positions 4, 8", "412×", "95.9 ± 0.3 %", "90.1 ± 0.3 %", "3"],
    ]


def test_a_student_is_measured_against_the_teacher_of_its_own_task():
    made = {"hold_out": "rows", "word_rank": 9, "start": "svd", "schedule": "top_down", "inputs": "rows", "steps": 50}
    teacher = {**ROW, "split": "validation", "method": "dense", "rank": None, "settings": {"hold_out": "rows"}}
    student = {**ROW, "split": "validation", "settings": made, "ratio": 20.0}
    low_rank = {**student, "method": "tt-qat", "settings": {**made, "sides": 1}, "ratio": 21.0}  # one core on a side
    rows = [
        {**student, "task": "sst2", "metrics": {"accuracy": {"mean": 88.0, "sd": None}}},
        {**low_rank, "task": "sst2", "metrics": {"accuracy": {"mean": 87.5, "sd": None}}},
        {**teacher, "task": "sst2", "ratio": 1.0, "metrics": {"accuracy": {"mean": 91.5, "sd": None}}},
        {**teacher, "task": "rte", "ratio": 1.0, "metrics": {"accuracy": {"mean": 60.0, "sd": None}}},
        {**student, "task": "rte", "metrics": {"accuracy": {"mean": 58.0, "sd": 1.0}}},
        {**student, "task": "rte", "split": "held_out"},  # settings are chosen on these two
        {**student, "task": "rte", "settings": {**made, "hold_out": "sentences"}},
    ]
    how = ["4, 9", "svd", "top down", "rows", "50", "20×"]
    assert lines(tables.glue_table(rows)) == [
        ["rte", "dense", "32", *[""] * 5, "1×", "60.0 %", "", "1"],
        ["rte", "tt", "32", *how, "58.0 ± 1.0 %", "2.0", "1"],
        ["sst2", "dense", "32", *[""] * 5, "1×", "91.5 %", "", "1"],
        ["sst2", "tt", "32", *how, "88.0 %", "3.5", "1"],
        ["sst2", "svd-qat", "32", *how[:-1], "21×", "87.5 %", "4.0", "1"],
    ]


def timed(method: str, milliseconds: float, speedup: float, mebibytes: float = 0, **more) -> dict:
    metrics = {"milliseconds": milliseconds, "speedup": speedup, "peak_bytes": mebibytes * 2**20}
    metrics = {name: {"mean": value, "sd": 0.04} for name, value in metrics.items()}
    row = {**ROW, "machine": "a computer", "split": "forward", "settings": None, "method": method, "metrics": metrics}
    return {**row, **more}


def test_the_table_of_layers_names_the_dense_layer_of_the_same_size():
    both = {"split": "forward + backward"}
    rows = [
        timed("dense", 10, 1, 64, task="linear", **both),
        timed("dense", 30, 1, 512, task="embedding", **both),
        timed("tt", 2, 5.02, 16, task="linear", ratio=70.6, **both),
        timed("peer", 5, 2, 32, task="linear", **both),
        timed("tt", 15, 2, 128, task="embedding", **both),
        timed("tt", 1, 9, task="linear"),  # forward alone is another table's
    ]
    table = tables.speed_table(rows)
    assert lines(table) == [
        ["linear", "4", "71×", "5.0× ± 0.0", "64 → 16 MiB"],
        ["embedding", "4", "10×", "2.0× ± 0.0", "512 → 128 MiB"],
    ]
    assert "on a computer." in table


def test_the_table_of_training_steps_has_nothing_else():
    step = {"split": "training step", "task": "atis"}
    rows = [timed("dense", 812.6, 1, **step), timed("tt", 232.2, 3.5, **step), timed("tt", 1, 9, task="linear")]
    assert lines(tables.training_table(rows)) == [
        ["atis", "dense", "32", "813", ""],
        ["atis", "tt", "32", "232", "3.5× ± 0.0"],
    ]


def test_the_tables_of_whole_models_have_a_line_a_machine_and_one_of_sizes():
    gpu, control = {"device": "Some GPU"}, {"rest": "none"}
    sizes = {"dense": 4_000_000, "fused": 1_400_000}
    shapes = [("1×128", 200.0, None), ("1×128", 8.0, gpu), ("8×128", 900.0, None), ("1×128", 7.0, control)]
    rows = [
        timed(method, took / faster, faster, task=f"bert {shape}", settings=settings, stored_bytes=sizes[method])
        for shape, took, settings in shapes
        for method, faster in (("dense", 1), ("fused", 4.0))
    ]
    alone = timed("dense, kept", 70, 1, task="bert 1×128", split="forward, own process", stored_bytes=sizes["dense"])
    slow = {**alone, "method": "dense", "metrics": timed("", 90, 1)["metrics"]}
    table = tables.inference_table([*rows, alone, slow])
    shared, own = table.split("| forward pass")[1:]
    head = "| forward pass" + shared
    assert head.splitlines()[0] == "| forward pass, random weights | dense | fused |"
    assert lines(head) == [
        ["bert: file", "4 MB", "1 MB"],
        ["bert 1×128, Some GPU", "8 ms", "2 ms (4.0×)"],
        ["bert 1×128", "200 ms", "50 ms (4.0×)"],
        ["bert 8×128", "900 ms", "225 ms (4.0×)"],
    ]
    assert own.splitlines()[0] == ", random weights | dense, kept | dense |"
    assert lines("| forward pass" + own)[1] == ["bert 1×128", "70 ms (1.0×)", "90 ms"]


def test_the_page_says_in_words_what_the_speeds_are():
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
    most, most8 = (
        rows[size]["dense"]["milliseconds"]["mean"] / rows[size]["fused"]["floor"]["mean"] for size in (one, eight)
    )
    assert rows[eight]["dense"]["floor"]["mean"] >= 0.85 * rows[eight]["dense"]["milliseconds"]["mean"]  # "nearly"
    text = " ".join(readme.RESULTS.read_text(encoding="utf-8").split())
    for words in (
        f"{eager:.1f} times sooner than the dense one in PyTorch, {compiled:.1f} times where both are compiled",
        f"and {graph:.1f} times in onnxruntime; {eager8:.1f} and {graph8:.1f} times where both are in 8 bits",
        f"gain {min(shared):.1f} to {max(shared):.1f} times, {min(alone):.1f} to {max(alone):.1f} where each",
        f"{most:.1f} times would be all that the products and bytes of the small one allow for one sentence",
        f"for one sentence, {most8:.1f} for eight",
    ):
        assert words in text
