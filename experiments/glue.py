"""Distils a fine-tuned BERT into tensor trains on a task of sentences; writes data/results/glue.json.

    python experiments/glue.py --task sst2                               # the teacher: MiniLM, fine-tuned
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8   # a student, distilled layer by layer
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8 --schedule task             # the control
    python experiments/glue.py --task sst2 --rank 60 --bits 4 --rest 8 --seeds 0 1 2 --validation  # once it is chosen
    torchrun --nproc_per_node 2 experiments/glue.py --task sst2 --rank 60                         # or accelerate launch

A student starts from the teacher's weights by TT-SVD, its ranks spent on what its layers give on training sentences
(--start svd: on the weights alone; --start rotated: its bonds are then turned, so that few bits lose less), is
quantized, and learns for --steps optimizer steps in all, whatever the schedule. The teacher that it needs is trained
first where it is missing.

The test labels of these tasks are secret. So settings are chosen on training rows that are held out of training, those
of 1 000 whole sentences (at most a fifth; see sentences.py), and validation takes the place of the test split: only
--validation reads it. With --hold-out rows it is 2 000 rows at random: scores on these flatter, because nearly all of
their sentences are trained on. For runs that are made when all is chosen, and for students of a teacher of that kind.
A run keeps its checkpoints in runs/glue/<task>/<settings>/seed-<n>; called again, it goes on from the last one, and a
finished run is not trained again. Real data comes from the folder that TTQ_DATA names (or from the hub); --task reviews
trains on the embedded set, and --teacher small takes a small teacher, trained from nothing.
"""

import argparse
import copy
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from bookkeeping import last_checkpoint, record_runs, stored_bytes
from results import RESULTS
from safetensors.torch import load_file, save_file
from sentences import crossed_sentences, hold_out_rows, hold_out_sentences, whole_sentences
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import ttqlib as ttq

RUNS = RESULTS.parent.parent / "runs" / "glue"
TASKS = ("sst2", "rte", "mrpc", "qnli", "mnli", "reviews")
HOLD_OUT = {"sentences": partial(hold_out_sentences, count=1000), "rows": partial(hold_out_rows, count=2000)}
HELD_OUT_SEED = 0  # the same rows for every run
MAX_LENGTH, MAX_LENGTH_OF = 128, {"sst2": 64, "rte": 256}  # tokens; a student has so many positions
SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
TEACHER_BATCH = 32
INPUTS = ("rows", "sentences", "crossed")
STARTS = ("calibrated", "rotated", "svd", "random")
COPIES, CROSSING_SEED = 7, 0  # of every sentence, with --inputs crossed; the same for every run
CALIBRATION = 2048  # training rows that choose what a student's ranks keep
TEACHER = ("teacher", "teacher_epochs", "teacher_learning_rate", "teacher_bf16", "hold_out")
STUDENT = ("schedule", "steps", "layer_share", "learning_rate", "last_learning_rate", "temperature", "batch_size")
STUDENT += (
    "bf16",
    "dropout",
    "rest",
    "words",
    "word_rank",
    "word_bits",
    "word_cores",
    "sides",
    "start",
    "inputs",
    "teacher_seed",
    *TEACHER,
)


# ---------------------------------------------------------------------------------------------------------- schedules


def layer_by_layer(options: argparse.Namespace, config, **how) -> list:
    """--layer-share of the steps for the embeddings and the layers, in equal parts, the others for the output."""
    stages = 1 + config.num_hidden_layers
    each = max(1, round(options.steps * options.layer_share / stages))
    steps, rates = [each] * stages + [options.steps - each * stages], [None] * stages + [options.last_learning_rate]
    return [ttq.LayerByLayer(steps, learning_rate=rates, temperature=options.temperature, **how)]


def then_logits(options: argparse.Namespace, kind: type, **how) -> list:
    """A schedule that leaves the head alone, and then the logits, half of the steps each."""
    first = options.steps // 2
    output = {"learning_rate": options.last_learning_rate, "temperature": options.temperature}
    return [kind(first, **how), ttq.LogitsOnly(options.steps - first, **output)]


def all_layers(options: argparse.Namespace, config) -> list:
    return [ttq.AllLayers(options.steps, temperature=options.temperature)]


def relations(options: argparse.Namespace, config) -> list:
    return then_logits(options, ttq.AttentionRelations, heads=config.num_attention_heads)


SCHEDULES = {  # name → (options, the student's config) → schedules of options.steps steps in all
    "layer_by_layer": layer_by_layer,
    "top_down": partial(layer_by_layer, order="top_down"),
    "one_by_one": partial(layer_by_layer, cumulative=False),
    "frozen": partial(layer_by_layer, freeze=True),
    "all_layers": all_layers,
    "logits": lambda options, config: [ttq.LogitsOnly(options.steps, temperature=options.temperature)],
    "relations": relations,
    "contrastive": lambda options, config: then_logits(options, ttq.Contrastive),
    "task": lambda options, config: [ttq.TaskOnly(options.steps)],
}


