"""Plans and surgery on models of several families: what is replaced, what stays, what is refused."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.cases import refused

SIZES = {"vocab_size": 97, "max_position_embeddings": 16, "num_labels": 3}
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
DISTIL = {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
IDS = torch.tensor([[2, 7, 96, 3, 0], [2, 9, 3, 0, 0]])
MASK = (IDS != 0).long()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, **BERT)).eval()


def distilbert() -> DistilBertForSequenceClassification:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig(**SIZES, **DISTIL)).eval()


def tied() -> BertForSequenceClassification:
    model = bert()
    model.classifier = nn.Linear(24, 97, bias=False)
    model.classifier.weight = model.get_input_embeddings().weight
    return model


def kinds(model) -> dict[type, int]:
    counts: dict[type, int] = {}
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Embedding, ttq.TTLinear, ttq.TTMEmbedding):
            counts[type(module)] = counts.get(type(module), 0) + 1
    return counts


@pytest.mark.parametrize("make", [bert, distilbert])
def test_a_plan_takes_linear_layers_and_words_and_leaves_heads_and_positions(make):
    model = make()
    config = ttq.plan(model, rank=4)
    formats = {name: layer.format for name, layer in config.layers.items()}
    assert sum(isinstance(form, ttq.TT) for form in formats.values()) == 12  # six a layer
    (words,) = [name for name, form in formats.items() if isinstance(form, ttq.TTM)]
    assert words.endswith("word_embeddings") and formats[words] == ttq.TTM(rank=4)
    assert not any("classifier" in name or "pooler" in name or "position" in name for name in config.layers)


def test_layers_that_would_grow_stay_out():
    kept = ttq.plan(bert(), rank=10).layers  # cores of rank 10 are larger than a 24 × 24 matrix
    assert len(kept) == 5 and not any("attention" in name for name in kept)
    assert list(ttq.plan(bert(), rank=13).layers) == ["bert.embeddings.word_embeddings"]
    with pytest.raises(ValueError, match="has nothing that gets smaller at rank 500"):
        ttq.plan(bert(), rank=500)


@pytest.mark.parametrize("make", [bert, distilbert])
def test_at_full_rank_a_compressed_model_answers_as_before(make):
    model = make().double()
    expected = model(IDS, attention_mask=MASK).logits
    formats = {name: layer.format for name, layer in ttq.plan(model, 4).layers.items()}
    config = ttq.TTQConfig({name: type(form)(rank=10**6) for name, form in formats.items()})
    assert ttq.compress_(model, config) is model
    assert kinds(model)[ttq.TTLinear] == 12 and kinds(model)[ttq.TTMEmbedding] == 1
    assert torch.allclose(model(IDS, attention_mask=MASK).logits, expected, atol=1e-10)
    low = make().double()
    ttq.compress_(low, ttq.plan(low, rank=1))
    assert not torch.allclose(low(IDS, attention_mask=MASK).logits, expected, atol=1e-4)


def test_random_cores_have_the_scale_of_the_weights_they_replace():
    model = bert()
    std = model.bert.encoder.layer[0].intermediate.dense.weight.std()
    ttq.compress_(model, ttq.plan(model, rank=8), init="random")
    layer = model.bert.encoder.layer[0].intermediate.dense
    assert 0.6 < layer.to_linear().weight.std() / std < 1.6
    assert torch.equal(layer.bias, torch.zeros(48))


def test_modes_of_a_recipe_reach_the_layer():
    model = nn.Sequential(nn.Linear(24, 24))
    ttq.compress_(model, ttq.TTQConfig({"0": ttq.TT(rank=2, in_modes=(4, 6), out_modes=(6, 4))}))
    assert (model[0].in_modes, model[0].out_modes) == ((4, 6), (6, 4))


def test_mode_and_dtype_stay():
    model = bert().to(torch.bfloat16)
    ttq.compress_(model, ttq.plan(model, rank=4))
    layer = model.bert.encoder.layer[1].output.dense
    assert layer.core0.dtype is torch.bfloat16 and not layer.training


REFUSED = [
    ({"nowhere": ttq.TT(2)}, "'nowhere', which is no layer"),
    (
        {"bert.embeddings.word_embeddings": ttq.TT(2)},
        "TT is for Linear or Conv1D, but bert.embeddings.word_embeddings is of type Embedding",
    ),
    ({"classifier": ttq.TTM(2)}, "TTM is for Embedding, but classifier is of type Linear"),
    ({"bert.pooler.dense": ttq.TT(2, in_modes=(5, 4))}, "multiplies out to 20"),
    ({"bert.pooler.dense": ttq.TT(2, in_modes=(5, 4))}, "bert.pooler.dense: in_modes"),
    ({"bert.pooler": ttq.LSQ(4)}, "bert.pooler, of type BertPooler, has no weight of its own to quantize"),
]


@pytest.mark.parametrize(("layers", "says"), REFUSED, ids=[says for _, says in REFUSED])
def state(model: nn.Module) -> tuple:
    """What a refusal must leave: the very modules and tensors, what they hold, and what else is on them."""
    modules, tensors = dict(model.named_modules()), {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    others = {
        name: (sorted(vars(module)), module.training, len(module._forward_pre_hooks))
        for name, module in modules.items()
    }
    return modules, {name: id(tensor) for name, tensor in tensors.items()}, values, others


@pytest.mark.parametrize(("layers", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(layers, says):
    model = bert()
    before = state(model)
    config = ttq.TTQConfig({"bert.encoder.layer.0.output.dense": ttq.TT(2), **layers}, rest=8)
    with pytest.raises(ValueError) as caught:
        ttq.compress_(model, config)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert state(model) == before


def test_a_change_is_seen_by_the_test_above():
    changes = [
        lambda model: model.classifier.weight.data.zero_(),
        lambda model: model.train(),
        lambda model: setattr(model, "ttq_config", ttq.TTQConfig()),
        lambda model: setattr(model, "classifier", copy.deepcopy(model.classifier)),
        lambda model: model.classifier.register_forward_pre_hook(lambda *_: None),
        lambda model: parametrize.register_parametrization(model.classifier, "weight", nn.Identity()),
    ]
    for change in changes:
        model = bert()
        before = state(model)
        change(model)
        assert state(model) != before


def test_a_tied_weight_becomes_one_train_for_both_ends():
    model = tied()
    expected = model(IDS, attention_mask=MASK).logits
    ttq.compress_(model, ttq.TTQConfig({"bert.embeddings.word_embeddings": ttq.TTM(10**6)}))
    words, head = model.get_input_embeddings(), model.classifier
    assert isinstance(head, ttq.TTMHead) and head.table is words
    assert torch.allclose(model(IDS, attention_mask=MASK).logits, expected, atol=1e-5)
    assert sum(name.endswith("core0") for name, _ in model.named_parameters()) == 1
    assert ttq.fuse_(copy.deepcopy(model)).classifier.weight.shape == (97, 24)


@pytest.mark.parametrize("named", ["bert.embeddings.word_embeddings", "classifier"])
def test_a_tied_weight_has_one_quantizer_whichever_end_is_named(named):
    model = tied()
    ttq.compress_(model, ttq.TTQConfig({named: ttq.LSQ(3, per="channel")}, rest=8))
    assert list(model.ttq_config.layers) == ["bert.embeddings.word_embeddings"]
    words, head = model.get_input_embeddings(), model.classifier
    assert torch.equal(words.weight, head.weight)
    assert words.parametrizations.weight.original is head.parametrizations.weight.original
    assert words.parametrizations.weight[0] is head.parametrizations.weight[0]
    model(IDS, attention_mask=MASK).logits.sum().backward()
    assert words.parametrizations.weight[0].scale.grad.abs().sum() > 0
    plain = ttq.fuse_(copy.deepcopy(model))
    assert plain.classifier.weight is plain.get_input_embeddings().weight


REFUSED_TIES = [
    ({"bert.embeddings.word_embeddings": ttq.LSQ(4), "classifier": ttq.LSQ(3)}, "gives them different things"),
    ({"bert.embeddings.word_embeddings": ttq.TTM(2), "classifier": ttq.LSQ(3)}, "gives them different things"),
]


@pytest.mark.parametrize(("layers", "says"), REFUSED_TIES)
def test_two_plans_for_one_tied_weight_are_refused(layers, says):
    with refused(ValueError, "word_embeddings", "classifier", says):
        ttq.compress_(tied(), ttq.TTQConfig(layers))


def test_a_train_in_the_place_of_two_tied_linear_layers_is_refused():
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    model[1].weight = model[0].weight
    with refused(ValueError, "0 and 1 are one tied weight", "no TT here"):
        ttq.compress_(model, ttq.TTQConfig({"0": ttq.TT(2)}))
    assert model[1].weight is model[0].weight
    ttq.compress_(model, ttq.TTQConfig({"0": ttq.LSQ(4)}))
    assert model[1].parametrizations.weight.original is model[0].parametrizations.weight.original


def test_other_ranks_for_a_layer_that_is_a_train_already_are_refused():
    model = bert()
    ttq.compress_(model, ttq.plan(model, rank=4))
    with pytest.raises(ValueError, match="is a tensor train already, of other ranks or modes than TT"):
        ttq.compress_(model, ttq.plan(bert(), rank=3))


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter as the layers see it, by module and name."""
    return {
        f"{name}.{tensor}": getattr(module, tensor).detach()
        for name, module in model.named_modules()
        if "parametrizations" not in name
        for tensor in [*dict(module.named_parameters(recurse=False)), *getattr(module, "parametrizations", {})]
    }


