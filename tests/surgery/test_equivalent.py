"""Scales of channels: found by what a model computes, folded without a trace, and trained for a reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import TrainingArguments

import ttqlib as ttq
from tests.cases import refused
from tests.families import FAMILIES, VOCABULARY
from ttqlib.inventory.kinds import is_linear

PLAN = {r"(proj|c_attn|c_fc|fc\d|out_proj|dense)$": ttq.GroupRTN(2, per=16, symmetric=False)}
CAUSAL = ["LlamaForCausalLM tied", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM"]
CAUSAL += ["GemmaForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM", "FalconForCausalLM", "BloomForCausalLM"]
NORMS_IN_FLOAT32 = {"GemmaForCausalLM"}  # whatever the model is in, they compute (1 + w) x there
EMBEDDING = "model.embed_tokens"
IDS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))

# groups of the second of two layers: the producer's last name, its consumers' last names, how many scales
NORM, FFN = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
FOUND = {
    "LlamaForCausalLM tied": {
        "input_layernorm": (NORM, 32),
        "v_proj": (("o_proj",), 16),  # two heads of values, of which four of queries read: 16 scales for 32 inputs
        "post_attention_layernorm": (FFN, 32),
        "up_proj": (("down_proj",), 64),
    },
    "GemmaForCausalLM": {
        "input_layernorm": (NORM, 32),
        "v_proj": (("o_proj",), 16),
        "post_attention_layernorm": (FFN, 32),
        "up_proj": (("down_proj",), 64),
    },
    "GPT2LMHeadModel": {  # a GELU stands between c_fc and c_proj
        "ln_1": (("c_attn",), 32),
        "c_attn": (("c_proj",), 32),
        "ln_2": (("c_fc",), 32),
    },
    "OPTForCausalLM": {  # and here a ReLU, which a positive scale passes
        "self_attn_layer_norm": (NORM, 32),
        "v_proj": (("out_proj",), 32),
        "final_layer_norm": (("fc1",), 32),
        "fc1": (("fc2",), 64),
    },
    "PhiForCausalLM": {"input_layernorm": ((*NORM, "fc1"), 32), "v_proj": (("dense",), 32)},
    "Phi3ForCausalLM": {
        "input_layernorm": (("qkv_proj",), 32),
        "qkv_proj": (("o_proj",), 16),
        "post_attention_layernorm": (("gate_up_proj",), 32),
        "gate_up_proj": (("down_proj",), 64),
    },
    "FalconForCausalLM": {
        "input_layernorm": (("query_key_value", "dense_h_to_4h"), 32),
        "query_key_value": (("dense",), 8),
    },
}


def last(name: str) -> str:
    return name.rpartition(".")[2]


def build(name: str, dtype=torch.float32) -> nn.Module:
    return FAMILIES[name].build().to(dtype)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def moved_(model, size=0.5):
    """Scales far from 1, as no training would leave them."""
    generator = torch.Generator().manual_seed(3)
    for log_scales in ttq.equivalent_scales(model).values():
        with torch.no_grad():
            log_scales.copy_(torch.randn(log_scales.shape, generator=generator) * size)
    return model


# ----------------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("name", FOUND)
def test_the_groups_of_a_family(name):
    groups = [group for group in ttq.equivalent_groups(build(name)) if ".1." in group.producer]
    assert {last(g.producer): (tuple(map(last, g.consumers)), g.size) for g in groups} == FOUND[name]


def test_grouped_queries_share_the_scales_of_their_values():
    (group,) = [
        g for g in ttq.equivalent_groups(build("LlamaForCausalLM tied")) if g.producer.endswith("0.self_attn.v_proj")
    ]
    (numbers,) = group.consumers.values()
    assert numbers.reshape(4, 8).tolist() == [[8 * (head // 2) + i for i in range(8)] for head in range(4)]


def test_of_fused_layers_only_what_is_proportional_is_scaled():
    groups = {last(g.producer): g for g in ttq.equivalent_groups(build("Phi3ForCausalLM")) if ".0." in g.producer}
    assert groups["qkv_proj"].channels.tolist() == list(range(48, 64))  # behind 32 of queries and 16 of keys
    assert groups["gate_up_proj"].channels.tolist() == list(range(64, 128))  # "up" lies behind "gate"
    (fused,) = [g for g in ttq.equivalent_groups(build("GPTNeoXForCausalLM")) if last(g.producer) == "query_key_value"][
        :1
    ]
    assert fused.channels.tolist() == [*range(32, 48), *range(80, 96)]  # head by head: query, key, value


def test_a_post_norm_bert_has_values_and_little_else():
    """Its norms give the residual stream, and a GELU stands in its feed-forward: neither lets a scale through."""
    model = build("BertForMaskedLM")
    groups = ttq.equivalent_groups(model)
    assert [last(g.producer) for g in groups] == ["value", "value", "LayerNorm"]
    assert groups[-1].producer == "bert.encoder.layer.1.output.LayerNorm"  # the last, which no layer adds to
    pre_norm = ttq.equivalent_groups(build("OPTForCausalLM"))  # of the same width and depth
    assert sum(group.size for group in groups) < 0.4 * sum(group.size for group in pre_norm)


def test_a_tied_head_is_no_consumer_and_a_free_one_is():
    tied, free = (ttq.equivalent_groups(build(f"LlamaForCausalLM{note}")) for note in (" tied", ""))
    assert "lm_head" not in {name for group in tied for name in group.consumers}
    assert "lm_head" in {name for group in free for name in group.consumers}


def test_finding_changes_nothing_and_needs_no_luck():
    model = build("LlamaForCausalLM tied").train()
    before = copy.deepcopy(model.state_dict())
    groups, again = ttq.equivalent_groups(model), ttq.equivalent_groups(model, IDS)
    assert model.training and all("forward" not in vars(module) for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(map(repr, groups)) == list(map(repr, again)) and not any(m._forward_hooks for m in model.modules())


class Added(nn.Module):
    """A feed-forward whose "up" also goes elsewhere: it looks like a group and is none."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        up = self.mlp.up_proj(x)
        return self.mlp.down_proj(F.silu(self.mlp.gate_proj(x)) * up) + up[..., : x.shape[-1]]


