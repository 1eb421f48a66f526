"""Answers to the exercises of chapter 10: two levels a row, the best three levels, a grid a token, room for words."""

from tests.answers import Answers, Wrong

BINARY_ROWS = Answers(
    right={
        "where": """
def binary_rows(weight):
    signs = torch.where(weight < 0, -1.0, 1.0)
    return signs * weight.abs().mean(dim=1, keepdim=True)
""",
        "row by row": """
def binary_rows(weight):
    rows = []
    for row in weight:
        alpha = row.abs().sum() / len(row)
        rows.append(torch.stack([alpha if entry >= 0 else -alpha for entry in row]))
    return torch.stack(rows)
""",
    },
    wrong={
        "one scale for all": Wrong(
            """
def binary_rows(weight):
    return weight.abs().mean() * torch.where(weight < 0, -1.0, 1.0)
""",
            "for rows of equal size the values are off by",
        ),
        "a scale for each column": Wrong(
            """
def binary_rows(weight):
    return weight.abs().mean(0) * torch.where(weight < 0, -1.0, 1.0)
""",
            "for rows of equal size a row holds more than −α and α",
        ),
        "sign(0) is 0": Wrong(
            """
def binary_rows(weight):
    return weight.abs().mean(1, keepdim=True) * weight.sign()
""",
            "for rows with zeros among their entries a row holds more than −α and α",
        ),
        "0 counts as minus": Wrong(
            """
def binary_rows(weight):
    return weight.abs().mean(1, keepdim=True) * torch.where(weight > 0, 1.0, -1.0)
""",
            "for rows with zeros among their entries a sign is wrong",
        ),
        "the root of the mean square": Wrong(
            """
def binary_rows(weight):
    return weight.square().mean(1, keepdim=True).sqrt() * torch.where(weight < 0, -1.0, 1.0)
""",
            "for rows of equal size the values are off by",
        ),
        "the mean of what is not zero": Wrong(
            """
def binary_rows(weight):
    alpha = weight.abs().sum(1, keepdim=True) / (weight != 0).sum(1, keepdim=True)
    return alpha * torch.where(weight < 0, -1.0, 1.0)
""",
            "for rows with zeros among their entries the values are off by",
        ),
        "divided by its size, NaN where all is zero": Wrong(
            """
def binary_rows(weight):
    alpha = weight.abs().mean(1, keepdim=True)
    return alpha * torch.where(weight / alpha < 0, -1.0, 1.0) * (alpha / alpha)
""",
            "for a row of zeros some of the result is not a number",
        ),
        "the rows are centred first": Wrong(
            """
def binary_rows(weight):
    centred = weight - weight.mean(1, keepdim=True)
    return centred.abs().mean(1, keepdim=True) * torch.where(centred < 0, -1.0, 1.0)
""",
            "for rows of equal size a sign is wrong",
        ),
        "the scales alone": Wrong(
            """
def binary_rows(weight):
    return weight.abs().mean(1)
""",
            "for rows of equal size expected a tensor of shape (6, 40), got (6,)",
        ),
        "signs written into the weight": Wrong(
            """
def binary_rows(weight):
    alpha = weight.abs().mean(1, keepdim=True)
    weight[weight < 0], weight[weight >= 0] = -1.0, 1.0
    return alpha * weight
""",
            "what it was given must stay as it was",
        ),
    },
)

