"""What kind of answer a model gives: labels by their numbers, several at once, numbers, words; and how sure it is."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

import ttqlib as ttq
from tests.cases import refused
from tests.deployment.test_deploy import WORDS, answers, centred, copy_of, words
from tests.surgery.test_fusion import loud
from ttqlib.deployment import export as deploy
from ttqlib.deployment import predictor

SIZES = {"vocab_size": 97, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 12))) for _ in range(40)]
SHUFFLED = {number: f"label {number}" for number in sorted(range(12), key=str)}  # 0, 1, 10, 11, 2, …


def twelve_labels() -> RobertaForSequenceClassification:
    """Its config names labels in the order of their numbers as strings; in double precision, answering too much."""
    torch.manual_seed(0)
    config = RobertaConfig(**SIZES, max_position_embeddings=16, pad_token_id=1, output_hidden_states=True)
    config.id2label = SHUFFLED
    return centred(loud(RobertaForSequenceClassification(config).double().eval()))


def a_number() -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_key_value_heads=1, pad_token_id=0, max_position_embeddings=16, num_labels=1)
    return loud(LlamaForSequenceClassification(config).eval())


def next_word() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict:
    base, found = tmp_path_factory.mktemp("exports"), {}
    for make in (twelve_labels, a_number, next_word):
        model, folder = make(), base / make.__name__
        ttq.export_onnx(model, folder, words())
        found[make] = model, folder
    return found


@pytest.fixture
def again(exports, tmp_path, monkeypatch):
    """Exports the model of twelve labels with another config: the graph is the same, so it is not traced again."""
    model, folder = exports[twelve_labels]
    graph, before = (folder / "model.onnx").read_bytes(), model.config.to_dict()
    monkeypatch.setattr(deploy, "_write_graph", lambda model, config, path, _: path.write_bytes(graph))

    def export(**options) -> tuple[torch.nn.Module, ttq.Predictor]:
        for name, value in options.items():
            setattr(model.config, name, value)
        ttq.export_onnx(model, tmp_path / "export", words())
        return model, ttq.Predictor(tmp_path / "export")

    yield export
    for name in ("id2label", "problem_type"):
        setattr(model.config, name, before[name])


@pytest.mark.parametrize("make", [twelve_labels, a_number, next_word], ids=lambda make: make.__name__)
def test_an_export_answers_as_its_model(exports, make):
    model, folder = exports[make]
    found = ttq.Predictor(folder)
    assert found.max_length == (14 if make is twelve_labels else 16)
    ids = np.random.default_rng(0).integers(2, 97, size=(3, 10))
    mask = (np.arange(10) < np.array([[10], [4], [1]])).astype(int)
    logits, expected = found.logits(ids * mask, mask), answers(model, {"input_ids": ids * mask, "attention_mask": mask})
    real = mask.astype(bool) if make is next_word else slice(None)
    assert list(logits) == ["logits"]
    np.testing.assert_allclose(logits["logits"][real], expected["logits"][real], rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("order", [SHUFFLED, range(11, -1, -1), {str(number): f"{number}" for number in SHUFFLED}])
def test_labels_are_those_of_transformers_own_pipeline(again, order):
    names = {number: f"label {number}" for number in order} if isinstance(order, range) else order
    model, found = again(id2label=names)
    model.config.id2label = {int(number): name for number, name in names.items()}  # as the pipeline wants it
    theirs = pipeline("text-classification", model.float(), tokenizer=words(), device="cpu")(TEXTS)
    model.double()
    ours = found.predict(TEXTS, probabilities=True)
    assert [answer["label"] for answer in ours] == [answer["label"] for answer in theirs]
    assert len({answer["label"] for answer in ours}) > 3
    for answer, other in zip(ours, theirs):
        assert answer["probabilities"][answer["label"]] == pytest.approx(other["score"], abs=1e-5)
        assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["label"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1) and len(answer["probabilities"]) == 12
    assert found.predict(TEXTS, batch_size=1) == [{"label": answer["label"]} for answer in ours]


def test_an_export_keeps_its_labels(exports):
    model, folder = exports[twelve_labels]
    before, model.config.id2label = model.config.id2label, dict.fromkeys(range(12), "another")
    assert ttq.Predictor(folder).predict(["list fares"])[0]["label"].startswith("label ")
    model.config.id2label = before


def test_all_labels_that_are_on_are_named(again):
    model, found = again(problem_type="multi_label_classification")
    theirs = pipeline("text-classification", model.float(), tokenizer=words(), device="cpu")(TEXTS, top_k=None)
    model.double()
    ours = found.predict(TEXTS, probabilities=True)
    for answer, scores in zip(ours, theirs):
        assert set(answer) == {"labels", "probabilities"}
        assert answer["probabilities"] == pytest.approx({one["label"]: one["score"] for one in scores}, abs=1e-5)
        assert set(answer["labels"]) == {one["label"] for one in scores if one["score"] > 0.5}
    counts = {len(answer["labels"]) for answer in ours}
    assert len(counts) > 3 and max(counts) < 12


def test_probabilities_of_large_logits_are_no_accidents():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, sure in ((predictor.ONE_LABEL, 1), (predictor.SOME_LABELS, 1)):
            chances = predictor._chances(kind, ["a", "b"], np.array([9000, -9000], np.float32))
            assert chances == {"a": sure, "b": 0}


# ------------------------------------------------------------------------------------------------------------ numbers


def test_a_model_that_predicts_a_number_answers_with_it(exports):
    model, folder = exports[a_number]
    wanted = [answers(model, words()([text], return_tensors="pt"))["logits"].item() for text in TEXTS]
    found = ttq.Predictor(folder).predict(TEXTS)
    assert [answer["label"] for answer in found] == pytest.approx(wanted, abs=1e-5) and np.std(wanted) > 0.01
    assert all(type(answer["label"]) is float for answer in found)
    assert ttq.score("stsb", wanted, [answer["label"] for answer in found])["pearson"] > 99.9
    with refused(ValueError, "predicts numbers, which have no probabilities"):
        ttq.Predictor(folder).predict(TEXTS, probabilities=True)


def test_several_numbers_have_names(again):
    _, found = again(problem_type="regression")
    (answer,) = found.predict(["list fares"])
    ids = np.array([words()("list fares")["input_ids"]])
    assert answer == {"label": dict(zip((f"label {n}" for n in range(12)), found.logits(ids)["logits"][0].tolist()))}


# -------------------------------------------------------------------------------------------------------------- words


def test_a_language_model_gives_logits_and_no_labels(exports):
    found = ttq.Predictor(exports[next_word][1])
    assert found.logits(np.array([[2, 7, 9]]))["logits"].shape == (1, 3, 97)
    with refused(ValueError, "is a language model, which names no label: ask Predictor.logits"):
        found.predict(TEXTS)


# -------------------------------------------------------------------------------------------------------- old exports


def of_format_1(folder: Path) -> Path:
    path = folder / "deploy.json"
    config = json.loads(path.read_text())
    del config["problem_type"]
    path.write_text(json.dumps({**config, "format": 1}))
    return folder


@pytest.mark.parametrize("make", [twelve_labels, a_number], ids=lambda make: make.__name__)
def test_an_export_of_format_1_is_read_with_a_warning(exports, make, tmp_path):
    old = of_format_1(copy_of(exports[make][1], tmp_path / "old"))
    with pytest.warns(UserWarning, match="is of format 1.*export again"):
        found = ttq.Predictor(old)
    assert found.predict(TEXTS) == ttq.Predictor(exports[make][1]).predict(TEXTS)
