"""DistillTrainer: each schedule trains what it says it does, exactly resumable, and the teacher is only looked at."""

import copy
import functools
import json
import os
from itertools import accumulate

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

import ttqlib as ttq
from tests.cases import refused
from tests.training.test_distill_observation import SIZES, build
from ttqlib.training.distill import STAGES
from ttqlib.training.observation import observe, recorded_attention

PLAN = {"rank": 4, "bits": 4, "rest": 8}


def bert(seed: int = 0, **changes) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**{**SIZES, "initializer_range": 0.3, "num_labels": 3, **changes}))


def tensor_train(model, **plan):
    student = copy.deepcopy(model)
    return ttq.compress_(student, ttq.plan(student, **(plan or PLAN)))


def rows(count: int = 32, lengths: tuple[int, int] = (3, 9)) -> list[dict]:
    """Sentences padded to 8 tokens."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        size = int(torch.randint(*lengths, (1,), generator=generator))
        ids = torch.randint(2, 97, (size,), generator=generator).tolist()
        padding = [0] * (8 - size)
        made.append(
            {"input_ids": ids + padding, "attention_mask": [1] * size + padding, "labels": ids[0] % 3}  # to be learned
        )
    return made


def trainer(folder, student, teacher, stages, data=None, callbacks=(), layer_map=None, kind=None, **options):
    options = {"save_strategy": "no", "logging_strategy": "no", "per_device_train_batch_size": 8, **options}
    options = {"learning_rate": 5e-3, "report_to": [], "disable_tqdm": True, "use_cpu": True, "seed": 3, **options}
    return (kind or ttq.DistillTrainer)(
        model=student,
        args=TrainingArguments(str(folder), **options),
        teacher=teacher,
        stages=stages,
        layer_map=layer_map,
        train_dataset=data or rows(),
        callbacks=list(callbacks),
    )


def batch_of(data: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in data]) for name in data[0]}


def losses(trainer) -> list[float]:
    """The loss of each stage on all rows at once, without dropout."""
    batch = batch_of(trainer.train_dataset)
    student, teacher = copy.deepcopy(trainer.model).eval(), trainer.teacher.eval()
    with torch.no_grad(), recorded_attention(student, teacher):
        seen, goal = (observe(model, batch) for model in (student, teacher))
        stages = trainer.stages
        return [sum(float(sum(m.parts(seen, goal).values())) for m in stage.matches) for stage in stages]


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(before: dict, after: dict) -> set[str]:
    return {name for name in after if not torch.equal(before[name], after[name])}


class Snapshots(TrainerCallback):
    """The student at the start and after each of the given steps."""

    def __init__(self, *steps: int):
        self.steps, self.states = steps, []

    def on_train_begin(self, args, state_, control, model=None, **others):
        self.states.append(state(model))

    def on_step_end(self, args, state_, control, model=None, **others):
        if state_.global_step in self.steps:
            self.states.append(state(model))

    def moved(self) -> list[set[str]]:
        return [moved(before, after) for before, after in zip(self.states, self.states[1:])]


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state_, control, **others):
        control.should_save = control.should_training_stop = state_.global_step == self.step


# -------------------------------------------------------------------------------------------------- what is trained

SCHEDULES = [
    ttq.LayerByLayer(12),
    ttq.LayerByLayer([6, 6, 12, 12], order="top_down", cumulative=False, learning_rate=[4e-3, 4e-3, 4e-3, None]),
    ttq.LayerByLayer(12, freeze=True),
    ttq.AllLayers(30),
    ttq.SingleStage(30),
    ttq.BlockByBlock(20),
    ttq.LogitsOnly(30, temperature=2.0),
    ttq.AttentionRelations(30, heads=6),
    ttq.Contrastive(30),
    ttq.TaskOnly(30),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: type(one).__name__)
def test_the_losses_of_every_schedule_fall(tmp_path, schedule):
    teacher = bert().eval()
    student = tensor_train(teacher)
    ends = Snapshots(*accumulate(stage.steps for stage in schedule.stages({0: 0, 1: 1, 2: 2})))
    data = rows()
    for row, label in zip(data, teacher(**batch_of(data)).logits.argmax(-1)):
        row["labels"] = int(label)  # what the teacher knows
    training = trainer(tmp_path, student, teacher, schedule, data, callbacks=[ends])
    training.train()
    assert training.state.global_step == ends.steps[-1]
    found = []  # the losses of all stages at the start and at the end of each
    for before in ends.states:
        student.load_state_dict(before, strict=True)
        found.append(losses(training))
    for number, stage in enumerate(training.stages):
        before, after = (found[end][number] for end in (number, number + 1))
        assert after < 0.95 * before, stage.name


def layer_names(student, layer: int) -> set[str]:
    names = {name for name, _ in student.named_parameters()}
    if layer == 0:
        return {name for name in names if ".embeddings." in name}
    return {name for name in names if f".layer.{layer - 1}." in name}


def of_stages(tmp_path, schedule) -> tuple[list[set[str]], list[set[str]]]:
    """Which parameters move in each of the stages, and those of layers 0, 1 and 2; no batch order, decay or dropout."""
    teacher = bert().eval()
    student = tensor_train(teacher)
    ends = Snapshots(3, 6, 9, 12)
    trainer(tmp_path, student, teacher, schedule, callbacks=[ends], weight_decay=0.1).train()
    return ends.moved(), [layer_names(student, layer) for layer in (0, 1, 2)]


def most(found: set[str], expected: set[str]) -> bool:
    """Whether nothing else moved, and, but for unused ones such as token type 1 or a key's bias, all did."""
    return found <= expected and len(found) > 0.8 * len(expected)


