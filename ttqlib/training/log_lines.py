"""What a distillation prints at each log: a line, where its record has a loss for each part of each layer."""

from collections.abc import Mapping

from transformers import PrinterCallback, ProgressCallback, Trainer

KEPT = ("loss", "learning_rate", "stage", "epoch")  # of every log; of the parts of the loss only the largest is printed
NOT_PARTS = {*KEPT, "grad_norm"}


def one_line(logs: Mapping) -> Mapping:
    """The logs of a stage without its parts but the largest; others as they are."""
    if "stage" not in logs:
        return logs
    parts = {name: value for name, value in logs.items() if name not in NOT_PARTS}
    largest = max(parts, key=parts.get, default=None)
    said = {"largest part": f"{largest} {parts[largest]:.4g}"} if parts else {}
    return {name: logs[name] for name in KEPT if name in logs} | said


class _OneLine:
    def on_log(self, args, state, control, logs=None, **others):
        super().on_log(args, state, control, logs=dict(one_line(logs or {})), **others)


class LinePrinter(_OneLine, PrinterCallback):
    """Prints one line a log."""


class LineProgress(_OneLine, ProgressCallback):
    """A progress bar, and one line a log."""


def print_lines_(trainer: Trainer) -> None:
    """Let a trainer print its logs in one line each. A notebook's own table and other reporters stay as they are."""
    for plain, short in ((PrinterCallback, LinePrinter), (ProgressCallback, LineProgress)):
        if any(type(callback) is plain for callback in trainer.callback_handler.callbacks):
            trainer.remove_callback(plain)
            trainer.add_callback(short)
