"""What the scripts that train have in common: resuming, sizes on disk, means over seeds, the digest of the data."""

import hashlib
import json
import shutil
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from results import record
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerState


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: a run may be killed while it writes one."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:  # the Trainer writes this file last
            step = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).global_step
            whole.append((step, str(checkpoint)))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)  # another process may be at it too
    return max(whole)[1] if whole else None


def stored_bytes(model: PreTrainedModel) -> int:
    """The size of the model's folder on disk."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def summary(values: list[float]) -> dict[str, float]:
    return {"mean": round(statistics.mean(values), 3), "sd": round(statistics.stdev(values), 3) if values[1:] else None}


def fingerprint(splits) -> str:
    """The SHA-256 of all rows of all splits, in order."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        for row in splits[name]:
            digest.update(json.dumps([name, row], sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def record_runs(name: str, reports: list[dict], scored: list[str], splits, **row) -> None:
    """Write and print a row of data/results/`name`.json for each split in `scored`; `row` is what they share.

    `reports` hold, for each seed, the metrics of a split under its name, and the `seconds` that it took.
    """
    seconds = sum(report["seconds"] for report in reports)
    ratio = round(row["dense_bytes"] / row["stored_bytes"], 2)
    for split in scored:
        metrics = {metric: summary([report[split][metric] for report in reports]) for metric in reports[0][split]}
        row |= {"split": split, "metrics": metrics, "ratio": ratio, "paper": None}
        record(name, row, seconds, data=row["task"], data_sha256=fingerprint(splits))
        print(row["method"], row["settings"], split, metrics, f"{ratio}× fewer bytes, {seconds:.0f} s")
