"""Whether a student and a teacher fit each other, and which of their layers belong together: known before training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import nn
from transformers import PreTrainedModel

from ..inventory.stacks import stack_of
from .matching import size_of, sizes_of
from .schedules import Schedule
from .stages import Stage


def stages_of(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    schedules: Schedule | Sequence[Schedule],
    layer_map: Mapping[int, int] | None = None,
) -> list[Stage]:
    """The stages of schedules that follow each other, for this pair of models. `layer_map` as in `DistillTrainer`.

    Raises:
        ValueError: the two models do not fit each other, or one of the stages.
    """
    schedules = [schedules] if isinstance(schedules, Schedule) else list(schedules)
    if not schedules or not all(isinstance(schedule, Schedule) for schedule in schedules):
        raise ValueError(f"stages must be a schedule such as ttq.LayerByLayer(500), or several, got {schedules!r}")
    if {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}:
        raise ValueError("student and teacher share parameters: make the student from copy.deepcopy(teacher)")
    for who, model in (("student", student), ("teacher", teacher)):
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(
                f"the {who}, a {type(model).__name__}, is an encoder-decoder, which cannot be distilled; "
                "ttq.QATTrainer trains it on the task alone"
            )
    sizes = [getattr(model.config, "vocab_size", None) for model in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"student and teacher must have one vocabulary, theirs have {sizes[0]} and {sizes[1]} ids")
    sizes_of(student, teacher, "num_hidden_layers")  # one stack each, or there are no hidden states to observe
    by_layers = layer_map is not None or any(schedule.by_layers for schedule in schedules)
    layers = checked_layer_map(student, teacher, layer_map) if by_layers else {}
    stages = [stage for schedule in schedules for stage in schedule.stages(layers)]
    for stage in stages:
        if stage.only is not None:
            layer_parameters(student, stage.only)
    return [
        replace(stage, matches=tuple(match.fitted(student, teacher) for match in stage.matches)) for stage in stages
    ]


def checked_layer_map(
    student: PreTrainedModel, teacher: PreTrainedModel, layer_map: Mapping[int, int] | None
) -> dict[int, int]:
    """The teacher's layer for each of the student's 0 … L, where 0 are the embeddings; by default layer for layer.

    Raises:
        ValueError: none is given where one is needed, or it does not map embeddings to embeddings and each layer of
            the student to a later one of the teacher than the layer before.
    """
    depth, height = sizes_of(student, teacher, "num_hidden_layers")
    if depth > height:
        raise ValueError(f"{depth} layers of the student cannot be matched to {height} of the teacher, one to one")
    if layer_map is None:
        if depth != height:
            example = {layer: round(layer * height / depth) for layer in range(depth + 1)}
            raise ValueError(
                f"the student has {depth} layers, the teacher {height}: say which of the teacher's layers each of the "
                f"student's is matched to, 0 for the embeddings, such as layer_map={example}"
            )
        return {layer: layer for layer in range(depth + 1)}
    problem = None
    if sorted(layer_map) != list(range(depth + 1)):
        problem = f"it must name each of 0 … {depth}, the student's embeddings and layers"
    elif layer_map[0] != 0:
        problem = "embeddings, 0, belong to embeddings"
    elif not all(layer in range(height + 1) for layer in layer_map.values()):
        problem = f"the teacher's layers are 1 … {height}"
    elif not all(layer_map[lower] < layer_map[upper] for lower, upper in pairwise(range(depth + 1))):
        problem = "layers must keep their order"
    if problem:
        raise ValueError(f"layer_map={dict(layer_map)}: {problem}")
    return dict(layer_map)


def layer_parameters(model: PreTrainedModel, layer: int) -> list[nn.Parameter]:
    """The parameters of one layer; of layer 0, the embeddings, all that lie in no layer.

    Heads are among those too, but what matches the embeddings gives them no gradient.

    Raises:
        ValueError: the model does not keep its layers in one `nn.ModuleList`.
    """
    depth = size_of("student", model, "num_hidden_layers")
    layers, _ = stack_of(model) or (None, None)
    if layers is None:
        raise ValueError(f"freeze needs layers in one nn.ModuleList of {depth}, {type(model).__name__} has none")
    if layer:
        return list(layers[layer - 1].parameters())
    inside = {id(parameter) for parameter in layers.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inside]