def test_a_channel_that_goes_elsewhere_too_is_left_out():
    model = build("LlamaForCausalLM tied")
    model.model.layers[0].mlp = Added(model.model.layers[0].mlp)
    producers = {group.producer for group in ttq.equivalent_groups(model)}
    assert "model.layers.0.mlp.mlp.up_proj" not in producers and "model.layers.1.mlp.up_proj" in producers


# ----------------------------------------------------------------------------------------------------------- folding


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_folding_leaves_the_answers_and_plain_layers(name, dtype):
    model = build(name, dtype)
    before = logits(model)
    kinds = {name: type(module) for name, module in model.named_modules()}
    parameters = {name: (one.shape, one.requires_grad) for name, one in model.named_parameters()}
    work = ttq.report(model).total
    ttq.equivalent_(model, ttq.equivalent_groups(model))
    scaled = logits(moved_(model))
    other = copy.deepcopy(model)
    weight = model.get_submodule(next(iter(ttq.equivalent_scales(model)))).weight.detach().clone()
    ttq.fold_(model)
    assert not torch.equal(weight, FAMILIES[name].build().to(dtype).get_parameter(f"{_first(other)}.weight"))
    bound = 1e-8 if dtype is torch.float64 and name not in NORMS_IN_FLOAT32 else 1e-3
    for after in (scaled, logits(model), logits(ttq.fold_(other))):
        assert (after - before).abs().max() <= bound * before.abs().max().clamp_min(1)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert {name: (one.shape, one.requires_grad) for name, one in model.named_parameters()} == parameters
    assert (ttq.report(model).total.flops, ttq.report(model).total.parameters) == (work.flops, work.parameters)


def _first(model) -> str:
    return next(iter(ttq.equivalent_scales(model)))


def test_what_trains_are_the_scales_alone_and_fold_thaws():
    model = build("LlamaForCausalLM tied")
    model.model.embed_tokens.weight.requires_grad_(False)
    groups = ttq.equivalent_groups(model)
    ttq.equivalent_(model, groups, ttq.plan(model, rules=PLAN))
    trained = {id(one) for one in model.parameters() if one.requires_grad}
    assert trained == {id(one) for one in ttq.equivalent_scales(model).values()}
    assert ttq.count_parameters(model, trainable=True) == sum(group.size for group in groups) == 2 * 144
    ttq.fold_(model)
    assert not model.model.embed_tokens.weight.requires_grad and ttq.count_parameters(model, trainable=True) > 0
    assert {name for name, one in model.named_parameters() if not one.requires_grad} == {"model.embed_tokens.weight"}


def test_the_folded_model_compressed_is_the_one_that_was_trained(tmp_path):
    model = build("LlamaForCausalLM tied")
    plan = ttq.plan(model, rules=PLAN)
    ttq.equivalent_(model, ttq.equivalent_groups(model), plan)
    trained = logits(moved_(model, 0.2))
    ttq.compress_(ttq.fold_(model), plan)
    torch.testing.assert_close(logits(model), trained, rtol=1e-5, atol=1e-5)
    ttq.save(model, tmp_path / "saved")
    assert torch.equal(logits(ttq.load(tmp_path / "saved")), logits(model))


