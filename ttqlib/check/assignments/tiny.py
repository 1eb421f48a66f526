"""Models and batches so small that a check may train them: what the assignments about whole models share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification


def tiny_bert(draw: torch.Generator, height: int, dropout: float = 0.0) -> BertForSequenceClassification:
    """A BERT of 16 columns whose every parameter, also of biases and norms, is a random number."""
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=height,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4 + name.endswith("LayerNorm.weight"))
    return model.eval()


def same_numbers(model: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def mask_of(lengths: Sequence[int]) -> Tensor:
    """(B, T), 1 at real tokens, of whole numbers as tokenizers give them."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def batch_of(draw: torch.Generator) -> dict[str, Tensor]:
    mask = mask_of([6, 3, 4])
    return {"input_ids": torch.randint(4, 30, mask.shape, generator=draw) * mask, "attention_mask": mask}
