"""Models that stay packed in memory: the answers of the ordinary load, to the bit, in the bytes of the file."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.cases import Scaled, refused, seeds
from tests.storage.test_save_load import IDS, LOADED, bert, compressed, inputs_of, logits, then
from ttqlib.inventory.layout import PLAIN, Layout
from ttqlib.storage.packed import PackedWeight

PER = st.sampled_from(["tensor", "channel", 1, 3, 5, 100])
RECIPES = st.one_of(
    st.builds(ttq.LSQ, st.integers(2, 8), per=PER),
    st.builds(ttq.Binary, per=PER, learnable=st.booleans()),
    st.builds(ttq.Ternary, per=PER, learnable=st.booleans()),
    st.builds(ttq.GroupRTN, st.integers(2, 8), per=PER, symmetric=st.booleans()),
)
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3)
LAYOUTS = st.sampled_from([Layout(), Layout(columns=True), Layout(experts=True), Layout(True, True)])
WORDS = {".*": ttq.LayerPlan(None, ttq.Binary(per="channel"))}


def held_packed(recipe, weight: torch.Tensor, layout: Layout = PLAIN) -> tuple[PackedWeight, torch.Tensor]:
    """A weight that is packed, and what it must be when it is read."""
    quantizer = recipe.build(weight, layout)
    codes, scales = quantizer.codes(weight), quantizer.scales(weight)
    held = {name: getattr(quantizer, name).detach() for name in quantizer.held} or scales
    return PackedWeight(quantizer, weight, codes, held), quantizer.decode(codes, scales)


@given(RECIPES, SHAPES, LAYOUTS, seeds)
def test_every_recipe_gives_what_the_ordinary_decoding_gives(recipe, shape, layout, seed):
    layout = layout if len(shape) == 2 + layout.experts else Layout()
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    packed, expected = held_packed(recipe, weight, layout)
    assert torch.equal(packed(), expected) and packed().is_contiguous()
    assert torch.equal(packed.codes(), recipe.build(weight, layout).codes(weight))


@given(RECIPES, st.integers(1, 12), st.integers(1, 20), st.lists(st.integers(0, 11), max_size=6), seeds)
def test_rows_of_a_table_are_those_of_the_whole_table(recipe, count, width, ids, seed):
    weight = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    packed, expected = held_packed(recipe, weight)
    ids = torch.tensor([one % count for one in ids], dtype=torch.long)
    assert torch.equal(packed.rows(ids), expected[ids])


@pytest.mark.parametrize(("bits", "each"), [(1, 8), (2, 4), (3, 2), (4, 2), (5, 1), (8, 1)])
def test_the_codes_of_a_row_fill_whole_bytes(bits, each):
    recipe = ttq.LSQ(bits, per="channel") if bits > 1 else ttq.Binary(per="channel")
    packed, _ = held_packed(recipe, torch.randn(6, 17))
    assert packed.bytes.shape == (6, -(-17 // each)) and packed.bytes.dtype == torch.uint8


# ------------------------------------------------------------------------------------------------------ whole models


STATES = [
    "cores",
    "half rest",
    "frozen before",
    "bf16",
    "tied",
    "tied, float rest",
    "tied with a bias",
    "an inner model",
]
STATES += ["untied by its config, 8 bits", "numbers of NumPy", "cores that are rest, weights that are float", "columns"]
STATES += [
    "positions that were changed",
    "a parameter of the whole",
    "parameters out of nowhere",
    "hub: experts in 8 bits",
]


@pytest.mark.parametrize("name", STATES)
def test_whatever_was_saved_answers_the_same_and_is_saved_as_the_same_bytes(tmp_path, name):
    model = LOADED[name](tmp_path / "hub")
    ttq.save(model, tmp_path / "saved")
    packed = ttq.load(tmp_path / "saved", packed=True)
    assert torch.equal(logits(packed, inputs_of(model)), logits(model, inputs_of(model)))
    ttq.save(packed, tmp_path / "again")
    once, again = (tmp_path / place for place in ("saved", "again"))
    assert (once / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    plans = [json.loads((place / "config.json").read_text())["quantization_config"] for place in (once, again)]
    assert plans[0] == plans[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tied masked language model, every matrix in one bit by rows, the rest in eight."""
    folder = tmp_path_factory.mktemp("packed") / "words"
    ttq.save(compressed(bert(BertForMaskedLM), rules=WORDS), folder)
    return folder


