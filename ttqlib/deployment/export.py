"""`export_onnx`: a model, compressed or not, becomes a folder for onnxruntime, which `Predictor` reads.

The graph computes what the fused model does, in an order that moves less memory: a mask is one of the latents of keys,
where `LatentAttention` has room for it, and wide hidden layers between thin matrices go in pieces (`hidden_layers`).

In 8 bits
---------
Products of matrices whose sides are all at least `THIN_SIDE` are computed in integers, by onnxruntime's dynamic
quantization: a scale for each column, one for all that flows in, so that an answer depends a little on what else is
asked. Thinner matrices, as those of tensor trains of low rank, become float32 again while they are loaded: quantizing
what flows in would take the time that integers save. Weights in integers use seven bits of the eight: more overflow on
processors without VNNI. Hidden layers stay whole: each of their pieces would have to be quantized by itself.
"""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..progress import bar
from ..quantizers.activations import DynamicActivationQuantizer, StaticActivationQuantizer
from ..storage.folders import replacing
from ..surgery.attention import LatentAttention
from ..surgery.fuse import fuse_
from .description import describe, example
from .exported import GRAPH, TOKENIZER, check_installed
from .predictor import SETTINGS, Predictor

ACTIVATION_QUANTIZERS = (DynamicActivationQuantizer, StaticActivationQuantizer)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # how far logits of the graph may be from the model's, of the largest
ROUNDED = 0.1  # and where a last bit can tip the rounding of an activation
REASON = 300  # letters of what the tracer or onnxruntime says
BAR = "{desc}: {n_fmt}/{total_fmt} {bar} {elapsed}{postfix}"  # steps are of all lengths: a rate would say nothing
THIN_SIDE = 32  # a matrix product with a side below this is no faster in integers


@torch.no_grad()
def export_onnx(
    model: PreTrainedModel,
    folder: str | os.PathLike,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    int8: bool = False,
    max_length: int | None = None,
) -> None:
    """Write a transformers model into `folder` for onnxruntime: `model.onnx`, `tokenizer.json`, `deploy.json`.

    Written is a fused copy (`fuse_`) in float32 and eval mode, without a decoder's cache; the model stays as it is.
    Batch and length are free, up to `max_length` tokens; the graph is compared with the model at the smallest and the
    largest length. The folder, best one of its own, is switched in as a whole, as by `save`. A bar shows the steps.

    Args:
        model: it reads `input_ids` and answers `logits`: of labels in `config.id2label`, for a text or for its tokens,
            numbers (regression) and several labels at once (`config.problem_type`) among them; or of a vocabulary, as
            masked and causal language models do, for `Predictor.logits`. Or it is an `IntentSlotModel`.
        tokenizer: without one `Predictor` takes ids only.
        int8: matrices and look-up tables are stored in 8 bits, and those whose sides are all at least `THIN_SIDE` are
            multiplied in integers; see the top of `ttqlib.deployment.export`.
        max_length: by default what the model's positions and the tokenizer allow, and at most `LONGEST`.

    Raises:
        TypeError: no transformers model, or a tokenizer without a fast backend.
        ValueError: a model that reads or answers something else, or has fewer positions than `max_length`; labels
            that its config does not name; a tokenizer without a token to pad with, or with another one than a model
            that looks for it; a model whose graph takes texts of one length only.
        RuntimeError: the model cannot be traced, or the graph does not answer as it does.
        ModuleNotFoundError: the packages of the extra `deploy` are not installed.
    """
    _check(model, tokenizer)
    with bar(desc="export", total=4 + int8, delay=0, bar_format=BAR) as steps, _quiet():
        with _step(steps, "merging cores"):
            fused = _prepared(model)
        with _step(steps, "asking the model"):
            config = describe(fused, tokenizer, max_length, _tolerance(fused))
        with replacing(folder, fence=(SETTINGS.name, GRAPH)) as new:
            _write(fused, tokenizer, config, int8, new, steps)


def _write(model: PreTrainedModel, tokenizer, config: dict, int8: bool, folder: Path, steps) -> None:
    """All files of an export; the graph is compared with the model before its weights are rounded."""
    with _step(steps, "tracing the graph"):
        _write_graph(model, config, folder / GRAPH, not int8)  # in integers each piece would be rounded by itself
    with _step(steps, "comparing the graph with the model"):
        if tokenizer is not None:
            tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        SETTINGS.write(folder, config)
        _compare(model, Predictor(folder), config)
    if int8:
        with _step(steps, "quantizing"):
            _quantize(folder / GRAPH)
            SETTINGS.write(folder, config)


def _check(model, tokenizer) -> None:
    check_installed(PACKAGES)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}")
    if tokenizer is not None and not hasattr(tokenizer, "backend_tokenizer"):
        raise TypeError(f"tokenizer must be a fast tokenizer of transformers, got {type(tokenizer).__name__}")
    if tokenizer is not None and tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad_token: set one, any token will do")


