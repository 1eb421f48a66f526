"""Plans: which layer of a model gets which tensor format, which quantizer and how many bits.

A plan names layers; it holds no weights. Readers write one by hand, `plan` makes one for a whole model, a checkpoint
carries one as JSON.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from torch import nn
from transformers.pytorch_utils import Conv1D

from .activations import DynamicActivation, StaticActivation
from .quantizers import LSQ, Binary, GroupRTN, Ternary, WeightRecipe
from .shapes import factorize, mode_sizes, tt_parameters, whole_number

# Heads are small, and what they lose shows at once in the predictions.
HEADS = re.compile(r"(^|[._])(heads?|classifier|score|qa_outputs|lm_head|cls|pooler)([._]|$)")
LINEAR = (nn.Linear, Conv1D)
REST = (32, 16, 8)


@dataclass(frozen=True)
class TT:
    """Make a linear layer a `TTLinear` of this rank; modes as there, balanced ones by default."""

    rank: int
    in_modes: Sequence[int] | None = None
    out_modes: Sequence[int] | None = None

    def __post_init__(self):
        _checked(self, "in_modes", "out_modes")


@dataclass(frozen=True)
class TTM:
    """Make an embedding a `TTMEmbedding` of this rank; modes as there, balanced ones by default."""

    rank: int
    vocabulary_modes: Sequence[int] | None = None
    hidden_modes: Sequence[int] | None = None

    def __post_init__(self):
        _checked(self, "vocabulary_modes", "hidden_modes")


@dataclass(frozen=True)
class LayerPlan:
    """What one layer gets; None leaves that side of it as it is.

    `format`: `TT` for a linear layer, `TTM` for an embedding, or dense. `quantize`: the quantizer of every core, or of
    the dense weight. `activations`: the quantizer of a linear layer's input.
    """

    format: TT | TTM | None = None
    quantize: WeightRecipe | None = None
    activations: DynamicActivation | StaticActivation | None = None


@dataclass
class TTQConfig:
    """The plan of a model: a `LayerPlan` by layer name, and `rest`, the bits of all parameters that it leaves over.

    A layer may also be given a bare `TT`, `TTM` or quantizer, which becomes a `LayerPlan` with nothing else. `rest` is
    32 (float32, untouched), 16 (float16) or 8 (learnable step sizes); it takes in heads, positions, norms and biases.
    `unmatched` lists the linear and embedding layers that no rule matched; they belong to the rest.
    """

    layers: dict[str, LayerPlan | TT | TTM | WeightRecipe] = field(default_factory=dict)
    rest: int = 32
    unmatched: tuple[str, ...] = ()

    def __post_init__(self):
        if self.rest not in REST:
            raise ValueError(f"rest must be one of {', '.join(map(str, REST))} bits, got {self.rest!r}")
        self.layers = {name: _as_layer_plan(f"the plan of {name}", choice) for name, choice in self.layers.items()}

    def without_quantizers(self) -> "TTQConfig":
        """The same formats in float32, for training that starts in float."""
        formats = {name: LayerPlan(layer.format) for name, layer in self.layers.items() if layer.format is not None}
        return TTQConfig(formats, unmatched=self.unmatched)

    def to_dict(self) -> dict:
        """The plan as plain dictionaries, lists, strings and numbers: what `json.dumps` takes."""
        layers = {
            name: {side: _to_dict(getattr(layer, side)) for side in KINDS if getattr(layer, side) is not None}
            for name, layer in self.layers.items()
        }
        return {"layers": layers, "rest": self.rest, "unmatched": list(self.unmatched)}

    @classmethod
    def from_dict(cls, data: Mapping) -> "TTQConfig":
        """The plan that `to_dict` wrote.

        Raises:
            ValueError: a field is missing or unknown, or holds what it must not.
        """
        _fields("a plan", data, {"layers", "rest", "unmatched"})
        layers = {}
        for name, sides in _mapping("layers", data["layers"]).items():
            _mapping(f"the plan of {name}", sides)
            if unknown := set(sides) - set(KINDS):
                raise ValueError(
                    f"the plan of {name} has the unknown fields {sorted(unknown)}, known are {list(KINDS)}"
                )
            recipes = {side: _from_dict(f"{side} of {name}", sides[side], KINDS[side]) for side in sides}
            layers[name] = LayerPlan(**recipes)
        unmatched = data["unmatched"]
        if not isinstance(unmatched, list) or not all(isinstance(name, str) for name in unmatched):
            raise ValueError(f"unmatched must be a list of names, got {unmatched!r}")
        return cls(layers, data["rest"], tuple(unmatched))


KINDS = {  # what each side of a layer's plan may be; the names stand in JSON
    "format": (TT, TTM),
    "quantize": (LSQ, Binary, Ternary, GroupRTN),
    "activations": (DynamicActivation, StaticActivation),
}


def plan(
    model: nn.Module,
    rank: int | None = None,
    bits: int = 32,
    rest: int = 32,
    *,
    rules: Mapping[str, object] | None = None,
    quantize: WeightRecipe | None = None,
    activations: DynamicActivation | StaticActivation | None = None,
) -> TTQConfig:
    """The plan of a whole model, in one line or by rules.

    `plan(model, rank=30, bits=4, rest=8)` gives every linear layer `TT(30)` and the word embedding `TTM(30)`, their
    cores `LSQ(4)` (`Binary` at 1 bit, nothing at 32), and all other parameters 8 bits. Without a rank the same layers
    stay dense and are quantized per channel. Heads stay in the rest, and so does every layer that would not get
    smaller as cores.

    `rules` maps regular expressions, searched in layer names, to what the layers get: a `TT`, a `TTM`, a quantizer
    (then the weight stays dense), a whole `LayerPlan`, or None for the rest. The first match wins. `quantize` and
    `activations` fill in what a rule leaves open, for layers that do change.

    Layers are found by type (`nn.Linear`, transformers' `Conv1D`, `nn.Embedding`), so any Hugging Face model will do.

    Raises:
        ValueError: nothing in the model to compress; a rank, bit width or `rest` that is not allowed; both a rank and
            rules; a rule that matches no layer, or gives a layer a format of the wrong kind.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (*LINEAR, nn.Embedding))}
    if rules is not None:
        if rank is not None or bits != 32:
            raise ValueError(
                "give either rank and bits, or rules; a rule says ttq.TT(rank=…), quantize=ttq.LSQ(bits=…)"
            )
        chosen = _by_rules(layers, rules)
        default = LayerPlan(None, quantize, activations)
    else:
        if quantize is not None and bits != 32:
            raise ValueError(f"give either bits or quantize, got bits={bits!r} and quantize={quantize!r}")
        chosen = _uniform(model, layers, rank)
        default = LayerPlan(None, quantize or _quantizer(bits, dense=rank is None), activations)
        if rank is None and default == LayerPlan():
            raise ValueError("give a rank, bits below 32, or rules: this plan would change nothing")
        if not chosen:
            problem = "has no layers to compress" if rank is None else f"has nothing that gets smaller at rank {rank}"
            raise ValueError(f"{type(model).__name__} {problem}")
    plans = {name: _filled(choice, default, layers[name]) for name, choice in chosen.items() if choice is not None}
    return TTQConfig(plans, rest, tuple(name for name in layers if name not in chosen))


