"""The jobs of experiments/builds.py, which an older build of ttqlib and the present one do in turns.

This file runs in both processes, so a job must be written in names that both builds have, or in the present ones with
the older ones in `RENAMED`. A new job is one class and one name in `JOBS`: what it is made with are its arguments,
`run` gives the seconds that count, `facts` what there is to say afterwards.
"""

import copy
import time
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainingArguments,
)

import ttqlib as ttq

RANK, BITS, REST = 30, 4, 8
SENTENCES, TOKENS = 16, 32  # of a batch
QUANTIZED = {bits: ttq.LSQ(bits) for bits in range(2, 9)}
RENAMED: dict[str, tuple[str, ...]] = {}  # present name → what older builds called it


class Api:
    """The public names of this process's build, old or new: `Api().plan` is `ttq.plan`, whatever it is called there."""

    def __getattr__(self, name: str):
        for known in (name, *RENAMED.get(name, ())):
            if hasattr(ttq, known):
                return getattr(ttq, known)
        raise AttributeError(f"this build has no {name}: name its predecessor in RENAMED of experiments/builds.py")


def sizes(total, rank: int, bits: int) -> dict:
    """The last line of a report, as a row has it."""
    return {"rank": rank, "bits": bits, "stored_bytes": total.stored_bytes, "dense_bytes": total.dense_bytes}


class Compression:
    """`compress_` of a BERT-shaped classifier of random weights."""

    def __init__(self, shape: dict, batches: int = 0, rank: int = RANK):
        self.api, self.rank = Api(), rank
        torch.manual_seed(0)
        self.dense = BertForSequenceClassification(BertConfig(**shape))
        self.plan = self.api.plan(self.dense, rank=rank, bits=BITS, rest=REST)
        size = (self.dense.config.vocab_size, (SENTENCES, TOKENS))
        inputs = [{"input_ids": torch.randint(*size)} for _ in range(batches)]
        self.options = {"calibration": inputs} if batches else {}

    def run(self) -> float:
        """Seconds; the copy that is compressed is made before."""
        self.model = None  # one copy at a time: the most memory is measured too
        self.model = copy.deepcopy(self.dense)
        start = time.perf_counter()
        self.api.compress_(self.model, self.plan, **self.options)
        return time.perf_counter() - start

    def facts(self) -> dict:
        """What `sizes` gives, and the relative error of each layer's weight before it is quantized.

        With calibration the errors of weights say nothing: outputs are kept, not weights.
        """
        total = self.api.report(self.model).total
        found = sizes(total, self.rank, BITS)
        if self.options:
            return found
        cores = self.api.compress_(copy.deepcopy(self.dense), self.plan.without_quantizers())
        layers = {name: layer for name, layer in self.plan.layers.items() if layer.format is not None}
        return found | {"errors": {name: self._error(cores, name) for name in layers}}

    @torch.no_grad()
    def _error(self, cores: nn.Module, name: str) -> float:
        made, weight = cores.get_submodule(name), self.dense.get_submodule(name).weight
        dense = made.to_embedding() if hasattr(made, "to_embedding") else made.to_linear()
        return float((dense.weight - weight).double().norm() / weight.double().norm())


class TrainingStep:
    """Forward, backward and AdamW on such a classifier with quantized cores."""

    def __init__(self, shape: dict, rank: int = RANK):
        api, self.rank = Api(), rank
        torch.manual_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**shape))
        api.compress_(self.model, api.plan(self.model, rank=rank, bits=BITS, rest=REST), init="random")
        self.report = api.report(self.model).total
        self.ids = torch.randint(self.model.config.vocab_size, (SENTENCES, TOKENS))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.model.train()

    def run(self) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.model(input_ids=self.ids, labels=self.ids[:, 0] % 2).loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def facts(self) -> dict:
        return sizes(self.report, self.rank, BITS)


class AtisStep:
    """Forward, backward and AdamW on the model of experiments/atis.py, with the means that each build has for it.

    Batches of like lengths of the real sentences, in the same order in both builds; two cores a side.
    """

    def __init__(self, task: str, rank: int, bits: int, batch: int = 32, batches: int = 40):
        api, self.rank, self.bits = Api(), rank, bits
        torch.manual_seed(0)
        train = api.load_task(task)["train"]
        tokenizer = api.word_tokenizer(train["tokens"])
        intents, slots = api.label_names(train, "intent"), api.label_names(train, "slots")
        rows = api.encode(train, tokenizer, intents, slots, 64)
        by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))
        starts = range(0, len(rows) - batch, len(rows) // batches)
        collate = api.IntentSlotCollator(tokenizer)
        self.batches = cycle([collate([rows[n] for n in by_length[start : start + batch]]) for start in starts])
        config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=64)
        config.intents, config.slots = list(intents), list(slots)
        self.model = api.IntentSlotModel(config)
        plan = api.plan(self.model, rules=self._rules(api, len(tokenizer), rank), quantize=QUANTIZED.get(bits))
        api.compress_(self.model, plan, init="random")
        self.report = api.report(self.model).total
        getattr(ttq, "quick_dropout_", nn.Module.train)(self.model)
        self.forward = getattr(ttq, "merged_together", lambda model: nullcontext())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)  # as Trainer does
        self.model.train()

    @staticmethod
    def _rules(api: Api, words: int, rank: int) -> dict:
        wide, narrow = api.factorize(3072, 2), api.factorize(768, 2)
        return {
            "word_embeddings": api.TTM(rank, api.factorize(words, 2), narrow[::-1]),
            "intermediate.dense": api.TT(rank, narrow[::-1], wide),
            r"\d.output.dense": api.TT(rank, wide[::-1], narrow),
            "encoder": api.TT(rank, narrow[::-1], narrow),
        }

    def run(self) -> float:
        """Seconds of eight steps, over which lengths of batches even out."""
        start = time.perf_counter()
        for _ in range(8):
            self.optimizer.zero_grad()
            with self.forward(self.model):
                loss = self.model(**next(self.batches)).loss
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - start

    def facts(self) -> dict:
        return sizes(self.report, self.rank, self.bits)


