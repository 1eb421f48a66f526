"""Trains that layers share: what `Shared` in a plan makes of the same matrix of all layers, and what can be wrong.

Every layer stays a `TTLinear` of its own, with two cores or three. The cores that a group shares are one parameter that
stands in all of its layers, as a tied weight does; whatever knows ties knows them: quantizers, files, reports, copies.

How the cores start
-------------------
The matrices W_l, (inputs, outputs), of a group are looked at together, and what is lost is the sum over its layers:

- a shared output side V spans the principal directions of all outputs, those of Σ_l W_lᵀ C_l W_l, and U_l = W_l Vᵀ.
  With C_l, the second moments of what layer l is given, no other V loses less; with C_l = 1 that is the SVD of all W_l
  one below the other;
- a shared input side U spans the principal directions of all W_l side by side, seen through the root of the mean of all
  C_l: with C_l = 1 the SVD again, else the best where layers are given alike. V_l is the best for this U;
- both: first V, then U and the cores between for what V has left. That is the TT-SVD of the tensor (inputs, layers,
  outputs), but that both sides have one rank.
"""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from ..inventory.ties import tied
from ..layers.linear import TTLinear
from ..plans.configs import TT, LayerPlan, Shared
from .calibration import Moments, keep_mean_output_, top_eigenvectors
from .conversion import as_linear, replacement

RIDGE = 1e-6  # of the mean of the eigenvalues of second moments: a few sentences fill few directions


def sharing_groups(layers: Mapping[str, LayerPlan]) -> dict[str, list[str]]:
    """The names of the layers that share, by group."""
    found: dict[str, list[str]] = {}
    for name, layer in layers.items():
        if isinstance(layer.format, Shared):
            found.setdefault(layer.format.group, []).append(name)
    return found


def shared_cores(model: nn.Module) -> list[list[tuple[str, str]]]:
    """The cores that stand in several layers: for each its places, as (name of the layer, name of the core)."""
    trains = {name for name, module in model.named_modules() if isinstance(module, TTLinear)}
    groups = ([place for place in places if place[0] in trains and place[1] != "bias"] for places in tied(model))
    return [places for places in groups if places]


def check_groups(model: nn.Module, layers: Mapping[str, LayerPlan]) -> None:
    """Refuse layers that cannot share as a plan says, or that share otherwise already.

    Raises:
        ValueError: the layers of a group are given different things, differ where they share, or are trains that do
            not share; or trains share of which the plan does not say so.
    """
    modules, wanted = dict(model.named_modules()), set()
    for group, names in sharing_groups(layers).items():
        first, form = names[0], layers[names[0]].format
        alike, ready = _what_is_shared(modules[first], layers[first]), isinstance(modules[first], TTLinear)
        for name in names[1:]:
            if (other := _what_is_shared(modules[name], layers[name])) != alike:
                what = next(what for what in alike if alike[what] != other[what])
                raise ValueError(
                    f"{first} and {name} are in the group {group!r}, which shares one parameter, but their {what} "
                    f"differ: {alike[what]} and {other[what]}; give them groups of their own"
                )
            if isinstance(modules[name], TTLinear) != ready:
                raise ValueError(
                    f"of the group {group!r} only one of {first} and {name} is a tensor train already: "
                    "compress all layers of a group in one call"
                )
        if ready and len(names) > 1:
            wanted |= {frozenset((name, f"core{k}") for name in names) for k in form.cores}
    if odd := wanted ^ {frozenset(places) for places in shared_cores(model)}:
        names = sorted(name for name, _ in min(odd, key=sorted))
        said, is_so = ("share", "do not") if odd & wanted else ("do not share", "do")
        raise ValueError(f"by the plan {' and '.join(names)} {said} a core, but these tensor trains {is_so}")


@torch.no_grad()
def shared_layers(
    modules: Mapping[str, nn.Module], form: Shared, init: str, moments: Mapping[str, Moments]
) -> dict[str, TTLinear]:
    """The layers of one group, linear ones, in their format; whether weight and bias train stays as it was.

    Args:
        init: "svd" or "random", as in `compress_`.
        moments: of the layers, where they say what the rank is spent on: those of the inputs where these are shared.
    """
    linears = {name: as_linear(module) for name, module in modules.items()}
    made = {name: replacement(modules[name], alone(form, linear), "random", None) for name, linear in linears.items()}
    first = next(iter(made.values()))
    if first.core0.is_meta:
        pass
    elif init == "random":
        _keep_deviations_(list(made.values()), form)
    else:
        starts = nearest_cores(list(linears.values()), form.side, first.ranks[1], [moments.get(name) for name in made])
        for (name, layer), cores in zip(made.items(), starts):
            _start_(layer, cores, linears[name].bias, moments.get(name))
    for layer in made.values():
        for k in form.cores:
            setattr(layer, f"core{k}", getattr(first, f"core{k}"))
    return made


