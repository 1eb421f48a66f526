"""`export_onnx`: a model, compressed or not, becomes a folder for onnxruntime, which `Predictor` reads."""

import copy
import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .activations import DynamicActivationQuantizer, StaticActivationQuantizer
from .folders import replacing
from .fusion import fuse_
from .predictor import FIELDS, GRAPH, TOKENIZER, Predictor, write_config
from .shapes import whole_number

ACTIVATION_QUANTIZERS = (DynamicActivationQuantizer, StaticActivationQuantizer)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # how far logits of the graph may be from the model's, of the largest
ROUNDED = 0.1  # and where a last bit can tip the rounding of an activation
THIN = 48  # a matrix product with a side below this is no faster in integers


@torch.no_grad()
def export_onnx(
    model: PreTrainedModel,
    folder: str | os.PathLike,
    tokenizer: PreTrainedTokenizerFast | None = None,
    int8: bool = False,
    max_length: int | None = None,
) -> None:
    """Write a transformers model into `folder` for onnxruntime: `model.onnx`, `tokenizer.json`, `deploy.json`.

    Written is a fused copy (`fuse_`) in float32 and eval mode; the model stays as it is. Batch and length are free, up
    to `max_length` tokens; the graph is compared with the model at the smallest and the largest length. The folder,
    best one of its own, is switched in as a whole, as by `save`.

    Args:
        model: it answers `logits`, with their labels in `config.id2label`, or is an `IntentSlotModel`.
        tokenizer: without one `Predictor` takes ids only.
        int8: matrices and look-up tables are stored in 8 bits. Products of matrices whose sides are all at least
            `THIN` are computed in integers (onnxruntime's dynamic quantization: a scale for each column, one for all
            that flows in, so that an answer depends a little on what else is asked). Thinner matrices, as those of
            tensor trains of low rank, become float32 again while they are loaded: quantizing what flows in would take
            the time that integers save.
        max_length: by default what the model's positions and the tokenizer allow.

    Raises:
        TypeError: no transformers model, or a tokenizer without a fast backend.
        ValueError: a model that answers something else, or has fewer positions than `max_length`; a tokenizer without
            a token to pad with.
        RuntimeError: the graph does not answer as the model does.
        ModuleNotFoundError: the packages of the extra `deploy` are not installed.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{package} is missing: python -m pip install -e '.[deploy]' brings it", name=package
            )
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}")
    if tokenizer is not None and not hasattr(tokenizer, "backend_tokenizer"):
        raise TypeError(f"tokenizer must be a fast tokenizer of transformers, got {type(tokenizer).__name__}")
    if tokenizer is not None and tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad_token: set one, any token will do")
    fused = fuse_(copy.deepcopy(model).cpu().float()).eval()
    fused.set_attn_implementation("eager")  # the graph with the fewest nodes
    fused.config.output_hidden_states = fused.config.output_attentions = False
    config = _describe(fused, tokenizer, max_length)
    with replacing(folder) as new, _quiet():
        _write_graph(fused, config, new / GRAPH)
        if tokenizer is not None:
            tokenizer.backend_tokenizer.save(str(new / TOKENIZER))
        write_config(new, config)
        _compare(fused, Predictor(new), config)
        if int8:
            _quantize(new / GRAPH)
            write_config(new, config)


def _describe(model: PreTrainedModel, tokenizer, max_length: int | None) -> dict:
    """The contents of deploy.json, but for the digests."""
    limits = {
        "input_ids": model.config.vocab_size,
        "attention_mask": 2,
        "token_type_ids": getattr(model.config, "type_vocab_size", 0),
    }
    taken = inspect.signature(model.forward).parameters
    given = limits if tokenizer is None else tokenizer.model_input_names  # what it leaves out, training left out too
    config = {
        "inputs": {name: limit for name, limit in limits.items() if limit and name in taken and name in given},
        "max_length": _longest(model, tokenizer, max_length),
        "padding": None if tokenizer is None else tokenizer.pad_token_id,
    }
    return {**config, "labels": _labels(model, config)}


def _longest(model: PreTrainedModel, tokenizer, wanted: int | None) -> int:
    positions = getattr(model.config, "max_position_embeddings", inf)
    allowed = min(positions, getattr(tokenizer, "model_max_length", inf))
    longest = whole_number("max_length", allowed if wanted is None else wanted, minimum=2)
    if longest > positions:
        raise ValueError(f"max_length must be at most {positions}, the positions that the model has, got {longest}")
    return longest


def _labels(model: PreTrainedModel, config: Mapping) -> dict[str, list[str]]:
    """The names of the labels, by name of the output."""
    try:
        answer = model(**_example(config, 1, config["max_length"]))
    except IndexError:  # some models start to count positions at 2
        raise ValueError(f"max_length={config['max_length']} is more than the model has positions") from None
    if not set(answer) <= set(FIELDS):
        raise ValueError(f"a model that answers {' or '.join(FIELDS)} is needed, this one answers {', '.join(answer)}")
    names = {
        "logits": list(model.config.id2label.values()),
        "intent_logits": getattr(model.config, "intents", []),
        "slot_logits": getattr(model.config, "slots", []),
    }
    for name, values in answer.items():
        if len(names[name]) != values.shape[-1]:
            raise ValueError(f"the config names {len(names[name])} labels, but {name} are {values.shape[-1]} numbers")
    return {name: names[name] for name in answer}


def _example(config: Mapping, batch: int, length: int) -> dict:
    """Random inputs of shape (batch, length), the second half of the first row padded."""
    random = torch.Generator().manual_seed(0)
    inputs = {name: torch.randint(limit, (batch, length), generator=random) for name, limit in config["inputs"].items()}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, 1 + length // 2 :] = 0
    return inputs


def _write_graph(model: PreTrainedModel, config: Mapping, path: Path) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    example = _example(config, batch=2, length=min(7, config["max_length"]))
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=config["max_length"])}
    program = torch.onnx.export(
        model,
        kwargs=example,
        input_names=list(example),
        output_names=list(config["labels"]),
        dynamic_shapes=dict.fromkeys(example, sizes),
        verbose=False,
    )
    ClearMetadataAndDocStringPass()(program.model)  # stack traces: more than a small model's weights
    program.save(path, external_data=False)


def _compare(model: PreTrainedModel, predictor: Predictor, config: Mapping) -> None:
    """Refuse a graph whose logits are not the model's."""
    rounds = any(isinstance(part, ACTIVATION_QUANTIZERS) for part in model.modules())
    for shape in ((1, 1), (2, config["max_length"])):
        inputs = _example(config, *shape)
        answers = predictor.logits(**{name: tensor.numpy() for name, tensor in inputs.items()})
        for name, expected in model(**inputs).items():
            error = np.abs(answers[name] - expected.numpy()).max() / np.abs(expected.numpy()).max()
            if not error <= (ROUNDED if rounds else TOLERANCE):
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
    thin = {node.name: node.input[1] for node in products if min(weights[node.input[1]]) < THIN}
    excluded = [*thin, *(f"{name}_MatMul" for name in thin)]  # what the quantizer first makes of a Gemm
    quantize_dynamic(model, path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
