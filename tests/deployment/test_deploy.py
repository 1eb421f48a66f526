"""An export answers as its model does, at every batch and length, also without torch; mixed-up files are refused."""

import json
import math
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib import util
from io import StringIO
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import InferenceSession
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    T5ForTokenClassification,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

import ttqlib as ttq
from tests.cases import refused, seeds
from tests.chapters import ROOT
from tests.models.test_intent_slot_model import tiny
from tests.surgery.test_compress import BERT, DISTIL, SIZES
from tests.surgery.test_fusion import loud, numbers
from ttqlib import progress
from ttqlib.deployment import description, exported
from ttqlib.deployment import export as deploy

SENTENCE = "show me the flights from boston to denver on monday or list all fares"
WORDS = SENTENCE.split()
TEXTS = ["show me the flights to denver", "list fares", "from boston to Rome or denver on monday please"]


def pieces() -> PreTrainedTokenizerFast:
    """WordPiece: "monday" and "boston" are two tokens each."""
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *WORDS, "mon", "##day", "bos", "##ton"]
    vocabulary = {word: number for number, word in enumerate(words) if word not in ("monday", "boston")}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]")


def words() -> PreTrainedTokenizerFast:
    return ttq.word_tokenizer([WORDS])


def typed() -> PreTrainedTokenizerFast:
    """It tells the second text of a pair from the first."""
    tokenizer = words()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, **BERT | {"num_hidden_layers": 1})).eval()


def distilbert() -> DistilBertForSequenceClassification:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig(**SIZES, **DISTIL | {"n_layers": 1})).eval()


KINDS = {  # how the model is made, its plan, its tokenizer, and how far an export may be from it
    "bert": (bert, {"rank": 4, "bits": 4, "rest": 8}, typed, 1e-4),
    "mask in a latent": (bert, {"rules": {"key": ttq.TT(2), "encoder": ttq.TT(4)}}, typed, 1e-4),
    "rounded activations": (distilbert, {"rank": 4, "activations": ttq.DynamicActivation(8)}, words, deploy.ROUNDED),
    "intents and slots": (tiny, {"rank": 4, "bits": 4, "rest": 8}, pieces, 1e-4),
}


HEADS = {"logits": "classifier", "intent_logits": "intent_head", "slot_logits": "slot_head"}


@torch.no_grad()
def centred(model: torch.nn.Module) -> torch.nn.Module:
    """With biases under which labels differ from text to text; a random model gives all texts the same."""
    ids = torch.randint(4, 4 + len(WORDS), (200, 8), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3  # [CLS] and [SEP]
    for name, logits in answers(model, {"input_ids": ids}).items():
        if name in HEADS:
            head = getattr(model, HEADS[name])
            getattr(head, "out_proj", head).bias -= torch.as_tensor(logits).flatten(0, -2).mean(0)
    return model


def made(kind: str) -> torch.nn.Module:
    make, options, *_ = KINDS[kind]
    model = loud(make())
    plan = ttq.plan(model, **options)
    centred(ttq.compress_(model, plan.without_quantizers()))
    return ttq.compress_(model, plan)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, tuple[torch.nn.Module, Path]]:
    """Models of several kinds, and the folders that they were exported to."""
    base, found = tmp_path_factory.mktemp("exports"), {}
    for kind in KINDS:
        model, tokenizer, folder = made(kind).train(), KINDS[kind][2](), base / kind
        tokenizer.backend_tokenizer.enable_truncation(4)  # what a use in training leaves behind
        tokenizer.backend_tokenizer.enable_padding(length=20)
        ttq.export_onnx(model, folder, tokenizer)
        found[kind] = model, folder
    return found


@pytest.fixture
def folder(exports, tmp_path) -> Path:
    """A copy of one export, to break."""
    return copy_of(exports["bert"][1], tmp_path / "export")


def copy_of(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def of_other_weights(folder: Path) -> bytes:
    """The graph of another model of the same shape."""
    model = onnx.load(folder / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims, dtype=int))
    largest.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(largest), largest.name))
    return model.SerializeToString()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@torch.no_grad()
