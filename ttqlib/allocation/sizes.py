"""What a candidate takes of the folder that `save` writes: bytes of its tensors, and of the text that names them.

The bytes of tensors add up exactly, layer by layer. Text does nearly: where a tensor begins and ends in the file is
written in as many digits as that takes, and the header is filled up to a multiple of 8. So plans are chosen by sums,
and weighed as a whole (`folder_bytes`) before they are given out.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from math import prod

from torch import nn

from ..measures.costs import flops
from ..plans.configs import LayerPlan, TTQConfig
from ..quantizers.recipes import LSQ
from ..storage.checkpoint import saved_bytes
from ..storage.files import DTYPES, Spec
from ..storage.stored import expected
from ..surgery.compress import compress_

DIGITS = 7  # of a place in the file, as the text of a header is estimated


class Holder(nn.Module):
    """One layer alone, under the name `layer`."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer


def folder_bytes(skeleton: nn.Module, config: TTQConfig) -> int:
    """How many bytes `save` writes of a model under a plan; `skeleton` is the model as `as_meta` gives it."""
    return saved_bytes(compress_(copy.deepcopy(skeleton), config))


class Weigher:
    """Weighs what plans make of single layers. Layers of one shape weigh the same, and are weighed once."""

    def __init__(self, skeleton: nn.Module, rest: int, tokens: int):
        self.skeleton, self.rest, self.tokens = skeleton, rest, tokens
        self.known: dict[tuple, tuple[dict[str, Spec], int, int]] = {}

    def weigh(self, name: str, plan: LayerPlan) -> tuple[int, int, int]:
        """Bytes in the folder, numbers that train, and FLOPs in a forward pass."""
        layer = self.skeleton.get_submodule(name)
        shapes = tuple((own, one.shape, one.dtype, one.requires_grad) for own, one in layer.named_parameters())
        key = (type(layer), shapes, plan)
        if key not in self.known:
            self.known[key] = self._weighed(layer, plan)
        specs, numbers, operations = self.known[key]
        data = sum(prod(shape) * dtype.itemsize for dtype, shape in specs.values())
        return data + text_bytes(name, specs, plan), numbers, operations

    def fixed(self, names: Iterable[str]) -> int:
        """The bytes of a folder that do not depend on what these layers get."""
        some = {name: LayerPlan(quantize=LSQ(8, per="channel")) for name in names}  # a file with codes has a guard
        whole = folder_bytes(self.skeleton, TTQConfig(some, self.rest))
        return whole - sum(self.weigh(name, plan)[0] for name, plan in some.items())

    def _weighed(self, layer: nn.Module, plan: LayerPlan) -> tuple[dict[str, Spec], int, int]:
        holder = compress_(Holder(copy.deepcopy(layer)), TTQConfig({"layer": plan}, rest=self.rest))
        numbers = sum(parameter.numel() for parameter in holder.parameters() if parameter.requires_grad)
        specs = {name: spec for name, spec in expected(holder).items() if prod(spec[1])}  # without the file's guard
        return specs, numbers, flops(holder.layer, self.tokens, merged=True)


def text_bytes(name: str, specs: Mapping[str, Spec], plan: LayerPlan) -> int:
    """What a layer takes of the header and of config.json, places in the file written in `DIGITS` digits."""
    places = [10 ** (DIGITS - 1)] * 2
    header = {
        f"{name}.{own.removeprefix('layer.')}": {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": places}
        for own, (dtype, shape) in specs.items()
    }
    sides = TTQConfig({name: plan}).to_dict()["layers"]
    return len(json.dumps(header, separators=(",", ":"), ensure_ascii=False)) - 1 + _config_text(sides)


def _config_text(layers: Mapping) -> int:
    """The characters of entries of a plan as config.json has them, indented."""
    whole, empty = (json.dumps({"q": {"layers": entries}}, indent=2) for entries in (layers, {}))
    return len(whole) - len(empty)
