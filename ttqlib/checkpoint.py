"""Finished models on disk: packed codes, their scales and the rest in one safetensors file, the plan in config.json.

A digest of the plan and of all tensors stands in both files: files of different saves do not load together, and a
changed bit is noticed. What the tensors are, `stored` says.
"""

import copy
import json
import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from .compress import compress_
from .folders import recover, replacing
from .models import IntentSlotModel
from .packing import DIGEST, first_line, header_bytes
from .planning import TTQConfig
from .stored import check_digest, checked_tensors, expected, fill_, packed, plan_of

CONFIG, WEIGHTS = "config.json", "model.safetensors"
METHOD = "ttq"  # what transformers calls us


def save(model: nn.Module, folder: str | os.PathLike) -> None:
    """Write a model that `compress_` made into `folder`: `model.safetensors`, and `config.json` with the plan.

    The folder is switched in as a whole: whatever happens meanwhile, it holds the old model or the new one. Other
    files in it, such as a tokenizer's, stay. For a transformers model the two files are those of `save_pretrained`,
    and `from_pretrained` reads them. Codes and scales give the weights back to the bit; latent weights, which only
    training needs, are not kept: `QATTrainer` writes the checkpoints of a training that is to go on.

    Raises:
        ValueError: the model has no plan, or weights or scales that are not finite; the folder has subfolders.
        NotADirectoryError: `folder` is a file.
    """
    plan_of(model)
    with replacing(folder) as new:
        if isinstance(model, transformers.PreTrainedModel):
            model.save_pretrained(new)
        else:
            tensors, metadata = packed(model)
            save_file(tensors, new / WEIGHTS, metadata)
            config = {"quantization_config": {**plan_of(model), "quant_method": METHOD, "digest": metadata[DIGEST]}}
            (new / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(folder: str | os.PathLike, into: nn.Module | None = None) -> nn.Module:
    """The model that `save` wrote, in eval mode, with exactly the weights that it computed with.

    A transformers model is built from its own config.json: it must be of one of transformers' classes, or an
    `IntentSlotModel`. Any other module is filled in place and returned: `into` is a dense module as it was before
    `compress_`; its weights do not matter. If anything is wrong with the files it stays as it was.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing.
        ValueError: a file is broken, the two do not belong together, or do not fit the model.
    """
    recover(folder)
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}, which ttq.save writes")
    config = _read_config(folder / CONFIG)
    plan, saved = split_config(config.get("quantization_config"))
    check_digest(folder / WEIGHTS, saved)
    if into is None:
        return _from_pretrained(folder, config)
    if any(tensor.is_meta for tensor in (*into.parameters(), *into.buffers())):
        raise ValueError("into must lie on a real device, got tensors on the meta device")
    skeleton = copy.deepcopy(into, {id(parameter): _on_meta(parameter) for parameter in into.parameters()})
    tensors = checked_tensors(rebuilt(skeleton, plan), folder / WEIGHTS, saved)
    _rebuild_(into, plan)
    fill_(into, tensors)
    return into.eval()


def stored_sizes(model: nn.Module) -> dict[str, int]:
    """How many bytes each module's own tensors take in `model.safetensors`, and how many its "header" takes.

    The sum is the size of the file that `save` writes. Nothing is written, and a model on the meta device, which has
    no weights to write, will do.

    Raises:
        ValueError: as `save`.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        specs, metadata = expected(model), {DIGEST: 64 * "0", "format": "pt"}  # any digest is as long
    else:
        tensors, metadata = packed(model)
        specs = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in specs.items():
        module = name.rpartition(".")[0]
        sizes[module] = sizes.get(module, 0) + prod(shape) * dtype.itemsize
    return {**sizes, "header": header_bytes(specs, metadata)}


def split_config(config: Mapping) -> tuple[TTQConfig, str | None]:
    """The plan and the digest that the `quantization_config` of a config.json holds.

    Raises:
        ValueError: it holds no plan, or a bad one.
    """
    if not isinstance(config, Mapping) or config.get("quant_method") != METHOD:
        raise ValueError(f"config.json holds no quantization_config of quant_method {METHOD!r}, as ttq.save writes it")
    plan = {name: value for name, value in config.items() if name not in ("quant_method", "digest")}
    try:
        return TTQConfig.from_dict(plan), config.get("digest")
    except (TypeError, OverflowError) as error:  # a value of a kind that no check of a field reckons with
        raise ValueError(f"the plan in config.json is broken: {first_line(error)}") from None


def rebuilt(skeleton: nn.Module, plan: TTQConfig) -> nn.Module:
    """The structure that the plan gives to a dense model whose parameters are on the meta device, made in place.

    Raises:
        ValueError: the plan does not fit the model, or asks for tensors beyond all measure.
    """
    try:
        return compress_(skeleton, plan, init="random")
    except (TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"the plan does not fit the model: {first_line(error)}") from None


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, got {type(config).__name__}")
    return config


def _from_pretrained(folder: Path, config: dict) -> nn.Module:
    """Built by the class that config.json names: looked up among known ones, never imported from where a file says."""
    name = config.get("architectures")
    name = name[0] if isinstance(name, list) and len(name) == 1 and isinstance(name[0], str) else None
    known = {"IntentSlotModel": IntentSlotModel}
    kind = known.get(name) or (name and getattr(transformers, name, None))
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(
            f"{folder / CONFIG} names {name!a}, which is no model of transformers or ttqlib: "
            "give the module to load into, ttq.load(folder, into=module)"
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{folder / CONFIG} describes no {name}: {first_line(error)}") from error


def _on_meta(parameter: Tensor) -> Tensor:
    return _empty_like(parameter, torch.device("meta")) if isinstance(parameter, nn.Parameter) else parameter


def _empty_like(tensor: Tensor, device: torch.device) -> Tensor:
    empty = torch.empty_like(tensor, device=device, requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else nn.Buffer(empty)


def _rebuild_(module: nn.Module, plan: TTQConfig) -> None:
    """Give a dense module the structure of `plan`, without looking at its weights, which are dropped."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    _replace_tensors(module, _on_meta)
    compress_(module, plan, init="random")
    _replace_tensors(module, lambda tensor: _empty_like(tensor, device) if tensor.is_meta else tensor)
    module.to(device)


def _replace_tensors(module: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Put make(tensor) in the place of each parameter and buffer; one that is shared stays shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the old ones are kept alive, so that ids stay theirs
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = (tensor, make(tensor))
                    own[name] = made[id(tensor)][1]
