"""Dropout that costs less on a CPU: a quarter of the random numbers.

PyTorch draws one random number for each activation, on one thread, in up to a fifth of the time of a tensor-train
training step. Sixteen random bits are enough to say whether an activation is dropped.
"""

import torch
from torch import Tensor, nn

BITS = 16
LANES = 64 // BITS  # activations that one random integer serves


class QuickDropout(nn.Dropout):
    """`nn.Dropout` whose masks are drawn from 16 random bits each. On other devices than a CPU it is `nn.Dropout`.

    Every activation is dropped independently, with the probability k / 2^16 that is nearest to `p`; what stays is
    divided by the exact share that stays. Masks follow `torch.manual_seed`, but are others than those of `nn.Dropout`.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * 2**BITS)
        if not (self.training and 0 < dropped < 2**BITS) or x.device.type != "cpu":
            return super().forward(x)
        integers = torch.empty(-(-x.numel() // LANES), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        lanes = integers.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (lanes >= dropped - 2 ** (BITS - 1)).to(x.dtype)
        return x * kept.mul_(1 / (1 - dropped / 2**BITS))


def quick_dropout_(model: nn.Module) -> nn.Module:
    """Give every `nn.Dropout` of a model, in place, cheaper masks (`QuickDropout`), and return the model.

    The rate and the distribution stay; the random numbers are others. What a model drops by a function of PyTorch, as
    attention maps in most models of transformers, stays as it is.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            quick = QuickDropout(module.p, module.inplace).train(module.training)
            model.set_submodule(name, quick)
    return model
