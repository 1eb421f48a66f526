"""What public models weigh and compute, dense and compressed, without their weights: accounting on the meta device.

    python experiments/shapes.py                       # all shapes: bytes and FLOPs, two minutes
    python experiments/shapes.py ViT-B/16 GPT-2        # these
    python experiments/shapes.py --time --record       # on a quiet machine: milliseconds as well, ten minutes, 14 GB

Sizes of the models are written here by hand, from their public configs. Bytes are those of the file that `save` would
write; tests/experiments/test_shapes.py compares with real files where models are small. (Of a dense ViT or Mixtral
transformers writes tensors under older names: its header is longer, by a hundred kB at most.) FLOPs and predicted
milliseconds are of one input: 128 tokens, one picture, or one second of sound, through float cores whose sides are
merged. With --time random weights are made for what fits into memory, the forward passes take turns, and the prediction
is compared with their medians. Without it a row says nothing of time, and takes the place of one that does.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field

import torch
import transformers
from results import add_options, check_runs, place, record, row_of
from torch import Tensor, nn

import ttqlib as ttq
from ttqlib.measures.clock import interleaved_medians
from ttqlib.measures.roofline import Machine, Work, this_machine, traced_work

TOKENS, BITS, REST = 128, 4, 8
FITS = 8e9  # bytes of float32 weights that a timed model may have
TURNS = 7
SPLIT = "one input"


def tokens(config, device: str) -> dict[str, Tensor]:
    """Rows of the word table: looking them up needs ids, which are not there on the meta device."""
    return {"inputs_embeds": torch.zeros(1, TOKENS, config.hidden_size, device=device)}


def picture(config, device: str) -> dict[str, Tensor]:
    return {"pixel_values": torch.zeros(1, 3, config.image_size, config.image_size, device=device)}


def sound(config, device: str) -> dict[str, Tensor]:
    return {"input_values": torch.zeros(1, 16_000, device=device)}


@dataclass(frozen=True)
class Shape:
    """A model by its class and the numbers of its config that are not the class's own."""

    kind: str
    sizes: Mapping = field(default_factory=dict)
    inputs: Callable = tokens

    def build(self, device: str = "meta") -> nn.Module:
        """The model in eval mode; on another device than meta with random weights."""
        made = getattr(transformers, self.kind)
        with torch.device(device):
            return made(made.config_class(**self.sizes)).eval()


