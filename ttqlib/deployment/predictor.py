"""`Predictor`: answers from a folder that `export_onnx` wrote, with neither torch nor transformers on the machine.

The folder holds `model.onnx`, `tokenizer.json`, and `deploy.json` with what goes in, how long it may be, what kind of
answer comes out, the names of the labels, and the SHA-256 of the other two files. To read it this package,
onnxruntime, tokenizers and numpy are enough, besides lazy_loader, by which the package loads its names; one command
brings them, `pip install --no-deps . onnxruntime tokenizers numpy lazy_loader`.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..storage.folders import current
from ..tensors.shapes import whole_number
from .exported import GRAPH, TOKENIZER, Settings, load_tokenizer

SETTINGS = Settings(
    "deploy.json", 2, frozenset({"inputs", "labels", "max_length", "padding", "problem_type"}), "ttq.export_onnx"
)
ONE_LABEL, SOME_LABELS, NUMBER = "single_label_classification", "multi_label_classification", "regression"
WORDS = "language_modeling"  # the other three are transformers' names
SLOWER = ["SkipLayerNormFusion"]  # one operation for addition and LayerNormalization, slower than the two (1.31)
FIELDS = {  # what a prediction calls an output and its probabilities
    "logits": ("label", "probabilities"),
    "intent_logits": ("intent", "intent_probabilities"),
    "slot_logits": ("slots", "slot_probabilities"),
}

Text = str | tuple[str, str] | list[str]
Answer = str | float | list[str] | dict[str, float]


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

    def __init__(self, folder: str | os.PathLike, *, truncate: bool = False, threads: int | None = None):
        from onnxruntime import InferenceSession, SessionOptions

        folder = current(folder)  # reading changes nothing there
        config = SETTINGS.read(folder, _of_format_1)
        self.inputs: dict[str, int] = config["inputs"]  # by name: its entries are less than this
        self.labels: dict[str, list[str]] = config["labels"]  # by name of an output
        self.max_length: int = config["max_length"]
        self.problem_type: str = config["problem_type"]
        self._padding, self._tokenizer = config["padding"], None
        if TOKENIZER in config["sha256"]:
            self._tokenizer = load_tokenizer(folder / TOKENIZER, self.max_length if truncate else None)
        options = SessionOptions()
        options.intra_op_num_threads = 0 if threads is None else whole_number("threads", threads)
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # dequantize while loading, once
        self._session = InferenceSession(
            folder / GRAPH, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._by_word = any(len(output.shape) == 3 for output in self._session.get_outputs())

    def predict(self, texts: Sequence[Text], batch_size: int = 32, probabilities: bool = False) -> list[dict]:
        """The answer to each text, as a dict.

        {"label": "name"} of one class; {"labels": ["name", …]} where several may be on, those of a probability above
        one half; {"label": 3.7} of a model that predicts a number, or a number by name where it predicts several;
        {"intent": "name", "slots": ["name", …]} with a slot for each word; {"label": ["name", …]} of a model that
        labels words.

        A text is a string, or a tuple of two for a task on pairs. Where words get labels it may also be a list of
        words; a string is split at white space. A word that was cut off or that the tokenizer drops gets None.

        Args:
            probabilities: add "probabilities" ("intent_probabilities" and "slot_probabilities"), a dict of all labels;
                a list of these where words get labels. They sum to 1, unless several labels may be on.

        Raises:
            ValueError: no text, or one of more than `max_length` tokens; an export without a tokenizer, or of a
                language model; probabilities of numbers.
        """
        texts, encodings = self._encoded(texts, probabilities)
        whole_number("batch_size", batch_size)
        answers = []
        for start in range(0, len(texts), batch_size):
            batch = slice(start, start + batch_size)
            answers += self._answers(texts[batch], encodings[batch], probabilities)
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

    def _encoded(self, texts: Sequence[Text], probabilities: bool) -> tuple[list[Text], list]:
        """The texts, as words where words get labels, and what the tokenizer makes of them."""
        if self.problem_type == WORDS:
            raise ValueError("this export is a language model, which names no label: ask Predictor.logits")
        if self.problem_type == NUMBER and probabilities:
            raise ValueError("this export predicts numbers, which have no probabilities: leave probabilities=True out")
        if self._tokenizer is None:
            raise ValueError("this export has no tokenizer: ttq.export_onnx(model, folder, tokenizer) puts one in")
        if isinstance(texts, str | Mapping) or not len(texts):
            raise ValueError(f"texts must be a list of at least one text, got {texts!r}")
        if self._by_word:
            texts = [_words(text) for text in texts]
        for number, text in enumerate(texts):
            if not _is_text(text, self._by_word):
                kinds = "a string or a list of words" if self._by_word else "a string or a pair of strings"
                raise ValueError(f"text {number} must be {kinds}, got {text!r}")
        encodings = self._tokenizer.encode_batch(list(texts), is_pretokenized=self._by_word)
        for number, encoding in enumerate(encodings):
            if len(encoding.ids) > self.max_length:
                raise ValueError(
                    f"text {number} has {len(encoding.ids)} tokens, at most {self.max_length} go in: shorten it, let "
                    "Predictor(folder, truncate=True) cut it, or export with a larger max_length"
                )
        return list(texts), encodings

    def _answers(self, texts: Sequence[Text], encodings: Sequence, probabilities: bool) -> Iterator[dict]:
        length = max(len(encoding.ids) for encoding in encodings)

        def padded(field: str, value: int) -> np.ndarray:
            rows = [getattr(encoding, field) for encoding in encodings]
            return np.array([row + [value] * (length - len(row)) for row in rows])  # (B, T)

        logits = self.logits(padded("ids", self._padding), padded("attention_mask", 0), padded("type_ids", 0))
        for row, (text, encoding) in enumerate(zip(texts, encodings)):
            answer = {}
            for output, values in logits.items():
                field, chances = FIELDS[output]
                kind, names = self.problem_type, self.labels[output]
                name = "labels" if kind == SOME_LABELS else field
                answer[name] = _each(partial(_named, kind, names), values[row], text, encoding)
                if probabilities:
                    answer[chances] = _each(partial(_chances, kind, names), values[row], text, encoding)
            yield answer


def _each(answer: Callable[[np.ndarray], Answer], logits: np.ndarray, words: Text, encoding):
    """`answer` to the logits of a text (labels,), or to those of each word's first token in (T, labels)."""
    if logits.ndim == 1:
        return answer(logits)
    first = {word: token for token, word in reversed(list(enumerate(encoding.word_ids)))}
    return [answer(logits[first[word]]) if word in first else None for word in range(len(words))]


