"""What a norm multiplies by: its weight, or one more than that. Found by trying, not by names."""

import torch
from torch import nn

from ..inventory.kinds import is_embedding


def is_norm(module: nn.Module) -> bool:
    """Whether a module may be a norm: it has one weight a channel, and nothing inside."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1 and not any(module.children()) and not is_embedding(module)


@torch.no_grad()
def norm_offset(norm: nn.Module) -> float | None:
    """What a norm adds to its weight before it multiplies by it: 0, or 1 as in Gemma; None where it does neither."""
    own, eps = dict(norm.named_parameters(recurse=False)), lambda dtype: torch.finfo(dtype).eps
    x = torch.randn(8, len(own["weight"]), generator=torch.Generator().manual_seed(3)).to(own["weight"])
    for offset in (0.0, 1.0):
        halved = {"weight": (own["weight"] + offset) / 2 - offset}
        if own.keys() <= {"weight", "bias"}:
            # many norms compute in float32 whatever they are given
            halved |= {"bias": own["bias"] / 2} if "bias" in own else {}
            change = torch.func.functional_call(norm, halved, (x,)) * 2 - norm(x)
            if change.abs().max() <= 4 * max(map(eps, (x.dtype, torch.float32))) * norm(x).abs().max():
                return offset
    return None
