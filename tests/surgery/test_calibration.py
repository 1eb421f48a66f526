"""Ranks chosen on real inputs: the best possible for the outputs, means kept, padding unseen, and what is refused."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.surgery.test_compress import bert, distilbert
from ttqlib.surgery.calibration import output_moments

ROWS, IN, OUT, RANK = 400, 24, 18, 3
FULL = {"in_modes": (IN,), "out_modes": (OUT,)}  # one core a side: a plain product of two thin matrices


def skewed(seed: int = 0) -> torch.Tensor:
    """Inputs that fill a few directions and have a mean, (ROWS, IN), in float64."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    return draw(ROWS, 5) @ draw(5, IN) + 0.1 * draw(ROWS, IN) + draw(IN)


def network(layer: nn.Module) -> nn.Module:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, attention_mask=None):
            return self.layer(x)

    return Net().double()


def compressed(model: nn.Module, form: ttq.TT, calibration) -> nn.Module:
    config = ttq.TTQConfig({"layer": ttq.LayerPlan(form)})
    return ttq.compress_(copy.deepcopy(model), config, calibration=calibration)


def error(model: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(x) - other(x)).pow(2).sum().item()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [OUT, 2 * IN], ids=["fewer outputs", "more outputs"])
@pytest.mark.parametrize("rows", [ROWS, IN // 2], ids=["many rows", "fewer rows than inputs"])
def test_no_layer_of_this_rank_is_nearer_on_the_inputs(bias, outputs, rows):
    torch.manual_seed(0)
    x, model = skewed()[:rows], network(nn.Linear(IN, outputs, bias))
    form = ttq.TT(RANK, (IN,), (outputs,))
    found = error(model, compressed(model, form, [{"x": x[:10]}, {"x": x[10:]}]), x)
    with torch.no_grad():
        values = torch.linalg.svdvals(model(x) - bias * model(x).mean(0))
    assert found == pytest.approx(values[RANK:].pow(2).sum().item(), rel=1e-6)  # the least possible (Eckart–Young)
    assert error(model, compressed(model, form, None), x) > 2 * found  # the control: weights alone


def test_gpt2s_layers_are_calibrated_alike():
    x, linear, conv = skewed(), nn.Linear(IN, OUT), Conv1D(OUT, IN)
    conv.load_state_dict({"weight": linear.weight.T, "bias": linear.bias})
    one, other = (compressed(network(layer), ttq.TT(RANK), [{"x": x}]) for layer in (linear, conv))
    torch.testing.assert_close(one(x), other(x))


@pytest.mark.parametrize("outputs", [OUT, 2 * IN], ids=["fewer outputs", "more outputs"])
@pytest.mark.parametrize("first", [1, 200], ids=["first a batch of one row", "two batches"])
def test_a_large_mean_hides_nothing_in_float32(outputs, first):
    """Squares of numbers near 3000 leave no digits for a spread of 1, unless they are taken about the mean."""
    torch.manual_seed(0)
    x, model = 3000 + skewed() / skewed().std(), network(nn.Linear(IN, outputs)).float()
    batches = [{"x": x[:first].float()}, {"x": x[first:].float()}]
    made = compressed(model, ttq.TT(RANK, (IN,), (outputs,)), batches)
    with torch.no_grad():
        y, found = (x @ weight.double() for weight in (model.layer.weight.T, made.layer.weight.T))
        y, found = y - y.mean(0), found - found.mean(0)
        least = torch.linalg.svdvals(y)[RANK:].pow(2).sum()
        assert (y - found).pow(2).sum() == pytest.approx(least.item(), rel=1e-3)
        mean = (x.mean(0) @ model.layer.weight.T.double() + model.layer.bias).float()
        torch.testing.assert_close(made(x.mean(0).float()), mean, rtol=2e-6, atol=1e-2)


def test_half_precision_is_calibrated_in_float32():
    torch.manual_seed(0)
    x, model = skewed(), network(nn.Linear(IN, OUT))
    half = compressed(copy.deepcopy(model).bfloat16(), ttq.TT(RANK, **FULL), [{"x": x.bfloat16()}])
    assert half.layer.core0.dtype == torch.bfloat16
    full = compressed(model, ttq.TT(RANK, **FULL), [{"x": x}])
    assert error(model, half.double(), x) < 1.2 * error(model, full, x)


def test_three_cores_a_side_keep_the_mean_and_gain_as_well():
    torch.manual_seed(1)
    x, model = skewed(1), network(nn.Linear(IN, OUT))
    plain, informed = (compressed(model, ttq.TT(RANK), batches) for batches in (None, [{"x": x}]))
    torch.testing.assert_close(informed(x).mean(0), model(x).mean(0))
    assert not torch.allclose(plain(x).mean(0), model(x).mean(0), atol=1e-2)
    assert error(model, informed, x) < 0.7 * error(model, plain, x)


def test_full_rank_changes_nothing():
    x, model = skewed(), network(nn.Linear(IN, OUT))
    torch.testing.assert_close(compressed(model, ttq.TT(OUT, **FULL), [{"x": x}])(x), model(x))


def test_a_layer_without_bias_stays_without():
    model = network(nn.Linear(IN, OUT, bias=False))
    assert compressed(model, ttq.TT(RANK), [{"x": skewed()}]).layer.bias is None


class Flattening(nn.Module):
    """As in mixtures of experts, whose layers see the tokens of a batch as rows of a matrix."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, attention_mask=None):
        return self.layer(x.flatten(0, -2)).reshape(*x.shape[:-1], -1)


def test_a_layer_may_be_called_by_keyword():
    class Calling(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(IN, OUT)

        def forward(self, x):
            return self.layer(input=x)

    x = skewed().float()
    (found,) = output_moments(Calling(), ["layer"], [{"x": x}]).values()
    torch.testing.assert_close(found.inputs.mean, x.double().mean(0))


@pytest.mark.parametrize("wrap", [network, Flattening], ids=["in sentences", "one after another"])
def test_padding_is_not_looked_at(wrap):
    x, model = skewed()[:40].reshape(4, 10, IN), wrap(nn.Linear(IN, OUT)).double()
    mask = torch.ones(4, 10)
    mask[:, 6:] = 0
    dirty = x.masked_fill(mask[..., None] == 0, 1e3)
    short, padded, unmasked = (
        compressed(model, ttq.TT(RANK), [batch])
        for batch in ({"x": x[:, :6]}, {"x": dirty, "attention_mask": mask}, {"x": dirty})
    )
    torch.testing.assert_close(padded(x), short(x))
    assert not torch.allclose(unmasked(x), short(x), atol=0.1)


@pytest.mark.parametrize("make", [bert, distilbert])
def test_a_model_is_calibrated_in_eval_mode_and_left_as_it_was(make):
    model, batches = make().train(), [{"input_ids": torch.randint(3, 97, (8, 12))}]
    model.base_model.get_input_embeddings().eval()  # a module that is not in its parent's mode
    before = {name: module.training for name, module in model.named_modules()}
    config = ttq.plan(model, rank=4)
    in_eval = ttq.compress_(copy.deepcopy(model).eval(), config, calibration=batches)
    small = ttq.compress_(model, config, calibration=batches)
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(weight, in_eval.state_dict()[name])  # which dropout would have changed
    assert all(module.training == before[name] for name, module in small.named_modules() if name in before)
    assert not any(module._forward_hooks for module in small.modules())


TEXT = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 1}
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 1}


def lengths(*rows: int) -> torch.Tensor:
    """The mask of sentences of these lengths, (B, 6)."""
    return (torch.arange(6) < torch.tensor(rows)[:, None]).long()


def counts(model: nn.Module, batch: dict) -> dict[str, int]:
    """How many rows of a batch count in each linear layer."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    moments = output_moments(model.eval(), names, [batch, batch])
    return {name: found.count // 2 for name, found in moments.items()}


@pytest.mark.parametrize("decoder_mask", [lengths(2, 6, 1), None], ids=["masked", "without a mask"])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_encoder_and_decoder_go_by_their_own_masks(family, decoder_mask):
    """Also where their sentences are as long; and keys and values of cross-attention by that of the encoder."""
    if family == "bart":
        model = BartForConditionalGeneration(BartConfig(**TEXT, **BART))
        across = ("encoder_attn.k_proj", "encoder_attn.v_proj")
    else:
        model = T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0))
        across = ("EncDecAttention.k", "EncDecAttention.v")
    ids, mask = torch.randint(3, 60, (3, 6)), lengths(5, 3, 4)
    batch = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids, "decoder_attention_mask": decoder_mask}
    read, written = 12, 18 if decoder_mask is None else 9
    for name, count in counts(model, batch).items():
        assert count == (read if "encoder" in name.split(".") or name.endswith(across) else written), name


