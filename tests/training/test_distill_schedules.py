"""Schedules as data: what they unroll to, JSON there and back, learning rates, and the errors before any training."""

import copy
import json
from dataclasses import FrozenInstanceError
from math import log

import pytest
import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedConfig,
    SwinConfig,
    SwinForImageClassification,
)

import ttqlib as ttq
from tests.cases import refused
from tests.training.test_distill_observation import INPUTS, SIZES, build
from ttqlib.training.labels import label_order
from ttqlib.training.matching import (
    MatchBlock,
    MatchLayer,
    MatchLogits,
    MatchRelations,
    MatchSentences,
    TaskLoss,
)
from ttqlib.training.observation import Attention, Observation, observe, recorded_attention
from ttqlib.training.pairing import layer_parameters, stages_of

EQUAL = {0: 0, 1: 1, 2: 2}
SCHEDULES = [
    ttq.LayerByLayer(5),
    ttq.LayerByLayer([1, 2, 3, 4], order="top_down", cumulative=False, freeze=True, learning_rate=[1e-3, None, 0.1, 1]),
    ttq.AllLayers(7, attention=0, task=0.5, temperature=2.0),
    ttq.SingleStage(9, scores=0.5),
    ttq.BlockByBlock(4, decay="constant"),
    ttq.LogitsOnly(3, temperature=4.0),
    ttq.AttentionRelations(3, heads=6, warmup=0),
    ttq.Contrastive(3, temperature=0.1, decay="constant"),
    ttq.TaskOnly(3, learning_rate=1e-4, decay="cosine"),
]
OUTPUT = (MatchLogits(), TaskLoss())


def bert(seed: int = 0, **changes) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**{**SIZES, "initializer_range": 0.3, **changes})).eval()


# -------------------------------------------------------------------------------------------------------- unrolling


def unrolled(schedule, layer_map=EQUAL) -> list[tuple]:
    return [(stage.name, [getattr(m, "layer", m) for m in stage.matches]) for stage in schedule.stages(layer_map)]


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [[0], [0, 1], [0, 1, 2]]),
        ({"cumulative": False}, [[0], [1], [2]]),
        ({"order": "top_down"}, [[2], [2, 1], [2, 1, 0]]),
        ({"order": "top_down", "cumulative": False}, [[2], [1], [0]]),
    ],
)
def test_layer_by_layer(options, layers):
    names = [f"L{matched[-1]}" for matched in layers]
    assert unrolled(ttq.LayerByLayer(5, **options)) == [*zip(names, layers), ("output", list(OUTPUT))]


def test_the_other_schedules_have_one_stage():
    assert unrolled(ttq.AllLayers(5)) == [("all layers", [0, 1, 2, *OUTPUT])]
    assert unrolled(ttq.LogitsOnly(5, temperature=2.0)) == [("logits", [MatchLogits(2.0)])]
    assert unrolled(ttq.AttentionRelations(5, heads=3)) == [("relations", [MatchRelations(3)])]
    assert unrolled(ttq.Contrastive(5)) == [("contrast", [MatchSentences(0.05)])]
    assert unrolled(ttq.TaskOnly(5)) == [("task", [TaskLoss()])]


def test_single_stage_is_all_layers_with_the_losses_of_xtc():
    (stage,) = ttq.SingleStage(5, mse=2, temperature=3).stages(EQUAL)
    layers = [MatchLayer(layer, layer, 2, 0, 0, 1) for layer in (0, 1, 2)]
    assert stage.matches == (*layers, MatchLogits(3))
    assert ttq.SingleStage(5) != ttq.AllLayers(5, cosine=0.0, attention=0.0, scores=1.0, task=0.0)  # two kinds in JSON


