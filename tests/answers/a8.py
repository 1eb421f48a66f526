"""Assignment 8: answers about items, felt errors, the hull rule and the best choice."""

from tests.answers import Answers, Mistake


def listing(**parts: str) -> str:
    """A solution of question 1, parts of it written otherwise."""
    usual = {"left": "u[:, :rank] * s[:rank].sqrt()", "right": "s[:rank, None].sqrt() * vt[:rank]"}
    usual |= {
        "size": "(rank * sum(weight.shape) * number + 7) // 8 + 8",
        "made": "rounded(left, number) @ rounded(right, number)",
    }
    usual |= {"loss": "(weight - made).square().sum().item()", "pair": "(size, loss)"}
    usual |= {"outer": "for rank in ranks", "inner": "for number in bits"}
    return """
def items(weight, ranks, bits):
    found = []
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    {outer}:
        {inner}:
            left = {left}
            right = {right}
            size = {size}
            made = {made}
            loss = {loss}
            found.append({pair})
    return found
""".format(**usual | parts)


ITEMS = Answers(
    right={
        "bytes by ceil": listing(size="-(-(left.numel() + right.numel()) * number // 8) + 4 + 4"),
        "square matrices of roots": listing(
            left="u[:, :rank] @ s[:rank].sqrt().diag()", right="s[:rank].sqrt().diag() @ vt[:rank]"
        ),
        "pairs as lists, the loss by a norm": listing(
            loss="float(torch.linalg.norm(weight - made)) ** 2", pair="[size, loss]"
        ),
    },
    wrong={
        "all singular values on the left": Mistake(
            listing(left="u[:, :rank] * s[:rank]", right="vt[:rank]"),
            "the loss must be",
            "The product is the same before rounding. Which factor has columns of very different sizes now?",
        ),
        "not rounded": Mistake(
            listing(made="left @ right"), "the loss must be", "Where do the bits come into your loss?"
        ),
        "the product is rounded": Mistake(
            listing(made="rounded(left @ right, number)"),
            "the loss must be",
            "What is stored, the product or its factors?",
        ),
        "no steps": Mistake(
            listing(size="(rank * sum(weight.shape) * number + 7) // 8"),
            "bytes must be",
            "How does a reader of the file know how large a level is?",
        ),
        "bits for bytes": Mistake(
            listing(size="rank * sum(weight.shape) * number + 8"),
            "bytes must be",
            "How many codes of 2 bits fit into a byte?",
        ),
        "rounded down": Mistake(
            listing(size="rank * sum(weight.shape) * number // 8 + 8"),
            "bytes must be",
            "A stream of 30 bits: how many whole bytes does a file need?",
        ),
        "as many numbers as the weight": Mistake(
            listing(size="(weight.numel() * number + 7) // 8 + 8"),
            "bytes must be",
            "Which numbers are stored: those of the weight, or of two thin factors?",
        ),
        "the root of the squares": Mistake(
            listing(loss="torch.linalg.norm(weight - made).item()"),
            "the loss must be",
            "Is it the norm, or its square?",
        ),
        "a mean": Mistake(
            listing(loss="(weight - made).square().mean().item()"),
            "the loss must be",
            "Losses of layers of different sizes will be added. Is a mean of use there?",
        ),
        "what truncation loses alone": Mistake(
            listing(loss="s[rank:].square().sum().item()"),
            "the loss must be",
            "This is the loss before rounding. What do the bits add?",
        ),
        "bits first": Mistake(
            listing(outer="for number in bits", inner="for rank in ranks"),
            "must be",
            "In which order does the question want the pairs?",
        ),
        "loss first": Mistake(listing(pair="(loss, size)"), "bytes must be", "Which of the two comes first in a pair?"),
        "one for each rank": Mistake(
            listing(inner="for number in bits[:1]"),
            "expected a list of 6 pairs",
            "How many pairs do 2 ranks and 3 numbers of bits make?",
        ),
    },
)


def sensed(expression: str) -> str:
    return f"""
def felt(change, inputs, gradients):
    return {expression}
"""


