"""Trains a 2-layer transformer on intent and slots, dense or as tensor trains.

    python experiments/atis.py                                # dense, seed 0, scored on validation
    python experiments/atis.py --rank 12 --learning-rate 2e-3 --epochs 60 --seeds 0 1 2
    python experiments/atis.py --rank 12 --learning-rate 2e-3 --epochs 60 --seeds 0 1 2 --test   # once it is chosen
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --float-learning-rate 2e-3 --float-epochs 60 --epochs 20
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --dense-bits heads=4 positions=4 …  # 4-bit matrices
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --ranks heads=30 positions=12 …      # trains, too
    python experiments/atis.py --rank 32 --start dense …                                        # from the dense model
    python experiments/atis.py --rank 25 --sides 1 --share input …                              # both layers share
    python experiments/atis.py --hidden 128 --bits 4 --rest 8 …                                 # a narrow control
    torchrun --nproc_per_node 2 experiments/atis.py --rank 12                                    # or accelerate launch

With --bits or --rest a run takes the float run of its rank (and trains that first where it is missing), quantizes it,
and goes on training; with --epochs 0 it is only quantized. With --start dense the float run starts from the dense
model of its seed (trained first where it is missing), every rank spent on what a layer's outputs on training sentences
need most.

With --share the same matrix of both layers has a core in common, on the side of its inputs or of its outputs, or on
both, with a small one of its own between. Five formats at 232 times and more, of equal bytes (of the encoder 131 kB
each), steps and seeds; the first two stand in data/results/atis.json already:

    for form in "--rank 19 --sides 1" "--rank 24 --sides 2" "--rank 25 --sides 1 --share input" \
                "--rank 25 --sides 1 --share output" "--rank 36 --sides 1 --share both"; do
        python experiments/atis.py --start dense --float-learning-rate 5e-4 --float-epochs 10 --learning-rate 3e-4 \
            --epochs 10 --ranks words=48 --bits 2 --rest 8 --dense-bits heads=4 positions=2 $form --seeds 0 1 2
    done                       # two quiet cores: 15 minutes a format, and once 50 for the three dense models

Settings are chosen on validation: without --test the test split is not looked at. Scores are printed and written to
runs/atis/results.json; with --record to data/results/atis.json. A run keeps its checkpoints and its model under
runs/atis; called again, it goes on from the last one, and a finished run is not trained again. Real ATIS comes from the
folder that TTQ_DATA names (or from the hub); --task flights trains on the embedded set.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from models import SHARES, check_sharing, copied, dense_plan
from processes import of_step
from runs import BITS, Settings, Study, first, main, stored_bytes
from torch.utils.data import DataLoader
from transformers import BertConfig, TrainingArguments
from transformers.hf_argparser import HfArg

import ttqlib as ttq
from ttqlib.plans.groups import GROUPS, Choice, plan_by_groups, shared_over_layers
from ttqlib.tasks.records import SLOTS
from ttqlib.tasks.sources import TASKS

LAYERS, POSITIONS = 2, 64
WIDTH = 768  # of the dense model that sizes are compared with
DENSE = {"learning_rate": 2e-4, "epochs": 15, "batch_size": 32, "dropout": 0.1}  # what was chosen for the dense model
FLOAT = {"bits": 32, "rest": 32, "dense_bits": None, "activations": 32}
CALIBRATION = 1024  # training sentences that choose what the ranks of --start dense keep
REST = ("positions", "heads")  # groups that stay as they are unless they are named
UNSAID = {"start": "random", "sides": 3, "bf16": False}  # what rows do not name where it is so
GROUPED = {"nargs": "+", "metavar": "GROUP=N"}


@dataclass(frozen=True)
class Training(Settings):
    """How a model is made and trained. `ranks` and `dense_bits` are text, as in "heads=4,positions=4"."""

    task: str = HfArg(default="atis", metadata={"choices": [one for one in TASKS if TASKS[one].fields == SLOTS]})
    ranks: str | None = HfArg(default=None, help=f"of {', '.join(GROUPS)}", metadata=GROUPED)
    dense_bits: str | None = HfArg(default=None, help="of groups that stay matrices", metadata=GROUPED)
    sides: int = HfArg(default=3, help="cores on each side of a linear layer; 1 is a low rank")
    share: str | None = HfArg(default=None, help="what layers have in common", metadata={"choices": SHARES})
    start: str = HfArg(default="random", help="of the cores", metadata={"choices": ("random", "dense")})
    word_cores: int = HfArg(default=2, help="cores of the word embedding, with --rank")
    activations: int = HfArg(default=32, help="bits of what flows into linear layers", metadata={"choices": BITS[1:]})
    float_learning_rate: float = HfArg(default=2e-4, help="of the run that is quantized")
    float_epochs: int = HfArg(default=20, help="of the run that is quantized")
    learning_rate: float = 2e-4
    epochs: int = 20
    bf16: bool = HfArg(default=False, help="train under autocast to bfloat16")
    hidden: int = HfArg(default=WIDTH, help="columns, a multiple of 64: narrow controls")

    def __post_init__(self):
        super().__post_init__()
        for name in ("ranks", "dense_bits"):
            if isinstance(entries := getattr(self, name), list):
                object.__setattr__(self, name, ",".join(sorted(entries)))  # how a frozen dataclass sets its own fields
        named = [entry for text in (self.ranks, self.dense_bits) if text for entry in text.split(",")]
        for entry in named:
            group, _, number = entry.partition("=")
            if group not in GROUPS or not number.isdecimal() or self.rank is None:
                raise ValueError(f"{entry!r} needs --rank and the form GROUP=N, with GROUP one of {', '.join(GROUPS)}")
        if len({entry.partition("=")[0] for entry in named}) < len(named):
            raise ValueError("--ranks and --dense-bits may name each group once")
        check_sharing(self)
        if self.rank is None and self.activations < 32:
            raise ValueError("--activations needs --rank: dense models are quantized in their weights only")
        if self.hidden < 64 or self.hidden % (self.hidden // 64):
            raise ValueError(f"--hidden must be a multiple of 64, or of its number of heads, got {self.hidden}")

    @property
    def form(self) -> str:
        if self.rank is None:
            return "dense" if self.hidden == WIDTH else "narrow"
        return "shared" if self.share else "tt" if self.sides > 1 else "svd"

    @property
    def trains(self) -> bool:
        return self.epochs > 0

    @property
    def quantized(self) -> bool:
        return super().quantized or self.activations < 32 or self.dense_bits is not None

    @property
    def in_float(self) -> "Training":
        """The run that a quantized one starts from."""
        return replace(self, **FLOAT, learning_rate=self.float_learning_rate, epochs=self.float_epochs)

    @property
    def dense(self) -> "Training":
        """The dense run that trains may start from, and whose size is compared with."""
        return replace(self, **FLOAT, **DENSE, rank=None, ranks=None, share=None, hidden=WIDTH)

    def idle(self) -> Sequence[str]:
        unsaid = [name for name, value in UNSAID.items() if getattr(self, name) == value]
        trains = () if self.rank else ("word_cores", "ranks", "start", "sides")
        bits = () if self.quantized else ("rest", "dense_bits", "activations", "float_learning_rate", "float_epochs")
        return (*unsaid, *trains, *bits)


def new_model(settings: Training, vocabulary: int, intents: Sequence[str], slots: Sequence[str]) -> ttq.IntentSlotModel:
    """Dense, of random weights."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=settings.hidden // 64,
        intermediate_size=4 * settings.hidden,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        intents=list(intents),
        slots=list(slots),
    )
    return ttq.IntentSlotModel(config)