@pytest.fixture
def packed(folder):
    return ttq.load(folder, packed=True)


def test_tied_words_are_packed_once_and_report_and_fuse_work(folder, packed):
    ordinary = ttq.load(folder)
    assert str(ttq.report(packed)) == str(ttq.report(ordinary))
    places = [module for module in packed.modules() if isinstance(module, PackedWeight) and 16 in module.shape[:1]]
    assert [module.shape for module in places if len(module.shape) == 2] == [(16, 8)]
    expected = logits(packed, {"input_ids": IDS})
    for model in (ttq.fuse_(copy.deepcopy(packed)), packed):
        assert torch.equal(logits(model, {"input_ids": IDS}), expected)
    assert not any(isinstance(module, PackedWeight) for module in ttq.fuse_(packed).modules())


def test_from_pretrained_packs_where_its_config_says_so(folder, packed):
    config = AutoConfig.from_pretrained(folder)
    config.quantization_config["packed"] = True
    model = BertForMaskedLM.from_pretrained(folder, config=config)
    assert any(isinstance(module, PackedWeight) for module in model.modules())
    assert torch.equal(logits(model, {"input_ids": IDS}), logits(packed, {"input_ids": IDS}))
    assert not any(isinstance(part, PackedWeight) for part in BertForMaskedLM.from_pretrained(folder).modules())


def test_its_tensors_take_little_more_than_the_file_and_few_more_while_it_answers(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 3000, "hidden_size": 96, "num_attention_heads": 2, "intermediate_size": 384}
    model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=2))
    dense = ttq.parameter_bytes(model)
    ttq.save(compressed(model, rules=WORDS), tmp_path)
    packed = ttq.load(tmp_path, packed=True)
    held = sum(tensor.nbytes for tensor in (*packed.parameters(), *packed.buffers()))
    stored = (tmp_path / "model.safetensors").stat().st_size
    assert held < 1.1 * stored + 8 * 512  # positions and types are ids of 8 bytes, which files leave out
    grown = ttq.peak_bytes(lambda: logits(packed, {"input_ids": torch.arange(8)[None]}))
    assert grown < 3 * 384 * 96 * 4 and held + grown < 0.3 * dense  # one matrix at a time, and no table


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor in floating point has that is made in memory."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point() and not result.is_meta:
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("own", [False, True])
def test_no_memory_is_made_for_weights_that_stay_packed(tmp_path, own):
    sizes = {"vocab_size": 3000, "hidden_size": 96, "num_attention_heads": 2, "intermediate_size": 384}
    model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=2))
    into = copy.deepcopy(model) if own else None
    ttq.save(compressed(model, rules=WORDS), tmp_path)
    with Largest() as ordinary:
        ttq.load(tmp_path, copy.deepcopy(into))
    with Largest() as packed:
        ttq.load(tmp_path, into, packed=True)
    assert packed.numbers <= 3000 < 3000 * 96 == ordinary.numbers  # a scale for each row is the most


def test_a_module_of_ones_own_is_filled_in_place(tmp_path):
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Scaled(20, 12, 3, 0.7), nn.LayerNorm(12), nn.Linear(12, 7), Conv1D(5, 7)).eval()

    model = build()
    rules = {"0": ttq.GroupRTN(3, per=5, symmetric=False), "2": ttq.TT(3), ".*": ttq.Ternary(per="channel")}
    ttq.compress_(model, ttq.plan(model, rules=rules, rest=8))
    ttq.save(model, tmp_path)
    into = build()
    packed = ttq.load(tmp_path, into, packed=True)
    ids = torch.tensor([[3, 19, 3], [0, 7, 1]])
    with torch.no_grad():
        assert packed is into and torch.equal(packed(ids), model(ids))
        assert packed(ids[:, :0]).shape == (2, 0, 5)


