"""Several processes that train one model, as torchrun and `accelerate launch` start them, share a step and its rows."""

import argparse
import os

PROCESSES = int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Of several processes one writes."""
    return int(os.environ.get("RANK", 0)) == 0


def of_step(batch_size: int, options: argparse.Namespace) -> dict[str, int]:
    """What TrainingArguments need to make each step of `batch_size` rows, however many processes share them.

    So a row of results means the same on one process and on four, and a run may go on with another number of them.

    Raises:
        ValueError: they cannot be shared out evenly.
    """
    parts = PROCESSES * options.accumulate
    if batch_size % parts:
        shares = f"{PROCESSES} processes with --accumulate {options.accumulate}"
        raise ValueError(f"a step has {batch_size} rows, which {shares} cannot share evenly: take another number")
    return {"per_device_train_batch_size": batch_size // parts, "gradient_accumulation_steps": options.accumulate}
