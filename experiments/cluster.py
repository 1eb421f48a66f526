"""Training on several computers, which are network namespaces of this one: speed and traffic, dense and as trains.

    python experiments/cluster.py --record                          # two nodes, links of 100 and 1 000 Mbit/s
    python experiments/cluster.py --nodes 4 --batch-size 8 --record
    python experiments/cluster.py --methods tt tt-qat --batch-size 128 --record       # does a second node pay?
    python experiments/cluster.py --shape bert-base --methods dense --batch-size 8 --steps 2   # 6 GB; then tt

As root, on Linux, with `ip` and `tc`. Minutes on two quiet cores, estimated: 3 for the first line, 5, 2, and 10 for
the last. On each node torchrun starts experiments/replica.py, as it would on computers of their own. All methods of a
run take turns, step by step, and so do steps with and without the others: what else the machine does meets all alike.

A row holds medians over the steps: `alone_ms` and `step_ms`, of the slowest process, without and with the exchange of
gradients; `samples_per_second` of all nodes; `efficiency_percent`, alone / step, which is weak scaling; `sent_bytes`
that leave a node in a step, by the counter of its interface; `gradient_bytes`. Predicted are `predicted_sent_bytes`,
what `ttq.allreduce_bytes` says with the headers of TCP, and `predicted_step_ms`, see `predicted_seconds`;
`sent_error_percent` and `step_error_percent` are predicted / measured − 1. `settings` tell `nodes`, `mbit` (null: no
limit), `batch_size` (sentences a node) and the shape. Rows that are there are left alone, but for --force.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TextIO

import replica
from namespaces import INTERFACE, Node, missing, network
from results import add_options, check_runs, place, read, record, row_of
from runs import stored_bytes
from transformers.utils import logging

import ttqlib as ttq

SPLIT = "cluster"
FRAME, PAYLOAD = 1514, 1448  # bytes of a full Ethernet frame, and those of them that TCP carries (RFC 7323's stamps)
FIRST, LATER = 2**20, 25 * 2**20  # bytes of DistributedDataParallel's buckets
PORT, SECONDS = 29500, 3600  # of the first node; the longest that a run may take
SEED = 0


def wire_bytes(payload: float) -> float:
    """What a node puts on the wire to send so many bytes."""
    return payload * FRAME / PAYLOAD


def predicted_seconds(alone: Mapping[str, float], gradient_bytes: int, wire_seconds: float) -> float:
    """Seconds of a step, from those of its parts alone and those that its exchange takes on the link.

    DistributedDataParallel sends a bucket as soon as its gradients are there, while the backward pass goes on: what is
    sent before its end costs nothing. Gradients are taken to come at an even rate.
    """
    ready = ended = 0.0
    while ready < gradient_bytes:
        size = min(LATER if ready else FIRST, gradient_bytes - ready)
        ready += size
        ended = max(ended, alone["backward"] * ready / gradient_bytes) + wire_seconds * size / gradient_bytes
    return alone["forward"] + ended + alone["update"]


def metrics(
    steps: Sequence[Mapping[str, float]], rows: int, gradient_bytes: int, payload: int | None, mbit: float
) -> dict[str, float]:
    """What a row tells of a method; without `payload`, as for PowerSGD, nothing is predicted. `rows`: of all nodes."""
    together, sent = median(one["together"] for one in steps), median(one["sent"] for one in steps)
    alone = median(one["forward"] + one["backward"] + one["update"] for one in steps)
    found = {"samples_per_second": rows / together, "step_ms": 1e3 * together, "alone_ms": 1e3 * alone}
    found |= {"efficiency_percent": 100 * alone / together, "sent_bytes": sent, "gradient_bytes": gradient_bytes}
    if payload is not None:
        wire = wire_bytes(payload)
        seconds = wire * 8 / (mbit * 1e6) if mbit else 0.0
        expected = median(predicted_seconds(one, gradient_bytes, seconds) for one in steps)
        found |= {"predicted_sent_bytes": wire, "sent_error_percent": 100 * (wire / sent - 1)}
        found |= {"predicted_step_ms": 1e3 * expected, "step_error_percent": 100 * (expected / together - 1)}
    return found


def run(nodes: Sequence[Node], options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Start one process a node, wait for all, and return what the first has written.

    Raises:
        RuntimeError: one has failed; with its last words.
    """
    with TemporaryDirectory() as folder, ExitStack() as at_end:
        out, processes = Path(folder) / "steps.json", []
        task = [str(Path(replica.__file__)), "--shape", options.shape, "--batch-size", f"{options.batch_size}"]
        task += ["--methods", *options.methods, "--steps", f"{options.steps}", "--hidden", f"{options.hidden}"]
        task += ["--interface", INTERFACE, "--out", str(out)]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1"}
        for number, node in enumerate(nodes):
            engine = ["-m", "torch.distributed.run", "--nnodes", f"{len(nodes)}", "--node-rank", f"{number}"]
            engine += ["--master-addr", nodes[0].address, "--master-port", f"{PORT}", "--local-addr", node.address]
            said = at_end.enter_context(open(Path(folder) / f"{number}.txt", "w+"))
            command = node.command(sys.executable, *engine, *task)
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            at_end.callback(process.kill)  # which does nothing to one that has ended
            processes.append((process, said))
        if sum(process.wait(SECONDS) != 0 for process, _ in processes):  # all are waited for
            last = "".join(f"\n{node.name}: {_last_words(said)}" for node, (_, said) in zip(nodes, processes))
            raise RuntimeError(f"a node has failed:{last}")
        return json.loads(out.read_text(encoding="utf-8"))