def test_gradients_of_inputs_are_those_of_the_ordinary_load(folder, packed):
    """The weights of all layers are needed on the way back: none may lie where the next one was made."""
    words = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

    def gradient(model: nn.Module) -> torch.Tensor:
        inputs = words.clone().requires_grad_()
        model.requires_grad_(False)(inputs_embeds=inputs).logits.square().sum().backward()
        return inputs.grad

    assert torch.equal(gradient(packed), gradient(ttq.load(folder)))


def test_weights_that_are_read_by_hand_stay_as_they_are(packed):
    layers = [module for module in packed.bert.encoder.modules() if isinstance(module, nn.Linear)]
    read = [layer.weight for layer in layers]
    before = [weight.clone() for weight in read]
    logits(packed, {"input_ids": IDS})
    assert len(layers) > 1 and all(map(torch.equal, before, read))


def test_threads_answer_at_once(packed):
    inputs = [{"input_ids": torch.randint(16, (200, 6), generator=torch.Generator().manual_seed(k))} for k in range(40)]
    expected = [logits(packed, one) for one in inputs]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda one: logits(packed, one), inputs))
    assert all(map(torch.equal, expected, answers))


def test_a_thread_that_began_in_inference_mode_goes_on_without_it(packed):
    inputs = {"input_ids": IDS}

    def both() -> list[torch.Tensor]:
        with torch.inference_mode():
            first = packed(**inputs).logits.clone()
        return [first, logits(packed, inputs)]

    with ThreadPoolExecutor(1) as thread:
        answers = thread.submit(both).result()
    assert all(torch.equal(answer, logits(packed, inputs)) for answer in answers)


def test_copies_casts_and_state_dicts_are_those_of_any_module(folder, packed):
    inputs, expected = {"input_ids": IDS}, logits(packed, {"input_ids": IDS})
    twin = copy.deepcopy(packed)
    assert torch.equal(logits(twin, inputs), expected)
    state = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    assert sum(tensor.nbytes for tensor in state.values()) < 0.5 * ttq.parameter_bytes(ttq.load(folder))
    for module in twin.modules():
        if isinstance(module, PackedWeight):
            module.bytes.zero_()
    assert not torch.equal(logits(twin, inputs), expected)
    twin.load_state_dict(state)
    assert torch.equal(logits(twin, inputs), expected)
    assert torch.equal(logits(twin.to("cpu"), inputs), expected)
    half, ordinary = twin.bfloat16(), ttq.load(folder).bfloat16()
    assert half.dtype == torch.bfloat16 and torch.equal(logits(half, inputs), logits(ordinary, inputs))
    twin.eval().train(False)


# --------------------------------------------------------------------------------------------------------- refusals


def test_it_does_not_train_and_says_so_before_anything_changes(packed):
    expected = logits(packed, {"input_ids": IDS})
    with refused(ValueError, "BertForMaskedLM cannot train", "load it without packed=True"):
        packed.train()
    assert not any(module.training for module in packed.modules())
    with refused(ValueError, "cannot train"):
        packed.bert.train()
    with refused(ValueError, "cannot be set", "packed=True"):
        packed.cls.predictions.decoder.weight = torch.ones(16, 8)
    with refused(ValueError, "is quantized already"):
        ttq.compress_(packed, ttq.plan(packed, rank=2))
    assert not any(parameter.requires_grad for parameter in packed.parameters())
    packed.requires_grad_(True)
    with refused(ValueError, "cannot train"):
        packed(input_ids=IDS)
    assert torch.equal(logits(packed, {"input_ids": IDS}), expected)  # without gradients it answers


def test_a_word_outside_the_table_is_refused_as_ever(packed):
    for word in (16, -1):
        with pytest.raises(IndexError):
            logits(packed, {"input_ids": torch.tensor([[2, word]])})


def test_a_broken_file_changes_nothing_in_a_module_to_be_filled(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4))
    ttq.save(then(model, lambda one: ttq.compress_(one, ttq.plan(one, rules=WORDS))), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    into = nn.Sequential(nn.Linear(6, 4))
    before = into[0].weight.clone()
    with refused(ValueError, "digest"):
        ttq.load(tmp_path, into, packed=True)
    assert torch.equal(into[0].weight, before) and isinstance(into[0].weight, nn.Parameter)
