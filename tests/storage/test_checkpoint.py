"""Finished models on disk: every recipe comes back to the bit, through every door, and a save is never half done."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.utils import logging

import ttqlib as ttq
from tests.cases import refused, seeds
from ttqlib.storage import folders

SIZES = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16}
IDS = torch.tensor([[2, 7, 96, 3, 0], [2, 9, 3, 0, 0]])
QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(autouse=True)
def quiet():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()


def compressed(model=None, **options):
    model = model or bert()
    ttq.compress_(model, ttq.plan(model, **options))
    model.train()
    model(IDS)  # calibrates activations
    return model.eval()


def same_tensors(one, other) -> bool:
    """Whether two modules give the same effective weights: what a forward pass sees."""
    for (name, a), b in zip(one.named_modules(), other.modules(), strict=True):
        for tensor in ("weight", "bias", *(f"core{k}" for k in range(6))):
            x, y = getattr(a, tensor, None), getattr(b, tensor, None)
            if isinstance(x, torch.Tensor) and not torch.equal(x, y):
                raise AssertionError(f"{name}.{tensor} differs")
    return True


PLANS = {
    "cores": {"rank": 4, "bits": 4, "rest": 8},
    "float cores": {"rank": 4},
    "dense, half rest": {"bits": 3, "rest": 16},
    "binary": {"rank": 4, "bits": 1},
    "ternary": {"rank": 4, "quantize": ttq.Ternary(per="channel"), "rest": 8},
    "learnable ternary": {"rank": 4, "quantize": ttq.Ternary(learnable=True), "rest": 8},
    "groups with zero points": {"rank": 4, "quantize": ttq.GroupRTN(3, per=5, symmetric=False), "rest": 16},
    "static activations": {"rank": 4, "bits": 2, "rest": 8, "activations": ttq.StaticActivation(batches=2)},
    "dynamic activations": {"bits": 8, "rest": 8, "activations": ttq.DynamicActivation()},
}


@pytest.mark.parametrize("name", PLANS)
def test_a_transformer_comes_back_to_the_bit_through_every_door(tmp_path, name):
    model = compressed(**PLANS[name])
    logits = model(IDS).logits
    ttq.save(model, tmp_path / "saved")
    model.save_pretrained(tmp_path / "pretrained")
    assert sorted(os.listdir(tmp_path / "saved")) == ["config.json", "model.safetensors"]
    loaded = {
        "load": ttq.load(tmp_path / "saved"),
        "into": ttq.load(tmp_path / "saved", into=bert(seed=1)),
        "class": BertForSequenceClassification.from_pretrained(tmp_path / "saved"),
        "auto": AutoModelForSequenceClassification.from_pretrained(tmp_path / "pretrained"),
    }
    for door, other in loaded.items():
        assert torch.equal(other(IDS).logits, logits), door
        assert same_tensors(model, other) and not other.training
        assert other.ttq_config == model.ttq_config and other.config.num_labels == 3
        assert not torch.equal(bert(seed=1)(IDS).logits, logits)  # the control: other weights, other logits


@pytest.mark.parametrize("name", PLANS)
def test_reported_sizes_are_those_of_the_file(tmp_path, name):
    model = compressed(**PLANS[name])
    ttq.save(model, tmp_path)
    sizes = ttq.stored_sizes(model)
    assert sum(sizes.values()) == os.stat(tmp_path / "model.safetensors").st_size
    with open(tmp_path / "model.safetensors", "rb") as file:
        assert sizes["header"] == 8 + int.from_bytes(file.read(8), "little")


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_in_which_a_plan_names_layers_does_not_matter(tmp_path, backwards):
    """config.json sorts them; here `position_embeddings` comes before `word_embeddings`, as nowhere in the model."""
    model = bert()
    rules = {r"word_emb": ttq.TTM(4), r"position_emb": ttq.LSQ(4, per="channel"), r"query": ttq.TT(4)}
    config = ttq.plan(model, rules=rules, quantize=ttq.LSQ(2), rest=8)
    layers = list(config.layers.items())
    config.layers = dict(reversed(layers) if backwards else layers)
    ttq.save(ttq.compress_(model, config), tmp_path)
    assert same_tensors(model, ttq.load(tmp_path))
    assert sum(ttq.stored_sizes(model).values()) == os.stat(tmp_path / "model.safetensors").st_size


def test_the_file_is_codes_scales_and_rest_and_little_else(tmp_path):
    """By hand, for a model of the size of the experiments."""
    model = BertForSequenceClassification(BertConfig(**{**SIZES, "hidden_size": 256, "vocab_size": 900}))
    config = ttq.plan(model, rank=12, bits=2, rest=8)
    ttq.compress_(model, config, init="random")
    ttq.save(model, tmp_path)
    bits, scales = 0, 0
    for name, module in model.named_modules():
        for tensor, (quantizer,) in getattr(module, "parametrizations", {}).items():
            planned = name in config.layers and tensor != "bias"
            bits += getattr(module, tensor).numel() * (2 if planned else 8)
            scales += quantizer.scale.numel()
    size, header = os.stat(tmp_path / "model.safetensors").st_size, ttq.stored_sizes(model)["header"]
    assert 0 <= size - header - (bits / 8 + 4 * scales) < len(list(model.modules()))  # last bytes, filled up
    assert header <= 0.05 * size + 4096
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert [name for name in file.keys() if name.startswith(QUERY)] == [f"{QUERY}.codes", f"{QUERY}.scales"]  # noqa: SIM118


PERS = st.one_of(st.sampled_from(["tensor", "channel"]), st.integers(1, 9))
RECIPES = st.one_of(
    st.builds(ttq.LSQ, st.integers(2, 8), init=st.sampled_from(["mse", "max", "lsq"]), per=PERS),
    st.builds(ttq.Binary, per=PERS, learnable=st.booleans()),
    st.builds(ttq.Ternary, per=PERS, learnable=st.booleans()),
    st.builds(ttq.GroupRTN, st.integers(2, 8), per=PERS, symmetric=st.booleans()),
)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


def bare(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5, bias=False)).to(dtype)


@given(RECIPES, DTYPES, st.sampled_from([32, 16, 8]), st.floats(-30, 3), st.booleans(), seeds)
@settings(max_examples=40, deadline=None)
def test_every_recipe_comes_back_to_the_bit_and_stays(tmp_path_factory, recipe, dtype, rest, log_scale, cores, seed):
    folder, model = tmp_path_factory.mktemp("any"), bare(seed, dtype)
    with torch.no_grad():
        model[1].weight.mul_(10.0 ** (log_scale if dtype in (torch.float32, torch.float64) else log_scale / 10))
        model[3].weight[0] = 0  # a row of zeros
    third = ttq.LayerPlan(ttq.TT(2), recipe) if cores else recipe
    config = ttq.TTQConfig({"0": ttq.LayerPlan(quantize=recipe), "1": recipe, "3": third}, rest)
    ttq.compress_(model, config)
    with torch.no_grad():  # as training leaves it: latent weights between levels, scales of any sign
        for name, parameter in model.named_parameters():
            parameter.mul_(-1 if name.endswith("scale") else 1.3)
    ttq.save(model, folder / "one")
    loaded = ttq.load(folder / "one", into=bare(seed + 1, dtype))
    assert same_tensors(model, loaded)
    ttq.save(loaded, folder / "two")
    assert same_tensors(model, ttq.load(folder / "two", into=bare(seed + 2, dtype)))


def test_training_goes_on_from_a_finished_model(tmp_path):
    ttq.save(compressed(**PLANS["static activations"]), tmp_path)
    model = ttq.load(tmp_path).train()
    before = copy.deepcopy(model.state_dict())
    loss = model(IDS, labels=torch.tensor([0, 2])).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.endswith("scale") for name in moved) and any(name.endswith("original") for name in moved)
    assert model(IDS, labels=torch.tensor([0, 2])).loss != loss


def test_loading_into_a_module_draws_no_random_numbers_and_keeps_what_is_shared(tmp_path):
    def shared():
        model = bare()
        model.add_module("4", nn.Linear(5, 6, bias=False))
        model.add_module("5", nn.Linear(6, 11, bias=False))
        model[5].weight = model[0].weight
        return model

    model = shared()
    ttq.compress_(model, ttq.TTQConfig({"1": ttq.LSQ(3)}))
    ttq.save(model, tmp_path)
    other = shared()
    state = torch.get_rng_state()
    ttq.load(tmp_path, into=other)
    assert torch.equal(torch.get_rng_state(), state)
    assert other[5].weight is other[0].weight and same_tensors(model, other)
    assert "5.weight" not in load_file(tmp_path / "model.safetensors")


def test_tied_weights_stay_tied(tmp_path):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=12, n_layer=1, n_head=2)).eval()
    ttq.compress_(model, ttq.plan(model, rules={r"attn": ttq.TT(3), r"mlp": ttq.LSQ(4)}))
    ttq.save(model, tmp_path)
    loaded = ttq.load(tmp_path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert torch.equal(loaded(IDS % 50).logits, model(IDS % 50).logits)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with refused(ValueError, "lm_head.weight is no longer tied", "tie_word_embeddings"):
        ttq.save(model, tmp_path)
    model.config.tie_word_embeddings = False
    ttq.save(model, tmp_path)
    assert torch.equal(ttq.load(tmp_path)(IDS % 50).logits, model(IDS % 50).logits)


def test_the_joint_model_is_found_by_its_name(tmp_path):
    config = BertConfig(**SIZES, intents=["a", "b"], slots=["O", "B-x", "I-x"])
    model = ttq.IntentSlotModel(config).eval()
    ttq.compress_(model, ttq.plan(model, **PLANS["cores"]))
    ttq.save(model, tmp_path)
    loaded = ttq.load(tmp_path)
    assert isinstance(loaded, ttq.IntentSlotModel) and loaded.config.slots == ["O", "B-x", "I-x"]
    assert torch.equal(loaded(IDS).slot_logits, model(IDS).slot_logits)
    again = ttq.IntentSlotModel.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).intent_logits, model(IDS).intent_logits)


def test_half_precision_models_come_back_in_their_dtype(tmp_path):
    model = compressed(bert().to(torch.bfloat16), rank=4, bits=4, rest=8)
    ttq.save(model, tmp_path)
    loaded = ttq.load(tmp_path)
    assert loaded.dtype is torch.bfloat16 and torch.equal(loaded(IDS).logits, model(IDS).logits)
    ttq.save(loaded.float(), tmp_path)  # cast, its scales are still float32
    assert torch.equal(ttq.load(tmp_path)(IDS).logits, loaded(IDS).logits)
    ttq.save(compressed(rank=4), tmp_path)  # float cores
    cast = BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert cast.dtype is torch.bfloat16 and torch.equal(cast(IDS).logits, ttq.load(tmp_path).bfloat16()(IDS).logits)


def test_a_model_that_is_compressed_in_two_steps_and_a_copy_of_it(tmp_path):
    model = bert()
    config = ttq.plan(model, **PLANS["cores"])
    ttq.compress_(model, config.without_quantizers())
    ttq.save(model, tmp_path / "float")
    model = copy.deepcopy(ttq.load(tmp_path / "float"))
    ttq.compress_(model, config)
    copied = copy.deepcopy(model)
    ttq.save(copied, tmp_path / "packed")
    assert torch.equal(ttq.load(tmp_path / "packed")(IDS).logits, model(IDS).logits)
    sizes = [os.stat(tmp_path / name / "model.safetensors").st_size for name in ("float", "packed")]
    assert sizes[1] < 0.4 * sizes[0]


# ------------------------------------------------------------------------------------------------------------ refused


def test_what_cannot_be_saved_is_refused_and_the_old_save_stays(tmp_path):
    model = compressed(**PLANS["cores"])
    ttq.save(model, tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    layer = model.get_submodule(QUERY)
    latent, scale = layer.parametrizations.core0.original.data, layer.parametrizations.core0[0].scale.data
    for tensor, says in ((latent, f"a weight of {QUERY}"), (scale, f"{QUERY}.scales")):
        kept = tensor.clone()
        tensor.view(-1)[0] = torch.nan
        for save in (ttq.save, type(model).save_pretrained):
            with refused(ValueError, says, "NaN"):
                save(model, tmp_path / "saved")
        with refused(ValueError, says):
            ttq.stored_sizes(model)
        tensor.copy_(kept)
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    with refused(ValueError, "has no plan"):
        ttq.save(bert(), tmp_path / "new")
    assert os.listdir(tmp_path) == ["saved"]  # and no unfinished folder
    (tmp_path / "file").write_text("")
    with refused(NotADirectoryError, "file is a file"):
        ttq.save(model, tmp_path / "file")


def test_an_activation_quantizer_that_saw_no_data_is_not_saved(tmp_path):
    model = bert()
    ttq.compress_(model, ttq.plan(model, **PLANS["static activations"]))
    with refused(ValueError, "input_quantizer.scale", "not calibrated"):
        ttq.save(model, tmp_path / "new")


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    ttq.save(compressed(**PLANS["cores"]), tmp_path)
    model = compressed(**PLANS["binary"])
    ttq.save(model, tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "{}" and len(list(tmp_path.iterdir())) == 3
    assert torch.equal(ttq.load(tmp_path)(IDS).logits, model(IDS).logits)


def test_a_module_that_does_not_fit_stays_as_it_was(tmp_path):
    model = bare()
    ttq.compress_(model, ttq.TTQConfig({"1": ttq.LSQ(3)}, rest=8))
    ttq.save(model, tmp_path)
    with refused(ValueError, "names None", "give the module to load into"):
        ttq.load(tmp_path)
    others = {
        "which is no layer": nn.Sequential(nn.Embedding(11, 6)),
        "must be U8 of shape": nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5, False)),
        "the file lacks '4.codes', '4.scales'": bare().append(nn.Linear(5, 5)),
        "is quantized already": model,
        "meta device": bare().to("meta"),
    }
    for says, other in others.items():
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with refused(ValueError, says):
            ttq.load(tmp_path, into=other)
        after = other.state_dict()
        assert before.keys() == after.keys()
        assert all(after[name].is_meta or torch.equal(before[name], after[name]) for name in before), says


def test_without_the_plan_transformers_stops_instead_of_making_weights_up(tmp_path):
    ttq.save(compressed(**PLANS["cores"]), tmp_path)
    bert().config.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        BertForSequenceClassification.from_pretrained(tmp_path)
    with refused(ValueError, "quantization_config"):
        ttq.load(tmp_path)


# ------------------------------------------------------------------------------------------------------------- killed


def saved_linear(value: float) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    nn.init.constant_(model[0].weight, value)
    return ttq.compress_(model, ttq.TTQConfig({"0": ttq.Binary()}))


def loaded_value(folder: Path) -> float:
    (value,) = ttq.load(folder, into=nn.Sequential(nn.Linear(4, 4, bias=False)))[0].weight.unique().tolist()
    return value


def die_in_step(number: int, folder: Path) -> int:
    """A process of its own that saves and dies just before the audited call of that number; how it ended."""
    process = os.fork()
    if not process:
        try:
            steps = [0]

            def count(event: str, _) -> None:
                if event == "open" or event.startswith(("os.", "shutil.", "ctypes.")):
                    steps[0] += 1
                    if steps[0] == number:
                        os._exit(9)

            sys.addaudithook(count)
            ttq.save(saved_linear(2.0), folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("exchange", [True, False])
def test_a_process_that_dies_at_any_step_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    found = []
    for number in range(1, 200):
        folder = tmp_path / str(number) / "model"
        ttq.save(saved_linear(1.0), folder)
        (folder / "notes.txt").write_text("mine")
        status = die_in_step(number, folder)
        if exchange:
            assert folder.is_dir()  # also for who looks without recovering
        found.append(loaded_value(folder))
        assert (folders.current(folder) / "notes.txt").read_text() == "mine"
        ttq.save(saved_linear(3.0), folder)  # and the next save succeeds
        assert loaded_value(folder) == 3.0
        if status == 0:
            break
    assert found == sorted(found) and set(found) == {1.0, 2.0} and len(found) > 8


def test_a_save_that_is_killed_leaves_a_whole_folder(tmp_path):
    code = (
        "import sys, torch, ttqlib as ttq\nfrom tests.storage.test_checkpoint import saved_linear\n"
        "models = [saved_linear(1.0), saved_linear(2.0)]\n"
        "ttq.save(models[0], sys.argv[1])\nprint('ready', flush=True)\n"
        "while True:\n    for model in models:\n        ttq.save(model, sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "model"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert loaded_value(tmp_path / "model") in (1.0, 2.0)


def test_config_json_of_a_bare_module_holds_the_plan(tmp_path):
    model = saved_linear(1.0)
    ttq.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert list(config) == ["quantization_config"]
    assert config["quantization_config"].items() >= {**model.ttq_config.to_dict(), "quant_method": "ttq"}.items()
