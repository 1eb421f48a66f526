"""Plans as data: which layer of a model gets which tensor format, which quantizer and how many bits, and its JSON.

A plan names layers; it holds no weights. Readers write one by hand, `planning` makes one for a whole model, a file
carries one.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import MISSING, asdict, dataclass, field, fields

from ..quantizers.activations import DynamicActivation, StaticActivation
from ..quantizers.fake_quantization import keep
from ..quantizers.recipes import LSQ, Binary, GroupRTN, Ternary, WeightRecipe
from ..tensors.shapes import mode_sizes, whole_number

REST = (32, 16, 8)
FORMAT = 1  # of the JSON of a plan


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
    """What one layer gets; None leaves that side of it to the rest of the model.

    `format`: `TT` for a linear layer, `TTM` for an embedding; None, dense as it is. `quantize`: the quantizer of every
    core, or of the dense weight, or of the weights of all experts; None, as the plan's `rest` has it: float32, float16
    or 8 bits. `activations`: the quantizer of a linear layer's input; None, float.
    """

    format: TT | TTM | None = None
    quantize: WeightRecipe | None = None
    activations: DynamicActivation | StaticActivation | None = None


@dataclass
class TTQConfig:
    """The plan of a model: a `LayerPlan` by layer name, and `rest`, the bits of all parameters that it leaves over.

    A layer may also be given a bare `TT`, `TTM` or quantizer, which becomes a `LayerPlan` with nothing else. `rest` is
    32 (float32, untouched), 16 (float16) or 8 (learnable step sizes); it takes in heads, positions, norms and biases.
    `unmatched` lists the linear layers, embeddings and experts that no rule matched; they belong to the rest.

    A weight that stands in several places, as the table of words at both ends of a language model, is one weight: what
    any of its layers is given is given to all of them.
    """

    layers: dict[str, LayerPlan | TT | TTM | WeightRecipe] = field(default_factory=dict)
    rest: int = 32
    unmatched: tuple[str, ...] = ()

    def __post_init__(self):
        if isinstance(self.rest, bool) or self.rest not in REST:
            raise ValueError(f"rest must be one of {', '.join(map(str, REST))} bits, got {self.rest!r}")
        self.rest = int(self.rest)  # of NumPy's numbers JSON knows nothing
        self.layers = {name: as_layer_plan(f"the plan of {name}", choice) for name, choice in self.layers.items()}

    def without_quantizers(self) -> "TTQConfig":
        """The same formats in float32, for training that starts in float."""
        formats = {name: LayerPlan(layer.format) for name, layer in self.layers.items() if layer.format is not None}
        return TTQConfig(formats, unmatched=self.unmatched)

    def to_dict(self) -> dict:
        """The plan as plain dictionaries, lists, strings and numbers: what `json.dumps` takes.

        Raises:
            ValueError: it names a recipe of your own, which no other program could build again.
        """
        layers = {
            name: {side: _to_dict(getattr(layer, side)) for side in KINDS if getattr(layer, side) is not None}
            for name, layer in self.layers.items()
        }
        return {"format": FORMAT, "layers": layers, "rest": self.rest, "unmatched": list(self.unmatched)}

    @classmethod
    def from_dict(cls, data: Mapping) -> "TTQConfig":
        """The plan that `to_dict` wrote, or one by hand: what has a default may be left out.

        Raises:
            ValueError: a field is unknown, or one without a default is missing, or it holds what it must not; or the
                plan is of a format that this ttqlib does not know.
        """
        given = {"format": FORMAT, "layers": {}, "rest": 32, "unmatched": []} | _mapping("a plan", data)
        _fields("a plan", given, {"format", "layers", "rest", "unmatched"})
        if given["format"] != FORMAT or isinstance(given["format"], bool):
            raise ValueError(f"the format of a plan must be {FORMAT}, got {given['format']!r}: from a newer ttqlib?")
        layers = {}
        for name, sides in _mapping("layers", given["layers"]).items():
            _mapping(f"the plan of {name}", sides)
            _fields(f"the plan of {name}", sides, KINDS.keys())
            recipes = {side: _from_dict(f"{side} of {name}", sides[side], KINDS[side]) for side in sides}
            layers[name] = LayerPlan(**recipes)
        unmatched = given["unmatched"]
        if not isinstance(unmatched, list) or not all(isinstance(name, str) for name in unmatched):
            raise ValueError(f"unmatched must be a list of names, got {unmatched!r}")
        return cls(layers, given["rest"], tuple(unmatched))


KINDS = {  # what each side of a layer's plan may be; the names stand in JSON
    "format": (TT, TTM),
    "quantize": (LSQ, Binary, Ternary, GroupRTN),
    "activations": (DynamicActivation, StaticActivation),
}


def as_layer_plan(where: str, value) -> LayerPlan:
    if isinstance(value, LayerPlan):
        return value
    if isinstance(value, TT | TTM):
        return LayerPlan(value)
    if isinstance(value, WeightRecipe):
        return LayerPlan(quantize=value)
    raise ValueError(f"{where} must be a TT, a TTM, a weight quantizer or a LayerPlan, got {value!r}")


def _checked(form: TT | TTM, *modes: str) -> None:
    """A valid rank and modes, the modes as tuples: a plan that comes from JSON equals the one that went there."""
    keep(form, rank=whole_number("rank", form.rank))
    for name in modes:
        if (sizes := getattr(form, name)) is not None:
            keep(form, **{name: mode_sizes(name, sizes)})


def _to_dict(recipe) -> dict:
    if not any(type(recipe) in kinds for kinds in KINDS.values()):
        names = ", ".join(kind.__name__ for kinds in KINDS.values() for kind in kinds)
        raise ValueError(f"a file cannot hold {recipe!r}, which nobody else could build: use one of {names}")
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
    if kind is GroupRTN and "group_size" in values and "per" not in values:
        values["per"] = values.pop("group_size")  # as plans without a format call it
    needed = {entry.name for entry in fields(kind) if entry.default is MISSING}
    _fields(where, values, {entry.name for entry in fields(kind)}, needed)
    return kind(**values)


def _fields(where: str, data: Mapping, known: Set[str], needed: Set[str] = frozenset()) -> None:
    if unknown := sorted(map(str, data.keys() - known)):
        raise ValueError(f"{where} has the unknown fields {unknown}, known are {sorted(known)}")
    if missing := sorted(needed - data.keys()):
        raise ValueError(f"{where} lacks the fields {missing}")


def _mapping(where: str, data) -> Mapping:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, got {type(data).__name__}")
    return data
