"""The joint intent and slot model that is trained on ATIS."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.utils import ModelOutput


@dataclass
class IntentSlotOutput(ModelOutput):
    """What `IntentSlotModel` returns; `loss` only where labels were given."""

    loss: Tensor | None = None
    intent_logits: Tensor | None = None  # (B, intents)
    slot_logits: Tensor | None = None  # (B, T, slots)
    hidden_states: tuple[Tensor, ...] | None = None  # L + 1 tensors (B, T, hidden)
    attentions: tuple[Tensor, ...] | None = None  # L tensors (B, heads, T, T)


class IntentSlotModel(BertPreTrainedModel):
    """A BERT encoder with two linear heads: the intent from [CLS], a slot label from every token.

    Labels: `config.intents` and `config.slots`, lists of names. The loss is the sum of the two mean cross-entropies
    (Chen et al., "BERT for Joint Intent Classification and Slot Filling", 2019, eq. 3), over labels that are not
    negative: −1 marks a label unseen in training, −100 what is not a word.
    """

    config_class = BertConfig

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.intent_head = nn.Linear(config.hidden_size, len(config.intents))
        self.slot_head = nn.Linear(config.hidden_size, len(config.slots))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        intent_labels: Tensor | None = None,
        slot_labels: Tensor | None = None,
        **options,
    ) -> IntentSlotOutput:
        """Logits of a batch of B sentences of T tokens, and the loss where both kinds of labels are given.

        Args:
            input_ids, attention_mask, token_type_ids: (B, T), as of `BertModel`.
            intent_labels: (B,), numbers into `config.intents`.
            slot_labels: (B, T), numbers into `config.slots`.
            options: of `BertModel`, such as `output_hidden_states`.
        """
        encoded = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **options)
        states = self.dropout(encoded.last_hidden_state)  # (B, T, hidden)
        intent_logits, slot_logits = self.intent_head(states[:, 0]), self.slot_head(states)
        loss = None
        if intent_labels is not None and slot_labels is not None:
            loss = _cross_entropy(intent_logits, intent_labels) + _cross_entropy(slot_logits, slot_labels)
        return IntentSlotOutput(loss, intent_logits, slot_logits, encoded.hidden_states, encoded.attentions)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the labels that are not negative; zero, with a gradient, where there is none."""
    known = labels >= 0
    total = F.cross_entropy(logits.flatten(0, -2), labels.masked_fill(~known, -100).flatten(), reduction="sum")
    return total / known.sum().clamp(min=1)
