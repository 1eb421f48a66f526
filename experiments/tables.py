"""The tables of docs/results.md, each from the rows of a file of data/results/. A new one is an entry in `TABLES`."""

import headline

ALLOCATED = ("intent_accuracy", "slot_f1", "accuracy")


def speed_table(rows: list[dict]) -> str:
    """Tensor-train layers beside dense ones, one line a size."""
    rows = [row for row in rows if row["split"] == "forward + backward"]
    dense = {row["task"]: row for row in rows if row["method"] == "dense"}
    lines = []
    for row in rows:
        if row["method"] == "tt":
            before, after = (r["metrics"]["peak_bytes"]["mean"] / 2**20 for r in (dense[row["task"]], row))
            memory = f"{before:.0f} → {after:.0f} MiB"
            lines.append([row["task"], row["rank"], f"{row['ratio']:.0f}×", _faster(row), memory])
    machines = " and ".join(sorted({row["machine"] for row in rows}))
    return table(
        ["layer, forward and backward", "TT-rank", "fewer bytes", "faster", "memory of a step, dense → TT"],
        lines,
        f"Float32, 1 024 tokens for a linear layer, 2 048 ids for an embedding; on {machines}.",
    )


def atis_table(rows: list[dict]) -> str:
    """ATIS, scored on the test split."""
    lines = []
    for row in sorted(rows, key=lambda row: row["ratio"]):
        if row["split"] == "test":
            bits = [f"{row['bits']}", _listed(row, "dense_bits"), f"{row['settings'].get('rest', 32)}"]
            rank = _joined([f"{row['rank'] or ''}", _listed(row, "ranks")])
            scores = [_mean(row["metrics"][name]) for name in ("intent_accuracy", "slot_f1")]
            start = row["settings"].get("start", "random")
            lines.append(
                [row["method"], start, rank, _joined(bits), f"{row['ratio']:.0f}×", *scores, len(row["seeds"])]
            )
    return table(
        ["ATIS, test", "start", "rank", "bits: cores, own, rest", "fewer bytes", "intent accuracy", "slot F1"]
        + ["seeds"],
        lines,
        "Start: random, or the trained dense model, cut by what its layers see (`calibration`). Settings were chosen "
        "on validation (of most rows one or two were tried); mean ± standard deviation over the seeds; bytes of the "
        "whole folder.",
    )


def allocate_table(rows: list[dict]) -> str:
    """Plans that a rule chose for a budget, trained on the task's own labels or from its teacher."""
    lines = []
    for row in sorted(rows, key=lambda row: row["ratio"]):
        if row["method"] not in ("predicted", "prediction"):
            metrics, made = row["metrics"], row["settings"]
            scores = [f"{name.replace('_', ' ')} {_mean(metrics[name])}" for name in metrics if name in ALLOCATED]
            loss, size = f"{metrics['predicted_mnat']['mean']:.0f}", f"{row['ratio']:.0f}×"
            lines.append([row["task"], row["split"], made["rule"], size, loss, ", ".join(scores), len(row["seeds"])])
    agreed = [
        f"{row['metrics']['rank_correlation']['mean']:.2f} on {row['task']}, over "
        f"{row['metrics']['plans']['mean']:.0f} plans within a factor of two of each other's bytes"
        for row in rows
        if row["method"] == "prediction"
    ]
    return table(
        ["ranks and bits by a rule", "split", "rule", "fewer bytes", "predicted loss", "scores", "seeds"],
        lines,
        "`knapsack` is `ttq.allocate`; predicted: KL of the answers before training, in thousandths of a nat. Rank "
        f"correlation of predicted and measured losses before training: {'; '.join(agreed)}.",
    )


def glue_table(rows: list[dict]) -> str:
    """The students on the validation split of GLUE tasks, beside their teachers."""
    rows = [row for row in rows if row["split"] == "validation" and row["settings"]["hold_out"] == "rows"]
    teachers = {row["task"]: row["metrics"]["accuracy"]["mean"] for row in rows if row["method"] == "dense"}
    lines = []
    for row in sorted(rows, key=lambda row: (row["task"], row["ratio"], -row["settings"].get("steps", 0))):
        accuracy, how = row["metrics"]["accuracy"], [""] * 6
        if row["method"] != "dense":
            made = row["settings"]
            gap = f"{teachers[row['task']] - accuracy['mean']:.1f}"
            ranks, schedule = f"{row['rank']}, {made['word_rank']}", made["schedule"].replace("_", " ")
            how = [ranks, made["start"], schedule, made["inputs"], made["steps"], gap]
        size, count = f"{row['ratio']:.0f}×", len(row["seeds"])
        cells = [row["task"], headline.method_of(row), row["bits"], *how[:5], size]
        lines.append([*cells, _mean(accuracy), how[5], count])
    return table(
        ["GLUE, validation", "method", "bits", "ranks: layers, words", "start", "schedule", "learns from", "steps"]
        + ["fewer bytes", "accuracy", "behind", "seeds"],
        lines,
        "`dense` is the teacher, a MiniLM of six layers, fine-tuned; `tt` has trains, `svd` low-rank products; `task` "
        "learns from labels alone. Students learn from all rows, from those that are no phrase of another (sentences), "
        "or from these and copies of them with phrases of one another (crossed). Starts: TT-SVD of what the layers "
        "give (calibrated), this with its bonds turned (rotated), of the weights (svd), or nothing. Rates and "
        "steps were chosen on held-out training rows, the forms of later rounds with validation known (chapter 08); "
        "bytes of the whole folder.",
    )


