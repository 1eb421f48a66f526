"""README's one table and its picture, each from rows of data/results/ that are named here one by one."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from results import ROOT

from ttqlib.plots.style import side_by_side

PICTURE = ROOT / "docs" / "results.svg"
# What arXiv 2306.01076 reports: its abstract, "up to 63 times" on ATIS; on GLUE, points lost behind a BERT-base.
PAPER_ATIS, PAPER_SST2 = 63, {45: 3.6, 88: 4.5}
DENSE = {"method": "dense", "split": "test"}
STUDENT = {"task": "sst2", "split": "validation", "hold_out": "rows", "inputs": "crossed"}
XTC = {"task": "sst2", "split": "validation", "hold_out": "rows", "inputs": "crossed", "method": "xtc"}
SPEED = {"task": "bert-base 1×128", "split": "forward", "rest": None}
ALLOCATED = {"task": "atis", "split": "test", "method": "allocated-qat"}
PROGRAM = {"task": "sst2", "split": "validation"}  # a row of end_to_end.json, by its method
HEADLINE = [  # what a line says, the file, and the fields of row or settings that only one of its rows has
    ("dense transformer, 768 wide", "atis", DENSE),
    ("trains, 2-bit cores, cut from the dense one", "atis", {"method": "tt-qat", "split": "test", "start": "dense"}),
    ("low-rank products, 2 bits, cut likewise", "atis", {"method": "svd-qat", "split": "test", "start": "dense"}),
    ("narrow dense transformer, 2 bits", "atis", {"method": "narrow-qat", "split": "test", "hidden": 160}),
    ("low ranks and bits chosen by `ttq.allocate`", "allocate", {**ALLOCATED, "epochs": 20}),
    ("MiniLM, the teacher", "glue", {**STUDENT, "method": "dense", "inputs": None}),
    ("MiniLM in 8 bits", "end_to_end", {**PROGRAM, "method": "teacher, 8 bits"}),
    ("trains, 3 bits", "glue", {**STUDENT, "bits": 3, "rank": 48}),
    ("low-rank products, 3 bits", "glue", {**STUDENT, "bits": 3, "sides": 1}),
    ("one bit, five of six layers, low-rank words", "xtc", {**XTC, "layers": 5, "steps": 3000}),
    ("dense in 8 bits, onnxruntime", "speed", {**SPEED, "method": "dense-onnx-int8"}),
    ("trains of rank 30, onnxruntime", "speed", {**SPEED, "method": "fused-onnx"}),
]
TIMED = {  # the line → the program of end_to_end.json that has its accuracy, of the first seed
    "MiniLM, the teacher": "teacher, PyTorch",
    "MiniLM in 8 bits": "teacher, 8 bits",
    "trains, 3 bits": "trains",
    "low-rank products, 3 bits": "low rank",
    "one bit, five of six layers, low-rank words": "one bit",
}
SCORES = ("intent_accuracy", "slot_f1", "accuracy")
TASKS = {
    **dict.fromkeys(("atis", "allocate"), "ATIS, test"),
    **dict.fromkeys(("glue", "xtc", "end_to_end"), "SST-2, validation"),
}
TASKS |= {"speed": "BERT-base, random weights"}
NOTE = (
    "ATIS: intent accuracy, slot F1 (± standard deviation over three seeds). SST-2: accuracy; one seed where no "
    "deviation stands. Bytes are those on disk. Milliseconds, two threads: on SST-2 from the text of one sentence to "
    "its label, MiniLM in PyTorch, all others in onnxruntime, float32 where nothing else is said; of BERT-base 128 "
    "tokens, on another machine, and no accuracy belongs to those weights."
)
FAMILIES = {"tt": "trains", "tt-qat": "trains", "narrow": "narrow", "narrow-qat": "narrow"}
FAMILIES |= {"svd": "low-rank products", "svd-qat": "low-rank products", "xtc": "one bit (XTC)"}
FAMILIES |= {"uniform-qat": "low-rank products", "allocated-qat": "chosen by ttq.allocate"}


def pick(rows: list[dict], **said) -> dict:
    """The one row whose fields, or settings, are as said; None stands for what a row does not have.

    Raises:
        LookupError: there is none, or there are several.
    """
    found = [row for row in rows if all({**(row["settings"] or {}), **row}.get(k) == v for k, v in said.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows have {said}, exactly one must")
    return found[0]


def headline(rows: dict[str, list[dict]]) -> list[list[str]]:
    """The cells of the table, line by line."""
    lines = []
    for label, name, said in HEADLINE:
        row = pick(rows[name], **said)
        scores = [_percent(row["metrics"][score]) for score in SCORES if score in row["metrics"]]
        timed = pick(rows["end_to_end"], **PROGRAM, method=TIMED[label]) if label in TIMED else row
        cells = [TASKS[name], label, _size(row["stored_bytes"]), f"{row['ratio']:.0f}×", ", ".join(scores)]
        lines.append([*cells, _took(timed["metrics"])])
    return lines


def method_of(row: dict) -> str:
    """Of trains with one core on a side, which are a product of two matrices, the name that atis.py has for them."""
    one_core = row["method"].startswith("tt") and (row["settings"] or {}).get("sides") == 1
    return row["method"].replace("tt", "svd", 1) if one_core else row["method"]


def points(rows: dict[str, list[dict]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """What the picture shows: by panel and family (times fewer bytes, points behind the dense model).

    Of ATIS every trained row of the test split, by the worse of its two scores; of SST-2 the students that learn from
    crossed sentences in 3 000 steps. Rounding without training (`tt-ptq`) lies far outside the picture and is left to
    the tables.
    """
    atis, sst2 = pick(rows["atis"], **DENSE), pick(rows["glue"], **{**STUDENT, "method": "dense", "inputs": None})
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {"ATIS": {}, "SST-2": {}}
    for row in [*rows["atis"], *rows["allocate"]]:
        if row["task"] == "atis" and row["split"] == "test" and row["method"] in FAMILIES:
            panels["ATIS"].setdefault(FAMILIES[row["method"]], []).append((row["ratio"], _behind(row, atis)))
    for row in [*rows["glue"], *rows["xtc"]]:
        wanted = {**STUDENT, "steps": 3000}
        family = FAMILIES.get(method_of(row))
        if family and all({**row["settings"], **row}.get(k) == v for k, v in wanted.items()):
            panels["SST-2"].setdefault(family, []).append((row["ratio"], _behind(row, sst2)))
    return panels


def picture(rows: dict[str, list[dict]]) -> Figure:
    """Two panels: points behind the dense model against how many times fewer bytes."""
    figure, panels = side_by_side(2, 9.0, 3.7, layout=None, sharey=True)
    figure.subplots_adjust(0.08, 0.3, 0.98, 0.9, 0.06)
    looks = {"trains": ("o", 7, "tab:orange"), "low-rank products": ("s", 12, "none"), "narrow": ("^", 7, "white")}
    looks |= {"one bit (XTC)": ("D", 6, "tab:blue"), "chosen by ttq.allocate": ("P", 10, "tab:green")}
    titles = ("ATIS, test: worse of intent and slot F1", "SST-2, validation: accuracy")
    for axes, title, families in zip(panels, titles, points(rows).values()):
        axes.plot(1, 0, "*", ms=14, color="black", label="dense")
        for family, (marker, size, fill) in looks.items():
            x, y = zip(*families.get(family, [(1, -99)]))  # one outside, so that the legend has all of them
            axes.plot(x, y, marker, ms=size, mfc=fill, mec="black", label=family)
        axes.set(title=title, xlabel="times fewer bytes than dense", xscale="log", xlim=(0.8, 900), ylim=(5, -1))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].axvline(PAPER_ATIS, color="black", ls="--")
    panels[0].text(0.95 * PAPER_ATIS, 4.7, f"paper: up to {PAPER_ATIS}×", ha="right")
    panels[1].plot(*zip(*PAPER_SST2.items()), "X", ms=8, color="grey", mec="black", label="the paper's, from BERT-base")
    panels[0].set_ylabel("points behind dense")
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="lower center", ncols=4, columnspacing=1.2, handletextpad=0.3
    )
    return figure


def draw(rows: dict[str, list[dict]], path=PICTURE) -> None:
    """Write the picture, on a white ground, so that it can be read on a dark page, and the same at every call."""
    with matplotlib.rc_context({"svg.hashsalt": "ttq", "svg.fonttype": "path"}):
        picture(rows).savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def _behind(row: dict, dense: dict) -> float:
    return max(dense["metrics"][one]["mean"] - row["metrics"][one]["mean"] for one in SCORES if one in row["metrics"])


def _size(count: int) -> str:
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.{1 if count < 1e8 else 0}f} MB"


def _took(metrics: dict) -> str:
    if "milliseconds" not in metrics:
        return ""
    mean = metrics["milliseconds"]["mean"]
    return f"{mean:.{int(mean < 10)}f} ms"


def _percent(metric: dict[str, float]) -> str:
    return f"{metric['mean']:.1f}" + ("" if metric["sd"] is None else f" ± {metric['sd']:.1f}") + " %"
