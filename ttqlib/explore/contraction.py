"""Orders of contraction: what a tensor-train layer costs in each of them."""

from collections.abc import Mapping, Sequence
from math import prod

import opt_einsum
from matplotlib.figure import Figure
from opt_einsum.paths import ssa_to_linear

from .. import plots
from ..tensors.shapes import clip_ranks, tt_parameters, whole_number
from .explorer import Explorer, choice, stops, whole

HINT = (
    "Try few rows, then many: left to right is cheap for few, merging the sides first for many; past some rank "
    "every order costs more than the dense layer."
)


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
        "layer": choice("layer, inputs → outputs", layers),
        "rows": stops("rows (sentences × tokens)", rows, rows[len(rows) // 2]),
        "rank": whole("TT-rank", rank, 1, largest),
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

    return Explorer(controls, draw, hint=HINT)