# ------------------------------------------------------------------------------------------------------------ options


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sst2", choices=TASKS)
    parser.add_argument("--teacher", default="minilm", help="minilm, small, or the name of a BERT on the hub")
    parser.add_argument("--teacher-seed", type=int, default=0, help="which teacher students learn from")
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--teacher-learning-rate", type=float, default=5e-5)
    parser.add_argument("--teacher-bf16", action="store_true", help="train it under autocast to bfloat16")
    parser.add_argument("--rank", type=int, help="TT-rank of every linear layer; without it and --bits: the teacher")
    parser.add_argument("--bits", type=int, default=32, help="of every core, or of the dense weights")
    parser.add_argument("--rest", type=int, default=32, help="bits of the head, positions, norms and biases")
    parser.add_argument("--sides", type=int, default=2, help="cores on each side of a linear layer")
    parser.add_argument("--words", default="ttm", choices=["ttm", "low-rank", "dense"], help="their format")
    parser.add_argument("--word-cores", type=int, default=3, help="cores of the word embedding")
    parser.add_argument("--word-rank", type=int, help="its TT-rank, by default --rank")
    parser.add_argument("--word-bits", type=int, help="its bits, by default --bits")
    parser.add_argument("--start", default="calibrated", choices=STARTS, help="of the cores")
    parser.add_argument("--schedule", default="layer_by_layer", choices=list(SCHEDULES))
    parser.add_argument("--steps", type=int, default=5000, help="of all stages together; 0: compressed, not trained")
    parser.add_argument("--layer-share", type=float, default=0.4, help="of the steps, for stages of layers")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--last-learning-rate", type=float, help="of the last stage, by default --learning-rate")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the logits")
    parser.add_argument("--bf16", action="store_true", help="train the student under autocast to bfloat16")
    parser.add_argument("--dropout", type=float, default=0.1, help="of the student")
    parser.add_argument("--inputs", default="rows", choices=INPUTS, help="to distil on; see sentences.py")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hold-out", default="sentences", choices=list(HOLD_OUT), help="which training rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, help="of the training set; all without it, anything else is for tests")
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where checkpoints are kept")
    parser.add_argument("--no-record", action="store_true", help="write no row into data/results")
    parser.add_argument("--validation", action="store_true", help="score the validation split too")
    options = parser.parse_args(arguments)
    if options.inputs == "crossed" and options.schedule == "task":
        parser.error("crossed sentences have no labels for --schedule task: take --inputs rows or sentences")
    options.word_rank, options.word_bits = options.word_rank or options.rank, options.word_bits or options.bits
    options.max_length = MAX_LENGTH_OF.get(options.task, MAX_LENGTH)
    if is_student(options) and options.rank is None:
        options.words = "dense"
    return options


def is_student(options: argparse.Namespace) -> bool:
    return options.rank is not None or is_quantized(options)


def is_quantized(options: argparse.Namespace) -> bool:
    return min(options.bits, options.rest) < 32


def teacher_run(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the run that makes a student's teacher."""
    return argparse.Namespace(**{**vars(options), "rank": None, "bits": 32, "rest": 32})


def method(options: argparse.Namespace) -> str:
    if not is_student(options):
        return "dense"
    form = "dense" if options.rank is None else "tt"
    if not is_quantized(options):
        return form
    return f"{form}-qat" if options.steps else f"{form}-ptq"


def settings(options: argparse.Namespace) -> dict:
    """What a run is trained with."""
    return {name: getattr(options, name) for name in (STUDENT if is_student(options) else TEACHER)}


def run_folder(options: argparse.Namespace, seed: int) -> Path:
    form = ["teacher"]
    if is_student(options):
        form = ["dense" if options.rank is None else f"tt{options.rank}", f"{options.bits}bit", options.schedule]
        form += [str(options.steps)]
    everything = {**settings(options), "rows": options.rows}
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:8]
    return options.runs / options.task / "-".join([*form, digest]) / f"seed-{seed}"


# -------------------------------------------------------------------------------------------------------------- data


