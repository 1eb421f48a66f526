"""Distils a fine-tuned encoder into tensor trains on a task of sentences.

    python experiments/glue.py --task sst2                               # the teacher: MiniLM, fine-tuned
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8   # a student, distilled layer by layer
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8 --schedule task             # the control
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8 --seeds 0 1 2 --validation  # once it is chosen
    python experiments/glue.py --task mnli --teacher distilbert-base-uncased --rank 60             # any encoder
    torchrun --nproc_per_node 2 experiments/glue.py --task sst2 --rank 60                         # or accelerate launch

A student starts from the teacher's weights by TT-SVD, its ranks spent on what its layers give on training sentences
(--start svd: on the weights alone; --start rotated: its bonds are then turned, so that few bits lose less), is
quantized, and learns for --steps optimizer steps in all, whatever the schedule. The teacher that it needs is trained
first where it is missing.

With --share (and --sides 1) the same matrix of all layers has a core in common, on the side of its inputs or of its
outputs, or on both, with a small one of its own between. Five formats at 88 times and more, of equal bytes, steps and
seeds:

    for form in "--rank 36 --sides 1" "--rank 36" "--rank 62 --sides 1 --share input" \
                "--rank 62 --sides 1 --share output" "--rank 126 --sides 1 --share both"; do
        python experiments/glue.py --task sst2 --teacher-bf16 --bf16 --words low-rank --word-rank 72 --bits 2 --rest 8 \
            --dropout 0 --schedule all_layers --inputs crossed --steps 3000 --save-steps 500 $form --seeds 0 1 2
    done                       # two quiet cores: 100 minutes a format, and once 90 for the teacher

The test labels of these tasks are secret. So settings are chosen on training rows that are held out of training, those
of 1 000 whole sentences (at most a fifth; see sentences.py), and validation takes the place of the test split: only
--validation reads it, of MNLI both its parts. With --hold-out rows it is 2 000 rows at random: scores on these flatter,
because nearly all of their sentences are trained on. For runs that are made when all is chosen, and for students of a
teacher of that kind.

Scores are printed and written to runs/glue/results.json; with --record to data/results/glue.json. A run keeps its
checkpoints and its model under runs/glue; called again, it goes on from the last one, and a finished run is not trained
again. Real data comes from the folder that TTQ_DATA names (or from the hub); --task reviews trains on the embedded set.
--teacher takes a name of `MODELS` in models.py, as small, which is trained from nothing, or of an encoder on the hub or
in a folder. A new task is one entry in ttqlib/tasks/sources.py, a new schedule one in schedules.py, a new start or
format of the words one in models.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from inspect import signature

import torch
from models import MODELS, SHARES, STARTS, WORDS, check_sharing, copied, from_hub, longest, student_plan
from processes import of_step
from runs import BITS, Settings, Study, finished, first, main
from schedules import SCHEDULES
from sentences import crossed_sentences, hold_out_rows, hold_out_sentences, whole_sentences
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.hf_argparser import HfArg

import ttqlib as ttq
from ttqlib.tasks.sources import TASKS
from ttqlib.training.pairing import stages_of

HOLD_OUT = {"sentences": partial(hold_out_sentences, count=1000), "rows": partial(hold_out_rows, count=2000)}
HELD_OUT_SEED = 0  # the same rows for every run
LENGTH, LENGTH_OF = 128, {"sst2": 64, "rte": 256}  # tokens; a student has so many positions
TEACHER_BATCH = 32
COPIES, CROSSING_SEED = 7, 0  # of every sentence, with --inputs crossed; the same for every run
CALIBRATION = 2048  # training rows that choose what a student's ranks keep
INPUTS = {  # --inputs → what is distilled on, of the `Data`
    "rows": lambda data: data.encoded["train"],
    "sentences": lambda data: data.encoded["train"].select(whole_sentences(data.rows["train"])),
    "crossed": lambda data: data.encode(crossed_sentences(data.rows["train"], COPIES, seed=CROSSING_SEED)),
}
TEACHER = ("task", "rows", "hold_out", "teacher", "teacher_epochs", "teacher_learning_rate", "teacher_bf16")


@dataclass(frozen=True)
class Distillation(Settings):
    """How a student is made and trained, and its teacher; the teacher alone, where there are neither rank nor bits."""

    task: str = HfArg(default="sst2", metadata={"choices": [name for name, task in TASKS.items() if task.metrics]})
    teacher: str = HfArg(default="minilm", help=f"{', '.join(MODELS)}, or an encoder of the hub or in a folder")
    teacher_seed: int = HfArg(default=0, help="which teacher students learn from")
    teacher_epochs: int = 3
    teacher_learning_rate: float = 5e-5
    teacher_bf16: bool = HfArg(default=False, help="train it under autocast to bfloat16")
    sides: int = HfArg(default=2, help="cores on each side of a linear layer")
    share: str | None = HfArg(default=None, help="what layers have in common", metadata={"choices": SHARES})
    words: str = HfArg(default="ttm", help="their format", metadata={"choices": WORDS})
    word_cores: int = HfArg(default=3, help="cores of the word embedding")
    word_rank: int | None = HfArg(default=None, help="its TT-rank, by default --rank")
    word_bits: int | None = HfArg(default=None, help="its bits, by default --bits", metadata={"choices": BITS})
    start: str = HfArg(default="calibrated", help="of the cores", metadata={"choices": STARTS})
    schedule: str = HfArg(default="layer_by_layer", metadata={"choices": SCHEDULES})
    steps: int = HfArg(default=5000, help="of all stages together; 0: compressed, not trained")
    layer_share: float = HfArg(default=0.4, help="of the steps, for stages of layers")
    learning_rate: float = 5e-4
    last_learning_rate: float | None = HfArg(default=None, help="of the last stage, by default --learning-rate")
    temperature: float = HfArg(default=1.0, help="of the logits")
    bf16: bool = HfArg(default=False, help="train the student under autocast to bfloat16")
    inputs: str = HfArg(default="rows", help="to distil on; see sentences.py", metadata={"choices": INPUTS})
    hold_out: str = HfArg(default="sentences", help="which training rows", metadata={"choices": HOLD_OUT})

    def __post_init__(self):
        super().__post_init__()
        if self.inputs == "crossed" and self.schedule == "task":
            raise ValueError("crossed sentences have no labels for --schedule task: take --inputs rows or sentences")
        check_sharing(self)
        if self.share is not None and self.start == "rotated":
            raise ValueError("--start rotated turns each layer by itself, which --share does not let: take calibrated")
        for name, value in self.filled_in().items():
            object.__setattr__(self, name, value)  # how a frozen dataclass sets its own fields

    def filled_in(self) -> dict:
        """What follows from other settings."""
        own = {"word_rank": self.word_rank or self.rank, "word_bits": self.word_bits or self.bits}
        return own if self.rank else {"words": "dense"}

    @property
    def is_student(self) -> bool:
        return self.rank is not None or self.quantized

    @property
    def form(self) -> str:
        return "shared" if self.share else "tt" if self.rank else "dense"

    @property
    def trains(self) -> bool:
        return self.steps > 0 if self.is_student else self.teacher_epochs > 0

    @property
    def of_teacher(self) -> "Distillation":
        """The run that makes a student's teacher."""
        return replace(self, rank=None, share=None, bits=32, rest=32)

    def idle(self) -> Sequence[str]:
        return () if self.is_student else [name for name in asdict(self) if name not in TEACHER]


