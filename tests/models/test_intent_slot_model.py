"""The joint model: its loss by hand, its labels that do not count, its life as a Hugging Face model."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig

import ttqlib as ttq


def tiny(**options) -> ttq.IntentSlotModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
        intents=["a", "b", "c"],
        slots=["O", "B-x", "I-x", "B-y"],
        **options,
    )
    return ttq.IntentSlotModel(config).eval()


IDS = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
INTENTS, SLOTS = torch.tensor([1, 2]), torch.tensor([[-100, 1, 2, -100], [-100, 0, -100, -100]])


def test_the_loss_is_the_sum_of_two_means_over_real_labels():
    output = tiny()(IDS, MASK, intent_labels=INTENTS, slot_labels=SLOTS)
    intent = F.cross_entropy(output.intent_logits, INTENTS)
    slots = F.cross_entropy(
        torch.stack([output.slot_logits[0, 1], output.slot_logits[0, 2], output.slot_logits[1, 1]]),
        torch.tensor([1, 2, 0]),
    )
    assert torch.allclose(output.loss, intent + slots)


def test_unseen_labels_and_more_padding_change_nothing():
    model = tiny()
    plain = model(IDS, MASK, intent_labels=INTENTS, slot_labels=SLOTS).loss
    wider = [F.pad(tensor, (0, 3), value=value) for tensor, value in ((IDS, 0), (MASK, 0), (SLOTS, -100))]
    assert torch.allclose(model(*wider[:2], intent_labels=INTENTS, slot_labels=wider[2]).loss, plain, atol=1e-6)
    more = [torch.cat([tensor, tensor[:1]]) for tensor in (IDS, MASK)]
    intents, slots = torch.cat([INTENTS, torch.tensor([-1])]), torch.cat([SLOTS, torch.tensor([[-100, -1, -1, -100]])])
    assert torch.allclose(model(*more, intent_labels=intents, slot_labels=slots).loss, plain, atol=1e-6)


def test_a_batch_without_a_known_label_has_a_loss_of_zero():
    loss = tiny()(IDS, MASK, intent_labels=INTENTS * 0 - 1, slot_labels=SLOTS * 0 - 100).loss
    assert loss == 0 and loss.requires_grad


def test_without_labels_there_is_no_loss_and_states_come_on_request():
    model = tiny(attn_implementation="eager")
    assert model(IDS, MASK).loss is None
    output = model(IDS, MASK, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    assert output.intent_logits.shape == (2, 3) and output.slot_logits.shape == (2, 4, 4)


def test_it_is_saved_and_loaded_as_any_model(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    again = ttq.IntentSlotModel.from_pretrained(tmp_path).eval()
    assert again.config.intents == ["a", "b", "c"]
    assert torch.equal(again(IDS, MASK).slot_logits, model(IDS, MASK).slot_logits)


@pytest.mark.parametrize("init", ["svd", "random"])
def test_compressed_it_learns(init):
    model = tiny()
    ttq.compress_(model, ttq.plan(model, rank=4), init=init).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(IDS, MASK, intent_labels=INTENTS, slot_labels=SLOTS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(core.grad is not None and core.grad.any() for core in model.bert.encoder.layer[0].output.dense.cores)
