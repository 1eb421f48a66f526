"""Checkpoints of a training with quantizers: latent weights, which packing drops.

A packed file has codes and no latent weights, so a training cannot go on from it. transformers would load one all the
same, with a warning, and keep the weights that happen to be there.
"""

import copy
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..inventory.ties import by_identity
from .checkpoint import METHOD, WEIGHTS
from .files import DIGEST, compare, digest, read_all, read_metadata, read_specs, specs_of

PLAN = "plan"  # the entry of a training checkpoint's header that holds the digest of the plan


def save_latent(model: nn.Module, folder: Path) -> None:
    """Write all parameters and buffers of a model, as they are, and its config with the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(model).items()}
    unfinished = folder / f"{WEIGHTS}.unfinished"
    save_file(tensors, unfinished, {"format": "pt", PLAN: _digest(model)})
    os.replace(unfinished, folder / WEIGHTS)
    if isinstance(model, PreTrainedModel):
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        if _plan(model):  # without a digest of tensors: `from_pretrained` says that these are latent
            config.quantization_config = {**_plan(model), "quant_method": METHOD, "digest": None}
        config.save_pretrained(folder)


@torch.no_grad()
def load_latent_(model: nn.Module, folder: Path) -> None:
    """Copy what `save_latent` wrote into a model of the same plan.

    Raises:
        FileNotFoundError, ValueError: as `QATTrainer`.
    """
    path, state = folder / WEIGHTS, _state(model)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}: it is no checkpoint of ttq.QATTrainer")
    metadata = read_metadata(path)
    if DIGEST in metadata:
        raise ValueError(f"{path} is packed, its latent weights are gone: a training cannot go on from it")
    if metadata.get(PLAN) != _digest(model):
        raise ValueError(f"{path} was not written by ttq.QATTrainer, or for a model with another plan than this one's")
    compare(read_specs(path), specs_of(state))
    tensors = read_all(path)
    for name, tensor in state.items():
        tensor.copy_(tensors[name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once, under its first name; the tensors are the model's own."""
    state = model.state_dict(keep_vars=True)
    return {name: state[name] for name, *_ in by_identity((tensor, name) for name, tensor in state.items())}


def _plan(model: nn.Module) -> dict:
    config = getattr(model, "ttq_config", None)
    return {} if config is None else config.to_dict()


def _digest(model: nn.Module) -> str:
    """Of the plan, but not of its format: trainings that began before plans had one go on."""
    return digest({name: value for name, value in _plan(model).items() if name != "format"}, {})
