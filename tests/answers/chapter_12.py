"""Answers to the exercises of chapter 12: what training takes, hulls, the loss that is felt, the fewest bytes."""

from tests.answers import Answers, Wrong


def costs(memory: str = "16 * numbers", sent: str = "2 * (workers - 1) / workers * 4 * numbers") -> str:
    return f"""
def training_costs(numbers, workers):
    return {memory}, {sent}
"""


TRAINING_COSTS = Answers(
    right={
        "by names": """
def training_costs(numbers, workers):
    weights = gradients = 4 * numbers
    moments = 2 * 4 * numbers
    part = gradients / workers
    return weights + gradients + moments, (workers - 1) * part + (workers - 1) * part
""",
        "one formula each": costs(),
        "a list": """
def training_costs(numbers, workers):
    return [numbers * 4 * 4, 8 * numbers - 8 * numbers / workers]
""",
    },
    wrong={
        "no moments": Wrong(costs(memory="8 * numbers"), "bytes in memory: the values are off by up to 8e+03"),
        "one moment": Wrong(costs(memory="12 * numbers"), "bytes in memory: the values are off by up to 4e+03"),
        "weights in float64": Wrong(costs(memory="20 * numbers"), "bytes in memory:"),
        "sent once": Wrong(costs(sent="(workers - 1) / workers * 4 * numbers"), "bytes sent: the values are off"),
        "all to all": Wrong(costs(sent="(workers - 1) * 4 * numbers * 2"), "bytes sent: the values are off"),
        "one worker sends, too": Wrong(costs(sent="8 * numbers"), "bytes sent: the values are off"),
        "bits": Wrong(costs(memory="128 * numbers"), "bytes in memory:"),
        "memory alone": Wrong(
            """
def training_costs(numbers, workers):
    return 16 * numbers
""",
            "expected two numbers",
        ),
    },
)

MONOTONE = """
def lower_hull(items):
    found = []
    for cost, loss in {order}:
        if found and loss >= found[-1][1]:
            continue
        {pops}
        found.append((cost, loss))
    return found
"""
POPS = """while len(found) > 1:
            (a, la), (b, lb) = found[-2:]
            if (la - lb) * (cost - b) {sign} (lb - loss) * (b - a):
                found.pop()
            else:
                break"""


def chain(order: str = "sorted(items)", sign: str = "<=") -> str:
    return MONOTONE.format(order=order, pops=POPS.format(sign=sign))


LOWER_HULL = Answers(
    right={
        "a monotone chain": chain(),
        "from each the steepest step": """
def lower_hull(items):
    here = min(items)
    found = [here]
    while True:
        better = [item for item in items if item[1] < here[1]]
        if not better:
            return found
        slope = lambda item: ((here[1] - item[1]) / (item[0] - here[0]), item[0])
        here = max(better, key=slope)
        found.append(here)
""",
    },
    wrong={
        "all that nobody beats": Wrong(MONOTONE.format(order="sorted(items)", pops="pass"), "an item above the line"),
        "unsorted": Wrong(chain(order="items"), "unsorted items"),
        "points of a straight edge stay": Wrong(chain(sign="<"), "items on one straight line"),
        "the upper hull": Wrong(chain(sign=">"), "an item above the line"),
        "up to the dearest": Wrong(chain().replace("loss >= found[-1][1]", "False"), "saves nothing"),
        "places": Wrong(chain().replace("return found", "return [items.index(item) for item in found]"), "got [0, 2]"),
        "the ends only": Wrong(
            """
def lower_hull(items):
    return [min(items), min(items, key=lambda item: (item[1], item[0]))]
""",
            "unsorted items",
        ),
        "sorted in place": Wrong(
            chain().replace("    found = []", "    items.sort()\n    found = []", 1), "must stay as it was"
        ),
    },
)


def kl(expression: str) -> str:
    return f"""
def predicted_kl(logits, change):
    p = logits.softmax(-1)
    mean = (p * change).sum(-1, keepdim=True)
    return {expression}
"""


