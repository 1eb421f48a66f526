"""Every widget of the suite, in one style: labelled controls, one figure that is replaced, one line of read-out.

What a control changes is computed by a plain function, usable and tested without any widget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod

import ipywidgets as widgets
import opt_einsum
from matplotlib.figure import Figure
from opt_einsum.paths import ssa_to_linear
from torch import Tensor, nn

from . import plots
from .layers import TTLinear
from .measure import relative_error
from .shapes import clip_ranks, factorize, largest_rank, tt_parameters, whole_number
from .tensor_train import tt_matrix, tt_matrix_to_matrix, tt_svd, tt_to_tensor


class Explorer(widgets.VBox):
    """Controls above a picture and a read-out; `draw(**values)` returns both, as a Figure and a string.

    `controls[name].value = …` moves a control from code, `readout.value` is the text that stands under the picture.
    """

    def __init__(self, controls: Mapping[str, widgets.Widget], draw: Callable[..., tuple[Figure, str]]):
        self.controls, self._draw = dict(controls), draw
        self.picture, self.readout = widgets.Image(format="png"), widgets.HTML()
        self.picture.layout = widgets.Layout(max_width="100%", align_self="flex-start")  # a VBox would stretch it
        super().__init__([*self.controls.values(), self.picture, self.readout])
        for part, name in ((self, "ttq-explorer"), (self.picture, "ttq-figure"), (self.readout, "ttq-readout")):
            part.add_class(name)
        for control in self.controls.values():
            control.observe(self._redraw, "value")
        self._redraw()

    def _redraw(self, _change=None) -> None:
        figure, text = self._draw(**{name: control.value for name, control in self.controls.items()})
        image = BytesIO()
        figure.savefig(image, format="png")
        self.picture.value, self.readout.value = image.getvalue(), text

    def __repr__(self) -> str:
        # what a reader sees on a page that shows no widgets, and what nbval compares
        return f"Explorer({', '.join(self.controls)}): run this cell in JupyterLab to move it"


@dataclass(frozen=True)
class StoredPoint:
    """The weight of a layer as a tensor train of rounded cores: what it costs, and where the error comes from."""

    stored_bytes: int  # packed codes, and a step size of 4 bytes for each core
    ratio: float  # bytes of the matrix in float32 over `stored_bytes`
    errors: dict[str, float]  # relative: of the rank alone, of the rounding alone, and of both

    def __str__(self) -> str:
        kilobytes = f"{self.stored_bytes / 1000:,.1f} kB, {self.ratio:.0f}× fewer bytes"
        return kilobytes + f" | relative error {self.errors['both']:.1%}"


def stored_point(layer: nn.Linear, rank: int, bits: int, rounded: Callable[[Tensor, int], Tensor]) -> StoredPoint:
    """The weight of `layer` by TT-SVD at this rank, each core then replaced by `rounded(core, bits)`."""
    cores = [core.detach() for core in TTLinear.from_linear(layer, rank).cores]
    matrix = layer.weight.detach().T  # inputs × outputs, as the cores have it
    exact, coarse = (tt_to_tensor(c).reshape(matrix.shape) for c in (cores, [rounded(core, bits) for core in cores]))
    errors = {
        "rank alone": relative_error(matrix, exact),
        "rounding alone": relative_error(exact, coarse),
        "both": relative_error(matrix, coarse),
    }
    stored = sum((core.numel() * bits + 7) // 8 + 4 for core in cores)
    return StoredPoint(stored, matrix.numel() * 4 / stored, errors)


def rank_and_bits(
    layer: nn.Linear,
    rounded: Callable[[Tensor, int], Tensor],
    ranks: Sequence[int] = (4, 8, 15, 30, 60, 120, 240),
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
) -> Explorer:
    """Drag the rank of one layer and the bits of its cores; `rounded(core, bits)` does the rounding."""
    controls = {
        name: widgets.SelectionSlider(
            options=list(options), value=options[len(options) // 2], description=label, continuous_update=False
        )
        for name, label, options in (("rank", "TT-rank", ranks), ("bits", "bits", bits))
    }

    def draw(rank: int, bits: int) -> tuple[Figure, str]:
        point = stored_point(layer, rank, bits, rounded)
        return plots.bars(point.errors, "relative error"), str(point)

    return Explorer(controls, draw)


@dataclass(frozen=True)
class TTPoint:
    """A tensor at one choice of mode sizes and rank."""

    ranks: tuple[int, ...]
    parameters: int
    ratio: float  # numbers in the full tensor over numbers in the cores
    error: float  # relative, in the Frobenius norm
    approximation: Tensor  # in the shape of the original

    def __str__(self) -> str:
        return (
            f"ranks {' · '.join(map(str, self.ranks))} | {self.parameters:,} numbers, {self.ratio:.1f}× fewer "
            f"| relative error {self.error:.1%}"
        )


def tt_point(tensor: Tensor, modes: Sequence[int], rank: int) -> TTPoint:
    """TT-SVD at this rank of `tensor` reshaped to `modes`, and what it costs and loses."""
    if prod(modes) != tensor.numel():
        raise ValueError(f"modes {tuple(modes)} multiply out to {prod(modes)}, the tensor has {tensor.numel()} entries")
    ranks = clip_ranks(modes, rank)
    approximation = tt_to_tensor(tt_svd(tensor.reshape(modes), ranks)).reshape(tensor.shape)
    parameters = tt_parameters(modes, ranks)
    return TTPoint(ranks, parameters, tensor.numel() / parameters, relative_error(tensor, approximation), approximation)


def tt(picture: Tensor, splits: Mapping[str, Sequence[int]], rank: int = 16, largest: int = 96) -> Explorer:
    """Drag the rank of a picture's tensor train, and choose how its axes are split into modes.

    Args:
        picture: (rows, columns) or (rows, columns, 3), entries from 0 to 1.
        splits: the mode sizes to choose from: a label for each tuple of mode sizes.
        rank, largest: where the slider starts and ends.
    """
    controls = {
        "modes": widgets.Dropdown(options=list(splits), description="mode sizes"),
        "rank": widgets.IntSlider(rank, 1, largest, description="TT-rank", continuous_update=False),
    }

    def draw(modes: str, rank: int) -> tuple[Figure, str]:
        point = tt_point(picture, splits[modes], rank)
        images = {"original": picture, f"TT-rank {rank}": point.approximation}
        return plots.pictures(images), str(point)

    return Explorer(controls, draw)


@dataclass(frozen=True)
class FormatPoint:
    """A matrix in one format, at the largest rank that a budget allows."""

    rank: int
    parameters: int
    error: float  # relative, in the Frobenius norm

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.parameters:,} numbers, relative error {self.error:.1%}"


def matrix_formats(matrix: Tensor, parameters: int) -> dict[str, FormatPoint]:
    """`matrix` as a low-rank product, a TT and a TT-matrix, each of at most `parameters` numbers.

    A format that does not fit, not even at rank 1, is left out.
    """
    rows, columns = factorize(matrix.shape[0]), factorize(matrix.shape[1])[::-1]
    if prod(rows) != matrix.shape[0] or prod(columns) != matrix.shape[1]:
        raise ValueError(f"pad the matrix first: {tuple(matrix.shape)} does not factor into {rows} and {columns}")
    modes = {
        "low rank": tuple(matrix.shape),  # a train of two cores
        "TT": rows + columns,
        "TT-matrix": tuple(m * n for m, n in zip(rows, columns, strict=True)),
    }
    points = {}
    for name, sizes in modes.items():
        if tt_parameters(sizes, 1) > parameters:
            continue
        rank = largest_rank(sizes, parameters)
        if name == "TT-matrix":
            approximation = tt_matrix_to_matrix(tt_matrix(matrix, rows, columns, rank))
        else:
            approximation = tt_to_tensor(tt_svd(matrix.reshape(sizes), rank)).reshape(matrix.shape)
        points[name] = FormatPoint(rank, tt_parameters(sizes, rank), relative_error(matrix, approximation))
    return points


def formats(matrices: Mapping[str, Tensor], ratios: Sequence[int] = (4, 6, 10, 20, 40, 80, 160)) -> Explorer:
    """Drag how many times fewer numbers may be kept; three formats compete on the chosen matrix."""
    controls = {
        "matrix": widgets.Dropdown(options=list(matrices), description="matrix"),
        "ratio": widgets.SelectionSlider(
            options=[(f"1/{ratio}", ratio) for ratio in ratios],
            value=ratios[len(ratios) // 2],
            description="keep",
            continuous_update=False,
        ),
    }

    def draw(matrix: str, ratio: int) -> tuple[Figure, str]:
        points = matrix_formats(matrices[matrix], matrices[matrix].numel() // ratio)
        figure = plots.bars({name: point.error for name, point in points.items()}, "relative error")
        return figure, "<br>".join(f"{name}: {point}" for name, point in points.items())

    return Explorer(controls, draw)


def contraction_orders(
    in_modes: Sequence[int], out_modes: Sequence[int], rank: int | Sequence[int], rows: int
) -> dict[str, int]:
    """FLOPs of one forward pass of a TT layer for `rows` input rows, in several orders of contraction.

    "left to right" multiplies the input by one core after the other; "sides first" merges U and V and is what
    `TTLinear` does in training; "weight first" builds W = U V; "opt_einsum" is the best order that opt_einsum finds
    among all pairwise ones (Smith & Gray 2018). A multiply-add counts as 2.
    """
    whole_number("rows", rows)
    modes, half = (*in_modes, *out_modes), len(in_modes)
    ranks, count = clip_ranks(modes, rank), len(modes) + 1  # operands: the input is number 0, the cores 1 … 2d
    mode, bond = ([opt_einsum.get_symbol(start + k) for k in range(count)] for start in (1, count + 1))
    cores = [bond[k] + mode[k] + bond[k + 1] for k in range(count - 1)]
    cores[0], cores[-1] = cores[0][1:], cores[-1][:-1]  # the outer ranks are 1
    batch = opt_einsum.get_symbol(0)
    equation = f"{','.join([batch + ''.join(mode[:half]), *cores])}->{batch}{''.join(mode[half:-1])}"
    sizes = dict(zip(mode, modes)) | dict(zip(bond, ranks)) | {batch: rows}
    shapes = [tuple(sizes[letter] for letter in term) for term in equation.split("->")[0].split(",")]

    def cost(order) -> int:
        return int(opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=order)[1].opt_cost)

    def product(steps: list, operands: Sequence[int]) -> int:
        """Append the steps that multiply `operands` one after the other; the number of the result."""
        result = operands[0]
        for operand in operands[1:]:
            steps.append((result, operand))
            result = count + len(steps) - 1
        return result

    chain, sides = [], []
    product(chain, range(count))
    u, v = product(sides, range(1, half + 1)), product(sides, range(count - 1, half, -1))
    weight = list(sides)
    product(sides, [0, u, v])
    product(weight, [0, product(weight, [u, v])])
    named = {"left to right": chain, "sides first": sides, "weight first": weight}
    return {name: cost(ssa_to_linear(steps)) for name, steps in named.items()} | {"opt_einsum": cost("optimal")}


def orders(
    layers: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    rows: Sequence[int] = (1, 8, 32, 128, 512, 2048, 8192),
    rank: int = 30,
    largest: int = 120,
) -> Explorer:
    """Drag the rank of a TT layer and the rows that it sees; the orders of contraction compete with a dense layer.

    `layers` are the sizes to choose from: a label for each pair of input and output modes.
    """
    controls = {
        "layer": widgets.Dropdown(options=list(layers), description="layer"),
        "rows": widgets.SelectionSlider(
            options=list(rows), value=rows[len(rows) // 2], description="rows", continuous_update=False
        ),
        "rank": widgets.IntSlider(rank, 1, largest, description="TT-rank", continuous_update=False),
    }

    def draw(layer: str, rows: int, rank: int) -> tuple[Figure, str]:
        inputs, outputs = layers[layer]
        costs = contraction_orders(inputs, outputs, rank, rows)
        costs["dense layer"] = 2 * rows * prod(inputs) * prod(outputs)
        stored = tt_parameters((*inputs, *outputs), rank)
        figure = plots.cost_bars({name: cost / 1e6 for name, cost in costs.items()}, "million FLOPs, forward")
        best = min(costs, key=costs.get)
        return figure, (
            f"{stored:,} numbers for {prod(inputs) * prod(outputs):,} | {rows:,} rows: fewest FLOPs by {best}, "
            f"{costs['dense layer'] / costs[best]:.1f}× fewer than the dense layer"
        )

    return Explorer(controls, draw)
