"""Every widget of the suite, in one style: labelled controls, one figure that is replaced, one line of read-out.

What a control changes is computed by a plain function, usable and tested without any widget. One file a subject.
"""

from .contraction import contraction_orders, orders
from .explorer import Explorer
from .quantization import StoredPoint, rank_and_bits, stored_point
from .trains import FormatPoint, TTPoint, formats, matrix_formats, tt, tt_point

__all__ = [
    "Explorer",
    "FormatPoint",
    "StoredPoint",
    "TTPoint",
    "contraction_orders",
    "formats",
    "matrix_formats",
    "orders",
    "rank_and_bits",
    "stored_point",
    "tt",
    "tt_point",
]