FELT = Answers(
    right={
        "an einsum": sensed('0.5 * torch.einsum("no,oi,ni->n", gradients, change, inputs).square().sum()'),
        "row by row": sensed("sum(0.5 * float(g @ change @ x) ** 2 for x, g in zip(inputs, gradients))"),
        "the diagonal of a product": sensed("(gradients @ change @ inputs.T).diagonal().square().sum() / 2"),
    },
    wrong={
        "no half": Mistake(
            sensed("((gradients @ change) * inputs).sum(1).square().sum()"),
            "expected 0.02, got 0.04",
            "Which number stands before the sum?",
        ),
        "the sum squared": Mistake(
            sensed("0.5 * ((gradients @ change) * inputs).sum().square()"),
            "through a weight",
            "You add before you square. May two rows cancel each other?",
        ),
        "each entry squared": Mistake(
            sensed("0.5 * ((gradients @ change) * inputs).square().sum()"),
            "through a weight",
            "What is gᵀΔx of one row: one number, or as many as there are inputs?",
        ),
        "a mean over rows": Mistake(
            sensed("0.5 * ((gradients @ change) * inputs).sum(1).square().mean()"),
            "through a weight",
            "The gradients carry the mean over sentences in them already. What does the formula do with rows?",
        ),
        "every gradient with every input": Mistake(
            sensed("0.5 * (gradients @ change @ inputs.T).square().sum()"),
            "through a weight",
            "Your product has as many columns as rows. Which of its entries belong together?",
        ),
        "the gradients are left out": Mistake(
            sensed("0.5 * (inputs @ change.T).square().sum()"),
            "through a weight",
            "This is the error of the output. Does the loss feel all directions of it alike?",
        ),
        "the inputs are left out": Mistake(
            sensed("0.5 * (gradients @ change).square().sum()"),
            "expected 0.02, got 0.005",
            "Twice the input, twice the error. Where is x in your formula?",
        ),
        "the weight error": Mistake(
            sensed("0.5 * change.square().sum()"),
            "expected 0.02, got 0.005",
            "Two of your three arguments are never used.",
        ),
        "the change the other way round": Mistake(
            sensed("0.5 * ((gradients @ change.T) * inputs).sum(1).square().sum()"),
            "raised RuntimeError",
            "Of which shape is `change`? On which side of it do the gradients stand?",
        ),
        "one number for each row": Mistake(
            sensed("0.5 * ((gradients @ change) * inputs).sum(1).square()"),
            "expected one number",
            "What is summed over in the formula, after the square?",
        ),
    },
)


def climbing(**parts: str) -> str:
    """A solution of question 3, parts of it written otherwise."""
    usual = {"worth": "saved / cost", "order": "sorted(steps, key=lambda step: -step[0])", "stop": "break"}
    usual |= {
        "start": "sum(layer[0][0] for layer in layers)",
        "fits": "spent + cost > budget",
        "add": "chosen[number] += 1",
    }
    usual |= {"cost": "layer[place][0] - layer[place - 1][0]"}
    return """
def climb(layers, budget):
    steps = []
    for number, layer in enumerate(layers):
        for place in range(1, len(layer)):
            cost = {cost}
            saved = layer[place - 1][1] - layer[place][1]
            steps.append(({worth}, number, cost))
    chosen, spent = [0] * len(layers), {start}
    for _, number, cost in {order}:
        if {fits}:
            {stop}
        {add}
        spent += cost
    return chosen
""".format(**usual | parts)


CLIMB = Answers(
    right={
        "sorted backwards": climbing(order="sorted(steps, key=lambda step: step[0], reverse=True)"),
        "the best next step, again and again": """
def climb(layers, budget):
    chosen = [0 for _ in layers]
    while True:
        best = None
        for number, (layer, place) in enumerate(zip(layers, chosen)):
            if place + 1 < len(layer):
                (a, high), (b, low) = layer[place], layer[place + 1]
                if best is None or (high - low) / (b - a) > best[0]:
                    best = ((high - low) / (b - a), number)
        if best is None:
            return chosen
        chosen[best[1]] += 1
        if sum(layer[place][0] for layer, place in zip(layers, chosen)) > budget:
            chosen[best[1]] -= 1
            return chosen
""",
    },
    wrong={
        "it goes on with what still fits": Mistake(
            climbing(stop="continue"),
            "the hull rule stops at",
            "What does the rule do after the first step that does not fit?",
        ),
        "the largest saving first": Mistake(
            climbing(worth="saved"), "the hull rule stops at", "Is a step that saves much always worth its bytes?"
        ),
        "the cheapest step first": Mistake(
            climbing(worth="-cost"), "the hull rule stops at", "What does a step save, and for how many bytes?"
        ),
        "upside down": Mistake(
            climbing(worth="cost / saved"),
            "the hull rule stops at",
            "Your price is bytes for a unit of loss. Which end comes first?",
        ),
        "the worst first": Mistake(
            climbing(order="sorted(steps)"),
            "the hull rule stops at",
            "`sorted` begins with the smallest. Is that the best step?",
        ),
        "the cheap items cost nothing": Mistake(
            climbing(start="0"), "the hull rule stops at", "What has been spent before the first step?"
        ),
        "less than the budget": Mistake(
            climbing(fits="spent + cost >= budget"),
            "the hull rule stops at",
            "May a plan use its budget to the last byte?",
        ),
        "the whole price of an item": Mistake(
            climbing(cost="layer[place][0]"),
            "the hull rule stops at",
            "The cheaper item is given back. What does a step cost?",
        ),
        "one step too far": Mistake(
            climbing(fits="spent > budget"),
            "the hull rule stops at",
            "Weigh your choice. When is it too late to look at the budget?",
        ),
        "one step a layer": Mistake(
            climbing(add="chosen[number] = 1"),
            "the hull rule stops at",
            "A hull may have many steps. What is a layer's place after two of them?",
        ),
        "items instead of places": Mistake(
            climbing().replace("return chosen", "return [layer[k] for layer, k in zip(layers, chosen)]"),
            "expected a list with the place",
            "Return the places, 0 for the cheapest item of a layer.",
        ),
    },
)