class Answer:
    """A forward pass of such a classifier in onnxruntime, as each build exports it.

    Args:
        form: "dense", "fused", "dense-int8" or "fused-int8".
        ids: how many sentences, of how many tokens.
    """

    def __init__(self, shape: dict, form: str, ids: tuple[int, int], rank: int = RANK):
        api, (kind, *integers) = Api(), form.split("-")
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**shape)).eval()
        self.known = {"dense_bytes": api.parameter_bytes(model), "bits": 8 if integers else 32, "rank": None}
        if kind == "fused":
            api.compress_(model, api.plan(model, rank=rank), init="random")
            self.known["rank"] = rank
        self.folder = TemporaryDirectory()
        api.export_onnx(model, self.folder.name, int8=bool(integers))
        self.predictor = api.Predictor(self.folder.name, threads=torch.get_num_threads())
        self.ids = torch.randint(1, model.config.vocab_size, tuple(ids)).numpy()

    def run(self) -> float:
        """The median of five passes, in seconds, after one that does not count."""
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            self.predictor.logits(self.ids)
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])

    def facts(self) -> dict:
        return {"stored_bytes": Path(self.folder.name, "model.onnx").stat().st_size, **self.known}


class DistillationSteps:
    """Steps of a distillation on SST-2's sentences: MiniLM teaches a student of its own layers, 46 times smaller.

    Both builds begin with the student in `folder`, which the first of them makes, and see the same batches. Of cores
    in 3 bits two builds round a few numbers to other levels, for these lie between two, and losses part from there on;
    of 32 bits nothing is rounded.
    """

    def __init__(self, folder: str, steps: int, bits: int = 3, by_length: bool = False, batch: int = 32):
        self.api, self.folder, self.steps, self.batch = Api(), Path(folder), steps, batch
        self.bits = bits
        torch.manual_seed(0)
        minilm, self.tokenizer = self.api.pretrained_minilm(), self.api.minilm_tokenizer()
        config = copy.deepcopy(minilm.config)  # no dropout: the same losses in both builds
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.teacher = BertForSequenceClassification(config)
        self.teacher.bert.load_state_dict(minilm.state_dict(), strict=False)  # a classifier has a pooler of its own
        if not self.folder.exists():
            student = copy.deepcopy(self.teacher)
            self.api.save(self.api.compress_(student, self._plan(student)), self.folder)
        rows = self.api.load_task("sst2")["train"].shuffle(seed=0).select(range(steps * batch))
        self.rows = rows.map(lambda row: self.tokenizer(row["sentence"]), remove_columns="sentence")
        self.order = {"train_sampling_strategy": "group_by_length"} if by_length else {}

    def _plan(self, model: nn.Module):
        def cores(wide: int, narrow: int, rank: int) -> ttq.TT:
            return self.api.TT(rank, self.api.factorize(narrow, 2)[::-1], self.api.factorize(wide, 2))

        hidden, inner = model.config.hidden_size, model.config.intermediate_size
        rules = {
            "word_embeddings": self.api.TTM(96, (model.config.vocab_size, 1), (1, hidden)),
            "intermediate.dense": cores(inner, hidden, 48),
            r"\d.output.dense": cores(hidden, inner, 48),
            "encoder": cores(hidden, hidden, 48),
        }
        return self.api.plan(model, rules=rules, quantize=QUANTIZED.get(self.bits), rest=8 if self.bits < 32 else 32)

    def run(self) -> float:
        """Seconds of the steps."""
        watch = Watch()
        with TemporaryDirectory() as folder:
            how = TrainingArguments(folder, per_device_train_batch_size=self.batch, learning_rate=5e-4, use_cpu=True,
                                    logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
                                    **self.order)  # fmt: skip
            trainer = self.api.DistillTrainer(
                self.api.load(self.folder), how, teacher=self.teacher, stages=self.api.AllLayers(self.steps),
                train_dataset=self.rows, data_collator=DataCollatorWithPadding(self.tokenizer), callbacks=[watch],
            )  # fmt: skip
            trainer.train()
        self.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return watch.seconds

    def facts(self) -> dict:
        report = self.api.report(self.api.load(self.folder)).total
        return sizes(report, 48, self.bits) | {"losses": self.losses}


class Watch(TrainerCallback):
    """The seconds of a training's steps."""

    seconds = 0.0

    def on_step_begin(self, args, state, control, **others):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **others):
        self.seconds += time.perf_counter() - self.began


JOBS = {job.__name__: job for job in (Compression, TrainingStep, AtisStep, Answer, DistillationSteps)}
