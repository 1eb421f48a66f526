"""Training with quantizers: a `transformers.Trainer` whose checkpoints keep what packing drops."""

import secrets
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerState, TrainingArguments

from ..layers.together import merged_together
from ..quantizers.activations import StaticActivationQuantizer
from ..quantizers.recipes import WeightQuantizer
from ..storage.checkpoint import contents, save
from ..storage.latent import load_latent_, save_latent
from ..surgery.compress import has_plan

SHARDED = "FSDP and DeepSpeed cannot train quantizers here: start one process a GPU with torchrun, without either"


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end, if any.

    Newer ones, of a training that was killed, are renamed: the Trainer would count them among those that it keeps.
    """
    numbers = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    for checkpoint in sorted(
        (path for path in numbers if numbers[path].isdecimal()), key=lambda path: -int(numbers[path])
    ):
        with suppress(OSError, ValueError):
            TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))  # the Trainer writes this file last
            return str(checkpoint)
        with suppress(OSError):  # another process may be at it too
            checkpoint.rename(folder / f"unfinished-{checkpoint.name}-{secrets.token_hex(4)}")
    return None


class QATTrainer(Trainer):
    """`transformers.Trainer` for quantization-aware training of a model that `compress_` made.

    Batches that are accumulated count by their labels, so that they equal one large batch, whatever the model makes of
    `num_items_in_batch`: its loss on `labels` must be a mean over those that are not −100. Labels of other names count
    by batches.

    Checkpoints hold latent weights, scales and the state of activation quantizers, as they are in memory, and are
    loaded strictly, also by `load_best_model_at_end`: an interrupted training goes on as if nothing had happened.
    Scales, biases and norms are kept out of weight decay. `save_model` writes the finished model, packed as by
    `ttq.save`.

    Raises:
        ValueError: several GPUs in one process; FSDP, which takes no parameter without dimensions, as scales are; or
            DeepSpeed, which saves in its own way; or a checkpoint to load from is a packed model, was made with another
            plan, or does not have exactly the model's tensors.
        FileNotFoundError: such a checkpoint lacks its weights.
    """

    _packing = True  # inside `save_model`: whether to write a finished model

    def __init__(self, model: nn.Module | None = None, args: TrainingArguments | None = None, *others, **options):
        if args is not None and (args.fsdp or args.deepspeed):
            raise ValueError(SHARDED)
        super().__init__(model, args, *others, **options)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:  # by `accelerate launch`
            raise ValueError(SHARDED)
        if self.args.n_gpu > 1:
            raise ValueError(f"{self.args.n_gpu} GPUs in one process: start one process for each with torchrun")
        if self.compute_loss_func is None:
            self.model_accepts_loss_kwargs = True  # the Trainer counts the labels of a step; the model never sees it

    def train(self, resume_from_checkpoint: str | bool | None = None, **options):
        """As `Trainer.train`; `True` goes on from the newest checkpoint that was written to its end."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(Path(self.args.output_dir)) or True  # it says that there is none
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """The mean over a batch, times its share in the labels of the whole step, where `labels` say what that is.

        The Trainer leaves that share to models whose forward takes any keyword, and many of those ignore it: their
        gradient grows with the number of batches that are accumulated.
        """
        with merged_together(self.accelerator.unwrap_model(model)):
            return self._shared_loss(model, inputs, return_outputs, num_items_in_batch)

    def _shared_loss(self, model: nn.Module, inputs: dict, return_outputs: bool, num_items_in_batch):
        if self.compute_loss_func is not None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs)
        count = self._count_labels(inputs)  # before label smoothing takes them out
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        # the mean over no label is NaN; its gradient is 0, and so is its share
        loss = torch.where(count > 0, loss * (count / num_items_in_batch * processes), 0)
        return (loss, outputs) if return_outputs else loss

    def _count_labels(self, inputs: dict) -> Tensor:
        """How many labels a batch has, as `Trainer._get_num_items_in_batch` counts those of a step."""
        labels = inputs.get("shift_labels")
        if labels is None:  # a causal model predicts every token but the first
            labels = inputs["labels"][..., 1:] if self._loss_shifts_labels else inputs["labels"]
        return labels.ne(-100).sum()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        quantizers = WeightQuantizer | StaticActivationQuantizer
        prefixes = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, quantizers))
        return [name for name in super().get_decay_parameter_names(model) if not name.startswith(prefixes)]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the finished model to `output_dir`, packed. What transformers itself calls for a checkpoint is not."""
        self._packing = not (_internal_call and output_dir)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            self._packing = True

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        finished = self._packing and has_plan(model)
        if finished and self.args.should_save:
            contents(model)  # refuses before transformers makes the folder
        itself = hasattr(model, "save_pretrained")  # of another module transformers would write the state dict, latent
        if self._packing and (itself or not finished):  # weights too
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            save(model, folder) if finished else save_latent(model, folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_latent_(self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_latent_(self.accelerator.unwrap_model(self.model), Path(self.state.best_model_checkpoint))
