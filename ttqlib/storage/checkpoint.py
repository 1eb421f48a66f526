"""Finished models on disk: packed codes, their scales and the rest in one safetensors file, the plan in config.json.

A digest of the plan and of all tensors stands in both files: files of different saves do not load together, and a
changed bit is noticed. What the tensors are, `stored` says.
"""

import copy
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.dynamic_module_utils import custom_object_save

from ..models.intent_slot import IntentSlotModel
from ..plans.configs import TTQConfig
from ..surgery.compress import plan_of
from .files import ANY_DIGEST, DIGEST, first_line, module_bytes, specs_of, write
from .folders import current, replacing
from .packed import Aside, pack_, set_aside_
from .reading import CONFIG, WEIGHTS, Written, check_digest, checked_tensors
from .rebuild import as_meta, check_rebuild, empty_like, reads_by_rows, rebuilt, replace_tensors
from .stored import VERSION, contents_of, expected, fill_

METHOD = "ttq"  # what transformers calls us


def save(model: nn.Module, folder: str | os.PathLike) -> None:
    """Write a model that `compress_` made into `folder`: `model.safetensors`, and `config.json` with the plan.

    What is written, `load` returns in a new process, with the same weights to the bit; a model of which that cannot be
    is refused before anything is written. The folder is switched in as a whole: whatever happens meanwhile, it holds
    the old model or the new one (`folders.replacing` says what happens where a folder cannot be). Other files in it,
    such as a tokenizer's, stay. A transformers model's `save_pretrained` writes the same, and `from_pretrained` reads
    it. Latent weights, which only training needs, are not kept: `QATTrainer` writes the checkpoints of a training that
    is to go on.

    Raises:
        ValueError: the model has no plan, one that does not describe it, or weights or scales that are not finite.
        NotADirectoryError: `folder` is a file.
    """
    tensors, metadata = contents(model)
    saved = _plan_text(model, metadata[DIGEST])
    with replacing(folder, fence=(CONFIG, WEIGHTS)) as new:
        _write_texts(model, saved, new)
        write(new / WEIGHTS, tensors, metadata)


def _plan_text(model: nn.Module, digest: str) -> dict:
    """The `quantization_config` of config.json."""
    return {**plan_of(model).to_dict(), "quant_method": METHOD, "digest": digest, "version": _version(model)}


