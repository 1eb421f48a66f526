"""Answers to the exercises of chapter 9: how far thin layers can go, rows enough, and a bias that rides along."""

from tests.answers import Answers, Wrong

LARGEST_RANK = Answers(
    right={
        "one fewer, then divided": """
def largest_rank(inputs, outputs):
    return (inputs * outputs - 1) // (inputs + outputs)
""",
        "divided, rounded up, one fewer": """
def largest_rank(inputs, outputs):
    dense, pair = inputs * outputs, inputs + outputs
    return -(-dense // pair) - 1
""",
        "one rank after another": """
def largest_rank(inputs, outputs):
    rank = 0
    while (rank + 1) * (inputs + outputs) < inputs * outputs:
        rank += 1
    return rank
""",
    },
    wrong={
        "as many is not fewer": Wrong(
            """
def largest_rank(inputs, outputs):
    return inputs * outputs // (inputs + outputs)
""",
            "for 768 → 768 expected 383, got 384",
        ),
        "one too few": Wrong(
            """
def largest_rank(inputs, outputs):
    return (inputs * outputs - 1) // (inputs + outputs) - 1
""",
            "for 768 → 768 expected 383, got 382",
        ),
        "one fewer, whatever the remainder": Wrong(
            """
def largest_rank(inputs, outputs):
    return inputs * outputs // (inputs + outputs) - 1
""",
            "for 768 → 3072 expected",
        ),
        "a float": Wrong(
            """
def largest_rank(inputs, outputs):
    return inputs * outputs / (inputs + outputs)
""",
            "got 384.0",
        ),
        "a float that is whole": Wrong(
            """
def largest_rank(inputs, outputs):
    return float((inputs * outputs - 1) // (inputs + outputs))
""",
            "got 383.0",
        ),
        "half of a square layer": Wrong(
            """
def largest_rank(inputs, outputs):
    return min(inputs, outputs) // 2 - 1
""",
            "for 768 → 3072 expected",
        ),
        "the middle product counted too": Wrong(
            """
def largest_rank(inputs, outputs):
    rank = 0
    while (rank + 1) * (inputs + outputs + rank + 1) < inputs * outputs:
        rank += 1
    return rank
""",
            "for 768 → 768 expected 383",
        ),
        "never less than 1": Wrong(
            """
def largest_rank(inputs, outputs):
    return max(1, (inputs * outputs - 1) // (inputs + outputs))
""",
            "for 3 → 1 expected 0, got 1",
        ),
    },
)

COMPUTE_BOUND_ROWS = Answers(
    right={
        "solved for B": """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return math.ceil(4 * balance * inputs * outputs / gained) if gained > 0 else None
""",
        "in fractions": """
from fractions import Fraction

def compute_bound_rows(inputs, outputs, balance):
    a_row = Fraction(1, 2) / Fraction(balance) - Fraction(1, inputs) - Fraction(1, outputs)
    return None if a_row <= 0 else math.ceil(1 / a_row)
""",
        "by halves, where a number exists": """
def compute_bound_rows(inputs, outputs, balance):
    if 2 * inputs * outputs <= 4 * balance * (inputs + outputs):
        return None
    def enough(rows):
        moved = 4 * (rows * (inputs + outputs) + inputs * outputs)
        return 2 * rows * inputs * outputs >= balance * moved
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
""",
    },
    wrong={
        "rounded down": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return int(4 * balance * inputs * outputs / gained) if gained > 0 else None
""",
            "for 768 → 768 and 10 FLOPs a byte expected 22, got 21",
        ),
        "rounded down and one more": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return int(4 * balance * inputs * outputs / gained) + 1 if gained > 0 else None
""",
            "for 64 → 64 and 15.5 FLOPs a byte expected 992, got 993",
        ),
        "not whole": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return 4 * balance * inputs * outputs / gained if gained > 0 else None
""",
            "the whole number 22, got 21.09",
        ),
        "a float that is whole": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return -(-4 * balance * inputs * outputs // gained) if gained > 0 else None
""",
            "got 22.0",
        ),
        "a negative number where there is none": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return math.ceil(4 * balance * inputs * outputs / gained) if gained else None
""",
            "for 64 → 64 and 40 FLOPs a byte expected None, got -",
        ),
        "infinity where there is none": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - 4 * balance * (inputs + outputs)
    return math.ceil(4 * balance * inputs * outputs / gained) if gained > 0 else math.inf
""",
            "for 64 → 64 and 16 FLOPs a byte expected None, got inf",
        ),
        "only the weights move": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    return math.ceil(2 * balance)