def test_single_stage_by_hand():
    """One layer after the teacher's second, two tokens and one of padding; teacher's states and first layer: noise."""
    noise, mask = 100 * torch.randn(1, 3, 2), torch.tensor([[True, True, False]])

    def attention(query: list[float], key: list[float]) -> Attention:
        sides = (torch.tensor([*side, 50.0]).reshape(1, 1, 3, 1) for side in (query, key))  # one head of size 1
        return Attention(*sides, value=torch.zeros(1, 1, 3, 1), scaling=1.0, causal=False)

    def states(*rows: list[float]) -> torch.Tensor:
        return torch.tensor([[*rows, [30.0, -9.0]]])

    seen = Observation(
        mask,
        (states([1, 0], [0, 0]), states([2, 2], [0, 2])),
        (attention([1, 2], [1, 3]),),  # scores 1 3, 2 6
        {"logits": torch.tensor([[0.0, 0.0]])},
        None,
    )
    goal = Observation(
        mask,
        (torch.zeros(1, 3, 2), noise, torch.zeros(1, 3, 2)),
        (attention([9, 9], [9, 9]), attention([1, 1], [1, 1])),  # scores 1 1, 1 1
        {"logits": torch.tensor([[log(3), 0.0]])},
        None,
    )
    (stage,) = ttq.SingleStage(1).stages(ttq.layer_map([1]))
    found = {name: float(loss) for match in stage.matches for name, loss in match.parts(seen, goal).items()}
    assert found == {
        "L0 mse": pytest.approx(0.25),  # the mean of ½ and 0
        "L1 mse": pytest.approx(3),  # of 4 and 2
        "L1 scores": pytest.approx(7.5),  # of (0 + 4) / 2 and (1 + 25) / 2
        "logits": pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5)),
    }


def test_weights_and_the_layer_map_reach_the_losses():
    schedule = ttq.LayerByLayer(5, mse=2, cosine=0, attention=3, logits=4, task=0, temperature=5)
    stages = schedule.stages({0: 0, 1: 2, 2: 4})
    assert stages[2].matches == tuple(MatchLayer(layer, 2 * layer, 2, 0, 3) for layer in (0, 1, 2))
    assert stages[3].matches == (MatchLogits(5, 4),)


def test_block_by_block_has_a_stage_a_layer_that_trains_alone_on_its_own_output():
    stages = ttq.BlockByBlock(4).stages({0: 0, 1: 2, 2: 4})
    assert [(stage.name, stage.only, stage.steps) for stage in stages] == [("L1", 1, 4), ("L2", 2, 4)]
    assert [stage.matches for stage in stages] == [(MatchBlock(1, 2),), (MatchBlock(2, 4),)]


def test_steps_rates_and_frozen_layers_a_stage():
    stages = SCHEDULES[1].stages(EQUAL)
    assert [stage.steps for stage in stages] == [1, 2, 3, 4]
    assert [stage.learning_rate for stage in stages] == [1e-3, None, 0.1, 1]
    assert [stage.only for stage in stages] == [2, 1, 0, None]
    assert {stage.only for stage in SCHEDULES[0].stages(EQUAL)} == {None}
    with refused(ValueError, "steps", "4", "2 layers", "got 3"):
        ttq.LayerByLayer([1, 2, 3]).stages(EQUAL)
    with refused(ValueError, "learning_rate", "got 5"):
        ttq.LayerByLayer(3, learning_rate=[1e-3] * 5).stages(EQUAL)


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_learning_rate_of_a_stage(decay):
    (stage,) = ttq.TaskOnly(10, warmup=0.4, decay=decay, learning_rate=2.0).stages({})
    rates = [stage.rate(step, default=7.0) for step in range(10)]
    assert rates[:5] == pytest.approx([0.5, 1, 1.5, 2, 2])
    if decay == "constant":
        assert rates[5:] == [2.0] * 5
    else:
        assert rates[4:] == sorted(set(rates[4:]), reverse=True) and rates[-1] > 0
        assert rates[7] == pytest.approx(1.0)  # half way down
    (stage,) = ttq.TaskOnly(10, warmup=0).stages({})
    assert stage.rate(0, default=7.0) == 7.0


