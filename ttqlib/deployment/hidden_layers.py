"""`split_hidden_layers`: wide hidden layers between thin matrices go through a graph in pieces that caches hold."""

from collections.abc import Iterator

import numpy as np
from onnx_ir import Model, Node, Value, node, tensor
from onnx_ir.convenience import replace_all_uses_with
from onnx_ir.passes.common import RemoveUnusedNodesPass

ACTIVATIONS = ("Gelu", "Relu", "Sigmoid", "Tanh")  # of each number alone
WIDTH = 768  # numbers a token of one piece; of 256 and 512 tokens and more, 3072 no longer stay near the processor
THIN = 8  # times narrower than the hidden layer have its two matrices to be, else their products take the time


def split_hidden_layers(model: Model) -> None:
    """Write f(z V) U as f(z V₁) U₁ + f(z V₂) U₂ + …, in place, where V and U are thin and their hidden layer is wide.

    Matrices of shape (r, hidden) and (hidden, r') are cut along `hidden`, into pieces of `WIDTH` or somewhat more. The
    answer is the same up to rounding. What is written and read again between two operations is so much smaller.
    """
    pieces: dict[tuple[Value, int], list[Value]] = {}  # layers may share a matrix
    for into, activation, out in list(_hidden_layers(model)):
        matrices = []
        for value, axis in ((into.inputs[1], 1), (out.inputs[1], 0)):
            if (value, axis) not in pieces:
                pieces[value, axis] = _cut(model, value, axis)
            matrices.append(pieces[value, axis])
        added = _in_pieces(into.inputs[0], activation, *matrices)
        model.graph.insert_before(into, added)
        _take_over(added[-1].outputs[0], out.outputs[0])
    RemoveUnusedNodesPass()(model)


def _hidden_layers(model: Model) -> Iterator[tuple[Node, Node, Node]]:
    """Product, activation and product of each wide hidden layer that nothing else reads, between thin matrices."""
    for activation in model.graph:
        into = activation.inputs[0].producer() if activation.op_type in ACTIVATIONS else None
        out = _only_reader(activation)
        if into is None or out is None or _only_reader(into) is None:
            continue
        first, second = _matrix(into), _matrix(out)
        if first and second and first[1] >= max(2 * WIDTH, THIN * first[0], THIN * second[1]):
            yield into, activation, out


def _only_reader(given: Node) -> Node | None:
    value = given.outputs[0]
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _matrix(product: Node) -> tuple[int, int] | None:
    """The shape of the constant matrix that a MatMul multiplies by."""
    constant = product.inputs[1].const_value if product.op_type == "MatMul" else None
    return tuple(constant.shape) if constant is not None and len(constant.shape) == 2 else None


def _take_over(new: Value, old: Value) -> None:
    """Also as an output of the graph, which keeps its name."""
    new.type, new.shape = old.type, old.shape
    new.name, old.name = old.name, f"{old.name}.whole"
    replace_all_uses_with(old, new, replace_graph_outputs=True)


def _cut(model: Model, value: Value, axis: int) -> list[Value]:
    matrix = value.const_value.numpy()
    parts = []
    for number, part in enumerate(np.array_split(matrix, matrix.shape[axis] // WIDTH, axis)):
        name = f"{value.name}.{axis}.{number}"
        parts.append(Value(name=name, const_value=tensor(np.ascontiguousarray(part), name=name)))
        model.graph.register_initializer(parts[-1])
    return parts


def _in_pieces(z: Value, activation: Node, into: list[Value], out: list[Value]) -> list[Node]:
    """The nodes of f(z V₁) U₁ + f(z V₂) U₂ + …, the sum last."""
    nodes, summands = [], []
    for v, u in zip(into, out, strict=True):
        nodes.append(node("MatMul", [z, v]))
        nodes.append(node(activation.op_type, nodes[-1].outputs, dict(activation.attributes)))
        nodes.append(node("MatMul", [*nodes[-1].outputs, u]))
        summands += nodes[-1].outputs
    return [*nodes, node("Sum", summands)]
