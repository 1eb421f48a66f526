"""`export_talker`: a Llama becomes a folder for `Talker`, its codes of few bits those that the model has.

The graph is written node by node, in onnxruntime's own operations for language models: one product of few bits for
queries, keys and values, one for gate and up, attention with its cache in place and its turns by position inside, the
addition of a block and the norm behind it in one. A token of a small model is a matter of few microseconds a node.
"""

import os
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ..storage.folders import replacing
from ..surgery.calibration import eval_mode
from ..tensors.shapes import whole_number
from .exported import GRAPH, TOKENIZER, check_installed
from .few_bits import Blocks, blocks_of
from .talker import SETTINGS, Talker

PACKAGES = ("onnx", "onnxruntime", "tokenizers")
LONGEST = 2048  # tokens, where `max_length` is not given
INT8, FLOAT = 4, 1  # what `MatMulNBits` computes in: with inputs rounded to 8 bits, block by block; in float32
TOLERANCE, ROUNDED = 1e-3, 0.2  # how far logits may be from the model's, of the largest; and where inputs are rounded
OURS = "com.microsoft"  # the domain of onnxruntime's own operations
TURNS = ("default", "linear", "llama3")  # kinds of rotary positions whose turns do not depend on the length


@torch.no_grad()
def export_talker(
    model: LlamaForCausalLM,
    folder: str | os.PathLike,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    max_length: int | None = None,
    int8_inputs: bool = True,
) -> None:
    """Write a Llama into `folder` for `Talker`: `model.onnx`, `tokenizer.json`, `talk.json`.

    A weight under `GroupRTN` in groups of 16, 32, 64, 128 or 256 is written in its own codes and scales, and so is the
    table of words; any other weight in float32, with the values that the layer sees (a tied table then stands there
    twice). The graph is compared with the model. The folder is switched in as a whole, as by `save`; the model stays as
    it is.

    Args:
        model: the transformers model, with plain linear layers; scales that fold are folded (`fold_`).
        tokenizer: without one `Talker` takes ids only.
        max_length: of a text with what follows it, by default what the model's positions allow, and at most `LONGEST`.
        int8_inputs: what flows into a product of few bits is rounded to 8 bits, a scale for each block; it is faster.

    Raises:
        TypeError: no `LlamaForCausalLM`, or a tokenizer without a fast backend.
        ValueError: a layer, an activation function or positions that the graph has no operation for; a `max_length`
            that the model has no positions for.
        RuntimeError: the graph does not answer as the model does.
        ModuleNotFoundError: the packages of the extra `deploy` are not installed.
    """
    _check(model, tokenizer)
    told = _told(model, max_length)
    with replacing(folder, fence=(SETTINGS.name, GRAPH)) as new:
        graph = _Llama(model, told["max_length"], INT8 if int8_inputs else FLOAT)
        graph.write(new / GRAPH)
        if tokenizer is not None:
            tokenizer.backend_tokenizer.save(str(new / TOKENIZER))
        SETTINGS.write(new, told)
        _compare(model, Talker(new), ROUNDED if int8_inputs and graph.few_bits else TOLERANCE)


def _check(model, tokenizer) -> None:
    check_installed(PACKAGES)
    if not isinstance(model, LlamaForCausalLM):
        raise TypeError(f"model must be a LlamaForCausalLM, got {type(model).__name__}: ttq.export_onnx takes others")
    if tokenizer is not None and not hasattr(tokenizer, "backend_tokenizer"):
        raise TypeError(f"tokenizer must be a fast tokenizer of transformers, got {type(tokenizer).__name__}")
    kind = model.config.rope_parameters.get("rope_type", "default")
    if model.config.hidden_act != "silu" or kind not in TURNS:
        raise ValueError(
            f"the graph has silu and positions of the kinds {', '.join(TURNS)}; this model has "
            f"{model.config.hidden_act} and {kind}"
        )


def _told(model: LlamaForCausalLM, max_length: int | None) -> dict:
    """The contents of talk.json, but for the digests."""
    config, ends, most = model.config, model.generation_config.eos_token_id, model.config.max_position_embeddings
    length = whole_number("max_length", min(most, LONGEST) if max_length is None else max_length, minimum=2)
    if length > most:
        raise ValueError(f"max_length must be at most {most}, the positions that the model has, got {length}")
    return {
        "layers": config.num_hidden_layers,
        "cache": [config.num_key_value_heads, config.head_dim],
        "vocabulary": config.vocab_size,
        "max_length": length,
        "ends": ends if isinstance(ends, list) else [] if ends is None else [ends],
    }