def _uniform(model: nn.Module, layers: Mapping[str, nn.Module], rank: int | None) -> dict[str, LayerPlan]:
    """The linear layers outside heads, and the word embedding, as far as cores of this rank are smaller."""
    words = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    chosen = {}
    for name, module in layers.items():
        linear = isinstance(module, LINEAR) and not HEADS.search(name)
        if not linear and module is not words:
            continue
        if rank is None:
            chosen[name] = LayerPlan()
        elif _shrinks(module, form := TT(rank) if linear else TTM(rank)):
            chosen[name] = LayerPlan(form)
    return chosen


def _by_rules(layers: Mapping[str, nn.Module], rules: Mapping[str, object]) -> dict[str, LayerPlan | None]:
    chosen, used = {}, set()
    for name, module in layers.items():
        pattern = next((pattern for pattern in rules if re.search(pattern, name)), None)
        if pattern is None:
            continue
        used.add(pattern)
        choice = None if rules[pattern] is None else _as_layer_plan(f"rule {pattern!r}", rules[pattern])
        if choice is not None and choice.format is not None:
            kind, wanted = (
                ("a linear layer", LINEAR) if isinstance(choice.format, TT) else ("an embedding", nn.Embedding)
            )
            if not isinstance(module, wanted):
                raise ValueError(
                    f"rule {pattern!r} gives {type(choice.format).__name__} to {name}, which is no {kind.split()[-1]}: "
                    f"{type(choice.format).__name__} is for {kind}, put a narrower rule before it"
                )
        chosen[name] = choice
    if idle := [pattern for pattern in rules if pattern not in used]:
        raise ValueError(
            f"no layer that is left for it matches the rule {idle[0]!r}; the layers are {', '.join(layers) or 'none'}"
        )
    return chosen


