"""Every widget of the suite, in one style: labelled controls, one figure that is replaced, one line of read-out.

What a control changes is computed by a plain function, usable and tested without any widget. One file a subject.
"""

from ..measures.roofline import Machine, Work, layer_work, this_machine
from ..plans.groups import GROUPS, Choice, plan_by_groups
from .app.builder import PlanApp
from .budgets import BudgetPoint, budget, budget_figure, budget_point, budget_text, choice_in_words, short_name
from .builder import PlanBuilder, chosen_by, plan_figure, plan_text
from .contraction import contraction_orders, orders
from .deployment import Saving, roofline, roofline_figure, saving
from .equivalent import RecipePoint, recipes, recipes_figure, recipes_text
from .explorer import Explorer
from .extreme import ExtremePoint, extreme, extreme_figure, extreme_points, extreme_text
from .groups import GroupPlan
from .hidden_states import (
    DamagePoint,
    StudentPoint,
    damage,
    damage_figure,
    distillation,
    distillation_figure,
    student_point,
)
from .measured import MeasuredPlans, PlanCost, PlanPoint, plan_cost, skeleton
from .quantization import (
    RoundedPoint,
    StepPoint,
    StoredPoint,
    dense_points,
    pareto,
    pareto_figure,
    pareto_front,
    rank_and_bits,
    rank_bit_points,
    step_point,
    steps,
    stored_point,
)
from .scaling import WIDTHS, ScalingPoint, scaling, scaling_figure, scaling_point
from .trains import FormatPoint, TTPoint, formats, matrix_formats, tt, tt_point

__all__ = [
    "GROUPS",
    "WIDTHS",
    "BudgetPoint",
    "Choice",
    "DamagePoint",
    "Explorer",
    "ExtremePoint",
    "FormatPoint",
    "GroupPlan",
    "Machine",
    "MeasuredPlans",
    "PlanApp",
    "PlanBuilder",
    "PlanCost",
    "PlanPoint",
    "RecipePoint",
    "RoundedPoint",
    "Saving",
    "ScalingPoint",
    "StepPoint",
    "StoredPoint",
    "StudentPoint",
    "TTPoint",
    "Work",
    "budget",
    "budget_figure",
    "budget_point",
    "budget_text",
    "choice_in_words",
    "chosen_by",
    "contraction_orders",
    "damage",
    "damage_figure",
    "dense_points",
    "distillation",
    "distillation_figure",
    "extreme",
    "extreme_figure",
    "extreme_points",
    "extreme_text",
    "formats",
    "layer_work",
    "matrix_formats",
    "orders",
    "pareto",
    "pareto_figure",
    "pareto_front",
    "plan_by_groups",
    "plan_cost",
    "plan_figure",
    "plan_text",
    "rank_and_bits",
    "rank_bit_points",
    "recipes",
    "recipes_figure",
    "recipes_text",
    "roofline",
    "roofline_figure",
    "saving",
    "scaling",
    "scaling_figure",
    "scaling_point",
    "short_name",
    "skeleton",
    "step_point",
    "steps",
    "stored_point",
    "student_point",
    "this_machine",
    "tt",
    "tt_point",
]
