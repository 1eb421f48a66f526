"""Few bits for the weights of a language model, by every recipe that there is: perplexity on held-out text.

    python experiments/teq.py                                       # float
    python experiments/teq.py --bits 3                              # round-to-nearest, groups of 64
    python experiments/teq.py --bits 3 --recipe clip                # clipped by what inputs make of it
    python experiments/teq.py --bits 3 --recipe awq+clip+rounding --seeds 0 1 2
    python experiments/teq.py --bits 3 --recipe teq+clip             # trains its scales first, where that is missing
    python experiments/teq.py --bits 2 --group channel --recipe clip+gptq
    python experiments/teq.py --bits 3 --recipe auto-round --python venv/bin/python      # a peer's own tool
    python experiments/teq.py --bits 3 --recipe awq+clip+rounding --docstrings           # once it is chosen
    python experiments/teq.py --table                               # the rows so far, and the share of the gap removed
    python experiments/teq.py --list                                # the runs of the study, and which are missing

SmolLM2-135M, in float32, every linear layer of its 30 blocks under `ttq.GroupRTN`, asymmetric; the table of words and
the norms stay as they are. A recipe is what happens to that one after another (`STAGES`), or a peer (`peers.py`), which
may need an environment of its own: --python names its interpreter. All are calibrated or trained on the same windows of
256 tokens of Python's manual, drawn by the seed; they are measured on 48 windows that nothing is trained on. With
--docstrings also on a text that nothing is tuned on: the docstrings of the standard library. The model that is measured
is the one that was read again from its file.

Scores are printed and written to runs/teq/results.json; with --record to data/results/teq.json. A run keeps its model
under runs/teq; a finished one is not made again.
"""

import copy
import hashlib
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peers import PEERS, Job, converted
from processes import of_step
from results import RESULTS, RUNS, key, read
from runs import Settings, Study, main, stored_bytes
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import LlamaForCausalLM, TrainingArguments
from transformers.hf_argparser import HfArg

import ttqlib as ttq

BITS = (2, 3, 4, 5, 8, 32)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEXTS = ("manual", "docstrings")
STAGES: Mapping[str, Callable] = {  # in their order, each with (model, batches, settings, seed); "rtn" is always there
    "teq": lambda model, *_: model,  # done already: its scales lie in the model that the run starts from
    "awq": lambda model, batches, settings, _: ttq.awq_(
        model, ttq.equivalent_groups(model), plan(model, settings), batches
    ),
    "rtn": lambda model, batches, settings, _: ttq.compress_(model, plan(model, settings)),
    "clip-weights": lambda model, *_: ttq.clip_(model),
    "clip": lambda model, batches, *_: ttq.clip_(model, batches),
    "gptq": lambda model, batches, *_: ttq.gptq_(model, batches),
    "rounding": lambda model, batches, settings, seed: ttq.learn_rounding_(
        model, batches, steps=settings.steps, seed=seed
    ),
}
ADDED = [name for name in STAGES if name != "rtn"]
BEST = ["awq+clip+rounding", "teq+clip+rounding"]
HEADLINE = ["rtn", "clip-weights", "clip", "awq", "gptq", "rounding", "teq", "awq+clip", "clip+gptq", "awq+clip+gptq"]
HEADLINE += ["teq+clip", "teq+clip+gptq", *BEST]
GRID = [  # the study: bits, group, recipes; the most telling first
    (32, None, ["rtn"]),
    (3, 64, [*HEADLINE, *(name for name, peer in PEERS.items() if not peer.only)]),
    *[(peer.only[0], peer.only[1] or 64, [name]) for name, peer in PEERS.items() if peer.only],
    *[(bits, 64, ["rtn", "clip-weights", "clip", "clip+gptq", BEST[0]]) for bits in (4, 2)],
    *[(bits, group, ["rtn", "clip", "clip+gptq"]) for bits in (3, 4, 2) for group in (32, None)],
]


