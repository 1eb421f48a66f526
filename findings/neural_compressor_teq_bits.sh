#!/usr/bin/env bash
# neural-compressor: TEQ at 3 bits rounds to 4 bits and stores that in 3: the model answers with other numbers.
#
# Versions:    neural_compressor_pt 3.10, torch 2.13.0, numpy 2.4.6; CPU, Python 3.11
# Expected:    TEQ trains one scale for each channel and folds it away. Before a step of training all scales are 1, so
#              that prepare and convert give what round-to-nearest gives at the same bits and groups.
# Behaviour:   At 4 bits they do. At 3 and at 2 bits a linear layer's outputs are off by more than their own size. The
#              code calls quant_tensor(weight, num_bits=bits, …), whose argument is `bits`, 4 where nothing is given;
#              a keyword that it does not know it ignores. So codes from 0 to 15 are written into fields of 3 bits. No
#              warning, no error.
# Output seen: 2 bits: outputs off by  33% with RTN, 101% with TEQ
#              3 bits: outputs off by  14% with RTN, 109% with TEQ
#              4 bits: outputs off by   6% with RTN,   6% with TEQ
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  neural_compressor_pt==3.10 torch==2.13.0 numpy==2.4.6

cd "$work"
venv/bin/python 2>stderr.txt - <<'PYTHON' || { tail -n 5 stderr.txt >&2 && exit 1; } # it logs every layer
import sys

import torch
from neural_compressor.torch.quantization import RTNConfig, TEQConfig, convert, prepare
from torch import nn


def off(config: type, bits: int, **own) -> float:
    """By how much the outputs of a norm and a linear layer differ from those in float, relative to their size."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 96, bias=False)).eval(), torch.randn(50, 64)
    expected = model(x).detach()
    settings = config(bits=bits, group_size=32, use_sym=False, white_list=[nn.Linear], **own)
    made = convert(prepare(model, settings, example_inputs=x))
    return float((made(x).detach() - expected).norm() / expected.norm())


found = {bits: (off(RTNConfig, bits), off(TEQConfig, bits, absorb_to_layer={"0": ["1"]})) for bits in (2, 3, 4)}
for bits, (plain, scaled) in found.items():
    print(f"{bits} bits: outputs off by {plain:4.0%} with RTN, {scaled:4.0%} with TEQ")

as_described = all(found[bits][1] > 2 * found[bits][0] for bits in (2, 3)) and found[4][1] < 1.1 * found[4][0]
sys.exit(0 if as_described else "changed: TEQ rounds to the bits that it is told, or to others at 4")
PYTHON