class Data:
    """The rows of a task: `train`, `held_out` of it, and `validation`, which is read only where it is asked for."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.splits = ttq.load_task(options.task)
        self.rows = dict(HOLD_OUT[options.hold_out](self.splits["train"], seed=HELD_OUT_SEED))
        if options.rows:
            self.rows["train"] = self.rows["train"].select(range(options.rows))
        if options.validation:
            self.rows["validation"] = self.splits.get("validation") or self.splits["validation_matched"]

    @property
    def classes(self) -> list[str]:
        return self.rows["train"].features["label"].names

    @cached_property
    def tokenizer(self):
        if self.options.teacher == "minilm":
            return ttq.minilm_tokenizer()
        if self.options.teacher == "small":
            fields = [name for name in self.rows["train"].column_names if name.startswith("sentence")]
            return ttq.word_tokenizer([text.split() for name in fields for text in self.rows["train"][name]])
        return AutoTokenizer.from_pretrained(self.options.teacher)

    @cached_property
    def inputs(self):
        """What students are distilled on."""
        if self.options.inputs == "crossed":
            made = crossed_sentences(self.rows["train"], COPIES, seed=CROSSING_SEED)
            return ttq.encode(made, self.tokenizer, max_length=self.options.max_length)
        rows = self.encoded["train"]
        return rows if self.options.inputs == "rows" else rows.select(whole_sentences(self.rows["train"]))

    @cached_property
    def encoded(self) -> dict:
        length = self.options.max_length
        return {name: ttq.encode(rows, self.tokenizer, max_length=length) for name, rows in self.rows.items()}

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return DataCollatorWithPadding(self.tokenizer)(rows)


def score(model: PreTrainedModel, data: Data, split: str, teacher: PreTrainedModel | None = None) -> dict[str, float]:
    """`accuracy` in percent; beside a teacher also how near the two are, right or wrong.

    `agreement`: on how many percent of the rows both give the same answer. `divergence`: the mean of KL(teacher's
    classes ‖ model's), in nats, which tells students apart that accuracy cannot.
    """
    logits = predict(model, data, split)
    scores = {"accuracy": ttq.accuracy(data.rows[split]["label"], logits.argmax(-1).tolist())}
    if teacher is not None:
        wanted = predict(teacher, data, split)
        scores["agreement"] = ttq.accuracy(wanted.argmax(-1).tolist(), logits.argmax(-1).tolist())
        scores["divergence"] = float(ttq.logits_kl(logits, wanted))
    return scores


@torch.no_grad()
def predict(model: PreTrainedModel, data: Data, split: str) -> torch.Tensor:
    """The logits of every row, (rows, classes); the model is left in eval mode."""
    model.eval()
    batches = DataLoader(data.encoded[split], batch_size=64, collate_fn=data.collate)
    return torch.cat([model(**{key: x.to(model.device) for key, x in batch.items()}).logits.cpu() for batch in batches])


# ------------------------------------------------------------------------------------------------------------ models


def new_teacher(options: argparse.Namespace, data: Data) -> PreTrainedModel:
    """A pre-trained encoder under a new head."""
    changes = {"num_labels": len(data.classes), "use_cache": False}  # the latter as Trainer sets it: a byte of the file
    if options.teacher == "minilm":
        encoder = ttq.pretrained_minilm()
        model = BertForSequenceClassification(BertConfig.from_dict({**encoder.config.to_dict(), **changes}))
        model.bert.load_state_dict(encoder.state_dict())
        return model
    if options.teacher == "small":
        return BertForSequenceClassification(BertConfig(vocab_size=len(data.tokenizer), **SMALL, **changes))
    return AutoModelForSequenceClassification.from_pretrained(options.teacher, **changes)


def new_student(options: argparse.Namespace, teacher: PreTrainedModel, data: Data) -> PreTrainedModel:
    """The teacher, compressed, with no more positions than are used."""
    config = copy.deepcopy(teacher.config)
    config.max_position_embeddings = options.max_length
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = options.dropout
    student, weights = type(teacher)(config), teacher.state_dict()
    for name, own in student.state_dict().items():
        if "position_embeddings" in name:
            weights[name] = weights[name][: len(own)]
    student.load_state_dict(weights)
    if options.rank is None or options.start in ("svd", "random"):
        return ttq.compress_(student, plan(student, options), init="random" if options.start == "random" else "svd")
    rows = data.inputs.select(range(min(CALIBRATION, len(data.inputs))))
    batches, form = DataLoader(rows, batch_size=64, collate_fn=data.collate), plan(student, options)
    if options.start == "calibrated":
        return ttq.compress_(student, form, calibration=batches)
    ttq.compress_(student, form.without_quantizers(), calibration=batches)
    return ttq.compress_(ttq.rotate_(student), form)


def plan(model: PreTrainedModel, options: argparse.Namespace) -> ttq.TTQConfig:
    """One rank and one number of bits for all linear layers but the head; its own for the word embedding."""
    if options.rank is None:
        dense = ttq.TTQConfig(rest=options.rest)
        return dense if options.bits == 32 else ttq.plan(model, bits=options.bits, rest=options.rest)
    rules = {}
    for name, layer in model.named_modules():
        recipe = None
        if layer is model.get_input_embeddings() and options.words == "dense":
            recipe = quantizer(options.word_bits, "channel")
        elif layer is model.get_input_embeddings():
            rows, columns = (ttq.factorize(n, options.word_cores) for n in (layer.num_embeddings, layer.embedding_dim))
            form = ttq.TTM(options.word_rank, rows, columns[::-1])
            if options.words == "low-rank":  # one core for the words and one for the directions
                form = ttq.TTM(options.word_rank, (layer.num_embeddings, 1), (1, layer.embedding_dim))
            recipe = ttq.LayerPlan(form, quantizer(options.word_bits, "tensor"))
        elif isinstance(layer, nn.Linear) and re.search("encoder|pooler", name):
            inputs, outputs = (ttq.factorize(n, options.sides) for n in (layer.in_features, layer.out_features))
            recipe = ttq.LayerPlan(ttq.TT(options.rank, inputs[::-1], outputs), quantizer(options.bits, "tensor"))
        if recipe is not None:
            rules[f"^{re.escape(name)}$"] = recipe
    return ttq.plan(model, rules=rules, rest=options.rest)


def quantizer(bits: int, per: str):
    if bits == 32:
        return None
    return ttq.Binary(per=per) if bits == 1 else ttq.LSQ(bits, per=per)


# ---------------------------------------------------------------------------------------------------------- training


def trainer_of(options: argparse.Namespace, seed: int, data: Data, model, teacher) -> ttq.QATTrainer:
    common = {
        "output_dir": str(run_folder(options, seed)),
        "seed": seed,
        "weight_decay": 0.01,
        "per_device_train_batch_size": TEACHER_BATCH if teacher is None else options.batch_size,
        "bf16": options.teacher_bf16 if teacher is None else options.bf16,
        "use_cpu": not torch.cuda.is_available(),  # else transformers refuses bfloat16 there
        "train_sampling_strategy": "group_by_length",
        "save_steps": options.save_steps,
        "save_total_limit": 1,
        "logging_steps": 100,
        "report_to": "none",
    }
    use = {"data_collator": data.collate, "train_dataset": data.encoded["train"] if teacher is None else data.inputs}
    if teacher is None:
        rate = {"learning_rate": options.teacher_learning_rate, "lr_scheduler_type": "linear", "warmup_steps": 0.1}
        arguments = TrainingArguments(num_train_epochs=options.teacher_epochs, **rate, **common)
        return ttq.QATTrainer(model, arguments, **use)
    stages = SCHEDULES[options.schedule](options, model.config)
    arguments = TrainingArguments(learning_rate=options.learning_rate, **common)
    return ttq.DistillTrainer(model, arguments, teacher=teacher, stages=stages, **use)


def train(options: argparse.Namespace, seed: int, data: Data, teacher: PreTrainedModel | None = None):
    """Train one seed, or go on where it stopped, and score it.

    Returns the model, and a report: {split: {metric: percent}} and seconds.
    """
    folder = run_folder(options, seed)
    finished, weights = folder / "finished.json", folder / "weights.safetensors"
    set_seed(seed)
    if finished.exists():  # its weights are there: the cheapest start of the same form will do
        options = argparse.Namespace(**{**vars(options), "start": "random"})
    model = new_teacher(options, data) if teacher is None else new_student(options, teacher, data)
    if finished.exists():
        report = json.loads(finished.read_text())
        model.load_state_dict(load_file(weights))
    else:
        began = time.perf_counter()
        if options.steps or teacher is None:  # else it is only compressed
            trainer_of(options, seed, data, model, teacher).train(resume_from_checkpoint=last_checkpoint(folder))
        report = {"seconds": time.perf_counter() - began, "settings": settings(options)}
    missing = [split for split in data.rows if split != "train" and split not in report]
    report |= {split: score(model, data, split, teacher) for split in missing}
    if missing and is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        if not finished.exists():
            replace(weights, lambda draft: save_file(model.state_dict(), draft))
        replace(finished, lambda draft: draft.write_text(json.dumps(report)))
    return model, report


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file in one rename: another run, of a student of the same teacher, may be reading it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write(draft)
    draft.replace(path)


def is_first_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def main() -> None:
    options = parse()
    logging.set_verbosity_error()
    ttq.keep_freed_memory()  # thin layers are quick, and fresh pages at every step would not be
    data = Data(options)
    teacher = train(teacher_run(options), options.teacher_seed, data)[0] if is_student(options) else None
    models, reports = zip(*(train(options, seed, data, teacher) for seed in options.seeds))
    if options.no_record or not is_first_process():
        return
    record_runs(
        "glue",
        reports,
        [split for split in data.rows if split != "train"],
        data.splits,
        task=options.task,
        method=method(options),
        rank=options.rank,
        bits=options.bits,
        seeds=options.seeds,
        settings=settings(options),
        stored_bytes=stored_bytes(models[0]),
        dense_bytes=stored_bytes(teacher or models[0]),
        plan=models[0].ttq_config.to_dict() if teacher else None,
    )


if __name__ == "__main__":
    main()