BEST_TERNARY = Answers(
    right={
        "sorted and summed": """
def best_ternary(w):
    sizes, order = w.abs().sort(descending=True)
    gains = sizes.cumsum(0).square() / torch.arange(1, len(w) + 1)
    k = gains.argmax() + 1
    result = torch.zeros_like(w)
    result[order[:k]] = sizes[:k].mean() * w[order[:k]].sign()
    return result
""",
        "each size as a threshold": """
def best_ternary(w):
    best = torch.zeros_like(w)
    for threshold in w.abs():
        kept = w.abs() >= threshold
        candidate = w[kept].abs().mean() * w.sign() * kept
        if (candidate - w).square().sum() < (best - w).square().sum():
            best = candidate
    return best
""",
    },
    wrong={
        "the rule of thumb": Wrong(
            """
def best_ternary(w):
    kept = w.abs() > 0.7 * w.abs().mean()
    return w[kept].abs().mean().nan_to_num() * w.sign() * kept
""",
            "above the least",
        ),
        "two levels": Wrong(
            """
def best_ternary(w):
    return w.abs().mean() * w.sign()
""",
            "above the least",
        ),
        "a grid of thresholds": Wrong(
            """
def best_ternary(w):
    best = torch.zeros_like(w)
    for threshold in torch.linspace(0, 1, 20) * w.abs().max():
        kept = w.abs() > threshold
        candidate = w[kept].abs().mean().nan_to_num() * w.sign() * kept
        if (candidate - w).square().sum() < (best - w).square().sum():
            best = candidate
    return best
""",
            "above the least",
        ),
        "a grid of α": Wrong(
            """
def best_ternary(w):
    best = torch.zeros_like(w)
    for alpha in torch.linspace(0, 1, 200) * w.abs().max():
        candidate = alpha * (w / alpha).round().clamp(-1, 1).nan_to_num()
        if (candidate - w).square().sum() < (best - w).square().sum():
            best = candidate
    return best
""",
            "above the least",
        ),
        "the larger half is kept": Wrong(
            """
def best_ternary(w):
    kept = w.abs() >= w.abs().median()
    return w[kept].abs().mean() * w.sign() * kept
""",
            "above the least",
        ),
        "one kept too few": Wrong(
            """
def best_ternary(w):
    sizes, order = w.abs().sort(descending=True)
    k = int((sizes.cumsum(0).square() / torch.arange(1, len(w) + 1)).argmax())
    result = torch.zeros_like(w)
    result[order[:k]] = sizes[: max(k, 1)].mean() * w[order[:k]].sign()
    return result
""",
            "above the least",
        ),
        "the largest entries, not the largest sizes": Wrong(
            """
def best_ternary(w):
    values, order = w.sort(descending=True)
    gains = values.cumsum(0).square() / torch.arange(1, len(w) + 1)
    k = gains.argmax() + 1
    result = torch.zeros_like(w)
    result[order[:k]] = values[:k].abs().mean() * w[order[:k]].sign()
    return result
""",
            "above the least",
        ),
        "signs lost": Wrong(
            """
def best_ternary(w):
    sizes, order = w.abs().sort(descending=True)
    k = (sizes.cumsum(0).square() / torch.arange(1, len(w) + 1)).argmax() + 1
    result = torch.zeros_like(w)
    result[order[:k]] = sizes[:k].mean()
    return result
""",
            "above the least",
        ),
        "two scales": Wrong(
            """
def best_ternary(w):
    up, down = w > 0.6 * w.abs().mean(), w < -0.6 * w.abs().mean()
    return w[up].mean().nan_to_num() * up + w[down].mean().nan_to_num() * down
""",
            "expected the values −α, 0 and α only",
        ),
        "NaN where all is zero": Wrong(
            """
def best_ternary(w):
    candidates = []
    for threshold in w.abs():
        kept = w.abs() >= threshold
        candidates.append(w[kept].abs().mean() * w.sign() * kept / (w.abs().max() > 0))
    return min(candidates, key=lambda candidate: float((candidate - w).square().sum()))
""",
            "expected the values −α, 0 and α only, got [nan",
        ),
        "the scale alone": Wrong(
            """
def best_ternary(w):
    return w.abs().mean()
""",
            "expected a tensor of shape (40,)",
        ),
    },
)