def test_a_plan_with_bits_quantizes_cores_and_the_rest_and_nothing_else():
    model = bert()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=2, rest=8))
    seen = tensors(model)
    cores = {name: values for name, values in seen.items() if ".core" in name}
    assert len(cores) == 12 * 6 + 3 and all(values.unique().numel() <= 4 for values in cores.values())
    rest = {name: values for name, values in seen.items() if ".core" not in name}
    assert {"classifier.weight", "bert.embeddings.LayerNorm.bias"} < set(rest)
    assert all(row.unique().numel() <= 256 for values in rest.values() for row in values.reshape(len(values), -1))
    assert rest["bert.pooler.dense.weight"].unique().numel() > 256  # rows have steps of their own
    assert all(
        parametrize.is_parametrized(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in seen
    )


def test_the_rest_at_32_bits_is_left_alone():
    model = bert()
    before = tensors(model)
    ttq.compress_(model, ttq.plan(model, rank=4, bits=2))
    kept = {name: values for name, values in tensors(model).items() if name in before}
    assert kept and all(torch.equal(values, before[name]) for name, values in kept.items())


def test_the_rest_at_16_bits_is_rounded_to_half_precision():
    model = bert()
    before = tensors(model)
    ttq.compress_(model, ttq.TTQConfig(rest=16))
    assert all(torch.equal(values, before[name].half().float()) for name, values in tensors(model).items())
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])


