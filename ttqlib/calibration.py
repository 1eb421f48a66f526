"""Ranks that are spent on what a layer's inputs need: its outputs on real inputs are kept, not its weights.

A truncated SVD of a weight W is the best for inputs that point anywhere. Real inputs fill few directions, and the SVD
spends rank on others that never occur. Of all weights of rank r, W P loses least of the outputs x W (x a row of the
inputs), where P projects onto the r principal directions of those outputs (Yu and Wu, "Compressing Transformers:
Features Are Low-Rank, but Weights Are Not!", AAAI 2023; Chen et al., "DRONE", NeurIPS 2021). And the bias can keep the
mean of the outputs exactly.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .tensor_train import at_least_float32


@dataclass
class Moments:
    """Sums over the rows x that a linear layer has been given, and over its outputs y; of a look-up only the latter."""

    count: int = 0
    inputs: Tensor | float = 0.0  # Σ x, (in_features)
    outputs: Tensor | float = 0.0  # Σ y, (out_features)
    squares: Tensor | float = 0.0  # Σ yᵀ y, (out_features, out_features)

    def add(self, x: Tensor | None, y: Tensor) -> None:
        """x (N, in_features), y (N, out_features)."""
        self.count += len(y)
        self.inputs = self.inputs + (0.0 if x is None else x.sum(0))
        self.outputs = self.outputs + y.sum(0)
        self.squares = self.squares + y.T @ y

    def principal_directions(self, rank: int, centred: bool) -> Tensor:
        """The orthonormal directions, (out_features, rank), along which the outputs are largest, or vary most."""
        squares, mean = self.squares / self.count, self.outputs / self.count
        if centred:
            squares = squares - torch.outer(mean, mean)
        return torch.linalg.eigh(squares).eigenvectors[:, -rank:]


@torch.no_grad()
def output_moments(
    model: nn.Module, names: Sequence[str], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Moments]:
    """Sums over what the named layers, linear ones or embeddings, give for `batches` of the model's keyword arguments.

    The model runs in eval mode. Where a batch has an `attention_mask` of shape (B, T), padding does not count.

    Raises:
        ValueError: there are no batches, or a layer has not been called.
    """
    found = {name: Moments() for name in names}
    batch: Mapping[str, Tensor] = {}

    def watch(moments: Moments, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        mask = batch.get("attention_mask")
        real = ... if mask is None or mask.shape != output.shape[:-1] else mask.bool()

        def chosen(rows: Tensor) -> Tensor:
            return at_least_float32(rows[real]).reshape(-1, rows.shape[-1])

        moments.add(None if isinstance(module, nn.Embedding) else chosen(inputs[0]), chosen(output))

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
def nearest_outputs(layer: nn.Linear | nn.Embedding, rank: int, moments: Moments) -> nn.Linear | nn.Embedding:
    """The layer whose weight has rank `rank` and whose outputs are nearest.

    Nearest but for their mean where there is a bias to mend that: it stays as it is here.
    """
    linear = isinstance(layer, nn.Linear)
    directions = moments.principal_directions(rank, centred=linear and layer.bias is not None)
    weight = at_least_float32(layer.weight)  # (out, in) of a linear layer, (rows, out) of an embedding
    weight = directions @ (directions.T @ weight) if linear else weight @ directions @ directions.T
    nearest = copy.copy(layer)  # which shares the other tensors, and keeps its own settings
    nearest._parameters = {**layer._parameters, "weight": nn.Parameter(weight.to(layer.weight.dtype))}
    return nearest


@torch.no_grad()
def keep_mean_output_(layer: nn.Module, weight: Tensor, moments: Moments) -> None:
    """Set a linear layer's bias so that the mean of its outputs is as it was; its weight is now `weight`, (in, out)."""
    if layer.bias is not None:
        layer.bias.copy_((moments.outputs - moments.inputs @ weight) / moments.count)