@dataclass(frozen=True)
class Compression(Settings):
    """What is done to the model. `rows` are the windows that it is calibrated on, `batch_size` of them at once."""

    task: str = HfArg(default="manual", help="the text", metadata={"choices": TEXTS[:1]})
    bits: int = HfArg(default=32, help="of every linear layer's weights", metadata={"choices": BITS})
    group: str = HfArg(default="64", help="weights that share a scale; 'channel' for a whole row")
    recipe: str = HfArg(default="rtn", help=f"rtn; {', '.join(ADDED)}, joined by +; or a peer: {', '.join(PEERS)}")
    rows: int = HfArg(default=64, help="windows of training text")
    batch_size: int = 4
    steps: int = HfArg(default=200, help="of learned rounding, or of a peer that trains, for each block")
    scale_steps: int = HfArg(default=1000, help="of TEQ's scales, on the next token")
    scale_rate: float = HfArg(default=1e-2, help="the learning rate of TEQ's scales, which falls in a line to 0")
    scale_bf16: bool = HfArg(default=False, help="train TEQ's scales under autocast to bfloat16")
    folded: bool = HfArg(default=False, help="the float model alone whose scales TEQ has trained for these bits")
    python: str = HfArg(default=sys.executable, help="the interpreter of an environment that has the peer")

    def __post_init__(self):
        super().__post_init__()
        if self.group != "channel" and not (self.group.isdecimal() and int(self.group)):
            raise ValueError(f"--group must be 'channel' or a number from 1 on, got {self.group!r}")
        places = [ADDED.index(stage) if stage in ADDED else -1 for stage in self.stages]
        if -1 in places or places != sorted(set(places)):
            known = "+".join(ADDED)
            raise ValueError(f"--recipe must be rtn, a peer, or some of {known} in this order, got {self.recipe!r}")
        if self.rank is not None or self.rest != 32:
            raise ValueError("weights stay dense here and all else stays float: leave --rank and --rest out")
        if shutil.which(self.python) is None:
            raise ValueError(f"--python must be an interpreter, got {self.python!r}")
        if self.folded and self.recipe != "teq":
            raise ValueError("--folded is for --recipe teq")
        if self.recipe != "rtn" and self.bits == 32:
            raise ValueError(f"--recipe {self.recipe} needs --bits below 32")
        bits, group = (self.recipe in PEERS and PEERS[self.recipe].only) or (None, None)
        if bits not in (None, self.bits) or group not in (None, self.per):
            raise ValueError(f"--recipe {self.recipe} has --bits {bits} --group {group or 'any'} and no other")

    @property
    def stages(self) -> list[str]:
        return [] if self.recipe == "rtn" or self.recipe in PEERS else self.recipe.split("+")

    @property
    def method(self) -> str:
        return "teq-folded" if self.folded else self.recipe if self.quantized else "dense"

    @property
    def trains(self) -> bool:
        """By a Trainer: only TEQ's scales do, in a run of their own, from which all that begin with them start."""
        return self.folded

    @property
    def per(self) -> str | int:
        return self.group if self.group == "channel" else int(self.group)

    def idle(self) -> Sequence[str]:
        """What does nothing: dropout always, calibration where nothing looks at it."""
        blind = {"rtn", "clip-weights"} | {name for name, peer in PEERS.items() if not peer.looks}
        trains = "rounding" in self.stages or (self.recipe in PEERS and PEERS[self.recipe].trains)
        unused: tuple[str, ...] = ("rows", "batch_size") if self.recipe in blind else ()
        unused += () if trains else ("steps",)
        unused += () if "teq" in self.stages else ("scale_steps", "scale_rate", "scale_bf16")
        unused += () if self.quantized else ("group",)
        return ("recipe", "dropout", "rest", "python", *unused, *(() if self.folded else ("folded",)))

    def said(self) -> dict:
        return super().said() | {"text_sha256": text_sha256(self.task)}


@lru_cache
def text_sha256(name: str) -> str:
    """Of a text that changes with the version of Python."""
    return hashlib.sha256(ttq.load_text(name).encode()).hexdigest()


@lru_cache
def windows(name: str) -> ttq.Windows:
    return ttq.text_windows(ttq.load_text(name), ttq.smollm2_tokenizer())


def drawn(settings: Compression, seed: int) -> list[dict[str, Tensor]]:
    """The windows that a run is calibrated on, in batches."""
    train = windows(settings.task).train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": ids.to(DEVICE)} for ids in train[order[: settings.rows]].split(settings.batch_size)]


def plan(model: nn.Module, settings: Compression) -> ttq.TTQConfig:
    """Every linear layer but the head, which is the table of words."""
    if not settings.quantized:
        return ttq.TTQConfig()
    recipe = ttq.GroupRTN(settings.bits, per=settings.per, symmetric=False)
    tables = {"embed": None, "head": None}
    return ttq.plan(model, rules={**tables, "": recipe})


