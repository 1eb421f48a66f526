#!/usr/bin/env bash
# ONNX Runtime rounds the inputs of a layer of which only the weights are quantized.
#
# Versions:    onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Linux, x86-64, Python 3.11
# Expected:    DequantizeLinear(int8 weights) and MatMul is arithmetic in float32. Optimizing the graph may change the
#              order of additions, so a relative error of about 1e-7 stays.
# Behaviour:   With default options both become one MatMulNBits of accuracy level 4, which rounds the inputs to 8 bits
#              in blocks of 32: 0.5 % of error. An input of 1 beside one of 1000 counts as 0. The model never asked for
#              it: it has no QuantizeLinear. The session option session.disable_quant_qdq=1 gives the float32 answer.
# Output seen: default options:    MatMulNBits, accuracy level 4; relative error 5.5e-03
#              disable_quant_qdq:  relative error 2.7e-07
#              1000 beside 31 ones: with default options the ones count for 0.00 of what they should
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

cd "$work"
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def model(weight: np.ndarray, scale: np.ndarray) -> bytes:
    """y = x · (scale · weight), the weight in int8, one scale for each column."""
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", weight.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", weight.shape[1]])
    stored = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(scale, "scale")]
    graph = helper.make_graph(nodes, "linear", [x], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def run(weight, scale, x, **entries) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = "optimized.onnx"
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    session = ort.InferenceSession(model(weight, scale), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def nodes() -> str:
    found = onnx.load("optimized.onnx").graph.node
    levels = [f", accuracy level {a.i}" for node in found for a in node.attribute if a.name == "accuracy_level"]
    return " and ".join(node.op_type for node in found) + "".join(levels)


random = np.random.default_rng(0)
weight = random.integers(-127, 128, (256, 64)).astype(np.int8)
scale = random.uniform(0.005, 0.015, 64).astype(np.float32)
x = random.standard_normal((8, 256)).astype(np.float32)
exact = x.astype(np.float64) @ (weight * scale.astype(np.float64))


def error(y: np.ndarray) -> float:
    return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))


default = error(run(weight, scale, x))
chosen = nodes()
plain = error(run(weight, scale, x, disable_quant_qdq="1"))
print(f"default options:    {chosen}; relative error {default:.1e}")
print(f"disable_quant_qdq:  relative error {plain:.1e}")

one_block, ones = weight[:32], np.ones((1, 32), np.float32)
with_ones, alone = ones.copy(), 0 * ones
with_ones[0, 0] = alone[0, 0] = 1000
wanted = (with_ones - alone) @ (one_block * scale)
given = run(one_block, scale, with_ones) - run(one_block, scale, alone)
share = float(np.linalg.norm(given) / np.linalg.norm(wanted))
print(f"1000 beside 31 ones: with default options the ones count for {share:.2f} of what they should")

as_described = "MatMulNBits" in chosen and 1e-3 < default < 2e-2 and plain < 2e-6 and share < 0.01
sys.exit(0 if as_described else "changed: the inputs are not rounded as described")
PYTHON
