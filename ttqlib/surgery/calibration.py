"""Ranks that are spent on what a layer's inputs need: its outputs on real inputs are kept, not its weights.

A truncated SVD of a weight W is the best for inputs that point anywhere. Real inputs fill few directions, and the SVD
spends rank on others that never occur. Of all weights of rank r, W P loses least of the outputs x W (x a row of the
inputs), where P projects onto the r principal directions of those outputs (Yu and Wu, "Compressing Transformers:
Features Are Low-Rank, but Weights Are Not!", AAAI 2023; Chen et al., "DRONE", NeurIPS 2021). And the bias can keep the
mean of the outputs exactly.

Which rows count
----------------
Padding does not. A batch's `attention_mask` says where it is, but a model may hold several stacks that read different
tokens: encoder and decoder, text and image. So a mask counts in the stack that was given it together with its tokens:

- A module that takes `input_ids` (or `inputs_embeds`) and `attention_mask` opens a stack, and one that takes pixels
  or sound opens a stack without tokens. What runs inside belongs to the innermost stack.
- A module that also takes `decoder_input_ids` holds two stacks; its own layers, as a head, come after the decoder.
- A layer that is given the `encoder_hidden_states` of its stack, as the keys of cross-attention are, goes by the
  `encoder_attention_mask`.
- Rows are tokens where they are as many as the tokens of the stack. A layer that sees tokens in some calls and other
  things in others, as DeBERTa's keys see relative positions, goes by its tokens. One that never sees tokens (poolers,
  images, experts of a mixture) goes by all of its rows.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature

import torch
from torch import Tensor, nn

from ..layers.linear import TTLinear
from ..progress import bar
from ..tensors.tensor_train import at_least_float32

Batches = Iterable[Mapping[str, Tensor]] | Mapping[str, Tensor]  # of the model's keyword arguments; or one batch
EMPTY = "calibration is empty: give some batches of the model's keyword arguments"
NO_TOKENS = {"pixel_values", "input_features", "input_values"}  # images, spectra, sound


# ------------------------------------------------------------------------------------------------------- the sums


@dataclass
class Sums:
    """Count, mean and second moments of rows (N, n), kept in float64 on the CPU.

    What is summed are differences from the mean of the first rows. Sums of squares themselves would lose all digits of
    a small spread about a large mean: float32 has none left where the mean is a few thousand standard deviations.
    """

    count: int = 0
    shift: Tensor | float = 0.0  # (n)
    total: Tensor | float = 0.0  # Σ (row − shift), (n)
    products: Tensor | float = 0.0  # Σ (row − shift)ᵀ (row − shift), (n, n), where `add` was asked for them

    def add(self, rows: Tensor, products: bool) -> None:
        if not self.count:
            self.shift = rows.mean(0).cpu().double()
        rows = rows - self.shift.to(rows)
        self.count += len(rows)
        self.total = self.total + rows.sum(0).cpu().double()
        if products:
            self.products = self.products + (rows.T @ rows).cpu().double()

    @property
    def mean(self) -> Tensor:
        return self.shift + self.total / self.count

    def second_moment(self, centred: bool) -> Tensor:
        """The mean of rowᵀ row, (n, n), or the covariance."""
        off = self.total / self.count
        covariance = self.products / self.count - torch.outer(off, off)
        return covariance if centred else covariance + torch.outer(self.mean, self.mean)


@dataclass
class Moments:
    """What a linear layer was given and what it answered, or what rows of a table were looked up.

    Second moments are kept of the narrower side: those of the outputs follow from those of the inputs. But where
    `needs_inputs` says so, of the inputs.
    """

    inputs: Sums = field(default_factory=Sums)  # of rows (N, in_features); empty where an embedding was asked
    outputs: Sums = field(default_factory=Sums)  # of rows (N, out_features)
    of_inputs: bool = False  # whose second moments there are
    needs_inputs: bool = False  # whether they must be of the inputs, be these narrower or not
    of_tokens: bool = False

    @property
    def count(self) -> int:
        return self.outputs.count

    def see(self, x: Tensor | None, y: Tensor, real: Tensor | None) -> None:
        """Add a call of the layer, x (…, in_features) ↦ y (…, out_features); x is None where rows were looked up.

        `real`, (N,) of bool, says which rows are tokens to count; None, that none are tokens. Tokens take the place of
        what was none, and nothing but tokens counts after them.
        """
        if real is not None and not self.of_tokens:
            self.inputs, self.outputs, self.of_tokens = Sums(), Sums(), True
        if (real is not None) == self.of_tokens:
            self.add(None if x is None else _rows(x, real), _rows(y, real))

    def add(self, x: Tensor | None, y: Tensor) -> None:
        """x (N, in_features), y (N, out_features)."""
        self.of_inputs = x is not None and (self.needs_inputs or x.shape[1] < y.shape[1])
        if x is not None:
            self.inputs.add(x, self.of_inputs)
        self.outputs.add(y, not self.of_inputs)

    def principal_directions(self, weight: Tensor, rank: int, centred: bool) -> Tensor:
        """The orthonormal directions, (out_features, rank), along which the outputs are largest, or vary most.

        `weight`, (out_features, in_features), is that of the linear layer; looked at where second moments are of x.
        """
        if not self.of_inputs:
            return top_eigenvectors(self.outputs.second_moment(centred), rank)
        values, vectors = torch.linalg.eigh(self.inputs.second_moment(centred))
        root = weight.cpu().double() @ (vectors * values.clamp_min(0).sqrt())  # (out, in): root rootᵀ is that of y
        right = top_eigenvectors(root.T @ root, rank)
        return torch.linalg.qr(root @ right).Q  # orthonormal also where the outputs fill fewer directions


def _rows(tensor: Tensor, real: Tensor | None) -> Tensor:
    """The rows of a tensor (…, n) that are real, (N, n)."""
    flat = at_least_float32(tensor).reshape(-1, tensor.shape[-1])
    return flat if real is None or real.all() else flat[real]


def top_eigenvectors(matrix: Tensor, count: int) -> Tensor:
    """The orthonormal eigenvectors of the largest eigenvalues, (n, count)."""
    return torch.linalg.eigh(matrix).eigenvectors[:, -count:]


# --------------------------------------------------------------------------------------------- which rows are tokens


@dataclass(frozen=True, eq=False)
class Stack:
    """The tokens that a part of a model was given, where it was given any: see the top of this file."""

    shape: torch.Size | None = None  # (B, T)
    mask: Tensor | None = None  # (B, T)
    memory: Tensor | None = None  # (B, S, n): what an encoder said
    memory_mask: Tensor | None = None  # (B, S)

    @classmethod
    def of(cls, parameters: Sequence[str], given: Mapping[str, object]) -> "Stack | None":
        """That which a module opens that takes `parameters` and was `given` these; None for most modules."""
        for side in ("decoder_", ""):
            if {f"{side}input_ids", f"{side}attention_mask"} <= set(parameters):
                ids, embeds = given.get(f"{side}input_ids"), given.get(f"{side}inputs_embeds")
                shape = embeds.shape[:-1] if ids is None and embeds is not None else getattr(ids, "shape", None)
                memory = given.get("encoder_hidden_states")
                memory_mask = given.get("encoder_attention_mask")
                return cls(shape, given.get(f"{side}attention_mask"), memory, memory_mask)
        return cls() if NO_TOKENS & set(parameters) else None

    def tokens(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Which of the rows of a layer's outputs `y` are real, (N,) of bool; None where they are no tokens."""
        if x is self.memory:
            shape, mask = x.shape[:-1], self.memory_mask
        elif self.shape is not None and y.shape[:-1] in (self.shape, (self.shape.numel(),)):  # also one after another
            shape, mask = self.shape, self.mask
        else:
            return None
        if not isinstance(mask, Tensor) or mask.shape != shape:
            mask = torch.ones(shape, device=y.device)
        return mask.flatten().bool()


