"""Layer reduction: whole models of some of the layers of a given one, in every family with a stack of layers."""

import copy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import ttqlib as ttq
from tests.cases import refused
from tests.families import FAMILIES, GROUPED, SIZES, Family, classes, words
from ttqlib.inventory.stacks import one_stack, stack_of
from ttqlib.surgery.reduce import PLAIN
from ttqlib.training.layer_worth import skipped
from ttqlib.training.matching import MatchLayer
from ttqlib.training.observation import observe, recorded_attention
from ttqlib.training.pairing import stages_of

DEPTH = 3
NO_STACK = {
    "AlbertFor": "its layers share their weights",
    "CLIPModel": "there are several stacks",
    "SiglipModel": "there are several stacks",
    "SwinFor": "not its config's to say",
}


def deep(family: Family, **sizes) -> Family:
    """The family with three layers."""
    depth = {name: DEPTH for name in ("num_hidden_layers", "n_layers", "n_layer") if name in family.sizes}
    return replace(family, sizes=family.sizes | depth | sizes)


@cache
def built(name: str) -> PreTrainedModel:
    return deep(FAMILIES[name]).build()


def refusal(family: Family) -> str | None:
    if "Seq2Seq" in family.kind or getattr(family.config(), "is_encoder_decoder", False):
        return "is an encoder-decoder, which has two"
    return next((why for kind, why in NO_STACK.items() if family.kind.startswith(kind)), None)


