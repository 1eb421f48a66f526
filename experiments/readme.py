"""Writes the tables of README.md between its markers, from data/results/: `python experiments/readme.py`."""

from pathlib import Path

from results import load

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"


def speed_table(rows: list[dict]) -> str:
    """Tensor-train layers beside dense ones, one line a size."""
    rows = [row for row in rows if row["split"] == "forward + backward"]
    dense = {row["task"]: row for row in rows if row["method"] == "dense"}
    lines = [
        "| layer, forward and backward | TT-rank | fewer bytes | faster | memory of a step, dense → TT |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["method"] == "tt":
            before, after = (r["metrics"]["peak_bytes"]["mean"] / 2**20 for r in (dense[row["task"]], row))
            speedup = row["metrics"]["speedup"]
            lines.append(
                f"| {row['task']} | {row['rank']} | {row['ratio']:.0f}× "
                f"| {speedup['mean']:.1f}× ± {speedup['sd']:.1f} | {before:.0f} → {after:.0f} MiB |"
            )
    machines = " and ".join(sorted({row["machine"] for row in rows}))
    note = f"Float32, 1 024 tokens for a linear layer, 2 048 ids for an embedding; on {machines}."
    return "\n".join([*lines, "", note, ""])


def atis_table(rows: list[dict]) -> str:
    """ATIS, scored on the test split."""
    lines = [
        "| ATIS, test | start | rank | bits: cores, own, rest | fewer bytes | intent accuracy | slot F1 | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["ratio"]):
        if row["split"] == "test":
            intent, slots = (_mean(row["metrics"][name]) for name in ("intent_accuracy", "slot_f1"))
            bits = [f"{row['bits']}", _listed(row, "dense_bits"), f"{row['settings'].get('rest', 32)}"]
            rank = [f"{row['rank'] or ''}", _listed(row, "ranks")]
            lines.append(
                f"| {row['method']} | {row['settings'].get('start', 'random')} | {_joined(rank)} | {_joined(bits)} "
                f"| {row['ratio']:.0f}× | {intent} | {slots} | {len(row['seeds'])} |"
            )
    note = (
        "Start: random, or the trained dense model, cut by what its layers see (`calibration`). Settings were chosen "
        "on validation (of most rows one or two were tried); mean ± standard deviation over the seeds; bytes of the "
        "whole folder."
    )
    return "\n".join([*lines, "", note, "", ""])


def _listed(row: dict, name: str) -> str:
    """What groups of layers have of their own: "words=48,…" as words."""
    return row["settings"].get(name, "").replace("=", " ").replace(",", ", ")


def _joined(parts: list[str]) -> str:
    return ", ".join(filter(None, parts))


def _mean(metric: dict[str, float]) -> str:
    spread = "" if metric["sd"] is None else f" ± {metric['sd']:.1f}"
    return f"{metric['mean']:.1f}{spread} %"


def training_table(rows: list[dict]) -> str:
    """A whole training step, tensor trains beside the dense model, measured in turns."""
    rows = [row for row in rows if row["split"] == "training step"]
    lines = ["| training step, 768 wide | model | bits of cores | milliseconds | faster |", "|---|---|---|---|---|"]
    for row in rows:
        milliseconds, speedup = (row["metrics"][name] for name in ("milliseconds", "speedup"))
        faster = "" if row["method"] == "dense" else f"{speedup['mean']:.1f}× ± {speedup['sd']:.1f}"
        lines.append(f"| {row['task']} | {row['method']} | {row['bits']} | {milliseconds['mean']:.0f} | {faster} |")
    return "\n".join([*lines, "", ""])


def glue_table(rows: list[dict]) -> str:
    """The students on the validation split of GLUE tasks, beside their teachers."""
    rows = [row for row in rows if row["split"] == "validation"]
    teachers = {row["task"]: row["metrics"]["accuracy"]["mean"] for row in rows if row["method"] == "dense"}
    lines = [
        "| GLUE, validation | method | ranks: layers, words | bits | fewer bytes | accuracy | behind | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["task"], row["ratio"])):
        accuracy, ranks = row["metrics"]["accuracy"], ""
        if row["rank"]:
            ranks = f"{row['rank']}, {row['settings']['word_rank']}"
        gap = "" if row["method"] == "dense" else f"{teachers[row['task']] - accuracy['mean']:.1f}"
        lines.append(
            f"| {row['task']} | {row['method']} | {ranks} | {row['bits']} | {row['ratio']:.0f}× | {_mean(accuracy)} "
            f"| {gap} | {len(row['seeds'])} |"
        )
    note = (
        "`dense` is the teacher, a MiniLM of six layers, fine-tuned. Students are distilled layer by layer; their "
        "settings were chosen on held-out training sentences. Bytes of the whole folder."
    )
    return "\n".join([*lines, "", note, "", ""])


def inference_table(rows: list[dict]) -> str:
    """A forward pass of a whole model, measured in turns."""
    rows = [row for row in rows if row["split"] == "forward"]
    lines = ["| forward pass, random weights | model | file | milliseconds | faster |", "|---|---|---|---|---|"]
    for row in rows:
        milliseconds, speedup = (row["metrics"][name] for name in ("milliseconds", "speedup"))
        faster = "" if row["method"] == "dense" else f"{speedup['mean']:.1f}× ± {speedup['sd']:.1f}"
        lines.append(
            f"| {row['task']} | {row['method']} | {row['stored_bytes'] / 1e6:.0f} MB "
            f"| {milliseconds['mean']:.0f} | {faster} |"
        )
    note = (
        "Sentences × tokens; trains of rank 30; two threads. `dense-int8` and `fused-int8`: dynamic quantization in "
        "PyTorch; `onnx`: in onnxruntime."
    )
    return "\n".join([*lines, "", note, "", ""])


def tables(atis: list[dict], glue: list[dict], speed: list[dict]) -> str:
    trained = atis_table(atis) + glue_table(glue)
    return trained + training_table(speed) + inference_table(speed) + speed_table(speed)


def with_table(readme: str, table: str) -> str:
    """`readme` with the text between the markers replaced by `table`."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), tables(load("atis"), load("glue"), load("speed"))))