def test_relative_positions_are_no_tokens():
    config = DebertaV2Config(**TEXT, **SMALL, relative_attention=True, share_att_key=True, pos_att_type=["p2c", "c2p"])
    batch = {"input_ids": torch.randint(3, 60, (3, 6)), "attention_mask": lengths(5, 3, 4)}
    found = counts(DebertaV2ForSequenceClassification(config), batch)
    assert found.pop("pooler.dense") == found.pop("classifier") == 3  # sentences
    assert set(found.values()) == {12} and any("key_proj" in name for name in found)


@pytest.mark.parametrize("order", [1, -1], ids=["tokens first", "tokens last"])
def test_a_layer_that_sees_tokens_goes_by_them_alone(order):
    x, others = skewed()[:40].reshape(4, 10, IN), skewed(1)[:7]

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(IN, OUT).double()

        def forward(self, x, attention_mask):
            for rows in [x, others][::order]:
                self.layer(rows)

    (found,) = output_moments(Both(), ["layer"], [{"x": x, "attention_mask": torch.ones(4, 10)}] * 2).values()
    assert found.count == 80
    torch.testing.assert_close(found.inputs.mean, x.flatten(0, 1).mean(0))


def test_a_mask_of_words_says_nothing_of_an_image():
    vision = {**SMALL, "image_size": 8, "patch_size": 4, "num_channels": 1}  # 2 × 2 patches and a class: 5 rows
    model = CLIPModel(CLIPConfig(text_config={**TEXT, **SMALL}, vision_config=vision, projection_dim=8))
    batch = {"input_ids": torch.randint(3, 60, (3, 5)), "attention_mask": lengths(5, 3, 4)[:, :5]}
    batch["pixel_values"] = torch.randn(3, 1, 8, 8)
    for name, count in counts(model, batch).items():
        assert count == (3 if "projection" in name else 15 if "vision" in name else 12), name


