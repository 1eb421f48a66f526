#!/usr/bin/env bash
# peft and torch's parametrizations: a trained LoRA adapter is merged into a weight that nobody keeps, without a word.
#
# Versions:    peft 0.21.2, torch 2.13.0, transformers 5.24.0, numpy 2.4.6; Python 3.11
# Expected:    merge_and_unload() gives the base model with the adapter in its weights, or says that it cannot: the
#              outputs stay as they were with the adapter.
# Behaviour:   Where a weight has a parametrization (a fake quantizer of quantization-aware training, say), it is
#              computed anew at each access. merge writes into the tensor that one access gave. No error, no warning,
#              also with safe_merge=True; the adapter is gone, the outputs are those of before the fine-tuning.
# Output seen: plain layer:         off by 0.00 of what the adapter does
#              parametrized layer:  off by 1.00, with safe_merge=True 1.00; warnings: 0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  peft==0.21.2 torch==2.13.0 transformers==5.24.0 numpy==2.4.6

cd "$work"
venv/bin/python - <<'PYTHON'
import copy
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrize


class Rounded(nn.Module):
    """To multiples of 1/16, the gradient straight through."""

    def forward(self, weight):
        return weight + ((weight * 16).round() / 16 - weight).detach()


class Net(nn.Module):
    def __init__(self, rounded: bool):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4)
        if rounded:
            parametrize.register_parametrization(self.layer, "weight", Rounded())

    def forward(self, x):
        return self.layer(x)


def lost(rounded: bool, safe: bool = False) -> float:
    """How far the merged model is from the adapted one, as a share of what the adapter does."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    before = Net(rounded)(x)
    adapted = get_peft_model(Net(rounded), LoraConfig(r=2, target_modules=["layer"], init_lora_weights=False))
    with torch.no_grad():
        wanted = adapted(x)
        merged = adapted.merge_and_unload(safe_merge=safe)(x)
    return ((merged - wanted).norm() / (wanted - before).norm()).item()


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plain, parametrized, safely = lost(False), lost(True), lost(True, safe=True)
said = [one for one in caught if "merge" in str(one.message).lower()]
print(f"plain layer:         off by {plain:.2f} of what the adapter does")
print(f"parametrized layer:  off by {parametrized:.2f}, with safe_merge=True {safely:.2f}; warnings: {len(said)}")
as_described = plain < 1e-3 and parametrized > 0.99 and safely > 0.99 and not said
sys.exit(0 if as_described else "changed: the adapter is merged, refused or lost otherwise than described")
PYTHON
