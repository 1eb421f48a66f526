"""The schedules of `glue.py` and `xtc.py`, by name: each has --steps steps in all. A new one is one entry."""

from functools import partial

import ttqlib as ttq


def layer_by_layer(settings, config, **how) -> list[ttq.LayerByLayer]:
    """--layer-share of the steps for the embeddings and the layers, in equal parts, the others for the output.

    Raises:
        ValueError: fewer steps than stages.
    """
    stages = 1 + config.num_hidden_layers
    if settings.steps <= stages:
        raise ValueError(
            f"--steps must be at least {stages + 1} for --schedule {settings.schedule}, one for the embeddings, each "
            f"of {config.num_hidden_layers} layers and the output, got {settings.steps}"
        )
    each = min(max(1, round(settings.steps * settings.layer_share / stages)), (settings.steps - 1) // stages)
    steps, rates = [each] * stages + [settings.steps - each * stages], [None] * stages + [settings.last_learning_rate]
    return [ttq.LayerByLayer(steps, learning_rate=rates, temperature=settings.temperature, **how)]


def then_logits(settings, kind: type, **how) -> list:
    """A schedule that leaves the head alone, and then the logits, half of the steps each.

    Raises:
        ValueError: a single step.
    """
    if settings.steps < 2:
        raise ValueError(f"--steps must be at least 2 for --schedule {settings.schedule}, got {settings.steps}")
    first = settings.steps // 2
    output = {"learning_rate": settings.last_learning_rate, "temperature": settings.temperature}
    return [kind(first, **how), ttq.LogitsOnly(settings.steps - first, **output)]


SCHEDULES = {  # name → (settings, the student's config) → schedules that follow each other
    "layer_by_layer": layer_by_layer,
    "top_down": partial(layer_by_layer, order="top_down"),
    "one_by_one": partial(layer_by_layer, cumulative=False),
    "frozen": partial(layer_by_layer, freeze=True),
    "states": partial(layer_by_layer, attention=0.0),  # for models whose attention cannot be recorded
    "all_layers": lambda settings, _: [ttq.AllLayers(settings.steps, temperature=settings.temperature)],
    "single_stage": lambda settings, _: [ttq.SingleStage(settings.steps, temperature=settings.temperature)],
    "single_then_logits": lambda settings, _: then_logits(settings, ttq.SingleStage),
    "logits": lambda settings, _: [ttq.LogitsOnly(settings.steps, temperature=settings.temperature)],
    "relations": lambda settings, config: then_logits(
        settings, ttq.AttentionRelations, heads=config.num_attention_heads
    ),
    "contrastive": lambda settings, _: then_logits(settings, ttq.Contrastive),
    "task": lambda settings, _: [ttq.TaskOnly(settings.steps)],
}