@pytest.mark.parametrize("given", ["input_ids", "inputs_embeds"])
def test_words_may_come_as_vectors(given):
    model, mask = bert(), lengths(5, 3, 4)
    values = {"input_ids": torch.randint(3, 97, (3, 6)), "inputs_embeds": torch.randn(3, 6, model.config.hidden_size)}
    found = counts(model, {given: values[given], "attention_mask": mask})
    assert {count for name, count in found.items() if "encoder" in name} == {12}


def test_a_table_of_low_rank_keeps_the_rows_that_are_looked_up():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 12, generator=generator, dtype=torch.float64) + 1  # with a mean that no bias can mend
    ids = torch.randint(3, 15, (6, 20), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, 17:] = 0
    ids[:, 17:] = 20  # what stands under padding
    model = network(nn.Embedding.from_pretrained(table, padding_idx=0))
    form, batches = ttq.TTM(RANK, (40, 1), (1, 12)), [{"x": ids, "attention_mask": mask}]
    plain, informed = (compressed(model, form, calibration) for calibration in (None, batches))
    seen = ids[:, :17]
    values = torch.linalg.svdvals(model(seen).flatten(0, 1))
    assert error(model, informed, seen) == pytest.approx(values[RANK:].pow(2).sum().item(), rel=1e-6)
    assert error(model, plain, seen) > 1.3 * error(model, informed, seen)
    assert informed.layer.padding_idx == 0


def test_quantizers_and_words_come_as_without_calibration():
    model = bert()
    config = ttq.plan(model, rank=4, bits=4, rest=8)
    plain = ttq.compress_(copy.deepcopy(model), config)
    informed = ttq.compress_(model, config, calibration=[{"input_ids": torch.randint(3, 97, (8, 12))}])
    assert informed.state_dict().keys() == plain.state_dict().keys()
    words = "bert.embeddings.word_embeddings"
    torch.testing.assert_close(
        informed.get_submodule(words).to_embedding().weight, plain.get_submodule(words).to_embedding().weight
    )


def test_calibration_that_cannot_serve_is_refused_and_nothing_changes():
    model, x = network(nn.Linear(IN, OUT)), skewed()
    config, weight = ttq.TTQConfig({"layer": ttq.LayerPlan(ttq.TT(RANK))}), model.layer.weight.clone()
    with pytest.raises(ValueError, match="calibration is empty"):
        ttq.compress_(model, config, calibration=[])
    with pytest.raises(ValueError, match="random cores keep nothing"):
        ttq.compress_(model, config, init="random", calibration=[{"x": x}])
    with pytest.raises(RuntimeError):
        ttq.compress_(model, config, calibration=[{"x": x[:, 1:]}])
    assert type(model.layer) is nn.Linear and torch.equal(model.layer.weight, weight)
    assert not model.layer._forward_hooks
