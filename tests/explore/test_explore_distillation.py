"""The explorer of a student's errors: what a point measures, the read-out, the picture, the speed."""

import time

import pytest
import torch

import ttqlib as ttq
from tests.kernels import slowness
from tests.training.test_distill import batch_of, bert, rows, tensor_train
from ttqlib.explore import StudentPoint, student_point

STEPS = (0, 10, 20, 60)
RUNS = {
    "one after the other": {
        step: StudentPoint((0.5 / (1 + step), 0.7, 0.01 * (100 - step)), 60 + step / 3) for step in STEPS
    },
    "labels": {step: StudentPoint((0.6, 0.7 + step / 50, 1 + step / 50), 55 + step / 2) for step in STEPS},
}


# ------------------------------------------------------------------------------------------------------------ a point


@pytest.fixture(scope="module")
def pair():
    teacher = bert().eval()
    return tensor_train(teacher), teacher


def test_a_teacher_is_not_off_from_itself(pair):
    point = student_point(pair[1], pair[1], [batch_of(rows())])
    assert point.errors == (0.0, 0.0, 0.0)


def test_errors_and_accuracy_are_those_of_the_definition(pair):
    student, teacher = pair
    batch = batch_of(rows())
    point = student_point(student, teacher, [batch])
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        seen, goal = (model.eval()(**batch, output_hidden_states=True) for model in pair)
    for off, state, wanted in zip(point.errors, seen.hidden_states, goal.hidden_states, strict=True):
        centred = wanted[real] - wanted[real].mean(0)
        assert off == pytest.approx(((state - wanted)[real].norm() / centred.norm()).item(), rel=1e-5)
    assert point.accuracy == pytest.approx(ttq.accuracy(batch["labels"].tolist(), seen.logits.argmax(-1).tolist()))


def test_batches_and_padding_make_no_difference(pair):
    data = rows()
    whole = student_point(*pair, [batch_of(data)])
    parts = student_point(*pair, [batch_of(data[:5]), batch_of(data[5:])])
    more = {"input_ids": [5, 6], "attention_mask": [0, 0], "labels": 0}
    longer = [{name: value + more[name] for name, value in row.items()} for row in data]
    for other in (parts, student_point(*pair, [batch_of(longer)])):
        assert other.errors == pytest.approx(whole.errors, rel=1e-4) and other.accuracy == whole.accuracy


@pytest.mark.parametrize("training", [True, False])
def test_the_students_mode_stays(pair, training):
    pair[0].train(training)
    student_point(*pair, [batch_of(rows(4))])
    assert pair[0].training is training


# -------------------------------------------------------------------------------------------------------- the explorer


@pytest.fixture(scope="module")
def explorer():
    return ttq.explore.distillation(RUNS, run="labels", step=20)


def test_it_starts_where_it_was_told(explorer):
    fresh = ttq.explore.distillation(RUNS, run="one after the other", step=60)
    assert (fresh.controls["run"].value, fresh.controls["step"].value) == ("one after the other", 60)
    assert tuple(fresh.controls["run"].options) == tuple(RUNS) and tuple(fresh.controls["step"].options) == STEPS
    assert all(control.description for control in fresh.controls.values())
    assert not fresh.controls["step"].continuous_update


def test_every_choice_is_read_out_and_drawn_anew(explorer):
    pictures = set()
    for run, points in RUNS.items():
        for before, step in zip((None, *STEPS), STEPS):
            explorer.controls["run"].value, explorer.controls["step"].value = run, step
            first, *more = explorer.readout.value.split("<br>")
            assert first == f"{run}, step {step}: {points[step]}"
            worse = "layer 1, layer 2" if run == "labels" else "nowhere"
            assert more == ([] if before is None else [f"further off than at step {before}: {worse}"])
            pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == len(RUNS) * len(STEPS)


def test_a_point_says_its_last_error_and_its_accuracy():
    assert str(StudentPoint((0.1, 0.256), 81.6)) == "off by 26% after the last layer, 82 % right"


@pytest.mark.parametrize("step", STEPS)
def test_the_figure_shows_all_marks_and_frames_the_chosen_one(step):
    axes, _ = ttq.explore.distillation_figure(RUNS, "labels", step).axes
    shown = [[f"{error:.0%}" for error in layer] for layer in zip(*(RUNS["labels"][mark].errors for mark in STEPS))]
    assert [text.get_text() for text in axes.texts] == [text for layer in shown for text in layer]
    (frame,) = axes.patches
    assert frame.get_xy() == (STEPS.index(step) - 0.5, -0.5) and frame.get_height() == len(shown)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embeddings", "layer 1", "layer 2"]


def test_a_move_is_answered_at_once(explorer):
    seconds = []
    for step in (*STEPS, *STEPS):
        start = time.process_time()
        explorer.controls["step"].value = step
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3 * slowness()