PREDICTED_KL = Answers(
    right={
        "a variance": kl("0.5 * (p * (change - mean) ** 2).sum(-1).mean()"),
        "two sums": kl("0.5 * ((p * change**2).sum(-1) - mean[..., 0] ** 2).mean()"),
        "the matrix of each row": """
def predicted_kl(logits, change):
    total = 0.0
    for p, delta in zip(logits.softmax(-1), change):
        fisher = p.diag() - p[:, None] * p
        total += float(delta @ fisher @ delta) / 2
    return total / len(logits)
""",
    },
    wrong={
        "no half": Wrong(kl("(p * (change - mean) ** 2).sum(-1).mean()"), "for 1 sentence and 2 classes"),
        "the mean is not taken off": Wrong(kl("0.5 * (p * change**2).sum(-1).mean()"), "1 sentence and 2 classes"),
        "summed over sentences": Wrong(kl("0.5 * (p * (change - mean) ** 2).sum()"), "for 3 sentences and 2 classes"),
        "a mean over classes": Wrong(kl("0.5 * (p * (change - mean) ** 2).mean()"), "for 1 sentence and 2 classes"),
        "a plain variance": Wrong(kl("0.5 * change.var(-1, correction=0).mean()"), "for 1 sentence and 2 classes"),
        "logits for probabilities": Wrong(
            kl("0.5 * (p * (change - mean) ** 2).sum(-1).mean()").replace("logits.softmax(-1)", "logits"),
            "for 1 sentence and 2 classes",
        ),
        "softmax over sentences": Wrong(
            kl("0.5 * (p * (change - mean) ** 2).sum(-1).mean()").replace("softmax(-1)", "softmax(0)"),
            "for 1 sentence and 2 classes",
        ),
        "one for each sentence": Wrong(kl("0.5 * (p * (change - mean) ** 2).sum(-1)"), "expected shape ()"),
        "the divergence itself": Wrong(
            """
def predicted_kl(logits, change):
    p, q = logits.log_softmax(-1), (logits + change).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()
""",
            "for 1 sentence and 2 classes",
        ),
    },
)


def search(
    allowed: str = "lost(choice) <= allowed", key: str = "spent", result: str = "min(fitting, key=spent)"
) -> str:
    return f"""
from itertools import product


def fewest_bytes(layers, allowed):
    def spent(choice):
        return sum(layer[k][0] for layer, k in zip(layers, choice))

    def lost(choice):
        return sum(layer[k][1] for layer, k in zip(layers, choice))

    choices = list(product(*(range(len(layer)) for layer in layers)))
    fitting = [choice for choice in choices if {allowed}]
    return {result} if fitting else None
"""


FEWEST_BYTES = Answers(
    right={
        "all choices": search(),
        "losses one by one": """
def fewest_bytes(layers, allowed):
    best = {0: (0, [])}  # loss so far: the fewest bytes, and the choice
    for layer in layers:
        longer = {}
        for lost, (spent, choice) in best.items():
            for k, (cost, loss) in enumerate(layer):
                one = (spent + cost, choice + [k])
                if lost + loss <= allowed and (lost + loss not in longer or one < longer[lost + loss]):
                    longer[lost + loss] = one
        best = longer
    return min(best.values())[1] if best else None
""",
    },
    wrong={
        "less, not at most": Wrong(search(allowed="lost(choice) < allowed"), "are enough"),
        "the least loss": Wrong(search(result="min(fitting, key=lost)"), "are enough"),
        "a limit on bytes": Wrong(
            search(allowed="spent(choice) <= allowed", result="min(fitting, key=lost)"), "and a loss of"
        ),
        "the first that fits": Wrong(search(result="fitting[0]"), "are enough"),
        "items instead of places": Wrong(
            search(result="[layer[k] for layer, k in zip(layers, min(fitting, key=spent))]"), "expected the place"
        ),
        "the cheapest that do not lose more than a fair share": Wrong(
            """
def fewest_bytes(layers, allowed):
    share = allowed / len(layers)
    found = []
    for layer in layers:
        fits = [k for k, item in enumerate(layer) if item[1] <= share]
        if not fits:
            return None
        found.append(min(fits, key=lambda k: layer[k][0]))
    return found
""",
            "takes 10 bytes, 7 are enough",
        ),
        "never None": Wrong(
            search(result="min(fitting, key=spent)").replace(
                "if fitting else None", "if fitting else [0] * len(layers)"
            ),
            "expected None",
        ),
    },
)

ANSWERS = {
    "training_costs": TRAINING_COSTS,
    "lower_hull": LOWER_HULL,
    "predicted_kl": PREDICTED_KL,
    "fewest_bytes": FEWEST_BYTES,
}
