"""`Talker`: goes on with a text by a folder that `export_talker` wrote, with neither torch nor transformers there.

The folder holds `model.onnx`, `tokenizer.json`, and `talk.json` with the shape of the cache, how long a text may be,
which tokens end it, and the SHA-256 of the other two files. What it needs is what `Predictor` needs.

Keys and values of all tokens so far stay in arrays that onnxruntime reads and writes in place: a new token costs one
pass of one token, and nothing is copied.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..storage.folders import current
from ..tensors.shapes import whole_number
from .exported import GRAPH, TOKENIZER, Settings, load_tokenizer

SETTINGS = Settings(
    "talk.json", 1, frozenset({"layers", "cache", "vocabulary", "max_length", "ends"}), "ttq.export_talker"
)


class Talker:
    """A language model from a folder that `export_talker` wrote.

    Args:
        folder: where the export lies.
        threads: how many threads one token uses; onnxruntime's choice by default.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: talk.json is broken, or another file is not the one that it was written with.
        ModuleNotFoundError: onnxruntime or tokenizers is not installed.
    """

    def __init__(self, folder: str | os.PathLike, *, threads: int | None = None):
        from onnxruntime import InferenceSession, SessionOptions

        folder = current(folder)  # reading changes nothing there
        config = SETTINGS.read(folder)
        self.vocabulary: int = config["vocabulary"]
        self.max_length: int = config["max_length"]
        self.ends = frozenset(config["ends"])  # ids after which nothing comes
        self._layers, self._cache = config["layers"], config["cache"]
        self._tokenizer = load_tokenizer(folder / TOKENIZER, None) if TOKENIZER in config["sha256"] else None
        options = SessionOptions()
        options.intra_op_num_threads = 0 if threads is None else whole_number("threads", threads)
        self._session = InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])

    def say(self, text: str, *, most: int = 64) -> str:
        """What the model goes on with, the likeliest token each time, until a token that ends or `most` of them.

        Raises:
            ValueError: an export without a tokenizer; else as `tokens`.
        """
        if self._tokenizer is None:
            raise ValueError("this export has no tokenizer: ttq.export_talker(model, folder, tokenizer) puts one in")
        found = []
        for token in self.tokens(self._tokenizer.encode(text).ids, most=most):
            if token in self.ends:
                break
            found.append(token)
        return self._tokenizer.decode(found)

    def tokens(self, ids: Sequence[int], *, most: int | None = None) -> Iterator[int]:
        """The likeliest next token after `ids`, the likeliest after that one, and so on: `most` of them, or as many as
        `max_length` leaves room for. Memory is taken for that many.

        Raises:
            TypeError, ValueError: as `logits`; `most` below 1.
        """
        given = self._checked(ids)
        room = self.max_length if most is None else min(self.max_length, len(given) + whole_number("most", most))
        return self._go_on(given, room)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """The logits after each of `ids` (T,), each with those before it: (T, vocabulary).

        Raises:
            TypeError: something else than whole numbers.
            ValueError: no token, more than `max_length`, or one that is not in the vocabulary.
        """
        given = self._checked(ids)
        state = _State(self, len(given), every=True)
        return state.read(given)

    def _go_on(self, ids: np.ndarray, room: int) -> Iterator[int]:
        state = _State(self, room, every=False)
        for _ in range(len(ids), room):
            token = int(state.read(ids)[-1].argmax())
            yield token
            ids = np.array([token])

    def _checked(self, ids: Sequence[int]) -> np.ndarray:
        given = np.asarray(ids)
        if given.ndim != 1 or not 1 <= len(given) <= self.max_length:
            raise ValueError(f"ids must be 1 … {self.max_length} tokens in a row, got shape {given.shape}")
        if not np.issubdtype(given.dtype, np.integer):
            raise TypeError(f"ids must be whole numbers, got {given.dtype}")
        if not 0 <= given.min() <= given.max() < self.vocabulary:
            raise ValueError(f"ids must lie in 0 … {self.vocabulary - 1}, got {given.min()} … {given.max()}")
        return given


class _State:
    """One text: keys and values of what was read, in arrays of their final length that are used in place.

    Where they are zeros that nobody has written, the system has given no memory for them yet.
    """

    def __init__(self, talker: Talker, length: int, every: bool):
        self.session, self.vocabulary, self.read_so_far, self.every = talker._session, talker.vocabulary, 0, every
        heads, size = talker._cache
        self.binding = talker._session.io_binding()
        for layer in range(talker._layers):
            for kind in ("key", "value"):
                held = _value(np.zeros((1, heads, length, size), np.float32))
                self.binding.bind_ortvalue_input(f"past.{layer}.{kind}", held)
                self.binding.bind_ortvalue_output(f"present.{layer}.{kind}", held)
        self._bind("first", np.array([0 if every else -1]))

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read more tokens (T,); the logits after each of them, or after the last one: (T or 1, vocabulary)."""
        self.read_so_far += len(ids)
        self._bind("ids", ids[None].astype(np.int64))
        self._bind("last", np.array([self.read_so_far - 1], np.int32))
        self._bind("length", np.array([self.read_so_far], np.int32))
        logits = np.empty((1, len(ids) if self.every else 1, self.vocabulary), np.float32)
        self.binding.bind_ortvalue_output("logits", _value(logits))
        self.session.run_with_iobinding(self.binding)
        return logits[0]

    def _bind(self, name: str, array: np.ndarray) -> None:
        self.binding.bind_ortvalue_input(name, _value(array))


def _value(array: np.ndarray):
    """onnxruntime's view of an array, which shares its memory."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(array)
