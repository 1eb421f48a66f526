"""Ranks that are spent on what a layer's inputs need: its outputs on real inputs are kept, not its weights.

A truncated SVD of a weight W is the best for inputs that point anywhere. Real inputs fill few directions, and the SVD
spends rank on others that never occur. Of all weights of rank r, W P loses least of the outputs x W (x a row of the
inputs), where P projects onto the r principal directions of those outputs (Chen et al., "DRONE: Data-aware Low-rank
Compression for Large NLP Models", NeurIPS 2021). And the bias can keep the mean of the outputs exactly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .tensor_train import at_least_float32


@dataclass
class Moments:
    """Sums over the rows x that a linear layer has been given, and over its outputs y."""

    count: int = 0
    inputs: Tensor | float = 0.0  # Σ x, (in_features)
    outputs: Tensor | float = 0.0  # Σ y, (out_features)
    squares: Tensor | float = 0.0  # Σ yᵀ y, (out_features, out_features)

    def add(self, x: Tensor, y: Tensor) -> None:
        """x (N, in_features), y (N, out_features)."""
        self.count += len(x)
        self.inputs = self.inputs + x.sum(0)
        self.outputs = self.outputs + y.sum(0)
        self.squares = self.squares + y.T @ y

    def principal_directions(self, rank: int) -> Tensor:
        """The orthonormal directions, (out_features, rank), along which the outputs vary most around their mean."""
        mean = self.outputs / self.count
        covariance = self.squares / self.count - torch.outer(mean, mean)
        return torch.linalg.eigh(covariance).eigenvectors[:, -rank:]


@torch.no_grad()
def output_moments(
    model: nn.Module, names: Sequence[str], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Moments]:
    """Run the model, in eval mode, over `batches` of keyword arguments and sum up what the named linear layers do.

    Where a batch has an `attention_mask` of shape (B, T), padding does not count.

    Raises:
        ValueError: there are no batches, or a layer has not been called.
    """
    found = {name: Moments() for name in names}
    batch: Mapping[str, Tensor] = {}

    def watch(moments: Moments, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x, mask = inputs[0], batch.get("attention_mask")
        real = ... if mask is None or mask.shape != x.shape[:-1] else mask.bool()
        moments.add(*(at_least_float32(rows[real]).reshape(-1, rows.shape[-1]) for rows in (x, output)))

    hooks = [model.get_submodule(name).register_forward_hook(partial(watch, found[name])) for name in names]
    training = {module for module in model.modules() if module.training}
    model.eval()
    try:
        for batch in batches:
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    if silent := [name for name, moments in found.items() if not moments.count]:
        raise ValueError(f"calibration needs batches that reach every layer; none has reached {', '.join(silent)}")
    return found


@torch.no_grad()
def nearest_outputs(linear: nn.Linear, rank: int, moments: Moments) -> nn.Linear:
    """The layer whose weight has rank `rank` and whose outputs are nearest, but for their mean: the bias stays."""
    directions = moments.principal_directions(rank)
    weight = directions @ (directions.T @ at_least_float32(linear.weight))
    nearest = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    nearest.weight, nearest.bias = nn.Parameter(weight.to(linear.weight.dtype)), linear.bias
    return nearest.train(linear.training)


@torch.no_grad()
def keep_mean_output_(layer: nn.Module, weight: Tensor, moments: Moments) -> None:
    """Set the bias so that the mean output on the inputs is as it was; `weight` is the layer's, (in, out)."""
    if layer.bias is not None:
        layer.bias.copy_((moments.outputs - moments.inputs @ weight) / moments.count)
