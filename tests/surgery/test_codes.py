"""Codes and grids chosen on real inputs: better at what they aim at, block by block, and still what `save` packs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import ttqlib as ttq
from tests.cases import refused
from tests.surgery.test_compress import bert
from ttqlib.quantizers.clipping import clipped_scales
from ttqlib.quantizers.parametrizing import latent_weights, quantized
from ttqlib.surgery.blocks import blocks

RECIPE = ttq.GroupRTN(3, per=16, symmetric=False)
WORDS = 61


def llama() -> LlamaForCausalLM:
    """With gains of its norms that make some channels larger than others, as trained models have them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, num_key_value_heads=2, tie_word_embeddings=True, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(torch.randn_like(parameter).exp())
            elif "proj" in name:
                parameter.mul_(4)
    return model.eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, **sizes, **ends)).eval()


def ids(count: int = 24, length: int = 12) -> torch.Tensor:
    return torch.randint(WORDS, (count, length), generator=torch.Generator().manual_seed(1))


def batches(count: int = 24) -> list[dict]:
    return [{"input_ids": part} for part in ids(count).split(4)]


def compressed(model: nn.Module, recipe: ttq.GroupRTN = RECIPE) -> nn.Module:
    return ttq.compress_(copy.deepcopy(model), ttq.plan(model, quantize=recipe))


def missed(model: nn.Module, float_model: nn.Module) -> float:
    """How far the logits on the calibration text are from those of the float model."""
    with torch.no_grad():
        target = float_model(input_ids=ids()).logits
        return ((model(input_ids=ids()).logits - target).square().mean() / target.square().mean()).item()


METHODS = {
    "clip": lambda model: ttq.clip_(model, batches()),
    "gptq": lambda model: ttq.gptq_(model, batches()),
    "clip, gptq": lambda model: ttq.gptq_(ttq.clip_(model, batches()), batches()),
    "rounding": lambda model: ttq.learn_rounding_(model, batches(), steps=60),
    "clip, rounding": lambda model: ttq.learn_rounding_(ttq.clip_(model, batches()), batches(), steps=60),
}


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("method", METHODS)
def test_each_is_nearer_to_the_float_model_and_stays_what_save_packs(build, method, tmp_path):
    model = build()
    plain, better = compressed(model), compressed(model)
    sizes = sum(ttq.stored_sizes(plain).values())
    assert METHODS[method](better) is better
    assert missed(better, model) < 0.95 * missed(plain, model)
    assert sum(ttq.stored_sizes(better).values()) == sizes
    better.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(input_ids=ids()).logits, better(input_ids=ids()).logits)


def test_they_add_up():
    model = llama()
    found = {}
    for method in METHODS:
        found[method] = missed(METHODS[method](compressed(model)), model)
    assert found["clip, gptq"] < min(found["clip"], found["gptq"])
    assert found["clip, rounding"] < found["clip"]


def test_without_a_step_that_moves_anything_all_stays_as_it_was():
    model = compressed(llama())
    before = copy.deepcopy(model.state_dict())
    ttq.learn_rounding_(model, batches(), steps=3, rate=1e-12)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_clipping_without_inputs_takes_every_weight_of_a_model():
    model = compressed(llama())
    before = {name: quantizer.scale.clone() for name, quantizer in quantizers(model)}
    ttq.clip_(model)
    assert any("embed" in name for name in before)
    for name, quantizer in quantizers(model):
        assert (quantizer.scale <= before[name]).all() and (quantizer.scale < before[name]).any()


def quantizers(model: nn.Module):
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            yield from ((f"{name}.{own}", one) for own, one, _ in quantized(module))


def test_padding_changes_nothing():
    """Tokens that no mask lets through: others there, the same codes."""
    real = ids(8, 10)
    filled = [torch.cat([real, torch.full((8, 4), filler)], 1) for filler in (3, 7)]
    mask = (torch.arange(14) < 10).long().expand(8, 14)
    found = []
    for tokens in filled:
        model = compressed(llama())
        padded = [{"input_ids": tokens, "attention_mask": mask}]
        ttq.learn_rounding_(ttq.gptq_(ttq.clip_(model, padded), padded), padded, steps=3)
        found.append([one.clone() for _, one in model.named_parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found))


# ------------------------------------------------------------------------------------------------------- the walk