def searching(**parts: str) -> str:
    """A solution of question 4, parts of it written otherwise."""
    usual = {"fits": "spent + cost <= budget", "keep": "min(one, longer.get(spent + cost, one))", "key": "spent + cost"}
    usual |= {"result": "min(found.values())[1]", "loss": "lost + loss", "chosen": "[*chosen, place]"}
    return """
def best(layers, budget):
    found = {{0: (0, [])}}
    for layer in layers:
        longer = {{}}
        for spent, (lost, chosen) in found.items():
            for place, (cost, loss) in enumerate(layer):
                one = ({loss}, {chosen})
                if {fits}:
                    longer[{key}] = {keep}
        found = longer
    return {result}
""".format(**usual | parts)


BEST = Answers(
    right={
        "by bytes that are left": """
def best(layers, budget):
    from functools import cache

    @cache
    def least(number, left):
        if number == len(layers):
            return 0, ()
        found = [(float("inf"), ())]
        for place, (cost, loss) in enumerate(layers[number]):
            if cost <= left:
                lost, others = least(number + 1, left - cost)
                found.append((loss + lost, (place, *others)))
        return min(found)

    return list(least(0, budget)[1])
""",
        "only what nobody beats": """
def best(layers, budget):
    found = [(0, 0, [])]
    for layer in layers:
        longer = sorted(
            (spent + cost, lost + loss, [*chosen, place])
            for spent, lost, chosen in found
            for place, (cost, loss) in enumerate(layer)
            if spent + cost <= budget
        )
        found = []
        for one in longer:
            if not found or one[1] < found[-1][1]:
                found.append(one)
    return found[-1][2]
""",
    },
    wrong={
        "greedy": Mistake(
            """
def best(layers, budget):
    chosen, spent = [0] * len(layers), sum(layer[0][0] for layer in layers)
    steps = sorted(
        ((layer[k + 1][1] - layer[k][1]) / max(1, layer[k + 1][0] - layer[k][0]), n, layer[k + 1][0] - layer[k][0])
        for n, layer in enumerate(layers)
        for k in range(len(layer) - 1)
    )
    for _, n, cost in steps:
        if spent + cost <= budget:
            chosen[n], spent = chosen[n] + 1, spent + cost
    return chosen
""",
            "loses 12, the best one 11",
            "This is the rule of question 3. Which choice of the three layers does it never look at?",
        ),
        "less than the budget": Mistake(
            searching(fits="spent + cost < budget"),
            "loses 12, the best one 11",
            "May a plan use its budget to the last byte?",
        ),
        "the first way to a number of bytes": Mistake(
            searching(keep="longer.get(spent + cost, one)"),
            "the best one",
            "Two choices may take the same bytes. Which of them do you keep?",
        ),
        "the last way to a number of bytes": Mistake(
            searching(keep="one"), "the best one", "Two choices may take the same bytes. Which of them do you keep?"
        ),
        "the fewest bytes": Mistake(
            searching(result="found[min(found)][1]"),
            "the best one 11",
            "You return the cheapest. What was to be least?",
        ),
        "the most bytes": Mistake(
            searching(result="found[max(found)][1]"), "the best one", "Does whoever spends most always lose least?"
        ),
        "the budget is for each layer": Mistake(
            searching(fits="cost <= budget"), "more than the budget", "Whose bytes does the budget limit?"
        ),
        "the losses of the last layer": Mistake(
            searching(loss="loss"), "the best one", "What has become of the losses of the layers before?"
        ),
        "places the other way round": Mistake(
            searching(chosen="[place, *chosen]"), "your choice", "The first place must belong to the first layer."
        ),
        "each layer by itself": Mistake(
            """
def best(layers, budget):
    share = budget / len(layers)
    chosen = []
    for layer in layers:
        fitting = [k for k, item in enumerate(layer) if item[0] <= share] or [0]
        chosen.append(min(fitting, key=lambda k: layer[k][1]))
    return chosen
""",
            "the best one 11",
            "Must every layer get the same share of the bytes?",
        ),
        "the choice with its loss": Mistake(
            searching(result="min(found.values())"),
            "expected a list with the place",
            "What is in front of the list that you return?",
        ),
        "bytes and losses exchanged": Mistake(
            searching().replace("place, (cost, loss)", "place, (loss, cost)"),
            "your choice",
            "Which of the two comes first in a pair?",
        ),
    },
)

ANSWERS = {"items": ITEMS, "felt": FELT, "climb": CLIMB, "best": BEST}
