"""Training with quantizers: a `transformers.Trainer` whose checkpoints keep what packing drops.

A packed file has codes and no latent weights, so a training cannot go on from it. transformers would load one all the
same, with a warning, and keep the weights that happen to be there.
"""

import copy
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from .activations import StaticActivationQuantizer
from .checkpoint import METHOD, WEIGHTS
from .packing import DIGEST, digest, read, read_metadata
from .quantizers import WeightQuantizer

PLAN = "plan"  # the entry of a training checkpoint's header that holds the digest of the plan


class QATTrainer(Trainer):
    """`transformers.Trainer` for quantization-aware training of a model that `compress_` made.

    Checkpoints hold latent weights, scales and the state of activation quantizers, as they are in memory, and are
    loaded strictly, also by `load_best_model_at_end`: an interrupted training goes on as if nothing had happened.
    Scales, biases and norms are kept out of weight decay. `save_model` writes the finished model, packed as by
    `model.save_pretrained`. Not for FSDP and DeepSpeed, which save in their own ways.

    Raises:
        FileNotFoundError: a checkpoint to load from lacks its weights.
        ValueError: it is a packed model, was made with another plan, or does not have exactly the model's tensors.
    """

    _packing = True  # inside `save_model`: whether to write a finished model

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        quantizers = WeightQuantizer | StaticActivationQuantizer
        prefixes = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, quantizers))
        return [name for name in super().get_decay_parameter_names(model) if not name.startswith(prefixes)]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the finished model to `output_dir`, packed. What transformers itself calls for a checkpoint is not."""
        self._packing = not (_internal_call and output_dir)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            self._packing = True

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self._packing:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            save_latent(self.accelerator.unwrap_model(self.model), Path(output_dir))
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_latent_(self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_latent_(self.accelerator.unwrap_model(self.model), Path(self.state.best_model_checkpoint))


def save_latent(model: nn.Module, folder: Path) -> None:
    """Write all parameters and buffers of a model, as they are, and its config with the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(model).items()}
    unfinished = folder / f"{WEIGHTS}.unfinished"
    save_file(tensors, unfinished, {"format": "pt", PLAN: digest(_plan(model), {})})
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
    if metadata.get(PLAN) != digest(_plan(model), {}):
        raise ValueError(f"{path} was not written by ttq.QATTrainer, or for a model with another plan than this one's")
    tensors = read(path, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()})
    for name, tensor in state.items():
        tensor.copy_(tensors[name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once, under its first name; the tensors are the model's own."""
    names: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        names.setdefault(id(tensor), name)
    return {name: state[name] for name in names.values()}


def _plan(model: nn.Module) -> dict:
    config = getattr(model, "ttq_config", None)
    return {} if config is None else config.to_dict()
