"""The registration with transformers that makes plain `from_pretrained` and `save_pretrained` read and write plans.

`import ttqlib` imports this module, hence it imports nothing heavy but transformers' registry. What does the work is
imported when a model is loaded or saved.
"""

import functools
import inspect

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin


@register_quantization_config("ttq")
class PlanConfig(QuantizationConfigMixin):
    """A plan in the clothes that transformers expects: the `quantization_config` of a config.json.

    With `packed`, which no file holds, the weights of the model stay packed in memory: put it into the entry
    `quantization_config` of a config that is given to `from_pretrained`.
    """

    quant_method = "ttq"

    def __init__(self, packed: bool = False, **written):
        from .checkpoint import read_plan

        self.packed = packed
        self.written = read_plan({"quant_method": self.quant_method, **written})

    def to_dict(self) -> dict:
        written = self.written
        return {**written.text, "quant_method": "ttq", "digest": written.digest, "version": written.version}


@register_quantizer("ttq")
class PlanQuantizer(HfQuantizer):
    """Called by transformers when it loads a model that has a plan.

    transformers itself would read what it knows by name and make up the rest, with a warning. So it only prepares
    memory here: the file is checked before and its tensors are copied in afterwards, by the same code that `ttq.load`
    uses.
    """

    is_trainable = is_qat_trainable = True

    def is_serializable(self) -> bool:
        return True

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        open_door()  # a model with a plan that was unpickled, in a process where none was compressed

    def attach(self, model) -> None:
        """Make `model.save_pretrained` write packed files, and keep those from being taken for training checkpoints."""
        open_door()
        _align(model)
        if getattr(model, "hf_quantizer", None) is None:
            model.register_load_state_dict_pre_hook(_refuse_packed)
        model.hf_quantizer = self

    def update_weight_conversions(self, weight_conversions, model) -> list:
        """Our names are those of the model: none is to be turned into another, here or, later, when it is saved."""
        return []

    def _process_model_before_weight_loading(self, model, checkpoint_files=None, **options):
        from pathlib import Path

        from ..inventory.ties import shared_parameters
        from .packed import set_aside_
        from .reading import check_digest, checked_tensors
        from .rebuild import mark_filled_, rebuilt

        written, paths = self.quantization_config.written, [Path(file) for file in checkpoint_files or ()]
        if not paths:
            raise ValueError("a model with a plan is read from its folder, not from a state dict")
        for path in paths:
            check_digest(path, written.digest)
        try:
            self._tensors = checked_tensors(rebuilt(model, written.plan, written.version), paths, written, cast=True)
        except ValueError as error:
            kinds = model.config.architectures or []
            if kinds and type(model).__name__ not in kinds:
                raise ValueError(
                    f"{paths[0].parent} holds a {kinds[0]}, not a {type(model).__name__}: "
                    f"read it with {kinds[0]}.from_pretrained or ttq.load"
                ) from error
            raise
        self._aside = set_aside_(model) if self.quantization_config.packed else None
        self._shared = shared_parameters(model)  # which transformers takes apart when it makes memory for them
        mark_filled_(model)
        model._keys_to_ignore_on_load_missing = model._keys_to_ignore_on_load_unexpected = {""}  # all were compared

    def _process_model_after_weight_loading(self, model, **options):
        from ..inventory.ties import share_parameters_
        from .packed import pack_
        from .stored import fill_

        share_parameters_(model, self._shared)
        del model._keys_to_ignore_on_load_missing, model._keys_to_ignore_on_load_unexpected
        if any(tensor.is_meta for tensor in model.parameters()):
            raise ValueError("a model with a plan has to lie in memory: read it without offloading parts of it")
        _align(model)
        if self._aside is None:
            fill_(model, self._tensors)
        else:
            pack_(model, self._tensors, self._aside)
        del self._tensors, self._shared, self._aside
        model.is_quantized = False  # its weights are floating-point numbers: unlike packed ones they can be cast
        return model


def open_door() -> None:
    """Let `save_pretrained` of models with a plan go through `ttq.save`, once in a process.

    transformers asks a quantizer only after it has made the folder and, for a model around a compressed part, not at
    all; it then writes files one by one, under other names where the model was read from an older file, in shards if
    that is asked for. A method on the instance would not do: copies would keep that of the original.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.save_pretrained
    if hasattr(original, "ttq"):
        return

    @functools.wraps(original)
    def save_pretrained(self, *args, **options):
        from ..surgery.compress import has_plan

        if not has_plan(self) or getattr(self, "_hf_peft_config_loaded", False):  # of adapters only they are saved
            return original(self, *args, **options)
        given = inspect.signature(original).bind(self, *args, **options).arguments
        return _save_packed(**given | given.pop("kwargs", {}))

    save_pretrained.ttq = True
    PreTrainedModel.save_pretrained = save_pretrained


def _save_packed(
    self, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, variant=None, token=None, **options
) -> None:
    """`save_pretrained` of a model with a plan: always one file of weights, under the model's own names.

    Raises:
        ValueError: as `ttq.save`; a `variant`, a distributed checkpoint, or a `state_dict` that is not the model's.
    """
    from pathlib import Path

    from .checkpoint import save

    for name, value in {"variant": variant, "distributed_checkpoint": options.get("distributed_checkpoint")}.items():
        if value:
            raise ValueError(f"a model with a plan is written as one model.safetensors: leave {name} out")
    own = self.state_dict() if state_dict is not None else {}
    if any(name not in own or not _equal(own[name], tensor) for name, tensor in (state_dict or {}).items()):
        raise ValueError("a model with a plan is packed from its own weights: load the state_dict into it first")
    if self.should_save_on_this_rank(is_main_process):
        save(self, save_directory)
    if push_to_hub:
        known = {"commit_message", "commit_description", "private", "revision", "create_pr", "tags"} & options.keys()
        name = options.get("repo_id", Path(save_directory).name)
        self.push_to_hub(name, token=token, **{option: options[option] for option in known})


def _equal(one, other) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other.to(one.device)).all()))


def _align(model) -> None:
    """Move tensors to addresses as PyTorch's own memory has them.

    transformers leaves them where they lie in a file, and products of matrices depend on that in their last bits: a
    model would not answer as its deep copy does, nor as the one that is read from its own save.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()


def _refuse_packed(model, state_dict, prefix, *others) -> None:
    """A packed file has no latent weights; loaded with strict=False, as Trainer does, it would leave what is there."""
    for name, module in model.named_modules():
        for tensor in getattr(module, "parametrizations", ()):
            path = prefix + (f"{name}." if name else "")
            packed = f"{path}codes" in state_dict or path + tensor in state_dict
            if packed and f"{path}parametrizations.{tensor}.original" not in state_dict:
                raise ValueError(
                    f"{path}{tensor} is packed here, its latent weight is gone: a training with quantizers goes on "
                    "only from checkpoints of ttq.QATTrainer; a finished model is read by ttq.load"
                )
