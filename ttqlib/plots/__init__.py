"""Every figure of the suite. A function takes numbers and returns a matplotlib `Figure`; it computes nothing itself.

Figures are closed in pyplot, so that a notebook shows each of them exactly once: as the value of its cell. Curves
differ by marker and line style as well as by colour.
"""

from .bars import bars, bars_beside, cost_bars, labelled_bars, quantized_histogram, shares
from .curves import error_against, lines, marked, trade_off, trade_offs
from .diagrams import layer_links, pictures, pipeline, tensor_network
from .maps import heat_map, similarities
from .networks import layer_network
from .points import agreement, dots, measured, roofline
from .stairs import grids, staircase

__all__ = [
    "agreement",
    "bars",
    "bars_beside",
    "cost_bars",
    "dots",
    "error_against",
    "grids",
    "heat_map",
    "labelled_bars",
    "layer_links",
    "layer_network",
    "lines",
    "marked",
    "measured",
    "pictures",
    "pipeline",
    "quantized_histogram",
    "roofline",
    "shares",
    "similarities",
    "staircase",
    "tensor_network",
    "trade_off",
    "trade_offs",
]
