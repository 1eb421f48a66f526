"""SmolLM2's linear layers in the types of llama.cpp's files: by the package gguf, and by llama.cpp's own quantizer."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import PreTrainedModel


def in_type(layers: Mapping[str, nn.Linear], name: str) -> float:
    """All layers in one type, as the package gguf quantizes it; gives the bits of a weight."""
    import gguf

    kind = gguf.GGMLQuantizationType[name]
    for layer in layers.values():
        codes = gguf.quants.quantize(layer.weight.detach().numpy(), kind)
        layer.weight.data = torch.tensor(gguf.quants.dequantize(codes, kind))
    size, stored = gguf.GGML_QUANT_SIZES[kind]
    return 8 * stored / size


def by_llama_cpp(model: PreTrainedModel, layers: Mapping[str, nn.Linear], name: str) -> tuple[float, Counter]:
    """In a mix of llama.cpp, as its quantizer makes it; gives the bits of a weight, and how many layers have which.

    Where a row is no multiple of 256, as most of SmolLM2's are, it takes other types than the mix is named after.

    Raises:
        RuntimeError: llama.cpp refused; what it wrote says why.
    """
    import gguf
    import llama_cpp

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    with TemporaryDirectory() as scratch:
        source, made = (Path(scratch) / f"{end}.gguf" for end in ("float", name))
        write_gguf(model, names, source)
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
        if llama_cpp.llama_model_quantize(str(source).encode(), str(made).encode(), how):
            raise RuntimeError(f"llama.cpp did not quantize to {name}")
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(made).tensors}
        taken = {path: tensors[f"{names.get_name(path)}.weight"] for path in layers}
        for path, layer in layers.items():
            weight = gguf.quants.dequantize(taken[path].data, taken[path].tensor_type)
            layer.weight.data = torch.tensor(weight).reshape(layer.weight.shape)
        stored = sum(int(tensor.n_bytes) for tensor in taken.values())
        types = Counter(tensor.tensor_type.name for tensor in taken.values())
    return 8 * stored / sum(layer.weight.numel() for layer in layers.values()), types


def write_gguf(model: PreTrainedModel, names, path: Path) -> None:
    """A Llama's weights in float32, and what llama.cpp's quantizer asks of their shapes.

    Rows of query and key stay in the order of transformers: whoever quantizes row by row does not mind.
    """
    import gguf

    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    for key, weight in model.named_parameters():  # a table that both ends share stands here once
        writer.add_tensor(f"{names.get_name(key.removesuffix('.weight'))}.weight", weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