def test_a_stage_trains_its_layer_and_all_below_it(tmp_path):
    stages, layers = of_stages(tmp_path, ttq.LayerByLayer(3))
    assert most(stages[0], layers[0])
    assert most(stages[1], layers[0] | layers[1])
    assert most(stages[2], layers[0] | layers[1] | layers[2])
    assert {name for name in stages[3] if "classifier" in name or "pooler" in name}
    assert stages[3] > stages[2]


def test_frozen_layers_stay_as_they_are(tmp_path):
    stages, layers = of_stages(tmp_path, ttq.LayerByLayer(3, freeze=True))
    assert all(most(stages[layer], layers[layer]) for layer in (0, 1, 2))
    assert all(stages[3] & layers[layer] for layer in (0, 1, 2))  # the last stage trains them all
    stages, layers = of_stages(tmp_path, ttq.LayerByLayer(3, freeze=True, order="top_down", cumulative=False))
    assert all(most(stages[2 - layer], layers[layer]) for layer in (0, 1, 2))


def test_nothing_stays_frozen(tmp_path):
    class Broken(Exception):
        pass

    class Break(TrainerCallback):
        def on_step_end(self, args, state_, control, model=None, **others):
            assert not all(parameter.requires_grad for parameter in model.parameters())
            raise Broken

    teacher = bert().eval()
    student = tensor_train(teacher)
    fixed = student.bert.embeddings.LayerNorm.parametrizations.bias.original.requires_grad_(False)
    with pytest.raises(Broken):
        trainer(tmp_path, student, teacher, ttq.LayerByLayer(3, freeze=True), callbacks=[Break()]).train()
    assert [p for p in student.parameters() if not p.requires_grad] == [fixed]  # but for what was so before
    assert (student.config._attn_implementation, teacher.config._attn_implementation) == ("sdpa", "sdpa")


def test_the_learning_rate_follows_the_stages(tmp_path):
    rates = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state_, control, optimizer=None, **others):
            rates.append([group["lr"] for group in optimizer.param_groups])

    stages = [ttq.LogitsOnly(4, warmup=0.5, learning_rate=0.1), ttq.TaskOnly(2, warmup=0, decay="constant")]
    trainer(tmp_path, bert(), bert(), stages, callbacks=[Watch()], learning_rate=0.01).train()
    assert [rate for rate, _ in rates] == pytest.approx([0.05, 0.1, 0.1, 0.05, 0.01, 0.01])
    assert all(one == other for one, other in rates)


