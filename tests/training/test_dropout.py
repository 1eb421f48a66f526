"""`QuickDropout`: the rate, the scale and the independence of `nn.Dropout`, from fewer random numbers."""

import copy

import pytest
import torch
from torch import nn

import ttqlib as ttq
from tests.cases import refused
from ttqlib.training.dropout import QuickDropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_the_mean_too(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 1003)  # no multiple of four
    y = QuickDropout(p)(x)
    kept = (y != 0).double().mean().item()
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-17
    assert len(y.unique()) == 2 and y.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_neighbours_are_dropped_independently():
    """Lanes of one random integer share nothing: at distances 1 to 8, as many pairs fall as p² says."""
    torch.manual_seed(0)
    dropped = (QuickDropout(0.3)(torch.ones(2_000_000)) == 0).double() - 0.3
    for distance in range(1, 9):
        covariance = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert abs(covariance) < 5 * 0.21 / len(dropped) ** 0.5


def test_the_gradient_goes_where_the_value_went():
    x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    y = QuickDropout(0.4)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y)
    torch.manual_seed(3)
    assert torch.equal(QuickDropout(0.4)(x), y)  # masks follow the seed


def test_in_eval_mode_and_at_the_ends_it_is_the_usual_dropout():
    x = torch.randn(5, 5)
    assert torch.equal(QuickDropout(0.5).eval()(x), x)
    assert torch.equal(QuickDropout(0.0)(x), x) and not QuickDropout(1.0)(x).any()
    assert QuickDropout(0.1)(x.bfloat16()).dtype == torch.bfloat16
    assert QuickDropout(0.1)(torch.empty(0, 3)).shape == (0, 3)
    with refused(ValueError, "dropout probability"):
        QuickDropout(1.5)


def test_every_dropout_of_a_model_is_changed_and_its_file_is_not(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=16, **sizes))
    ttq.compress_(model, ttq.plan(model, rank=2, bits=4))
    plain = copy.deepcopy(model).eval()
    assert ttq.quick_dropout_(model) is model
    assert {type(part) for part in model.modules() if isinstance(part, nn.Dropout)} == {QuickDropout}
    ttq.save(model.eval(), tmp_path / "model")
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(ttq.load(tmp_path / "model")(ids).logits, plain(ids).logits)
