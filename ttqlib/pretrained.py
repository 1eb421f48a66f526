"""The registration with transformers that makes plain `from_pretrained` and `save_pretrained` read and write plans.

`import ttqlib` imports this module, hence it imports nothing heavy but transformers' registry. What does the work is
imported when a model is loaded or saved.
"""

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin


@register_quantization_config("ttq")
class PlanConfig(QuantizationConfigMixin):
    """A plan in the clothes that transformers expects: the `quantization_config` of a config.json."""

    quant_method = "ttq"

    def __init__(self, digest: str | None = None, quant_method: str = "ttq", **plan):
        from .checkpoint import split_config

        self.plan, self.digest = split_config({"quant_method": quant_method, "digest": digest, **plan})

    def to_dict(self) -> dict:
        return {**self.plan.to_dict(), "quant_method": self.quant_method, "digest": self.digest}


@register_quantizer("ttq")
class PlanQuantizer(HfQuantizer):
    """Called by transformers when it loads or saves a model that has a plan.

    transformers itself would read what it knows by name and make up the rest, with a warning. So it only prepares
    memory here: the file is checked before and its tensors are copied in afterwards, by the same code that `ttq.load`
    uses.
    """

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        return True

    def is_serializable(self) -> bool:
        return True

    def attach(self, model) -> None:
        """Make `model.save_pretrained` write packed files, and keep those from being taken for training checkpoints."""
        if getattr(model, "hf_quantizer", None) is None:
            model.register_load_state_dict_pre_hook(_refuse_packed)
        model.hf_quantizer = self

    def get_state_dict_and_metadata(self, model):
        from .stored import packed

        tensors, metadata = packed(model)
        config = PlanConfig(metadata["ttq"], **model.ttq_config.to_dict())
        self.quantization_config = model.config.quantization_config = config
        return tensors, metadata

    def _process_model_before_weight_loading(self, model, checkpoint_files=None, **options):
        from pathlib import Path

        from .checkpoint import WEIGHTS, rebuilt
        from .stored import check_digest, checked_tensors

        if [Path(file).name for file in checkpoint_files or ()] != [WEIGHTS]:
            raise ValueError(f"a model with a plan lies in one {WEIGHTS}, as ttq.save and save_pretrained write it")
        config, path = self.quantization_config, Path(checkpoint_files[0])
        check_digest(path, config.digest)
        self._tensors = checked_tensors(rebuilt(model, config.plan), path, config.digest)
        for module in model.modules():  # what is filled needs no random start, only buffers that no file holds do
            module._is_hf_initialized = not module._non_persistent_buffers_set
        model._keys_to_ignore_on_load_missing = model._keys_to_ignore_on_load_unexpected = {""}  # all were compared

    def _process_model_after_weight_loading(self, model, **options):
        from .stored import fill_

        del model._keys_to_ignore_on_load_missing, model._keys_to_ignore_on_load_unexpected
        fill_(model, self._tensors)
        del self._tensors
        model.is_quantized = False  # its weights are floating-point numbers: unlike packed ones they can be cast
        return model


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
