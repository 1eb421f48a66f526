"""Small models of several families, without weights, for the tests of the app."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

SIZE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 60}
LLAMA = SIZE | {"num_key_value_heads": 1, "tie_word_embeddings": True}
BUILT = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE, max_position_embeddings=16)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SIZE, max_position_embeddings=20)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=2, n_positions=16)),
}


def bare(family: str):
    """On the meta device."""
    with torch.device("meta"):
        return BUILT[family]()
