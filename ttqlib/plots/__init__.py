"""Every figure of the suite. A function takes numbers and returns a matplotlib `Figure`; it computes nothing itself.

Figures are closed in pyplot, so that a notebook shows each of them exactly once: as the value of its cell. Curves
differ by marker and line style as well as by colour.
"""

from .bars import bars, cost_bars, quantized_histogram, shares
from .curves import error_against, lines, singular_value_decay, trade_off, trade_offs
from .diagrams import pictures, pipeline, tensor_network
from .maps import heat_map, similarities
from .points import dots, roofline

__all__ = [
    "bars",
    "cost_bars",
    "dots",
    "error_against",
    "heat_map",
    "lines",
    "pictures",
    "pipeline",
    "quantized_histogram",
    "roofline",
    "shares",
    "similarities",
    "singular_value_decay",
    "tensor_network",
    "trade_off",
    "trade_offs",
]