def plan(model: ttq.IntentSlotModel, settings: Training) -> ttq.TTQConfig:
    """One number of bits for all cores, one rank for the encoder and the words; groups may have their own.

    Words get two cores instead of three by default: then fewer of them share a slice. Positions and heads belong to
    the rest unless they are given a rank or bits.
    """
    if settings.rank is None:
        return dense_plan(model, settings)
    ranks, bits = numbers(settings.ranks), numbers(settings.dense_bits)
    choices = {}
    for group in GROUPS:
        linear = group not in ("words", "positions")
        cores = settings.word_cores if not linear else None if settings.sides == 3 else settings.sides
        if group in bits:
            choices[group] = Choice(bits=bits[group])
        elif group in ranks or group not in REST:
            choices[group] = Choice(ranks.get(group, settings.rank), settings.bits, cores)
    activations = None if settings.activations == 32 else ttq.DynamicActivation(settings.activations)
    made = plan_by_groups(model, GROUPS, choices, settings.rest, activations)
    return made if settings.share is None else shared_over_layers(model, made, settings.share)


def built(settings: Training, vocabulary: int, intents: Sequence[str], slots: Sequence[str]) -> ttq.IntentSlotModel:
    """Of random weights, with all that the plan says."""
    model = new_model(settings, vocabulary, intents, slots)
    return ttq.compress_(model, plan(model, settings), init="random")


