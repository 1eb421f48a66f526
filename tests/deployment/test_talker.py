"""`export_talker` and `Talker`: a Llama goes on with a text outside PyTorch, in its own codes, as it does inside."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import ttqlib as ttq
from ttqlib.deployment import decoder
from ttqlib.deployment.few_bits import blocks_of

pytest.importorskip("onnxruntime", reason="onnxruntime is of the extra deploy")
WORDS = ["the", "a", "tree", "runs", "over", "one", "is", "long", "and", "green"]
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


def llama(bits: int | None = None, symmetric: bool = False, **changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    told = {**SIZES, "vocab_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 64, "eos_token_id": 3}
    model = LlamaForCausalLM(LlamaConfig(**{**told, "tie_word_embeddings": True, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1).add_(0.1 * torch.randn(parameter.shape))
    if bits is not None:
        recipe = ttq.GroupRTN(bits, per=32, symmetric=symmetric)
        ttq.compress_(model, ttq.plan(model, rules={"": recipe}))
    return model.eval()


def alone(model: LlamaForCausalLM, ids: list[int], count: int) -> list[int]:
    """What the model goes on with, by reading everything again for each token."""
    read = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(count):
            read = torch.cat([read, model(read, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return read[0, len(ids) :].tolist()


@pytest.mark.parametrize(
    ("bits", "changes"),
    [
        (None, {}),
        (4, {}),
        (4, {"tie_word_embeddings": False}),
        (4, {"attention_bias": True, "mlp_bias": True}),
        (2, {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        (3, {"symmetric": True, "head_dim": 32}),
        (8, {"intermediate_size": 80}),  # the last block of a row is half one
    ],
)
def test_the_graph_answers_as_the_model_and_goes_on_as_it_does(tmp_path, bits, changes):
    model, ids = llama(bits, **changes), [5, 17, 80, 3, 0, 42, 42]
    ttq.export_talker(model, tmp_path / "out", int8_inputs=False)
    talker = ttq.Talker(tmp_path / "out", threads=1)
    expected = model(torch.tensor([ids])).logits[0].detach().numpy()
    assert np.abs(talker.logits(ids) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert list(islice(talker.tokens(ids), 24)) == alone(model, ids, 24)
    assert len(list(talker.tokens(ids))) == 64 - len(ids) == len(list(talker.tokens(ids, most=99)))
    assert list(talker.tokens(ids, most=3)) == alone(model, ids, 3)


def test_few_bits_are_written_in_few_bits(tmp_path):
    sizes = {}
    for bits in (None, 8, 4, 2):
        ttq.export_talker(llama(bits), tmp_path / f"{bits}")
        sizes[bits] = (tmp_path / f"{bits}" / "model.onnx").stat().st_size
    weights = sum(one.numel() for one in llama().parameters() if one.ndim > 1)
    assert sizes[8] - sizes[4] == pytest.approx(weights * (4 / 8 + 4 / 8 / 32), rel=0.02)
    assert sizes[4] - sizes[2] == pytest.approx(weights * (2 / 8 + 2 / 8 / 32), rel=0.04)  # zero points fill bytes
    twice = 4 * 96 * 64  # a float table, for the head is a turned one
    assert sizes[None] - sizes[8] == pytest.approx(weights * (3 - 5 / 32) + twice, rel=0.02)


def test_inputs_rounded_to_8_bits_move_logits_a_little(tmp_path):
    model, ids = llama(4), list(range(30))
    ttq.export_talker(model, tmp_path / "out")
    expected = model(torch.tensor([ids])).logits[0].detach().numpy()
    error = np.abs(ttq.Talker(tmp_path / "out").logits(ids) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1


def test_the_model_stays_as_it_is(tmp_path):
    model = llama(4).train()
    model.lm_head.eval()  # one part in another mode
    modes = [part.training for part in model.modules()]
    before = {name: one.clone() for name, one in model.state_dict().items()}
    ttq.export_talker(model, tmp_path / "out")
    assert modes == [part.training for part in model.modules()]
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def test_it_says_text_and_stops_at_an_end(tmp_path):
    tokenizer = ttq.word_tokenizer([WORDS])
    model = llama(4, vocab_size=len(tokenizer))
    ids = tokenizer("the tree", add_special_tokens=True)["input_ids"]
    follow = alone(model, ids, 8)
    model.generation_config.eos_token_id = 10**6
    ttq.export_talker(model, tmp_path / "out", tokenizer)
    talker = ttq.Talker(tmp_path / "out")
    exact = list(islice(talker.tokens(ids), 8))
    assert talker.say("the tree", most=8) == tokenizer.decode(exact, skip_special_tokens=True) and len(follow) == 8
    talker.ends = frozenset({exact[2]})
    stop = exact.index(exact[2])
    assert talker.say("the tree", most=8) == tokenizer.decode(exact[:stop], skip_special_tokens=True)


def test_texts_do_not_see_each_other(tmp_path):
    ttq.export_talker(llama(4), tmp_path / "out")
    talker = ttq.Talker(tmp_path / "out")
    one, other = talker.tokens([5, 6, 7]), talker.tokens([50, 51])
    mixed = [(next(one), next(other)) for _ in range(12)]
    assert [a for a, _ in mixed] == list(islice(talker.tokens([5, 6, 7]), 12))
    assert [b for _, b in mixed] == list(islice(talker.tokens([50, 51]), 12))


def test_it_needs_no_torch(tmp_path):
    ttq.export_talker(llama(4), tmp_path / "out")
    code = (
        "import sys; import talkers; from pathlib import Path\n"
        f"print(next(iter(talkers.Ours(Path({str(tmp_path / 'out')!r}), 1).tokens([1, 2]))), 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(ttq.__file__).parents[1] / "experiments"
    )
    assert run.stdout.split() == [str(next(ttq.Talker(tmp_path / "out").tokens([1, 2]))), "False"], run.stderr


# ------------------------------------------------------------------------------------------------------------- blocks


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(2, 8),
    size=st.sampled_from([16, 32]),
    columns=st.integers(1, 80),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_stand_for_what_the_layer_sees(bits, size, columns, symmetric, seed):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(columns, rows, bias=False) for rows in (3, 2)]
    for layer in layers:
        ttq.fake_quantize_(layer, ttq.GroupRTN(bits, per=size, symmetric=symmetric))
    blocks = blocks_of(layers)
    shifts = np.arange(0, 8, blocks.bits)
    codes, zeros = (
        ((part[..., None] >> shifts) & (2**blocks.bits - 1)).reshape(*part.shape[:-1], -1).astype(np.float32)
        for part in (blocks.codes, blocks.zero_points)
    )
    levels = codes - zeros[:, : blocks.scales.shape[1], None]
    weight = (levels * blocks.scales[..., None]).reshape(5, -1)[:, :columns]
    assert np.array_equal(weight, torch.cat([layer.weight for layer in layers]).detach().numpy())


def test_grids_that_the_kernel_has_not_stay_in_float():
    def one(recipe: ttq.WeightRecipe | None) -> torch.nn.Linear:
        layer = torch.nn.Linear(64, 4)
        return layer if recipe is None else ttq.fake_quantize_(layer, recipe)

    good = ttq.GroupRTN(4, per=32)
    for other in (None, ttq.GroupRTN(4, per="channel"), ttq.GroupRTN(4, per=48), ttq.LSQ(4, per=32)):
        assert blocks_of([one(other)]) is None and blocks_of([one(good), one(other)]) is None
    assert blocks_of([one(good), one(ttq.GroupRTN(8, per=32))]) is None
    assert blocks_of([one(good), one(ttq.GroupRTN(3, per=32))]).bits == 4


# ------------------------------------------------------------------------------------------------------------ refusals


def test_other_models_are_refused(tmp_path):
    other = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(TypeError, match="must be a LlamaForCausalLM, got GPT2LMHeadModel"):
        ttq.export_talker(other, tmp_path / "out")
    with pytest.raises(TypeError, match="fast tokenizer"):
        ttq.export_talker(llama(), tmp_path / "out", "words")
    with pytest.raises(ValueError, match="at most 64, the positions"):
        ttq.export_talker(llama(), tmp_path / "out", max_length=65)
    with pytest.raises(ValueError, match="silu"):
        ttq.export_talker(llama(hidden_act="gelu"), tmp_path / "out")
    trains = llama()
    ttq.compress_(trains, ttq.plan(trains, rules={"q_proj": ttq.TT(rank=4)}))
    with pytest.raises(ValueError, match="plain linear layers, this model has a TTLinear"):
        ttq.export_talker(trains, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    def wrong(layers):
        found = blocks_of(layers)
        found.scales[0] *= 3
        return found

    monkeypatch.setattr(decoder, "blocks_of", wrong)
    with pytest.raises(RuntimeError, match="differ by"):
        ttq.export_talker(llama(4), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("talker") / "out"
    ttq.export_talker(llama(4), made, max_length=8)
    return made


@pytest.mark.parametrize(
    ("ids", "error", "problem"),
    [
        ([], ValueError, "1 … 8 tokens"),
        ([[1]], ValueError, "1 … 8 tokens"),
        (range(9), ValueError, "1 … 8 tokens"),
        ([1.5], TypeError, "whole numbers"),
        ([96], ValueError, "0 … 95"),
        ([-1], ValueError, "0 … 95"),
    ],
)
def test_ids_that_make_no_sense_are_refused_at_once(folder, ids, error, problem):
    talker = ttq.Talker(folder)
    for ask in (talker.logits, talker.tokens):
        with pytest.raises(error, match=problem):
            ask(ids)
    with pytest.raises(ValueError, match="no tokenizer"):
        talker.say("a tree")


def test_broken_folders_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no talk\.json"):
        ttq.Talker(tmp_path)
    (tmp_path / "talk.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        ttq.Talker(tmp_path)
    told = json.loads((folder / "talk.json").read_text())
    (tmp_path / "talk.json").write_text(json.dumps({**told, "format": 9}))
    with pytest.raises(ValueError, match="not of format 1"):
        ttq.Talker(tmp_path)
    (tmp_path / "talk.json").write_text(json.dumps(told))
    with pytest.raises(FileNotFoundError, match=r"no model\.onnx"):
        ttq.Talker(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises(ValueError, match="not the one that"):
        ttq.Talker(tmp_path)
