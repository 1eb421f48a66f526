"""Plans for a budget: candidates are what compress_ makes, bytes what save writes, losses what the answers lose."""

import copy
import json
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import ttqlib as ttq
from tests.cases import refused
from tests.families import FAMILIES, SPECIAL, VOCABULARY
from ttqlib.allocation.budgets import COSTS, RULES
from ttqlib.allocation.choices import form
from ttqlib.allocation.gauss_newton import uses
from ttqlib.allocation.rivals import RULES as RIVALS
from ttqlib.allocation.versions import LinearVersions, TableVersions
from ttqlib.plans.configs import LayerPlan
from ttqlib.plans.planning import recipe_for
from ttqlib.surgery.calibration import output_moments

RANKS, BITS = (1, 2, 4, 8), (2, 4, 8)
QUERY, WORDS = "bert.encoder.layer.0.attention.self.query", "bert.embeddings.word_embeddings"


@cache
def batches() -> tuple[dict[str, Tensor], ...]:
    """Four batches of sixteen sentences of which every other one is padded."""
    ids = torch.randint(3, VOCABULARY, (64, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[::2, -2:], mask[::2, -2:] = SPECIAL["pad_token_id"], 0
    return tuple({"input_ids": i, "attention_mask": m} for i, m in zip(ids.split(16), mask.split(16)))


@cache
def bert() -> nn.Module:
    return FAMILIES["BertForSequenceClassification"].build()


@cache
def candidates() -> ttq.Candidates:
    return ttq.measure_candidates(bert(), batches(), bits=BITS, ranks=RANKS)


def compressed(config: ttq.TTQConfig) -> nn.Module:
    return ttq.compress_(copy.deepcopy(bert()), config, calibration=batches())


@torch.no_grad()
def lost(model: nn.Module) -> float:
    """KL between the answers of the dense model and of another one."""
    return float(np.mean([float(ttq.logits_kl(model(**one).logits, bert()(**one).logits)) for one in batches()]))


def size_on_disk(model: nn.Module, folder) -> int:
    ttq.save(model, folder)
    return sum(path.stat().st_size for path in folder.iterdir())


# --------------------------------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("kind", ["dense", "low rank", "train"])
@pytest.mark.parametrize("name", [QUERY, WORDS, "bert.encoder.layer.1.intermediate.dense"])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_candidate_is_what_compress_makes(kind, name, rotated):
    layer = bert().get_submodule(name)
    moments, rank = output_moments(bert(), [name], batches())[name], 4
    table = isinstance(layer, nn.Embedding)
    made = TableVersions(layer, moments, 8, rotated, None) if table else LinearVersions(layer, moments, 8, rotated)
    recipe = recipe_for(4, "channel" if kind == "dense" else "tensor")
    plan = LayerPlan(None if kind == "dense" else form(layer, kind, rank), recipe)
    config = ttq.TTQConfig({name: plan})
    if kind == "dense":
        version = made.dense(recipe)
    else:
        (version,) = (made.low_rank if kind == "low rank" else made.train)(rank, [recipe])
    if rotated and kind != "dense":
        turned = ttq.compress_(copy.deepcopy(bert()), config.without_quantizers(), calibration=batches())
        found = ttq.compress_(ttq.rotate_(turned), config).get_submodule(name)
    else:
        found = compressed(config).get_submodule(name)
    weight = version.factors[0] if len(version.factors) == 1 else version.factors[0] @ version.factors[1]
    # a level may flip where two ways to the same number differ in the last digit
    close = torch.isclose(weight, found.weight, rtol=1e-3, atol=1e-4 * float(found.weight.detach().abs().max()))
    assert close.float().mean() > 0.98
    if not table and kind != "dense":
        torch.testing.assert_close(layer.bias + version.shift, found.bias, rtol=1e-3, atol=1e-4)


def test_predicted_and_measured_losses_of_single_layers_go_together():
    found = []
    for name in (QUERY, WORDS, "bert.encoder.layer.1.output.dense", "classifier"):
        for one in candidates().layers[name][1::4]:
            model = compressed(ttq.TTQConfig({name: one.plan}))
            found.append((one.loss, lost(model)))
    predicted, measured = np.array(found).T
    assert len(found) > 12 and spearmanr(predicted, measured).statistic > 0.85
    assert 0.4 < np.median(predicted / measured) < 2.5


def test_small_errors_of_the_last_layer_lose_what_is_predicted():
    head, use = bert().classifier, uses(bert(), {"classifier": bert().classifier}, batches())["classifier"]
    change = 0.02 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
    pairs = zip(use.felt([head.weight + change]), use.felt([head.weight]))
    predicted = sum(0.5 * float((new - old).square().sum()) for new, old in pairs)
    other = copy.deepcopy(bert())
    with torch.no_grad():
        other.classifier.weight += change
    assert predicted == pytest.approx(lost(other), rel=0.35)  # two factors and a sketch of them


def test_nobody_sees_what_all_keys_have_in_common():
    names = {part: f"bert.encoder.layer.0.attention.self.{part}" for part in ("query", "key")}
    felt = uses(bert(), {part: bert().get_submodule(name) for part, name in names.items()}, batches())
    query, key = (float(felt[part].sums.square().sum() / felt[part].gradients.square().sum()) for part in names)
    assert key < 1e-8 < 1e-2 < query


def test_padding_counts_for_nothing():
    use = uses(bert(), {WORDS: bert().get_submodule(WORDS)}, batches())[WORDS]
    assert use.powers[SPECIAL["pad_token_id"]] < 1e-12 * max(use.powers.values())


def test_the_model_stays_as_it_is_and_the_same_comes_again():
    model = copy.deepcopy(bert()).train()
    model.bert.embeddings.LayerNorm.weight.requires_grad_(False)
    model.classifier.bias.grad = torch.ones(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = ttq.measure_candidates(model, batches(), bits=BITS, ranks=RANKS)
    assert again.layers == candidates().layers
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["classifier.bias"]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["bert.embeddings.LayerNorm.weight"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("seed", range(3))
def test_bytes_are_those_on_disk(seed, tmp_path):
    draw, found = np.random.default_rng(seed), candidates()
    chosen = {name: some[draw.integers(len(some))] for name, some in found.layers.items()}
    config = found.config({name: one.plan for name, one in chosen.items()})
    size, sums = size_on_disk(compressed(config), tmp_path), found.fixed + sum(one.bytes for one in chosen.values())
    assert found.weigh(config) == size  # weighed as a whole, to the byte
    tensors = len(ttq.stored_sizes(compressed(config)))
    assert -8 <= sums - size <= 14 * 2 * tensors  # sums reckon with places in the file of seven digits


@pytest.mark.parametrize("rule", RULES)
def test_a_plan_of_each_rule_fits_and_trains(rule, tmp_path):
    budget = 30_000
    config = ttq.allocate(bert(), budget, candidates=candidates(), rule=rule)
    assert ttq.TTQConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    model = compressed(config)
    size = size_on_disk(model, tmp_path)
    assert size <= budget and (rule not in RULES[:2] or size > 0.97 * budget)
    inputs = {**batches()[0], "labels": torch.arange(16) % 3}
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(4):
        loss = model(**inputs).loss
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses[1:]) < losses[0]


def test_the_knapsack_predicts_no_more_than_its_rivals_and_less_for_more_bytes():
    budgets = (20_000, 26_000, 34_000, 60_000)
    fronts = {rule: ttq.allocation_front(candidates(), budgets, rule=rule) for rule in RULES}
    for rule in RULES[1:]:
        assert all(one.loss <= 1.0001 * other.loss for one, other in zip(fronts["knapsack"], fronts[rule]))
    losses = [one.loss for one in fronts["knapsack"]]
    assert losses == sorted(losses, reverse=True) and losses[0] > 10 * losses[-1]
    assert all(one.bytes <= budget for front in fronts.values() for one, budget in zip(front, budgets))
    assert fronts["knapsack"][1].loss < 0.8 * fronts["uniform"][1].loss  # it is worth the while


@pytest.mark.parametrize("rule", RIVALS)
def test_rivals_round_the_head_too_where_the_rest_leaves_no_room(rule, tmp_path):
    torch.manual_seed(0)
    config = copy.deepcopy(bert().config)
    config.num_labels = 500  # whose head is most of the model
    model = type(bert())(config).eval()
    found = ttq.measure_candidates(model, batches()[:1], bits=(2, 8), ranks=(1, 2))
    head = found.weigher.weigh("classifier", LayerPlan(quantize="rest"))[0]
    tight, wide = ttq.allocation_front(found, [found.range[0] + head // 2, found.range[0] + 2 * head], rule=rule)
    assert tight.config.layers["classifier"].quantize.bits == 2 and "classifier" not in wide.config.layers
    assert set(tight.config.layers) == set(found.layers)
    assert tight.bytes <= found.range[0] + head // 2
    made = ttq.compress_(model, tight.config, calibration=batches())
    assert size_on_disk(made, tmp_path) == tight.bytes


def test_the_inverse_takes_the_fewest_bytes():
    found = candidates()
    plan = ttq.allocation_front(found, [30_000])[0]
    config = ttq.allocate(bert(), allowed_loss=plan.loss, candidates=found)
    assert found.loss(config) <= plan.loss * (1 + 1e-9)
    assert found.weigh(config) <= plan.bytes + 64  # both are optimal, but for what text takes


@pytest.mark.parametrize("name", COSTS)
def test_limits_hold(name):
    found = candidates()

    def spent(config: ttq.TTQConfig) -> float:
        chosen = [next(one for one in found.layers[layer] if one.plan == plan) for layer, plan in config.layers.items()]
        return sum(COSTS[name](one) for one in chosen)

    free = spent(ttq.allocate(bert(), 40_000, candidates=found))
    config = ttq.allocate(bert(), 40_000, candidates=found, limits={name: 0.7 * free})
    assert spent(config) <= 0.7 * free and found.weigh(config) <= 40_000
    with refused(ValueError, name, "cannot be below"):
        ttq.allocate(bert(), 40_000, candidates=found, limits={name: 1})


def test_several_limits_hold_together_in_any_order():
    found = candidates()

    def spent(config: ttq.TTQConfig, name: str) -> float:
        chosen = [next(one for one in found.layers[layer] if one.plan == plan) for layer, plan in config.layers.items()]
        return sum(COSTS[name](one) for one in chosen)

    free = ttq.allocate(bert(), 40_000, candidates=found)
    for shares in ({"flops": 0.5, "gradients": 0.4}, {"gradients": 0.4, "flops": 0.5}):
        limits = {name: share * spent(free, name) for name, share in shares.items()}
        config = ttq.allocate(bert(), 40_000, candidates=found, limits=limits)
        assert all(spent(config, name) <= limit for name, limit in limits.items())


def test_a_frozen_layer_trains_nothing_and_its_like_does():
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)).eval()
    model[0].requires_grad_(False)
    found = ttq.measure_candidates(model, [{"input": torch.randn(8, 16)}], bits=(4,), ranks=(2,))
    frozen, free = ([one.numbers for one in found.layers[name]] for name in "02")
    assert not any(frozen) and all(free)


@pytest.mark.parametrize("answer", [lambda y: y, lambda y: (y, y.mean(-1)), lambda y: {"states": y}])
def test_a_model_may_answer_a_tensor_or_a_tuple(answer):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 8)

        def forward(self, input):
            return answer(self.second(self.first(input).relu()))

    torch.manual_seed(0)
    found = ttq.measure_candidates(Model().eval(), [{"input": torch.randn(8, 16)}], bits=(2, 8), ranks=(2,))
    for some in found.layers.values():
        losses = {one.plan.quantize.bits: one.loss for one in some if one.plan.format is None and one.loss}
        assert 0 < losses[8] < losses[2]


def test_a_model_in_float64_is_measured_too():
    found = ttq.measure_candidates(copy.deepcopy(bert()).double(), batches()[:1], bits=(4,), ranks=(2,))
    assert all(one.loss > 0 for one in found.layers[WORDS] if one.plan.quantize != "float")


def test_numbers_that_train_are_counted():
    one = next(one for one in candidates().layers[QUERY] if one.plan == LayerPlan(ttq.TT(4, (32,), (32,)), ttq.LSQ(4)))
    assert one.numbers == 4 * 64 + 2 + 32 + 1  # two cores and their steps, the bias of 8 bits and its step
    assert one.flops == 2 * 128 * 4 * 64


def test_quantizers_that_training_mends_buy_ranks():
    found, ranks = candidates(), {}
    for part in (1.0, 0.05):
        config = ttq.allocate(bert(), 20_000, candidates=found, quantization=part)
        ranks[part] = np.mean([getattr(plan.quantize, "bits", 32) for plan in config.layers.values()])
    assert ranks[0.05] < ranks[1.0]  # fewer bits


def test_losses_between_measured_ranks_lie_between():
    found = candidates()
    losses = [
        found.loss(found.config({QUERY: LayerPlan(ttq.TT(rank, (32,), (32,)), ttq.LSQ(8))})) for rank in (4, 6, 8)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_what_was_not_measured_has_no_loss_and_what_rounds_inputs_is_not_counted():
    found = candidates()
    for plan in (ttq.plan(bert(), bits=5), ttq.plan(bert(), quantize=ttq.GroupRTN(2, per=16))):
        with refused(ValueError, "no candidate of this kind was measured"):
            found.loss(plan)
    plain, rounds = (ttq.plan(bert(), bits=4, activations=one) for one in (None, ttq.DynamicActivation(8)))
    assert found.loss(plain) == found.loss(rounds) > 0
    assert found.loss(ttq.TTQConfig()) == found.loss(ttq.TTQConfig({QUERY: LayerPlan(quantize="rest")})) > 0


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("budget", [100, 10**7])
def test_a_budget_out_of_reach_is_refused_with_what_is_possible(budget):
    least, most = candidates().range
    with refused(ValueError, "budget_bytes may be from", f"{least:,}", f"{most:,}", f"got {budget:,}"):
        ttq.allocate(bert(), budget, candidates=candidates())


def test_the_ends_of_the_range_are_possible():
    for budget in candidates().range:
        assert candidates().weigh(ttq.allocate(bert(), budget, candidates=candidates())) <= budget


def test_no_calibration_is_refused_with_the_range_that_there_will_be():
    with refused(ValueError, "needs calibration", f"{candidates().range[1]:,}", "budget_bytes may be from"):
        ttq.allocate(bert(), 30_000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ()}, "there are no candidates"),
        ({"bits": ()}, "there are no candidates"),
        ({"kinds": ("sparse",)}, "kinds must be among 'dense', 'low rank', 'train'"),
        ({"bits": (9,)}, "bits must be one of 1 … 8 or 32"),
    ],
)
def test_what_makes_no_candidates_is_refused(options, words):
    with refused(ValueError, words):
        ttq.allocate(bert(), 30_000, batches(), **options)