class Data:
    """The rows of a task: `train`, `held_out` of it, and, only where they are asked for, those of validation."""

    def __init__(self, settings: Distillation, validation: bool):
        self.splits, self.chosen = ttq.load_task(settings.task), settings.inputs
        self.rows = dict(HOLD_OUT[settings.hold_out](self.splits["train"], seed=HELD_OUT_SEED))
        self.rows["train"] = first(self.rows["train"], settings.rows)
        self.rows |= {name: rows for name, rows in self.splits.items() if validation and name.startswith("validation")}
        self.classes = getattr(self.rows["train"].features["label"], "names", [])  # none: numbers are predicted
        texts = [name for name in self.rows["train"].column_names if name.startswith("sentence")]
        source = MODELS.get(settings.teacher) or from_hub(settings.teacher)
        self.tokenizer = source.tokenizer([text for name in texts for text in self.rows["train"][name]])
        self.config = source.config(self.tokenizer)
        self.config.num_labels, self.config.use_cache = len(self.classes) or 1, False  # as Trainer sets it
        self.new_teacher = partial(source.model, self.config)
        bare = self.bare()
        self.length, self.columns = longest(bare, LENGTH_OF.get(settings.task, LENGTH)), signature(bare.forward)

    def bare(self) -> PreTrainedModel:
        """A model like the teacher, without weights."""
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(self.config)

    def encode(self, rows):
        """As the model takes them."""
        made = ttq.encode(rows, self.tokenizer, max_length=self.length)
        known = {*self.columns.parameters, "labels"}
        return made.remove_columns([name for name in made.column_names if name not in known])

    @cached_property
    def encoded(self) -> dict:
        return {name: self.encode(rows) for name, rows in self.rows.items()}

    @cached_property
    def inputs(self):
        """What students are distilled on."""
        return INPUTS[self.chosen](self)

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return DataCollatorWithPadding(self.tokenizer)(rows)


