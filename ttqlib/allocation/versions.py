"""What candidates make of a weight, as `compress_` would: quantized, or of low rank, or a train, with its step sizes.

A low rank is made once, at the largest rank, and cut: of all smaller ones only a small triangle has to be decomposed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inventory.layout import layout_of
from ..layers.embedding import TTMEmbedding
from ..layers.linear import TTLinear
from ..quantizers.recipes import WeightRecipe
from ..surgery.calibration import Moments
from ..surgery.conversion import as_linear
from ..tensors.gauge import balance_norms, canonical_form, rotate_bonds
from ..tensors.tensor_train import at_least_float32, largest_positive, tt_svd

SAMPLE = 2**14  # numbers of a core that choose its step size: of more of them it would be the same but for a percent


@dataclass(frozen=True)
class Version:
    """A weight as a candidate makes it: the product of `factors`, (out, in) of a linear layer, (ids, width) of a table.

    `shift` is what a bias gains, (out).
    """

    factors: tuple[Tensor, ...]
    shift: Tensor | None = None


@dataclass(frozen=True)
class LowRank:
    """Weights of falling rank Y_r D_rᵀ, of the first r columns of Y (n, R) and of orthonormal D (m, R).

    Of a linear layer D are the directions of its outputs and Y = Wᵀ D (`surgery.calibration`), of a table Y = E D.
    """

    basis: Tensor  # (n, R), orthonormal
    triangle: Tensor  # (R, R), Y = basis · triangle
    directions: Tensor  # (m, R)

    @classmethod
    def of(cls, weight: Tensor, directions: Tensor) -> "LowRank":
        """`weight` (n, m), as it stands in x W or as a table; directions (m, R), the most wanted first."""
        return cls(*torch.linalg.qr(weight @ directions), directions)

    def cores(self, rank: int) -> list[Tensor]:
        """The two cores that TT-SVD gives of it, (1, n, rank) and (rank, m, 1), their norms balanced."""
        left, sizes, right = self._decomposed(rank)
        return balance_norms([left[None], (sizes[:, None] * right)[..., None]])

    def train(self, layer: TTLinear) -> list[Tensor]:
        """The cores that TT-SVD gives of the weight whose rank is that of the layer's middle bond.

        One side after the other: the other has orthonormal rows, so that its modes need not be looked at yet.
        """
        (n, m), half, ranks = (layer.in_features, layer.out_features), len(layer.in_modes), layer.ranks
        left, sizes, right = self._decomposed(ranks[half])
        left = F.pad(left * sizes, (0, 0, 0, prod(layer.in_modes) - n))
        *cores, last = tt_svd(left.reshape(*layer.in_modes, -1), (*ranks[: half + 1], 1))
        rest = F.pad(last[..., 0] @ right, (0, prod(layer.out_modes) - m))  # (r, m_1 ⋯ m_d)
        first, *others = tt_svd(rest.reshape(-1, *layer.out_modes[1:]), (1, *ranks[half + 1 :]))
        return balance_norms([*cores, first.reshape(len(rest), layer.out_modes[0], -1), *others])

    def _decomposed(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Its SVD: (n, rank), (rank), (rank, m), with the signs of TT-SVD, on which step sizes depend a little."""
        u, s, vt = torch.linalg.svd(self.triangle[:rank, :rank])
        vectors = self.basis[:, :rank] @ u
        positive = largest_positive(vectors)
        signs = (positive * vectors).sum(0).sign()
        return positive, s, signs[:, None] * vt @ self.directions[:, :rank].T


@torch.no_grad()
def quantized(tensor: Tensor, recipe: WeightRecipe | None) -> Tensor:
    """A core as its quantizer lets a layer see it; the step size is found on some of its numbers."""
    if recipe is None or not tensor.numel():
        return tensor
    if recipe.per != "tensor" or tensor.numel() <= SAMPLE:
        return recipe.build(tensor)(tensor)
    places = torch.randint(tensor.numel(), (SAMPLE,), generator=torch.Generator().manual_seed(0))
    return recipe.build(tensor.reshape(-1)[places])(tensor)


