"""`DistillTrainer`: a student learns from its teacher stage by stage, with all that a `transformers.Trainer` can do."""

import copy
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature
from itertools import accumulate
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.utils import find_labels

from ..layers.together import merged_together
from .log_lines import print_lines_
from .observation import Observation, observe, recorded_attention, records_attention
from .pairing import layer_parameters, stages_of
from .qat import QATTrainer
from .schedules import Schedule
from .stages import Stage
from .unpadding import Unpadding, checkpoints

STAGES = "stages.json"  # in a training checkpoint: the stages that it was trained with
EXPLODED = 100.0  # how many times the loss that a stage began with (or 1, if that is more) a loss may be
INFINITE = 1e30  # what a loss is below: `attention_kl` is above where the student does not attend and its teacher does
OURS = {  # training arguments that would do nothing here: the value that they must have, and why
    "warmup_steps": (0, "a schedule has its own warmup"),
    "lr_scheduler_type": ("linear", "a schedule has its own decay"),
    "label_smoothing_factor": (0.0, "the loss on the labels is the model's own"),
    "torch_compile": (False, "what is computed changes with the stage"),
}


class StageSwitch(TrainerCallback):
    """Knows the stage of each step; when another begins, freezes what it does not train."""

    def __init__(self, stages: Sequence[Stage]):
        self.stages = stages
        self.ends = list(accumulate(stage.steps for stage in stages))
        self.number: int | None = None  # of the present stage, from 0
        self._frozen: list[nn.Parameter] = []

    def place(self, step: int) -> tuple[int, int]:
        """The number of the stage that `step` belongs to, and how many of its steps come before."""
        step = min(step, self.ends[-1] - 1)  # the scheduler also asks for the rate after the last one
        number = bisect_right(self.ends, step)
        return number, step - self.ends[number] + self.stages[number].steps

    def on_train_begin(self, args, state, control, **others):
        self.number = None

    def on_step_begin(self, args, state, control, model=None, **others):
        number, _ = self.place(state.global_step)
        if number == self.number:
            return
        self.number = number
        self.unfreeze()
        if (layer := self.stages[number].only) is not None:
            kept = {id(parameter) for parameter in layer_parameters(model, layer)}
            self._frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def unfreeze(self) -> None:
        """Let everything train again that a stage has frozen."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []


class DistillTrainer(QATTrainer):
    """Trains a student on what its teacher computes, one stage of a schedule after the other::

        trainer = ttq.DistillTrainer(model=student, teacher=teacher, stages=ttq.LayerByLayer(steps=500), args=args,
                                     train_dataset=rows, data_collator=collate)
        trainer.train()

    The rest is as in `QATTrainer` and `transformers.Trainer`: checkpoints and exact resumption, also in the middle of
    a stage, `torchrun`, autocast, logging. `max_steps` follows from the stages. Evaluation gives the student's own
    loss on the labels. Logs have the number of the stage and the parts of its loss, as means over the batches that
    the first process has seen since the last log.

    The teacher only computes: in eval mode, without gradients, on the student's device. It is in no state dict,
    checkpoint or optimizer. Each of the two models gets those columns of the data that its forward names. Labels that
    both configs name belong to each other by name.

    Layers compute no padding where both models show the same without it (`Unpadding`). Each loss is a mean over the
    real tokens, or the sentences, of a batch. Batches that are accumulated, or that
    several processes have, count the same; so they equal one large batch exactly where they hold equally many real
    tokens, else nearly. `Contrastive` looks for its negatives in each of them alone.

    Args:
        model: the student, a Hugging Face encoder or decoder with a head, dense or made by `compress_`.
        args: training arguments; `learning_rate` is for stages that name none.
        teacher: a model with the same vocabulary.
        stages: a schedule, or several that follow each other.
        layer_map: the teacher's layer that each of the student's is matched to, 0 for the embeddings, as in
            {0: 0, 1: 2, 2: 4}. It is needed where layers are matched and there are not equally many.
        options: as of `transformers.Trainer`.

    Raises:
        ValueError: student, teacher, stages or arguments do not fit each other. While it trains: a stage has nothing
            to train, the labels are of another kind than the configs say, attention is recorded under reentrant
            checkpointing, or a checkpoint to go on from was written under other stages.
        FloatingPointError: a loss or gradient is not finite, or a loss explodes. The message names the stage, the part
            of its loss, and the last good checkpoint.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        teacher: PreTrainedModel,
        stages: Schedule | Sequence[Schedule],
        layer_map: Mapping[int, int] | None = None,
        **options,
    ):
        self.teacher = teacher
        self.stages = stages_of(model, teacher, stages, layer_map)
        steps = sum(stage.steps for stage in self.stages)
        _check_arguments(args, steps)
        args = copy.copy(args)
        args.max_steps = steps
        args.ddp_find_unused_parameters = True  # hardly a stage trains all of them
        self._switch, self._unpadding = StageSwitch(self.stages), Unpadding(model, teacher)
        options["callbacks"] = [self._switch, *(options.get("callbacks") or ())]
        super().__init__(model, args, **options)
        print_lines_(self)
        self.model_accepts_loss_kwargs = False  # each loss is a mean, and the Trainer takes the mean of those
        self._teachers = _columns(teacher).difference(self.label_names)
        own = _columns(model)  # none, where it takes whatever it is given
        self._teachers_own = self._teachers - own if own else set()
        self._began: tuple[int, float] | None = None  # the number of a stage and the loss that it began with
        self._parts: dict[str, list[Tensor]] = defaultdict(list)  # what the next log is to show

    @property
    def stage(self) -> Stage:
        """The present stage, while it trains."""
        return self.stages[self._switch.number]

    def train(self, *arguments, **options):
        """As `transformers.Trainer.train`."""
        self._began = None
        self._parts.clear()
        self.teacher.to(self.args.device).eval()
        needed = any(match.needs_attention for stage in self.stages for match in stage.matches)
        if not needed and not (self.args.gradient_checkpointing or checkpoints(self.model)):
            needed = all(map(records_attention, (self.model, self.teacher)))  # then padding can be left out
        try:
            with recorded_attention(self.model, self.teacher) if needed else nullcontext(), self._unpadding:
                return super().train(*arguments, **options)
        finally:
            self._switch.unfreeze()

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        if self.lr_scheduler is None:
            default = self.args.learning_rate

            def share(step: int) -> float:  # of the default, which the optimizer was made with
                number, passed = self._switch.place(step)
                return self.stages[number].rate(passed, default) / default

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        for match in self.stage.matches:
            match.check_batch(self.model.config, inputs)
        needs_labels = any(match.needs_labels for match in self.stage.matches)
        left_out = self._teachers_own.union(() if needs_labels else self.label_names)
        teachers = {name: value for name, value in inputs.items() if name in self._teachers}
        inputs = {name: value for name, value in inputs.items() if name not in left_out}
        tokens = self._unpadding.tokens(inputs, teachers)
        plain = self.accelerator.unwrap_model(model)
        maps = any(match.needs_maps for match in self.stage.matches) and not checkpoints(plain)
        how = {"tokens": tokens, "maps": maps}
        with torch.no_grad(), self.accelerator.autocast():
            goal = observe(self.teacher, teachers, **how)

        def losses(forward: Callable, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            parts = self._losses(observe(forward, inputs, **how), goal)  # accelerate's autocast ends with `forward`
            return sum(parts.values()), {name: part.detach() for name, part in parts.items()}

        with _inside_forward(plain, losses), merged_together(plain):
            loss, parts = model(**inputs)
        self._check(loss, parts)
        for name, part in parts.items():
            self._parts[name].append(part)
        return loss

    def prediction_step(self, model: nn.Module, inputs: dict, *others, **options):
        inputs = {name: value for name, value in inputs.items() if name not in self._teachers_own}
        return super().prediction_step(model, inputs, *others, **options)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # what the student takes; the data must keep the teacher's, too
        self._signature_columns += sorted(self._teachers_own.difference(self._signature_columns))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            parts = {name: torch.stack(values).mean().item() for name, values in self._parts.items()}
            logs = {**logs, "stage": self._switch.number + 1, **parts}
            self._parts.clear()
        super().log(logs, start_time)

    def _losses(self, seen: Observation, goal: Observation) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        for match in self.stage.matches:
            parts |= match.parts(seen, goal)
        if not any(part.requires_grad for part in parts.values()):
            what = f"{', '.join(parts)} depend on no parameter that trains" if parts else "the batch holds no labels"
            raise ValueError(f"stage {self._switch.number + 1} ({self.stage.name}) has nothing to train: {what}")
        return parts

    def _check(self, loss: Tensor, parts: Mapping[str, Tensor]) -> None:
        value = loss.item()
        if self._began is None or self._began[0] != self._switch.number:
            self._began = self._switch.number, value
        if not value < INFINITE:  # or NaN
            name, part = next((name, part) for name, part in parts.items() if not part < INFINITE)
            forbidden = name.endswith("attention") and not part.isnan()
            why = ", the teacher attends where the student may not" if forbidden else ""
            raise FloatingPointError(self._diverged(f"{name} is {part:.4g}{why}"))
        if value > EXPLODED * max(self._began[1], 1):
            name, part = max(parts.items(), key=lambda item: item[1])
            raise FloatingPointError(self._diverged(f"{name} is {part:.4g}, the stage began at {self._began[1]:.4g}"))

    def _get_grad_norm(self, model: nn.Module, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and not isfinite(norm):  # float16's scaler would skip the step and go on
            raise FloatingPointError(self._diverged(f"the norm of the gradient is {float(norm):.4g}"))
        return norm

    def _diverged(self, problem: str) -> str:
        """A message with all that one needs to know to try again."""
        step = self.state.global_step  # the checkpoint of this step holds what has just failed: not a good one
        steps = [int(folder.name.rpartition("-")[2]) for folder in Path(self.args.output_dir).glob("checkpoint-*")]
        good = [done for done in steps if done < step]
        return (
            f"stage {self._switch.number + 1} of {len(self.stages)} ({self.stage.name}), step {step + 1}: {problem}; "
            f"learning rate {self._get_learning_rate():.3g}; last good checkpoint: "
            + (f"{self.args.output_dir}/checkpoint-{max(good)}" if good else "none")
        )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if not self._packing and self.args.should_save:
            (Path(output_dir) / STAGES).write_text(json.dumps([repr(stage) for stage in self.stages], indent=1))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / STAGES
        stages = json.loads(path.read_text()) if path.is_file() else []
        if stages != [repr(stage) for stage in self.stages]:
            raise ValueError(f"{resume_from_checkpoint} was written under other stages than these: see its {STAGES}")
        super()._load_from_checkpoint(resume_from_checkpoint, model)


@contextmanager
def _inside_forward(module: nn.Module, losses: Callable) -> Iterator[None]:
    """Inside, the module's forward gives `losses(forward, inputs)`.

    DistributedDataParallel looks behind what forward returns for the parameters that will have a gradient. A loss that
    is computed outside, of attention that was recorded on the way, would have others: so it is computed inside, and
    nothing else is returned that depends on parameters.
    """
    forward, own = module.forward, vars(module).get("forward")  # accelerate puts an own one there for autocast
    module.forward = lambda **inputs: losses(forward, inputs)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _check_arguments(args: TrainingArguments, steps: int) -> None:
    if args.max_steps not in (-1, steps):
        raise ValueError(f"args.max_steps is {args.max_steps}, but the stages have {steps} steps: leave it out")
    for name, (value, reason) in OURS.items():
        if getattr(args, name) != value:
            raise ValueError(f"args.{name} must stay {value!r}, got {getattr(args, name)!r}: {reason}")


def _columns(model: PreTrainedModel) -> set[str]:
    """What a model's forward takes by name, but for labels."""
    parameters = signature(model.forward).parameters.values()
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return named.difference(find_labels(type(model)))