def test_a_block_is_given_what_the_compressed_blocks_before_it_give_and_aims_at_the_float_model():
    model, float_model = compressed(llama()), llama()
    with torch.no_grad():
        expected = float_model.model(input_ids=ids(4), output_hidden_states=True).hidden_states
    seen = []
    for place, block in enumerate(blocks(model, batches(4), "test")):
        if place == 0:
            torch.testing.assert_close(block.targets[0], expected[1])
            for weight in block.weights():  # what is done to a block before the next one is asked for
                weight.set_(clipped_scales(RECIPE, weight.rows))
        seen.append(block)
    with torch.no_grad():
        now = model.model(input_ids=ids(4), output_hidden_states=True).hidden_states
    assert [block.name for block in seen] == ["model.layers.0", "model.layers.1"]
    torch.testing.assert_close(seen[1].inputs[0], now[1])
    assert not torch.allclose(seen[1].inputs[0], expected[1], rtol=1e-3)


def test_moments_are_those_of_the_inputs():
    model = compressed(llama())
    block = next(iter(blocks(model, batches(), "test")))
    seen, weights = block.seen(), {weight.name: weight for weight in block.weights()}
    assert seen.keys() == weights.keys() and len(weights) == 7
    assert seen["self_attn.q_proj"] is seen["self_attn.v_proj"] is not seen["mlp.up_proj"]
    x = []
    hook = weights["mlp.down_proj"].layer.register_forward_pre_hook(lambda _, args: x.append(args[0]))
    with latent_weights(block.module):
        block.answers(block.inputs)
    hook.remove()
    rows = torch.cat(x).flatten(0, 1).double()
    torch.testing.assert_close(seen["mlp.down_proj"].moments, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen["mlp.down_proj"].magnitude, rows.abs().mean(0), rtol=1e-5, atol=1e-6)


def test_a_token_with_huge_states_does_not_rule_the_error():
    """One in eight tokens a hundred times as large, and all of them missed by a tenth: the error is that tenth."""
    model = compressed(llama())
    block = next(iter(blocks(model, batches(4), "test")))
    answer = block.answer(0, block.inputs[0]).detach()
    sizes = torch.where(torch.arange(answer.shape[1]) == 0, 100.0, 1.0)[None, :, None]
    block.answer = lambda number, x: answer * sizes
    block.targets = [answer * sizes / 1.1]
    assert block.error(0).item() == pytest.approx(0.01, rel=1e-3)
    half = (torch.arange(answer.shape[1]) % 2 == 0)[None, :, None]
    block.targets = [torch.where(half, answer * sizes / 1.1, answer * sizes)]
    assert block.error(0).item() == pytest.approx(0.005, rel=1e-3)


def test_the_model_is_left_as_it_was_found():
    model = compressed(llama()).train()
    cache = model.config.use_cache
    ttq.gptq_(model, batches(4))
    assert model.training and model.config.use_cache == cache
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="stopped"):
        for _ in blocks(model, batches(4), "test"):
            raise RuntimeError("stopped")


def test_an_encoder_is_one_stack_too():
    model = bert()
    plan = ttq.plan(model, rules={"layer": RECIPE})
    plain, better = (ttq.compress_(copy.deepcopy(model), plan) for _ in range(2))
    words = torch.randint(model.config.vocab_size, (8, 10), generator=torch.Generator().manual_seed(0))
    ttq.gptq_(ttq.clip_(better, [{"input_ids": words}]), [{"input_ids": words}])
    with torch.no_grad():
        target, before, after = (one.eval()(input_ids=words)[0] for one in (model, plain, better))
    assert (after - target).square().sum() < 0.8 * (before - target).square().sum()


def test_what_cannot_be_done_is_refused():
    model = compressed(llama())
    for function in (ttq.clip_, ttq.gptq_, ttq.learn_rounding_):
        with refused(ValueError, "calibration is empty"):
            function(model, [])
        with refused(ValueError, "a batch must be a mapping", "got a Tensor"):
            function(model, [torch.ones(1, 3)])
    for steps in (0, 2.5):
        with refused(ValueError, "steps must be a whole number of at least 1", f"got {steps}"):
            ttq.learn_rounding_(model, batches(), steps=steps)
    for rate in (0.0, -1.0):
        with refused(ValueError, "rate must be positive", f"got {rate}"):
            ttq.learn_rounding_(model, batches(), rate=rate)
    for function in (ttq.clip_, ttq.gptq_, ttq.learn_rounding_):
        with refused(ValueError, "ttq.GroupRTN", "compress it first"):
            function(llama(), batches())
        with refused(ValueError, "one stack of layers"):
            function(nn.Linear(4, 4), batches())
    with refused(ValueError, "ttq.GroupRTN", "compress it first"):
        ttq.clip_(llama())
