"""Wide hidden layers between thin matrices are cut into pieces, whose sum is the same answer; others stay whole."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import DataType, Graph, Model, Shape, TensorType, Value, node, serde, tensor
from onnxruntime import InferenceSession

from tests.cases import seeds
from ttqlib.deployment import hidden_layers


@pytest.fixture(autouse=True, scope="module")
def narrow():
    """Sixteen numbers are a wide hidden layer here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_layers, "WIDTH", 8)
        yield


def model(hidden=19, ranks=(2, 2), kind="Gelu", layers=1, read_twice=False, seed=0) -> Model:
    """Layers of the same two matrices over inputs of shape (B, T, rank), which may share what `read_twice` says."""
    random, attributes = np.random.default_rng(seed), {"approximate": "tanh"} if kind == "Gelu" else None
    matrices = []
    for name, shape in (("V", (ranks[0], hidden)), ("U", (hidden, ranks[1]))):
        values = tensor(random.normal(size=shape).astype(np.float32), name=name)
        matrices.append(Value(name=name, const_value=values, shape=values.shape, type=TensorType(DataType.FLOAT)))
    flow = Value(name="x", shape=Shape(("batch", "length", ranks[0])), type=TensorType(DataType.FLOAT))
    nodes, given_ = [], flow
    for _ in range(layers):
        into = node("MatMul", [flow, matrices[0]])
        active = node(kind, into.outputs, attributes)
        out = node("MatMul", [*active.outputs, matrices[1]])
        nodes += [into, active, out]
        flow = out.outputs[0]
    outputs = [flow, active.outputs[0]] if read_twice else [flow]
    for number, value in enumerate(outputs):
        value.name, value.type = f"answer{number}", TensorType(DataType.FLOAT)
    return Model(Graph([given_], outputs, nodes=nodes, initializers=matrices, opset_imports={"": 20}), ir_version=10)


def answers(given: Model, x: np.ndarray) -> np.ndarray:
    return InferenceSession(serde.serialize_model(given).SerializeToString()).run(["answer0"], {"x": x})[0]


def kinds(given: Model) -> Counter:
    return Counter(one.op_type for one in given.graph)


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 40), st.sampled_from(hidden_layers.ACTIVATIONS), st.integers(1, 3), st.integers(1, 4), seeds)
def test_pieces_add_up_to_the_same_answer(hidden, kind, layers, length, seed):
    given = model(hidden, kind=kind, layers=layers, seed=seed)
    x = np.random.default_rng(seed).normal(size=(2, length, 2)).astype(np.float32)
    expected = answers(given, x)
    hidden_layers.split_hidden_layers(given)
    pieces = hidden // 8
    assert kinds(given) == {"MatMul": 2 * pieces * layers, kind: pieces * layers, "Sum": layers}
    assert np.allclose(answers(given, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_layers_share_the_pieces_of_a_matrix_that_they_share():
    given = model(layers=3)
    hidden_layers.split_hidden_layers(given)
    stored = [value.const_value.shape for value in given.graph.initializers.values()]
    assert sum(np.prod(tuple(shape)) for shape in stored) == 2 * 19 * 2 and len(stored) == 4


@pytest.mark.parametrize(
    "whole",
    [{"hidden": 15}, {"ranks": (3, 2)}, {"ranks": (2, 3)}, {"kind": "Identity"}, {"read_twice": True}],
    ids=["narrow", "a matrix that is not thin", "another", "no activation", "read by others too"],
)
def test_other_layers_stay_whole(whole):
    given = model(**whole)
    before = kinds(given)
    hidden_layers.split_hidden_layers(given)
    assert kinds(given) == before and len(given.graph.initializers) == 2