def numbers(entries: str | None) -> dict[str, int]:
    """Of --ranks or --dense-bits, by group."""
    pairs = (entry.split("=") for entry in (entries or "").split(",") if entry)
    return {group: int(number) for group, number in pairs}


class Data:
    """The rows of a task of intents and slots, of which training may take the first `rows` only, and their labels."""

    def __init__(self, task: str, rows: int | None = None):
        self.splits = ttq.load_task(task)
        self.rows = {**self.splits, "train": first(self.splits["train"], rows)}
        self.tokenizer = ttq.word_tokenizer(self.rows["train"]["tokens"])
        self.labels = [ttq.label_names(self.rows["train"], field) for field in ("intent", "slots")]
        self.collate = ttq.IntentSlotCollator(self.tokenizer)

    @cached_property
    def encoded(self) -> dict:
        return {name: ttq.encode(rows, self.tokenizer, *self.labels, POSITIONS) for name, rows in self.rows.items()}


class Atis(Study):
    """Trains a 2-layer transformer on intent and slots, dense or as tensor trains."""

    name, made_with, kind, last = "atis", Training, ttq.IntentSlotModel, "test"

    def __init__(self, settings: Training, options):
        super().__init__(settings, options)
        self.data = Data(settings.task, settings.rows)
        self.splits = self.data.splits
        self.scored = ["validation", "test"] if options.last else ["validation"]
        self.plan(settings)  # which refuses what no plan can be made of

    def model(self, settings: Training) -> ttq.IntentSlotModel:
        return new_model(settings, len(self.data.tokenizer), *self.data.labels)

    def plan(self, settings: Training) -> ttq.TTQConfig:
        with torch.device("meta"):
            return plan(self.model(settings), settings)

    def start(self, settings: Training, seed: int):
        if settings.quantized:
            return settings.in_float, seed
        return (settings.dense, seed) if settings.rank and settings.start == "dense" else None

    def new(self, settings: Training, start):
        recipes = self.plan(settings)
        if start is None:
            return ttq.compress_(self.model(settings), recipes.without_quantizers(), init="random")
        if settings.quantized:
            return ttq.compress_(copy.deepcopy(start), recipes)
        rows = first(self.data.encoded["train"], CALIBRATION)
        batches = DataLoader(rows, batch_size=64, collate_fn=self.data.collate)
        model = copied(start, settings.dropout)
        return ttq.compress_(model, recipes.without_quantizers(), calibration=batches)

    def trainer(self, settings: Training, model, start, arguments: dict):
        how = TrainingArguments(
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            bf16=settings.bf16,
            **of_step(settings.batch_size, self.options),
            label_names=["intent_labels", "slot_labels"],
            **arguments,
        )
        trainer = ttq.QATTrainer(model, how, data_collator=self.data.collate, train_dataset=self.data.encoded["train"])
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean already
        return trainer

    def score(self, model, split: str, start) -> dict[str, float]:
        return ttq.score_intent_slots(model, self.data.rows[split], self.data.encoded[split], self.data.collate)

    def dense_bytes(self) -> int:
        with TemporaryDirectory() as folder:
            return stored_bytes(ttq.compress_(self.model(self.settings.dense), ttq.TTQConfig()), Path(folder))


if __name__ == "__main__":
    main(Atis)