class Teq(Study):
    """Few bits for the weights of SmolLM2, by every recipe that there is: perplexity on held-out text."""

    name, made_with, kind, last = "teq", Compression, LlamaForCausalLM, "docstrings"

    def __init__(self, settings: Compression, options):
        super().__init__(settings, options)
        self.scored = list(TEXTS) if options.last else [settings.task]
        self.splits = {name: [ttq.load_text(name)] for name in TEXTS}  # both in all rows, so that rows compare

    def start(self, settings: Compression, seed: int) -> tuple[Compression, int] | None:
        if "teq" not in settings.stages or settings.folded:
            return None
        return replace(settings, recipe="teq", folded=True, steps=Compression.steps), seed

    def new(self, settings: Compression, start) -> nn.Module:
        """`runs.main` sets torch's seed before it calls, which is that of the run."""
        seed, model = torch.initial_seed(), (copy.deepcopy(start) or ttq.pretrained_smollm2()).to(DEVICE)
        if settings.folded:
            model.set_attn_implementation("eager")  # of short windows a step of 4.7 s takes half a second less
            return ttq.equivalent_(model, ttq.equivalent_groups(model), plan(model, settings))
        if settings.recipe in PEERS:
            return self.peer(settings, model, seed)
        batches = drawn(settings, seed)
        for name, stage in STAGES.items():
            if name == "rtn" or name in settings.stages:
                stage(model, batches, settings, seed)
        return model

    def peer(self, settings: Compression, model: nn.Module, seed: int) -> nn.Module:
        """The model with a peer's weights; how much it would take of a file is kept on it."""
        ids = torch.cat([batch["input_ids"] for batch in drawn(settings, seed)])
        group = -1 if settings.per == "channel" else settings.per
        job = Job(settings.bits, group, settings.steps, settings.batch_size, ids)
        model, spared = converted(settings.recipe, model, ttq.smollm2_tokenizer(), job, settings.python)
        model.spared_bytes = spared
        return model

    def trainer(self, settings: Compression, model, start, arguments: dict):
        ids = torch.cat([batch["input_ids"] for batch in drawn(settings, arguments["seed"])])
        how = TrainingArguments(
            max_steps=settings.scale_steps,
            learning_rate=settings.scale_rate,
            lr_scheduler_type="linear",
            bf16=settings.scale_bf16,
            **of_step(settings.batch_size, self.options),
            **arguments | {"weight_decay": 0.0},
        )
        return ttq.QATTrainer(model, how, train_dataset=[{"input_ids": row, "labels": row} for row in ids])

    def score(self, model: nn.Module, split: str, start) -> dict[str, float]:
        with parametrize.cached():  # or every batch would quantize all weights again
            types = {f"layers_of_{name}": count for name, count in getattr(model.config, "types", {}).items()}
            return {"perplexity": ttq.perplexity(model, windows(split).held_out)} | types

    def stored_bytes(self, settings: Compression, model: nn.Module, folder: Path) -> int:
        """A peer's model is written in float32; what its own format would take is counted instead."""
        size = stored_bytes(ttq.fold_(model) if settings.folded else model, folder)
        return size if settings.recipe not in PEERS else size - model.spared_bytes

    def dense_bytes(self) -> int:
        with TemporaryDirectory() as folder:
            return stored_bytes(ttq.compress_(ttq.pretrained_smollm2(), ttq.TTQConfig()), Path(folder))


# ------------------------------------------------------------------------------------------------------ what there is


def perplexity_of(row: Mapping) -> float:
    return row["metrics"]["perplexity"]["mean"]


def share_removed(row: Mapping, rows: Sequence[Mapping]) -> float | None:
    """How much of the gap in log perplexity, between round-to-nearest and float, a row's recipe removes, in percent.

    None where the rows of one of these two are not there.
    """
    alike = [one for one in rows if (one["split"], one["data_sha256"]) == (row["split"], row["data_sha256"])]
    dense = next((one for one in alike if one["method"] == "dense"), None)
    plain = next((one for one in alike if one["method"] == "rtn" and _shape(one) == _shape(row)), None)
    if dense is None or plain is None or row["method"] == "dense":
        return None
    top, bottom, own = (math.log(perplexity_of(one)) for one in (plain, dense, row))
    return 100 * (top - own) / (top - bottom)


def _shape(row: Mapping) -> tuple:
    return row["bits"], row["settings"].get("group")


def table(rows: Sequence[Mapping]) -> str:
    """A line for each row: bits, group, recipe, perplexity, share of the gap, megabytes."""
    lines = []
    for row in sorted(rows, key=lambda one: (one["split"], -one["bits"], str(_shape(one)), -perplexity_of(one))):
        share, metric = share_removed(row, rows), row["metrics"]["perplexity"]
        spread = "" if metric["sd"] is None else f" ± {metric['sd']:.2f}"
        gained = "" if share is None else f"{share:5.1f} % of the gap"
        where = f"{row['split']:10} {row['bits']:2} bits, {row['settings'].get('group', '-'):>7}"
        size = row["stored_bytes"] / 1e6
        lines.append(f"{where}  {row['method']:20} {metric['mean']:9.3f}{spread:8} {gained:18} {size:6.1f} MB")
    return "\n".join(lines)


def missing(rows: Sequence[Mapping]) -> list[str]:
    """The commands of the study's runs that have no row."""
    there = {(*_shape(row), row["method"]) for row in rows}
    commands = []
    for bits, group, recipes in GRID:
        for recipe in recipes:
            size = str(group or "channel")
            wanted = (32, None, "dense") if bits == 32 else (bits, size, recipe)
            if wanted not in there:
                shape = "" if bits == 32 else f" --bits {bits} --group {size} --recipe {recipe}"
                commands.append(f"python experiments/teq.py{shape}")
    return commands


if __name__ == "__main__":
    given = sys.argv[1:]
    if {"--table", "--list"} & {*given}:
        files = (RESULTS / "teq.json", RUNS / "teq" / "results.json")
        found = [*{key(row): row for path in files for row in read(path)}.values()]  # a recorded run lies in both
        print("\n".join(missing(found)) if "--list" in given else table(found))
    else:
        main(Teq)