def _last_words(said: TextIO) -> str:
    said.seek(0)
    return said.read()[-3000:]


def row_from(options: argparse.Namespace, mbit: float, method: str, steps: Sequence[Mapping[str, float]]) -> dict:
    """The row of one method of a run."""
    model, recipe = replica.new_model(options.shape, method, options.hidden), replica.recipe(options.shape, method)
    payload = None if method == replica.POWER_SGD else ttq.allreduce_bytes(model, options.nodes)
    figures = metrics(steps, options.batch_size * options.nodes, ttq.parameter_bytes(model), payload, mbit)
    with TemporaryDirectory() as folder:
        stored = stored_bytes(model, Path(folder))
    rank, bits = recipe.get("rank"), recipe.get("bits", 32)
    plan = getattr(model, "ttq_config", None)
    figures = {name: [value] for name, value in figures.items()}
    row = row_of(
        figures, rank, bits, [SEED], stored, dense_bytes(options.shape, options.hidden), plan and plan.to_dict()
    )
    return row | named(options, mbit, method)


@lru_cache
def dense_bytes(shape: str, hidden: int) -> int:
    """The size on disk of the dense model."""
    with TemporaryDirectory() as folder:
        return stored_bytes(replica.new_model(shape, "dense", hidden), Path(folder))


def named(options: argparse.Namespace, mbit: float, method: str) -> dict:
    """What tells a row from others that have its rank and bits."""
    shape = {"tokens": replica.TOKENS[options.shape], "batch_size": options.batch_size, "nodes": options.nodes}
    width = {"hidden": options.hidden} if options.shape == "atis" else {}
    return {
        "task": options.shape,
        "split": SPLIT,
        "method": method,
        "settings": {**width, **shape, "mbit": mbit or None},
    }


def is_there(rows: Sequence[dict], name: dict) -> bool:
    """Whether one of the rows is called so; a setting that is None is left out of some files."""
    return any(all(row[field] == value for field, value in name.items()) for row in rows)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--links", type=float, nargs="+", default=[100.0, 1000.0], help="Mbit/s; 0 sets no limit")
    replica.add_options(parser)
    parser.add_argument("--force", action="store_true", help="measure rows again that are there")
    add_options(parser, "cluster")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    if not 1 < options.nodes < 255 or min(options.links) < 0:
        parser.error("--nodes must be from 2 to 254, --links from 0")
    replica.check(parser, options)
    options.refuse = parser.error
    return options


def measured(options: argparse.Namespace, mbit: float) -> dict[str, list[dict[str, float]]]:
    """The steps of each method, as nodes behind such links have taken them."""
    with network(options.nodes, mbit or None) as nodes:
        return run(nodes, options)


def main(arguments: list[str] | None = None) -> None:
    options, wanted = parse(arguments), []
    path = place("cluster", options)
    for mbit in options.links:
        names = [named(options, mbit, method) for method in options.methods]
        if options.force or not all(is_there(read(path), name) for name in names):
            wanted.append(mbit)
        else:
            print(f"{mbit:g} Mbit/s: there already")
    if wanted and (problem := missing()):
        options.refuse(problem)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the network is taken down
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for mbit in wanted:
        began = time.perf_counter()
        steps = measured(options, mbit)
        seconds = time.perf_counter() - began
        for method, found in steps.items():
            row = row_from(options, mbit, method, found)
            record(path, row, seconds, data=None)
            print(line(row))


def line(row: dict) -> str:
    """A row in a few words."""
    found = {name: metric["mean"] for name, metric in row["metrics"].items()}
    said = f"{row['settings']['mbit'] or 'no limit'} Mbit/s, {row['method']:16} {found['samples_per_second']:8.2f}"
    said += f" samples/s, {found['sent_bytes'] / 1e6:7.3f} MB a step, efficiency {found['efficiency_percent']:.0f} %"
    if "step_error_percent" in found:
        said += f"; predicted traffic {found['sent_error_percent']:+.1f} %, time {found['step_error_percent']:+.1f} %"
    return said


if __name__ == "__main__":
    main()