# -------------------------------------------------------------------------------------------------------- as data


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_json_there_and_back(schedule):
    again = ttq.Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule and again.stages(EQUAL) == schedule.stages(EQUAL)
    assert hash(again) == hash(schedule)
    assert again != ttq.TaskOnly(99)
    with pytest.raises(FrozenInstanceError):
        schedule.steps = 1


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: ttq.LayerByLayer(0), ("steps", "at least 1", "0")),
        (lambda: ttq.LayerByLayer([5, True]), ("steps", "True")),
        (lambda: ttq.LayerByLayer("55"), ("steps", "'55'")),
        (lambda: ttq.TaskOnly([5, 5]), ("steps", "[5, 5]")),
        (lambda: ttq.TaskOnly(5, learning_rate=0), ("learning_rate", "above 0")),
        (lambda: ttq.TaskOnly(5, learning_rate=[1e-3]), ("learning_rate", "[0.001]")),
        (lambda: ttq.TaskOnly(5, learning_rate=float("nan")), ("learning_rate", "nan")),
        (lambda: ttq.TaskOnly(5, warmup=1), ("warmup", "below 1", "got 1")),
        (lambda: ttq.TaskOnly(5, decay="steep"), ("decay", "'linear', 'cosine', 'constant'", "'steep'")),
        (lambda: ttq.LayerByLayer(5, order="sideways"), ("order", "'bottom_up', 'top_down'")),
        (lambda: ttq.LayerByLayer(5, cumulative=1), ("cumulative", "True, False", "1")),
        (lambda: ttq.LayerByLayer(5, mse=0, cosine=0), ("mse", "cosine", "both be 0")),
        (lambda: ttq.LayerByLayer(5, logits=0, task=0), ("logits", "task", "both be 0")),
        (lambda: ttq.AllLayers(5, attention=-1), ("attention", "at least 0", "-1")),
        (lambda: ttq.AllLayers(5, temperature=0), ("temperature", "above 0")),
        (lambda: ttq.LogitsOnly(5, temperature="hot"), ("temperature", "'hot'")),
        (lambda: ttq.Contrastive(5, temperature=-1), ("temperature", "-1")),
        (lambda: ttq.AttentionRelations(5, heads=0), ("heads", "at least 1")),
        (lambda: ttq.Schedule.from_dict({"type": "Luck"}), ("type", "LayerByLayer", "Luck")),
        (lambda: ttq.Schedule.from_dict([]), ("a schedule must be an object", "list")),
        (lambda: ttq.Schedule.from_dict({**ttq.LogitsOnly(9).to_dict(), "luck": 1}), ("LogitsOnly", "fields", "luck")),
        (lambda: ttq.Schedule.from_dict({"type": "AttentionRelations", "steps": 3}), ("Relations", "lacks", "heads")),
    ],
)
def test_bad_schedules_are_refused(make, parts):
    with refused(ValueError, *parts):
        make()


# ------------------------------------------------------------------------------------------------ what is looked at


def intent_slot(seed: int) -> ttq.IntentSlotModel:
    torch.manual_seed(seed)
    return ttq.IntentSlotModel(BertConfig(**SIZES, initializer_range=0.3, intents=["go"] * 3, slots=["O"] * 4)).eval()


def parts_of(student, teacher, schedule, inputs) -> dict[str, float]:
    stages = stages_of(student, teacher, schedule)
    with torch.no_grad(), recorded_attention(student, teacher):
        seen, goal = (observe(model, inputs) for model in (student, teacher))
    return {name: float(loss) for m in stages[-1].matches for name, loss in m.parts(seen, goal).items()}


@pytest.mark.parametrize("schedule", SCHEDULES[2:-1], ids=lambda schedule: type(schedule).__name__)
def test_more_padding_changes_no_loss_of_whole_models(schedule):
    student, teacher = intent_slot(0), intent_slot(1)
    padded = {name: torch.nn.functional.pad(tensor, (0, 3)) for name, tensor in INPUTS.items()}
    before, after = (parts_of(student, teacher, schedule, inputs) for inputs in (INPUTS, padded))
    assert before and after == pytest.approx(before, rel=1e-4, abs=1e-6)
    unmasked = {**padded, "attention_mask": torch.ones_like(padded["attention_mask"])}  # the control
    assert parts_of(student, teacher, schedule, unmasked) != pytest.approx(before, rel=1e-4, abs=1e-6)


def test_weights_and_temperatures_of_the_recipes():
    student, teacher = bert(), bert(seed=1)
    inputs = {**INPUTS, "labels": torch.tensor([0, 1])}
    with torch.no_grad(), recorded_attention(student, teacher):
        seen, goal = (observe(model, inputs) for model in (student, teacher))
    once = [MatchLayer(1, 1), MatchLogits(), TaskLoss(), MatchRelations(4), MatchSentences()]
    thrice = [
        MatchLayer(1, 1, 3, 3, 3),
        MatchLogits(weight=3),
        TaskLoss(3),
        MatchRelations(4, 3),
        MatchSentences(weight=3),
    ]
    for single, triple in zip(once, thrice):
        parts, weighted = single.parts(seen, goal), triple.parts(seen, goal)
        assert parts and parts.keys() == weighted.keys()
        assert all(float(weighted[name]) == pytest.approx(3 * float(part)) for name, part in parts.items())
    assert MatchLayer(1, 1, 0, 0, 0).parts(seen, goal) == {}
    assert TaskLoss().parts(observe(student, INPUTS), goal) == {}
    warm = MatchSentences(0.5).parts(seen, goal), MatchLogits(3.0).parts(seen, goal)
    vectors = (ttq.sentence_vectors(one.hidden_states[-1], seen.mask) for one in (seen, goal))
    assert warm[0] == {"contrast": ttq.info_nce(*vectors, temperature=0.5)}
    assert warm[1] == {"logits": ttq.logits_kl(seen.logits["logits"], goal.logits["logits"], temperature=3.0)}


