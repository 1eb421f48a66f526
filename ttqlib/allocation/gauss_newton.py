"""What the loss feels of an error in a layer: second derivatives of the model's answers, from one way back a batch.

Let a layer give y = W x, and let ΔW be what a candidate changes. To second order in it the answers of the model move by

    KL ≈ ½ Σ (gᵀ ΔW x)²,

summed over the rows x that the layer is given. Here g is the gradient at y of random signs, multiplied by a root of
the Hessian of KL in the logits; so the mean of g gᵀ is what a Gauss–Newton matrix of KL leaves of that Hessian at y. As
in K-FAC (Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015) the
sum is taken apart into two factors,

    KL ≈ ½ tr(G ΔW A ΔWᵀ),   G = Σ g gᵀ,   A = Σ |g|² x xᵀ / Σ |g|²:

a candidate costs products of matrices and no forward pass. Rows that the answers do not depend on, as padding, have no
gradient and count for nothing in either. One part of an error is the same in all rows, that of the mean input x̄. The
rows of a sentence do not bear it independently: attention does not see what all keys have in common, a sum of words
sees it many times. So A is taken about x̄, and the mean error is weighed by Σ (Σ g)(Σ g)ᵀ, summed over a sentence first.

G and A themselves are never made. With random signs s, of which each of `PROBES` rows has its own, P = s g and
Q = s |g| x are a few hundred rows with PᵀP ≈ G and QᵀQ ≈ A, up to a factor, and tr(G ΔW A ΔWᵀ) ≈ ‖P ΔW Qᵀ‖².
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from ..inventory.kinds import expert_weights, is_embedding, row_scale
from ..progress import bar
from ..quantizers.fake_quantization import widen
from ..surgery.calibration import eval_mode, placed

PROBES = 256  # rows of a sketch: its traces are off by a few percent, and alike for all candidates of a layer


class Signs:
    """Random signs for sums over rows, drawn from a seed; within a batch equally many rows get the same signs."""

    def __init__(self, seed: int):
        self.generator, self.drawn = torch.Generator().manual_seed(seed), {}

    def like(self, tensor: Tensor) -> Tensor:
        """±1 in the shape of `tensor`, never the same."""
        return self._draw(*tensor.shape).to(tensor)

    def sketch(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Two independent (PROBES, rows), ± 1/√PROBES, where `like` is."""
        if rows not in self.drawn:
            self.drawn[rows] = tuple((self._draw(PROBES, rows) * PROBES**-0.5).to(like) for _ in range(2))
        return self.drawn[rows]

    def _draw(self, *shape: int) -> Tensor:
        return torch.randint(0, 2, shape, generator=self.generator, dtype=torch.int8).float() * 2 - 1


# ------------------------------------------------------------------------------------------------- uses of a weight


