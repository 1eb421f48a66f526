"""Trains a 2-layer transformer on intent and slots, dense or as tensor trains; writes data/results/atis.json.

    python experiments/atis.py                                # dense, seed 0, scored on validation
    python experiments/atis.py --rank 12 --learning-rate 2e-3 --epochs 60 --seeds 0 1 2
    python experiments/atis.py --rank 12 --learning-rate 2e-3 --epochs 60 --seeds 0 1 2 --test   # once it is chosen
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --float-learning-rate 2e-3 --float-epochs 60 --epochs 20
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --dense-bits heads=4 positions=4 …  # 4-bit matrices
    python experiments/atis.py --rank 12 --bits 2 --rest 8 --ranks heads=30 positions=12 …      # trains, too
    python experiments/atis.py --rank 32 --start dense …                                        # from the dense model
    python experiments/atis.py --hidden 128 --bits 4 --rest 8 …                                 # a narrow control
    torchrun --nproc_per_node 2 experiments/atis.py --rank 12                                    # or accelerate launch

With --bits or --rest a run takes the float run of its rank (and trains that first where it is missing), quantizes it,
and goes on training; with --epochs 0 it is only quantized. With --start dense the float run starts from the dense
model of its seed (trained first where it is missing), every rank spent on what a layer's outputs on training sentences
need most.

Settings are chosen on validation: without --test the test split is not looked at. A run keeps its checkpoints in
runs/atis/<settings>/seed-<n>; called again, it goes on from the last one, and a finished run is not trained again. Real
ATIS comes from the folder that TTQ_DATA names (or from the hub); --task flights trains on the embedded set.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path

from bookkeeping import last_checkpoint, record_runs, stored_bytes
from results import RESULTS
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import BertConfig, TrainingArguments, set_seed
from transformers.utils import logging

import ttqlib as ttq

RUNS = RESULTS.parent.parent / "runs" / "atis"
SETTINGS = ("learning_rate", "epochs", "batch_size", "dropout", "hidden")
TT_SETTINGS = ("word_cores", "ranks", "start", "sides")
QUANTIZED_SETTINGS = ("rest", "dense_bits", "activations", "float_learning_rate", "float_epochs")
OPTIONAL = {"ranks": "", "dense_bits": "", "start": "random", "sides": 3}  # not named where they are so
LAYERS, POSITIONS = 2, 64
DENSE = {"learning_rate": 2e-4, "epochs": 15, "batch_size": 32, "dropout": 0.1}  # what was chosen for the dense model
CALIBRATION = 1024  # training sentences that choose what the ranks of --start dense keep
WIDTH = 768  # of the dense model that sizes are compared with
GROUPS = {  # layers that may have ranks or bits of their own
    "words": r"word_embeddings",
    "positions": r"position_embeddings",
    "attention": r"encoder\..*attention",
    "feed-forward": r"encoder\.",  # what is not attention: the first match wins
    "heads": r"_head",
}
REST = ("positions", "heads")  # groups that stay as they are unless they are named


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="atis", choices=["atis", "flights"])
    parser.add_argument("--rank", type=int, help="TT-rank of every layer; dense without it")
    parser.add_argument("--ranks", nargs="+", default=[], metavar="GROUP=N", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--dense-bits", nargs="+", default=[], metavar="GROUP=N", help="of groups that stay matrices")
    parser.add_argument("--sides", type=int, default=3, help="cores on each side of a linear layer; 1 is a low rank")
    parser.add_argument("--start", default="random", choices=["random", "dense"], help="of the cores")
    parser.add_argument("--word-cores", type=int, default=2, help="cores of the word embedding, with --rank")
    parser.add_argument("--bits", type=int, default=32, help="of every core, or of the dense weights")
    parser.add_argument("--rest", type=int, default=32, help="bits of heads, positions, norms and biases")
    parser.add_argument("--activations", type=int, default=32, help="bits of what flows into linear layers")
    parser.add_argument("--float-learning-rate", type=float, default=2e-4, help="of the run that is quantized")
    parser.add_argument("--float-epochs", type=int, default=20, help="of the run that is quantized")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--hidden", type=int, default=WIDTH, help="columns; 64, 96, 128, 160, 192: narrow controls")
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where checkpoints are kept")
    parser.add_argument("--no-record", action="store_true", help="write no row into data/results")
    parser.add_argument("--test", action="store_true", help="score the test split too")
    options = parser.parse_args(arguments)
    for entry in options.ranks + options.dense_bits:
        group, _, number = entry.partition("=")
        if group not in GROUPS or not number.isdecimal() or options.rank is None:
            parser.error(f"{entry!r} needs --rank and the form GROUP=N, with GROUP one of {', '.join(GROUPS)}")
    if len({entry.partition("=")[0] for entry in options.ranks + options.dense_bits}) < len(
        options.ranks + options.dense_bits
    ):
        parser.error("--ranks and --dense-bits may name each group once")
    options.ranks, options.dense_bits = (",".join(sorted(entries)) for entries in (options.ranks, options.dense_bits))
    if options.rank is None and options.activations < 32:
        parser.error("--activations needs --rank: dense models are quantized in their weights only")
    return options


def is_quantized(options: argparse.Namespace) -> bool:
    return min(options.bits, options.rest, options.activations) < 32 or options.dense_bits != ""


def float_run(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the run that a quantized one starts from."""
    start = {"learning_rate": options.float_learning_rate, "epochs": options.float_epochs}
    return argparse.Namespace(**{**vars(options), **start, "bits": 32, "rest": 32, "dense_bits": "", "activations": 32})