def test_schedules_follow_each_other_and_logs_say_where_they_are(tmp_path):
    stages = [ttq.AttentionRelations(2, heads=4), ttq.LayerByLayer(2)]
    training = trainer(tmp_path, bert(), bert(), stages, logging_strategy="steps", logging_steps=2)
    training.train()
    logs = [log for log in training.state.log_history if "loss" in log]
    assert [log["stage"] for log in logs] == [1, 2, 3, 4, 5]
    assert "query relations" in logs[0] and "L0 mse" not in logs[0]
    assert "L0 mse" in logs[1] and "L1 mse" not in logs[1] and "L2 attention" in logs[3]
    assert {"logits", "task"} < logs[4].keys()
    for log in logs:
        parts = [value for name, value in log.items() if name[0] == "L" or name in ("logits", "task") or " " in name]
        assert sum(parts) == pytest.approx(log["loss"], rel=1e-4)


# ----------------------------------------------------------------------------------------------------- the teacher


def test_the_teacher_is_only_looked_at(tmp_path):
    teacher = bert().train()  # with dropout, which must not be on
    before = state(teacher)
    student = tensor_train(teacher)
    trained = {id(parameter) for parameter in student.parameters()}
    training = trainer(tmp_path, student, teacher, ttq.AllLayers(4), save_strategy="steps", save_steps=4)
    training.train()
    assert moved(before, state(teacher)) == set() and not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert {id(p) for group in training.optimizer.param_groups for p in group["params"]} == trained
    assert not any("teacher" in name for name in training.model.state_dict())
    with safe_open(tmp_path / "checkpoint-4" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(student.state_dict())


def test_scales_are_not_decayed(tmp_path):
    student = tensor_train(bert())
    decayed = trainer(tmp_path, student, bert(), ttq.TaskOnly(1)).get_decay_parameter_names(student)
    assert decayed and not any("scale" in name for name in decayed)


# ------------------------------------------------------------------------------------------- exactness and resuming


def test_a_training_stopped_in_the_middle_of_a_stage_goes_on_as_if_nothing_had_happened(tmp_path):
    teacher, schedule = bert().eval(), ttq.LayerByLayer([3, 4, 3, 3])  # with freeze: test_distill_two_processes
    start = tensor_train(teacher, **PLAN, activations=ttq.StaticActivation(batches=6))
    options = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "per_device_train_batch_size": 4}

    def training(name, kind=None, **others):
        return trainer(tmp_path / name, copy.deepcopy(start), teacher, schedule, kind=kind, **options, **others)

    whole = training("whole")
    whole.train()
    stopped = training("stopped", callbacks=[StopAt(5)])  # in the second stage, and within an epoch of 4 steps
    stopped.train()
    assert stopped.state.global_step == 5 and os.listdir(tmp_path / "stopped") == ["checkpoint-5"]
    resumed = training("stopped")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 13
    assert moved(state(whole.model), state(resumed.model)) == set()
    other = training("stopped", kind=Forgetful)  # the control: all but the weights
    other.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-5"))
    assert moved(state(whole.model), state(other.model))


class Forgetful(ttq.DistillTrainer):
    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        pass


def test_a_checkpoint_of_other_stages_is_refused(tmp_path):
    teacher = bert().eval()
    trainer(tmp_path, tensor_train(teacher), teacher, ttq.LayerByLayer(2), callbacks=[StopAt(3)]).train()
    stages = json.loads((tmp_path / "checkpoint-3" / STAGES).read_text())
    assert len(stages) == 4 and "MatchLayer(layer=0, teacher_layer=0" in stages[0]
    for other in (ttq.LayerByLayer(3), ttq.LayerByLayer(2, mse=2), ttq.AllLayers(8)):
        with refused(ValueError, "checkpoint-3", "other stages", STAGES):
            trainer(tmp_path, tensor_train(teacher), teacher, other).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-3" / STAGES).unlink()
    with refused(ValueError, "other stages"):
        trainer(tmp_path, tensor_train(teacher), teacher, ttq.LayerByLayer(2)).train(resume_from_checkpoint=True)


