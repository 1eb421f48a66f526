"""The contenders of experiments/speed.py: for each task, what is timed beside what.

A kind of task is a function of its argument, of the contenders' names and of a device, and returns a `Contender` for
each name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import cycle
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import atis
import torch
from deployed import FORMS, ON_GPU, RANK, SHAPES, file_bytes, load_form, own_process, process_bytes, write_forms
from torch import Tensor, nn
from transformers import BertConfig

import ttqlib as ttq

ROWS = (32, 32)  # sentences, tokens
EMBEDDING_RANK, IDS = 20, 2048
ATIS_RANK, BATCH, BATCHES = 12, 32, 40
PEER = "tensorly-torch"  # installed by the extra `bench`


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: what is timed, and what there is to say about it."""

    run: Callable[[], object]
    rank: int | None
    bits: int
    stored_bytes: int
    is_pytorch: bool = True  # made of PyTorch's operations alone, so that they can be counted
    process_bytes: Callable[[], int | None] = lambda: None


def of_layer(layer: nn.Module, backward: Callable, rank: int | None, bits: int = 32) -> Contender:
    """`backward(layer)`, its gradients made afresh as after an optimizer's step: that takes time too."""

    def step() -> None:
        layer.zero_grad()
        backward(layer)

    return Contender(step, rank, bits, ttq.parameter_bytes(layer))


def linear_layers(sizes: tuple[int, int], names: Sequence[str], device: str) -> dict[str, Contender]:
    modes = [ttq.factorize(size) for size in sizes]
    layers = {
        "dense": lambda: nn.Linear(*sizes),
        "tt": lambda: ttq.TTLinear(*sizes, RANK),
        PEER: lambda: import_module("tltorch").FactorizedLinear(*modes, factorization="blocktt", rank=RANK),
    }
    x = torch.randn(*ROWS, sizes[0], device=device, requires_grad=True)
    gradient = torch.randn(*ROWS, sizes[1], device=device)

    def backward(layer: nn.Module) -> None:
        x.grad = None  # inside a network the gradient of an input is handed on, never added up
        layer(x).backward(gradient)

    return {name: of_layer(layers[name]().to(device), backward, None if name == "dense" else RANK) for name in names}


def embedding_layers(sizes: tuple[int, int], names: Sequence[str], device: str) -> dict[str, Contender]:
    rank, padded = EMBEDDING_RANK, ttq.TTMEmbedding(*sizes, EMBEDDING_RANK)
    modes = padded.vocabulary_modes, padded.hidden_modes
    layers = {
        "dense": lambda: nn.Embedding(*sizes),
        "tt": lambda: padded,
        PEER: lambda: import_module("tltorch").FactorizedEmbedding(  # which does not pad by itself
            prod(modes[0]), sizes[1], False, 3, *modes, rank=rank
        ),
    }
    ids = torch.randint(sizes[0], (IDS,), device=device)
    gradient = torch.randn(IDS, sizes[1], device=device)

    def backward(layer: nn.Module) -> None:
        layer(ids).backward(gradient)

    return {name: of_layer(layers[name]().to(device), backward, None if name == "dense" else rank) for name in names}


def training_step(task: str, names: Sequence[str], device: str) -> dict[str, Contender]:
    """Forward, backward and AdamW on the model of experiments/atis.py, over the same batches of `task` in turn."""
    data = atis.Data(task)
    rows = data.encoded["train"]
    by_length = sorted(range(len(rows)), key=lambda n: len(rows[n]["input_ids"]))  # batches of like lengths, as there
    starts = range(0, len(rows) - BATCH, len(rows) // BATCHES)
    batches = [data.collate([rows[n] for n in by_length[start : start + BATCH]]) for start in starts]
    batches = [{key: values.to(device) for key, values in batch.items()} for batch in batches]
    forms = {"dense": (None, 32), "tt": (ATIS_RANK, 32), "tt-qat": (ATIS_RANK, 4)}

    def contender(rank: int | None, bits: int) -> Contender:
        settings = atis.Training(rank=rank, bits=bits, sides=2)  # the form of the models that do best
        model = ttq.quick_dropout_(atis.built(settings, len(data.tokenizer), *data.labels)).train().to(device)
        return of_layer(model, optimizer_step(model, cycle(batches)), rank, bits)

    return {name: contender(*forms[name]) for name in names}


def optimizer_step(model: nn.Module, batches) -> Callable:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as Trainer does

    def step(model: nn.Module) -> None:
        with ttq.merged_together(model):  # as QATTrainer does
            loss = model(**next(batches)).loss
        loss.backward()
        optimizer.step()

    return step


def forward_pass(argument: tuple[str, tuple], names: Sequence[str], device: str) -> dict[str, Contender]:
    """A BERT-shaped classifier over ids of shape (sentences, tokens), in every form that runs on the device."""
    folder, runs = forms(argument[0], device, torch.get_num_threads())
    ids = torch.randint(1, BertConfig().vocab_size, argument[1])

    def contender(name: str) -> Contender:
        path, inputs, run = Path(folder.name) / name, ids.to(device), runs[name]
        grows = (lambda: process_bytes(path, ids)) if device == "cpu" else (lambda: None)
        return Contender(lambda: run(inputs), *FORMS[name], file_bytes(path), name in ON_GPU, grows)

    return {name: contender(name) for name in names}


def own_processes(argument: tuple[str, tuple], names: Sequence[str], device: str) -> dict[str, Contender]:
    """The same classifier in processes that hold nothing else, as it would be deployed."""
    folder, _ = forms(argument[0], device, torch.get_num_threads())
    ids = torch.randint(1, BertConfig().vocab_size, argument[1])

    def contender(name: str) -> Contender:
        form, *how = name.split(", ")
        path = Path(folder.name) / form
        return Contender(own_process(path, ids, device, frozenset(how)), *FORMS[form], file_bytes(path), False)

    return {name: contender(name) for name in names}


@lru_cache(maxsize=1)
def forms(shape: str, device: str, threads: int) -> tuple[TemporaryDirectory, Mapping[str, Callable[[Tensor], object]]]:
    """The files of a model in every form, in a folder that lives as long as this, and what was loaded from them.

    One model serves all sizes of inputs; `threads`, those of PyTorch, are what onnxruntime will use from then on.
    """
    folder, names = TemporaryDirectory(), FORMS if device == "cpu" else ON_GPU
    write_forms(BertConfig(**SHAPES[shape]), Path(folder.name), RANK, names)
    return folder, {name: load_form(Path(folder.name) / name, device) for name in names}
