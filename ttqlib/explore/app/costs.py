"""What a plan costs, to the byte and within milliseconds: each layer is weighed once for each thing that it can get."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn
from transformers import PreTrainedModel

from ...inventory.kinds import expert_weights, is_experts, is_linear, linear_sizes
from ...inventory.ties import tied
from ...layers.linear import TTLinear
from ...measures.costs import count_parameters
from ...measures.report import report
from ...measures.roofline import Machine, layer_work
from ...plans.configs import LayerPlan, TTQConfig
from ...storage.checkpoint import description
from ...storage.files import ANY_DIGEST, DIGEST, Spec, module_bytes
from ...storage.registration import PlanConfig
from ...storage.stored import VERSION, expected
from ...surgery.compress import compress_
from .layers import Layers

TOKENS = 128  # of the sentence whose FLOPs and time are counted
TRAINED = 16  # bytes for each float32 parameter that AdamW trains: itself, its gradient, two averages
METADATA = {DIGEST: ANY_DIGEST, "format": "pt"}


@dataclass(frozen=True)
class Part:
    """What one layer, or several whose weight is one, takes: its tensors in a file, FLOPs, traffic, parameters."""

    specs: Mapping[str, Spec]  # by the place of the layer among those weighed together: "0.codes"
    flops: int
    products: tuple[tuple[int, int, int | None], ...]  # (inputs, outputs, rank) of each linear layer
    parameters: int


@dataclass(frozen=True)
class Cost:
    """What a model takes under a plan. `parts` has bytes by group, then "rest" and "files"; they sum to the folder."""

    parts: Mapping[str, int]
    layers: Mapping[str, int] = field(repr=False)  # bytes by the name of each layer that a plan can name
    flops: int
    products: tuple[tuple[int, int, int | None], ...] = field(repr=False)
    parameters: int

    @property
    def stored_bytes(self) -> int:
        """The folder that `save` writes: weights, config.json and, of language models, generation_config.json."""
        return sum(self.parts.values())

    @property
    def training_bytes(self) -> int:
        """What AdamW keeps from step to step: parameters, gradients, two averages. Activations come on top."""
        return TRAINED * self.parameters

    def seconds(self, machine: Machine) -> float:
        """What the matrix products of 128 tokens take at best, by the roofline of a machine."""
        return sum(machine.seconds(layer_work(n, m, TOKENS, rank)) for n, m, rank in self.products)


class Weigher:
    """Weighs plans of one model, which lies on the meta device and stays as it is.

    Equal to what `report` and a written folder say, and tested against both; a hundred times faster, because a plan
    that changes one layer changes one part.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.layers = model, Layers(model)
        self._parts: dict[tuple, Part] = {}
        self._rests: dict[int, tuple[dict[str, Spec], dict[str, int]]] = {}
        self._costs: dict[str, Cost] = {}
        shared = (places[1:] for places in tied(model))
        self._without_bias = {name for places in shared for name, own in places if own == "bias"}
        self._flops = {row.layer: row.flops for row in report(model, TOKENS).rows}
        self._empty = len(description(model, _saved(TTQConfig())).to_json_string().encode())
        self._empty -= _plan_length(TTQConfig())
        if model.can_generate():
            self._empty += len(model.generation_config.to_json_string().encode())

    def cost(self, config: TTQConfig) -> Cost:
        """What the model takes under a plan, which names the layers of `Layers.all`.

        Raises:
            ValueError: as `compress_`.
        """
        key = json.dumps(config.to_dict(), sort_keys=True)
        if key not in self._costs:
            self._costs[key] = self._weighed(config)
        return self._costs[key]

    def _weighed(self, config: TTQConfig) -> Cost:
        specs, owners = self._rest(config.rest)
        planned = [name for name in self.layers.all if name in config.layers]
        gone = {place for name in planned for place in self._together(name)}
        specs = {name: spec for name, spec in specs.items() if name.rpartition(".")[0] not in gone}
        parameters = sum(count for name, count in owners.items() if name not in gone)
        flops = sum(count for name, count in self._flops.items() if name not in gone)
        products = [self._product(name, m) for name, m in self.layers.everything.items() if name not in gone]
        for name in planned:
            places, part = self._together(name), self._part(name, config.layers[name], config.rest)
            for own, spec in part.specs.items():
                place, _, rest = own.partition(".")
                specs[f"{places[int(place)]}.{rest}"] = spec
            flops, parameters = flops + part.flops * self._runs(name), parameters + part.parameters
            products += part.products * self._runs(name)
        specs |= self._guard(config, specs)
        sizes = module_bytes(specs, METADATA)
        return self._sorted(sizes, config, flops, tuple(filter(None, products)), parameters)

    def _sorted(
        self, sizes: Mapping[str, int], config: TTQConfig, flops: int, products: tuple, parameters: int
    ) -> Cost:
        """Bytes of modules as bytes of groups."""
        places = {place: name for name in self.layers.all for place in self._together(name)}
        own = dict.fromkeys(self.layers.all, 0)
        parts = dict.fromkeys((*self.layers.groups, "rest", "files"), 0)
        groups = {name: group for group, names in self.layers.groups.items() for name in names}
        for module, size in sizes.items():
            layer = places.get(module) or places.get(module.rpartition(".")[0])  # its own quantizer of inputs
            if layer is not None:
                own[layer] += size
            parts["files" if module == "header" else groups.get(layer, "rest")] += size
        parts["files"] += self._empty + _plan_length(config)
        return Cost(parts, own, flops, products, parameters)

    def _together(self, name: str) -> list[str]:
        """The names of the layers that have this one's weight, itself first."""
        leaders = self.layers.leaders
        return [name] + [other for other, leader in leaders.items() if leader == name and other != name]

    def _rest(self, rest: int) -> tuple[dict[str, Spec], dict[str, int]]:
        """The tensors of the model when all of it belongs to the rest, and the parameters of each of its modules."""
        if rest not in self._rests:
            bare = compress_(copy.deepcopy(self.model), TTQConfig(rest=rest))
            owners, seen = {}, set()
            parameters = [(_owner(name), one) for name, one in bare.named_parameters(remove_duplicate=False)]
            # a bias that stands in two modules belongs to the one that stores it, which may come later
            for owner, one in sorted(parameters, key=lambda pair: pair[0] in self._without_bias):
                if id(one) not in seen:
                    seen.add(id(one))
                    owners[owner] = owners.get(owner, 0) + one.numel()
            self._rests[rest] = expected(bare), owners
        return self._rests[rest]

    def _part(self, name: str, layer: LayerPlan, rest: int) -> Part:
        modules = [self._alone(place) for place in self._together(name)]
        shapes = tuple((type(m), *((own, tuple(p.shape), p.dtype) for own, p in m.named_parameters())) for m in modules)
        key = (shapes, layer, rest)
        if key not in self._parts:
            parts = nn.ModuleDict({str(place): module for place, module in enumerate(modules)})
            compress_(parts, TTQConfig({"0": layer}, rest), init="random")
            specs = {own: spec for own, spec in expected(parts).items() if prod(spec[1])}
            products = tuple(filter(None, (self._product(own, module) for own, module in parts.items())))
            self._parts[key] = Part(specs, report(parts, TOKENS).total.flops, products, count_parameters(parts))
        return self._parts[key]

    def _alone(self, name: str) -> nn.Module:
        """A layer to be changed, with its very weight, which ties find; without a bias that another module stores."""
        module = copy.copy(self.layers.everything[name])
        module._parameters, module._modules = dict(module._parameters), dict(module._modules)
        if name in self._without_bias:
            module._parameters["bias"] = None
        return module

    def _runs(self, name: str) -> int:
        """How often a layer runs in one pass, where several places share it."""
        module = self.layers.everything[name]
        once = 2 * TOKENS * module.weight.numel() if is_linear(module) else 0
        return max(1, self._flops.get(name, 0) // once) if once else 1

    @staticmethod
    def _product(name: str, module: nn.Module) -> tuple[int, int, int | None] | None:
        """Inputs, outputs and, of a train that is run as two thin matrices, the rank between them."""
        if isinstance(module, TTLinear):
            rank = module.ranks[len(module.in_modes)]
            return module.in_features, module.out_features, rank if module.thin_is_cheaper(TOKENS) else None
        return (*linear_sizes(module), None) if is_linear(module) else None

    def _guard(self, config: TTQConfig, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        """The empty tensor by which a file shows that it needs its plan (`storage.stored`)."""
        for name, module in self.layers.everything.items():
            layer = config.layers.get(name, LayerPlan())
            if layer.format or layer.quantize:
                own = next(expert_weights(module)) if is_experts(module) else "weight"
                if f"{name}.{own}" not in specs:
                    return {f"{name}.{own}": (torch.uint8, (0,))}
        return {}


def _owner(name: str) -> str:
    """The module that a parameter belongs to, be it under a quantizer."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def _saved(config: TTQConfig) -> PlanConfig:
    return PlanConfig(digest=METADATA[DIGEST], version=VERSION, **config.to_dict())


def _plan_length(config: TTQConfig) -> int:
    """How long a plan is in config.json, where it stands two spaces further in than alone."""
    text = json.dumps(_saved(config).to_dict(), indent=2, sort_keys=True)
    return len(text) + 2 * text.count("\n")
