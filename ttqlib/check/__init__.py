"""The checks behind the exercises: each takes the reader's function, tries it on random inputs and says what is wrong.

A failed check is one plain line, without a traceback. Checks test what the result must satisfy, so any correct way to
write the function passes. One file a subject.
"""

from . import assignments
from .allocation import fewest_bytes, lower_hull, predicted_kl, training_costs
from .beyond import numbers_and_flops, rows_of_patches, samples_a_second
from .deployment import compute_bound_rows, largest_rank, ride_along
from .distillation import attention_loss, even_map
from .equivalent import alpha_gradient, awq_scale, best_exponent, scaled_pair
from .extreme import best_ternary, binary_rows, quantize_tokens, words_rank
from .layers import tt_layer
from .models import (
    corrected_bias,
    fitting_plan,
    mean_pool,
    rank_for,
    rest_bits,
    smallest_within,
    standard_errors,
)
from .quantization import (
    affine_quantize,
    best_step,
    learned_step,
    pack_bits,
    pareto,
    product_error,
    step_gradient,
    stored_bytes,
)
from .trains import (
    core_gradient,
    core_scale,
    digits,
    embedding_row,
    interleave,
    tt_add,
    tt_entry,
    tt_forward,
    tt_storage,
)
from .verdict import CheckFailed

__all__ = [
    "CheckFailed",
    "affine_quantize",
    "alpha_gradient",
    "assignments",
    "attention_loss",
    "awq_scale",
    "best_exponent",
    "best_step",
    "best_ternary",
    "binary_rows",
    "compute_bound_rows",
    "core_gradient",
    "core_scale",
    "corrected_bias",
    "digits",
    "embedding_row",
    "even_map",
    "fewest_bytes",
    "fitting_plan",
    "interleave",
    "largest_rank",
    "learned_step",
    "lower_hull",
    "mean_pool",
    "numbers_and_flops",
    "pack_bits",
    "pareto",
    "predicted_kl",
    "product_error",
    "quantize_tokens",
    "rank_for",
    "rest_bits",
    "ride_along",
    "rows_of_patches",
    "samples_a_second",
    "scaled_pair",
    "smallest_within",
    "standard_errors",
    "step_gradient",
    "stored_bytes",
    "training_costs",
    "tt_add",
    "tt_entry",
    "tt_forward",
    "tt_layer",
    "tt_storage",
    "words_rank",
]
