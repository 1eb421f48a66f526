"""Every widget of the suite, in one style: labelled controls, one figure that is replaced, one line of read-out.

What a control changes is computed by a plain function, usable and tested without any widget. One file a subject.
"""

from .contraction import contraction_orders, orders
from .damage import DamagePoint, damage, damage_figure
from .explorer import Explorer
from .pareto import RoundedPoint, dense_points, pareto, pareto_figure, pareto_front, rank_bit_points
from .quantization import StepPoint, StoredPoint, rank_and_bits, step_point, steps, stored_point
from .trains import FormatPoint, TTPoint, formats, matrix_formats, tt, tt_point

__all__ = [
    "DamagePoint",
    "Explorer",
    "FormatPoint",
    "RoundedPoint",
    "StepPoint",
    "StoredPoint",
    "TTPoint",
    "contraction_orders",
    "damage",
    "damage_figure",
    "dense_points",
    "formats",
    "matrix_formats",
    "orders",
    "pareto",
    "pareto_figure",
    "pareto_front",
    "rank_and_bits",
    "rank_bit_points",
    "step_point",
    "steps",
    "stored_point",
    "tt",
    "tt_point",
]