STACKED = [name for name, family in FAMILIES.items() if refusal(family) is None]
OTHERS = [name for name in FAMILIES if name not in STACKED]


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def reread(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model that another program finds on disk."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, attn_implementation=model.config._attn_implementation).eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def addresses(model: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()}


# ------------------------------------------------------------------------------------------------------ all families


@pytest.mark.parametrize("name", STACKED)
def test_a_model_of_some_layers_answers_as_the_whole_one_without_the_others(name, tmp_path):
    model, keep = built(name), [0, 2]
    inputs = deep(FAMILIES[name]).inputs()
    before, config = state(model), model.config.to_dict()
    student = ttq.reduce_layers(model, keep)
    assert model.config.to_dict() == config and all(map(torch.equal, state(model).values(), before.values()))
    with skipped(model, [1]):
        expected = logits(model, inputs)
    assert torch.equal(logits(student, inputs), expected)
    assert not torch.allclose(logits(model, inputs), expected, rtol=1e-3, atol=1e-3)
    assert student.config.num_hidden_layers == len(one_stack(student)[0]) == 2
    assert addresses(student).isdisjoint(addresses(model))
    assert len(ttq.layer_map(keep)) == len(student(**inputs, output_hidden_states=True).hidden_states)
    again = reread(student, tmp_path)
    assert torch.equal(logits(again, inputs), logits(student, inputs))
    assert same_attributes(again, student) == []


def same_attributes(one: nn.Module, other: nn.Module) -> list[str]:
    """What a model that was read has in its modules otherwise than the one that was written."""
    ours, theirs = (
        {
            f"{name}.{own}": list(value) if isinstance(value, tuple) else value
            for name, module in model.named_modules()
            for own, value in vars(module).items()
            if not own.startswith("_") and own != "name_or_path" and isinstance(value, PLAIN)
        }
        for model in (one, other)
    )
    return [name for name in ours if ours[name] != theirs.get(name)]


@pytest.mark.parametrize("name", [name for name in STACKED if FAMILIES[name].generates])
def test_a_decoder_of_some_layers_goes_on_with_its_cache_as_without(name):
    student, inputs = ttq.reduce_layers(built(name), [1, 2]), deep(FAMILIES[name]).inputs()
    given = {key: inputs[key][:1] for key in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with_cache, without = (student.generate(**given, **options, use_cache=use) for use in (True, False))
    assert with_cache.shape == (1, given["input_ids"].shape[1] + 6)
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_are_no_single_stack_are_refused(name):
    family = FAMILIES[name]
    model = family.build()
    before = state(model)
    with refused(ValueError, refusal(family)):
        ttq.reduce_layers(model, [0])
    assert all(map(torch.equal, state(model).values(), before.values()))


@pytest.mark.parametrize("name", STACKED)
def test_a_compressed_model_keeps_the_trains_of_its_layers(name, tmp_path):
    model, inputs = copy.deepcopy(built(name)), deep(FAMILIES[name]).inputs()
    ttq.compress_(model, ttq.plan(model, rank=4, bits=4, rest=8))
    student = ttq.reduce_layers(model, [0, 2])
    with skipped(model, [1]):
        assert torch.equal(logits(student, inputs), logits(model, inputs))
    ttq.save(student, tmp_path)
    assert torch.equal(logits(ttq.load(tmp_path), inputs), logits(student, inputs))


# ---------------------------------------------------------------------------------- what goes with a layer


def small(kind: str, depth: int = 6, **sizes) -> PreTrainedModel:
    return Family(kind, {**GROUPED, "num_hidden_layers": depth, **sizes}, words).build()


def test_kinds_of_attention_go_with_their_layers():
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = small("Qwen2ForCausalLM", 4, layer_types=kinds, use_sliding_window=True, sliding_window=2)
    student = ttq.reduce_layers(model, [1, 2, 3])
    assert student.config.layer_types == kinds[1:] and model.config.layer_types == kinds
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1, 2]
    assert [layer.self_attn.sliding_window for layer in student.model.layers] == [2, None, 2]
    assert model.model.layers[3].self_attn.layer_idx == 3


@pytest.mark.parametrize(("keep", "first"), [([0, 1, 4], 2), ([0, 4, 5], 1), ([4, 5], 0), ([0, 1], 2)])
def test_a_place_from_which_windows_begin_is_counted_anew(keep, first):
    model = small("Qwen2ForCausalLM", use_sliding_window=True, sliding_window=2, max_window_layers=3)
    student = ttq.reduce_layers(model, keep)
    assert student.config.max_window_layers == first
    assert student.config.layer_types == [model.config.layer_types[place] for place in keep]


def test_a_default_that_is_above_all_layers_stays():
    assert ttq.reduce_layers(small("Qwen2ForCausalLM"), [0, 5]).config.max_window_layers == 28


def test_layers_without_experts_stay_so(tmp_path):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
    model = small("Qwen3MoeForCausalLM", 4, **experts, head_dim=8, mlp_only_layers=[0, 2])
    student = ttq.reduce_layers(model, [1, 2, 3])
    assert student.config.mlp_only_layers == [1]
    assert torch.equal(logits(reread(student, tmp_path), words()), logits(student, words()))


def test_dropped_paths_are_as_the_class_has_them_in_a_model_of_that_depth():
    family = FAMILIES["BeitForImageClassification"]
    model = replace(family, sizes={**family.sizes, "num_hidden_layers": 3, "drop_path_rate": 0.4}).build()
    student = ttq.reduce_layers(model, [1, 2])
    rates = [{getattr(part, "drop_prob", 0.0) for part in layer.modules()} for layer in one_stack(student)[0]]
    assert [max(rate) for rate in rates] == pytest.approx([0.0, 0.4])
    assert not any(part.training for part in student.modules())
    student.train()(**family.inputs()).loss.backward()


def test_mode_dtype_what_is_frozen_and_what_is_tied_stay():
    model = small("LlamaForCausalLM", tie_word_embeddings=True).to(torch.float64).train()
    model.model.layers[5].requires_grad_(False)
    student = ttq.reduce_layers(model, [2, 5])
    assert all(part.training for part in student.modules())
    assert student.lm_head.weight is student.model.embed_tokens.weight is not model.lm_head.weight
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float64}
    frozen = [all(not p.requires_grad for p in layer.parameters()) for layer in student.model.layers]
    assert frozen == [False, True]
    assert torch.equal(student.model.layers[1].mlp.up_proj.weight, model.model.layers[5].mlp.up_proj.weight)