def dense_run(options: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(float_run(options)), "rank": None, "hidden": WIDTH, **DENSE})


def method(options: argparse.Namespace) -> str:
    dense, trains = "dense" if options.hidden == WIDTH else "narrow", "tt" if options.sides > 1 else "svd"
    form = dense if options.rank is None else trains
    if not is_quantized(options):
        return form
    return f"{form}-qat" if options.epochs else f"{form}-ptq"


def settings(options: argparse.Namespace) -> dict[str, float | str]:
    """What a run is trained with; what is as it always was is not named."""
    names = SETTINGS + (() if options.rank is None else TT_SETTINGS)
    names += QUANTIZED_SETTINGS if is_quantized(options) else ()
    return {name: getattr(options, name) for name in names if getattr(options, name) != OPTIONAL.get(name)}


def run_folder(options: argparse.Namespace, seed: int) -> Path:
    form = "dense" if options.rank is None else f"tt{options.rank}"
    form += f"-{options.bits}bit" if is_quantized(options) else ""
    values = (
        f"{name}={value if isinstance(value, str) else f'{value:g}'}" for name, value in settings(options).items()
    )
    name = "-".join([options.task, form, *values])
    return options.runs / name / f"seed-{seed}"


def build(options: argparse.Namespace, vocabulary: int, intents, slots) -> tuple[ttq.IntentSlotModel, ttq.TTQConfig]:
    """A new model, its tensor trains still in float32, and its whole plan."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=options.hidden // 64,
        intermediate_size=4 * options.hidden,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
        intents=list(intents),
        slots=list(slots),
    )
    model = ttq.IntentSlotModel(config)
    recipes = plan(model, options)
    return ttq.compress_(model, recipes.without_quantizers(), init="random"), recipes


def plan(model: ttq.IntentSlotModel, options: argparse.Namespace) -> ttq.TTQConfig:
    """One number of bits for all cores, one rank for the encoder and the words; groups may have their own.

    Words get two cores instead of three by default: then fewer of them share a slice. Positions and heads belong to
    the rest unless they are given a rank or bits.
    """
    if options.rank is None:
        dense = ttq.TTQConfig(rest=options.rest)
        return dense if options.bits == 32 else ttq.plan(model, bits=options.bits, rest=options.rest)
    ranks, dense_bits = groups(options.ranks), groups(options.dense_bits)
    rules = {}
    for name, layer in model.named_modules():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), None)
        if group is None or not isinstance(layer, (nn.Linear, nn.Embedding)):
            continue
        if group in dense_bits:
            rules[f"^{re.escape(name)}$"] = ttq.LSQ(dense_bits[group], per="channel")
        elif group in ranks or group not in REST:
            rules[f"^{re.escape(name)}$"] = form(layer, ranks.get(group, options.rank), options)
    quantize = None if options.bits == 32 else ttq.Binary() if options.bits == 1 else ttq.LSQ(options.bits)
    activations = None if options.activations == 32 else ttq.DynamicActivation(options.activations)
    return ttq.plan(model, rules=rules, quantize=quantize, activations=activations, rest=options.rest)


def groups(entries: str) -> dict[str, int]:
    """What `parse` made of --ranks or --dense-bits."""
    pairs = (entry.split("=") for entry in entries.split(",") if entry)
    return {group: int(number) for group, number in pairs}


def form(layer: nn.Linear | nn.Embedding, rank: int, options: argparse.Namespace) -> ttq.TT | ttq.TTM:
    if isinstance(layer, nn.Linear):
        if options.sides == 3:
            return ttq.TT(rank)
        sides = ttq.factorize(layer.in_features, options.sides)[::-1], ttq.factorize(layer.out_features, options.sides)
        return ttq.TT(rank, *sides)
    cores = options.word_cores
    return ttq.TTM(rank, ttq.factorize(layer.num_embeddings, cores), ttq.factorize(layer.embedding_dim, cores)[::-1])


def train(options: argparse.Namespace, seed: int, splits, tokenizer, intents, slots) -> dict[str, dict[str, float]]:
    """Train one seed, or go on where it stopped, and score it: {split: {metric: percent}}, bytes and seconds."""
    folder = run_folder(options, seed)
    finished = folder / "finished.json"
    start = run_folder(float_run(options), seed) / "weights.safetensors"
    if is_quantized(options) and not start.exists():
        train(float_run(options), seed, splits, tokenizer, intents, slots)
    encoded = {name: ttq.encode(rows, tokenizer, intents, slots, POSITIONS) for name, rows in splits.items()}
    collate = ttq.IntentSlotCollator(tokenizer)
    set_seed(seed)
    began = time.perf_counter()  # fitting step sizes is part of it
    model, recipes = build(options, len(tokenizer), intents, slots)
    if is_quantized(options):
        model.load_state_dict(load_file(start))
        ttq.compress_(model, recipes)
    elif options.rank is not None and options.start == "dense" and not finished.exists():
        model = from_dense(options, seed, splits, tokenizer, intents, slots)
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        weight_decay=0.01,
        per_device_train_batch_size=options.batch_size,
        train_sampling_strategy="group_by_length",
        label_names=["intent_labels", "slot_labels"],
        save_steps=options.save_steps,
        save_total_limit=1,
        logging_steps=100,
        report_to="none",
    )
    trainer = ttq.QATTrainer(model, arguments, data_collator=collate, train_dataset=encoded["train"])
    trainer.model_accepts_loss_kwargs = False  # the loss is a mean already
    if finished.exists():
        report = json.loads(finished.read_text())
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    else:
        if options.epochs:  # else the model is only quantized
            trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        report = {"seconds": time.perf_counter() - began, "steps": trainer.state.global_step}
    for split in ("validation", "test") if options.test else ("validation",):
        report[split] = ttq.score_intent_slots(model, splits[split], encoded[split], collate)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "weights.safetensors")
        finished.write_text(json.dumps(report))
    return report


def from_dense(options: argparse.Namespace, seed: int, splits, tokenizer, intents, slots) -> ttq.IntentSlotModel:
    """The dense model of a seed, trained first where that has not been done, cut into trains by what its layers see."""
    dense = argparse.Namespace(**{**vars(dense_run(options)), "dropout": options.dropout})
    weights = run_folder(dense_run(options), seed) / "weights.safetensors"
    if not weights.exists():
        train(dense_run(options), seed, splits, tokenizer, intents, slots)
    model, _ = build(dense, len(tokenizer), intents, slots)
    model.load_state_dict(load_file(weights))
    rows = ttq.encode(splits["train"].select(range(CALIBRATION)), tokenizer, intents, slots, POSITIONS)
    batches = DataLoader(rows, batch_size=64, collate_fn=ttq.IntentSlotCollator(tokenizer))
    return ttq.compress_(model, plan(model, options).without_quantizers(), calibration=batches)


def main() -> None:
    options = parse()
    logging.set_verbosity_error()
    splits = ttq.load_task(options.task)
    tokenizer = ttq.word_tokenizer(splits["train"]["tokens"])
    intents, slots = ttq.label_names(splits["train"], "intent"), ttq.label_names(splits["train"], "slots")
    reports = [train(options, seed, splits, tokenizer, intents, slots) for seed in options.seeds]
    if options.no_record or int(os.environ.get("RANK", 0)):  # of several processes the first one writes
        return
    model, recipes = build(options, len(tokenizer), intents, slots)
    stored = stored_bytes(ttq.compress_(model, recipes))
    record_runs(
        "atis",
        reports,
        ["validation", "test"] if options.test else ["validation"],
        splits,
        task=options.task,
        method=method(options),
        rank=options.rank,
        bits=options.bits,
        seeds=options.seeds,
        settings=settings(options),
        stored_bytes=stored,
        dense_bytes=stored_bytes(build(dense_run(options), len(tokenizer), intents, slots)[0]),
        plan=recipes.to_dict(),
    )


if __name__ == "__main__":
    main()
