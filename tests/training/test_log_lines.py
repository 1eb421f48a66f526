"""What a distillation prints fits a line; what it records has every part of the loss."""

import pytest

import ttqlib as ttq
from tests.training.test_distill import bert, tensor_train, trainer
from ttqlib.training.log_lines import one_line


@pytest.mark.parametrize("bars", [False, True], ids=["plain", "bars"])
def test_a_log_is_one_line_with_the_largest_part(bars, tmp_path, capsys):
    teacher, stages = bert(), ttq.AllLayers(steps=2)
    options = {"logging_strategy": "steps", "logging_steps": 1, "disable_tqdm": not bars}
    training = trainer(tmp_path, tensor_train(teacher), teacher, stages, **options)
    training.train()
    printed = [line for line in capsys.readouterr().out.splitlines() if "'stage'" in line]
    recorded = [log for log in training.state.log_history if "stage" in log]
    assert len(printed) == len(recorded) == 2
    for line, log in zip(printed, recorded):
        parts = {name: value for name, value in log.items() if name[0] == "L" or name in ("logits", "task")}
        largest = max(parts, key=parts.get)
        assert len(parts) > 5 and len(line) <= 120 and f"'largest part': '{largest} {parts[largest]:.4g}'" in line


def test_other_logs_are_printed_as_they_are():
    logs = {"eval_loss": 0.5, "epoch": 1.0}
    assert one_line(logs) is logs