def wide(hidden: int, layers: int, heads: int, inner: int) -> dict[str, int]:
    """The sizes of a stack, as most configs call them."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (hidden, layers, heads, inner), strict=True))


LLAMA = {"vocab_size": 32_000, "num_key_value_heads": 8}
ROBERTA = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
MIXTURE = {"num_local_experts": 8, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
SHAPES = {
    "BERT-base": Shape("BertModel", wide(768, 12, 12, 3072)),
    "BERT-large": Shape("BertModel", wide(1024, 24, 16, 4096)),
    "RoBERTa-base": Shape("RobertaModel", wide(768, 12, 12, 3072) | ROBERTA),
    "DistilBERT": Shape("DistilBertModel", {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}),
    "GPT-2": Shape("GPT2LMHeadModel", {"n_embd": 768, "n_layer": 12, "n_head": 12}),
    "GPT-2 XL": Shape("GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "ViT-B/16": Shape("ViTForImageClassification", wide(768, 12, 12, 3072) | {"num_labels": 1000}, picture),
    "wav2vec2-base": Shape("Wav2Vec2Model", wide(768, 12, 12, 3072), sound),
    "Llama-2-7B": Shape("LlamaForCausalLM", wide(4096, 32, 32, 11_008) | LLAMA | {"num_key_value_heads": 32}),
    "Llama-2-70B": Shape("LlamaForCausalLM", wide(8192, 80, 64, 28_672) | LLAMA),
    "Mixtral-8x7B": Shape("MixtralForCausalLM", wide(4096, 32, 32, 14_336) | LLAMA | MIXTURE),
}
METHODS = ("dense", "rtn", "tt")  # float32; dense in few bits; trains of an eighth of the width, in as many bits


def rank_of(model: nn.Module, method: str) -> int | None:
    """An eighth of the width, which docs/own_model.md begins with, for every model the same rule."""
    return model.config.hidden_size // 8 if method == "tt" else None


def weighed(shape: Shape, method: str) -> tuple[int, int]:
    """The bytes of the file, and the numbers that train, of a model of this shape."""
    model = shape.build()
    if method != "dense":
        ttq.compress_(model, ttq.plan(model, rank_of(model, method), BITS, REST), init="random")
    return ttq.report(model).total.stored_bytes, ttq.count_parameters(model)


def forward(shape: Shape, method: str, device: str = "meta") -> Callable:
    """One forward pass of a model of this shape, to be called; bits are left out, for they change no product."""
    model = shape.build(device)
    if method == "tt":
        ttq.compress_(model, ttq.plan(model, rank_of(model, method)), init="random").eval()
    given = shape.inputs(model.config, device)

    def call() -> None:
        with torch.no_grad():
            model(**given)

    call()  # merges the sides of trains, once
    return call


def timed(shape: Shape, works: Mapping[str, list[Work]]) -> dict[str, dict[str, float]]:
    """Predicted and measured milliseconds of each method, which take turns with each other."""
    before = this_machine()
    took = interleaved_medians({name: forward(shape, name, "cpu") for name in works}, rounds=TURNS, warmup=1)
    after = this_machine()
    machine = Machine(*(sum(pair) / 2 for pair in zip(astuple(before), astuple(after))))
    found = {}
    for name, measured in took.items():
        predicted = 1000 * machine.total(works[name])
        error = 100 * (predicted / measured - 1)
        found[name] = {"predicted_ms": predicted, "measured_ms": measured, "error_percent": error}
        found[name]["expected_ms"] = 1000 * machine.expected(works[name])
    return found


def rows(name: str, shape: Shape, clock: bool) -> list[dict]:
    """A row for each method."""
    model = shape.build()
    sizes = {method: weighed(shape, method) for method in METHODS}
    works = {method: traced_work(forward(shape, method)) for method in ("dense", "tt")}
    dense = sizes["dense"][0]
    times = timed(shape, works) if clock and dense < FITS else {}
    settings = {"layers": model.config.num_hidden_layers, "width": model.config.hidden_size, "rest": REST}
    found = []
    for method, (stored, parameters) in sizes.items():
        like = "dense" if method == "rtn" else method
        figures = {"parameters": parameters, "flops": sum(work.flops for work in works[like]), **times.get(method, {})}
        bits = 32 if method == "dense" else BITS
        row = row_of({n: [value] for n, value in figures.items()}, rank_of(model, method), bits, [0], stored, dense)
        found.append(row | {"task": name, "split": SPLIT, "method": method, "settings": settings})
    return found


def line(row: dict) -> str:
    figures = {name: metric["mean"] for name, metric in row["metrics"].items()}
    text = f"{row['task']:13} {row['method']:5} {row['stored_bytes'] / 1e6:11,.1f} MB {row['ratio']:6.1f}×"
    text += f" {figures['flops'] / 1e9:9,.1f} GFLOP"
    if "measured_ms" in figures:
        text += f", {figures['predicted_ms']:.0f} ms predicted, {figures['measured_ms']:.0f} measured"
    return text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", help=f"some of {', '.join(SHAPES)}; by default all")
    parser.add_argument("--time", action="store_true", help=f"time those below {FITS / 1e9:.0f} GB, on a quiet machine")
    add_options(parser, "shapes")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    if unknown := [name for name in options.shapes if name not in SHAPES]:
        parser.error(f"no shape is called {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    transformers.utils.logging.set_verbosity_error()
    for name in options.shapes or SHAPES:
        began = time.perf_counter()
        for row in rows(name, SHAPES[name], options.time):
            record(place("shapes", options), row, time.perf_counter() - began)
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