@contextmanager
def _stacks(model: nn.Module, opened: list[Stack]) -> Iterator[None]:
    """In this block a module that opens a stack puts it on the end of `opened` while it runs."""

    def enter(parameters: Sequence[str], module: nn.Module, args: tuple, kwargs: dict) -> None:
        opened.append(Stack.of(parameters, dict(zip(parameters, args)) | kwargs))

    def leave(*_) -> None:
        opened.pop()

    with ExitStack() as hooks:
        for module in model.modules():
            parameters = list(signature(module.forward).parameters)
            if Stack.of(parameters, {}) is not None:
                hooks.callback(module.register_forward_pre_hook(partial(enter, parameters), with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        yield


# -------------------------------------------------------------------------------------------------------- calibration


@torch.no_grad()
def output_moments(
    model: nn.Module, names: Sequence[str], batches: Batches, of_inputs: Set[str] = frozenset()
) -> dict[str, Moments]:
    """Sums over what the named layers, linear ones or embeddings, give for `batches` of the model's keyword arguments.

    The model runs in eval mode. Padding does not count: see the top of this file. Of the layers `of_inputs` second
    moments are those of the inputs in any case.

    Raises:
        ValueError: there are no batches, or a layer has not been called.
    """
    found = {name: Moments(needs_inputs=name in of_inputs) for name in names}
    opened: list[Stack] = []
    batch = None

    def watch(moments: Moments, module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> None:
        x = next(iter((*args, *kwargs.values())))
        moments.see(None if isinstance(module, nn.Embedding) else x, y, opened[-1].tokens(x, y))

    with eval_mode(model), ExitStack() as hooks:
        hooks.enter_context(_stacks(model, opened))
        for name, moments in found.items():
            layer = model.get_submodule(name)
            hooks.callback(layer.register_forward_hook(partial(watch, moments), with_kwargs=True).remove)
        for batch in bar(as_batches(batches), desc="calibration", unit="batch"):
            batch = placed(batch, model)
            mask = batch.get("attention_mask")
            opened[:] = [Stack(getattr(mask, "shape", None), mask)]  # of a model that names its inputs otherwise
            model(**batch)
    silent = [name for name, moments in found.items() if not moments.count]
    if silent and batch is None:
        raise ValueError(EMPTY)
    if silent:
        raise ValueError(
            f"calibration needs batches that reach every layer; none has reached {', '.join(silent)}: give others, "
            "or, where a model reads that weight and calls no layer, leave it out of the plan"
        )
    return found


def as_batches(batches: Batches) -> Iterable[Mapping[str, Tensor]]:
    """The batches, or the only one."""
    return [batches] if isinstance(batches, Mapping) else batches


def all_batches(batches: Batches, model: nn.Module) -> list[dict[str, Tensor]]:
    """The batches at once, placed, for what reads them more than once; a ValueError where there are none."""
    found = [placed(batch, model) for batch in as_batches(batches)]
    if not found:
        raise ValueError(EMPTY)
    return found


def placed(batch: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A batch with its tensors on the device of the model, as loaders do not make it.

    Raises:
        ValueError: it does not say which argument of the model each tensor is.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(f"a batch must be a mapping of the model's keyword arguments, got a {type(batch).__name__}")
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and back in its own afterwards."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def nearest_outputs(layer: nn.Linear | nn.Embedding, rank: int, moments: Moments) -> nn.Linear | nn.Embedding:
    """The layer whose weight has rank `rank` and whose outputs are nearest.

    Nearest but for their mean where there is a bias to mend that: it stays as it is here.
    """
    linear = isinstance(layer, nn.Linear)
    weight = at_least_float32(layer.weight)  # (out, in) of a linear layer, (rows, out) of an embedding
    directions = moments.principal_directions(weight, rank, centred=linear and layer.bias is not None).to(weight)
    weight = directions @ (directions.T @ weight) if linear else weight @ directions @ directions.T
    nearest = copy.copy(layer)  # which shares the other tensors, and keeps its own settings
    nearest._parameters = {**layer._parameters, "weight": nn.Parameter(weight.to(layer.weight.dtype))}
    return nearest


@torch.no_grad()
def keep_mean_output_(layer: TTLinear, moments: Moments) -> None:
    """Set the layer's bias so that the mean of its outputs is as it was before it became a tensor train."""
    if layer.bias is not None:
        u, v = (side.cpu().double() for side in layer.sides())
        layer.bias.copy_(moments.outputs.mean - moments.inputs.mean @ u @ v)
