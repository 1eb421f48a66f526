"""Answers to the exercises of chapter 11: a pair folded, the gradient of α, AWQ's scale, and its best exponent."""

from tests.answers import Answers, Wrong

SCALED_PAIR = Answers(
    right={
        "along the last axis": """
def scaled_pair(gain, weight, scale):
    return gain / scale, weight * scale
""",
        "with diagonal matrices": """
def scaled_pair(gain, weight, scale):
    return torch.diag(1 / scale) @ gain, weight @ torch.diag(scale)
""",
    },
    wrong={
        "the other way round": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain * scale, weight / scale
""",
            "for a weight of 3 × 4, of the gain, the values are off",
        ),
        "both multiplied": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain * scale, weight * scale
""",
            "for a weight of 3 × 4, of the gain, the values are off",
        ),
        "the gain left as it is": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain, weight * scale
""",
            "for a weight of 3 × 4, of the gain, the values are off",
        ),
        "the weight left as it is": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain / scale, weight
""",
            "for a weight of 3 × 4, of the weight, the values are off",
        ),
        "the scale twice": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain / scale, weight * scale**2
""",
            "for a weight of 3 × 4, of the weight, the values are off",
        ),
        "rows where they can be": Wrong(
            """
def scaled_pair(gain, weight, scale):
    rows = weight.shape[0] == weight.shape[1]
    return gain / scale, weight * (scale[:, None] if rows else scale)
""",
            "for a weight of 4 × 4, of the weight, the values are off",
        ),
        "in place": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return gain.div_(scale), weight.mul_(scale)
""",
            "what it was given must stay as it was",
        ),
        "their product": Wrong(
            """
def scaled_pair(gain, weight, scale):
    return weight * gain
""",
            "expected two tensors, the gain and the weight, got Tensor",
        ),
    },
)

ALPHA_GRADIENT = Answers(
    right={
        "the boxed formula": """
def alpha_gradient(weight, effective, arriving):
    return (arriving * (weight - effective)).sum(0)
""",
        "column by column": """
def alpha_gradient(weight, effective, arriving):
    error = effective - weight
    return torch.stack([-(g @ e) for g, e in zip(arriving.T, error.T)])
""",
    },
    wrong={
        "the sign turned": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return (arriving * (effective - weight)).sum(0)
""",
            "for a weight of 3 × 4 the values are off",
        ),
        "one for each output": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return (arriving * (weight - effective)).sum(1)
""",
            "for a weight of 3 × 4 expected shape (4,), got (3,)",
        ),
        "not summed": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return arriving * (weight - effective)
""",
            "for a weight of 3 × 4 expected shape (4,), got (3, 4)",
        ),
        "the mean": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return (arriving * (weight - effective)).mean(0)
""",
            "for a weight of 3 × 4 the values are off",
        ),
        "the weight, as if nothing divided": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return (arriving * weight).sum(0)
""",
            "for a weight of 3 × 4 the values are off",
        ),
        "the error without what arrives": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    return (weight - effective).sum(0)
""",
            "for a weight of 3 × 4 the values are off",
        ),
        "by autograd": Wrong(
            """
def alpha_gradient(weight, effective, arriving):
    alpha = torch.zeros(weight.shape[1], dtype=weight.dtype, requires_grad=True)
    made = weight * alpha.exp() + (effective - weight)
    made = made / alpha.exp()
    return torch.autograd.grad(made, alpha, arriving)[0]
""",
            "it asks autograd for a gradient",
        ),
    },
)

