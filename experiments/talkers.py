"""Engines that go on with a text, each in a process of its own, which holds nothing else: for experiments/talking.py.

An engine is one entry in one table: it opens a file or a folder, takes ids and gives the likeliest next ones, and the
logits of a whole window. A process is started as

    PYTHON experiments/talkers.py NAME PATH THREADS

reads a line of JSON, answers by one, and ends where its input ends. Engines import what they need when they are opened;
ours is kept from torch, which has no part in it.
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

ROOM = 256  # new tokens that an engine takes memory for, where it has to be told


class PyTorch:
    """The float model in transformers, with its cache."""

    def __init__(self, path: Path, threads: int):
        import torch
        from transformers import LlamaForCausalLM

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, self.model = torch, LlamaForCausalLM.from_pretrained(path).eval()

    def tokens(self, ids: list[int]) -> Iterable[int]:
        given, cache = self.torch.tensor([ids]), None
        while True:
            found = self.model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            given, cache = found.logits[:, -1].argmax(-1, keepdim=True), found.past_key_values
            yield int(given)

    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model(input_ids=self.torch.tensor([ids]), use_cache=False).logits[0].numpy()


class NoTorch:
    """First among the finders of modules: from then on torch and transformers are not installed."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> None:
        if name in ("torch", "transformers"):
            raise ModuleNotFoundError(f"{name} is kept out", name=name)


class Ours:
    """`ttq.Talker`."""

    def __init__(self, path: Path, threads: int):
        sys.meta_path.insert(0, NoTorch)
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from ttqlib.deployment.talker import Talker

        talker = Talker(path, threads=threads)
        self.tokens, self.logits = partial(talker.tokens, most=ROOM), talker.logits


class GenAI:
    """onnxruntime-genai, on a folder that its builder wrote."""

    def __init__(self, path: Path, threads: int):
        import onnxruntime_genai as genai

        config = genai.Config(str(path))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.genai, self.model = genai, genai.Model(config)

    def _generator(self, ids: list[int], most: int):
        how = self.genai.GeneratorParams(self.model)
        how.set_search_options(do_sample=False, max_length=most, min_length=most)  # a token that ends ends nothing
        generator = self.genai.Generator(self.model, how)
        generator.append_tokens(ids)
        return generator

    def tokens(self, ids: list[int]) -> Iterable[int]:
        generator = self._generator(ids, len(ids) + ROOM)
        while not generator.is_done():
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    def logits(self, ids: list[int]) -> np.ndarray:
        return np.array(self._generator(ids, len(ids) + 1).get_output("logits"))[0].astype(np.float32)


class LlamaCpp:
    """llama.cpp by llama-cpp-python, on a GGUF file."""

    def __init__(self, path: Path, threads: int):
        from llama_cpp import Llama

        how = {"n_threads": threads, "n_threads_batch": threads, "n_ctx": 512, "verbose": False}
        self.open = lambda every: Llama(str(path), logits_all=every, **how)
        self.model, self.scorer = self.open(False), None

    def tokens(self, ids: list[int]) -> Iterable[int]:
        self.model.reset()
        return self.model.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.scorer = self.scorer or self.open(True)  # after memory was asked for: it keeps the logits of a context
        self.scorer.reset()
        self.scorer.eval(ids)
        return np.array(self.scorer.scores[: len(ids)])


ENGINES = {"pytorch": PyTorch, "ours": Ours, "onnxruntime-genai": GenAI, "llama.cpp": LlamaCpp}


def decode(engine, ids: list[int], count: int) -> dict:
    """Seconds until the first new token, seconds of those after it, and all of them."""
    began = time.perf_counter()
    tokens = iter(engine.tokens(ids))
    found, first = [next(tokens)], time.perf_counter()
    found += islice(tokens, count - 1)
    return {"first": first - began, "others": time.perf_counter() - first, "tokens": found}


def memory() -> dict:
    """Bytes of this process that lie in memory, now and at most so far; none where that cannot be told."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: 1024 * int(lines[key].split()[0]) for name, key in {"resident": "VmRSS", "peak": "VmHWM"}.items()}


def loss(engine, ids: list[int]) -> dict:
    """The sum of the negative log-likelihoods of each token but the first, given those before it."""
    logits = engine.logits(ids)[:-1].astype(np.float64)
    top = logits.max(1, keepdims=True)
    normal = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return {"loss": float((normal - logits[np.arange(len(logits)), ids[1:]]).sum())}


def serve(name: str, path: Path, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    engine = ENGINES[name](path, threads)
    actions = {"decode": decode, "loss": loss, "memory": lambda engine: memory(), "ready": lambda engine: True}
    for line in sys.stdin:
        action, *arguments = json.loads(line)
        print(json.dumps(actions[action](engine, *arguments)), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
