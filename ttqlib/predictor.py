"""`Predictor`: answers from a folder that `export_onnx` wrote, with neither torch nor transformers on the machine.

The folder holds `model.onnx`, `tokenizer.json`, and `deploy.json` with what goes in, how long it may be, the names of
the labels, and the SHA-256 of the other two files. To read it onnxruntime, tokenizers and numpy are enough, besides
lazy_loader, by which this package loads its names.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .folders import recover
from .shapes import whole_number

GRAPH, TOKENIZER, CONFIG = "model.onnx", "tokenizer.json", "deploy.json"
FORMAT = 1  # of deploy.json
SETTINGS = {"format", "inputs", "labels", "max_length", "padding", "sha256"}  # in it
SLOWER = ["SkipLayerNormFusion"]  # one operation for addition and LayerNormalization, slower than the two (1.31)
FIELDS = {"logits": "label", "intent_logits": "intent", "slot_logits": "slots"}  # what a prediction calls them

Text = str | tuple[str, str] | list[str]


class Predictor:
    """Answers from a folder that `export_onnx` wrote.

    Args:
        folder: where the export lies.
        truncate: cut longer texts to `max_length` tokens; by default they are an error.
        threads: how many threads one call uses; onnxruntime's choice by default.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: deploy.json is broken, or another file is not the one that it was written with.
        ModuleNotFoundError: onnxruntime or tokenizers is not installed.
    """

    def __init__(self, folder: str | os.PathLike, truncate: bool = False, threads: int | None = None):
        from onnxruntime import InferenceSession, SessionOptions

        recover(folder)
        config = read_config(Path(folder))
        self.inputs: dict[str, int] = config["inputs"]  # by name: its entries are less than this
        self.labels: dict[str, list[str]] = config["labels"]  # by name of an output
        self.max_length: int = config["max_length"]
        self._padding, self._tokenizer = config["padding"], None
        if TOKENIZER in config["sha256"]:
            self._tokenizer = _load_tokenizer(Path(folder) / TOKENIZER, self.max_length if truncate else None)
        options = SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # dequantize while loading, once
        self._session = InferenceSession(
            Path(folder) / GRAPH, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._by_word = any(len(output.shape) == 3 for output in self._session.get_outputs())

    def predict(self, texts: Sequence[Text], batch_size: int = 32) -> list[dict[str, str | list[str | None]]]:
        """The labels of each text: {"label": …}, or {"intent": …, "slots": […]} with a slot label for each word.

        A text is a string, or a tuple of two for a task on pairs. Where words get labels it may also be a list of
        words; a string is split at white space. A word that was cut off or that the tokenizer drops gets None.

        Raises:
            ValueError: no text, or one of more than `max_length` tokens; an export without a tokenizer.
        """
        if self._tokenizer is None:
            raise ValueError("this export has no tokenizer: ttq.export_onnx(model, folder, tokenizer) puts one in")
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts must be a list of at least one text, got {texts!r}")
        whole_number("batch_size", batch_size)
        if self._by_word:
            texts = [text.split() if isinstance(text, str) else list(text) for text in texts]
        encodings = self._tokenizer.encode_batch(list(texts), is_pretokenized=self._by_word)
        for number, encoding in enumerate(encodings):
            if len(encoding.ids) > self.max_length:
                raise ValueError(
                    f"text {number} has {len(encoding.ids)} tokens, at most {self.max_length} go in: shorten it, "
                    "or let Predictor(folder, truncate=True) cut it"
                )
        answers = []
        for start in range(0, len(texts), batch_size):
            answers += self._answers(texts[start : start + batch_size], encodings[start : start + batch_size])
        return answers

    def logits(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        token_type_ids: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """The logits of a batch, by name of the output: (B, labels) for texts, (B, T, labels) for their tokens.

        All three arguments are whole numbers of shape (B, T). By default every token counts and is of type 0.

        Raises:
            TypeError: something else than whole numbers.
            ValueError: a batch or a length of 0, more than `max_length` tokens, unequal shapes, numbers out of range.
        """
        ids = np.asarray(input_ids)
        given = {"input_ids": ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        default = {"attention_mask": np.ones_like, "token_type_ids": np.zeros_like}
        feed = {}
        for name, limit in self.inputs.items():
            array = default[name](ids) if given[name] is None else np.asarray(given[name])
            self._check(name, array, ids.shape, limit)
            feed[name] = array.astype(np.int64)
        return dict(zip(self._outputs, self._session.run(None, feed)))

    def _check(self, name: str, array: np.ndarray, shape: tuple[int, ...], limit: int) -> None:
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"{name} must be whole numbers, got {array.dtype}")
        if array.ndim != 2 or array.shape[0] < 1 or not 1 <= array.shape[1] <= self.max_length:
            raise ValueError(
                f"{name} must have shape (B, T) with B at least 1 and T from 1 to {self.max_length}, got {array.shape}"
            )
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape of input_ids, {shape}, got {array.shape}")
        least, most = array.min(), array.max()
        if not 0 <= least <= most < limit:
            raise ValueError(f"{name} must lie in 0 … {limit - 1}; the smallest here is {least}, the largest {most}")

    def _answers(self, texts: Sequence[Text], encodings: Sequence) -> Iterator[dict]:
        length = max(len(encoding.ids) for encoding in encodings)

        def padded(field: str, value: int) -> np.ndarray:
            rows = [getattr(encoding, field) for encoding in encodings]
            return np.array([row + [value] * (length - len(row)) for row in rows])  # (B, T)

        logits = self.logits(padded("ids", self._padding), padded("attention_mask", 0), padded("type_ids", 0))
        for row, (text, encoding) in enumerate(zip(texts, encodings)):
            best = {name: values[row].argmax(-1) for name, values in logits.items()}
            yield {FIELDS[name]: self._named(name, number, text, encoding) for name, number in best.items()}

    def _named(self, output: str, best: np.ndarray, words: Text, encoding) -> str | list[str | None]:
        """The label whose number is `best`; of a number for each token, that of each word's first."""
        names = self.labels[output]
        if best.ndim == 0:
            return names[best]
        first = {word: token for token, word in reversed(list(enumerate(encoding.word_ids)))}
        return [names[best[first[word]]] if word in first else None for word in range(len(words))]


def write_config(folder: Path, config: dict) -> None:
    """Write deploy.json into an export: `config` and the digests of the other files."""
    digests = {name: _sha256(folder / name) for name in (GRAPH, TOKENIZER) if (folder / name).exists()}
    text = json.dumps({"format": FORMAT, **config, "sha256": digests}, indent=1, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict:
    """What `write_config` wrote, after the other files have been compared with their digests.

    Raises:
        FileNotFoundError, ValueError: as `Predictor`.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}, which ttq.export_onnx writes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    known = isinstance(config, dict) and set(config) == SETTINGS and config["format"] == FORMAT
    if not known or GRAPH not in config["sha256"]:
        raise ValueError(
            f"{path} is not of format {FORMAT} with the fields {', '.join(sorted(SETTINGS))}: export again"
        )
    for name, digest in config["sha256"].items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}, of which its {CONFIG} speaks: export again")
        if _sha256(folder / name) != digest:
            raise ValueError(f"{folder / name} is not the one that {CONFIG} was written with: export again")
    return config


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load_tokenizer(path: Path, truncate_to: int | None):
    """Without the padding and the truncation that the last use in training left in the file."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if truncate_to is not None:
        tokenizer.enable_truncation(truncate_to)
    return tokenizer
