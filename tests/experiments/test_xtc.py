"""experiments/xtc.py as a user runs it: fewer layers, few bits, stages, and what a row says of the teacher."""

import copy
from pathlib import Path

import models
import pytest
import results
import runs
import torch
import xtc
from glue import Glue
from transformers import AutoModelForSequenceClassification

import ttqlib as ttq
from tests.experiments.small import COUNTS, write_task
from ttqlib.storage.latent import load_latent_
from ttqlib.training.observation import observe, recorded_attention

SMALL = ["--task", "sst2", "--teacher", "three", "--teacher-epochs", "1", "--teacher-learning-rate", "1e-3"]
STUDENT = [*SMALL, "--bits", "1", "--steps", "6", "--batch-size", "4", "--save-steps", "3", "--learning-rate", "2e-3"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
WORDS = "bert.embeddings.word_embeddings"
LAST = "bert.encoder.layer.0.output.dense"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_task(folder, "sst2", COUNTS)
    return folder


@pytest.fixture(autouse=True)
def apart(data_folder, tmp_path, monkeypatch):
    """The small task, a teacher of three layers, results of their own, and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("TTQ_DATA", str(data_folder))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(models.MODELS, "three", models.from_nothing("bert", **SIZES))
    yield
    torch.set_num_threads(threads)


def study(*more: str, told: list[str] = STUDENT) -> xtc.XTC:
    return xtc.XTC(*runs.parse(xtc.XTC, [*told, *more]))


def settings(*more: str, told: list[str] = STUDENT) -> xtc.Extreme:
    return runs.parse(xtc.XTC, [*told, *more])[0]


def run(where: Path, *more: str, told: list[str] = STUDENT) -> list[dict]:
    runs.main(xtc.XTC, [*told, *more, "--runs", str(where)])
    return results.read(where / "results.json")


def teacher_of(made: xtc.XTC) -> torch.nn.Module:
    torch.manual_seed(0)
    return made.data.new_teacher().eval()


def logits(model, made: xtc.XTC) -> torch.Tensor:
    batch = made.collate_for(model)([made.data.encoded["train"][row] for row in range(8)])
    with torch.no_grad():
        return model.eval()(**batch).logits


# ------------------------------------------------------------------------------------------------ runs, as a user's


def test_a_row_has_the_teachers_score_and_the_folder_a_smaller_model(tmp_path):
    (row,) = run(tmp_path, "--layers", "2", "--keep", "0,2", "--activations", "8")
    assert (row["method"], row["rank"], row["bits"], row["split"]) == ("xtc", None, 1, "held_out")
    made = row["settings"]
    assert (made["layers"], made["keep"], made["rest"], made["schedule"]) == (2, "0,2", 8, "single_stage")
    found = {name: value["mean"] for name, value in row["metrics"].items()}
    assert found["accuracy_behind"] == pytest.approx(found["teacher_accuracy"] - found["accuracy"], abs=2e-3)
    assert {"agreement", "divergence"} < found.keys()
    (teacher,) = tmp_path.glob("sst2/dense-*/seed-0/model")
    (folder,) = tmp_path.glob("sst2/xtc-1bit-*/seed-0/model")
    sizes = [sum(file.stat().st_size for file in one.iterdir()) for one in (teacher, folder)]
    assert [row["dense_bytes"], row["stored_bytes"]] == sizes
    student = AutoModelForSequenceClassification.from_pretrained(folder)
    assert student.config.num_hidden_layers == 2 and student.config.kept_layers == [0, 2]
    assert {layer.quantize for layer in student.ttq_config.layers.values()} == {ttq.Binary(per="channel")}
    assert student.ttq_config.layers[LAST].activations == ttq.DynamicActivation(8)


def test_the_teacher_is_that_of_glue_and_is_looked_for_beside_it(tmp_path):
    told = ["--teacher-bf16", "--hold-out", "rows"]
    ours, theirs = settings(*told, "--layers", "2").of_teacher, runs.parse(Glue, [*SMALL, *told])[0]
    assert ours.folder == theirs.folder and ours.method == "dense" and not ours.is_student
    for more in (
        ["--words", "low-rank", "--word-rank", "4"],
        ["--through", "32"],
        ["--rank", "3", "--activations", "8"],
    ):
        assert settings(*told, *more).of_teacher.folder == theirs.folder
    _, options = runs.parse(xtc.XTC, [])
    assert options.runs == results.RUNS / "glue" and xtc.XTC.name == "xtc"
    runs.main(Glue, [*SMALL, "--runs", str(tmp_path)])
    (teacher,) = tmp_path.glob("sst2/dense-*/seed-0/model/model.safetensors")
    written = teacher.stat().st_mtime_ns
    run(tmp_path)
    assert teacher.stat().st_mtime_ns == written and len(list(tmp_path.glob("sst2/dense-*"))) == 1


def test_stages_go_on_from_each_others_latent_weights(tmp_path, monkeypatch):
    """32, 2, 1: three runs of two steps each, the last of which begins where the second has ended."""
    began = []

    class Spy(ttq.DistillTrainer):
        def train(self, *arguments, **options):
            began.append((copy.deepcopy(self.model), sum(stage.steps for stage in self.stages)))
            return super().train(*arguments, **options)

    monkeypatch.setattr(ttq, "DistillTrainer", Spy)
    (row,) = run(tmp_path, "--through", "32,2")
    assert row["settings"]["through"] == "32,2" and row["settings"]["steps"] == 6
    assert [steps for _, steps in began] == [2, 2, 2]
    recipes = [model.ttq_config.layers[LAST].quantize for model, _ in began]
    assert recipes == ["float", ttq.Ternary(per="channel"), ttq.Binary(per="channel")]
    (checkpoint,) = tmp_path.glob("sst2/xtc-2bit-*/seed-0/checkpoint-2")
    second, third = copy.deepcopy(began[1][0]), began[2][0]
    load_latent_(second, checkpoint)
    latents = [model.get_submodule(LAST).parametrizations.weight.original for model in (second, third)]
    assert torch.equal(*latents)
    assert not torch.equal(latents[0], began[1][0].get_submodule(LAST).parametrizations.weight.original)
    assert runs.parse(xtc.XTC, [*STUDENT, "--through", "32"])[0].earlier.bits == 32


# -------------------------------------------------------------------------------------------------------- its parts


@pytest.mark.parametrize(("keep", "taught"), [("first", [0, 1, 2]), ("0,2", [0, 1, 3]), ("last", [0, 2, 3])])
def test_each_layer_is_taught_by_the_one_that_it_was_copied_from(keep, taught, tmp_path):
    made = study("--layers", "2", "--keep", keep, "--bits", "32", "--rest", "32")
    teacher = teacher_of(made)
    student = made.new(made.settings, teacher)
    training = made.trainer(made.settings, student, teacher, {"output_dir": str(tmp_path), "report_to": "none"})
    matches = training.stages[0].matches[:-1]
    assert [match.teacher_layer for match in matches] == taught
    if keep == "first":  # whose layers see what they saw in the teacher: any other pairing would show
        batch = made.data.collate([made.data.encoded["train"][row] for row in range(8)])
        with torch.no_grad(), recorded_attention(student, teacher):
            seen, goal = (observe(model.eval(), batch) for model in (student, teacher))
        losses = [float(loss) for match in matches for loss in match.parts(seen, goal).values()]
        assert len(losses) == 5 and max(losses) < 1e-9


def test_which_layers_stay():
    cases = {"every-other": [0, 2], "first": [0, 1], "last": [1, 2], "ends": [0, 2], "every-other-from-0": [0, 1]}
    for keep, expected in cases.items():
        made = study("--layers", "2", "--keep", keep)
        assert made.kept(made.settings, made.data.bare()) == expected, keep
    made = study("--keep", "1,2")
    assert made.settings.layers == 2 and made.kept(made.settings, made.data.bare()) == [1, 2]
    made = study()
    assert made.kept(made.settings, made.data.bare()) == [0, 1, 2]
    for keep, measure in (("costs", ttq.layer_costs), ("similarity", ttq.layer_similarity)):
        made = study("--layers", "2", "--keep", keep)
        teacher = teacher_of(made)
        dropped = next(iter(measure(teacher, list(made.batches(xtc.MEASURING, teacher)))))
        assert made.kept(made.settings, teacher) == sorted({0, 1, 2} - {dropped})


def test_formats_and_rounding():
    row = "channel"
    cases = {
        (): ((None, ttq.Binary(per=row)), (None, ttq.Binary(per=row))),
        ("--bits", "2"): ((None, ttq.Ternary(per=row)), (None, ttq.Ternary(per=row))),
        ("--bits", "2", "--rounding", "learned"): ((None, ttq.Ternary(per=row, learnable=True)),) * 2,
        ("--bits", "2", "--rounding", "lsq"): ((None, ttq.LSQ(2, per=row)),) * 2,
        ("--bits", "8"): ((None, ttq.LSQ(8, per=row)),) * 2,
        ("--bits", "32"): ((None, "float"),) * 2,
        ("--words", "low-rank", "--word-rank", "4", "--word-bits", "2"): (
            (None, ttq.Binary(per=row)),
            (("TTM", 4), ttq.Ternary()),
        ),
        ("--words", "ttm", "--word-rank", "3", "--word-bits", "4"): (
            (None, ttq.Binary(per=row)),
            (("TTM", 3), ttq.LSQ(4)),
        ),
        ("--rank", "5", "--words", "low-rank"): ((("TT", 5), ttq.Binary()), (("TTM", 5), ttq.Binary())),
    }
    for more, expected in cases.items():
        made = study(*more)
        layers = xtc.extreme_plan(made.data.bare(), made.settings).layers
        assert len(layers) == 3 * 6 + 2  # those of three layers, the pooler and the words
        for name, (form, quantizer) in zip((LAST, WORDS), expected):
            found = layers[name]
            assert (found.format and (type(found.format).__name__, found.format.rank)) == form, more
            assert found.quantize == quantizer


def test_a_pruned_vocabulary_is_a_control_that_changes_no_training_sentence():
    told = ["--bits", "32", "--rest", "32", "--layers", "3", "--vocabulary"]
    made, whole = study(*told, "trained"), study(*told, "all")
    teacher, tokenizer = teacher_of(whole), made.data.tokenizer
    special, ids = {*tokenizer.all_special_ids}, made.data.encoded["train"]["input_ids"]
    assert made.occurring.tolist() == sorted(special.union(*ids))
    occurring = sorted(special.union(*ids[:8]))  # as if there were no other rows: `logits` asks for these
    made.occurring = torch.tensor(occurring)
    student, shown = made.new(made.settings, teacher), made.shown(made.settings, teacher)
    assert student.config.vocab_size == shown.config.vocab_size == len(occurring) < made.data.config.vocab_size
    for model in (student, shown):
        torch.testing.assert_close(logits(model, made), logits(teacher, whole))
    unknown = next(id for id in range(made.data.config.vocab_size) if id not in occurring)
    rows = [{"input_ids": [unknown, occurring[-1]], "attention_mask": [1, 1]}]
    (ids,) = made.collate_for(student)(rows)["input_ids"].tolist()
    assert [occurring[place] for place in ids] == [tokenizer.unk_token_id, occurring[-1]]
    assert made.collate_for(teacher)(rows)["input_ids"].tolist() == [[unknown, occurring[-1]]]
    assert made.settings.said()["vocabulary"] == "trained"


REFUSED = {
    "--keep middle": "--keep must be one of every-other, ",
    "--layers 4": "of 3 layers 1 to 3 can be kept, got count=4",
    "--keep 1,3": "there is no layer 3: the places are 0 … 2",
    "--keep 1,1": "layer 1 cannot be kept twice",
    "--layers 0": "--layers must be from 1",
    "--through 32,9": "--through must be bits among 1, 2, ",
    "--through two": "--through must be bits among 1, 2, ",
    "--through 32,2 --steps 2": "--steps must be at least 1 for each stage",
    "--words low-rank": "--words low-rank needs a --word-rank",
    "--activations 4": "invalid choice: 4",
    "--vocabulary none": "invalid choice: 'none'",
    "--rank 4 --words ttm --word-cores 0": "--word-cores must be from 1",
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_trained(told, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "finished", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        run(tmp_path / "runs", *told.split())
    assert REFUSED[told] in capsys.readouterr().err and not (tmp_path / "runs").exists()