def turned(cores: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """Cores as `rotate_` turns them."""
    largest = max(range(len(cores)), key=lambda k: cores[k].numel())
    return balance_norms(rotate_bonds(canonical_form(cores, largest), seed))


# ------------------------------------------------------------------------------------------------------ linear layers


class LinearVersions:
    """Of a linear layer, whose calibration gave `moments`; ranks up to `largest`."""

    def __init__(self, layer: nn.Module, moments: Moments | None, largest: int, rotated: bool):
        self.layer, self.linear, self.moments, self.rotated = layer, as_linear(layer), moments, rotated
        self.weight = at_least_float32(self.linear.weight.detach())  # (out, in)
        self.low = None
        if moments is not None and largest:
            centred = self.linear.bias is not None
            directions = moments.principal_directions(self.weight, largest, centred).flip(1)
            self.low = LowRank.of(self.weight.T, directions.to(self.weight))

    @property
    def original(self) -> Version:
        return Version((self.weight,))

    def dense(self, recipe: WeightRecipe | None) -> Version:
        if recipe is None:
            return self.original
        own = at_least_float32(self.layer.weight.detach())
        made = recipe.build(own, layout_of(self.layer, "weight"))(own)
        return Version((made if self.linear is self.layer else made.T,))  # Conv1D keeps its weight the other way round

    def low_rank(self, rank: int, recipes: Iterable[WeightRecipe | None]) -> Iterator[Version]:
        """One for each recipe of its cores."""
        cores = self.low.cores(rank)
        shift = self._shift([cores[1][..., 0].T, cores[0][0].T])
        cores = turned(cores) if self.rotated else cores
        for recipe in recipes:
            left, right = (quantized(core, recipe) for core in cores)
            yield Version((right[..., 0].T, left[0].T), shift)

    def train(self, rank: int, recipes: Iterable[WeightRecipe | None]) -> Iterator[Version]:
        """One for each recipe of its cores; the middle bond has the rank of the weight."""
        layer = TTLinear(self.linear.in_features, self.linear.out_features, rank, device="meta")
        cores = self.low.train(layer)
        u, v = layer.merged(cores)
        shift = self._shift([v.T, u.T])
        cores = turned(cores) if self.rotated else cores
        for recipe in recipes:
            u, v = layer.merged([quantized(core, recipe) for core in cores])
            yield Version((v.T, u.T), shift)

    def _shift(self, factors: Sequence[Tensor]) -> Tensor | None:
        """What `keep_mean_output_` adds to the bias."""
        if self.linear.bias is None:
            return None
        mean = self.moments.inputs.mean.to(self.weight)
        return self.weight @ mean - factors[0] @ (factors[1] @ mean)


# ------------------------------------------------------------------------------------------------------------- tables


class TableVersions:
    """Of a table, of which only the rows `ids` are asked for; None, all of them, as where a head uses it too."""

    def __init__(self, table: nn.Embedding, moments: Moments | None, largest: int, rotated: bool, ids: Tensor | None):
        self.table, self.rotated = table, rotated
        self.ids = slice(None) if ids is None else ids
        self.weight = at_least_float32(table.weight.detach())
        self.low = None
        if moments is not None and largest:
            directions = moments.principal_directions(self.weight, largest, centred=False).flip(1)
            self.low = LowRank.of(self.weight, directions.to(self.weight))

    @property
    def original(self) -> Version:
        return Version((self.weight[self.ids],))

    def dense(self, recipe: WeightRecipe | None) -> Version:
        if recipe is None:
            return self.original
        rows = self.weight[self.ids] if recipe.per != "tensor" else self.weight
        made = recipe.build(rows)(rows)
        return Version((made if recipe.per != "tensor" else made[self.ids],))

    def low_rank(self, rank: int, recipes: Iterable[WeightRecipe | None]) -> Iterator[Version]:
        """One for each recipe of its cores."""
        cores = self.low.cores(rank)
        cores = turned(cores) if self.rotated else cores
        for recipe in recipes:
            left, right = (quantized(core, recipe) for core in cores)
            yield Version((left[0][self.ids], right[..., 0]))

    def train(self, rank: int, recipes: Iterable[WeightRecipe | None]) -> Iterator[Version]:
        layer = TTMEmbedding.from_embedding(self.table, rank).to(self.weight.dtype)
        cores = [core.detach().clone() for core in layer.cores]
        cores = turned(cores) if self.rotated else cores
        rows = torch.arange(layer.num_embeddings, device=self.table.weight.device)[self.ids]
        for recipe in recipes:
            layer.set_cores([quantized(core, recipe) for core in cores])
            yield Version((layer.rows(rows).detach(),))


# ------------------------------------------------------------------------------------------------------------ experts


class OwnVersions:
    """Of weights that their module reads by itself: dense only."""

    def __init__(self, layer: nn.Module, names: Sequence[str]):
        self.layer, self.weights = layer, {name: layer.get_parameter(name).detach() for name in names}

    @property
    def original(self) -> Version:
        return Version(tuple(map(at_least_float32, self.weights.values())))

    def dense(self, recipe: WeightRecipe) -> Version:
        return Version(
            tuple(
                recipe.build(weight, layout_of(self.layer, name))(at_least_float32(weight))
                for name, weight in self.weights.items()
            )
        )
