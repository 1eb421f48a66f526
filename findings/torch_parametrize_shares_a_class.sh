#!/usr/bin/env bash
# torch.nn.utils.parametrize: take a parametrization off one layer, and its deep copies stop working.
#
# Versions:    torch 2.13.0, numpy 2.4.6; Python 3.11
# Expected:    A deep copy shares nothing with what it was made from. So removing the parametrization of the original,
#              or giving it one more, leaves the copy as it was.
# Behaviour:   Both are instances of one class, made for the original, and the parametrized weight is a property of that
#              class. Removing takes the property away from the copy too: it has no weight any more, and its own
#              parametrization cannot be removed either. One more on the original's bias gives the copy a property
#              without a tensor behind it. This meets whoever compares a quantized layer with a copy "before".
# Output seen: same class: True
#              original without it:       original works | copy raises AttributeError
#              one more on the original:  original works | copy raises KeyError
#              remove it from the copy after the original: raises AttributeError
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6

cd "$work"
venv/bin/python - <<'PYTHON'
import copy
import sys

import torch
from torch import nn
from torch.nn.utils import parametrize


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def pair() -> tuple[nn.Module, nn.Module]:
    original = nn.Linear(3, 2)
    parametrize.register_parametrization(original, "weight", Halved())
    return original, copy.deepcopy(original)


def outcome(action) -> str:
    try:
        action()
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "works"


x = torch.ones(1, 3)
original, twin = pair()
print("same class:", same := type(original) is type(twin))
assert twin.parametrizations.weight.original is not original.parametrizations.weight.original  # tensors are its own

parametrize.remove_parametrizations(original, "weight")
without = outcome(lambda: original(x)), outcome(lambda: twin(x))
print("original without it:       original {} | copy {}".format(*without))
again = outcome(lambda: parametrize.remove_parametrizations(twin, "weight"))

original, twin = pair()
parametrize.register_parametrization(original, "bias", Halved())
more = outcome(lambda: original(x)), outcome(lambda: twin(x))
print("one more on the original:  original {} | copy {}".format(*more))
print("remove it from the copy after the original:", again)

as_described = same and (without, more, again) == (
    ("works", "raises AttributeError"),
    ("works", "raises KeyError"),
    "raises AttributeError",
)
sys.exit(0 if as_described else "changed: copies are touched otherwise than described")
PYTHON
