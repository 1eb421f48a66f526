"""Padding left out of a distillation: the same is seen, less is computed, and where that cannot be, padding stays."""

import copy
from contextlib import contextmanager

import pytest
import torch

import ttqlib as ttq
from tests.training.test_distill import bert, rows, tensor_train, trainer
from tests.training.test_distill_observation import INPUTS, REAL, build
from ttqlib.training.observation import observe, recorded_attention
from ttqlib.training.real_tokens import RealTokens
from ttqlib.training.unpadding import Unpadding

ALONE = ["bert", "distilbert", "llama", "mistral", "gemma2", "gemma3", "modernbert"]
# No list of layers; attention that is not recorded; sentences that are put into shape again behind the layers;
# relative positions made in the first layer.
STAYS = ["albert", "deberta", "gpt2", "t5"]


def test_real_tokens_go_side_by_side_and_back():
    tokens, x = RealTokens(REAL), torch.randn(2, 5, 3, requires_grad=True)
    packed = tokens.pack(x)
    assert packed.shape == (1, 8, 3) and torch.equal(packed[0], x[REAL]) and tokens.are_in(packed)
    assert not tokens.are_in(x)
    padded = tokens.pad(packed)
    assert torch.equal(padded[REAL], x[REAL]) and (padded[~REAL] == 0).all()
    padded.sum().backward()
    assert torch.equal(x.grad, REAL[..., None].expand(2, 5, 3).float())


def test_what_is_the_same_for_all_sentences_is_given_to_each():
    positions = torch.arange(5.0)[None, :, None]
    assert RealTokens(REAL).pack(positions).flatten().tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def rows_of_the_first_layer(model) -> list[torch.Size]:
    """The shape that its first linear layer is called with, call by call."""
    seen = []
    for part in model.modules():
        if isinstance(part, torch.nn.ModuleList):
            linear = next(one for one in part.modules() if type(one).__name__ in ("Linear", "Conv1D"))
            linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1]))
            return seen
    raise AssertionError("no layers")


@pytest.mark.parametrize("kind", ALONE)
def test_the_same_is_seen_without_padding(kind):
    model = build(kind).eval()
    called = rows_of_the_first_layer(model)
    with recorded_attention(model), Unpadding(model) as unpadding:
        tokens = unpadding.tokens(INPUTS)
        assert tokens is not None
        called.clear()
        plain, alone = observe(model, INPUTS, maps=True), observe(model, INPUTS, tokens=tokens, maps=True)
    assert [shape.numel() for shape in called] == [10, 8]
    assert alone.states_mask.all() and alone.states_mask.shape == (1, 8) and torch.equal(alone.mask, plain.mask)
    for ours, theirs in zip(alone.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(ours[0], theirs[REAL])
    torch.testing.assert_close(alone.last_hidden_state[REAL], plain.hidden_states[-1][REAL])
    for ours, theirs in zip(alone.attentions, plain.attentions, strict=True):
        ours, theirs = (one.scores().softmax(-1).transpose(1, 2)[REAL] for one in (ours, theirs))
        torch.testing.assert_close(ours, theirs)
    for name, logits in plain.logits.items():
        whole = logits.ndim == 2
        torch.testing.assert_close(*((one if whole else one[REAL]) for one in (alone.logits[name], logits)))


@pytest.mark.parametrize("kind", STAYS)
def test_padding_stays_where_a_model_needs_it(kind):
    model, bert = build(kind).eval(), build("bert")
    with recorded_attention(bert), Unpadding(bert, model) as unpadding:
        assert unpadding.tokens(INPUTS, INPUTS) is None


class Positions(torch.nn.Module):
    """A layer that gives each place of a sentence something of its own, as it may not without padding."""

    def forward(self, x):
        return x * torch.arange(x.shape[1])[None, :, None]


def test_padding_stays_where_layers_count_places():
    model = build("bert").eval()
    model.bert.encoder.layer[1].output.dropout = Positions()
    with recorded_attention(model), Unpadding(model) as unpadding:
        assert unpadding.tokens(INPUTS) is None


@pytest.mark.parametrize(("activations", "stays"), [(ttq.StaticActivation(), True), (ttq.DynamicActivation(), False)])
def test_padding_stays_where_steps_of_activations_are_calibrated_on_batches(activations, stays):
    """Those that are found for each token are not concerned."""
    model = tensor_train(build("bert"), rank=4, bits=4, activations=activations)
    with recorded_attention(model), Unpadding(model) as unpadding:
        assert (unpadding.tokens(INPUTS) is None) is stays


def test_padding_stays_under_gradient_checkpointing():
    model = build("bert")
    model.gradient_checkpointing_enable()
    with recorded_attention(model), Unpadding(model) as unpadding:
        assert unpadding.tokens(INPUTS) is None


@pytest.mark.parametrize("mask", [None, torch.ones(2, 5), torch.ones(2, 1, 5, 5)], ids=["none", "full", "of maps"])
def test_batches_without_padding_are_left_alone(mask):
    model = build("bert").eval()
    with recorded_attention(model), Unpadding(model) as unpadding:
        inputs = {"input_ids": INPUTS["input_ids"]} | ({} if mask is None else {"attention_mask": mask})
        assert unpadding.tokens(inputs) is None and unpadding.tokens(INPUTS) is not None


def test_a_trial_leaves_the_model_as_it_was():
    model = build("bert").train()
    model.bert.embeddings.eval()  # a part in another mode
    modes = [part.training for part in model.modules()]
    with recorded_attention(model), Unpadding(model) as unpadding:
        assert unpadding.tokens(INPUTS) is not None and modes == [part.training for part in model.modules()]
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert not model.bert.encoder._forward_hooks


SCHEDULES = {
    "all layers": ttq.AllLayers(4),
    "layer by layer": ttq.LayerByLayer(2),
    "relations": ttq.AttentionRelations(3, heads=2),
    "sentences": ttq.Contrastive(3),
    "logits": ttq.LogitsOnly(3),
}


@contextmanager
def always_padded(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Unpadding, "tokens", lambda *_: None)
        yield


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_training_gives_the_same_losses(tmp_path, monkeypatch, schedule):
    """And the same weights, up to rounding, though its layers have seen real tokens only."""
    teacher = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    student = tensor_train(teacher, rank=4)
    runs = []
    for pads in (True, False):
        model, teaching = copy.deepcopy(student), copy.deepcopy(teacher)
        tokens = rows_of_the_first_layer(teaching)
        made = trainer(tmp_path, model, teaching, schedule, logging_strategy="steps", logging_steps=1)
        if pads:
            with always_padded(monkeypatch):
                made.train()
        else:
            made.train()
        runs.append(([entry["loss"] for entry in made.state.log_history if "loss" in entry], model, tokens))
    (padded, theirs, all_tokens), (alone, ours, real_tokens) = runs
    assert alone == pytest.approx(padded, rel=1e-4) and len(alone) == len(padded) > 2
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)
    counts = [max(shape.numel() for shape in seen[-2:]) for seen in (all_tokens, real_tokens)]
    assert counts[0] == 64 > counts[1]
    assert sum(row["attention_mask"].count(1) for row in rows()) < 0.8 * 8 * len(rows())
