"""Other tools that quantize the same weights: each is one entry in one table, run in a process of its own.

teq.py calls `converted`, which writes the float model and the training windows to a folder and starts

    PYTHON experiments/peers.py NAME FOLDER

with an interpreter that has the peer's packages, beside torch and transformers; ttqlib is not needed there. The peer's
model comes back as plain float weights, so that one function measures all of them. Every peer is called as its own
pages say, with the same bits, group, windows and, where it trains, steps. What it would store for a weight is counted:
codes, and what it keeps for each group.

To set such an environment up: python -m pip install --no-deps auto-round==0.16.1 py-cpuinfo neural_compressor_pt==3.10
prettytable hqq==0.2.8.post1 termcolor gguf llama-cpp-python==0.3.36 diskcache, beside what ttqlib has. llama-cpp-python
is built from its source, which takes five minutes and asks for a compiler and cmake.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gguf_types import by_llama_cpp, in_type
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

SCALE, HALF = 32, 16  # bits of a number that a group keeps


@dataclass(frozen=True)
class Job:
    """What a peer is told. `group` is -1 where a whole row shares a scale, as all peers have it."""

    bits: int
    group: int
    steps: int
    batch_size: int
    windows: Tensor  # (N, T)

    def per_weight(self, kept: int) -> float:
        """Bits for each weight, where a group keeps so many beside its codes (a row of 576: of the smallest layers)."""
        return self.bits + kept / (self.group if self.group > 0 else 576)


@dataclass(frozen=True)
class Peer:
    """`convert` (model, tokenizer, job) gives the model with plain weights, and the bits that a weight takes.

    Args:
        looks: at the training windows.
        trains: for so many steps.
        only: the bits and the group that it has, where it has no others; None for any group.
    """

    convert: Callable[[PreTrainedModel, object, Job], tuple[nn.Module, float]]
    looks: bool = True
    trains: bool = False
    only: tuple[int, int | None] | None = None


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer but the head."""
    head = model.get_output_embeddings()
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head}


# ----------------------------------------------------------------------------------------------------------- the peers


