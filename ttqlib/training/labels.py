"""What the labels of two classifiers are, and in which order those of a student stand at its teacher."""

from torch import Tensor
from transformers import PreTrainedConfig

# transformers' own names for what labels are
SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def problem_type(config: PreTrainedConfig, labels: Tensor | None = None) -> str:
    """What the labels are, as transformers' models decide it at their first labelled batch."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return REGRESSION
    return MULTI if isinstance(labels, Tensor) and labels.is_floating_point() else SINGLE


def label_order(student: PreTrainedConfig, teacher: PreTrainedConfig) -> tuple[int, ...]:
    """For each of the student's labels the number of the teacher's label with that name, in any case of letters.

    They are put in order instead of refused: it is the name that says what a label means, and checkpoints of the same
    task do number their labels differently. Names that nobody gave, LABEL_0 …, say nothing where the other model has
    real ones; then numbers count. A lone label needs no name.

    Raises:
        ValueError: both have names of their own, and not the same ones, or one of them twice.
    """
    ours, theirs = (
        [str(config.id2label[number]).casefold() for number in sorted(config.id2label, key=int)]
        for config in (student, teacher)
    )
    unnamed = [f"label_{number}" for number in range(len(ours))]
    if ours == theirs or len(ours) == 1:
        return tuple(range(len(ours)))
    if sorted(ours) == sorted(set(theirs)):
        return tuple(map(theirs.index, ours))
    if unnamed in (ours, theirs):
        return tuple(range(len(ours)))
    names = ", ".join(sorted(set(ours) ^ set(theirs))) or "one name stands there twice"
    raise ValueError(f"student and teacher must have the same label names in config.id2label, theirs differ: {names}")