def xtc_table(rows: list[dict]) -> str:
    """Students of few bits and fewer layers, beside the teacher of their own row."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["ratio"], row["settings"].get("steps", 0))):
        if row["split"] == "validation" and row["method"] != "dense":
            made, metrics = row["settings"], row["metrics"]
            words = "" if made["words"] == "dense" else f"rank {made['word_rank']}, "
            words += f"{made['word_bits']} bit" + "s" * (made["word_bits"] > 1)
            form = [made.get("layers", "all"), row["bits"], words, made["learning_rate"]]
            behind = f"{metrics['accuracy_behind']['mean']:.1f}"
            size, count = f"{row['ratio']:.0f}×", len(row["seeds"])
            scores = [_mean(metrics["accuracy"]), behind, count]
            lines.append([row["task"], *form, made["steps"], _what_else(row), size, *scores])
    return table(
        ["XTC, validation", "layers", "bits", "words", "learning rate", "steps", "what else", "fewer bytes"]
        + ["accuracy", "behind", "seeds"],
        lines,
        "One stage on crossed sentences where nothing else is said; one and two bits have a scale for each row. Stages "
        "have equal shares of the steps. Without word pieces that no training sentence has is a control: any other "
        "piece is unknown to it. The teacher is trained with the settings of the one above, on another machine; "
        "behind: it, on the same rows.",
    )


def _what_else(row: dict) -> str:
    """What sets a student apart from those whose layers are matrices that learn in one stage."""
    made, said = row["settings"], []
    if row["rank"]:
        said.append(f"{'low rank' if made['sides'] == 1 else 'trains of rank'} {row['rank']}")
    if made.get("through"):
        said.append(f"{made['through'].replace(',', ', ')} bits before")
    if made["activations"] < 32:
        said.append(f"activations of {made['activations']} bits")
    if made["vocabulary"] != "all":
        said.append("without unseen word pieces")
    return ", ".join(said)


def end_to_end_table(rows: list[dict]) -> str:
    """The same task as programs that answer: each with its own accuracy, bytes and time."""
    lines = []
    for row in rows:
        metrics, sizes = row["metrics"], [row["stored_bytes"], row["metrics"]["program_bytes"]["mean"]]
        megabytes = [f"{size / 1e6:.1f} MB" for size in sizes]
        lines.append(
            [row["method"], *megabytes, _mean(metrics["accuracy"]), f"{metrics['milliseconds']['mean']:.1f} ms"]
        )
    settings, machines = rows[0]["settings"], " and ".join(sorted({row["machine"] for row in rows}))
    return table(
        ["SST-2, validation, as a program", "sent", "at work", "accuracy", "a sentence"],
        lines,
        "In onnxruntime by `ttq.Predictor`, but for the first; float32 but for those of 8 bits. Sent: the folder of "
        "the model, or of a dense one in 8 bits the program; at work: the program. A sentence: from its text to its "
        f"label, mean over {settings['sentences']} of all lengths, {settings['threads']} threads, in turns, on "
        f"{machines}. All of seed 0; the students are rows of 46, 50 and 52 times above.",
    )


def teq_table(rows: list[dict]) -> str:
    """Perplexity of SmolLM2 by every recipe and tool: on the text that it is calibrated on, and on another one."""
    other = {_recipe(row): row for row in rows if row["split"] == "docstrings"}
    lines = []
    for row in sorted(rows, key=lambda row: (-row["bits"], -row["metrics"]["perplexity"]["mean"])):
        if row["split"] == "manual":
            beside, size = other.get(_recipe(row)), f"{row['stored_bytes'] / 1e6:.0f} MB"
            scores = [_perplexity(one) if one else "" for one in (row, beside)]
            method = row["method"] + (", no step" if row["settings"].get("steps") == 0 else "")
            lines.append([method, *_recipe(row)[1::-1], *scores, size, len(row["seeds"])])
    return table(
        ["SmolLM2-135M", "group", "bits", "perplexity, manual", "docstrings", "bytes", "seeds"],
        lines,
        "48 windows of 256 tokens of each text. Names with `nc-` are recipes of neural-compressor, `gguf-` types of "
        "llama.cpp's files; of a tool the bytes are what it would store. The table of words stays in float32: 113 MB.",
    )


def talking_table(rows: list[dict]) -> str:
    """How fast SmolLM2 talks in every engine."""
    lines = []
    for row in sorted(rows, key=lambda row: row["metrics"]["tokens_per_second"]["mean"]):
        found = {name: metric["mean"] for name, metric in row["metrics"].items()}
        sizes = [f"{size / 1e6:.0f} MB" for size in (row["stored_bytes"], found["resident_bytes"])]
        speeds = [f"{found[name]:.0f}" for name in ("tokens_per_second", "floor_tokens_per_second")]
        lines.append([row["method"], row["bits"], *sizes, *speeds, f"{found['perplexity']:.2f}"])
    said = rows[0]["settings"]
    return table(
        ["SmolLM2-135M talks", "bits", "weights", "in memory", "tokens a second", "at most", "perplexity"],
        lines,
        f"A prompt of {said['prompt']} tokens, {said['new']} new ones, {said['threads']} threads, in turns, each "
        f"in its own process, on {rows[0]['machine']}. At most: as reading all weights for each token allows. "
        "Perplexity is the engine's own, on the windows above. `genai` is onnxruntime-genai; llama.cpp reads the file "
        "that the model comes in.",
    )


def _recipe(row: dict) -> tuple:
    return row["bits"], row["settings"].get("group", ""), row["method"]


def _perplexity(row: dict) -> str:
    mean = row["metrics"]["perplexity"]["mean"]
    return f"{mean:,.0f}" if mean > 1000 else _mean(row["metrics"]["perplexity"]).removesuffix(" %")


def training_table(rows: list[dict]) -> str:
    """A whole training step, tensor trains beside the dense model, measured in turns."""
    rows = [row for row in rows if row["split"] == "training step"]
    lines = [[row["task"], row["method"], row["bits"], _milliseconds(row), _faster(row)] for row in rows]
    return table(["training step, 768 wide", "model", "bits of cores", "milliseconds", "faster"], lines)


def inference_table(rows: list[dict]) -> str:
    """A forward pass of a whole model in every form, measured in turns."""
    rows = [row for row in rows if "rest" not in (row["settings"] or {})]  # that is a control
    shared = [row for row in rows if row["split"] == "forward"]
    alone = [row for row in rows if row["split"] == "forward, own process"]
    note = (
        "Sentences × tokens; trains of rank 30; two threads where nothing else is said; times faster than `dense`. "
        "`dense-int8` and `fused-int8`: dynamic quantization in PyTorch; `bf16`: the whole model in bfloat16; `onnx`: "
        "in onnxruntime. All in one process, or each in its own; kept: after `ttq.keep_freed_memory()`; compiled: by "
        "`torch.compile`."
    )
    return _forward_table(shared) + _forward_table(alone, note)


def _forward_table(rows: list[dict], note: str = "") -> str:
    """A line for each size of inputs, below one with the sizes of the files."""
    found: dict[str, dict[str, dict]] = {}
    for row in rows:
        task = ", ".join([row["task"], *(row["settings"] or {}).values()])
        found.setdefault(task, {})[row["method"]] = row
    forms, lines = list(dict.fromkeys(form for task in found.values() for form in task)), []
    for shape in sorted({task.split()[0] for task in found}):
        alike = [task for task in found if task.split()[0] == shape]
        alike.sort(key=lambda task: found[task]["dense"]["metrics"]["milliseconds"]["mean"])
        sizes = {form: row["stored_bytes"] for task in alike for form, row in found[task].items()}
        lines.append([f"{shape}: file", *(f"{sizes[form] / 1e6:.0f} MB" if form in sizes else "" for form in forms)])
        for task in alike:
            lines.append([task, *(_timed(found[task][form]) if form in found[task] else "" for form in forms)])
    return table(["forward pass, random weights", *forms], lines, note)


def table(columns: list[str], rows: list[list], note: str = "") -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, *rows)]
    lines.insert(1, "|---" * len(columns) + "|")
    return "\n".join([*lines, "", *([note, ""] if note else []), ""])


def _milliseconds(row: dict) -> str:
    return f"{row['metrics']['milliseconds']['mean']:.0f}"


def _faster(row: dict) -> str:
    speedup = row["metrics"]["speedup"]
    return "" if row["method"] == "dense" else f"{speedup['mean']:.1f}× ± {speedup['sd']:.1f}"


def _timed(row: dict) -> str:
    faster = "" if row["method"] == "dense" else f" ({row['metrics']['speedup']['mean']:.1f}×)"
    return f"{_milliseconds(row)} ms{faster}"


def _listed(row: dict, name: str) -> str:
    """What groups of layers have of their own: "words=48,…" as words."""
    return row["settings"].get(name, "").replace("=", " ").replace(",", ", ")


def _joined(parts: list[str]) -> str:
    return ", ".join(filter(None, parts))


def _mean(metric: dict[str, float]) -> str:
    spread = "" if metric["sd"] is None else f" ± {metric['sd']:.1f}"
    return f"{metric['mean']:.1f}{spread} %"


TABLES = {  # the file → the tables that show it
    "atis": [atis_table],
    "allocate": [allocate_table],
    "glue": [glue_table],
    "xtc": [xtc_table],
    "end_to_end": [end_to_end_table],
    "teq": [teq_table],
    "talking": [talking_table],
    "speed": [training_table, inference_table, speed_table],
}
