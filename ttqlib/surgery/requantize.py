"""`requantized`: the same latent weights under other quantizers, for trainings that come down to few bits in stages."""

import copy

import torch
from torch import nn

from ..plans.configs import TTQConfig
from ..quantizers.activations import unquantize_input_
from ..quantizers.parametrizing import quantized, take_off_
from .compress import compress_


@torch.no_grad()
def requantized(model: nn.Module, config: TTQConfig) -> nn.Module:
    """A copy of a model that `compress_` made, under the quantizers of another plan; the model stays as it was.

    The latent float weights are those of the model, and whether they train; all scales start anew from them. Trains
    stay as they are, so the plan must say the formats that the model has. Use: 32 → 2 → 1 bits, each stage a
    `DistillTrainer` of its own, as TernaryBERT and BinaryBERT begin and XTC shows not to be needed (arXiv 2206.01859).

    Only a model that is in training has latent weights: one that was read from a finished file has its few levels.

    Raises:
        ValueError: as `compress_`; or a module has a parametrization of another kind beside ours.
    """
    student = copy.deepcopy(model)
    for name, module in list(student.named_modules()):
        latents = {own: latent for own, _, latent in quantized(module)}
        if latents and len(latents) < len(module.parametrizations):
            raise ValueError(f"{name} has a parametrization of another kind, as of a weight norm: remove it first")
        if latents:
            take_off_(module, latents)
        unquantize_input_(module)
        vars(module).pop("ttq_config", None)  # else its activations would stay in the new plan
    return compress_(student, config)