def _compare(model: LlamaForCausalLM, talker: Talker, tolerance: float) -> None:
    """Refuse a graph whose logits are not the model's."""
    length = min(16, talker.max_length)
    ids = torch.randint(talker.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    with eval_mode(model):
        expected = model(input_ids=ids.to(model.device), use_cache=False).logits[0].float().cpu().numpy()
    error = np.abs(talker.logits(ids[0].numpy()) - expected).max() / np.abs(expected).max()
    if not error <= tolerance:
        raise RuntimeError(f"the logits of the graph differ by {error:.1e} from the model's")


class _Llama:
    """The graph of a model: `_node` adds an operation and names what it gives, `_constant` an array."""

    def __init__(self, model: LlamaForCausalLM, length: int, accuracy: int):
        self.model, self.config, self.length, self.accuracy = model, model.config, length, accuracy
        self.nodes, self.constants, self.numbers, self.few_bits = [], [], count(), False
        self.matrices: dict[tuple[nn.Parameter, ...], tuple[Blocks, list[str]]] = {}
        self._build()

    def _build(self) -> None:
        llama = self.model.model
        head = self._weights([self.model.get_output_embeddings()])  # first: a tied table is read from its codes
        stream = self._look_up(self.model.get_input_embeddings())
        turns = self._turns(llama.rotary_emb)
        norms = [norm for layer in llama.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        norms = [self._constant(norm.weight) for norm in [*norms, llama.norm]]
        normed = self._node("SimplifiedLayerNormalization", [stream, norms[0]], domain="", axis=-1, **self._epsilon())
        for number, layer in enumerate(llama.layers):
            answer = self._attention(number, layer.self_attn, normed, turns)
            normed, stream = self._add_and_norm(stream, answer, norms[2 * number + 1])
            answer = self._feed_forward(layer.mlp, normed)
            normed, stream = self._add_and_norm(stream, answer, norms[2 * number + 2])
        last, axis = (self._constant(np.array([value])) for value in (np.iinfo(np.int64).max, 1))
        asked = self._node("Slice", [normed, "first", last, axis], domain="")
        self._linear([self.model.get_output_embeddings()], asked, head, ["logits"])

    # ------------------------------------------------------------------------------------------------ parts of a model

    def _attention(self, number: int, attention: nn.Module, x: str, turns: list[str]) -> str:
        config, own = self.config, f"{number}"
        together = self._linear([attention.q_proj, attention.k_proj, attention.v_proj], x)
        cache = [f"past.{own}.key", f"past.{own}.value"]
        answer, *_ = self._nodes(
            "GroupQueryAttention",
            [together, "", "", *cache, "last", "length", *turns],
            [self._name(), f"present.{own}.key", f"present.{own}.value"],
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            scale=attention.scaling,
            do_rotary=1,
        )
        return self._linear([attention.o_proj], answer)

    def _feed_forward(self, mlp: nn.Module, x: str) -> str:
        both = self._linear([mlp.gate_proj, mlp.up_proj], x)
        gate, up = self._nodes("Split", [both], [self._name(), self._name()], domain="", axis=-1, num_outputs=2)
        gate = self._node("QuickGelu", [gate], alpha=1.0)  # x · sigmoid(αx), which is silu at α = 1
        return self._linear([mlp.down_proj], self._node("Mul", [gate, up], domain=""))

    def _add_and_norm(self, stream: str, answer: str, gain: str) -> tuple[str, str]:
        """The norm of the sum, and the sum."""
        names = [self._name(), "", "", self._name()]
        found = self._nodes("SkipSimplifiedLayerNormalization", [stream, answer, gain], names, **self._epsilon())
        return found[0], found[3]

    def _look_up(self, table: nn.Embedding) -> str:
        made = self._weights([table])
        if made is None or made[0].columns % made[0].size:
            return self._node("Gather", [self._constant(table.weight), "ids"], domain="")
        blocks, (codes, *others) = made
        shape = self._constant(np.array([blocks.codes.shape[0], blocks.codes[0].size]))
        rows = self._node("Reshape", [codes, shape], domain="")
        kind = {"bits": blocks.bits, "block_size": blocks.size, "gather_axis": 0, "quantize_axis": 1}
        return self._node("GatherBlockQuantized", [rows, "ids", *others], **kind)

    def _turns(self, rotary: nn.Module) -> list[str]:
        """Cosines and sines of each position, (length, half of a head), which two halves of a head share."""
        cosines, sines = rotary(torch.zeros(1), torch.arange(self.length)[None])
        return [self._constant(turn[0, :, : turn.shape[-1] // 2]) for turn in (cosines, sines)]

    def _linear(self, layers: list[nn.Module], x: str, made=None, names: list[str] | None = None) -> str:
        """Layers that read the same, their outputs side by side."""
        for layer in layers:
            if not isinstance(layer, nn.Linear) or hasattr(layer, "input_quantizer"):
                raise ValueError(f"the graph has plain linear layers, this model has a {type(layer).__name__} as well")
        names, made = names or [self._name()], made or self._weights(layers)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        product = [self._name()] if biases else names
        if made is None:
            matrix = self._constant(torch.cat([layer.weight for layer in layers]).T)
            self._nodes("MatMul", [x, matrix], product, domain="")
        else:
            blocks, inputs = made
            sizes = {"K": blocks.columns, "N": len(blocks.codes), "bits": blocks.bits, "block_size": blocks.size}
            self._nodes("MatMulNBits", [x, *inputs], product, accuracy_level=self.accuracy, **sizes)
        if biases:
            whole = [
                layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers
            ]
            self._nodes("Add", [*product, self._constant(torch.cat(whole))], names, domain="")
        return names[0]

    def _weights(self, layers: list[nn.Module]) -> tuple[Blocks, list[str]] | None:
        """Codes, scales and zero points as the kernel takes them, and their names; tied ones are written once."""
        blocks = blocks_of(layers)
        if blocks is None:
            return None
        self.few_bits = True
        key = tuple(layer.parametrizations["weight"].original for layer in layers)
        if key not in self.matrices:
            parts = (blocks.codes, blocks.scales, blocks.zero_points)
            self.matrices[key] = blocks, [self._constant(part) for part in parts]
        return self.matrices[key]

    # ---------------------------------------------------------------------------------------------- parts of a graph

    def _epsilon(self) -> dict:
        return {"epsilon": self.config.rms_norm_eps}

    def _name(self) -> str:
        return f"value {next(self.numbers)}"

    def _node(self, operation: str, inputs: list[str], domain: str = OURS, **settings) -> str:
        return self._nodes(operation, inputs, [self._name()], domain, **settings)[0]

    def _nodes(
        self, operation: str, inputs: list[str], outputs: list[str], domain: str = OURS, **settings
    ) -> list[str]:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, outputs, domain=domain, **settings))
        return outputs

    def _constant(self, values: torch.Tensor | np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant {next(self.numbers)}"
        array = values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else values
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def write(self, path: Path) -> None:
        """Write the graph, with all weights in the one file."""
        import onnx
        from onnx import TensorProto, helper

        config = self.config
        cache = (TensorProto.FLOAT, [1, config.num_key_value_heads, "room", config.head_dim])
        kinds = [f"{number}.{kind}" for number in range(config.num_hidden_layers) for kind in ("key", "value")]
        whole, small = TensorProto.INT64, TensorProto.INT32
        given = {"ids": (whole, [1, "tokens"]), "first": (whole, [1]), "last": (small, [1]), "length": (small, [1])}
        given |= {f"past.{kind}": cache for kind in kinds}
        answers = {"logits": (TensorProto.FLOAT, [1, "asked", config.vocab_size])}
        answers |= {f"present.{kind}": cache for kind in kinds}
        ends = ([helper.make_tensor_value_info(name, *one) for name, one in some.items()] for some in (given, answers))
        graph = helper.make_graph(self.nodes, "talker", *ends, self.constants)
        versions = [helper.make_opsetid("", 21), helper.make_opsetid(OURS, 1)]
        onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), path)