def test_what_cannot_be_is_refused_and_nothing_changes():
    model = build("LlamaForCausalLM tied")
    groups = ttq.equivalent_groups(model)
    before = {name: id(one) for name, one in model.named_parameters()}
    with refused(ValueError, "no groups"):
        ttq.equivalent_(model, [])
    with refused(ValueError, "a tensor train", "equivalent scales are for dense layers"):
        ttq.equivalent_(model, groups, ttq.plan(model, rules={"up_proj": ttq.TT(4)}))
    strange = ttq.EquivalentGroup("nowhere", torch.arange(3), {"model.layers.0.mlp.up_proj": torch.arange(3)})
    with refused(ValueError, "'nowhere' is no layer of this LlamaForCausalLM"):
        ttq.equivalent_(model, [*groups, strange])
    norm, up, down = (f"model.layers.0.{name}" for name in ("input_layernorm", "mlp.up_proj", "mlp.down_proj"))
    wrong = {
        "same side of two groups": groups[0],
        "is no linear layer and no norm": ttq.EquivalentGroup(EMBEDDING, torch.arange(32), {up: torch.arange(32)}),
        "which takes from": ttq.EquivalentGroup(up, torch.arange(32), {norm: torch.arange(32)}),
        "different ones of its 64": ttq.EquivalentGroup(up, torch.arange(40) + 30, {down: torch.arange(64) % 40}),
        "for each of its 64 inputs": ttq.EquivalentGroup(up, torch.arange(40), {down: torch.arange(64)}),
    }
    for words, group in wrong.items():
        with refused(ValueError, words):
            ttq.equivalent_(model, [groups[0], group])
    with refused(ValueError, "no scales to fold"):
        ttq.fold_(model)
    assert before == {name: id(one) for name, one in model.named_parameters()}
    assert all(one.requires_grad for one in model.parameters())
    ttq.equivalent_(model, groups)
    with refused(ValueError, "has scales already"):
        ttq.equivalent_(model, groups)
    ttq.compress_(ttq.fold_(model), ttq.plan(model, bits=4))
    with refused(ValueError, "parametrized already"):
        ttq.equivalent_(model, groups)
    with refused(ValueError, "encoder-decoder"):
        ttq.equivalent_groups(build("T5ForConditionalGeneration"))


# ---------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def taught():
    """A small Llama that has learnt to count, some of its channels made large: (model, held-out ids, training rows)."""
    model = build("LlamaForCausalLM tied").train()
    starts = torch.randint(3, VOCABULARY - 14, (160,), generator=torch.Generator().manual_seed(0))
    ids = starts[:, None] + torch.arange(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        batch = ids[torch.arange(16) * 7 + step % 48]
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval()
    ttq.equivalent_(model, ttq.equivalent_groups(model))
    ttq.fold_(moved_(model, 1.0))  # the same answers from weights with outliers, which scales can mend
    return model, ids[112:], [{"input_ids": row, "labels": row} for row in ids[:112]]


def arguments(folder, **options) -> TrainingArguments:
    options = {"max_steps": 40, "learning_rate": 0.03, **options}
    common = {"per_device_train_batch_size": 16, "use_cpu": True, "report_to": [], "disable_tqdm": True}
    return TrainingArguments(output_dir=str(folder), save_strategy="no", seed=0, **common, **options)


def scaled(taught) -> nn.Module:
    model = copy.deepcopy(taught[0])
    return ttq.equivalent_(model, ttq.equivalent_groups(model), ttq.plan(model, rules=PLAN))


def sizes(model) -> list[float]:
    return [float(one.detach().abs().max()) for one in ttq.equivalent_scales(model).values()]


def test_on_the_next_token_scales_move_and_the_held_out_loss_falls(taught, tmp_path):
    model, (float_model, held_out, rows) = scaled(taught), taught
    least, before = ttq.perplexity(float_model, held_out), ttq.perplexity(model, held_out)
    frozen = {name: one.clone() for name, one in model.named_parameters() if not one.requires_grad}
    ttq.QATTrainer(model, arguments(tmp_path), train_dataset=rows).train()
    after = ttq.perplexity(model, held_out)
    assert before > 1.2 * least  # rounding to nearest has cost something
    assert after < before - 0.2 * (before - least) and min(sizes(model)) > 1e-3
    assert all(torch.equal(frozen[name], one) for name, one in model.named_parameters() if name in frozen)
    still = scaled(taught)  # the control: where nothing trains the scales, TEQ is round-to-nearest
    assert ttq.perplexity(still, held_out) == before and max(sizes(still)) == 0


@pytest.mark.parametrize("schedule", [ttq.LogitsOnly(40), ttq.BlockByBlock(20)], ids=["logits", "blocks"])
def test_distilled_from_the_float_model_the_held_out_loss_falls_too(taught, schedule, tmp_path):
    model, (teacher, held_out, rows) = scaled(taught), taught
    before = ttq.perplexity(model, held_out)
    rows = [{"input_ids": row["input_ids"]} for row in rows]
    trainer = ttq.DistillTrainer(
        model, arguments(tmp_path, max_steps=-1), teacher=copy.deepcopy(teacher), stages=schedule, train_dataset=rows
    )
    trainer.train()
    assert ttq.perplexity(model, held_out) < before and min(sizes(model)) > 1e-3


def test_every_linear_layer_that_the_plan_names_is_rounded_also_outside_of_groups():
    model = build("GPT2LMHeadModel")
    ttq.equivalent_(model, ttq.equivalent_groups(model), ttq.plan(model, rules={"c_proj$": ttq.GroupRTN(2, per=8)}))
    for name, module in model.named_modules():
        if is_linear(module) and last(name) == "c_proj":
            values = module.weight.mT.reshape(-1, 8)
            assert max(len(group.unique()) for group in values) <= 4