def test_training_may_start_in_float_and_go_on_quantized():
    model, other = bert(), bert()
    config = ttq.plan(model, rank=4, bits=4, rest=8)
    ttq.compress_(model, config.without_quantizers())
    with torch.no_grad():
        model.classifier.bias.fill_(0.5)
    floats = {name: values.clone() for name, values in tensors(model).items()}
    ttq.compress_(model, config)
    for name, values in tensors(model).items():
        latent = model.get_submodule(name.rpartition(".")[0]).parametrizations[name.rpartition(".")[2]].original
        assert torch.equal(latent, floats[name])
        assert ttq.relative_error(floats[name], values) < 0.2 if floats[name].any() else not values.any()
    ttq.compress_(other, config)  # in one step
    assert tensors(other).keys() == tensors(model).keys()


def test_every_quantized_tensor_and_step_gets_a_gradient():
    model = bert().train()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=4, rest=8))
    model(IDS, attention_mask=MASK, token_type_ids=(IDS > 8).long(), labels=torch.tensor([0, 2])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_dense_layers_are_quantized_where_the_plan_has_no_format():
    model = bert()
    ttq.compress_(model, ttq.plan(model, bits=1))
    assert kinds(model)[nn.Embedding] == 2 and ttq.TTLinear not in kinds(model)
    weight = model.bert.encoder.layer[0].output.dense.weight
    assert all(row.abs().unique().numel() == 1 for row in weight)


def test_activations_are_quantized_where_the_plan_says_so():
    model, plain = bert(), bert()
    ttq.compress_(plain, ttq.plan(plain, rank=4))
    ttq.compress_(model, ttq.plan(model, rank=4, activations=ttq.DynamicActivation(4)))
    seen = []
    layer = model.bert.encoder.layer[0].intermediate.dense
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert not torch.equal(model(IDS).logits, plain(IDS).logits)
    assert all(token.unique().numel() <= 16 for token in seen[0].flatten(0, 1))


def test_conv1d_becomes_the_same_linear_map():
    torch.manual_seed(0)
    conv = Conv1D(12, 8)  # 8 inputs, 12 outputs
    nn.init.normal_(conv.bias)
    model, x = nn.Sequential(conv), torch.randn(5, 8)
    expected = model(x)
    ttq.compress_(model, ttq.plan(model, rules={"0": ttq.TT(100)}))
    assert isinstance(model[0], ttq.TTLinear)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "recipe", [ttq.LSQ(bits=4, per="channel"), ttq.Binary(per="channel"), ttq.GroupRTN(4, per=4)], ids=str
)
def test_conv1d_is_quantized_by_output_as_the_same_linear_layer_is(recipe):
    """Its weight is (in, out). Scales along the wrong axis would lose the small outputs."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(8, 6), Conv1D(6, 8)
    with torch.no_grad():
        linear.weight.mul_(10.0 ** torch.arange(6)[:, None])
        conv.weight.copy_(linear.weight.T)
        before = linear.weight.clone()
    model = ttq.compress_(nn.Sequential(linear, conv), ttq.TTQConfig({"0": recipe, "1": recipe}))
    assert torch.equal(model[1].weight.T, model[0].weight)
    errors = (model[0].weight - before).norm(dim=1) / before.norm(dim=1)
    assert errors.max() < (0.8 if recipe.bits == 1 else 0.2)


def test_numbers_of_numpy_make_the_plan_that_plain_ones_make(tmp_path):
    """They come out of sweeps, and JSON does not know them."""

    def config(number) -> ttq.TTQConfig:
        words = ttq.LayerPlan(ttq.TTM(number(3)), ttq.LSQ(bits=number(4), per=number(8)))
        rules = {"output": ttq.TT(number(2), (number(4), number(6)), (number(6), number(4))), "word_embeddings": words}
        rules |= {"query": ttq.GroupRTN(number(4), per=number(8)), "key": ttq.Ternary(per=number(8))}
        return ttq.plan(bert(), rules=rules, activations=ttq.DynamicActivation(number(8)), rest=number(8))

    plain, model = config(int), bert()
    for number in (np.int64, np.uint8):
        assert config(number) == plain
        assert json.dumps(config(number).to_dict()) == json.dumps(plain.to_dict())
        easy = {"rank": number(4), "bits": number(4), "rest": number(8)}
        assert ttq.plan(model, **easy) == ttq.plan(model, rank=4, bits=4, rest=8)
    ttq.compress_(model, ttq.plan(model, **easy))
    ttq.save(model, tmp_path / "saved")
    assert torch.equal(ttq.load(tmp_path / "saved")(IDS).logits, model(IDS).logits)


def test_quantizing_twice_is_refused():
    model = bert()
    config = ttq.plan(model, rank=4, bits=4)
    ttq.compress_(model, config)
    with pytest.raises(ValueError, match="word_embeddings is quantized already"):
        ttq.compress_(model, config)


def test_weights_that_cannot_be_quantized_are_refused_and_nothing_is_changed():
    model = bert()
    config = ttq.plan(model, rank=4, bits=4, rest=8)
    with torch.no_grad():
        model.classifier.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"classifier\.weight: weight must be finite"):
        ttq.compress_(model, config)
    assert kinds(model)[nn.Linear] == 14 and not any(map(parametrize.is_parametrized, model.modules()))


def test_a_weight_that_is_not_finite_is_named_and_so_is_one_of_whole_numbers():
    model = bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = torch.nan
    with refused(ValueError, "bert.encoder.layer.0.output.dense: tensor must be finite"):
        ttq.compress_(model, ttq.plan(model, rank=4))
    counted = nn.Sequential(nn.Linear(4, 4))
    counted[0].steps = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    with refused(ValueError, "0.steps: weight must be a tensor of floating-point numbers"):
        ttq.compress_(counted, ttq.TTQConfig(rest=8))


@pytest.mark.parametrize("option", ["max_norm", "scale_grad_by_freq", "sparse"])
@pytest.mark.parametrize("init", ["svd", "random"])
def test_a_table_with_options_that_no_train_has_is_refused(option, init):
    model = nn.Sequential(nn.Embedding(40, 16, **{option: 1.0 if option == "max_norm" else True}))
    with refused(ValueError, f"0 has {option}, which needs the dense table"):
        ttq.compress_(model, ttq.TTQConfig({"0": ttq.TTM(2)}), init=init)


def test_sparse_gradients_and_quantizers_do_not_go_together():
    model = nn.Sequential(nn.Embedding(40, 16, sparse=True))
    with refused(ValueError, "0.weight: has sparse gradients"):
        ttq.compress_(model, ttq.TTQConfig(rest=8))
    assert not parametrize.is_parametrized(model[0])


def test_one_batch_is_a_calibration_and_what_is_no_batch_is_refused():
    batch, plan = {"input_ids": IDS, "attention_mask": MASK}, ttq.plan(bert(), rank=4)
    one, listed = (ttq.compress_(bert(), plan, calibration=given) for given in (batch, [batch]))
    assert torch.equal(one(**batch).logits, listed(**batch).logits)
    with refused(ValueError, "a batch must be a mapping", "got a Tensor"):
        ttq.compress_(bert(), plan, calibration=[IDS])
    with refused(ValueError, "calibration is empty"):
        ttq.compress_(bert(), plan, calibration=[])
    with refused(ValueError, "config must be a plan", "got {'a': 1}"):
        ttq.compress_(bert(), {"a": 1})


def test_the_rest_of_tied_weights_shares_its_scales():
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    model[1].weight = model[0].weight
    ttq.compress_(model, ttq.TTQConfig(rest=8))
    assert model[1].parametrizations.weight[0] is model[0].parametrizations.weight[0]
    assert len(list(model.parameters())) == 2  # the weight and its scales


@pytest.mark.parametrize("rank", [0, -1, 1.5, "4", True])
def test_bad_ranks_are_refused(rank):
    for call in (lambda: ttq.TT(rank), lambda: ttq.TTM(rank), lambda: ttq.plan(bert(), rank)):
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
            call()


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="init must be 'svd' or 'random', got 'zeros'"):
        ttq.compress_(bert(), ttq.TTQConfig(), init="zeros")
