"""Answers to the exercises of chapter 6: a rank for an error, a bias that repairs, a plan that fits."""

import copy

from tests.answers import Answers, Wrong

NAMES = {"copy": copy}

RANK_FOR = Answers(
    right={
        "from the top, what is kept": """
def rank_for(values, error):
    kept = values.square().cumsum(0) / values.square().sum()
    return 1 + int((kept < 1 - error**2 - 1e-14).sum())
""",
        "a loop": """
def rank_for(values, error):
    rank = 0
    while rank < len(values) and values[rank:].norm() > error * values.norm():
        rank += 1
    return rank
""",
        "squares against squares, as a tensor": """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0)
    return (lost > error**2 * lost[0] * (1 + 1e-12)).sum()
""",
    },
    wrong={
        "at most is taken for less than": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return int((lost >= error).sum())
""",
            "for 4 values from 3 to 3 and an error of at most 0.5 expected 3, got 4",
        ),
        "squares forgotten": Wrong(
            """
def rank_for(values, error):
    return 1 + int((values.cumsum(0) / values.sum() < 1 - error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most 0.2 expected 3, got 2",
        ),
        "the error's root": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return int((lost > error**0.5).sum())
""",
            "for 4 values from 8 to 1 and an error of at most ",
        ),
        "the error's square forgotten": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0) / values.square().sum()
    return int((lost > error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most ",
        ),
        "one too many": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return int((lost > error).sum()) + 1
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected 1, got 2",
        ),
        "one too few": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return int((lost[1:] > error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected 1, got 0",
        ),
        "relative to the largest": Wrong(
            """
def rank_for(values, error):
    return int((values > error * values[0]).sum())
""",
            "for 4 values from 3 to 3 and an error of at most 0.8 expected 2, got 4",
        ),
        "an absolute error": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt()
    return int((lost > error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected 1, got 4",
        ),
        "summed from the wrong end": Wrong(
            """
def rank_for(values, error):
    lost = values.square().cumsum(0).sqrt() / values.norm()
    return int((lost > error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most ",
        ),
        "the values that are kept": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return values[lost > error]
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected 1, got tensor(",
        ),
        "a float for a whole number": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return float((lost > error).sum())
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected the whole number 1, got 1.0",
        ),
        "a truth value": Wrong(
            """
def rank_for(values, error):
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt() / values.norm()
    return bool((lost > error).any())
""",
            "for 4 values from 8 to 1 and an error of at most 0.9 expected 1, got True",
        ),
        "squared in place": Wrong(
            """
def rank_for(values, error):
    lost = values.square_().flip(0).cumsum(0).flip(0)
    return int((lost > error**2 * lost[0]).sum())
""",
            "what it was given must stay as it was",
        ),
    },
)

CORRECTED_BIAS = Answers(
    right={
        "the mean of what is missing": """
def corrected_bias(weight, bias, other, inputs):
    missing = inputs @ weight + bias - inputs @ other
    return missing.mean(dim=0)
""",
        "least squares": """
def corrected_bias(weight, bias, other, inputs):
    ones = torch.ones(len(inputs), 1, dtype=inputs.dtype)
    return torch.linalg.lstsq(ones, inputs @ (weight - other) + bias).solution[0]
""",
    },
    wrong={
        "as it was": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "the wrong sign": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + inputs.mean(0) @ (other - weight)
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "without the old one": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return inputs.mean(0) @ (weight - other)
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "summed, not averaged": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + inputs.sum(0) @ (weight - other)
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "the wrong axis": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return (inputs @ weight + bias - inputs @ other).mean(dim=1)
""",
            "for 50 inputs of a 4 × 3 layer expected shape (3,), got (50,)",
        ),
        "one for all outputs": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + (inputs @ (weight - other)).mean()
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "a bias for each row": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + inputs @ (weight - other)
""",
            "for 50 inputs of a 4 × 3 layer expected shape (3,), got (50, 3)",
        ),
        "transposed, as nn.Linear keeps weights": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + inputs.mean(0) @ (weight - other).T
""",
            "raised RuntimeError",
        ),
        "the median": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return (inputs @ weight + bias - inputs @ other).median(dim=0).values
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "one row less in the mean": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias + inputs.sum(0) @ (weight - other) / (len(inputs) - 1)
""",
            "for 50 inputs of a 4 × 3 layer the values are off by",
        ),
        "changes the bias in place": Wrong(
            """
def corrected_bias(weight, bias, other, inputs):
    return bias.add_(inputs.mean(0) @ (weight - other))
""",
            "what it was given must stay as it was",
        ),
    },
)

