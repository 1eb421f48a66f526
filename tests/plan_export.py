"""What the plan builder's button gives, in whatever page it stands."""

import json

import pytest
from playwright.sync_api import Page
from torch import nn

import ttqlib as ttq
from tests import browser


def check(page: Page) -> None:
    """The plan that the button gives is that of the controls, and can be applied to a model with weights."""
    one = browser.explorers(page)
    one.locator(".ttq-plan-give").press("Enter")
    box = one.locator(".ttq-plan-json textarea")
    page.wait_for_function("box => box.value !== ''", arg=box.element_handle(), timeout=20_000)
    made, code = {}, one.locator(".ttq-plan-code textarea").input_value()
    config = ttq.TTQConfig.from_dict(json.loads(box.input_value()))
    bare = ttq.explore.skeleton({"layers": 2, "positions": 64, "vocabulary": 871, "intents": 21, "slots": 120})
    exec(code, {"ttq": ttq, "model": bare}, made)
    assert made["config"] == config and config.layers
    model = bare.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    ttq.compress_(model, config, init="random")
    kilobytes = float(one.locator(".ttq-readout").inner_text().split(" kB")[0].replace(",", ""))
    assert ttq.report(model).total.stored_bytes / 1000 == pytest.approx(kilobytes, rel=0.15)  # and config.json
    browser.controls_of(one)[-1].press("ArrowRight")
    page.wait_for_function("box => box.value === ''", arg=box.element_handle(), timeout=20_000)