def nearest_cores(
    linears: Sequence[nn.Linear], side: str, rank: int, moments: Sequence[Moments | None]
) -> list[list[Tensor]]:
    """The cores of each layer in float64, those that are shared the same tensors; see the top of this file.

    Their norms are balanced: as large as they are on the average of the layers.
    """
    weights = [linear.weight.detach().cpu().double().T for linear in linears]  # (inputs, outputs)
    seen = [(moment, linear.bias is not None) for moment, linear in zip(moments, linears)]
    columns = torch.eye(weights[0].shape[1], dtype=torch.float64) if side == "input" else None
    if side != "input":
        outputs = sum(_of_outputs(weight, *one) for weight, one in zip(weights, seen))
        columns = top_eigenvectors(outputs, rank)  # (outputs, rank)
    left = [weight @ columns for weight in weights] if side != "input" else weights
    if side == "output":
        return _balanced([[u[None], columns.T[..., None]] for u in left], shared=(1,))
    inputs = [_of_inputs(weight, *one) for weight, one in zip(weights, seen)]
    rows = _common_rows(left, inputs, rank)  # (inputs, rank)
    own = [torch.linalg.solve(rows.T @ c @ rows, rows.T @ c @ weight) for weight, c in zip(left, inputs)]
    if side == "input":
        return _balanced([[rows[None], v[..., None]] for v in own], shared=(0,))
    return _balanced([[rows[None], g[:, None], columns.T[..., None]] for g in own], shared=(0, 2))


def alone(form: Shared, layer: nn.Linear | TTLinear) -> TT:
    """What one layer of a group is by itself."""
    return form.alone(layer.in_features, layer.out_features)


# ------------------------------------------------------------------------------------------------------------- parts


def _what_is_shared(module: nn.Module, plan: LayerPlan) -> dict[str, object]:
    """What must be alike in all layers of a group, in words that errors use."""
    form, ready = plan.format, isinstance(module, TTLinear)
    linear, weight = (module, module.core0) if ready else (as_linear(module), module.weight)
    planned = TTLinear(linear.in_features, linear.out_features, **vars(alone(form, linear)), device="meta")
    return {
        "formats": form,
        "quantizers": plan.quantize,
        "shapes": [tuple(planned.cores[k].shape) for k in form.cores],
        "dtypes": weight.dtype,
        "devices": weight.device,
        "settings of requires_grad": weight.requires_grad,
    }


def _start_(layer: TTLinear, cores: Sequence[Tensor], bias: Tensor | None, moments: Moments | None) -> None:
    layer.set_cores(cores)
    if bias is not None:
        layer.bias.copy_(bias)
    if moments is not None:
        keep_mean_output_(layer, moments)


def _keep_deviations_(layers: Sequence[TTLinear], form: Shared) -> None:
    """Let the product of each layer keep the deviation it was drawn with, when it gets the first layer's cores."""
    (own,) = {*range(layers[0].order)} - {*form.cores}
    for layer in layers:
        for k in form.cores:
            getattr(layer, f"core{own}").mul_(layer.cores[k].norm() / layers[0].cores[k].norm())


def _of_outputs(weight: Tensor, moments: Moments | None, centred: bool) -> Tensor:
    """The second moments of what a layer gives, (outputs, outputs); of W itself where nothing was seen."""
    if moments is None:
        return weight.T @ weight
    if moments.of_inputs:
        return weight.T @ moments.inputs.second_moment(centred) @ weight
    return moments.outputs.second_moment(centred)


def _of_inputs(weight: Tensor, moments: Moments | None, centred: bool) -> Tensor:
    """The second moments of what a layer is given, (inputs, inputs), with all eigenvalues above 0; 1 if unseen."""
    if moments is None:
        return torch.eye(len(weight), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(moments.inputs.second_moment(centred))
    least = (RIDGE * values.mean()).clamp_min(torch.finfo(torch.float64).tiny)
    return (vectors * values.clamp_min(least)) @ vectors.T


def _common_rows(weights: Sequence[Tensor], inputs: Sequence[Tensor], rank: int) -> Tensor:
    """The directions of inputs, orthonormal (inputs, rank), that all layers together need most."""
    values, vectors = torch.linalg.eigh(sum(inputs) / len(inputs))
    root = vectors * values.sqrt()  # root rootᵀ is the mean
    wide = sum((seen := root.T @ weight) @ seen.T for weight in weights)
    return torch.linalg.qr((vectors / values.sqrt()) @ top_eigenvectors(wide, rank)).Q


def _balanced(layers: Sequence[Sequence[Tensor]], shared: Sequence[int]) -> list[list[Tensor]]:
    """The same products of cores whose norms are equal; of the core that a layer has alone, on the mean of all."""
    means = [sum(float(cores[k].norm()) ** 2 for cores in layers) ** 0.5 for k in range(len(layers[0]))]
    sizes = [mean / len(layers) ** 0.5 for mean in means]
    common = prod(size ** (1 / len(sizes)) for size in sizes)
    if not common:  # weights of zeros
        return [list(cores) for cores in layers]
    first = [core * (common / size) for core, size in zip(layers[0], sizes)]
    return [
        [first[k] if k in shared else core * (common / sizes[k]) for k, core in enumerate(cores)] for cores in layers
    ]
