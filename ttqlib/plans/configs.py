"""Plans as data: which layer of a model gets which tensor format, which quantizer and how many bits, and its JSON.

A plan names layers; it holds no weights. Readers write one by hand, `planning` makes one for a whole model, a file
carries one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..catalog import Catalog, check_fields, mapping
from ..quantizers.activations import ActivationRecipe, DynamicActivation, StaticActivation
from ..quantizers.fake_quantization import keep
from ..quantizers.mean_scales import Binary, Ternary
from ..quantizers.recipes import LSQ, GroupRTN, WeightRecipe
from ..tensors.shapes import mode_sizes, whole_number

REST = (32, 16, 8)
FORMAT = 1  # of the JSON of a plan
SHARED_CORES = {"input": (0,), "output": (1,), "both": (0, 2)}  # of a `Shared`, by its side


@dataclass(frozen=True)
class Format:
    """What `TT` and `TTM` share. Ranks and modes become tuples: a plan from JSON equals the one that went there."""

    rank: int | Sequence[int]

    def __post_init__(self):
        several = isinstance(self.rank, Sequence) and not isinstance(self.rank, str)
        rank = mode_sizes("rank", self.rank) if several else whole_number("rank", self.rank)
        modes = {name: sizes for name, sizes in vars(self).items() if name != "rank" and sizes is not None}
        keep(self, rank=rank, **{name: mode_sizes(name, sizes) for name, sizes in modes.items()})


@dataclass(frozen=True)
class TT(Format):
    """Make a linear layer a `TTLinear`; rank, one for all bonds or one for each, and modes as there.

    Raises:
        ValueError: a rank or mode that is no whole number of at least 1. What fits no layer, `compress_` refuses.
    """

    in_modes: Sequence[int] | None = None
    out_modes: Sequence[int] | None = None


@dataclass(frozen=True)
class TTM(Format):
    """Make an embedding a `TTMEmbedding`; rank, one for all bonds or one for each, and modes as there.

    Raises:
        ValueError: as `TT`.
    """

    vocabulary_modes: Sequence[int] | None = None
    hidden_modes: Sequence[int] | None = None


@dataclass(frozen=True)
class Shared(Format):
    """Make a linear layer a `TTLinear` that has cores in common with all layers whose plans name the same `group`.

    A group is mostly one matrix of all layers of a stack, as every query. Its weights W_l, (inputs, outputs), become

    - `side="input"`: W_l = U V_l, with one U, (inputs, rank), for all;
    - `side="output"`: W_l = U_l V, with one V, (rank, outputs), for all;
    - `side="both"`: W_l = U G_l V: one train of cores (inputs, rank), (rank, layers, rank), (rank, outputs), in which
      the number of the layer is a mode, and a layer has its (rank, rank) slice of the core in the middle.

    What is shared is one parameter in memory, is stored and counted once, and its gradients add up. A rank above the
    smaller size of one matrix is clipped to that, as in `TT`: for several layers even that may lose.

    Raises:
        ValueError: a rank that is no whole number of at least 1, another side, or a group without a name. What fits no
            layer, or not all layers of a group, `compress_` refuses.
    """

    side: Literal["input", "output", "both"]
    group: str

    def __post_init__(self):
        keep(self, rank=whole_number("rank of a Shared", self.rank))
        if self.side not in SHARED_CORES:
            raise ValueError(f"side must be one of {', '.join(map(repr, SHARED_CORES))}, got {self.side!r}")
        if not isinstance(self.group, str) or not self.group:
            raise ValueError(f"group must be a name, the same for all layers that share, got {self.group!r}")

    def alone(self, inputs: int, outputs: int) -> TT:
        """The format of one layer of the group by itself, a matrix (inputs, outputs)."""
        return TT(self.rank, (inputs,), (1, outputs) if self.side == "both" else (outputs,))

    @property
    def cores(self) -> tuple[int, ...]:
        """The numbers of the cores that the layers have in common."""
        return SHARED_CORES[self.side]


@dataclass(frozen=True)
class LayerPlan:
    """What one layer gets.

    Args:
        format: `TT` or `Shared` for a linear layer, `TTM` for an embedding; None, dense as it is.
        quantize: the quantizer of every core, or of the dense weight, or of the weights of all experts. "float": none,
            in the dtype of the model, whatever the rest gets. "rest": what the plan's `rest` says. None, nothing is
            said: `plan(quantize=…)` may fill it in; where nothing does, cores are "float" and dense weights "rest".
        activations: the quantizer of a linear layer's input. "float": none. None: `plan(activations=…)` may fill it in;
            where nothing does, "float".

    Raises:
        ValueError: anything else.
    """

    format: TT | TTM | Shared | None = None
    quantize: WeightRecipe | Literal["float", "rest"] | None = None
    activations: ActivationRecipe | Literal["float"] | None = None

    def __post_init__(self):
        for name, (catalog, words) in SIDES.items():
            value = getattr(self, name)
            kinds = catalog.base or tuple(catalog.kinds.values())
            if not (value is None or isinstance(value, kinds) or (isinstance(value, str) and value in words)):
                allowed = ", ".join([*catalog.kinds, *map(repr, words), "None"])
                raise ValueError(f"{name} of a layer must be one of {allowed}, got {value!r}")

    def inside(self, part: str) -> "LayerPlan":
        """The plan of a layer of `part`, in the plan of the whole: groups of two parts stay two."""
        if not part or not isinstance(self.format, Shared):
            return self
        return replace(self, format=replace(self.format, group=f"{part}.{self.format.group}"))


@dataclass
class TTQConfig:
    """The plan of a model: a `LayerPlan` by layer name, and `rest`, the bits of all parameters that it leaves over.

    A layer may also be given a bare format or quantizer, which becomes a `LayerPlan` with nothing else. `rest` is
    32 (float32, untouched), 16 (float16) or 8 (learnable step sizes); it takes in heads, positions, norms and biases.
    `unmatched` lists the linear layers, embeddings and experts that no rule matched; they belong to the rest.

    A weight that stands in several places, as the table of words at both ends of a language model, is one weight: what
    any of its layers is given is given to all of them.

    Raises:
        ValueError: another `rest`, or a layer that is given something else.
    """

    layers: dict[str, LayerPlan | TT | TTM | Shared | WeightRecipe] = field(default_factory=dict)
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
            ValueError: it names a recipe of your own that is not registered (`ttq.register`).
        """
        layers = {
            name: {side: _to_json(side, getattr(layer, side)) for side in SIDES if getattr(layer, side) is not None}
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
        given = {"format": FORMAT, "layers": {}, "rest": 32, "unmatched": []} | mapping("a plan", data)
        check_fields("a plan", given, {"format", "layers", "rest", "unmatched"})
        if given["format"] != FORMAT or isinstance(given["format"], bool):
            raise ValueError(f"the format of a plan must be {FORMAT}, got {given['format']!r}: from a newer ttqlib?")
        layers = {}
        for name, sides in mapping("layers", given["layers"]).items():
            check_fields(f"the plan of {name}", mapping(f"the plan of {name}", sides), SIDES.keys())
            layers[name] = LayerPlan(**{side: _from_json(side, name, sides[side]) for side in sides})
        unmatched = given["unmatched"]
        if not isinstance(unmatched, list) or not all(isinstance(name, str) for name in unmatched):
            raise ValueError(f"unmatched must be a list of names, got {unmatched!r}")
        return cls(layers, given["rest"], tuple(unmatched))


FORMATS = Catalog(TT, TTM, Shared)
QUANTIZERS = Catalog(LSQ, Binary, Ternary, GroupRTN, base=WeightRecipe)
ACTIVATIONS = Catalog(DynamicActivation, StaticActivation, base=ActivationRecipe)
SIDES = {  # of a layer's plan: what each may be, and the words that it may be instead; the names stand in JSON
    "format": (FORMATS, ()),
    "quantize": (QUANTIZERS, ("float", "rest")),
    "activations": (ACTIVATIONS, ("float",)),
}


def as_layer_plan(where: str, value) -> LayerPlan:
    """What a layer is given, as a whole plan of it; `where` is for errors.

    Raises:
        ValueError: it is nothing that a layer can be given.
    """
    if isinstance(value, LayerPlan):
        return value
    if isinstance(value, Format):
        return LayerPlan(value)
    if isinstance(value, WeightRecipe) or value in ("float", "rest"):
        return LayerPlan(quantize=value)
    raise ValueError(
        f'{where} must be a TT, a TTM, a Shared, a weight quantizer, "float", "rest" or a LayerPlan, got {value!r}'
    )


def _to_json(side: str, value) -> dict | str:
    return value if isinstance(value, str) else SIDES[side][0].to_dict(value)


def _from_json(side: str, name: str, data):
    if isinstance(data, str):
        return data  # a word, which `LayerPlan` checks
    if isinstance(data, Mapping) and data.get("type") == "GroupRTN" and "per" not in data:
        data = {"per" if key == "group_size" else key: value for key, value in data.items()}  # as it was once called
    return SIDES[side][0].from_dict(f"{side} of {name}", data)