@contextmanager
def _step(steps, name: str) -> Iterator[None]:
    steps.set_postfix_str(name)  # at once: the first steps are the long ones
    yield
    steps.update()


def _prepared(model: PreTrainedModel) -> PreTrainedModel:
    """A fused copy in the state that is written: float32, in eval mode, answering nothing but logits."""
    fused = fuse_(copy.deepcopy(model).cpu().float()).eval()
    fused.set_attn_implementation("eager")  # the graph with the fewest nodes
    fused.set_experts_implementation("batched_mm")  # that of grouped products has no counterpart in ONNX
    for part in fused.modules():
        if isinstance(part, LatentAttention):
            part.masked_in_latents = True  # what goes in is a mask of (B, T)
        if isinstance(part, PreTrainedModel):
            config = part.config
            config.output_hidden_states = config.output_attentions = config.use_cache = False
            config.return_dict = True
    return fused


def _tolerance(model: PreTrainedModel) -> float:
    """How far two ways to compute the same logits may be apart, of the largest."""
    return ROUNDED if any(isinstance(part, ACTIVATION_QUANTIZERS) for part in model.modules()) else TOLERANCE


def _write_graph(model: PreTrainedModel, config: Mapping, path: Path, in_pieces: bool) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from .hidden_layers import split_hidden_layers

    inputs = example(config, batch=2, length=min(7, config["max_length"]))
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=config["max_length"])}
    try:
        with redirect_stderr(StringIO()):  # where torch prints a graph of hundreds of lines that it cannot finish
            program = torch.onnx.export(
                model,
                kwargs=inputs,
                input_names=list(inputs),
                output_names=list(config["labels"]),
                dynamic_shapes=dict.fromkeys(inputs, sizes),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise RuntimeError(f"{type(model).__name__} cannot be traced by torch.onnx.export: {why[:REASON]}") from error
    if any(isinstance(size, int) for given in program.model.graph.inputs for size in given.shape):
        raise ValueError(
            f"the graph of {type(model).__name__} would be for texts of one length only: torch.onnx.export writes out "
            "every step of a model that goes through a text step by step"
        )
    if in_pieces:
        split_hidden_layers(program.model)
    ClearMetadataAndDocStringPass()(program.model)  # stack traces: more than a small model's weights
    program.save(path, external_data=False)


def _compare(model: PreTrainedModel, predictor: Predictor, config: Mapping) -> None:
    """Refuse a graph whose logits are not the model's."""
    for shape in ((1, 1), (2, config["max_length"])):
        inputs = example(config, *shape)
        try:
            answers = predictor.logits(**{name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # onnxruntime's own kinds have no common one
            kind, why = type(model).__name__, " ".join(str(error).split())
            raise RuntimeError(
                f"the graph of {kind} does not run on a batch of shape {shape}: {why[:REASON]}"
            ) from error
        for name, expected in model(**inputs).items():
            error = np.abs(answers[name] - expected.numpy()).max() / np.abs(expected.numpy()).max()
            if not error <= _tolerance(model):
                raise RuntimeError(
                    f"{name} of the graph differ by {error:.1e} from the model's on a batch of shape {shape}"
                )


def _quantize(path: Path) -> None:
    """Replace a graph by one whose matrices and tables are 8-bit integers."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the shapes of matrices that the quantizer will transpose
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    thin = {node.name: node.input[1] for node in products if min(weights[node.input[1]]) < THIN_SIDE}
    excluded = [*thin, *(f"{name}_MatMul" for name in thin)]  # what the quantizer first makes of a Gemm
    # Seven of the eight bits: processors without VNNI add two products in 16 bits, which 8-bit weights overflow.
    kind = {"weight_type": QuantType.QInt8, "reduce_range": True, "per_channel": True}
    quantize_dynamic(model, path, nodes_to_exclude=excluded, **kind)
    model = onnx.load(path)
    _store_in_8_bits(model.graph, set(thin.values()))
    onnx.save(model, path)


def _store_in_8_bits(graph, names: Set[str]) -> None:
    """Replace matrices by integers times scales, one for each row or each column, whichever are fewer."""
    from onnx import helper, numpy_helper

    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        matrix, name = numpy_helper.to_array(tensor), tensor.name
        axis = int(np.argmin(matrix.shape))
        scales = np.maximum(np.abs(matrix).max(1 - axis), np.finfo(np.float32).tiny) / 127
        codes = np.round(matrix / np.expand_dims(scales, 1 - axis)).astype(np.int8)
        graph.initializer.remove(tensor)
        for part, values in (("codes", codes), ("scales", scales)):
            graph.initializer.append(numpy_helper.from_array(values, f"{name}.{part}"))
        inputs = [f"{name}.codes", f"{name}.scales"]
        graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], axis=axis))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of exporter and quantizer, which speak of other models than this one."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
