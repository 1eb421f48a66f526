"""Running text that every reader has, and its windows: what language models are trained and measured on."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..tensors.shapes import whole_number

KEPT = 48  # windows held out
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Windows:
    """A text in windows of equally many tokens, none in two of them: `held_out` (K, T) and `train` (N, T), of ids.

    `sha256` is that of the text, which rows of results name: the text changes with the version of Python.
    """

    held_out: Tensor
    train: Tensor
    sha256: str


def load_text(name: str) -> str:
    """A text that comes with Python: "manual" or "docstrings". Both read like a manual, and neither needs a network.

    "manual" is what `help()` knows of the language, 113 000 tokens of SmolLM2: the sections of `pydoc_data.topics`,
    in the order of their names. "docstrings" are those of the standard library, read from its source without running
    it: of the modules at its top whose names begin with no underscore, in the order of their names, and in each those
    of the module first, then of its classes and functions, then of what stands inside these.

    Raises:
        ValueError: another name.
        FileNotFoundError: this Python came without the source of its library.
    """
    if name not in TEXTS:
        raise ValueError(f"name must be one of {', '.join(map(repr, TEXTS))}, got {name!r}")
    return "\n\n".join(TEXTS[name]())


def text_windows(text: str, tokenizer: PreTrainedTokenizerBase, *, length: int = 256, held_out: int = KEPT) -> Windows:
    """Cut a text into windows of `length` tokens, and hold some out, evenly spread: the first of each equal share.

    What is left at the end, less than a window, is dropped.

    Raises:
        ValueError: the text has not more than `held_out` windows, or a number is none of at least 1.
    """
    whole_number("length", length)
    whole_number("held_out", held_out)
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    windows = ids[: len(ids) // length * length].unflatten(0, (-1, length)) if len(ids) >= length else ids[:0, None]
    if len(windows) <= held_out:
        raise ValueError(f"the text has {len(windows)} windows of {length} tokens: more than {held_out} are needed")
    kept = torch.zeros(len(windows), dtype=torch.bool)
    kept[torch.arange(held_out) * len(windows) // held_out] = True
    return Windows(windows[kept], windows[~kept], hashlib.sha256(text.encode()).hexdigest())


def _manual() -> Iterator[str]:
    from pydoc_data.topics import topics

    return (topics[name] for name in sorted(topics))


def _docstrings() -> Iterator[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py"))
    if not files:
        raise FileNotFoundError("this Python came without the source of its library, of which the docstrings are read")
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, DOCUMENTED) and (said := ast.get_docstring(node)):
                yield said


TEXTS = {"manual": _manual, "docstrings": _docstrings}
