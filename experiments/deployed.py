"""A BERT-shaped classifier of random weights in every form in which it could be deployed, for experiments/speed.py.

Each form is written to a file and loaded from there: to be timed beside the others, and into processes of its own,
where it is alone with its memory.
"""

import copy
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Set
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import ttqlib as ttq

RANK = 30
SHAPES = {
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
FORMS = {  # name → rank, bits; int8 is PyTorch's dynamic quantization of nn.Linear, onnx-int8 what export_onnx writes
    "dense": (None, 32),
    "dense-bf16": (None, 16),
    "dense-int8": (None, 8),
    "dense-onnx": (None, 32),
    "dense-onnx-int8": (None, 8),
    "tt": (RANK, 32),
    "fused": (RANK, 32),
    "fused-bf16": (RANK, 16),
    "fused-int8": (RANK, 8),
    "fused-onnx": (RANK, 32),
    "fused-onnx-int8": (RANK, 8),
    "svd": (RANK, 32),  # the rivals: low-rank products of the same rank; and a dense model, as narrow as the
    "svd-onnx": (RANK, 32),  # bytes of the fused one allow
    "narrow": (None, 32),
    "narrow-onnx": (None, 32),
}
ON_GPU = ("dense", "tt", "fused")  # int8 here is for CPUs, and bf16 pays on those that multiply it


def write_forms(config: BertConfig, folder: Path, rank: int, names: Iterable[str] = FORMS) -> None:
    """Write each form of one model to folder/name: a pickle of the module, or a folder for onnxruntime."""
    torch.manual_seed(0)
    dense = BertForSequenceClassification(config).eval()
    tt = copy.deepcopy(dense)
    ttq.compress_(tt, ttq.plan(tt, rank), init="random")
    models = {"dense": dense, "tt": tt, "fused": ttq.fuse_(copy.deepcopy(tt))}
    models["svd"] = low_rank(copy.deepcopy(dense), tt.ttq_config, rank)
    models["narrow"] = narrow(config, ttq.parameter_bytes(models["fused"]))
    for name in names:
        base, *form = name.split("-")
        if "onnx" in form:
            ttq.export_onnx(models[base], folder / name, int8="int8" in form)
        else:
            torch.save(PYTORCH[form[0] if form else "float32"](models[base]), folder / name)


def low_rank(dense: nn.Module, plan: ttq.TTQConfig, rank: int) -> nn.Module:
    """The dense model with low-rank products, one core a side, where the plan has trains; fused, as these are."""

    def format_of(layer: nn.Module) -> ttq.TT | ttq.TTM:
        if isinstance(layer, nn.Embedding):
            return ttq.TTM(rank, (layer.num_embeddings, 1), (1, layer.embedding_dim))
        return ttq.TT(rank, (layer.in_features,), (layer.out_features,))

    layers = {name: format_of(dense.get_submodule(name)) for name in plan.layers}
    return ttq.fuse_(ttq.compress_(dense, ttq.TTQConfig(layers), init="random"))


def narrow(config: BertConfig, most: int) -> nn.Module:
    """A dense model of as many layers, as wide as `most` bytes of parameters allow, in steps of 16 columns."""
    for hidden in range(config.hidden_size, 0, -16):
        made, share = copy.deepcopy(config), hidden / config.hidden_size
        made.hidden_size, made.intermediate_size = hidden, round(config.intermediate_size * share)
        heads = range(max(1, int(config.num_attention_heads * share)), 0, -1)  # of about the same width
        made.num_attention_heads = next(number for number in heads if hidden % number == 0)
        with torch.device("meta"):
            fits = ttq.parameter_bytes(BertForSequenceClassification(made)) <= most
        if fits or hidden <= 16:
            return BertForSequenceClassification(made).eval()


def load_form(path: Path, device: str = "cpu", compiled: bool = False) -> Callable[[Tensor], Tensor | np.ndarray]:
    """From ids of shape (batch, length) to logits, on the threads that PyTorch may use."""
    if path.is_dir():
        predictor = ttq.Predictor(path, threads=torch.get_num_threads())
        return lambda ids: predictor.logits(ids.numpy())["logits"]
    with warnings.catch_warnings(action="ignore"):  # of deprecation
        model = torch.load(path, weights_only=False).to(device)
    if compiled:
        model = torch.compile(model)

    @torch.no_grad()  # and not inference_mode, in which products cannot be counted
    def run(ids: Tensor) -> Tensor:
        return model(ids, attention_mask=torch.ones_like(ids)).logits.float()

    return run


def file_bytes(path: Path) -> int:
    """The size of a form on disk: of the graph, where it is a folder."""
    return (path / "model.onnx" if path.is_dir() else path).stat().st_size


def process_bytes(path: Path, ids: Tensor) -> int | None:
    """How much a fresh process grows at most while it loads a form and answers once; None where that cannot be told."""
    return process_growth(_answer, path, ids)


def process_growth(function: Callable, *arguments) -> int | None:
    """How many bytes a fresh process grows at most in `function(*arguments)`; None where that cannot be told."""
    if sys.platform != "linux":
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_growth, torch.get_num_threads(), function, arguments).result()


def own_process(path: Path, ids: Tensor, device: str = "cpu", how: Set[str] = frozenset()) -> Callable[[], None]:
    """What has a process that holds this form, and nothing else, answer once; it ends when what is returned is freed.

    `how` may hold "kept", memory that is freed is kept, and "compiled", by `torch.compile`.

    Raises:
        OSError: memory is to be kept, and the C library is none that does.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    arguments = there, torch.get_num_threads(), path, ids, device, how
    context.Process(target=_serve, args=arguments, daemon=True).start()
    there.close()  # so that an end of that process is an EOFError in this one
    if not here.recv():
        raise OSError("ttq.keep_freed_memory() needs Linux with glibc")

    def ask() -> None:
        here.send(None)
        here.recv()

    return ask


def _serve(connection: Connection, threads: int, path: Path, ids: Tensor, device: str, how: Set[str]) -> None:
    torch.set_num_threads(threads)
    agreed = "kept" not in how or ttq.keep_freed_memory()
    run, inputs = load_form(path, device, "compiled" in how), ids.to(device)
    connection.send(agreed)
    with suppress(EOFError):  # nobody is there to ask any more
        while True:
            connection.recv()
            run(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            connection.send(None)


def _answer(path: Path, ids: Tensor) -> None:
    load_form(path)(ids)


def _growth(threads: int, function: Callable, arguments: tuple) -> int:
    """Runs in the fresh process, where this module and so PyTorch and transformers are imported already."""
    import onnxruntime  # noqa: F401

    torch.set_num_threads(threads)
    forget_peak()
    before = resident("VmRSS")
    function(*arguments)
    return resident("VmHWM") - before


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Bytes of this process that lie in memory: "VmRSS" now, "VmHWM" at most since the peak was forgotten; on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def _int8(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # deprecated, and still what PyTorch itself offers on a CPU
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


PYTORCH: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float32": lambda model: model,
    "bf16": lambda model: copy.deepcopy(model).bfloat16(),
    "int8": _int8,
}