def contents(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save` would write of a model: tensors and metadata. Nothing is written, so this tells whether it would.

    Raises:
        ValueError: as `save`.
    """
    version = _version(model)
    return contents_of(*check_rebuild(model, plan_of(model), version), version)


def _version(model: nn.Module) -> int:
    return 1 if reads_by_rows(model) else VERSION


def description(model: transformers.PreTrainedModel, saved) -> transformers.PreTrainedConfig:
    """What config.json says of a model, with a plan as it is to stand there; the model's own config stays as it is."""
    config = copy.deepcopy(model.config)
    config.architectures = [parametrize.type_before_parametrizations(model).__name__]
    config.dtype, config.quantization_config = str(model.dtype).removeprefix("torch."), saved
    return config


def _write_texts(model: nn.Module, saved: Mapping, folder: Path) -> None:
    """What `save` writes besides the weights; of a transformers model that is what `save_pretrained` writes."""
    if not isinstance(model, transformers.PreTrainedModel):
        text = json.dumps({"quantization_config": saved}, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        return
    config = description(model, saved)
    if model.is_remote_code():
        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def load(folder: str | os.PathLike, into: nn.Module | None = None, *, packed: bool = False) -> nn.Module:
    """The model that `save` wrote, in eval mode, with exactly the weights that it computed with.

    A transformers model is built from its own config.json: it must be of one of transformers' classes, or an
    `IntentSlotModel`. Any other module is filled in place and returned: `into` is a dense module as it was before
    `compress_`; its weights do not matter. If anything is wrong with the files it stays as it was. The folder is only
    read. One that an earlier version wrote under other names is read, too, and a line of the log says so.

    With `packed` the quantized weights stay packed in memory: each is unpacked when its layer computes, of a table of
    words the rows that are asked for. Such a model gives the same answers, to the bit, in little more memory than the
    file takes; it cannot train, and is saved, reported and fused as any other. `from_pretrained` does the same where
    its `config` has an entry "packed": True in `quantization_config`.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing.
        ValueError: a file is broken, the two do not belong together, or do not fit the model.
    """
    folder = current(folder)
    variant = _variant(folder)
    for name in (CONFIG, *([] if variant is not None else [WEIGHTS])):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}, which ttq.save writes")
    config = _read_config(folder / CONFIG)
    written = read_plan(config.get("quantization_config"))
    if into is None:
        return _from_pretrained(folder, config, variant, packed)
    check_digest(folder / WEIGHTS, written.digest)
    if any(tensor.is_meta for tensor in (*into.parameters(), *into.buffers())):
        raise ValueError("into must lie on a real device, got tensors on the meta device")
    tensors = checked_tensors(rebuilt(as_meta(into), written.plan, written.version), [folder / WEIGHTS], written)
    aside = _rebuild_(into, written, packed)
    if aside is None:
        fill_(into, tensors)
    else:
        pack_(into, tensors, aside)
    return into.eval()


def stored_sizes(model: nn.Module) -> dict[str, int]:
    """How many bytes each module's own tensors take in `model.safetensors`, and how many its "header" takes.

    The sum is the size of the file that `save` writes. Nothing is written, and a model on the meta device, which has
    no weights to write, will do.

    Raises:
        ValueError: as `save`.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        specs, metadata = expected(model), {DIGEST: ANY_DIGEST, "format": "pt"}
    else:
        tensors, metadata = contents(model)
        specs = specs_of(tensors)
    return module_bytes(specs, metadata)


def saved_bytes(model: nn.Module) -> int:
    """How many bytes the files take that `save` writes of a model; one on the meta device will do.

    Raises:
        ValueError: as `save`.
    """
    saved = _plan_text(model, ANY_DIGEST)
    with TemporaryDirectory() as folder:
        _write_texts(model, saved, Path(folder))
        texts = sum(path.stat().st_size for path in Path(folder).iterdir())
    return texts + sum(stored_sizes(model).values())


def read_plan(config: Mapping) -> Written:
    """What the `quantization_config` of a config.json holds.

    Raises:
        ValueError: it holds no plan, or a bad one, or is of a version that this ttqlib does not know.
    """
    if not isinstance(config, Mapping) or config.get("quant_method") != METHOD:
        raise ValueError(f"config.json holds no quantization_config of quant_method {METHOD!r}, as ttq.save writes it")
    text = {name: value for name, value in config.items() if name not in ("quant_method", "digest", "version")}
    version = config.get("version", 1)
    if version not in (1, VERSION) or isinstance(version, bool):
        raise ValueError(f"version must be 1 or {VERSION}, got {version!a}: was it written by a newer ttqlib?")
    try:
        return Written(TTQConfig.from_dict(text), text, config.get("digest"), version)
    except (TypeError, OverflowError) as error:  # a value of a kind that no check of a field reckons with
        raise ValueError(f"the plan in config.json is broken: {first_line(error)}") from None


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, got {type(config).__name__}")
    return config


def _variant(folder: Path) -> str | None:
    """Which variant of the weights lies there alone, "" for shards; earlier versions wrote such. None: one file."""
    if folder.is_dir() and not (folder / WEIGHTS).exists():
        for names in (r"model\.safetensors\.index(?:\.([^.]+))?\.json", r"model\.([^.]+)\.safetensors"):
            for path in sorted(folder.iterdir()):
                if found := re.fullmatch(names, path.name):
                    return found[1] or ""
    return None


def _from_pretrained(folder: Path, config: dict, variant: str | None, packed: bool) -> nn.Module:
    """Built by the class that config.json names: looked up among known ones, never imported from where a file says."""
    name = config.get("architectures")
    name = name[0] if isinstance(name, list) and len(name) == 1 and isinstance(name[0], str) else None
    known = {"IntentSlotModel": IntentSlotModel}
    plain = name and name.removeprefix("Parametrized")  # which earlier versions wrote of some models
    kind = known.get(name) or (name and (getattr(transformers, name, None) or getattr(transformers, plain, None)))
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(
            f"{folder / CONFIG} names {name!a}, which is no model of transformers or ttqlib: "
            "give the module to load into, ttq.load(folder, into=module)"
        )
    try:
        options = {"config": _asking_for_packed(kind, folder)} if packed else {}
        return kind.from_pretrained(folder, local_files_only=True, variant=variant or None, **options)
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{folder / CONFIG} describes no {name}: {first_line(error)}") from error


def _asking_for_packed(kind: type[transformers.PreTrainedModel], folder: Path) -> transformers.PreTrainedConfig:
    """The config of a folder, with the wish that weights stay packed beside the plan."""
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    config.quantization_config = {**config.quantization_config, "packed": True}
    return config


def _rebuild_(module: nn.Module, written: Written, packed: bool) -> Aside | None:
    """Give a dense module the structure of a plan, without looking at its weights, which are dropped.

    What stays packed is set aside, and returned.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    rebuilt(module, written.plan, written.version)
    aside = set_aside_(module) if packed else None
    replace_tensors(module, lambda tensor: empty_like(tensor, device) if tensor.is_meta else tensor)
    module.to(device)
    return aside