# ------------------------------------------------------------------------------------------- what the labels are

MULTI = {"problem_type": "multi_label_classification", "num_labels": 3}


def logits_loss(student, teacher, inputs=INPUTS, temperature=1.0) -> dict[str, float]:
    return parts_of(student, teacher, ttq.LogitsOnly(1, temperature=temperature), inputs)


def logits_of(*models) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(**INPUTS).logits for model in models]


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"num_labels": 3}, ttq.logits_kl),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, ttq.logits_kl),
        (MULTI, ttq.bernoulli_kl),
        ({**MULTI, "num_labels": 1}, ttq.bernoulli_kl),
        ({"num_labels": 1}, ttq.logits_mse),
        ({"num_labels": 3, "problem_type": "regression"}, ttq.logits_mse),
    ],
)
def test_logits_are_compared_as_what_they_are(changes, loss):
    models = bert(**changes), bert(seed=1, **changes)
    assert logits_loss(*models) == {"logits": pytest.approx(float(loss(*logits_of(*models))))}
    if loss is not ttq.logits_mse:
        found = logits_loss(*models, temperature=3.0)
        assert found == {"logits": pytest.approx(float(loss(*logits_of(*models), temperature=3.0)))}
    else:
        with refused(ValueError, "temperature=3.0", "regression", "use 1"):
            logits_loss(*models, temperature=3.0)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_models_with_other_kinds_of_labels_are_refused(problem):
    """Also where only one of them says so: the other's labels are classes, since nothing else is said."""
    with refused(ValueError, "kinds of labels", "config.problem_type", problem, "single_label", "set it on both"):
        stages_of(bert(problem_type=problem), bert(), ttq.LogitsOnly(5))


def labels(*names: str) -> PreTrainedConfig:
    return PreTrainedConfig(id2label=dict(enumerate(names)), num_labels=len(names))


def test_labels_belong_to_each_other_by_name():
    assert label_order(labels("no", "yes", "?"), labels("?", "no", "YES")) == (1, 2, 0)
    assert label_order(labels("no", "yes"), labels("no", "yes")) == (0, 1)
    assert label_order(labels("LABEL_0", "LABEL_1"), labels("yes", "no")) == (0, 1)  # nobody gave the first names
    assert label_order(labels("LABEL_1", "LABEL_0"), labels("LABEL_0", "LABEL_1")) == (1, 0)
    assert label_order(labels("score"), labels("LABEL_0")) == (0,)
    many = [f"n{number}" for number in range(12)]
    backwards = labels(*reversed(many))
    backwards.id2label = {str(number): name for number, name in sorted(backwards.id2label.items(), key=str)}
    assert label_order(labels(*many), backwards) == tuple(reversed(range(12)))  # 0, 1, 10, 11, 2 … in the file
    for ours, theirs, problem in [("ab", "ac", "b, c"), ("aab", "aba", "twice"), ("ab", "aa", "b")]:
        with refused(ValueError, "label names", "id2label", problem):
            label_order(labels(*ours), labels(*theirs))


@pytest.mark.parametrize("changes", [{}, MULTI], ids=["classes", "labels"])
def test_a_teacher_with_another_order_of_labels_teaches_the_same(changes):
    student, teacher = bert(num_labels=3), bert(seed=1, num_labels=3)
    for model in (student, teacher):
        model.config.id2label = {0: "contradiction", 1: "entailment", 2: "neutral"}
        model.config.problem_type = changes.get("problem_type")
    expected = logits_loss(student, teacher)
    order = [2, 0, 1]
    with torch.no_grad():
        for tensor in (teacher.classifier.weight, teacher.classifier.bias):
            tensor.copy_(tensor[order].clone())
    wrong = logits_loss(student, teacher)
    assert wrong["logits"] != pytest.approx(expected["logits"], rel=0.01)  # the control
    teacher.config.id2label = {new: student.config.id2label[old] for new, old in enumerate(order)}
    assert logits_loss(student, teacher) == pytest.approx(expected)