def _as_layer_plan(where: str, value) -> LayerPlan:
    if isinstance(value, LayerPlan):
        return value
    if isinstance(value, TT | TTM):
        return LayerPlan(value)
    if isinstance(value, WeightRecipe):
        return LayerPlan(quantize=value)
    raise ValueError(f"{where} must be a TT, a TTM, a weight quantizer or a LayerPlan, got {value!r}")


def _filled(choice: LayerPlan, default: LayerPlan, module: nn.Module) -> LayerPlan:
    activations = choice.activations or (default.activations if isinstance(module, LINEAR) else None)  # ids have none
    return LayerPlan(choice.format, choice.quantize or default.quantize, activations)


def _quantizer(bits: int, dense: bool) -> WeightRecipe | None:
    """The quantizer of a bit width: per tensor for cores, which are small, per channel for dense weights."""
    if bits == 32 and not isinstance(bits, bool):
        return None
    if isinstance(bits, bool) or bits not in range(1, 9):
        raise ValueError(f"bits must be one of 1 … 8 or 32, got {bits!r}")
    per = "channel" if dense else "tensor"
    return Binary(per=per) if bits == 1 else LSQ(bits, per=per)


def _shrinks(module: nn.Module, form: TT | TTM) -> bool:
    """Whether a weight has more entries than its cores would have, in balanced modes."""
    rows, columns = (factorize(size) for size in module.weight.shape)
    modes = columns + rows[::-1] if isinstance(form, TT) else [v * h for v, h in zip(rows, columns[::-1])]
    return tt_parameters(modes, form.rank) < module.weight.numel()


def _checked(form: TT | TTM, *modes: str) -> None:
    """A valid rank and modes, the modes as tuples: a plan that comes from JSON equals the one that went there."""
    whole_number("rank", form.rank)
    for name in modes:
        if (sizes := getattr(form, name)) is not None:
            object.__setattr__(form, name, mode_sizes(name, sizes))  # how a frozen dataclass sets its own fields


def _to_dict(recipe) -> dict:
    return {"type": type(recipe).__name__, **asdict(recipe)}


def _from_dict(where: str, data, kinds: Sequence[type]):
    """The format or quantizer that `_to_dict` wrote; its own checks see to the values."""
    kind = next((kind for kind in kinds if kind.__name__ == _mapping(where, data).get("type")), None)
    if kind is None:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{where}: type must be one of {names}, got {data.get('type')!r}")
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name != "type"
    }
    _fields(where, values, {entry.name for entry in fields(kind)})
    return kind(**values)


def _fields(where: str, data, expected: set[str]) -> None:
    if set(_mapping(where, data)) != expected:
        raise ValueError(f"{where} needs exactly the fields {sorted(expected)}, got {sorted(map(str, data))}")


def _mapping(where: str, data) -> Mapping:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, got {type(data).__name__}")
    return data
