"""What each layer is worth: cosines and costs against what a model without the layer really answers."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

import ttqlib as ttq
from tests.cases import refused
from tests.families import FAMILIES, GROUPED, SIZES, Family, classes, words
from ttqlib.training.layer_worth import skipped

DEPTH = 4


def bert() -> PreTrainedModel:
    return Family("BertForSequenceClassification", {**SIZES, "num_hidden_layers": DEPTH}, classes).build()


def llama() -> PreTrainedModel:
    """Its third layer does nothing, and the second does little."""
    model = Family("LlamaForCausalLM", {**GROUPED, "num_hidden_layers": DEPTH}, words).build()
    with torch.no_grad():
        for place, factor in ((1, 0.1), (2, 0.0)):
            layer = model.model.layers[place]
            layer.self_attn.o_proj.weight.mul_(factor)
            layer.mlp.down_proj.weight.mul_(factor)
    return model


def without(model: PreTrainedModel, place: int) -> PreTrainedModel:
    return ttq.reduce_layers(model, [other for other in range(DEPTH) if other != place])


def padded(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same sentences, with three more tokens of padding that hold a real word."""
    fills = {"input_ids": 50, "attention_mask": 0, "labels": -100}
    return {name: F.pad(t, (0, 3), value=fills[name]) if t.ndim == 2 else t for name, t in inputs.items()}


@torch.no_grad()
def test_costs_are_those_of_a_model_that_has_the_layer_no_more():
    model, inputs = bert(), classes()
    by_logits, by_loss = ttq.layer_costs(model, [inputs]), ttq.layer_costs(model, [inputs], by="loss")
    whole = model(**inputs)
    for place in range(DEPTH):
        less = without(model, place)(**inputs)
        p, q = whole.logits.softmax(-1), less.logits.softmax(-1)
        kl = (p * (p / q).log()).sum(-1).mean()
        assert by_logits[place] == pytest.approx(kl.item(), rel=1e-4)
        assert by_loss[place] == pytest.approx((less.loss - whole.loss).item(), rel=1e-4)
    for costs in (by_logits, by_loss):
        assert list(costs.values()) == sorted(costs.values()) and sorted(costs) == [0, 1, 2, 3]


@pytest.mark.parametrize("measure", [ttq.layer_costs, ttq.layer_similarity])
def test_a_layer_that_does_nothing_goes_first_and_then_the_one_that_does_little(measure):
    worth = measure(llama(), [words()])
    assert list(worth)[:2] == [2, 1]
    assert worth[2] == pytest.approx(0.0 if measure is ttq.layer_costs else 1.0, abs=1e-6)
    assert ttq.kept_layers(DEPTH, 2, rule=worth) == [0, 3]


@torch.no_grad()
def test_similarity_is_the_mean_cosine_over_real_tokens():
    model, inputs = bert(), classes()
    states = model(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    cosines = [F.cosine_similarity(one, other, dim=-1)[real].mean() for one, other in pairwise(states)]
    found = ttq.layer_similarity(model, [inputs])
    assert [found[place] for place in range(DEPTH)] == pytest.approx([cosine.item() for cosine in cosines], rel=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("measure", [ttq.layer_costs, ttq.layer_similarity])
@pytest.mark.parametrize(("make", "inputs"), [(bert, classes), (llama, words)])
def test_padding_and_a_repeated_batch_change_nothing(measure, make, inputs):
    model = make()
    once = measure(model, [inputs()])
    for batches in ([padded(inputs())], [inputs(), inputs()], iter([inputs()]), inputs()):
        assert measure(model, batches) == pytest.approx(once, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("measure", [ttq.layer_costs, ttq.layer_similarity])
def test_a_batch_counts_by_what_it_holds(measure):
    model, inputs = bert(), classes()
    both = measure(model, [inputs])
    apart = measure(model, [{name: tensor[row : row + 1] for name, tensor in inputs.items()} for row in (0, 1)])
    assert apart == pytest.approx(both, rel=1e-4)


@pytest.mark.parametrize("measure", [ttq.layer_costs, ttq.layer_similarity])
def test_the_model_is_as_before(measure):
    model = bert().train()
    model.bert.encoder.layer[1].eval()
    modes = [part.training for part in model.modules()]
    with torch.no_grad():
        model(**classes(), output_hidden_states=True)  # transformers' own hooks, which stay
    hooks = [len(part._forward_hooks) for part in model.modules()]
    measure(model, [classes()])
    assert [part.training for part in model.modules()] == modes
    assert [len(part._forward_hooks) for part in model.modules()] == hooks


def test_a_regression_is_compared_by_mean_squares():
    model = Family("BertForSequenceClassification", {**SIZES, "num_hidden_layers": DEPTH, "num_labels": 1}, classes)
    model = model.build()
    model.config.problem_type = "regression"
    inputs = {name: tensor for name, tensor in classes().items() if name != "labels"}
    with torch.no_grad():
        off = (without(model, 1)(**inputs).logits - model(**inputs).logits).square().mean()
    assert ttq.layer_costs(model, [inputs])[1] == pytest.approx(off.item(), rel=1e-4)


@pytest.mark.parametrize(
    "name", ["IntentSlot", "ViTForImageClassification", "Wav2Vec2ForCTC", "XLNetForSequenceClassification"]
)
def test_models_of_other_inputs_and_outputs(name):
    if name == "IntentSlot":
        from transformers import BertConfig

        model = ttq.IntentSlotModel(BertConfig(**SIZES, intents=["a", "b"], slots=["O", "x"])).eval()
        inputs = {key: value for key, value in classes().items() if key != "labels"}
    else:
        model, inputs = FAMILIES[name].build(), FAMILIES[name].inputs()
    costs, cosines = ttq.layer_costs(model, [inputs]), ttq.layer_similarity(model, [inputs])
    assert min(costs.values()) > 0 and all(-1 <= cosine <= 1 for cosine in cosines.values())
    with skipped(model, [1]), torch.no_grad():
        expected = model(**inputs)[-1 if name == "IntentSlot" else "logits"]
    with torch.no_grad():
        assert torch.equal(ttq.reduce_layers(model, [0])(**inputs)[-1 if name == "IntentSlot" else "logits"], expected)


@pytest.mark.parametrize("measure", [ttq.layer_costs, ttq.layer_similarity])
def test_what_cannot_be_measured_is_refused(measure):
    with refused(ValueError, "calibration is empty"):
        measure(bert(), [])
    with refused(ValueError, "needed is one stack of layers", "Sequential"):
        measure(nn.Sequential(nn.Linear(2, 2)), [classes()])
    with refused(ValueError, "is an encoder-decoder"):
        measure(FAMILIES["BartForConditionalGeneration"].build(), [words()])


def test_a_model_without_a_head_has_no_costs_but_cosines():
    body, inputs = bert().bert, {name: tensor for name, tensor in classes().items() if name != "labels"}
    with refused(ValueError, "a BertModel returns no logits", "ttq.layer_similarity"):
        ttq.layer_costs(body, [inputs])
    assert len(ttq.layer_similarity(body, [inputs])) == DEPTH


def test_a_loss_needs_labels_and_a_known_name():
    with refused(ValueError, 'by="loss" needs batches with labels'):
        ttq.layer_costs(bert(), [{"input_ids": classes()["input_ids"]}], by="loss")
    with refused(ValueError, "'logits', 'loss'", "got 'accuracy'"):
        ttq.layer_costs(bert(), [classes()], by="accuracy")
