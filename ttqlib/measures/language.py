"""How well a language model knows a text: its perplexity."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..progress import bar
from ..surgery.calibration import eval_mode
from ..tensors.shapes import whole_number


@torch.no_grad()
def perplexity(model: nn.Module, windows: Tensor, *, batch: int = 4) -> float:
    """exp of the mean negative log-likelihood of each token but the first of a window, given those before it.

    `windows` (K, T) are ids, each window read by itself; `batch` of them at once, which changes only the memory. The
    model runs in eval mode where it is, and has its own mode back afterwards.

    Raises:
        ValueError: `windows` is not of two axes, with at least two tokens in each.
    """
    whole_number("batch", batch)
    if windows.ndim != 2 or len(windows) < 1 or windows.shape[1] < 2:
        raise ValueError(f"windows must be (K, T) with T of at least 2, got shape {tuple(windows.shape)}")
    device, total = next(model.parameters()).device, 0.0
    with eval_mode(model):
        for ids in bar(windows.split(batch), desc="perplexity", unit="batch"):
            ids = ids.to(device)
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (b, T − 1, vocabulary)
            total += F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum").item()
    return float(torch.tensor(total / (len(windows) * (windows.shape[1] - 1)), dtype=torch.float64).exp())