def _named(kind: str, names: list[str], logits: np.ndarray) -> Answer:
    if kind == NUMBER:
        return float(logits[0]) if len(names) == 1 else dict(zip(names, logits.tolist()))
    if kind == SOME_LABELS:
        return [name for name, logit in zip(names, logits) if logit > 0]  # a probability above one half
    return names[logits.argmax()]


def _chances(kind: str, names: list[str], logits: np.ndarray) -> dict[str, float]:
    """The probability of each label: by sigmoids where several may be on, else by a softmax."""
    logits = logits.astype(np.float64)
    if kind == SOME_LABELS:
        return dict(zip(names, np.exp(-np.logaddexp(0, -logits)).tolist()))
    odds = np.exp(logits - logits.max())
    return dict(zip(names, (odds / odds.sum()).tolist()))


def _of_format_1(config: dict, path: Path) -> dict:
    """Settings of format 1 as those of today; others as they are.

    It said of no export what kind its answers are, and of some named the labels in another order than the model.
    """
    if config.get("format") != 1 or {*config} != (SETTINGS.fields | {"format", "sha256"}) - {"problem_type"}:
        return config
    warnings.warn(
        f"{path} is of format 1, which may name labels in a wrong order and knows no numbers: export again to be sure",
        stacklevel=2,
    )
    number = len(config["labels"].get("logits", ())) == 1  # as transformers takes it
    return {**config, "format": SETTINGS.format, "problem_type": NUMBER if number else ONE_LABEL}


def _words(text):
    """The words of a text, or what is no text as it came."""
    return text.split() if isinstance(text, str) else list(text) if isinstance(text, Iterable) else text


def _is_text(text, by_word: bool) -> bool:
    """Whether a tokenizer reads it: a string, some words or a pair of strings, none with half a character."""
    parts = [text] if isinstance(text, str) else text
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return False
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return False
    return by_word or isinstance(text, str) or len(parts) == 2
