"""What each process of experiments/cluster.py does: training steps of one or several models, which take turns.

    torchrun --nproc_per_node 2 experiments/replica.py --out steps.json                      # on this machine
    GLOO_SOCKET_IFNAME=eth0 torchrun --nnodes 2 --node-rank 0 --master-addr HOST \\
        experiments/replica.py --interface eth0 --out steps.json                             # on each of two: 0 and 1

Each step is done twice: alone, without a word to the others, and together, with gradients averaged by PyTorch's
DistributedDataParallel. Both are timed, and what leaves the network interface during the second is counted. Inputs are
random numbers: neither time nor traffic of a dense model asks what they are, and a tensor train has more words to make
than with sentences. Adam's step is in both times. Minutes on two quiet cores, estimated: under one;
`--shape bert-base` over a link of 100 Mbit/s ten or more, with some 3 GB a process (never run yet).
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import atis
import memory
import torch
import torch.distributed as dist
from namespaces import sent_bytes
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, set_seed
from transformers.utils import logging

import ttqlib as ttq

WARMUP = 3  # rounds that do not count: buckets are made, memory is taken, PowerSGD begins
ATIS = {"vocabulary": 871, "intents": 21, "slots": 120}  # as data/results/memory.json has them
TOKENS = {"atis": 24, "bert-base": 128}
BERT = {"dense": {}, "tt": {"rank": 30}, "tt-qat": {"rank": 30, "bits": 4, "rest": 8}}
POWER_SGD, POWER_RANK = "dense, PowerSGD", 4  # the control: a dense model whose gradients are sent as low ranks
ONE_BUCKET = 4096  # MB
METHODS = (*memory.MODELS, POWER_SGD)


@dataclass(frozen=True)
class Replica:
    """What one process has of a model, and the batch that it trains on."""

    model: DistributedDataParallel
    optimizer: torch.optim.Optimizer
    batch: Mapping[str, Tensor]


def recipe(shape: str, method: str) -> dict:
    """What a model is made with; `rank` and `bits` among it, where there are some."""
    if method == POWER_SGD:
        return {"rank": POWER_RANK}
    return (memory.MODELS if shape == "atis" else BERT)[method]


def new_model(shape: str, method: str, hidden: int = atis.WIDTH) -> PreTrainedModel:
    """Of random weights, with its plan."""
    how = recipe(shape, "dense" if method == POWER_SGD else method)
    if shape == "atis":
        names = [[str(number) for number in range(ATIS[kind])] for kind in ("intents", "slots")]
        return atis.built(atis.Training(hidden=hidden, **how), ATIS["vocabulary"], *names)
    model = BertForSequenceClassification(BertConfig())
    return ttq.compress_(model, ttq.plan(model, **how), init="random") if how else model


def new_batch(shape: str, model: PreTrainedModel, rows: int) -> dict[str, Tensor]:
    """Random ids and labels, `rows` sentences of equal length."""
    ids = torch.randint(model.config.vocab_size, (rows, TOKENS[shape]))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if shape == "atis":
        slots = torch.randint(ATIS["slots"], ids.shape)
        return batch | {"intent_labels": torch.randint(ATIS["intents"], (rows,)), "slot_labels": slots}
    return batch | {"labels": torch.randint(2, (rows,))}


def new_replica(options: argparse.Namespace, method: str) -> Replica:
    set_seed(0)  # all processes begin with the same weights, and then draw rows of their own
    plain = new_model(options.shape, method, options.hidden).train()
    set_seed(1 + dist.get_rank())
    if method != POWER_SGD:
        model = DistributedDataParallel(plain)
    else:  # in one bucket: those of several are exchanged in an order that differs from process to process
        model = DistributedDataParallel(plain, bucket_cap_mb=ONE_BUCKET)
        how = PowerSGDState(None, matrix_approximation_rank=POWER_RANK, start_powerSGD_iter=2)
        model.register_comm_hook(how, powerSGD_hook)
    return Replica(model, memory.adam(plain), new_batch(options.shape, plain, options.batch_size))


def gradients(one: Replica, silent: bool) -> tuple[float, float]:
    """Seconds of a forward and a backward pass, which all processes begin together."""
    one.optimizer.zero_grad()
    dist.barrier()
    began = time.perf_counter()
    with one.model.no_sync() if silent else nullcontext():
        loss = one.model(**one.batch).loss
        middle = time.perf_counter()
        loss.backward()
    return middle - began, time.perf_counter() - middle


def step(one: Replica, interface: str) -> dict[str, float]:
    """Seconds of the parts of a step alone, and of one together; the bytes that this process sent for the second."""
    forward, backward = gradients(one, silent=True)
    dist.barrier()
    before = sent_bytes(interface)
    together = sum(gradients(one, silent=False))
    dist.barrier()  # all have what was sent: nothing is still in a queue
    sent, began = sent_bytes(interface) - before, time.perf_counter()
    one.optimizer.step()
    update = time.perf_counter() - began
    return {"forward": forward, "backward": backward, "update": update, "together": together + update, "sent": sent}


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """For each method what each step took the slowest process, alone and together, and the mean of the bytes."""
    replicas = {method: new_replica(options, method) for method in options.methods}
    found: dict[str, list] = {method: [] for method in replicas}
    for turn in range(WARMUP + options.steps):
        for method, one in replicas.items():
            taken = step(one, options.interface)
            if turn >= WARMUP:
                found[method].append(taken)
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, found)
    return {method: [_slowest(each) for each in zip(*(one[method] for one in gathered))] for method in replicas}


def _slowest(processes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One step, as several processes have measured it."""
    alone = max(processes, key=lambda one: one["forward"] + one["backward"] + one["update"])
    together, sent = max(one["together"] for one in processes), sum(one["sent"] for one in processes)
    return {**alone, "together": together, "sent": sent / len(processes)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What experiments/cluster.py hands on."""
    parser.add_argument("--shape", choices=TOKENS, default="atis")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["dense", "tt", POWER_SGD])
    parser.add_argument("--batch-size", type=int, default=16, help="sentences a process")
    parser.add_argument("--hidden", type=int, default=atis.WIDTH, help="columns of --shape atis, a multiple of 64")
    parser.add_argument("--steps", type=int, default=5)


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what cannot be trained."""
    if min(options.batch_size, options.steps) < 1:
        parser.error("--batch-size and --steps must be at least 1")
    try:
        atis.Training(hidden=options.hidden)
    except ValueError as problem:
        parser.error(str(problem))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--interface", default="lo", help="the network interface whose bytes are counted")
    parser.add_argument("--out", type=Path, required=True, help="the file that the first process writes")
    options = parser.parse_args(arguments)
    check(parser, options)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    logging.set_verbosity_error()
    ttq.keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    dist.init_process_group("gloo")
    try:
        found = measure(options)
        if dist.get_rank() == 0:
            options.out.write_text(json.dumps(found), encoding="utf-8")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