def test_a_model_may_keep_all_its_layers_and_training_it_leaves_the_other_alone():
    model = small("LlamaForCausalLM", 2)
    before, student = state(model), ttq.reduce_layers(model, range(2))
    assert torch.equal(logits(student, words()), logits(model, words()))
    student(**words()).loss.backward()
    torch.optim.SGD(student.parameters(), 1.0).step()
    assert all(map(torch.equal, state(model).values(), before.values()))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_was_read_is_reduced_and_read_again(tmp_path):
    model = small("LlamaForCausalLM", 3)
    ttq.save(ttq.compress_(model, ttq.plan(model, bits=4, rest=16)), tmp_path / "whole")
    whole = ttq.load(tmp_path / "whole")
    student = ttq.reduce_layers(whole, [0, 2])
    student.save_pretrained(tmp_path / "less")
    again = type(model).from_pretrained(tmp_path / "less")
    assert torch.equal(logits(again, words()), logits(student, words()))
    assert {name.split(".")[2] for name in again.ttq_config.layers if "layers" in name} == {"0", "1"}


def test_the_plan_of_a_compressed_part_is_renamed():
    model = small("LlamaForCausalLM", 3)
    plan = ttq.plan(model.model, rules={r"layers\.[02]\.mlp": ttq.TT(3)})
    ttq.compress_(model.model, plan)
    student = ttq.reduce_layers(model, [1, 2])
    assert {name.split(".")[1] for name in student.model.ttq_config.layers} == {"1"}
    assert isinstance(student.get_submodule("model.layers.1.mlp.up_proj"), ttq.TTLinear)
    kept = [name for name in student.model.ttq_config.unmatched if name.startswith("layers.0.mlp")]
    assert len(kept) == 3


def test_convolutions_before_the_layers_are_not_taken_for_them():
    model = FAMILIES["Wav2Vec2ForCTC"].build()  # has two of them, and two layers
    assert stack_of(model)[0] is model.wav2vec2.encoder.layers


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("keep", "words_of_it"),
    [
        ([], ["keep is empty", "keep=[1, 3, 5]"]),
        ([0, 3], ["there is no layer 3", "0 … 2", "keep=[0, 3]"]),
        ([-1], ["each place in keep must be a whole number of at least 0, got -1"]),
        ([1, 1, 2], ["layer 1 cannot be kept twice"]),
        ([2, 0], ["keep their order", "write [0, 2]"]),
        ([0.0, 1], ["must be a whole number of at least 0, got 0.0"]),
        ([True, 2], ["must be a whole number of at least 0, got True"]),
        ("01", ["keep must be a list of places", "'01'"]),
        (2, ["keep must be a list of places", "got 2"]),
    ],
)
def test_places_that_no_layers_can_be_kept_at_are_refused(keep, words_of_it):
    with refused(ValueError, *words_of_it):
        ttq.reduce_layers(built("BertForSequenceClassification"), keep)


def test_a_module_without_a_config_is_refused():
    with refused(ValueError, "in a model of transformers, got a Sequential"):
        ttq.reduce_layers(nn.Sequential(nn.Linear(2, 2)), [0])


def test_layers_that_the_class_makes_otherwise_elsewhere_are_refused():
    with refused(ValueError, "attn_norm.weight", "have (32,), the class makes none: keep layer 0"):
        ttq.reduce_layers(built("ModernBertForMaskedLM"), [1, 2])
    family = FAMILIES["GPT2LMHeadModel"]
    model = replace(family, sizes={**family.sizes, "n_layer": 3, "scale_attn_by_inverse_layer_idx": True}).build()
    with refused(ValueError, "layer 2 of a GPT2LMHeadModel cannot become layer 1", "scaling"):
        ttq.reduce_layers(model, [0, 2])
    assert ttq.reduce_layers(model, [0, 1]).config.n_layer == 2


def test_a_config_that_cannot_say_which_layers_have_experts_is_refused():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 2}
    model = small("Qwen3MoeForCausalLM", 4, **experts, head_dim=8)
    with refused(ValueError, "cannot become layers 0 … 1", "the class makes"):
        ttq.reduce_layers(model, [1, 3])
    assert ttq.reduce_layers(model, [0, 3]).config.num_hidden_layers == 2