def answers(model, inputs) -> dict[str, np.ndarray]:
    """What the model itself says, by name."""
    output = model.eval()(**{name: torch.as_tensor(values) for name, values in inputs.items()})
    return {name: values.numpy() for name, values in output.items() if isinstance(values, torch.Tensor)}


# ------------------------------------------------------------------------------------------------------ same answers


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(KINDS)), st.integers(1, 5), st.integers(1, 16), seeds)
def test_an_export_answers_as_its_model_at_every_batch_and_length(exports, kind, batch, length, seed):
    (model, folder), tolerance = exports[kind], KINDS[kind][-1]
    predictor, random = ttq.Predictor(folder, threads=1), np.random.default_rng(seed)
    inputs = {name: random.integers(limit, size=(batch, length)) for name, limit in predictor.inputs.items()}
    inputs["attention_mask"] = (np.arange(length) < random.integers(1, length + 1, size=(batch, 1))).astype(int)
    expected, found = answers(model, inputs), predictor.logits(**inputs)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert np.abs(found[name] - values).max() <= tolerance * np.abs(values).max()


@pytest.mark.parametrize(("kind", "added"), [("bert", 1), ("mask in a latent", 0)])
def test_no_mask_is_added_to_scores_where_it_is_a_latent_of_the_keys(exports, kind, added):
    nodes = onnx.load(exports[kind][1] / "model.onnx").graph.node
    made_by = {name: node for node in nodes for name in node.output}

    def masked(name: str) -> bool:
        node = made_by[name]
        return node.op_type == "Add" or (node.op_type == "Reshape" and masked(node.input[0]))

    scores = [node.input[0] for node in nodes if node.op_type == "Softmax"]
    assert len(scores) == 1 and sum(map(masked, scores)) == added


def test_by_default_every_token_counts_and_is_of_type_0(exports):
    model, folder = exports["bert"]
    ids = np.array([[2, 7, 9, 3]])
    found = ttq.Predictor(folder).logits(ids)["logits"]
    np.testing.assert_allclose(found, answers(model, {"input_ids": ids})["logits"], rtol=1e-4)
    for other in ({"attention_mask": np.array([[1, 1, 1, 0]])}, {"token_type_ids": np.array([[0, 0, 1, 1]])}):
        assert np.abs(ttq.Predictor(folder).logits(ids, **other)["logits"] - found).max() > 0.01


def test_padding_does_not_change_an_answer(exports):
    predictor = ttq.Predictor(exports["bert"][1])
    alone, ids = predictor.logits([[2, 7, 9, 3]])["logits"], [[2, 7, 9, 3, 0, 0], [2, 5, 6, 7, 8, 3]]
    mask = (np.array(ids) > 0).astype(int)
    np.testing.assert_allclose(predictor.logits(ids, mask)["logits"][:1], alone, rtol=1e-4)
    assert np.abs(predictor.logits(ids)["logits"][:1] - alone).max() > 0.01


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("bert", TEXTS),
        ("bert", [("list fares", "on monday"), ("to boston", "from denver or boston")]),
        ("intents and slots", TEXTS),
    ],
)
def test_texts_are_tokenized_and_padded_as_by_transformers(exports, monkeypatch, kind, texts):
    predictor, given = ttq.Predictor(exports[kind][1]), []
    monkeypatch.setattr(predictor, "logits", lambda *arrays: given.append(arrays) or {})  # no answer is needed
    predictor.predict(texts)
    batch = KINDS[kind][2]()(texts, padding=True, return_tensors="np")
    found = dict(zip(("input_ids", "attention_mask", "token_type_ids"), given[0]))
    assert predictor.inputs.keys() == batch.keys()  # only a tokenizer that tells the texts of a pair apart has types
    for name in batch:
        assert found[name].tolist() == batch[name].tolist()
    assert (batch["input_ids"] == (0 if kind == "bert" else 1)).any() and not batch["attention_mask"].all()