def auto_round(model: PreTrainedModel, tokenizer, job: Job) -> tuple[nn.Module, float]:
    """SignRound, by its authors: https://github.com/intel/auto-round."""
    from auto_round import AutoRound

    rows = [{"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])} for ids in job.windows]
    tool = AutoRound(
        model,
        tokenizer,
        bits=job.bits,
        group_size=job.group,
        sym=False,
        iters=job.steps,
        nsamples=len(rows),
        seqlen=job.windows.shape[1],
        batch_size=job.batch_size,
        dataset=rows,
        device_map="cpu",
    )
    made, _ = tool.quantize()
    return made, job.per_weight(SCALE + job.bits)


def hqq(model: PreTrainedModel, tokenizer, job: Job) -> tuple[nn.Module, float]:
    """Half-quadratic quantization, which looks at no input; its zero points are no whole numbers."""
    from hqq.core.quantize import Quantizer

    for layer in linear_layers(model).values():
        size = job.group if job.group > 0 else layer.in_features
        codes, meta = Quantizer.quantize(
            layer.weight.data, nbits=job.bits, group_size=size, axis=1, bitpack=False, device="cpu"
        )
        made = (codes.float() - meta["zero"]) * meta["scale"]
        layer.weight.data = made.reshape(layer.weight.shape).float()
    return model, job.per_weight(HALF + HALF)


def neural_compressor(name: str) -> Callable:
    """A recipe of neural-compressor 3, by the name of its class of settings."""

    def convert(model: PreTrainedModel, tokenizer, job: Job) -> tuple[nn.Module, float]:
        from neural_compressor.torch import quantization as nc

        own = {"absorb_to_layer": readers(model)} if name == "TEQConfig" else {}
        config = getattr(nc, name)(bits=job.bits, group_size=job.group, use_sym=False, white_list=[nn.Linear], **own)
        batches = [{"input_ids": ids} for ids in job.windows.split(job.batch_size)]
        with torch.enable_grad():
            model = nc.prepare(model, config, example_inputs=batches[0]["input_ids"])
            if name == "TEQConfig":
                train_scales(model, batches, job.steps)
            elif name != "RTNConfig":
                for batch in batches:
                    model(**batch)
            model = nc.convert(model)
        scaled = HALF / 192 if name == "AWQConfig" else 0  # of each input, for at least so many outputs: see `plain`
        return plain(model), job.per_weight(HALF + job.bits) + scaled

    return convert


def readers(model: PreTrainedModel) -> dict[str, list[str]]:
    """Of a Llama: each norm, and the layers that read what it gives; up, and down."""
    found = {}
    for place in range(model.config.num_hidden_layers):
        layer = f"model.layers.{place}"
        found[f"{layer}.input_layernorm"] = [f"{layer}.self_attn.{one}_proj" for one in "qkv"]
        found[f"{layer}.post_attention_layernorm"] = [f"{layer}.mlp.{one}_proj" for one in ("gate", "up")]
        found[f"{layer}.mlp.up_proj"] = [f"{layer}.mlp.down_proj"]
    return found


def train_scales(model: nn.Module, batches: Sequence[Mapping], steps: int) -> None:
    """neural-compressor leaves the training of TEQ's scales to its user; without it TEQ is round-to-nearest."""
    scales = list(model._prepare_trained_alphas.values())
    optimizer = torch.optim.Adam(scales, lr=1e-3)
    for step in range(steps):
        ids = batches[step % len(batches)]["input_ids"]
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain(model: nn.Module) -> nn.Module:
    """neural-compressor's packed layers as plain ones.

    Its AWQ leaves a product with the scales before each layer, which is taken into the weight here: told to fold, it
    scales nothing of a Llama and gives round-to-nearest.
    """
    for name, module in list(model.named_modules()):
        inner = getattr(module, "linear", module)
        if hasattr(inner, "recover") and not name.endswith(".linear"):
            layer = nn.Linear(inner.in_features, inner.out_features, bias=False)  # those of a Llama have no bias
            layer.weight.data = inner.recover().float() * getattr(module, "input_scale", 1.0)
            model.set_submodule(name, layer)
    return model


def ggml(name: str) -> Callable:
    """A type of llama.cpp's files, as the package gguf quantizes it."""
    return lambda model, tokenizer, job: (model, in_type(linear_layers(model), name))


def llama_cpp(name: str) -> Callable:
    """A mix of types by llama.cpp's own quantizer."""

    def convert(model: PreTrainedModel, tokenizer, job: Job) -> tuple[nn.Module, float]:
        bits, model.types = by_llama_cpp(model, linear_layers(model), name)
        return model, bits

    return convert


PEERS = {
    "auto-round": Peer(auto_round, trains=True),
    "hqq": Peer(hqq, looks=False),
    "nc-rtn": Peer(neural_compressor("RTNConfig"), looks=False),
    "nc-gptq": Peer(neural_compressor("GPTQConfig")),
    "nc-awq": Peer(neural_compressor("AWQConfig")),
    "nc-teq": Peer(
        neural_compressor("TEQConfig"), trains=True, only=(4, None)
    ),  # findings/neural_compressor_teq_bits.sh
    "gguf-q4_0": Peer(ggml("Q4_0"), looks=False, only=(4, 32)),
    "gguf-q4_1": Peer(ggml("Q4_1"), looks=False, only=(4, 32)),
    "gguf-q5_0": Peer(ggml("Q5_0"), looks=False, only=(5, 32)),
    "gguf-q8_0": Peer(ggml("Q8_0"), looks=False, only=(8, 32)),
    "gguf-q4_k_m": Peer(llama_cpp("Q4_K_M"), looks=False, only=(5, 256)),  # by what SmolLM2 gets: see by_llama_cpp
    "gguf-q3_k_m": Peer(llama_cpp("Q3_K_M"), looks=False, only=(4, 256)),
    "gguf-q2_k": Peer(llama_cpp("Q2_K"), looks=False, only=(4, 256)),
}


# ------------------------------------------------------------------------------------------------------- two processes


def converted(name: str, model: PreTrainedModel, tokenizer, job: Job, python: str) -> tuple[PreTrainedModel, int]:
    """The model with a peer's weights, and how many bytes fewer than float32 they take as the peer would store them.

    `types` in its config say how many layers have which, where a peer takes several.

    Raises:
        RuntimeError: the peer failed; the message ends with the last lines that it wrote.
    """
    count = sum(layer.weight.numel() for layer in linear_layers(model).values())
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        save_file({"windows": job.windows.contiguous()}, folder / "windows.safetensors")
        told = {key: getattr(job, key) for key in ("bits", "group", "steps", "batch_size")}
        (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
        run = subprocess.run([python, __file__, name, folder], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{name} failed: " + "\n".join((run.stdout + run.stderr).splitlines()[-15:]))
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        load_model(model, folder / "weights.safetensors")
    model.config.types = report["types"]  # which goes to disk with the model
    return model, round(count * (32 - report["bits_per_weight"]) / 8)


def work(name: str, folder: Path) -> None:
    """The other process."""
    told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    job = Job(**told, windows=load_file(folder / "windows.safetensors")["windows"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tied = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
    made, bits = PEERS[name].convert(model, AutoTokenizer.from_pretrained(folder / "model"), job)
    weights = {key: tensor for key, tensor in made.state_dict().items() if key in tied and "lm_head" not in key}
    save_file({key: tensor.float().contiguous() for key, tensor in weights.items()}, folder / "weights.safetensors")
    report = {"bits_per_weight": bits, "types": getattr(made, "types", {})}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