""",
            "for 768 → 768 and 10 FLOPs a byte expected 22, got 20",
        ),
        "numbers taken for bytes": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = 2 * inputs * outputs - balance * (inputs + outputs)
    return math.ceil(balance * inputs * outputs / gained) if gained > 0 else None
""",
            "for 768 → 768 and 10 FLOPs a byte expected 22, got 6",
        ),
        "one FLOP for a product and its sum": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = inputs * outputs - 4 * balance * (inputs + outputs)
    return math.ceil(4 * balance * inputs * outputs / gained) if gained > 0 else None
""",
            "for 768 → 768 and 10 FLOPs a byte expected 22, got 45",
        ),
        "the first thousand tried": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    for rows in range(1, 1000):
        moved = 4 * (rows * (inputs + outputs) + inputs * outputs)
        if 2 * rows * inputs * outputs >= balance * moved:
            return rows
""",
            "FLOPs a byte expected 2016, got None",
        ),
        "square layers only": Wrong(
            """
def compute_bound_rows(inputs, outputs, balance):
    gained = inputs - 4 * balance
    return math.ceil(2 * balance * inputs / gained) if gained > 0 else None
""",
            "for 768 → 3072 and 30 FLOPs a byte expected",
        ),
    },
)

RIDE_ALONG = Answers(
    right={
        "a column of zeros": """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[-1] = 1
    return wider.T, first_bias, torch.cat([v, bias[None]]).T
""",
        "filled, in a list": """
def ride_along(u, v, bias):
    inputs, rank = u.shape
    weight = u.new_zeros(rank + 1, inputs)
    weight[:rank] = u.T
    first_bias = torch.eye(rank + 1, dtype=u.dtype)[rank]
    second = torch.column_stack([v.T, bias])
    return [weight, first_bias, second]
""",
        "a bias of another dtype": """
def ride_along(u, v, bias):
    first_bias = torch.zeros(u.shape[1] + 1)
    first_bias[-1] = 1
    return torch.cat([u, 0 * u[:, :1]], dim=1).T, first_bias, torch.cat([v, bias[None]]).T
""",
        "the bias rides in front": """
def ride_along(u, v, bias):
    weight = torch.cat([torch.zeros_like(u[:, :1]), u], dim=1).T
    first_bias = torch.zeros_like(weight[:, 0])
    first_bias[0] = 1
    return weight, first_bias, torch.cat([bias[None], v]).T
""",
    },
    wrong={
        "no constant": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    return wider.T, torch.zeros_like(wider[0]), torch.cat([v, bias[None]]).T
""",
            "the two layers: the values are off by",
        ),
        "a bias of ones": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    return wider.T, torch.ones_like(wider[0]), torch.cat([v, bias[None]]).T
""",
            "the two layers: the values are off by",
        ),
        "ones in the weight, so that inputs are added up": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
    return wider.T, torch.zeros_like(wider[0]), torch.cat([v, bias[None]]).T
""",
            "the two layers: the values are off by",
        ),
        "as (inputs, outputs)": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[-1] = 1
    return wider, first_bias, torch.cat([v, bias[None]])
""",
            "the weight must have shape (3, 6)",
        ),
        "the second not transposed": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[-1] = 1
    return wider.T, first_bias, torch.cat([v, bias[None]])
""",
            "the second weight must have shape (5, 3)",
        ),
        "two layers as they were": Wrong(
            """
def ride_along(u, v, bias):
    return u.T, torch.zeros_like(u[0]), v.T
""",
            "the weight must have shape (3, 6)",
        ),
        "the bias in the second layer": Wrong(
            """
def ride_along(u, v, bias):
    return u.T, v.T, bias
""",
            "the weight must have shape (3, 6)",
        ),
        "the last rank gives way to the bias": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[-2] = 1
    second = torch.cat([v, torch.zeros_like(bias[None])])
    second[-2] = bias
    return wider.T, first_bias, second.T
""",
            "the two layers: the values are off by",
        ),
        "the constant at the wrong end": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[0] = 1
    return wider.T, first_bias, torch.cat([v, bias[None]]).T
""",
            "the two layers: the values are off by",
        ),
        "one matrix, multiplied out": Wrong(
            """
def ride_along(u, v, bias):
    return (u @ v).T, bias
""",
            "expected three tensors: weight, bias, second weight",
        ),
        "the bias written into v": Wrong(
            """
def ride_along(u, v, bias):
    wider = torch.cat([u, torch.zeros_like(u[:, :1])], dim=1)
    first_bias = torch.zeros_like(wider[0])
    first_bias[-1] = 1
    second = torch.cat([v, bias[None]]).T
    v += bias
    return wider.T, first_bias, second
""",
            "must stay as",
        ),
    },
)

ANSWERS = {
    "largest_rank": LARGEST_RANK,
    "compute_bound_rows": COMPUTE_BOUND_ROWS,
    "ride_along": RIDE_ALONG,
}
