"""`plan`: the plan of a whole model, in one line or by rules. It looks at the shapes of the layers, at no weight.

Layers are found by what they compute: `nn.Linear` and transformers' `Conv1D`, `nn.Embedding`, the experts of mixtures,
and their subclasses that do the same. So any Hugging Face model will do.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ..inventory.kinds import heads, is_embedding, is_experts, is_linear, layers, linear_sizes, word_embeddings
from ..inventory.ties import tied
from ..quantizers.activations import ActivationRecipe
from ..quantizers.mean_scales import Binary
from ..quantizers.recipes import LSQ, WeightRecipe
from ..tensors.shapes import factorize, tt_parameters
from .configs import TT, TTM, LayerPlan, Shared, TTQConfig, as_layer_plan


def plan(
    model: nn.Module,
    rank: int | None = None,
    bits: int = 32,
    rest: int = 32,
    *,
    rules: Mapping[str, object] | None = None,
    quantize: WeightRecipe | None = None,
    activations: ActivationRecipe | None = None,
) -> TTQConfig:
    """The plan of a whole model, in one line or by rules.

    `plan(model, rank=30, bits=4, rest=8)` gives every linear layer `TT(30)` and the word embeddings `TTM(30)`, their
    cores `LSQ(4)` (`Binary` at 1 bit, nothing at 32), and all other parameters 8 bits. Without a rank the same layers
    stay dense and are quantized per channel; so are the experts of a mixture in any case, which have no format. Heads
    stay in the rest, unless they are the words' own table, and so does every layer that would not get smaller.

    `rules` maps regular expressions, searched in layer names, to what the layers get: a `TT`, a `Shared`, a `TTM`, a
    quantizer or "float" or "rest" (then the weight stays dense), a whole `LayerPlan`, or None: the layer is left alone,
    as part of the rest. The first match wins. `quantize` and `activations` fill in what a rule leaves open, as
    `LayerPlan` says.

    Raises:
        ValueError: nothing in the model to compress; a rank, bit width or `rest` that is not allowed; both a rank and
            rules; a rule that matches no layer, or gives a layer a format of the wrong kind.

    >>> model = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU(), torch.nn.Linear(768, 2))
    >>> config = ttq.plan(model, rank=30, bits=4, rest=8)
    >>> {name: layer.format for name, layer in config.layers.items()}
    {'0': TT(rank=30, in_modes=None, out_modes=None)}
    """
    default = _default(rank, bits, rules, LayerPlan(None, quantize, activations))
    found, partners = _inside(model), _partners(model)
    if rules is not None:
        chosen = _by_rules(found, rules)
    else:
        chosen = _uniform(model, found, partners, rank, experts=quantize or recipe_for(bits, "channel"))
    plans = {name: _filled(choice, default, found[name]) for name, choice in chosen.items() if choice is not None}
    left = (name for name in found if name not in chosen and partners[name].isdisjoint(plans))
    return TTQConfig(plans, rest, tuple(left))


def _inside(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model by name, of which a layer alone has none."""
    found = layers(model)
    if "" in found:
        raise ValueError(f"a plan is for layers inside a model, got a lone {type(model).__name__}: put it into one")
    return found


def _default(rank: int | None, bits: int, rules: Mapping[str, object] | None, given: LayerPlan) -> LayerPlan:
    """What all layers get for which nothing else is said: `given`, or the quantizer that `bits` stand for.

    Raises:
        ValueError: arguments of `plan` that exclude each other, or ask for nothing.
    """
    if rules is not None and (rank is not None or bits != 32):
        raise ValueError("give either rank and bits, or rules; a rule says ttq.TT(rank=…), quantize=ttq.LSQ(bits=…)")
    if given.quantize is not None and bits != 32:
        raise ValueError(f"give either bits or quantize, got bits={bits!r} and quantize={given.quantize!r}")
    default = replace(given, quantize=given.quantize or recipe_for(bits, "tensor" if rank else "channel"))
    if rules is None and rank is None and default == LayerPlan():
        raise ValueError("give a rank, bits below 32, or rules; the plan of a rest alone is ttq.TTQConfig(rest=8)")
    return default