def test_padding_does_not_answer_a_question():
    torch.manual_seed(0)
    models = [BertForQuestionAnswering(BertConfig(**SIZES, initializer_range=0.3)).eval() for _ in range(2)]
    padded = {name: torch.nn.functional.pad(tensor, (0, 3)) for name, tensor in INPUTS.items()}
    before, after = (logits_loss(*models, inputs) for inputs in (INPUTS, padded))
    assert before.keys() == {"start_logits", "end_logits"} and after == pytest.approx(before, rel=1e-4)
    assert min(before.values()) > 0.01


# --------------------------------------------------------------------------------------- which layer belongs to which


def losses(student, teacher, layer_map) -> dict[str, float]:
    (stage,) = stages_of(student, teacher, ttq.AllLayers(1, logits=0, task=0), layer_map)
    with torch.no_grad(), recorded_attention(student, teacher):
        seen, goal = (observe(model, INPUTS) for model in (student, teacher))
    return {name: float(loss) for match in stage.matches for name, loss in match.parts(seen, goal).items()}


def test_each_layer_is_matched_to_its_own():
    """The student is the lower part of its teacher: only the right map finds no difference, and one off by one does."""
    teacher = bert(num_hidden_layers=4)
    student = bert()
    student.load_state_dict({name: teacher.state_dict()[name] for name in student.state_dict()})
    assert sum(losses(student, teacher, {0: 0, 1: 1, 2: 2}).values()) == pytest.approx(0, abs=1e-5)
    off_by_one = losses(student, teacher, {0: 0, 1: 2, 2: 3})
    assert off_by_one["L0 mse"] == pytest.approx(0, abs=1e-6)
    assert all(off_by_one[f"L{layer} {part}"] > 0.02 for layer in (1, 2) for part in ("mse", "cosine", "attention"))
    assert off_by_one.keys() == {"L0 mse", "L0 cosine"} | {
        f"L{layer} {part}" for layer in (1, 2) for part in ("mse", "cosine", "attention")
    }


@pytest.mark.parametrize(
    ("layer_map", "parts"),
    [
        (None, ("2 layers", "teacher 4", "layer_map={0: 0, 1: 2, 2: 4}")),
        ({1: 2, 2: 4}, ("must name each of 0 … 2",)),
        ({0: 0, 1: 1, 2: 2, 3: 3}, ("must name each of 0 … 2",)),
        ({0: 1, 1: 2, 2: 4}, ("embeddings, 0, belong to embeddings",)),
        ({0: 0, 1: 2, 2: 5}, ("teacher's layers are 1 … 4",)),
        ({0: 0, 1: 0, 2: 4}, ("keep their order",)),
        ({0: 0, 1: 4, 2: 2}, ("keep their order",)),
        ({0: 0, 1: 2, 2: 2}, ("keep their order",)),
    ],
)
def test_layer_maps_that_cannot_be_right_are_refused(layer_map, parts):
    with refused(ValueError, *parts):
        stages_of(bert(), bert(num_hidden_layers=4), ttq.LayerByLayer(5), layer_map)


def test_a_student_with_more_layers_than_its_teacher_is_refused():
    with refused(ValueError, "4 layers of the student", "2 of the teacher"):
        stages_of(bert(num_hidden_layers=4), bert(), ttq.AllLayers(5))


def test_what_matches_no_layers_needs_no_map():
    schedules = [ttq.AttentionRelations(5, heads=4), ttq.Contrastive(5), ttq.LogitsOnly(5), ttq.TaskOnly(5)]
    assert len(stages_of(bert(), bert(num_hidden_layers=4), schedules)) == 4
    assert len(stages_of(bert(), bert(hidden_size=48), ttq.AttentionRelations(5, heads=4))) == 1


