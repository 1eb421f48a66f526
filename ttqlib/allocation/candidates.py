"""What each layer of a model could be: candidates, with their bytes and with what the model's answers would lose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from ..inventory.kinds import is_embedding, layers
from ..plans.configs import LayerPlan, TTQConfig
from ..progress import bar
from ..quantizers.recipes import LSQ
from ..storage.rebuild import as_meta
from ..surgery.calibration import Batches, Moments, all_batches, output_moments
from .choices import (
    BITS,
    FLOAT,
    KINDS,
    check_choice,
    check_weights,
    core_recipes,
    dense_recipes,
    places_of,
    plans_of,
    ranks_of,
)
from .gauss_newton import OwnUse, TableUse, Use, uses
from .sizes import Weigher, folder_bytes
from .versions import LinearVersions, OwnVersions, TableVersions, Version


@dataclass(frozen=True)
class Candidate:
    """What one layer could get.

    `bytes` of the folder on disk; `loss`, what the answers lose by it alone, in nats of KL, of which `truncation` is
    lost without the quantizers; `numbers` that train; `flops` of a forward pass.
    """

    plan: LayerPlan
    loss: float
    truncation: float
    bytes: int
    numbers: int
    flops: int

    def at(self, quantization: float) -> float:
        """The loss where only a part of what quantizers lose is left."""
        return self.truncation + quantization * (self.loss - self.truncation)


@dataclass(frozen=True)
class Candidates:
    """The candidates of every layer by its name, and `fixed`: the bytes of all that no layer's plan changes.

    `weigher` weighs other plans; `left_over` says, for each layer that may get a low rank, what rank 0, 1, … leaves out
    of its outputs: Σ‖…‖² over the calibration rows.
    """

    layers: Mapping[str, tuple[Candidate, ...]]
    fixed: int
    weigher: Weigher
    left_over: Mapping[str, Tensor]

    def config(self, plans: Mapping[str, LayerPlan]) -> TTQConfig:
        """The plan that gives layers these; what it does not name belongs to the rest."""
        unmatched = tuple(name for name in layers(self.weigher.skeleton) if name not in plans)
        return TTQConfig(dict(plans), self.weigher.rest, unmatched)

    def weigh(self, config: TTQConfig) -> int:
        """The bytes of the folder that `save` would write."""
        return folder_bytes(self.weigher.skeleton, config)

    def loss(self, config: TTQConfig, quantization: float = 1.0) -> float:
        """What a plan is predicted to lose: the sum over its layers; between ranks that were measured it is guessed.

        Layers that it leaves to a rest of 8 bits lose what dense 8 bits do. What activations lose is not counted.

        Raises:
            ValueError: a layer gets what is like no candidate: another format, or bits that were not measured.
        """
        rest = LayerPlan(quantize=LSQ(8, per="channel") if self.weigher.rest == 8 else "float")
        return sum(
            _loss(name, some, config.layers.get(name, rest), rest, quantization) for name, some in self.layers.items()
        )

    @cached_property
    def range(self) -> tuple[int, int]:
        """The bytes of the smallest plan, and of the dense float model."""
        least = {name: min(some, key=lambda one: one.bytes).plan for name, some in self.layers.items()}
        return self.weigh(self.config(least)), self.weigh(self.config(dict.fromkeys(self.layers, FLOAT)))


def _loss(name: str, measured: Sequence[Candidate], plan: LayerPlan, rest: LayerPlan, quantization: float) -> float:
    """What one layer loses by a plan, between ranks on a straight line in logarithms of both."""
    if plan.format is None and plan.quantize in (None, "rest"):
        plan = rest
    plan = LayerPlan(plan.format, plan.quantize or "float")  # whatever rounds its inputs
    known = {one.plan: one.at(quantization) for one in measured}
    if plan in known:
        return known[plan]
    like = sorted((one.format.rank, loss) for one, loss in known.items() if _alike(one, plan))
    if not like:
        raise ValueError(f"{name}: no candidate of this kind was measured, by kinds, bits and ranks: {plan}")
    ranks, losses = zip(*like)
    return float(np.exp(np.interp(np.log(plan.format.rank), np.log(ranks), np.log(np.maximum(losses, 1e-30)))))


def _alike(one: LayerPlan, other: LayerPlan) -> bool:
    """Whether two plans have one format and differ in the rank at most."""
    rank = getattr(other.format, "rank", None)
    return None not in (one.format, rank) and replace(one, format=replace(one.format, rank=rank)) == other


def measure_candidates(
    model: nn.Module,
    calibration: Batches,
    *,
    kinds: Sequence[str] = KINDS,
    bits: Sequence[int] = BITS,
    ranks: Sequence[int] | None = None,
    rest: int = 8,
    rotated: bool = False,
    tokens: int = 128,
    seed: int = 0,
) -> Candidates:
    """What every linear layer, table and group of experts could be, and what each candidate costs and loses.

    Losses are those that `compress_(model, plan, calibration=calibration)` would bring before any training, to second
    order and of each layer alone (`gauss_newton`).

    Args:
        calibration: batches of inputs as the model takes them, a few hundred sentences; needs no labels.
        kinds: among "dense", "low rank" (one core a side) and "train" (three cores a side, three for a table).
        bits: of dense weights and of cores; 1 only of dense ones. A dense float weight is always a candidate.
        ranks: of low ranks and of trains, as far as they save; by default about two to an octave, one of trains.
        rest: bits of all other parameters, as in `plan`.
        rotated: whether cores are turned before they are quantized, as by `rotate_`.
        tokens: of the forward pass whose FLOPs are counted.

    Raises:
        ValueError: no kind or bit width, an unknown one, no batch, a model without layers, weights that are not finite.
    """
    check_choice(model, kinds, bits)
    check_weights(model)
    batches = all_batches(calibration, model)
    return _measured(model, batches, kinds, bits, ranks, rotated, Weigher(as_meta(model), rest, tokens), seed)


def _measured(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    kinds: Sequence[str],
    bits: Sequence[int],
    ranks: Sequence[int] | None,
    rotated: bool,
    weigher: Weigher,
    seed: int,
) -> Candidates:
    places, made, left_over = places_of(model), {}, {}
    felt = uses(model, {name: model.get_submodule(name) for name in layers(model)}, batches, seed)
    formats = {name: {} if isinstance(felt[name], OwnUse) else ranks_of(model, name, kinds, ranks) for name in places}
    moments = output_moments(model, [name for name, some in formats.items() if some], batches)
    for name in bar(places, desc="candidates", unit="layer"):
        some = [felt[place] for place in places[name]]
        weight = _weight(model.get_submodule(name), some, moments.get(name), formats[name], rotated)
        plans = list(plans_of(weight.layer, formats[name], kinds, bits))
        losses = weight.losses(kinds, bits)
        made[name] = tuple(
            Candidate(plan, loss, truncation, *weigher.weigh(name, plan))
            for plan, (truncation, loss) in zip(plans, losses, strict=True)
        )
        if name in moments:
            left_over[name] = _left_over(weight.versions, moments[name])
    return Candidates(made, weigher.fixed(places), weigher, left_over)


# --------------------------------------------------------------------------------------------- the losses of a weight


@dataclass
class _Weight:
    """A weight in all of its places: how each feels an error, and what candidates make of it."""

    layer: nn.Module
    uses: list[Use]
    versions: LinearVersions | TableVersions | OwnVersions
    formats: dict[str, list[int]]
    before: list[tuple[Tensor, ...]] = field(default_factory=list)

    @torch.no_grad()
    def losses(self, kinds: Sequence[str], bits: Sequence[int]) -> Iterator[tuple[float, float]]:
        """For each of `plans_of`: what it loses without quantizers, and with them."""
        self.before = [use.felt(self.versions.original.factors) for use in self.uses]
        yield 0.0, 0.0
        for recipe in dense_recipes(kinds, bits):
            yield 0.0, self.lost(self.versions.dense(recipe))
        for kind, ranks in self.formats.items():
            make = self.versions.low_rank if kind == "low rank" else self.versions.train
            for rank in ranks:
                truncation, *losses = map(self.lost, make(rank, [None, *core_recipes(bits)]))
                yield from ((truncation, loss) for loss in losses)

    def lost(self, version: Version) -> float:
        """½ Σ‖felt now − felt before‖² over the places of the weight."""
        after = [use.felt(version.factors, version.shift) for use in self.uses]
        pairs = (pair for new, old in zip(after, self.before) for pair in zip(new, old, strict=True))
        return sum(0.5 * float((new - old).square().sum()) for new, old in pairs)


def _weight(
    layer: nn.Module, felt: Sequence[Use], moments: Moments | None, formats: dict[str, list[int]], rotated: bool
) -> _Weight:
    called = [use for use in felt if not isinstance(use, OwnUse)]
    largest = max((rank for ranks in formats.values() for rank in ranks), default=0)
    if not called:
        return _Weight(layer, list(felt[:1]), OwnVersions(layer, list(felt[0].squares)), formats)
    if not is_embedding(layer):
        return _Weight(layer, called, LinearVersions(layer, moments, largest, rotated), formats)
    for use in called:
        if isinstance(use, TableUse):
            use.whole = len(called) > 1
    ids = called[0].ids if len(called) == 1 else None
    return _Weight(layer, called, TableVersions(layer, moments, largest, rotated, ids), formats)


def _left_over(versions: LinearVersions | TableVersions, moments: Moments) -> Tensor:
    """Σ‖what is left out‖² of a layer's outputs on the calibration rows, by rank from 0 on."""
    directions = versions.low.directions.double()
    if moments.of_inputs:
        weight = versions.weight.double()
        squares = moments.inputs.second_moment(versions.linear.bias is not None)
        total, kept = ((weight.T @ weight) * squares).sum(), (directions.T @ weight, squares)
    else:
        squares = moments.outputs.second_moment(
            isinstance(versions, LinearVersions) and versions.linear.bias is not None
        )
        total, kept = squares.trace(), (directions.T, squares)
    side, squares = kept
    energies = ((side @ squares) * side).sum(1)
    return moments.count * (total - torch.cat([energies.new_zeros(1), energies.cumsum(0)])).clamp_min(0)
