"""The state of the app: undo and redo, files and links that bring everything back, differences by name."""

import base64
import json
import re
import zlib
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ttqlib as ttq
from tests.explore.models import bare
from tests.explore.test_app_costs import plans
from ttqlib.explore.app.layers import Layers
from ttqlib.explore.app.sheet import LONGEST, History, Sheet, differences, restored

LAYERS = Layers(bare("bert"))


def plan(rest=8, **turns):
    made = LAYERS.plan({}, rest)
    for group, how in turns.items():
        made = LAYERS.turned(made, LAYERS.groups[group], **how)
    return made


@settings(max_examples=25, phases=[Phase.generate])
@given(plans(), st.text(max_size=20), st.booleans())
def test_a_file_and_a_link_bring_everything_back(case, source, beside):
    sheet = Sheet(source, case[1], ttq.TTQConfig(rest=16) if beside else None)
    assert Sheet.from_json(sheet.to_json()) == sheet
    link = sheet.to_link()
    assert Sheet.from_link(link) == sheet == Sheet.from_link(f" http://127.0.0.1:8866/?plan={link}\n")
    assert set(link) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


GOOD = Sheet("atis", ttq.TTQConfig()).to_json()
BAD = {
    "[]": "the file must be an object",
    "{": "no JSON file of the app",
    "[" * 100_000: "no JSON file of the app",
    "{}": "ttq_app must be 1, got None",
    GOOD.replace('"ttq_app": 1', '"ttq_app": true'): "ttq_app must be 1, got True",
    GOOD.replace('"source": "atis"', '"source": 3'): "source must be a string, got 3",
    GOOD.replace('"source": "atis", ', ""): "lacks the fields",
    GOOD.replace('"rest": 32', '"rest": 31'): "rest must be one of 32, 16, 8",
    " " * (LONGEST + 1): "at most 1,000,000 characters",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:40].strip() or "long")
def test_what_is_no_file_of_the_app_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=BAD[text]):
        Sheet.from_json(text)


def packed(text: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    "link", ["", "plan=", "ä", "AAAA", Sheet("atis", plan()).to_link()[:-9], packed(b"\xff"), packed(b" " * 10**7)]
)
def test_what_is_no_link_is_refused(link):
    with pytest.raises(ValueError, match=r"this link holds no plan|at most"):
        Sheet.from_link(link)


def test_undo_and_redo_walk_through_what_was():
    one, two, three = (Sheet("atis", ttq.TTQConfig(rest=rest)) for rest in (8, 16, 32))
    history = History(one).then(two).then(three)
    assert history.undo().now == two and history.undo().undo().now == one
    assert history.undo().undo().undo() == history.undo().undo()  # there is nothing before
    assert history.undo().redo() == history and history.redo() == history
    assert history.undo().then(one).future == () and history.then(three) == history
    assert history.undo().undo().redo().redo() == history
    assert History(one).turned(two.plan).now == two


@given(st.lists(st.sampled_from(["undo", "redo", 8, 16, 32]), max_size=30))
def test_no_step_is_lost(steps):
    history, walked = History(Sheet("a", ttq.TTQConfig(rest=8))), 0
    for step in steps:
        history = getattr(history, step)() if isinstance(step, str) else history.turned(ttq.TTQConfig(rest=step))
        whole = (*history.past, history.now, *history.future)
        assert all(one != other for one, other in pairwise(whole))
        walked = max(walked, len(whole))
    assert walked <= len(steps) + 1


def test_differences_are_named_by_group_or_by_layer():
    one = plan(words={"form": "low rank", "rank": 4}, attention={"form": "dense", "bits": 2})
    other = LAYERS.turned(plan(16, attention={"form": "dense", "bits": 2}), LAYERS.groups["attention"][:1], bits=4)
    assert list(differences(LAYERS, one, one)) == []
    assert list(differences(LAYERS, one, other)) == [
        ("words", "low rank, rank 4, float32", "as the rest"),
        (LAYERS.groups["attention"][0], "dense, 2 bits", "dense, 4 bits"),
        ("rest", "8 bits", "16 bits"),
    ]


def test_what_a_setting_does_not_tell_is_a_difference_too():
    name = LAYERS.groups["heads"][0]
    one, other = (LAYERS.plan({name: ttq.LSQ(4, per=per)}, 8) for per in ("tensor", "channel"))
    ((where, *texts),) = differences(LAYERS, LAYERS.plan({name: ttq.LayerPlan(quantize=ttq.LSQ(4))}, 8), other)
    assert where == name and texts[0] != texts[1] and one.layers != other.layers


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(ValueError, match="names 'nowhere', which is no layer of atis"):
        restored(Sheet("atis", ttq.TTQConfig({"nowhere": ttq.TT(3)})), LAYERS)
    name = next(name for names in LAYERS.groups.values() for name in names if "query" in name)
    with pytest.raises(ValueError, match=f"the plan lets {re.escape(name)} share with other layers"):
        restored(Sheet("atis", ttq.TTQConfig({name: ttq.Shared(3, "input", "query")})), LAYERS)
    shuffled = Sheet("bert", ttq.TTQConfig(dict(reversed(plan(words={"form": "dense", "bits": 4}).layers.items())), 8))
    assert restored(shuffled, LAYERS).plan == plan(words={"form": "dense", "bits": 4})
    assert json.loads(shuffled.to_json())["ttq_app"] == 1