class Glue(Study):
    """Distils a fine-tuned encoder into tensor trains on a task of sentences."""

    name, made_with, kind, last = "glue", Distillation, AutoModelForSequenceClassification, "validation"

    def __init__(self, settings: Distillation, options):
        super().__init__(settings, options)
        self.data = Data(settings, options.last)
        self.splits = self.data.splits
        self.scored = [split for split in self.data.rows if split != "train"]
        if settings.is_student:
            self.check(settings)
            if settings.inputs == "crossed":
                first(self.data.inputs, 1)  # refuses a task that cannot be

    def check(self, settings: Distillation) -> None:
        """Refuse a student that cannot be made, or be distilled so."""
        student, teacher = self.data.bare(), self.data.bare()
        student_plan(student, settings)
        if settings.steps:
            stages_of(student, teacher, SCHEDULES[settings.schedule](settings, student.config))

    def start(self, settings: Distillation, seed: int):
        return (settings.of_teacher, settings.teacher_seed) if settings.is_student else None

    def new(self, settings: Distillation, start: PreTrainedModel | None) -> PreTrainedModel:
        """A teacher before it is tuned; or the teacher, compressed, with no more positions than are used."""
        if start is None:
            return self.data.new_teacher()
        student = copied(start, settings.dropout, self.data.length)
        plan = student_plan(student, settings)
        rows = first(self.data.inputs, CALIBRATION)
        batches = DataLoader(rows, batch_size=64, collate_fn=self.data.collate)
        return (STARTS[settings.start] if settings.rank else STARTS["svd"])(student, plan, batches)

    def trainer(self, settings: Distillation, model: PreTrainedModel, start, arguments: dict):
        arguments["use_cpu"] = not torch.cuda.is_available()  # else transformers refuses bfloat16 there
        if start is None:
            how = TrainingArguments(
                num_train_epochs=settings.teacher_epochs,
                learning_rate=settings.teacher_learning_rate,
                lr_scheduler_type="linear",
                warmup_steps=0.1,
                **of_step(TEACHER_BATCH, self.options),
                bf16=settings.teacher_bf16,
                **arguments,
            )
            rows = self.data.encoded["train"]
            return ttq.QATTrainer(model, how, data_collator=self.data.collate, train_dataset=rows)
        how = TrainingArguments(
            learning_rate=settings.learning_rate,
            **of_step(settings.batch_size, self.options),
            bf16=settings.bf16,
            **arguments,
        )
        return self.distillation(settings, model, start, how)

    def distillation(self, settings: Distillation, model: PreTrainedModel, start: PreTrainedModel, how) -> Trainer:
        """What trains a student, `model`, under the training arguments `how`."""
        use = {"data_collator": self.data.collate, "train_dataset": self.data.inputs}
        stages = SCHEDULES[settings.schedule](settings, model.config)
        return ttq.DistillTrainer(model, how, teacher=start, stages=stages, **use)

    def score(self, model: PreTrainedModel, split: str, start: Callable | None) -> dict[str, float]:
        """GLUE's metrics; beside a teacher also how near the two are, right or wrong.

        `agreement`: on how many percent of the rows both give the same answer; of numbers, Pearson's correlation.
        `divergence`: the mean of KL(teacher's classes ‖ model's), in nats, which tells students apart that accuracy
        cannot; of numbers, their mean squared difference.
        """
        task, expected = self.settings.task, self.data.rows[split]["label"]
        logits = self.predict(model, split)
        scores = ttq.score(task, expected, self.answers(logits))
        if start is not None:
            wanted = self.predict(start(), split)
            both = self.answers(wanted), self.answers(logits)
            scores["agreement"] = ttq.accuracy(*both) if self.data.classes else ttq.score("stsb", *both)["pearson"]
            scores["divergence"] = float((ttq.logits_kl if self.data.classes else ttq.logits_mse)(logits, wanted))
        return scores

    def answers(self, logits: torch.Tensor) -> list:
        return (logits.argmax(-1) if self.data.classes else logits[:, 0]).tolist()

    @torch.no_grad()
    def predict(self, model: PreTrainedModel, split: str) -> torch.Tensor:
        """The logits of every row, (rows, classes); the model is left in eval mode."""
        batches = DataLoader(self.data.encoded[split], batch_size=64, collate_fn=self.collate_for(model))
        one = model.eval().device
        return torch.cat([model(**{key: x.to(one) for key, x in batch.items()}).logits.cpu() for batch in batches])

    def collate_for(self, model: PreTrainedModel) -> Callable:
        """What makes a batch for this model of rows."""
        return self.data.collate

    def dense_bytes(self) -> int:
        before = self.start(self.settings, self.options.seeds[0]) or (self.settings, self.options.seeds[0])
        return finished(self, *before)[1]["stored_bytes"]


if __name__ == "__main__":
    main(Glue)
