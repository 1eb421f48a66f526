"""Every family of models through every step: it works, or it is refused before anything changes, as the page says."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ttqlib as ttq
from tests import family_page
from tests.families import EXPORTED, FAMILIES, GROUPS, OTHER_INPUTS, Family
from tests.family_steps import STEPS, expected, fits, outcome
from ttqlib.surgery import compress


def tried(family: Family, step: str) -> bool:
    """An export takes ten seconds, unless it is refused before there is a graph: the others are for the page's tool."""
    return step != "export_onnx" or family.name in EXPORTED or family.refused.get(step) in OTHER_INPUTS.values()


CELLS = [
    pytest.param(name, step, id=f"{name}-{step}") for name in FAMILIES for step in STEPS if tried(FAMILIES[name], step)
]


@pytest.mark.parametrize(("name", "step"), CELLS)
def test_a_step_works_or_is_refused_as_the_page_says(name, step, tmp_path, record_property):
    found = outcome(FAMILIES[name], step, tmp_path)
    assert fits(found, expected(FAMILIES[name], step)), found
    record_property("step of a family", found.partition(":")[0])


def test_there_are_forty_families_and_more():
    assert len({type(family.config()) for family in FAMILIES.values()}) >= 40
    assert len(FAMILIES) == sum(map(len, GROUPS.values()))  # no two rows have one name


def test_the_page_is_the_one_that_the_table_makes():
    assert family_page.PAGE.read_text(encoding="utf-8") == family_page.page()


# -------------------------------------------------------------------------------- a check that cannot fail is none


@pytest.fixture
def spoil(monkeypatch):
    """Replace a verb of the library while a step is tried."""
    return lambda name, function: monkeypatch.setattr(ttq, name, function)


def spoilt(step: str, folder) -> str:
    return outcome(FAMILIES["BertForTokenClassification"], step, folder)


def test_a_refusal_after_something_changed_is_a_failure(spoil, tmp_path):
    def half(model, config, **options):
        with torch.no_grad():
            model.classifier.bias.add_(1)
        return compress.compress_(model, ttq.TTQConfig({"nowhere": ttq.TT(2)}))

    spoil("compress_", half)
    assert "not before something changed" in spoilt("compress_", tmp_path)


def test_an_error_of_another_library_is_no_refusal(spoil, tmp_path):
    spoil("plan", lambda model, **options: torch.zeros(2).view(3))
    assert spoilt("plan", tmp_path).startswith("fails: RuntimeError")
    spoil("plan", lambda model, **options: int("no"))
    assert spoilt("plan", tmp_path).startswith("fails: not an error of ours")


def test_a_refusal_that_has_become_works_does_not_fit():
    assert fits("refuses: no way: do that", "refuses: no way")
    assert not fits("works", "refuses: no way") and not fits("refuses: no way", "works")
    assert not fits("refuses: another reason", "refuses: no way") and not fits("does not apply", "works")


# ------------------------------------------------------------------------------------------------ FLOPs of a report

COUNTED = [  # tied heads, layers that run twice, Conv1D, experts of which each token takes some
    "BertForTokenClassification",
    "BertForMaskedLM",
    "AlbertForMaskedLM",
    "GPT2LMHeadModel",
    "LlamaForCausalLM tied",
    "MixtralForCausalLM",
    "Qwen2MoeForCausalLM",
    "T5ForConditionalGeneration",
]


def counted(model, tokens: int) -> int:
    """What torch counts in one forward pass over different tokens, attention (which has no weights) left out."""
    ids = torch.arange(3, 3 + tokens)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    with torch.no_grad():
        model(**inputs)  # in which trains are merged
        with FlopCounterMode(display=False) as counter:
            model(**inputs)
    return sum(number for kind, number in counter.get_flop_counts()["Global"].items() if "attention" not in str(kind))


@pytest.mark.parametrize("name", COUNTED)
def test_flops_of_a_dense_model_are_those_that_torch_counts(name):
    model = FAMILIES[name].build()
    model.set_experts_implementation("eager") if "Moe" in name or "Mixtral" in name else None
    assert ttq.report(model, tokens=12).total.flops == counted(model, 12)


@pytest.mark.parametrize("name", COUNTED[:-1])  # T5 also looks at a weight, which is made for that, to see its dtype
def test_flops_of_a_compressed_model_are_those_that_torch_counts(name):
    model = FAMILIES[name].build()
    ttq.compress_(model, ttq.plan(model, rank=4))
    model.set_experts_implementation("eager") if "Moe" in name or "Mixtral" in name else None
    biased = [layer for layer in model.modules() if isinstance(layer, ttq.TTLinear) and layer.bias is not None]
    added = []  # by the last product of a layer, and not counted, as everywhere
    for layer in biased:
        layer.register_forward_hook(lambda layer, _, output: added.append(2 * output.numel()))
    found = counted(model, 12)
    assert ttq.report(model, tokens=12).total.flops == found - sum(added) // 2  # `counted` runs it twice
