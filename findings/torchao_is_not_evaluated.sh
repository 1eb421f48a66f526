#!/usr/bin/env bash
# torchao: inside nn.TransformerEncoderLayer a model in quantization-aware training is evaluated without quantization.
#
# Versions:    torchao 0.18.0, torch 2.13.0, numpy 2.4.6; CPU, Python 3.11
# Expected:    After quantize_(layer, QATConfig(…, step="prepare")) the two linear layers round their weights to 4 bits
#              in every forward pass. So eval mode shows what 4 bits cost, as train mode does (there is no dropout).
# Behaviour:   In eval mode without gradients nn.TransformerEncoderLayer takes a fast path, which reads .weight of its
#              linear layers and does not call them. It asks whether they have hooks, not whether they override forward,
#              as torchao's FakeQuantizedLinear does. The output is that of the float model to the last bit: an
#              evaluation during training reports the accuracy before quantization. Two ways out were seen:
#              torch.backends.mha.set_fastpath_enabled(False), or evaluating with gradients on.
# Output seen: linear1 is a FakeQuantizedLinear
#              train:                           differs from float by 2.1e-02
#              eval, with gradients:            differs from float by 2.1e-02
#              eval, no_grad:                   differs from float by 0.0e+00
#              eval, no_grad, no fast path:     differs from float by 2.1e-02
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  torch==2.13.0 torchao==0.18.0 numpy==2.4.6

cd "$work"
venv/bin/python 2>stderr.txt - <<'PYTHON' || { tail -n 5 stderr.txt >&2 && exit 1; } # torchao warns of GPU kernels
import sys

import torch
from torch import nn
from torchao.quantization import quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, dropout=0.0, batch_first=True)
x = torch.randn(2, 5, 64)
with torch.no_grad():
    expected = layer.eval()(x)  # (2, 5, 64), in float32

four_bits = QATConfig(weight_config=IntxFakeQuantizeConfig(torch.int4, group_size=32), step="prepare")
quantize_(layer, four_bits, filter_fn=lambda module, name: name in ("linear1", "linear2"))
print(f"linear1 is a {type(layer.linear1).__name__}")


def differs(label: str, *, train: bool = False, gradients: bool = False) -> float:
    with torch.set_grad_enabled(gradients):
        answer = layer.train(train)(x).detach()
    found = float((answer - expected).norm() / expected.norm())
    print(f"{label + ':':32} differs from float by {found:.1e}")
    return found


trained = differs("train", train=True)
with_gradients = differs("eval, with gradients", gradients=True)
evaluated = differs("eval, no_grad")
torch.backends.mha.set_fastpath_enabled(False)
slow = differs("eval, no_grad, no fast path")

as_described = evaluated == 0 and min(trained, with_gradients, slow) > 1e-3
sys.exit(0 if as_described else "changed: evaluation is quantized, or training is not")
PYTHON