def _uniform(
    model: nn.Module,
    found: Mapping[str, nn.Module],
    partners: Mapping[str, set[str]],
    rank: int | None,
    experts: WeightRecipe | None,
) -> dict[str, LayerPlan]:
    """Linear layers outside heads, and the words, as far as cores of this rank are smaller; experts where quantized.

    Raises:
        ValueError: there are none.
    """
    words, answers, chosen = word_embeddings(model), heads(model), {}
    for name, module in found.items():
        if is_experts(module):
            if experts is not None:
                chosen[name] = LayerPlan(quantize=experts)
            continue
        wanted = module not in answers if is_linear(module) else module in words
        if not wanted or not partners[name].isdisjoint(chosen):
            continue
        if rank is None:
            chosen[name] = LayerPlan()
        elif partners[name] and is_linear(module):  # one train cannot stand in two linear layers
            continue
        elif _shrinks(module, form := TT(rank) if is_linear(module) else TTM(rank)):
            chosen[name] = LayerPlan(form)
    if not chosen:
        problem = "has no layers to compress" if rank is None else f"has nothing that gets smaller at rank {rank}"
        raise ValueError(f"{type(model).__name__} {problem}")
    return chosen


def _partners(model: nn.Module) -> dict[str, set[str]]:
    """For every layer the names of the others that have the same weight."""
    partners: dict[str, set[str]] = defaultdict(set)
    for places in tied(model):
        names = {name for name, own in places if own == "weight"}
        for name in names:
            partners[name] |= names - {name}
    return partners


def _by_rules(layers: Mapping[str, nn.Module], rules: Mapping[str, object]) -> dict[str, LayerPlan | None]:
    chosen, used = {}, set()
    for name, module in layers.items():
        pattern = next((pattern for pattern in rules if re.search(pattern, name)), None)
        if pattern is not None:
            used.add(pattern)
            chosen[name] = _choice(f"rule {pattern!r}", rules[pattern], name, module)
    if idle := [pattern for pattern in rules if pattern not in used]:
        raise ValueError(
            f"no layer that is left for it matches the rule {idle[0]!r}; the layers are {', '.join(layers) or 'none'}"
        )
    return chosen


def _choice(rule: str, given, name: str, module: nn.Module) -> LayerPlan | None:
    """What a rule gives to a layer that it matches, whose kind must be the one that a format is for."""
    choice = None if given is None else as_layer_plan(rule, given)
    form = None if choice is None else choice.format
    linear = (is_linear, "a linear layer")
    for kind, fits, layer in ((TT, *linear), (Shared, *linear), (TTM, is_embedding, "an embedding")):
        if isinstance(form, kind) and not fits(module):
            raise ValueError(
                f"{rule} gives {kind.__name__} to {name}, which is no {layer.split()[-1]}: "
                f"{kind.__name__} is for {layer}, put a narrower rule before it"
            )
    return choice


def _filled(choice: LayerPlan, default: LayerPlan, module: nn.Module) -> LayerPlan:
    takes = is_linear(module) and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    activations = choice.activations or (default.activations if takes else None)  # ids have none
    return LayerPlan(choice.format, choice.quantize or default.quantize, activations)


def recipe_for(bits: int, per: str) -> WeightRecipe | None:
    """The quantizer of a bit width, with a scale per "tensor", as for cores, which are small, or per "channel".

    None for 32 bits, which are float.

    Raises:
        ValueError: another number of bits than 1 … 8 or 32.
    """
    if bits == 32 and not isinstance(bits, bool):
        return None
    if isinstance(bits, bool | float) or bits not in range(1, 9):  # a NumPy number is in a range too
        raise ValueError(f"bits must be one of 1 … 8 or 32, got {bits!r}")
    return Binary(per=per) if bits == 1 else LSQ(bits, per=per)


def _shrinks(module: nn.Module, form: TT | TTM) -> bool:
    """Whether a weight has more entries than its cores would have, in balanced modes."""
    if isinstance(form, TT):
        inputs, outputs = map(factorize, linear_sizes(module))
        modes = inputs + outputs[::-1]
    else:
        rows, columns = map(factorize, module.weight.shape)
        modes = [v * h for v, h in zip(rows, columns[::-1])]
    return tt_parameters(modes, form.rank) < module.weight.numel()