@pytest.mark.parametrize(
    ("changes", "schedule", "parts"),
    [
        ({"hidden_size": 48}, ttq.LayerByLayer(5), ("hidden sizes", "24", "48", "AttentionRelations")),
        ({"hidden_size": 48}, ttq.Contrastive(5), ("hidden sizes", "24", "48")),
        ({"vocab_size": 98}, ttq.TaskOnly(5), ("vocabulary", "97", "98")),
        ({"num_attention_heads": 4}, ttq.AllLayers(5), ("attention heads", "2", "4", "attention=0")),
        ({"num_labels": 3}, ttq.LogitsOnly(5), ("labels", "2", "3")),
        ({"hidden_size": 20}, ttq.AttentionRelations(5, heads=3), ("heads=3", "teacher's attention", "20")),
        ({}, ttq.AttentionRelations(5, heads=5), ("heads=5", "student", "24")),
        ({}, [], ("stages", "LayerByLayer", "[]")),
        ({}, [ttq.TaskOnly(5), 3], ("stages", "3")),
    ],
)
def test_models_that_do_not_fit_are_refused(changes, schedule, parts):
    with refused(ValueError, *parts):
        stages_of(bert(), bert(**changes), schedule)


def test_attention_that_cannot_be_recorded_is_refused():
    deberta = build("deberta")
    for schedule in (ttq.LayerByLayer(5), ttq.AttentionRelations(5, heads=4)):
        with refused(ValueError, "attention of the teacher", "DebertaV2ForSequenceClassification"):
            stages_of(bert(), deberta, schedule)
    assert stages_of(bert(), deberta, ttq.LayerByLayer(5, attention=0))


def test_heads_must_divide_what_grouped_queries_share():
    llama = build("llama")
    assert stages_of(llama, build("gemma3"), ttq.AttentionRelations(5, heads=4))
    with refused(ValueError, "heads=8", "teacher's attention", "12"):
        stages_of(build("gemma3"), llama, ttq.AttentionRelations(5, heads=8))


@pytest.mark.parametrize("schedule", [ttq.LayerByLayer(5), ttq.LogitsOnly(5), ttq.TaskOnly(5)])
def test_encoder_decoders_are_refused_at_once(schedule):
    half = {"layers": 1, "ffn_dim": 8, "attention_heads": 2}
    halves = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in half.items()}
    bart = BartForSequenceClassification(BartConfig(vocab_size=97, d_model=24, **halves))
    with refused(ValueError, "teacher", "BartForSequenceClassification", "encoder-decoder", "ttq.QATTrainer"):
        stages_of(bert(num_labels=3), bart, schedule)
    with refused(ValueError, "student", "encoder-decoder"):
        stages_of(bart, bert(num_labels=3), schedule)


def test_models_that_are_no_single_stack_of_layers_are_refused():
    tower = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vision = {**tower, "image_size": 8, "patch_size": 4}
    clips = [CLIPModel(CLIPConfig(text_config={**tower, "vocab_size": 97}, vision_config=vision)) for _ in range(2)]
    for schedule in (ttq.LayerByLayer(5), ttq.Contrastive(5), ttq.AttentionRelations(5, heads=2), ttq.LogitsOnly(5)):
        with refused(ValueError, "student, a CLIPModel", "one stack", "config.num_hidden_layers", "None"):
            stages_of(*clips, schedule)
    size = {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
    swins = [SwinForImageClassification(SwinConfig(**size)) for _ in range(2)]
    with refused(ValueError, "student, a SwinForImageClassification", "config.num_attention_heads", "[1, 2]"):
        stages_of(*swins, ttq.LayerByLayer(5))
    assert stages_of(*swins, ttq.LogitsOnly(5))


def test_a_student_that_shares_its_teachers_weights_is_refused():
    teacher = bert()
    student = copy.copy(teacher)
    with refused(ValueError, "share parameters", "copy.deepcopy(teacher)"):
        stages_of(student, teacher, ttq.TaskOnly(5))


def test_the_parameters_of_a_layer():
    model = bert()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for layer in (1, 2):
        found = {names[id(parameter)] for parameter in layer_parameters(model, layer)}
        assert found == {name for name in names.values() if f".layer.{layer - 1}." in name}
    embeddings = {names[id(parameter)] for parameter in layer_parameters(model, 0)}
    assert embeddings == {name for name in names.values() if ".layer." not in name}
    with refused(ValueError, "freeze", "AlbertForSequenceClassification"):
        stages_of(build("albert"), build("albert"), ttq.LayerByLayer(5, freeze=True))


def test_models_without_the_same_logits_are_refused_at_the_first_batch():
    headless = observe(BertModel(BertConfig(**SIZES)), INPUTS)
    with refused(ValueError, "same logits", "got logits and none"):
        MatchLogits().parts(observe(bert(), INPUTS), headless)