def after_one_step(tmp_path, batch: int, parts: int, lengths: tuple[int, int]) -> dict[str, torch.Tensor]:
    teacher = bert(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": parts}
    options |= {"optim": "sgd", "max_grad_norm": 0}  # so that a wrong factor of the gradient shows
    data = rows(8, lengths)
    training = trainer(tmp_path, tensor_train(teacher), teacher, ttq.AllLayers(1, warmup=0), data, **options)
    training.train()
    return state(training.model)


def test_accumulated_batches_equal_one_where_they_have_equally_many_tokens(tmp_path):
    for lengths, equal in (((8, 9), True), ((2, 9), False)):
        one, several = (after_one_step(tmp_path, 8 // parts, parts, lengths) for parts in (1, 4))
        close = all(torch.allclose(one[name], several[name], rtol=0, atol=1e-6) for name in one)
        assert close is equal


def after_one_checkpointed_step(tmp_path, reentrant: bool | None, **weights) -> dict[str, torch.Tensor]:
    """With activations that are calibrated on that very step."""
    teacher = bert(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    student = tensor_train(teacher, **PLAN, activations=ttq.StaticActivation(4, batches=2))
    options = {"optim": "sgd", "max_grad_norm": 0, "learning_rate": 0.1}
    if reentrant is not None:
        options |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    training = trainer(tmp_path, student, teacher, ttq.AllLayers(1, warmup=0, **weights), rows(8), **options)
    training.train()
    return state(training.model)


@pytest.mark.parametrize("weights", [{}, {"attention": 0}], ids=["all", "without attention"])
def test_checkpointing_changes_no_gradient(tmp_path, weights):
    expected = after_one_checkpointed_step(tmp_path, None, **weights)
    assert any(name.endswith("input_quantizer.observed") and int(seen) == 1 for name, seen in expected.items())
    for reentrant in (False, True) if weights else (False,):
        found = after_one_checkpointed_step(tmp_path, reentrant, **weights)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_reentrant_checkpointing_is_refused_where_attention_is_matched(tmp_path):
    with refused(ValueError, "reentrant", "attention", 'gradient_checkpointing_kwargs={"use_reentrant": False}'):
        after_one_checkpointed_step(tmp_path, True)


def test_bfloat16_autocast(tmp_path):
    teacher = bert().eval()
    seen = []

    class Watch(ttq.DistillTrainer):
        def _losses(self, student, goal):
            scores = student.attentions[0].scores()
            exact = student.attentions[0].query.float() @ student.attentions[0].key.float().mT * 12**-0.5
            seen.append((student.hidden_states[-1].dtype, student.attentions[0].query.dtype))
            torch.testing.assert_close(scores[:, :, :3, :3], exact[:, :, :3, :3])  # losses are computed in float32
            return super()._losses(student, goal)

    training = trainer(tmp_path, tensor_train(teacher), teacher, ttq.AllLayers(20), kind=Watch, bf16=True)
    before = losses(training)
    training.train()
    assert seen[0][1] == torch.bfloat16  # autocast was on
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
    assert losses(training)[0] < 0.9 * before[0]


# --------------------------------------------------------------------------------------------------- other students


def test_any_encoder_will_do(tmp_path):
    teacher = bert(num_hidden_layers=4)
    student = build("distilbert", num_labels=3)
    training = trainer(tmp_path, student, teacher, ttq.LayerByLayer(10), layer_map={0: 0, 1: 2, 2: 4})
    before = losses(training)
    training.train()
    assert all(after < start for start, after in zip(before, losses(training)))


def test_a_teacher_gets_only_the_inputs_that_it_knows(tmp_path):
    data = [{**row, "token_type_ids": [0] * 8} for row in rows()]  # DistilBERT has no token types
    trainer(tmp_path, bert(), build("distilbert", num_labels=3), ttq.LogitsOnly(2), data).train()


@pytest.mark.parametrize("remove", [True, False])
def test_a_teacher_gets_columns_that_its_student_does_not_take(tmp_path, remove):
    data = [{**row, "token_type_ids": [0, 1] * 4, "note": 5} for row in rows(8)]
    if not remove:
        data = [{name: value for name, value in row.items() if name != "note"} for row in data]
    teacher, student = bert().eval(), build("distilbert", num_labels=3)
    with torch.no_grad():
        expected = teacher(**batch_of([{k: v for k, v in row.items() if k != "note"} for row in data])).logits
        control = teacher(**batch_of([{k: row[k] for k in ("input_ids", "attention_mask")} for row in data])).logits
    assert not torch.allclose(expected, control, atol=1e-3)
    seen, given, forward = [], set(), student.forward

    class Watch(ttq.DistillTrainer):
        def _losses(self, seen_, goal):
            seen.append(goal.logits["logits"])
            return super()._losses(seen_, goal)

    @functools.wraps(forward)
    def watched(*args, **inputs):
        given.update(inputs)
        return forward(*args, **inputs)

    student.forward = watched
    options = {"kind": Watch, "remove_unused_columns": remove}
    training = trainer(tmp_path, student, teacher, ttq.LogitsOnly(1), data, **options)
    training.train()
    ordered = torch.stack([min(seen[0], key=lambda row: (row - goal).abs().sum()) for goal in expected])
    torch.testing.assert_close(ordered, expected)  # the rows were shuffled
    training.evaluate(data)
    training.predict([{k: v for k, v in row.items() if k != "labels"} for row in data])
    assert given >= {"input_ids", "attention_mask", "labels"} and not given & {"token_type_ids", "note"}


def test_labels_that_are_on_or_off(tmp_path):
    """Floats in the data mean that; a config that says nothing else until then would be taken for classes."""
    data = [{**row, "labels": [float(row["labels"] == 0), 1.0, 0.0]} for row in rows()]
    with refused(ValueError, "multi_label_classification", "single_label", "student and teacher"):
        trainer(tmp_path, bert(), bert(), ttq.LogitsOnly(1), data).train()
    models = [bert(seed, problem_type="multi_label_classification") for seed in (0, 1)]
    training = trainer(tmp_path, *models, ttq.LogitsOnly(30), data)
    before = losses(training)
    training.train()
    assert losses(training)[0] < 0.7 * before[0]


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_decoders_with_grouped_queries_windows_and_capped_scores(tmp_path, kind):
    teacher = build(kind)
    student = tensor_train(teacher, rules={r"proj": ttq.TT(rank=4)}, quantize=ttq.LSQ(4))
    data = [{**row, "labels": [token or -100 for token in row["input_ids"]]} for row in rows()]  # 0 is padding
    training = trainer(tmp_path, student, teacher, [ttq.AllLayers(10), ttq.AttentionRelations(10, heads=2)], data)
    before = losses(training)
    training.train()
    assert all(after < start for start, after in zip(before, losses(training)))


@pytest.mark.parametrize(("window", "batch", "value"), [(3, 8, "inf"), (7, 1, "e+3")])
def test_a_student_that_may_not_attend_where_its_teacher_does_is_an_error(tmp_path, window, batch, value):
    """Also where only the last of eight tokens misses a key, so that the loss is large, but finite."""
    student, teacher = build("mistral"), build("mistral")
    student.config.sliding_window, teacher.config.sliding_window = window, 8
    data = [{**row, "labels": row["labels"] % 2} for row in rows(8, (8, 9))]
    with refused(
        FloatingPointError, "L1 attention is", value, "step 1", "the teacher attends where the student may not"
    ):
        trainer(tmp_path, student, teacher, ttq.AllLayers(2), data, per_device_train_batch_size=batch).train()


def test_intents_and_slots(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(**SIZES, initializer_range=0.3, intents=["go", "stop"], slots=["O", "place", "time"])
    teacher = ttq.IntentSlotModel(config).eval()
    data = [
        {"input_ids": row["input_ids"], "attention_mask": row["attention_mask"], "intent_labels": row["labels"] % 2}
        | {"slot_labels": [i % 3 if real else -100 for i, real in zip(row["input_ids"], row["attention_mask"])]}
        for row in rows()
    ]
    stages = ttq.LayerByLayer([2, 2, 2, 24])
    training = trainer(tmp_path, tensor_train(teacher), teacher, stages, data, logging_strategy="epoch")
    training.train()
    parts = [log for log in training.state.log_history if log.get("stage") == 4]
    assert {"intent_logits", "slot_logits", "task"} < parts[0].keys()
    assert parts[-1]["slot_logits"] < parts[0]["slot_logits"] and parts[-1]["task"] < parts[0]["task"]
    other = ttq.IntentSlotModel(BertConfig(**SIZES, intents=["go", "halt"], slots=config.slots))
    with refused(ValueError, "labels (config.intents)", "halt"):
        trainer(tmp_path, other, teacher, ttq.LogitsOnly(1))


def test_a_batch_of_which_no_label_counts_teaches_by_what_else_there_is(tmp_path):
    data = [row | {"labels": -100} for row in rows()]
    logs = {"logging_strategy": "steps", "logging_steps": 1}
    training = trainer(tmp_path, bert(), bert(seed=1), ttq.AllLayers(2), data, **logs)
    training.train()
    parts = [log for log in training.state.log_history if "task" in log]
    assert parts and all(log["task"] == 0 and log["loss"] > 0 for log in parts)


def test_labels_may_be_missing_but_not_where_there_is_nothing_else(tmp_path):
    data = [{name: value for name, value in row.items() if name != "labels"} for row in rows()]
    trainer(tmp_path, bert(), bert(), ttq.LayerByLayer(1), data).train()
    with refused(ValueError, "stage 1 (task)", "no labels"):
        trainer(tmp_path, bert(), bert(), ttq.TaskOnly(1), data).train()


def test_a_stage_with_nothing_to_train_is_an_error(tmp_path):
    student = bert()
    for parameter in student.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    with refused(ValueError, "stage 1 (L0)", "L0 mse, L0 cosine", "no parameter that trains"):
        trainer(tmp_path, student, bert(), ttq.LayerByLayer(1)).train()


def test_evaluation_gives_the_students_own_loss(tmp_path):
    student = bert().eval()
    training = trainer(tmp_path, student, bert(hidden_size=48), ttq.AttentionRelations(1, heads=4))
    with torch.no_grad():
        expected = float(student(**batch_of(rows())).loss)
    assert training.evaluate(rows())["eval_loss"] == pytest.approx(expected, rel=1e-4)


# -------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"max_steps": 5}, ("max_steps", "5", "3 steps")),
        ({"warmup_steps": 10}, ("warmup_steps", "10", "schedule")),
        ({"lr_scheduler_type": "cosine"}, ("lr_scheduler_type", "linear", "schedule")),
        ({"label_smoothing_factor": 0.1}, ("label_smoothing_factor", "0.1")),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(tmp_path, options, parts):
    with refused(ValueError, *parts):
        trainer(tmp_path, bert(), bert(), ttq.TaskOnly(3), **options)


def test_the_given_arguments_are_not_changed(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    training = ttq.DistillTrainer(bert(), args, teacher=bert(), stages=ttq.TaskOnly(3), train_dataset=rows())
    assert (args.max_steps, training.args.max_steps) == (-1, 3)


class Poison(TrainerCallback):
    """Makes a weight useless before the given step."""

    def __init__(self, step: int, value: float):
        self.step, self.value = step, value

    def on_step_begin(self, args, state_, control, model=None, **others):
        if state_.global_step == self.step - 1:
            with torch.no_grad():
                model.bert.encoder.layer[1].output.LayerNorm.weight.mul_(self.value)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (float("nan"), ("L2 mse is nan",)),
        (1e4, ("L2 mse is", "the stage began at")),
    ],
)
def test_a_training_that_diverges_stops_and_says_where(tmp_path, value, parts):
    callbacks = [Poison(8, value)]
    options = {"save_strategy": "steps", "save_steps": 3, "callbacks": callbacks}
    student = bert()
    with refused(
        FloatingPointError, "stage 3 of 4 (L2)", "step 8", *parts, "learning rate", f"{tmp_path}/checkpoint-6"
    ):
        trainer(tmp_path, student, bert(seed=1), ttq.LayerByLayer([2, 4, 4, 4]), **options).train()


def test_the_checkpoint_of_what_has_just_failed_is_not_called_good(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 7, "callbacks": [Poison(8, float("nan"))]}
    with refused(FloatingPointError, "step 8", "last good checkpoint: none"):
        trainer(tmp_path, bert(), bert(), ttq.LogitsOnly(9), **options).train()
    assert (tmp_path / "checkpoint-7").is_dir()


def test_a_gradient_that_is_not_finite_stops_it_before_the_weights_are_lost(tmp_path):
    class Overflow(TrainerCallback):
        def on_train_begin(self, args, state_, control, model=None, **others):
            weight = model.bert.encoder.layer[0].output.dense.weight
            self.handle = weight.register_hook(lambda gradient: gradient * torch.inf)

    student = bert()
    before = state(student)
    with refused(FloatingPointError, "stage 1 of 1 (logits)", "norm of the gradient is inf"):
        trainer(tmp_path, student, bert(hidden_dropout_prob=0.2), ttq.LogitsOnly(3), callbacks=[Overflow()]).train()
    assert moved(before, state(student)) == set()