QUANTIZE_TOKENS = Answers(
    right={
        "a safe divisor": """
def quantize_tokens(x, bits):
    largest = x.abs().amax(1, keepdim=True)
    steps = largest / (2 ** (bits - 1) - 1)
    safe = torch.where(steps > 0, steps, 1.0)
    return (x / safe).round() * steps
""",
        "token by token": """
def quantize_tokens(x, bits):
    high, tokens = 2 ** (bits - 1) - 1, []
    for token in x:
        step = float(token.abs().max()) / high
        tokens.append((token / step).round().clamp(-high, high) * step if step else token.clone())
    return torch.stack(tokens)
""",
    },
    wrong={
        "one step for all tokens": Wrong(
            """
def quantize_tokens(x, bits):
    step = x.abs().max() / (2 ** (bits - 1) - 1)
    return (x / step).round() * step
""",
            "for tokens of equal size the values are off by",
        ),
        "a step for each feature": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(0) / (2 ** (bits - 1) - 1)
    return (x / steps).round() * steps
""",
            "for tokens of equal size the values are off by",
        ),
        "NaN where a token is zero": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (x / steps).round() * steps
""",
            "for a token of zeros some of the result is not a number",
        ),
        "2^b − 1 levels on one side": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True) / (2**bits - 1)
    return ((x / steps.clamp(min=1e-30)).round() * steps)
""",
            "for tokens of equal size the values are off by",
        ),
        "divided by the lowest level": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / 2 ** (bits - 1)
    return (x / steps).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * steps
""",
            "for tokens of equal size the values are off by",
        ),
        "the largest entry, not the largest size": Wrong(
            """
def quantize_tokens(x, bits):
    high = 2 ** (bits - 1) - 1
    steps = x.amax(1, keepdim=True).clamp(min=1e-30) / high
    return (x / steps).round().clamp(-high - 1, high) * steps
""",
            "the values are off by",
        ),
        "codes": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    return (x / steps).round()
""",
            "for tokens of equal size the values are off by",
        ),
        "always eight bits": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    return (x / steps).round() * steps
""",
            "for 4 bits the values are off by",
        ),
        "rounded down": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    return (x / steps).floor() * steps
""",
            "for tokens of equal size the values are off by",
        ),
        "x changed in place": Wrong(
            """
def quantize_tokens(x, bits):
    steps = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    return x.div_(steps).round_().mul_(steps)
""",
            "what it was given must stay as it was",
        ),
    },
)

WORDS_RANK = Answers(
    right={
        "what is left, divided": """
def words_rank(dense, ratio, others, shape):
    left = dense // ratio - others
    return max(0, left // sum(shape))
""",
        "counting up": """
def words_rank(dense, ratio, others, shape):
    rank = 0
    while ratio * (others + (rank + 1) * (shape[0] + shape[1])) <= dense:
        rank += 1
    return rank
""",
    },
    wrong={
        "rounded to the nearest": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, round((dense / ratio - others) / sum(shape)))
""",
            "expected 88, got 89",
        ),
        "rounded up": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, -int((others - dense / ratio) // sum(shape)))
""",
            "for 90,852,880 bytes, 20×",
        ),
        "negative where nothing fits": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return (dense // ratio - others) // sum(shape)
""",
            "for 1,000,000 bytes, 50×, 30,000 bytes of others and a table of 900 × 100 expected 0, got -10",
        ),
        "four bytes a number": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, (dense // ratio - others) // (4 * sum(shape)))
""",
            "for 90,852,880 bytes, 20×",
        ),
        "the others forgotten": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return dense // ratio // sum(shape)
""",
            "for 90,852,880 bytes, 20×",
        ),
        "the whole table a rank": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, (dense // ratio - others) // (shape[0] * shape[1]))
""",
            "for 90,852,880 bytes, 20×",
        ),
        "only the larger side": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, (dense // ratio - others) // max(shape))
""",
            "for 90,852,880 bytes, 20×",
        ),
        "a share, not a rank": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(0, (dense / ratio - others) / sum(shape))
""",
            "expected the whole number",
        ),
        "no rank below one": Wrong(
            """
def words_rank(dense, ratio, others, shape):
    return max(1, (dense // ratio - others) // sum(shape))
""",
            "expected 0, got 1",
        ),
    },
)

ANSWERS = {
    "binary_rows": BINARY_ROWS,
    "best_ternary": BEST_TERNARY,
    "quantize_tokens": QUANTIZE_TOKENS,
    "words_rank": WORDS_RANK,
}
