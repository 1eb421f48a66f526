"""Files of finished models, read with suspicion: nothing of them reaches a model before all of it has been compared.

Also those that earlier versions wrote: under the names that transformers gives the tensors of its own files, as shards,
or with a digest of one size more.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from ..layers.embedding import TTMEmbedding
from ..plans.configs import TTQConfig
from .files import DIGEST, Spec, compare, digest, first_line, read_all, read_metadata, read_specs, specs_of
from .stored import check_values, expected, plain_weights, signed, unsaved

CONFIG, WEIGHTS = "config.json", "model.safetensors"
logger = logging.getLogger(__name__)


def check_digest(path: Path, saved: str | None) -> None:
    """Refuse a file of tensors that does not belong to the config.json in which the digest `saved` stands.

    Raises:
        ValueError: it is no whole safetensors file, holds no packed model, or is of another save.
    """
    metadata = read_metadata(path)
    if DIGEST not in metadata:
        raise ValueError(f"{path} was not packed by ttq.save: a training goes on from its checkpoint by ttq.QATTrainer")
    if metadata[DIGEST] != saved:
        raise ValueError(f"{path} and its {CONFIG} are not of one save: their digests differ (was one interrupted?)")


@dataclass(frozen=True)
class Written:
    """What the `quantization_config` of a config.json says: the plan, the digest, the version of the files.

    The plan also as it stands there, which the digest is of: today it may be written otherwise.
    """

    plan: TTQConfig
    text: Mapping
    digest: str | None
    version: int


def checked_tensors(model: nn.Module, paths: Sequence[Path], written: Written, cast: bool = False) -> dict[str, Tensor]:
    """The tensors of a model's files, mostly one, after all that can be wrong with them has been looked at.

    `model` is the compressed model that they are for, on any device, meta included. The digest lies in the files, too
    (`check_digest`). With `cast` the model may be of another dtype than the one that was saved.

    Raises:
        ValueError: something is wrong.
    """
    found = {name: spec for path in paths for name, spec in read_specs(path).items()}
    wanted, tensors = _wanted(model, found, cast), {}
    renamed = _renamed(model, paths, cast) if found.keys() != wanted.keys() else None
    if renamed is not None:
        tensors, found = renamed, specs_of(renamed)
        wanted = _wanted(model, found, cast)
    compare(found, wanted)
    tensors = tensors or _read(paths)
    if not any(digest(contents, tensors) == written.digest for contents in _signed(model, written)):
        raise ValueError(f"{paths[0]} or its {CONFIG} was changed after it was saved: the digest does not fit")
    check_values(model, tensors)
    if renamed is not None or [path.name for path in paths] != [WEIGHTS]:
        logger.warning("%s: an earlier ttqlib wrote it under other names; it is read, save it anew", paths[0].parent)
    return tensors


def _wanted(model: nn.Module, found: Mapping[str, Spec], cast: bool) -> dict[str, Spec]:
    """What files should hold: all that is expected, and of what is usually left out what they do hold."""
    wanted = expected(model)
    for name, tensor in unsaved(model).items():
        if name in found and found[name][0].is_floating_point == tensor.is_floating_point():
            wanted[name] = (found[name][0], tuple(tensor.shape))
    weights = plain_weights(model) if cast else set()
    dtypes = {found[name][0] for name in weights & found.keys()}
    if len(dtypes) == 1 and next(iter(dtypes)).is_floating_point:
        wanted |= {name: (*dtypes, wanted[name][1]) for name in weights}
    return wanted


def _read(paths: Sequence[Path]) -> dict[str, Tensor]:
    return {name: tensor for path in paths for name, tensor in read_all(path).items()}


# ------------------------------------------------------------------------------------------------- earlier versions


def _renamed(model: nn.Module, paths: Sequence[Path], cast: bool) -> dict[str, Tensor] | None:
    """The tensors by the names that a model has for them, if those that transformers' files have lead there.

    Up to July 2026 `save_pretrained` of a model that had been read from a file with older names gave its packed tensors
    such names, too, and took experts apart.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    try:
        tensors = _converted(model, _read(paths))
    except Exception as error:  # of a file that nobody wrote so
        logger.debug("no names of transformers: %s", first_line(error))
        return None
    return tensors if tensors.keys() == _wanted(model, specs_of(tensors), cast).keys() else None


def _converted(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What transformers makes of names, and of tensors that are one of several, when it reads a file of its own."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    steps: dict[str, WeightRenaming | WeightConverter] = {}
    for name in sorted(tensors, key=dot_natural_key):
        new, pattern = rename_source_key(name, renamings, converters)
        step = copy.deepcopy(by_pattern[pattern]) if pattern else WeightRenaming(name, new)
        steps.setdefault(new, step).add_tensor(new, name, pattern or name, tensors[name])
    found = {}
    for new, step in steps.items():
        for name, tensor in step.convert(new, model=model, config=model.config).items():
            found[name] = tensor[0] if isinstance(tensor, list) else tensor
    return found


def _signed(model: nn.Module, written: Written) -> Iterator[dict]:
    """What the digest may be of. The padding_idx of version 1 may have been set in config.json since."""
    if written.version != 1:
        yield signed(model, written.text, written.version)
        return
    usual = getattr(type(getattr(model, "config", None)), "pad_token_id", None)  # of a model of this class
    own = {module.padding_idx for module in model.modules() if isinstance(module, TTMEmbedding)}
    for padding in own | {usual, None}:
        yield signed(model, written.text, 1, padding)
