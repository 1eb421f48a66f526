"""Which plans each layer of a model could get: kinds, ranks and bits; and the smallest and largest bytes of all."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from ..inventory.kinds import is_embedding, is_experts, layers, linear_sizes
from ..layers.embedding import TTMEmbedding
from ..layers.linear import TTLinear
from ..measures.costs import count_parameters
from ..plans.configs import TT, TTM, LayerPlan, TTQConfig
from ..plans.planning import recipe_for
from ..quantizers.recipes import WeightRecipe
from ..storage.rebuild import as_meta
from ..surgery.preflight import check_plan, complete_plan, first_names
from .sizes import Weigher, folder_bytes

KINDS = ("dense", "low rank", "train")
BITS = (1, 2, 3, 4, 8)
FLOAT = LayerPlan(quantize="float")


def possible_bytes(
    model: nn.Module,
    *,
    kinds: Sequence[str] = KINDS,
    bits: Sequence[int] = BITS,
    ranks: Sequence[int] | None = None,
    rest: int = 8,
    **others,
) -> tuple[int, int]:
    """The bytes of the smallest plan of such candidates, and of the dense float model; nothing is calibrated."""
    check_choice(model, kinds, bits)
    weigher, places = Weigher(as_meta(model), rest, 1), places_of(model)
    some = {
        name: plans_of(model.get_submodule(name), ranks_of(model, name, kinds, ranks), kinds, bits) for name in places
    }
    least = {name: min(plans, key=lambda plan, name=name: weigher.weigh(name, plan)[0]) for name, plans in some.items()}
    return tuple(
        folder_bytes(weigher.skeleton, TTQConfig(plans, rest)) for plans in (least, dict.fromkeys(places, FLOAT))
    )


def check_choice(model: nn.Module, kinds: Sequence[str], bits: Sequence[int]) -> None:
    """Refuse what gives no candidates."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kinds must be among {', '.join(map(repr, KINDS))}, got {unknown[0]!r}")
    if not kinds or not bits:
        raise ValueError(f"there are no candidates: give kinds among {', '.join(KINDS)}, and bits among 1 … 8 and 32")
    for number in bits:
        recipe_for(number, "tensor")  # which refuses other numbers
    if not layers(model):
        raise ValueError(f"{type(model).__name__} has no layers to compress")


def check_weights(model: nn.Module) -> None:
    """Refuse weights of layers that are not finite, by their names."""
    for name, layer in layers(model).items():
        for own, weight in layer.named_parameters(recurse=False):
            if not weight.isfinite().all():
                raise ValueError(f"{name}.{own} must be finite, got NaN or infinite entries")


def places_of(model: nn.Module) -> dict[str, list[str]]:
    """For each weight the name that stands for all of its places, and all of them."""
    first, places = first_names(model), {}
    for name in layers(model):
        places.setdefault(first.get(name, name), []).append(name)
    return places


def ranks_of(model: nn.Module, name: str, kinds: Sequence[str], ranks: Sequence[int] | None) -> dict[str, list[int]]:
    """The ranks to try of each kind that a layer can be given, as far as they save."""
    layer, found = model.get_submodule(name), {}
    if is_experts(layer):
        return {}
    numbers = layer.weight.numel()
    grid = sorted({round(2 ** (k / 2)) for k in range(30)} if ranks is None else ranks)
    for kind in kinds:
        some = [rank for rank in grid if kind != "dense" and numbers_of(layer, form(layer, kind, rank)) < numbers]
        if some and _can_be(model, name, form(layer, kind, some[0])):
            found[kind] = some if kind == "low rank" or ranks is not None else some[::2]
    return found


def form(layer: nn.Module, kind: str, rank: int) -> TT | TTM:
    """The format of a kind for a linear layer or a table."""
    if is_embedding(layer):
        return TTM(rank) if kind == "train" else TTM(rank, (layer.num_embeddings, 1), (1, layer.embedding_dim))
    inputs, outputs = linear_sizes(layer)
    return TT(rank) if kind == "train" else TT(rank, (inputs,), (outputs,))


def numbers_of(layer: nn.Module, made: TT | TTM) -> int:
    """How many numbers the cores hold."""
    if isinstance(made, TTM):
        return count_parameters(TTMEmbedding(*layer.weight.shape, **vars(made), device="meta"))
    return count_parameters(TTLinear(*linear_sizes(layer), **vars(made), bias=False, device="meta"))


def _can_be(model: nn.Module, name: str, made: TT | TTM) -> bool:
    """Whether `compress_` would give the layer a format: not where a weight norm or another linear layer shares it."""
    try:
        check_plan(model, complete_plan(model, TTQConfig({name: made})))
    except ValueError:
        return False
    return True


def plans_of(
    layer: nn.Module, formats: Mapping[str, list[int]], kinds: Sequence[str], bits: Sequence[int]
) -> Iterator[LayerPlan]:
    """All that a layer could get, float first."""
    yield FLOAT
    for recipe in dense_recipes(kinds, bits):
        yield LayerPlan(quantize=recipe)
    for kind, ranks in formats.items():
        for rank in ranks:
            yield from (LayerPlan(form(layer, kind, rank), recipe or "float") for recipe in core_recipes(bits))


def dense_recipes(kinds: Sequence[str], bits: Sequence[int]) -> list[WeightRecipe]:
    return [recipe_for(number, "channel") for number in sorted(set(bits) - {32})] if "dense" in kinds else []


def core_recipes(bits: Sequence[int]) -> list[WeightRecipe | None]:
    """Those of cores, of which one bit leaves next to nothing."""
    return [recipe_for(number, "tensor") for number in sorted(set(bits) - {1})]
