"""Ranks chosen on real inputs: the best possible for the outputs, means kept, padding unseen, and what is refused."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.test_compress import bert, distilbert

ROWS, IN, OUT, RANK = 400, 24, 18, 3
FULL = {"in_modes": (IN,), "out_modes": (OUT,)}  # one core a side: a plain product of two thin matrices


def skewed(seed: int = 0) -> torch.Tensor:
    """Inputs that fill a few directions and have a mean, (ROWS, IN), in float64."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    return draw(ROWS, 5) @ draw(5, IN) + 0.1 * draw(ROWS, IN) + draw(IN)


def network(layer: nn.Module) -> nn.Module:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, attention_mask=None):
            return self.layer(x)

    return Net().double()


def compressed(model: nn.Module, form: ttq.TT, calibration) -> nn.Module:
    config = ttq.TTQConfig({"layer": ttq.LayerPlan(form)})
    return ttq.compress_(copy.deepcopy(model), config, calibration=calibration)


def error(model: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(x) - other(x)).pow(2).sum().item()


@pytest.mark.parametrize("make", [lambda: nn.Linear(IN, OUT), lambda: Conv1D(OUT, IN)])
def test_no_layer_of_this_rank_is_nearer_on_the_inputs(make):
    torch.manual_seed(0)
    x, model = skewed(), network(make())
    found = error(model, compressed(model, ttq.TT(RANK, **FULL), [{"x": x[:150]}, {"x": x[150:]}]), x)
    with torch.no_grad():
        values = torch.linalg.svdvals(model(x) - model(x).mean(0))
    assert found == pytest.approx(values[RANK:].pow(2).sum().item(), rel=1e-6)  # the least possible (Eckart–Young)
    assert error(model, compressed(model, ttq.TT(RANK, **FULL), None), x) > 3 * found  # the control: weights alone


def test_three_cores_a_side_keep_the_mean_and_gain_as_well():
    torch.manual_seed(1)
    x, model = skewed(1), network(nn.Linear(IN, OUT))
    plain, informed = (compressed(model, ttq.TT(RANK), batches) for batches in (None, [{"x": x}]))
    torch.testing.assert_close(informed(x).mean(0), model(x).mean(0))
    assert not torch.allclose(plain(x).mean(0), model(x).mean(0), atol=1e-2)
    assert error(model, informed, x) < 0.7 * error(model, plain, x)


def test_full_rank_changes_nothing():
    x, model = skewed(), network(nn.Linear(IN, OUT))
    torch.testing.assert_close(compressed(model, ttq.TT(OUT, **FULL), [{"x": x}])(x), model(x))


def test_a_layer_without_bias_stays_without():
    model = network(nn.Linear(IN, OUT, bias=False))
    assert compressed(model, ttq.TT(RANK), [{"x": skewed()}]).layer.bias is None


def test_padding_is_not_looked_at():
    x, model = skewed()[:40].reshape(4, 10, IN), network(nn.Linear(IN, OUT))
    mask = torch.ones(4, 10)
    mask[:, 6:] = 0
    dirty = x.masked_fill(mask[..., None] == 0, 1e3)
    short, padded, unmasked = (
        compressed(model, ttq.TT(RANK), [batch])
        for batch in ({"x": x[:, :6]}, {"x": dirty, "attention_mask": mask}, {"x": dirty})
    )
    torch.testing.assert_close(padded(x), short(x))
    assert not torch.allclose(unmasked(x), short(x), atol=0.1)


@pytest.mark.parametrize("make", [bert, distilbert])
def test_a_model_is_calibrated_in_eval_mode_and_left_as_it_was(make):
    model, batches = make().train(), [{"input_ids": torch.randint(3, 97, (8, 12))}]
    model.base_model.get_input_embeddings().eval()  # a module that is not in its parent's mode
    before = {name: module.training for name, module in model.named_modules()}
    config = ttq.plan(model, rank=4)
    in_eval = ttq.compress_(copy.deepcopy(model).eval(), config, calibration=batches)
    small = ttq.compress_(model, config, calibration=batches)
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(weight, in_eval.state_dict()[name])  # which dropout would have changed
    assert all(module.training == before[name] for name, module in small.named_modules() if name in before)
    assert not any(module._forward_hooks for module in small.modules())


def test_a_table_of_low_rank_keeps_the_rows_that_are_looked_up():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 12, generator=generator, dtype=torch.float64) + 1  # with a mean that no bias can mend
    ids = torch.randint(3, 15, (6, 20), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, 17:] = 0
    ids[:, 17:] = 20  # what stands under padding
    model = network(nn.Embedding.from_pretrained(table, padding_idx=0))
    form, batches = ttq.TTM(RANK, (40, 1), (1, 12)), [{"x": ids, "attention_mask": mask}]
    plain, informed = (compressed(model, form, calibration) for calibration in (None, batches))
    seen = ids[:, :17]
    values = torch.linalg.svdvals(model(seen).flatten(0, 1))
    assert error(model, informed, seen) == pytest.approx(values[RANK:].pow(2).sum().item(), rel=1e-6)
    assert error(model, plain, seen) > 1.3 * error(model, informed, seen)
    assert informed(torch.tensor([0])).abs().max() == 0


def test_quantizers_and_words_come_as_without_calibration():
    model = bert()
    config = ttq.plan(model, rank=4, bits=4, rest=8)
    plain = ttq.compress_(copy.deepcopy(model), config)
    informed = ttq.compress_(model, config, calibration=[{"input_ids": torch.randint(3, 97, (8, 12))}])
    assert informed.state_dict().keys() == plain.state_dict().keys()
    words = "bert.embeddings.word_embeddings"
    torch.testing.assert_close(
        informed.get_submodule(words).to_embedding().weight, plain.get_submodule(words).to_embedding().weight
    )


def test_calibration_that_cannot_serve_is_refused_and_nothing_changes():
    model, x = network(nn.Linear(IN, OUT)), skewed()
    config, weight = ttq.TTQConfig({"layer": ttq.LayerPlan(ttq.TT(RANK))}), model.layer.weight.clone()
    with pytest.raises(ValueError, match="none has reached layer"):
        ttq.compress_(model, config, calibration=[])
    with pytest.raises(ValueError, match="random cores keep nothing"):
        ttq.compress_(model, config, init="random", calibration=[{"x": x}])
    with pytest.raises(RuntimeError):
        ttq.compress_(model, config, calibration=[{"x": x[:, 1:]}])
    assert type(model.layer) is nn.Linear and torch.equal(model.layer.weight, weight)
    assert not model.layer._forward_hooks