FITTING_PLAN = Answers(
    right={
        "an interval that is halved": """
def fitting_plan(model, budget):
    low, high = 1, 64  # the file of low fits, that of high does not
    while high - low > 1:
        middle = (low + high) // 2
        small = ttq.compress_(copy.deepcopy(model), ttq.plan(model, middle), init="random")
        fits = ttq.report(small).total.stored_bytes <= budget
        low, high = (middle, high) if fits else (low, middle)
    return ttq.plan(model, low)
""",
        "from the top": """
def fitting_plan(model, budget):
    for rank in range(48, 0, -1):
        try:
            config = ttq.plan(model, rank)
        except ValueError:
            continue
        small = ttq.compress_(copy.deepcopy(model), config, init="random")
        if ttq.report(small).total.stored_bytes <= budget:
            return config
""",
    },
    wrong={
        "rank 1": Wrong(
            """
def fitting_plan(model, budget):
    return ttq.plan(model, 1)
""",
            "there is a larger rank",
        ),
        "ten hard-coded": Wrong(
            """
def fitting_plan(model, budget):
    return ttq.plan(model, 10)
""",
            "there is a larger rank",
        ),
        "one rank too many": Wrong(
            """
def fitting_plan(model, budget):
    best, rank = None, 1
    while True:
        try:
            config = ttq.plan(model, rank)
        except ValueError:
            return best
        small = ttq.compress_(copy.deepcopy(model), config, init="random")
        if ttq.report(small).total.stored_bytes > budget:
            return config
        best, rank = config, rank + 1
""",
            "the plan needs",
        ),
        "fewer bytes, not at most": Wrong(
            """
def fitting_plan(model, budget):
    best, rank = None, 1
    while True:
        try:
            config = ttq.plan(model, rank)
        except ValueError:
            return best
        small = ttq.compress_(copy.deepcopy(model), config, init="random")
        if ttq.report(small).total.stored_bytes >= budget:
            return best
        best, rank = config, rank + 1
""",
            "there is a larger rank",
        ),
        "numbers taken for bytes": Wrong(
            """
def fitting_plan(model, budget):
    best, rank = None, 1
    while True:
        try:
            config = ttq.plan(model, rank)
        except ValueError:
            return best
        small = ttq.compress_(copy.deepcopy(model), config, init="random")
        if ttq.count_parameters(small) > budget:
            return best
        best, rank = config, rank + 1
""",
            "the plan needs",
        ),
        "the layers alone": Wrong(
            """
def fitting_plan(model, budget):
    best = None
    for rank in range(1, 48):
        small = ttq.compress_(copy.deepcopy(model), ttq.plan(model, rank), init="random")
        trains = [m for m in small.modules() if isinstance(m, (ttq.TTLinear, ttq.TTMEmbedding))]
        if sum(4 * core.numel() for train in trains for core in train.cores) > budget:
            return best
        best = ttq.plan(model, rank)
""",
            "the plan needs",
        ),
        "fewer bits instead": Wrong(
            """
def fitting_plan(model, budget):
    return ttq.plan(model, 20, bits=2, rest=8)
""",
            "expected a plan in float32",
        ),
        "another rank for the words": Wrong(
            """
def fitting_plan(model, budget):
    return ttq.plan(model, rules={r"word_embeddings": ttq.TTM(2), r"encoder": ttq.TT(8)})
""",
            "expected one rank for all layers",
        ),
        "a rank, not a plan": Wrong(
            """
def fitting_plan(model, budget):
    return 8
""",
            "expected the plan that ttq.plan makes, got int",
        ),
        "a plan for another model": Wrong(
            """
def fitting_plan(model, budget):
    return ttq.TTQConfig({"bert.words": ttq.TTM(4)})
""",
            "the plan does not fit the model",
        ),
        "compresses the model itself": Wrong(
            """
def fitting_plan(model, budget):
    config = ttq.plan(model, 4)
    ttq.compress_(model, config)
    return config
""",
            "must stay as it was",
        ),
    },
)

ANSWERS = {"rank_for": RANK_FOR, "corrected_bias": CORRECTED_BIAS, "fitting_plan": FITTING_PLAN}