@dataclass
class LinearUse:
    """A weight (out, in) that multiplies inputs: sums over rows, as they come."""

    gradients: Tensor | float = 0.0  # P, (PROBES, out)
    sums: Tensor | float = 0.0  # the same of gradients that are summed over each sentence
    inputs: Tensor | float = 0.0  # Q, (PROBES, in), not centred
    ones: Tensor | float = 0.0  # what Q would be of inputs that are 1, (PROBES, 1)
    total: Tensor | float = 0.0  # Σ |g|² x, (in)
    power: float = 0.0  # Σ |g|²

    def add(self, x: Tensor, g: Tensor, sentences: int, signs: Signs) -> None:
        """Rows x (N, in) and the gradients at what the layer made of them, g (N, out), sentence by sentence."""
        one, other = signs.sketch(len(x), g)
        self.sums = self.sums + signs.sketch(sentences, g)[0] @ g.unflatten(0, (sentences, -1)).sum(1)
        size = torch.linalg.vector_norm(g, dim=1, keepdim=True)  # |g|, (N, 1)
        self.gradients = self.gradients + one @ g
        self.inputs = self.inputs + other @ (size * x)
        self.ones = self.ones + other @ size
        self.total = self.total + (size.square() * x).sum(0)
        self.power += float(size.square().sum())

    @property
    def mean(self) -> Tensor:
        """The mean input, weighted as A is, (in)."""
        return self.total / max(self.power, 1e-30)

    def felt(self, factors: Sequence[Tensor], shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the loss feels of a weight that is the product of `factors`, and of `shift`, which a bias gains.

        P W Qᵀ, (PROBES, PROBES), Q of the inputs without their mean, and what the sums feel of the mean, (PROBES).
        """
        left = _product(self.gradients, factors)  # (PROBES, in)
        mean = _product(self.sums, factors) @ self.mean
        centred = (self.inputs - self.ones * self.mean) * max(self.power, 1e-30) ** -0.5
        return left @ centred.T, mean if shift is None else mean + self.sums @ shift


@dataclass
class TableUse:
    """A table (rows, width) that is looked up: A is diagonal then, the share of each id."""

    gradients: Tensor | float = 0.0  # P, (PROBES, width)
    sums: Tensor | float = 0.0  # the same of gradients that are summed over each sentence
    powers: dict[int, float] = field(default_factory=dict)  # Σ |g|² by id
    scale: float = 1.0  # what rows are multiplied by
    whole: bool = False  # whether `felt` is given all rows of the table, or those of `ids` only

    def add(self, ids: Tensor, g: Tensor, sentences: int, signs: Signs) -> None:
        """Ids (N) and the gradients at their rows, g (N, width), sentence by sentence."""
        summed = g.unflatten(0, (sentences, -1)).sum(1)
        self.gradients = self.gradients + signs.sketch(len(ids), g)[0] @ g * self.scale
        self.sums = self.sums + signs.sketch(sentences, g)[0] @ summed * self.scale
        distinct, inverse = ids.unique(return_inverse=True)
        powers = g.new_zeros(len(distinct)).index_add_(0, inverse, g.square().sum(1))
        for number, power in zip(distinct.tolist(), powers.tolist()):
            self.powers[number] = self.powers.get(number, 0.0) + power

    @property
    def ids(self) -> Tensor:
        """Those that were looked up, (ids)."""
        return torch.tensor(sorted(self.powers), device=getattr(self.gradients, "device", None))

    def felt(self, factors: Sequence[Tensor], shift: None = None) -> tuple[Tensor, Tensor]:
        """√A (E − ē) Pᵀ, (ids, PROBES), of the rows E of those ids, the product of `factors`, and S ē, (PROBES)."""
        first, *others = factors
        first = first[self.ids] if self.whole else first  # (ids, …)
        powers = torch.tensor([self.powers[number] for number in sorted(self.powers)]).to(first)
        shares = (powers / powers.sum().clamp_min(1e-30))[:, None]
        mean = (shares * first).sum(0)
        apart = _product(shares.sqrt() * (first - mean), [*others, self.gradients.T])
        return apart, _product(mean, [*others, self.sums.T])


@dataclass
class OwnUse:
    """Weights that their module reads by itself, as experts are: the squares of the gradients at their numbers."""

    squares: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, weight: nn.Parameter) -> None:
        """The gradient that one batch has left on a weight, which is taken from it."""
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        self.squares[name] = self.squares.get(name, 0.0) + widen(gradient).square()
        weight.grad = None

    def felt(self, factors: Sequence[Tensor], shift: None = None) -> tuple[Tensor, ...]:
        """The weights, each of their numbers times what it counts."""
        return tuple(weight * self.squares[name] ** 0.5 for name, weight in zip(self.squares, factors, strict=True))


Use = LinearUse | TableUse | OwnUse


def _product(left: Tensor, factors: Sequence[Tensor]) -> Tensor:
    for factor in factors:
        left = left @ factor
    return left


# ---------------------------------------------------------------------------------------------------- the way back


def uses(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Mapping[str, Tensor]], seed: int = 0
) -> dict[str, Use]:
    """How the answers of `model` to `batches` feel errors in these layers, by name.

    Layers that are never called, and experts, have an `OwnUse`.
    """
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    signs, found = Signs(seed), {}
    called = {name: layer for name, layer in layers.items() if name in _called(model, layers, batches[0])}
    read = {name: layer for name, layer in layers.items() if name not in called}
    found |= {name: OwnUse() for name in read}
    found |= {
        name: TableUse(scale=row_scale(layer)) if is_embedding(layer) else LinearUse() for name, layer in called.items()
    }
    own = [(name, weight, layer.get_parameter(weight)) for name, layer in read.items() for weight in own_weights(layer)]
    with eval_mode(model), _only_these_train(model, [parameter for *_, parameter in own]), torch.enable_grad():
        for batch, size in zip(bar(batches, desc="sensitivity", unit="batch"), sizes):
            signs.drawn.clear()
            with _watching(called, found, signs):
                roots = _roots(model, placed(batch, model), signs, (size / sum(sizes)) ** 0.5)
                torch.autograd.backward([torch.sum(root) for root in roots])
            for name, weight, parameter in own:
                found[name].add(weight, parameter)
    return {name: found[name] for name in layers}


def own_weights(layer: nn.Module) -> list[str]:
    """The names of the weights of experts, or that of any other layer."""
    return list(expert_weights(layer)) or ["weight"]


def _called(model: nn.Module, layers: Mapping[str, nn.Module], batch: Mapping[str, Tensor]) -> set[str]:
    """The layers that one batch reaches by a call; experts are no single layer, and never among them."""
    seen: set[str] = set()
    with ExitStack() as hooks, eval_mode(model), torch.no_grad():
        for name, layer in layers.items():
            if not any(True for _ in expert_weights(layer)):
                hook = layer.register_forward_hook(lambda *_, name=name: seen.add(name))
                hooks.callback(hook.remove)
        model(**placed(batch, model))
    return seen


@contextmanager
def _only_these_train(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients of parameters take half of a way back, and only these are asked for. Their own are kept aside."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    wanted = {id(parameter) for parameter in trained}
    for parameter, _, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, trains, gradient in before:
            parameter.requires_grad_(trains)
            parameter.grad = gradient


@contextmanager
def _watching(layers: Mapping[str, nn.Module], found: Mapping[str, Use], signs: Signs) -> Iterator[None]:
    """In this block the gradient at what a layer gives is added to its use, beside what it was given."""

    def watch(use: Use, module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
        x = next(iter((*args, *kwargs.values()))).detach()
        if not y.requires_grad:  # before the first layer nothing asks for gradients
            y = y.detach().requires_grad_().clone()
        y.register_hook(partial(_add, use, x, signs))
        return y

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(partial(watch, found[name]), with_kwargs=True).remove)
        yield


def _add(use: Use, x: Tensor, signs: Signs, gradient: Tensor) -> None:
    g = widen(gradient.detach()).reshape(-1, gradient.shape[-1])
    sentences = len(gradient) if gradient.ndim > 2 else len(g)
    use.add(x.reshape(-1) if isinstance(use, TableUse) else widen(x).reshape(-1, x.shape[-1]), g, sentences, signs)


# ------------------------------------------------------------------------------------------------ what is answered


def _roots(model: nn.Module, batch: Mapping[str, Tensor], signs: Signs, scale: float) -> list[Tensor]:
    """What to go back from: logits times random signs times a root of the Hessian of KL, for each output.

    KL is the mean over sentences, or over real tokens, and the sum over the outputs whose names speak of logits. A
    model that gives none, as one that gives a tensor or a tuple, is measured by mean squares of whatever it gives.
    """
    output = model(**batch)
    if not isinstance(output, Mapping):
        output = dict(enumerate(output)) if isinstance(output, tuple | list) else {"": output}
        output = {str(name): value for name, value in output.items()}
    tensors = {name: value for name, value in output.items() if isinstance(value, Tensor) and value.requires_grad}
    logits = {name: value for name, value in tensors.items() if "logits" in name}
    mask, problem = batch.get("attention_mask"), getattr(getattr(model, "config", None), "problem_type", None)
    answers = [(_real(value, mask), problem) for value in logits.values()]
    if not logits:
        answers = [(value, "regression") for name, value in tensors.items() if name != "loss" and value.ndim]
    return [scale * _root(widen(rows), kind, signs) for rows, kind in answers]


def _real(logits: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of logits that count, (rows, classes): sentences, real tokens, or places of a sentence."""
    if mask is not None and logits.ndim == 3 and mask.shape == logits.shape[:2]:
        return logits[mask.bool()]
    if mask is not None and mask.shape == logits.shape and logits.shape[1] > 1:  # which place an answer starts at
        return logits.masked_fill(mask == 0, torch.finfo(logits.dtype).min)
    return logits.reshape(-1, logits.shape[-1])


def _root(logits: Tensor, problem: str | None, signs: Signs) -> Tensor:
    z = signs.like(logits)
    if problem == "regression" or logits.shape[-1] == 1:
        return logits * z * (2 / logits.numel()) ** 0.5
    if problem == "multi_label_classification":
        p = logits.detach().sigmoid()
        return logits * z * (p * (1 - p) / logits.numel()) ** 0.5
    p = logits.detach().softmax(-1)
    root = p.sqrt() * z  # diag(p) − p pᵀ is the mean of u uᵀ for u = √p z − p (√p · z)
    return logits * (root - p * root.sum(-1, keepdim=True)) * len(logits) ** -0.5
