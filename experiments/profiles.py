"""Where a training step goes, part by part: `docs/profile.md`.

    python experiments/profiles.py                  # ATIS and a distillation on SST-2, on one thread and on all
    python experiments/profiles.py --record         # into data/results/profile.json, and the page from it

Let nothing else run meanwhile. The time of PyTorch's operations is that of its profiler, by kind. What a step takes
beyond them, without the profiler, is Python's and autograd's, between the operations. The floor is what products and
look-ups alone would take (`floor.py`). The steps of a distillation are timed in three parts: the teacher's pass, the
student's, and the rest: losses, the way back, the optimizer.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory

import glue
import torch
from contenders import training_step
from floor import Rates, Work, work
from results import ROOT, add_options, check_runs, place, read, record, row_of
from runs import finished, parse
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

import ttqlib as ttq
from ttqlib.training.unpadding import Unpadding

PAGE = ROOT / "docs" / "profile.md"
ROUNDS, STEPS = 5, 8
KINDS = {  # of PyTorch's operations; what is in none is worked element by element
    "products": ("mm", "bmm", "addmm", "_scaled_dot_product_flash_attention_for_cpu"),
    "random numbers": ("bernoulli_", "random_"),
    "GELU": ("gelu", "gelu_backward"),
    "softmax and norms": ("_softmax", "_log_softmax", "native_layer_norm", "_softmax_backward_data"),
    "optimizer": ("_fused_adamw_",),
}
KIND = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
KIND |= {f"aten::{name}": "softmax and norms" for name in ("native_layer_norm_backward", "_log_softmax_backward_data")}
REST, BETWEEN = "element by element", "between operations"
STUDENT = "--task sst2 --rank 48 --word-rank 96 --bits 3 --words low-rank --rest 8 --dropout 0 --schedule all_layers"
OPENING = """\
# Where a training step goes

Written by `python experiments/profiles.py --record` from `data/results/profile.json`. Milliseconds of one step, in
float32. The floor is what the step's matrix products and look-ups alone would take on this machine, at best.
The whole, its parts and the rates behind the floor are measured one after the other, each once: where the clock of the
machine drifts, parts need not add up to the whole, and a whole may lie below its floor.

The steps of ATIS are those of `experiments/atis.py`, 32 sentences, TT-rank 12, two cores a side, 4 bits for `tt-qat`,
with `ttq.merged_together` and `ttq.quick_dropout_`; the distillation is that of the 46× student of SST-2 by all layers.
`experiments/speed.py "eight steps of atis"` sets the same steps beside an older build.
"""


def parts(run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of a call by kind of operation, the whole, and its floor."""
    whole = ttq.interleaved_medians({"step": lambda: [run() for _ in range(STEPS)]}, ROUNDS)["step"] / STEPS
    found = dict.fromkeys([*KINDS, REST], 0.0)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(STEPS):
            run()
    for operation in seen.key_averages():
        if operation.key.startswith("aten::"):
            found[KIND.get(operation.key, REST)] += operation.self_cpu_time_total / 1000 / STEPS
    done = work(run)
    found[BETWEEN] = max(0.0, whole - sum(found.values()))
    return {**found, "whole": whole, "floor": Rates.measured().floor(done.flops, done.bytes)}


class Watch(TrainerCallback):
    """Times the steps of a training that it stops soon, and counts the work of the second, which takes longer so.

    In the first one it is tried whether padding can be left out.
    """

    def __init__(self):
        self.work, self.milliseconds, self.began = Work(), [], None

    def on_step_begin(self, args, state, control, **others):
        if len(self.milliseconds) == 1:
            self.work.__enter__()
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **others):
        self.milliseconds.append(1000 * (time.perf_counter() - self.began))
        if len(self.milliseconds) == 2:
            self.work.__exit__(None, None, None)
        control.should_training_stop = len(self.milliseconds) > 2 * STEPS


def distillation_parts() -> dict[str, float]:
    """Milliseconds of a step on SST-2, of the teacher and the student in it. The teacher's head is not trained."""
    settings, options = parse(glue.Glue, [*STUDENT.split(), "--teacher-epochs", "0", "--steps", "3000"])
    study = glue.Glue(settings, options)
    teacher = finished(study, *study.start(settings, 0))[0]
    student, watch = study.new(settings, teacher), Watch()
    with TemporaryDirectory() as folder:
        trainer = study.trainer(settings, student, teacher, {"output_dir": folder, "report_to": "none"})
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.add_callback(watch)
        trainer.train()

    inputs = {name: value for name, value in batch.items() if name != "labels"}

    def forward(model, grad: bool) -> None:
        with torch.set_grad_enabled(grad), ttq.merged_together(model):
            ttq.observe(model, inputs, tokens=tokens, maps=True)

    with ttq.recorded_attention(student.train(), teacher.eval()), Unpadding(student, teacher) as unpadding:
        tokens = unpadding.tokens(inputs, inputs)
        runs = {"teacher": partial(forward, teacher, False), "student": partial(forward, student, True)}
        found = ttq.interleaved_medians(runs, ROUNDS)
    whole = median(watch.milliseconds[2:])
    found |= {"losses, backward, optimizer": whole - sum(found.values()), "whole": whole}
    return {**found, "floor": Rates.measured().floor(watch.work.flops, watch.work.bytes)}


def measured() -> dict[str, Callable[[], dict[str, float]]]:
    """What is measured, by name."""
    steps = training_step("atis", ["dense", "tt", "tt-qat"], "cpu")
    return {**{name: partial(parts, one.run) for name, one in steps.items()}, "distillation": distillation_parts}


def page(rows: list[Mapping]) -> str:
    """The text of docs/profile.md."""
    tables = defaultdict(list)
    for row in rows:
        tables[row["split"], *row["metrics"]].append(row)
    lines = [OPENING]
    for (split, *names), those in tables.items():
        lines += [
            f"{split}, on {those[0]['machine']}:",
            "",
            f"| | {' | '.join(names)} |",
            f"|---{'|--:' * len(names)}|",
        ]
        lines += [f"| {row['method']} | {' | '.join(_mean(row, name) for name in names)} |" for row in those]
        lines.append("")
    return "\n".join(lines)


def _mean(row: Mapping, name: str) -> str:
    return f"{row['metrics'][name]['mean']:.1f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, "profile")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    path, threads = place("profile", options), torch.get_num_threads()
    for name, run in measured().items():
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            began = time.perf_counter()
            figures = {part: [milliseconds] for part, milliseconds in run().items()}
            task = "sst2" if name == "distillation" else "atis"
            row = row_of(figures, None, 32, [0], 1, 1) | {"task": task, "method": name, "settings": None}
            row["split"] = f"{count} thread{'s' * (count > 1)}"
            record(path, row, seconds=time.perf_counter() - began, data=task)
            print(f"{name}, {count}:", {part: round(values[0], 1) for part, values in figures.items()})
    if options.record:
        PAGE.write_text(page(read(path)), encoding="utf-8")


if __name__ == "__main__":
    main()
