"""Better grids and codes for weights under `GroupRTN`, chosen on real inputs: `clip_`, `gptq_` and `learn_rounding_`.

Each takes a model that `compress_` has quantized and leaves one such: the same plan, the same bytes, other codes and
scales. They go one after another, from grids to codes: `clip_` first, then one of the others. What scales channels
comes before all of them, on the float model.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..inventory.stacks import one_stack
from ..quantizers.clipping import clipped_scales
from ..quantizers.gptq import compensated
from ..quantizers.learned_rounding import LearnedRounding
from ..quantizers.parametrizing import quantized
from ..quantizers.recipes import GroupRTN, WeightQuantizer
from ..tensors.shapes import whole_number
from .blocks import Block, Weight, blocks
from .calibration import Batches


@torch.no_grad()
def clip_(model: nn.Module, calibration: Batches | None = None) -> nn.Module:
    """Shrink the range of each group of weights under `GroupRTN` as far as that pays, in place, and return the model.

    With `calibration`, batches of the model's keyword arguments, what pays is told by the outputs on real inputs of
    each linear layer in the model's stack (`ttqlib.quantizers.clipping`); weights elsewhere keep their range. Without,
    by the squared error of the weights themselves, which may well do harm: see chapter 11.

    Raises:
        ValueError: no weight is under `GroupRTN`; with calibration also as `ttqlib.surgery.blocks.blocks`.
    """
    if calibration is None:
        found = [(one, latent) for module in model.modules() for _, one, latent in quantized(module) if _is_rtn(one)]
        if not found:
            raise ValueError("no weight of this model is under ttq.GroupRTN: compress it first")
        for quantizer, latent in found:
            scales = clipped_scales(quantizer.recipe, quantizer.layout.rows(latent))
            for name, value in scales.items():
                getattr(quantizer, name).copy_(value)
        return model
    for block in _rtn_blocks(model, calibration, "clip_"):
        seen = block.seen()
        for weight in block.weights():
            if weight.name in seen:
                weight.set_(clipped_scales(weight.quantizer.recipe, weight.rows, seen[weight.name].moments))
    return model


@torch.no_grad()
def gptq_(model: PreTrainedModel, calibration: Batches) -> PreTrainedModel:
    """Round every weight under `GroupRTN` in the model's stack knowing the errors of those before it, in place.

    The grids stay as they are, those of round-to-nearest or of `clip_`; the latent weights become what lies on them
    (`ttqlib.quantizers.gptq`). A block's inputs are those of the model whose blocks before it are done. Returns the
    model.

    Source: E. Frantar et al., "GPTQ", ICLR 2023 (arXiv 2210.17323).

    Raises:
        ValueError: no weight is under `GroupRTN`; else as `ttqlib.surgery.blocks.blocks`.
    """
    for block in _rtn_blocks(model, calibration, "gptq_"):
        seen = block.seen()
        for weight in block.weights():
            if weight.name in seen:
                quantizer, rows = weight.quantizer, weight.rows
                scales = quantizer.scales(weight.latent)
                weight.set_({}, compensated(quantizer.recipe, rows, scales, seen[weight.name].moments))
    return model


def learn_rounding_(
    model: PreTrainedModel, calibration: Batches, *, steps: int = 200, rate: float | None = None, seed: int = 0
) -> PreTrainedModel:
    """Train how weights under `GroupRTN` are rounded and clipped, block by block on what each answers, in place.

    A step takes one of the batches and moves every offset and every end of a range by the same amount, against the sign
    of its gradient: `rate` (1/steps where none is given), falling in a line to 0. So an offset can just get from 0
    to the half step that turns a rounding round. What is trained on is the answer of the float block in the float
    model, each token by its own size; what is given to the block is what the compressed blocks before it give. A block
    that has come no nearer on all batches stays as it was. The latent weights become what lies on the grids; returns
    the model.

    Source: W. Cheng et al., SignRound (arXiv 2309.05516). There tokens count by the square of their size.

    Raises:
        ValueError: `steps` that is no whole number of at least 1, a `rate` that is not positive; no weight is under
            `GroupRTN`; else as `ttqlib.surgery.blocks.blocks`.
    """
    steps, rate = whole_number("steps", steps), 1 / steps if rate is None else rate
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate!r}")
    generator = torch.Generator().manual_seed(seed)
    for block in _rtn_blocks(model, calibration, "learn_rounding_"):
        with _learners(block.weights()) as learners:
            before = _mean_error(block)
            for step in range(steps):
                number = int(torch.randint(len(block.inputs), (), generator=generator))
                _step_(block, number, learners.values(), rate * (1 - step / steps))
            better = _mean_error(block) < before
            found = {weight: _found(weight, learner) for weight, learner in learners.items() if better}
        for weight, (scales, rows) in found.items():
            weight.set_(scales, rows)
    return model


def _rtn_blocks(model: PreTrainedModel, calibration: Batches, desc: str) -> Iterator[Block]:
    """`blocks` of a model some of whose linear layers are under `GroupRTN`."""
    stack, _ = one_stack(model)
    if not any(Block("", module, (), (), ()).weights() for module in stack):
        raise ValueError(
            "no layer of this model's stack is under ttq.GroupRTN: compress it first, as by "
            "ttq.compress_(model, ttq.plan(model, quantize=ttq.GroupRTN(3, per=64, symmetric=False)))"
        )
    return blocks(model, calibration, desc)


@contextmanager
def _learners(weights: list[Weight]) -> Iterator[dict[Weight, LearnedRounding]]:
    """In this block rounding is learned where the quantizers of these weights stand."""
    lists = {weight: weight.layer.parametrizations["weight"] for weight in weights}
    learners = {weight: LearnedRounding(weight.quantizer, weight.latent) for weight in weights}
    try:
        for weight, learner in learners.items():
            lists[weight][0] = learner
        yield learners
    finally:
        for weight in weights:
            lists[weight][0] = weight.quantizer


@torch.enable_grad()
def _step_(block: Block, number: int, learners: Iterable[LearnedRounding], rate: float) -> None:
    """One step of signed gradient descent on one batch; only what the learners hold moves."""
    parameters = [parameter for learner in learners for parameter in learner.parameters()]
    gradients = torch.autograd.grad(block.error(number), parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients):
            if gradient is not None:  # as that of an expert that no token of the batch has chosen
                parameter.sub_(gradient.sign(), alpha=rate)
        for learner in learners:
            learner.keep_inside_()


@torch.no_grad()
def _mean_error(block: Block) -> float:
    return sum(block.error(number).item() for number in range(len(block.inputs))) / len(block.inputs)


@torch.no_grad()
def _found(weight: Weight, learner: LearnedRounding) -> tuple[dict[str, Tensor], Tensor]:
    """The scales that were learned, and the weight on their grid as the matrix (outputs, inputs)."""
    return learner.learned(), learner.layout.rows(learner(weight.latent))


def _is_rtn(quantizer: nn.Module) -> bool:
    return isinstance(quantizer, WeightQuantizer) and isinstance(quantizer.recipe, GroupRTN)