# ------------------------------------------------------------------------------------------------------- which are kept


@pytest.mark.parametrize(
    ("rule", "depth", "count", "expected"),
    [
        ("every other", 12, 6, [1, 3, 5, 7, 9, 11]),
        ("every other", 6, 4, [0, 2, 3, 5]),
        ("every other", 7, 1, [6]),
        ("every other from 0", 12, 6, [0, 2, 4, 6, 8, 10]),
        ("every other from 0", 12, 5, [0, 2, 4, 7, 9]),
        ("first", 6, 2, [0, 1]),
        ("last", 6, 2, [4, 5]),
        ("ends", 6, 3, [0, 1, 5]),
        ("ends", 6, 1, [0]),
        ({2: 0.1, 0: 0.2, 1: 0.9, 3: 1.5}, 4, 2, [1, 3]),
    ],
)
def test_rules_by_hand(rule, depth, count, expected):
    assert ttq.kept_layers(depth, count, rule) == expected


@pytest.mark.parametrize("rule", ["every other", "every other from 0", "first", "last", "ends"])
def test_every_rule_keeps_as_many_as_asked_in_order(rule):
    for depth in range(1, 26):
        for count in range(1, depth + 1):
            kept = ttq.kept_layers(depth, count, rule)
            assert kept == sorted(set(kept)) and len(kept) == count and set(kept) <= set(range(depth))
            gaps = [upper - lower for lower, upper in pairwise(kept)]
            if rule.startswith("every") and gaps:
                assert max(gaps) - min(gaps) <= 1


def test_rules_and_counts_that_there_are_not_are_refused():
    with refused(ValueError, "'every other'", "'ends'", "got 'odd'"):
        ttq.kept_layers(6, 3, "odd")
    with refused(ValueError, "of 6 layers 1 to 6 can be kept, got count=7"):
        ttq.kept_layers(6, 7)
    for count in (0, 2.5):
        with refused(ValueError, f"count must be a whole number of at least 1, got {count}"):
            ttq.kept_layers(6, count)
    with refused(ValueError, "each of the places 0 … 3 once, got [0, 1, 2]"):
        ttq.kept_layers(4, 2, {0: 1.0, 1: 2.0, 2: 3.0})


def test_the_map_of_a_student_is_not_off_by_one():
    assert ttq.layer_map([1, 3]) == {0: 0, 1: 2, 2: 4}
    with refused(ValueError, "keep is empty"):
        ttq.layer_map([])
    model, inputs = small("LlamaForCausalLM"), words()
    theirs = model(**inputs, output_hidden_states=True).hidden_states  # transformers' own hooks stay on the model
    keep = ttq.kept_layers(6, 3, "first")
    ours = ttq.reduce_layers(model, keep)(**inputs, output_hidden_states=True).hidden_states
    assert len(ours) == len(ttq.layer_map(keep)) == 4
    for layer, goal in list(ttq.layer_map(keep).items())[:-1]:  # the last of a Llama comes from behind a norm
        assert torch.equal(ours[layer], theirs[goal])


def test_the_map_is_what_distillation_takes():
    teacher = Family("BertForSequenceClassification", {**SIZES, "num_hidden_layers": 4}, classes).build()
    keep = ttq.kept_layers(4, 2, "first")
    student = ttq.reduce_layers(teacher, keep)
    (stage,) = stages_of(student, teacher, ttq.AllLayers(1), ttq.layer_map(keep))
    matches = [match for match in stage.matches if isinstance(match, MatchLayer)]
    assert {match.layer: match.teacher_layer for match in matches} == {0: 0, 1: 1, 2: 2}
    with recorded_attention(student, teacher):
        seen, goal = (observe(model, classes()) for model in (student, teacher))
    losses = {name: loss.item() for match in matches for name, loss in match.parts(seen, goal).items()}
    assert max(losses.values()) < 1e-6 and len(losses) == 8  # nothing to learn yet: attention is of layers 1 and 2