AWQ_SCALE = Answers(
    right={
        "divided by the root": """
def awq_scale(magnitude, exponent):
    scale = magnitude**exponent
    return scale / (scale.max() * scale.min()).sqrt()
""",
        "the middle of the logarithms": """
def awq_scale(magnitude, exponent):
    logs = magnitude.log() * exponent
    return (logs - (logs.max() + logs.min()) / 2).exp()
""",
    },
    wrong={
        "not divided": Wrong(
            """
def awq_scale(magnitude, exponent):
    return magnitude**exponent
""",
            "for the exponent 0.5 the values are off",
        ),
        "the root forgotten": Wrong(
            """
def awq_scale(magnitude, exponent):
    scale = magnitude**exponent
    return scale / (scale.max() * scale.min())
""",
            "for the exponent 0.5 the values are off",
        ),
        "divided by the mean": Wrong(
            """
def awq_scale(magnitude, exponent):
    scale = magnitude**exponent
    return scale / scale.mean()
""",
            "for the exponent 0.5 the values are off",
        ),
        "divided by the largest": Wrong(
            """
def awq_scale(magnitude, exponent):
    scale = magnitude**exponent
    return scale / scale.max()
""",
            "for the exponent 0.5 the values are off",
        ),
        "the exponent as a factor": Wrong(
            """
def awq_scale(magnitude, exponent):
    scale = magnitude * exponent
    return scale / (scale.max() * scale.min()).sqrt()
""",
            "for the exponent 0.5 the values are off",
        ),
        "a root, whatever the exponent": Wrong(
            """
def awq_scale(magnitude, exponent):
    scale = magnitude**0.5
    return scale / (scale.max() * scale.min()).sqrt()
""",
            "for the exponent 0 the values are off",
        ),
    },
)

BEST = """
def best_exponent(weight, x, bits):
    recipe = ttq.GroupRTN(bits, per="channel", symmetric=False)
    magnitude = x.abs().mean(0)

    def cost(exponent):
        scale = magnitude**exponent
        scale = scale / (scale.max() * scale.min()).sqrt()
        scaled = weight * scale
        error = recipe.build(scaled)(scaled) / scale - weight
        return float((x @ error.T).square().sum())

    return min((number / 20 for number in range(20)), key=cost)
"""


def _but(old: str, new: str) -> str:
    """The right answer with one thing changed, which must be there."""
    assert old in BEST
    return BEST.replace(old, new)


BEST_EXPONENT = Answers(
    right={
        "the cost as a function": BEST,
        "with the moments of the inputs, in a loop": """
def best_exponent(weight, x, bits):
    recipe, moments = ttq.GroupRTN(bits, per="channel", symmetric=False), x.T @ x
    best, least = 0.0, None
    for number in range(20):
        scale = x.abs().mean(0) ** (number / 20)
        error = recipe.build(weight * scale)(weight * scale) / scale - weight
        cost = float(((error @ moments) * error).sum())
        if least is None or cost < least:
            best, least = number / 20, cost
    return best
""",
    },
    wrong={
        "by the error of the weight": Wrong(
            _but("(x @ error.T).square().sum()", "error.square().sum()"), "loses more of the outputs than p ="
        ),
        "the scale left in": Wrong(_but("/ scale - weight", "- weight"), "loses more of the outputs than p ="),
        "always a half": Wrong(
            """
def best_exponent(weight, x, bits):
    return 0.5
""",
            "loses more of the outputs than p =",
        ),
        "never scaled": Wrong(
            """
def best_exponent(weight, x, bits):
    return 0.0
""",
            "p = 0 loses more of the outputs",
        ),
        "the worst": Wrong(_but("return min(", "return max("), "loses more of the outputs than p ="),
        "always 8 bits": Wrong(_but("GroupRTN(bits,", "GroupRTN(8,"), "loses more of the outputs than p ="),
        "the number of the candidate": Wrong(
            _but(
                "return min((number / 20 for number in range(20)), key=cost)",
                "return 20 * min((number / 20 for number in range(20)), key=cost)",
            ),
            "expected one of 0, 0.05, …, 0.95, got",
        ),
        "the scale itself": Wrong(
            """
def best_exponent(weight, x, bits):
    return x.abs().mean(0) ** 0.5
""",
            "expected one number",
        ),
    },
)

ANSWERS = {
    "scaled_pair": SCALED_PAIR,
    "alpha_gradient": ALPHA_GRADIENT,
    "awq_scale": AWQ_SCALE,
    "best_exponent": BEST_EXPONENT,
}