def test_a_word_gets_the_label_of_its_first_token(exports):
    model, folder = exports["intents and slots"]
    predictor, tokenizer = ttq.Predictor(folder), pieces()
    found = predictor.predict(TEXTS)
    for text, answer in zip(TEXTS, found):
        batch = tokenizer([text.split()], is_split_into_words=True, return_tensors="pt")
        logits, places = answers(model, {name: batch[name] for name in predictor.inputs}), batch.word_ids(0)
        first = [places.index(word) for word in range(len(text.split()))]
        assert answer["intent"] == model.config.intents[logits["intent_logits"][0].argmax()]
        assert answer["slots"] == [model.config.slots[n] for n in logits["slot_logits"][0, first].argmax(-1)]
    assert len(tokenizer(TEXTS[2])["input_ids"]) > 2 + len(TEXTS[2].split())  # some words are of several tokens
    assert predictor.predict([text.split() for text in TEXTS]) == found
    assert predictor.predict([iter(text.split()) for text in TEXTS]) == found  # read once
    assert predictor.predict(["", "list fares"]) == [{"intent": ANY, "slots": []}, found[1]]


@pytest.mark.parametrize("bad", [None, math.nan, 3, b"x", "\ud800", ["list", 3]])
def test_what_is_no_text_is_named_by_its_number(exports, bad):
    for kind, other in (("bert", "a pair of strings"), ("intents and slots", "a list of words")):
        with refused(ValueError, f"text 1 must be a string or {other}"):
            ttq.Predictor(exports[kind][1]).predict(["list fares", bad])


def test_texts_in_a_mapping_and_halves_of_a_thread_are_refused(exports):
    folder = exports["bert"][1]
    with refused(ValueError, "texts must be a list", "{'a': 'good'}"):
        ttq.Predictor(folder).predict({"a": "good"})
    for threads in (0, -1, 1.5):
        with refused(ValueError, "threads must be a whole number of at least 1"):
            ttq.Predictor(folder, threads=threads)


def test_a_long_text_is_refused_or_cut(exports):
    folder, long = exports["intents and slots"][1], SENTENCE
    with refused(ValueError, "text 1 has 18 tokens, at most 16 go in", "truncate=True", "a larger max_length"):
        ttq.Predictor(folder).predict(["list fares", long])
    (found,) = ttq.Predictor(folder, truncate=True).predict([long])
    assert [label is None for label in found["slots"]] == [False] * 12 + [True] * 2  # 14 tokens between [CLS] and [SEP]
    (same,) = ttq.Predictor(folder).predict([" ".join(WORDS[:12])])
    assert found["slots"][:12] == same["slots"]


# ------------------------------------------------------------------------------------------------- what is written


