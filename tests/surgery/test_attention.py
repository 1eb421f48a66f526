"""Attention among the ranks gives the answers and the maps of the attention it came from, for less work."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
from transformers.models.bert.modeling_bert import BertAttention

import ttqlib as ttq
from tests.cases import random_tensor, refused, seeds

HEADS, SIZE, TOKENS = 3, 16, 6
WIDTH = HEADS * SIZE
SHAPE = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": 1, "intermediate_size": WIDTH}
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-4}


def attention(
    rank: int | tuple[int, ...] = 4, bias: bool = True, dtype=torch.float64, kind: str = "sdpa", **changes
) -> nn.Module:
    """The attention of one layer, its four weights trains of random cores; `rank`: of queries, keys, values, output."""
    config = BertConfig(**{**SHAPE, **changes}, attn_implementation=kind)
    part = BertAttention(config, is_causal=config.is_decoder).eval()
    for name, one in zip(("self.query", "self.key", "self.value", "output.dense"), _four(rank)):
        layer = ttq.TTLinear(WIDTH, WIDTH, one, bias=bias)
        if bias:
            nn.init.normal_(layer.bias)
        part.set_submodule(name, layer)
    return part.to(dtype)


def _four(rank: int | tuple[int, ...]) -> tuple[int, ...]:
    return (rank,) * 4 if isinstance(rank, int) else rank


def fused(part: nn.Module) -> nn.Module:
    return ttq.fuse_(nn.Sequential(copy.deepcopy(part)))[0]


def masks(kind: str, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """As transformers hands them to a layer: what counts is True for sdpa, 0 and not very negative for eager."""
    padding = torch.ones(2, 1, TOKENS, TOKENS, dtype=torch.bool)
    padding[1, :, :, 3:] = False
    own = torch.ones(2, HEADS, TOKENS, TOKENS, dtype=torch.bool).tril()  # another for every query
    own[:, 1] = True  # and for every head
    found = {"none": None, "padding": padding, "one row": padding[:, :, :1], "own": own}
    if kind == "eager":
        least = torch.finfo(dtype).min
        found = {
            name: None if mask is None else torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, least)
            for name, mask in found.items()
        }
    return found


def assert_equal(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


# ---------------------------------------------------------------------------------------------------------- equality


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("rank", [1, 4, 7, 11])
@pytest.mark.parametrize("mask", ["none", "padding"])
def test_a_gpu_gives_the_same_answer(rank, mask):
    """Its kernel is particular about where rows begin."""
    part, hidden = fused(attention(rank, dtype=torch.float32)), random_tensor((2, TOKENS, WIDTH)).float()
    mask = masks("sdpa", torch.float32)[mask]
    with torch.no_grad():
        expected = part(hidden, mask)[0]
        found = part.cuda()(hidden.cuda(), None if mask is None else mask.cuda())[0].cpu()
    assert_equal(found, expected, 1e-3)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@given(
    st.tuples(st.integers(1, 24), *[st.integers(1, 11)] * 2, st.integers(1, 24)),
    st.booleans(),
    st.sampled_from(["none", "padding", "one row", "own"]),
    seeds,
)
def test_it_answers_as_the_attention_that_it_came_from(kind, dtype, ranks, bias, mask, seed):
    torch.manual_seed(seed)
    part = attention(ranks, bias, dtype, kind)
    plain, x = fused(part), random_tensor((2, TOKENS, WIDTH), seed).to(dtype)
    assert type(plain.self) is ttq.LatentAttention
    (expected, maps), (answer, new_maps) = (one(x, attention_mask=masks(kind, dtype)[mask]) for one in (part, plain))
    assert_equal(answer, expected, CLOSE[dtype])
    assert (new_maps is None) == (maps is None) == (kind == "sdpa")
    if maps is not None:
        assert_equal(new_maps, maps, CLOSE[dtype])


@given(st.tuples(st.just(4), *[st.integers(1, 11)] * 2, st.just(4)), st.sampled_from(["padding", "one row"]), seeds)
def test_a_mask_of_keys_may_be_one_of_their_latents(ranks, kind, seed):
    """Where keys have fewer ranks than values there is room; also where nothing of a sentence counts."""
    torch.manual_seed(seed)
    part = attention(ranks, kind="eager")
    plain, x = fused(part), random_tensor((2, TOKENS, WIDTH), seed)
    mask = masks("eager", x.dtype)[kind]
    mask[0] = mask.min() if seed % 2 else 0
    expected, answer = part(x, attention_mask=mask)[0], plain(x, attention_mask=mask)[0]
    plain.self.masked_in_latents = True
    assert_equal(plain(x, attention_mask=mask)[0], expected, CLOSE[x.dtype])
    assert_equal(answer, expected, CLOSE[x.dtype])
    assert plain.self.spare == (ranks[1] if ranks[1] < ranks[2] else None)
    if plain.self.spare is not None:  # another mask for every query would not be seen
        mask = masks("eager", x.dtype)["own"]
        assert not torch.allclose(plain(x, attention_mask=mask)[0], part(x, attention_mask=mask)[0])


def test_the_softmax_does_not_see_the_bias_of_the_keys_but_the_others_are_seen():
    part, x = attention(), random_tensor((2, TOKENS, WIDTH))
    expected, _ = fused(part)(x)
    for name, changes in {"key": False, "query": True, "value": True}.items():
        other = copy.deepcopy(part)
        nn.init.normal_(getattr(other.self, name).bias)
        assert ((fused(other)(x)[0] - expected).abs().max() > 1e-3) == changes, name


def test_a_mask_counts():
    part, x = attention(), random_tensor((2, TOKENS, WIDTH))
    plain, found = fused(part), masks("sdpa", torch.float64)
    answers = {name: plain(x, attention_mask=mask)[0] for name, mask in found.items()}
    assert torch.equal(answers["padding"], answers["one row"])
    assert (answers["padding"][0] - answers["none"][0]).abs().max() < 1e-12
    for one, other in (("padding", "none"), ("own", "none"), ("own", "padding")):
        assert (answers[one][1] - answers[other][1]).abs().max() > 1e-3


def test_half_precision_stays_half_and_is_computed_in_more():
    part, x = attention(dtype=torch.bfloat16), random_tensor((2, TOKENS, WIDTH)).bfloat16()
    plain = fused(part)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
    assert_equal(plain(x)[0], part(x)[0], 0.05)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_a_whole_model_gives_the_same_maps_and_hidden_states(kind):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**{**SHAPE, "num_hidden_layers": 2}, vocab_size=50, attn_implementation=kind)).double()
    ttq.compress_(model, ttq.plan(model, rules={"attention": ttq.TT(4)})).eval()
    plain = ttq.fuse_(copy.deepcopy(model))
    assert sum(type(part) is ttq.LatentAttention for part in plain.modules()) == 2
    ids = torch.randint(1, 50, (2, TOKENS))
    mask = torch.tensor([[1] * TOKENS, [1] * 3 + [0] * 3])
    asked = {"output_hidden_states": True, "output_attentions": kind == "eager"}
    expected, answer = (one(ids, attention_mask=mask, **asked) for one in (model, plain))
    assert len(answer.hidden_states) == 3 and len(answer.attentions or []) == (2 if kind == "eager" else 0)
    for new, old in zip(
        answer.hidden_states + (answer.attentions or ()), expected.hidden_states + (expected.attentions or ())
    ):
        assert_equal(new, old, 1e-10)


def test_the_model_decides_how_attention_is_computed_and_what_is_not_known_is_refused():
    config = BertConfig(**SHAPE, vocab_size=50, attn_implementation="sdpa")
    model = BertModel(config).eval()
    ttq.fuse_(ttq.compress_(model, ttq.plan(model, rules={"attention": ttq.TT(4)})))
    ids = torch.randint(1, 50, (2, TOKENS))
    expected = model(ids).last_hidden_state
    model.set_attn_implementation("eager")
    maps = model(ids, output_attentions=True)
    assert_equal(maps.last_hidden_state, expected, 1e-4)
    assert torch.allclose(maps.attentions[0].sum(-1), torch.ones(2, HEADS, TOKENS))
    model.set_attn_implementation("flex_attention")
    with refused(ValueError, "sdpa, eager", "flex_attention", "model.set_attn_implementation('sdpa')"):
        model.encoder.layer[0].attention(torch.zeros(1, 2, WIDTH))


# ------------------------------------------------------------------------------------------------ what it is and costs


@pytest.mark.parametrize(
    ("ranks", "width"),
    [((4, 4, 4, 4), 4), ((15, 3, 2, 9), 3), ((2, 3, 11, 2), 11), ((1, 12, 1, 1), None), ((1, 1, 16, 1), None)],
)
def test_heads_are_as_wide_as_keys_and_values_have_ranks_and_stay_where_that_is_no_less(ranks, width):
    plain = fused(attention(ranks))
    if width is None:  # 12 would be filled up to 16, the size of a head
        assert isinstance(plain.self.query, nn.Sequential) and plain.self.attention_head_size == SIZE
        return
    first = ranks[0] + 1 if ranks[0] + 1 < 12 else 16  # the bias is a rank
    assert plain.self.attention_head_size == width
    assert tuple(plain.self.latents.weight.shape) == (first + 2 * width, WIDTH)
    assert tuple(plain.self.queries.weight.shape) == (HEADS * width, first) and plain.self.queries.bias is None
    assert plain.output.dense[0].in_features == HEADS * width


def test_it_has_less_to_do_than_thin_pairs():
    part, x = attention(4, kind="eager"), random_tensor((1, TOKENS, WIDTH))
    pairs = copy.deepcopy(part)
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        pairs.set_submodule(name, fused(part.get_submodule(name)))
    assert_equal(pairs(x)[0], part(x)[0], 1e-10)

    def products(one: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            one(x)
        return counter.get_total_flops()

    # latents of 5 + 4 + 4 numbers; queries 5 → 3 · 4; 3 heads of 4 numbers; 3 · 4 → 5 → 48
    each = WIDTH * 13 + 5 * 12 + 2 * TOKENS * 12 + 12 * 5 + 5 * WIDTH
    assert products(fused(part)) == 2 * TOKENS * each
    assert products(fused(part)) < products(pairs) < products(BertAttention(part.self.config).double())


@pytest.mark.parametrize("name", ["self.query", "self.value", "output.dense"])
def test_attention_of_which_not_all_is_a_plain_train_is_left_in_pairs(name):
    x = random_tensor((2, TOKENS, WIDTH))
    part = attention()
    part.set_submodule(name, part.get_submodule(name).to_linear())
    quantized = attention()
    ttq.fake_quantize_input_(quantized.get_submodule(name), ttq.DynamicActivation(8))
    for one in (part, quantized):
        plain = fused(one)
        assert type(plain.self) is type(one.self)
        assert_equal(plain(x)[0], one(x)[0], 1e-10)


def test_decoders_and_other_families_are_left_in_pairs():
    assert type(fused(attention(is_decoder=True)).self) is not ttq.LatentAttention
    model = RobertaModel(RobertaConfig(**SHAPE, vocab_size=50)).double().eval()
    ttq.compress_(model, ttq.plan(model, rules={"attention": ttq.TT(4)}))
    ids = torch.randint(2, 50, (2, TOKENS))
    expected = model(ids).last_hidden_state
    plain = ttq.fuse_(model)
    assert not any(isinstance(part, ttq.LatentAttention | ttq.TTLinear) for part in plain.modules())
    assert_equal(plain(ids).last_hidden_state, expected, 1e-10)


def test_it_trains_with_dropout_and_each_part_keeps_its_mode():
    part = attention(attention_probs_dropout_prob=0.5).train()
    part.output.eval()
    plain, x = fused(part), random_tensor((2, TOKENS, WIDTH))
    assert plain.self.training and plain.self.latents.training and not plain.output.dense[0].training
    assert not torch.equal(plain(x)[0], plain(x)[0])  # attention drops out
    plain(x)[0].sum().backward()
    assert [name for name, parameter in plain.named_parameters() if parameter.grad is None] == []
    state = torch.get_rng_state()
    fused(part)
    assert torch.equal(torch.get_rng_state(), state)  # nothing random is made on the way