def test_other_bad_input_is_refused():
    with refused(ValueError, "calibration is empty"):
        ttq.measure_candidates(bert(), [])
    with refused(ValueError, "no layers to compress"):
        ttq.measure_candidates(nn.LayerNorm(3), batches())
    with refused(ValueError, "either budget_bytes or allowed_loss", "may be from"):
        ttq.allocate(bert(), candidates=candidates())
    with refused(ValueError, "rule must be one of"):
        ttq.allocate(bert(), 30_000, candidates=candidates(), rule="best")
    with refused(ValueError, "limits must be among flops, gradients, optimizer", "'time'"):
        ttq.allocate(bert(), 30_000, candidates=candidates(), limits={"time": 3})
    with refused(ValueError, "limits are for the rules"):
        ttq.allocate(bert(), 30_000, candidates=candidates(), rule="uniform", limits={"flops": 3})
    for other in ({"limits": {"flops": 1}}, {"rule": "uniform"}):
        with refused(ValueError, "allowed_loss goes with no limits and no other rule"):
            ttq.allocate(bert(), allowed_loss=0.01, candidates=candidates(), **other)
    with refused(ValueError, "give ranks to measure_candidates"):
        ttq.allocate(bert(), 30_000, candidates=candidates(), ranks=(1,))
    with refused(ValueError, "budget_bytes must be a number, got '30000'", "may be from"):
        ttq.allocate(bert(), "30000", candidates=candidates())
    broken = copy.deepcopy(bert())
    with torch.no_grad():
        broken.classifier.weight[0, 0] = torch.nan
    with refused(ValueError, "classifier.weight must be finite"):
        ttq.measure_candidates(broken, batches())
    with refused(ValueError, "allowed_loss must be at least 0"):
        ttq.allocate(bert(), allowed_loss=-1, candidates=candidates())