def test_the_model_stays_as_it_was(monkeypatch, exports, tmp_path):
    model = made("bert").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(deploy, "_write_graph", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        ttq.export_onnx(model, tmp_path / "export")
    for one in (model, exports["bert"][0].train()):
        assert one.training and one.ttq_config.rest == 8 and one.config._attn_implementation == "sdpa"
        assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """Two layers of MiniLM's shape, of rank 30, in 8 bits."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes)).eval()
    ttq.compress_(model, ttq.plan(model, rank=30), init="random")
    folder, said, shown = tmp_path_factory.mktemp("small"), StringIO(), StringIO()
    with redirect_stdout(said), redirect_stderr(shown):
        ttq.export_onnx(model, folder, words(), int8=True, max_length=64)
    assert said.getvalue() == "" and all(
        line.startswith("export: ") for line in shown.getvalue().split("\r") if line.strip()
    )
    return ttq.fuse_(model), folder


def test_8_bits_take_less_than_a_third_of_float32_and_load_within_a_second(small):
    model, folder = small
    assert (folder / "model.onnx").stat().st_size <= 0.3 * 4 * numbers(model)
    seconds = []
    for _ in range(3):
        start = time.process_time()  # of the processor: what else it does does not count
        ttq.Predictor(folder, threads=1)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1


def test_8_bits_stay_close(small):
    model, folder = small
    ids = np.random.default_rng(0).integers(30_000, size=(3, 40))
    expected, found = answers(model, {"input_ids": ids})["logits"], ttq.Predictor(folder).logits(ids)["logits"]
    assert 1e-5 < np.abs(found - expected).max() / np.abs(expected).max() < 0.1
    graph = onnx.load(folder / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    matrices = {tensor.name: min(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2}
    integers = [matrices[node.input[1]] for node in graph.node if node.op_type == "MatMulInteger"]
    # six pairs in each of two layers, and the pooler; the classifier is thinner
    assert sorted(integers) == [32] * 24 + [384] and "Unique" not in kinds


def test_only_thin_products_stay_float32(tmp_path):
    torch.manual_seed(0)
    wide, thin = torch.nn.Linear(deploy.THIN_SIDE, 64), torch.nn.Linear(64, deploy.THIN_SIDE - 1)
    path, x = tmp_path / "model.onnx", torch.randn(2, 5, deploy.THIN_SIDE)
    torch.nn.init.zeros_(thin.weight[0])  # a row that has no largest entry to scale by
    model = torch.nn.Sequential(wide, thin).eval()
    torch.onnx.export(model, (x,), path, dynamo=True, external_data=False, verbose=False)
    deploy._quantize(path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MatMulInteger") == kinds.count("DequantizeLinear") == kinds.count("MatMul") == 1
    (found,) = InferenceSession(path).run(None, {InferenceSession(path).get_inputs()[0].name: x.numpy()})
    assert np.allclose(found, model(x).detach(), atol=0.02) and not np.array_equal(found, model(x).detach())
    assert np.allclose(found[..., 0], model[1].bias[0].item())


def test_weights_are_dequantized_while_loading_and_nothing_is_fused_that_gets_slower(small, tmp_path, monkeypatch):
    class Options(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.optimized_model_filepath = str(tmp_path / "optimized.onnx")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    ttq.Predictor(small[1])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "LayerNormalization" in kinds and "SkipLayerNormalization" not in kinds
    assert kinds.count("DequantizeLinear") <= 5 and "MatMulNBits" not in kinds  # rows of tables are looked up first


def test_an_export_is_three_files_and_names_no_path(small, exports):
    for folder in (small[1], exports["bert"][1]):
        assert sorted(contents(folder)) == ["deploy.json", "model.onnx", "tokenizer.json"]
        assert b".py" not in (folder / "model.onnx").read_bytes()


PREDICT_ONLY = """
import json, sys

ALLOWED = {*sys.stdlib_module_names, "ttqlib", "lazy_loader", "numpy", "onnxruntime", "tokenizers", *EXTRA}

class Nothing_else:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing_else)
import ttqlib as ttq
print(json.dumps(ttq.Predictor(sys.argv[1]).predict(json.loads(sys.argv[2]))))
"""


def bare(folder: Path, code: str = PREDICT_ONLY) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code.replace("*EXTRA", ""), str(folder), json.dumps(TEXTS)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_predicting_needs_onnxruntime_tokenizers_and_numpy_only(exports):
    folder = exports["intents and slots"][1]
    run = bare(folder)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == ttq.Predictor(folder).predict(TEXTS)


def test_what_is_not_there_is_missed(folder):
    run = bare(folder, PREDICT_ONLY.replace('"tokenizers", ', ""))
    assert run.returncode and "No module named 'tokenizers'" in run.stderr
    run = bare(folder, PREDICT_ONLY.replace("ttq.Predictor", "ttq.export_onnx"))
    assert run.returncode and "No module named 'torch'" in run.stderr


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_graph_that_is_not_the_model_is_not_written(monkeypatch, folder, exports):
    other, before = of_other_weights(folder), contents(folder)
    monkeypatch.setattr(deploy, "_write_graph", lambda model, config, path, _: path.write_bytes(other))
    with refused(RuntimeError, "logits of the graph differ by", "on a batch of shape (1, 1)"):
        ttq.export_onnx(exports["bert"][0], folder, typed())
    assert contents(folder) == before and list(folder.parent.iterdir()) == [folder]


def test_a_stale_or_damaged_export_is_refused(folder):
    (folder / "model.onnx").write_bytes(of_other_weights(folder))
    with refused(ValueError, "model.onnx is not the one that deploy.json was written with", "export again"):
        ttq.Predictor(folder)


def test_another_tokenizer_is_refused(folder):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"boston"', '"Boston"'))
    with refused(ValueError, "tokenizer.json is not the one that deploy.json was written with"):
        ttq.Predictor(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "deploy.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with refused(FileNotFoundError, f"holds no {name}"):
        ttq.Predictor(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda config: "{", "is no JSON"),
        (lambda config: "[]", "is not of format 2"),
        (lambda config: json.dumps({**config, "format": 3}), "is not of format 2"),
        (lambda config: json.dumps({**config, "format": 1}), "is not of format 2"),  # which had fewer fields
        (lambda config: json.dumps({**config, "sha256": {}}), "is not of format 2"),
        (lambda config: json.dumps({key: config[key] for key in config if key != "labels"}), "with the fields"),
    ],
)
def test_a_broken_deploy_json_is_refused(folder, change, says):
    path = folder / "deploy.json"
    path.write_text(change(json.loads(path.read_text())))
    with refused(ValueError, "deploy.json", says):
        ttq.Predictor(folder)


@pytest.mark.parametrize("name", [".export.ttq-old", ".export.old"])
def test_reading_changes_nothing_on_disk(folder, name):
    """Not even after a switch of folders that was interrupted before or after its second rename."""
    aside, before = folder.with_name(name), contents(folder)
    copy_of(folder, aside)
    assert len(ttq.Predictor(folder).predict(TEXTS)) == 3 and contents(aside) == contents(folder) == before
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert len(ttq.Predictor(folder).predict(TEXTS)) == 3
    assert contents(aside) == before and not folder.exists()


IDS = np.array([[2, 7, 9, 3]])
INPUTS = [
    (
        {"input_ids": IDS[:0]},
        ValueError,
        "input_ids must have shape (B, T) with B at least 1 and T from 1 to 16, got (0,",
    ),
    ({"input_ids": IDS[:, :0]}, ValueError, "got (1, 0)"),
    ({"input_ids": np.ones((2, 17), int)}, ValueError, "T from 1 to 16, got (2, 17)"),
    ({"input_ids": IDS[0]}, ValueError, "got (4,)"),
    ({"input_ids": IDS.astype(float)}, TypeError, "input_ids must be whole numbers, got float64"),
    ({"input_ids": IDS + 90}, ValueError, "input_ids must lie in 0 … 96; the smallest here is 92, the largest 99"),
    ({"input_ids": IDS - 3}, ValueError, "the smallest here is -1"),
    (
        {"input_ids": IDS, "attention_mask": np.ones((1, 5), int)},
        ValueError,
        "attention_mask must have the shape of input_",
    ),
    ({"input_ids": IDS, "attention_mask": IDS}, ValueError, "attention_mask must lie in 0 … 1"),
    ({"input_ids": IDS, "attention_mask": IDS > 0}, TypeError, "attention_mask must be whole numbers, got bool"),
    ({"input_ids": IDS, "token_type_ids": IDS}, ValueError, "token_type_ids must lie in 0 … 1"),
]


@pytest.mark.parametrize(("inputs", "error", "says"), INPUTS)
def test_bad_arrays_are_refused(exports, inputs, error, says):
    with refused(error, says):
        ttq.Predictor(exports["bert"][1]).logits(**inputs)


def test_no_text_and_no_list_of_texts_are_refused(exports, folder):
    predictor = ttq.Predictor(exports["bert"][1])
    for texts in ([], "list fares"):
        with refused(ValueError, "texts must be a list of at least one text, got"):
            predictor.predict(texts)
    with refused(ValueError, "batch_size must be a whole number of at least 1, got 0"):
        predictor.predict(TEXTS, batch_size=0)


def test_an_export_without_a_tokenizer_takes_ids_only(monkeypatch, folder, exports):
    graph = (folder / "model.onnx").read_bytes()  # of the same model: nothing has to be traced again
    monkeypatch.setattr(deploy, "_write_graph", lambda model, config, path, _: path.write_bytes(graph))
    ttq.export_onnx(exports["bert"][0], folder)
    predictor = ttq.Predictor(folder)  # the old tokenizer.json still lies there
    assert predictor.logits(IDS)["logits"].shape == (1, 3)
    with refused(ValueError, "this export has no tokenizer"):
        predictor.predict(TEXTS)


TINY = {**SIZES, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GPT2 = {"vocab_size": 97, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
TWO_ENDS = {"vocab_size": 97, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 16}
ENDS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 1}
T5 = {"vocab_size": 97, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def gpt2_classifier(**options) -> GPT2ForSequenceClassification:
    return GPT2ForSequenceClassification(GPT2Config(**GPT2, num_labels=3, **options))


def named(id2label: dict) -> BertForSequenceClassification:
    model = bert()
    model.config.id2label = id2label
    return model


NOT_EXPORTED = "exported are models that read input_ids alone and answer logits"
REFUSED = {  # the model, the tokenizer, other arguments, what is said
    "no model of transformers": (lambda: torch.nn.Linear(2, 2), None, {}, TypeError, "transformers model, got Linear"),
    "no tokenizer": (bert, lambda: "words", {}, TypeError, "fast tokenizer of transformers, got str"),
    "no pad": (
        bert,
        lambda: PreTrainedTokenizerFast(tokenizer_object=pieces().backend_tokenizer),
        {},
        ValueError,
        "the tokenizer has no pad_token",
    ),
    "too long": (bert, None, {"max_length": 17}, ValueError, "must be at most 16, the positions"),
    "too short": (bert, None, {"max_length": 1}, ValueError, "whole number of at least 2, got 1"),
    "too long for RoBERTa": (
        lambda: RobertaForSequenceClassification(RobertaConfig(**TINY, pad_token_id=1)),
        None,
        {"max_length": 15},
        ValueError,
        "max_length must be at most 14, the positions that the model has, got 15",
    ),
    "no head": (lambda: BertModel(bert().config), None, {}, ValueError, "BertModel answers last_hidden_state"),
    "labels without names": (lambda: named({0: "a", 1: "b"}), None, {}, ValueError, "must name 0 … 2, got 0, 1"),
    "labels with other numbers": (lambda: named({1: "a", 2: "b", 3: "c"}), None, {}, ValueError, "got 1, 2, 3"),
    "images": (
        lambda: ViTForImageClassification(ViTConfig(image_size=32, **BERT)),
        None,
        {},
        ValueError,
        f"{NOT_EXPORTED} of labels, of numbers or of a vocabulary; ViTForImageClassification reads pixel_values",
    ),
    "sound": (
        lambda: WhisperForConditionalGeneration(WhisperConfig(**TWO_ENDS, **ENDS, pad_token_id=0)),
        None,
        {},
        ValueError,
        "WhisperForConditionalGeneration reads input_features",
    ),
    "two ends": (
        lambda: T5ForConditionalGeneration(T5Config(**T5)),
        None,
        {},
        ValueError,
        "T5ForConditionalGeneration does not answer to input_ids, attention_mask of shape (1, 2): You must specify",
    ),
    "a decoder that knows no pad": (gpt2_classifier, None, {}, ValueError, "no padding token is defined"),
    "a decoder that knows another pad": (
        lambda: gpt2_classifier(pad_token_id=5),
        words,
        {},
        ValueError,
        "the tokenizer pads with token 0, model.config.pad_token_id is 5: set both to the same",
    ),
    "types without a number": (
        lambda: gpt2_classifier(pad_token_id=0),
        typed,
        {},
        ValueError,
        "take them out of tokenizer.model_input_names",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(case, tmp_path):
    model, tokenizer, options, error, says = REFUSED[case]
    with refused(error, says):
        ttq.export_onnx(model(), tmp_path / "export", tokenizer and tokenizer(), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_traced_is_named(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("Failed.\n\nSee the report.") from ValueError("a size depends\non data")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with refused(
        RuntimeError, "BertForSequenceClassification cannot be traced by torch.onnx.export: a size depends on"
    ):
        ttq.export_onnx(bert(), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


LENGTHS = {  # the model; how many tokens go in
    "BERT": (lambda: BertForSequenceClassification(BertConfig(**TINY)), 16),
    "RoBERTa": (lambda: RobertaForSequenceClassification(RobertaConfig(**TINY, pad_token_id=1)), 14),
    "XLM-R, pad 4": (lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**TINY, pad_token_id=4)), 11),
    "MPNet": (lambda: MPNetForSequenceClassification(MPNetConfig(**TINY, pad_token_id=1)), 14),
    "BLOOM": (lambda: BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=16, n_layer=1, n_head=2)), 512),
    "T5's encoder": (lambda: T5ForTokenClassification(T5Config(**T5)), 512),
    "Llama": (lambda: LlamaForCausalLM(LlamaConfig(**{**TINY, "max_position_embeddings": 10_000})), 512),
    "GPT-2": (lambda: gpt2_classifier(pad_token_id=0), 16),
}


@pytest.mark.parametrize("family", LENGTHS)
def test_as_many_tokens_go_in_as_the_model_takes(family):
    make, length = LENGTHS[family]
    model = deploy._prepared(make())
    assert description.describe(model, None, None)["max_length"] == length
    assert description.describe(model, None, 7)["max_length"] == 7
    tokenizer = words()
    tokenizer.model_max_length = 9
    if model.config.pad_token_id in (None, 0):
        assert description.describe(model, tokenizer, None)["max_length"] == 9


def test_a_graph_that_does_not_run_is_not_written(monkeypatch, folder, exports):
    """Here one whose length is fixed, as the tracer makes of some models without a word."""
    graph = onnx.load(folder / "model.onnx")
    for tensor in graph.graph.input:
        tensor.type.tensor_type.shape.dim[1].dim_value = 7
    before, data = contents(folder), graph.SerializeToString()
    monkeypatch.setattr(deploy, "_write_graph", lambda model, config, path, _: path.write_bytes(data))
    with refused(RuntimeError, "the graph of BertForSequenceClassification does not run on a batch of shape (1, 1)"):
        ttq.export_onnx(exports["bert"][0], folder, typed())
    assert contents(folder) == before


def test_models_that_notice_padding_anyway_are_exported():
    """ConvBERT's convolutions see it: transformers answers no better."""
    sizes = {**TINY, "hidden_size": 32, "embedding_size": 16, "num_attention_heads": 4}
    model = deploy._prepared(ConvBertForSequenceClassification(ConvBertConfig(**sizes, pad_token_id=0)))
    assert description.describe(model, words(), None)["labels"] == {"logits": ["LABEL_0", "LABEL_1", "LABEL_2"]}


def test_the_steps_are_shown(monkeypatch, folder, exports):
    graph, shown = (folder / "model.onnx").read_bytes(), []

    class Bar(progress.tqdm):
        def set_postfix_str(self, s="", refresh=True):
            shown.append((self.n, self.total, s))

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(deploy, "_write_graph", lambda model, config, path, _: path.write_bytes(graph))
    monkeypatch.setattr(deploy, "_quantize", lambda path: None)
    ttq.export_onnx(exports["bert"][0], folder, typed(), int8=True)
    steps = [
        "merging cores",
        "asking the model",
        "tracing the graph",
        "comparing the graph with the model",
        "quantizing",
    ]
    assert [step for *_, step in shown] == steps


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name == "onnxscript" else util.find_spec(name))
    with refused(ModuleNotFoundError, "onnxscript is missing", ".[deploy]"):
        ttq.export_onnx(bert(), tmp_path)
