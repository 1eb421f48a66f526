"""What the model answers of the reflections say in numbers: the assignments' own solutions must say the same."""

from math import prod

import torch

import ttqlib as ttq
from tests.assignments.running import ASSIGNMENTS, about, answered, number, questions
from tests.hygiene import read
from ttqlib.check.assignments.interleaved import costs


def solutions(assignment: str, *names: str) -> tuple[dict, str]:
    """The functions of these questions as the notebook solves them, and its model answer to the reflection."""
    (path,) = (path for path in ASSIGNMENTS if number(path) == assignment)
    notebook, functions = read(path), {"torch": torch}
    for question in questions(answered(path)):
        if question.name in names:
            exec(notebook.cells[question.solution].source, functions)
    (answer,) = (cell.source for cell in notebook.cells if about(cell).get("grade_id") == "reflection")
    return functions, " ".join(answer.split())


def test_the_errors_of_a1_are_those_that_its_model_answer_says():
    functions, answer = solutions("a1", "multiply", "left_orthogonal", "norm", "tt_round", "error_bounds")
    (path,) = (path for path in ASSIGNMENTS if number(path) == "a1")
    (trains,) = (cell.source for cell in read(path).cells if cell.source.startswith("phase = "))
    exec(trains, functions)
    lost, ranks = {}, {}
    for name in ("sine", "noise"):
        square = functions["multiply"](functions[name], functions[name])
        size, tensor = functions["norm"](square), ttq.tt_to_tensor(square)
        off = (ttq.tt_to_tensor(functions["tt_round"](square, 3)) - tensor).norm() / size
        lost[name] = float(functions["error_bounds"](square, 3)[0] / size), float(off)
        unfoldings = (torch.linalg.svdvals(tensor.reshape(2**k, -1)) for k in range(1, 10))
        ranks[name] = max(int((values > 1e-10 * values[0]).sum()) for values in unfoldings)
    assert max(lost["sine"]) < 1e-14 and ranks == {"sine": 3, "noise": 10}
    least, off = lost["noise"]
    assert (
        f"costs {off:.1%} of the norm, and no rounding to rank 3 costs less than {least:.1%}".replace("%", " %")
        in answer
    )
    assert "no unfolding has more than three singular values" in answer and "up to ten singular values" in answer


def test_the_zero_points_of_a2_are_where_its_model_answer_says():
    functions, answer = solutions("a2", "start")
    draw = torch.Generator().manual_seed(0)
    for entries, said, expected in ((1000, "then z is 1", {1}), (100_000, "3 or 4", {3, 4})):
        weight = torch.randn(entries, generator=draw)
        weight[0] = 30
        assert said in answer and functions["best_start"](weight, 3)[1] in expected
    low, high = weight.min(), weight.max()
    assert "z would be 1 here, too" in answer and round(float(-low / (high - low) * 7)) == 1
    assert (
        "the zero point is 0" in answer and functions["best_start"](torch.randn(1000, generator=draw).relu(), 3)[1] == 0
    )


def test_the_costs_of_a3_are_those_that_its_model_answer_and_its_text_say():
    functions, answer = solutions("a3", "left_to_right", "cheapest")
    shape = ((12, 8, 8), (8, 8, 12), (1, 30, 30, 1))
    numbers = sum(prod(core) for core in zip(shape[2], shape[0], shape[1], shape[2][1:], strict=False))
    assert f"{numbers:,} numbers, {768**2 / numbers:.1f} times fewer than {768**2:,}" in answer
    name, one = functions["cheapest"](*shape, 1)
    million = f"{one / 1e6:.1f} million FLOPs, which is {one / (2 * 768**2):.1f} times the dense layer"
    assert f"For 1 row {name} is the cheapest, {million}" in answer
    name, many = functions["cheapest"](*shape, 1024)
    assert f"it is {name}, {many / 1e6:,.0f} million, {many / (2 * 1024 * 768**2) - 1:.0%}".replace("%", " %") in answer
    assert costs((2, 3), (2, 2), (1, 2, 1), 1) == {"left to right": 96, "right to left": 80, "weight first": 96 + 48}


def test_the_bytes_and_errors_of_a6_are_those_that_its_model_answer_says():
    functions, answer = solutions("a6", "binary", "ternary", "groups")
    weight, count = torch.randn(384, 384, generator=torch.Generator().manual_seed(0)), 384**2
    groups = count // 64
    sizes = {"One bit": count // 8 + 4 * 384, "Ternary": count // 4 + 4 * 384}
    sizes["Groups"] = count // 4 + 4 * groups + groups // 4
    for name, size in sizes.items():
        assert f"{name}: {size:,}" in answer and f"{4 * count / size:.1f} times" in answer, name
    codes, steps, zeros = functions["to_groups"](weight, 64, 2)
    levels = codes.float().unflatten(1, (-1, 64)) - zeros[..., None]
    kept = [signs * scale for signs, scale in (functions["binarize"](weight), functions["ternarize"](weight))]
    kept.append((levels * steps[..., None]).flatten(1))
    one, two, three = (f"{ttq.relative_error(weight, found):.0%}".replace("%", " %") for found in kept)
    assert f"The errors are about {one}, {two} and {three}." in answer
