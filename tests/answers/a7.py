"""Assignment 7: answers about equivalent scales, folded, shared, found, trained and proved."""

from tests.answers import Answers, Mistake


def folded(gain="gain / s", bias="bias / s", weights="[w * s for w in weights]", first="s = log_scales.exp()") -> str:
    """A solution of question 1, parts of it written otherwise."""
    return f"""
def fold_norm(gain, bias, weights, log_scales):
    {first}
    return {gain}, {bias}, {weights}
"""


FOLD = Answers(
    right={
        "times the inverse": folded("gain * (-log_scales).exp()", "bias * (-log_scales).exp()"),
        "with diagonal matrices": folded(weights="[w @ torch.diag(s) for w in weights]"),
    },
    wrong={
        "the bias forgotten": Mistake(
            folded(bias="bias"),
            "of the bias the values are off",
            "A norm gives g n + b. Divide all of it by 2. What becomes of b?",
        ),
        "the other way round": Mistake(
            folded("gain * s", "bias * s", "[w / s for w in weights]"),
            "of the gain the values are off",
            "Which side is to become larger where s is 2, the column or what flows into it?",
        ),
        "logarithms taken for scales": Mistake(
            folded(first="s = log_scales"),
            "of the gain the values are off",
            "Which scale belongs to a logarithm of 0? Print what you divide by.",
        ),
        "rows of the weight": Mistake(
            folded(weights="[w * s[:, None] if len(w) == len(s) else w * s for w in weights]"),
            "of weight 0, 2 × 2, the values are off",
            "A weight is (out, in). Which of its axes belongs to what the norm gives?",
        ),
        "the first weight only": Mistake(
            folded(weights="[weights[0] * s, *weights[1:]]"),
            "of weight 1, 2 × 4, the values are off",
            "All layers behind the norm are given the divided channels. Which of them know of it?",
        ),
        "both divided": Mistake(
            folded(weights="[w / s for w in weights]"),
            "of weight 0, 2 × 2, the values are off",
            "Multiply one row of the new weight by the new gain. Does s cancel?",
        ),
        "the scale twice": Mistake(
            folded(weights="[w * s**2 for w in weights]"),
            "of weight 0, 2 × 2, the values are off",
            "How often is s in the product of the new gain and the new weight?",
        ),
        "one tensor of weights": Mistake(
            folded(weights="weights[0] * s"),
            "expected a list of 1 weights as the third",
            "There may be three layers behind a norm. In what do you return them?",
        ),
        "in place": Mistake(
            folded("gain.div_(s)"),
            "it changed its arguments",
            "What is in the tensor that you were given after your function has run?",
        ),
    },
)


def numbered(kv: str = "head // (heads // kv_heads)", entry: str = "kv * size + channel", made: str = "numbers") -> str:
    """A solution of question 2 that goes from head to head, parts of it written otherwise."""
    return f"""
def scale_numbers(heads, kv_heads, size):
    numbers = []
    for head in range(heads):
        kv = {kv}
        numbers += [{entry} for channel in range(size)]
    numbers = torch.tensor(numbers)
    return {made}
"""


HEADS = Answers(
    right={
        "head after head": numbered(),
        "by whole divisions": """
def scale_numbers(heads, kv_heads, size):
    inputs = torch.arange(heads * size)
    return inputs // size // (heads // kv_heads) * size + inputs % size
""",
    },
    wrong={
        "heads of values in turn": Mistake(
            numbered("head % kv_heads"),
            "input 2 has scale 0, got 2",
            "Which values does head 1 read? In your code it is the second.",
        ),
        "divided by the wrong number": Mistake(
            numbered("head // kv_heads % kv_heads"),
            "6 heads over 2 of values, of 3 channels: input 6 has scale 0, got 3",
            "With 6 heads over 2, how many heads share one of values? Which number do you divide by?",
        ),
        "as if each head had its own": Mistake(
            numbered("head"),
            "input 2 has scale 0, got 2",
            "How many scales are there? What is the largest number in your result?",
        ),
        "one head for all": Mistake(
            numbered("0"),
            "input 4 has scale 2, got 0",
            "Head 3 reads the second head of values. Where is it in your result?",
        ),
        "a scale for each head": Mistake(
            numbered(entry="kv"),
            "input 1 has scale 1, got 0",
            "A scale belongs to a channel of the values, not to a head of them. How many channels are there?",
        ),
        "channel by channel": Mistake(
            numbered(entry="channel * kv_heads + kv"),
            "input 1 has scale 1, got 2",
            "The channels of one head stand side by side. How far apart are two neighbours in your result?",
        ),
        "counted from 1": Mistake(
            numbered(made="numbers + 1"),
            "input 0 has scale 0, got 1",
            "What would log_scales[numbers] do with the last of your numbers?",
        ),
        "a table": Mistake(
            numbered(made="numbers.reshape(heads, size)"),
            "expected shape (8,), got (4, 2)",
            "The output layer has one axis of inputs. How many has your result?",
        ),
        "floats": Mistake(
            numbered(made="numbers.float()"),
            "expected whole numbers, torch.int64, got torch.float32",
            "Can a float be an index?",
        ),
        "a list": Mistake(
            numbered(made="numbers.tolist()"),
            "expected whole numbers, torch.int64, got list",
            "The question asks for a tensor.",
        ),
    },
)


def tried(
    change: str = "doubled[:, j] *= 2",
    alike: str = "torch.equal(after[:, k], 2 * base[:, k])",
    moved: str = "not torch.equal(after[:, k], base[:, k])",
    start: str = "x.clone()",
    result: str = "[hits[k][0] if len(hits[k]) == 1 and good[k] else -1 for k in range(n)]",
) -> str:
    """A solution of question 3, parts of it written otherwise."""
    return f"""
def proportional(layer, x):
    base = layer(x)
    n, inputs = base.shape[1], x.shape[1]
    hits, good = [[] for _ in range(n)], [True] * n
    for j in range(inputs):
        doubled = {start}
        {change}
        after = layer(doubled)
        for k in range(n):
            if {moved}:
                hits[k].append(j)
                good[k] = good[k] and {alike}
    return {result}
"""


FIND = Answers(
    right={
        "lists of what changed": tried(),
        "all at once": """
def proportional(layer, x):
    base, found = layer(x), []
    after = torch.stack([layer(x * (1 + torch.eye(x.shape[1])[j])) for j in range(x.shape[1])])
    changed = (after != base).any(1)
    twice = (after == 2 * base).all(1) & changed
    alone = changed.sum(0) == 1
    return torch.where(alone & twice.any(0), twice.int().argmax(0), -1)
""",
    },
    wrong={
        "a product goes to the last": Mistake(
            tried(result="[hits[k][-1] if hits[k] and good[k] else -1 for k in range(n)]"),
            "output 2 of 4: expected -1, got 1",
            "x₀x₁ doubles with x₀ and with x₁. How many inputs change it?",
        ),
        "whatever depends on one input": Mistake(
            tried(alike="True"),
            "output 1 of 4: expected -1, got 1",
            "x₁ + 1 depends on x₁ alone. What becomes of it when x₁ is doubled?",
        ),
        "one added, not doubled": Mistake(
            tried("doubled[:, j] += 1"),
            "output 0 of 4: expected 0, got -1",
            "2 x₀ is proportional to x₀. By which factor does it grow when you add 1?",
        ),
        "the sign turned": Mistake(
            tried("doubled[:, j] *= -1", "torch.equal(after[:, k], -base[:, k])"),
            "output 3 of 4: expected 1, got -1",
            "Scales are positive. Which function in the question lets only a positive scale pass?",
        ),
        "any constant factor": Mistake(
            tried(alike="torch.equal(after[:, k] / base[:, k] * base[:, k], after[:, k])"),
            "output 1 of 4: expected -1, got 1",
            "Your test divides and multiplies by the same number. When could it fail?",
        ),
        "four times is fine as well": Mistake(
            tried(alike="any(torch.equal(after[:, k], f * base[:, k]) for f in (2, 4))"),
            "output 1 of 8: expected -1, got",
            "Which function grows four times when its input doubles? Does a scale pass through it?",
        ),
        "what never changes goes to the first": Mistake(
            tried(result="[(hits[k] or [0])[0] if len(hits[k]) < 2 and good[k] else -1 for k in range(n)]"),
            "expected -1, got 0",
            "An output that is 0 for every input is twice itself. Does any input change it?",
        ),
        "one number for each input": Mistake(
            tried(result="[next((k for k in range(n) if hits[k] == [j] and good[k]), -1) for j in range(inputs)]"),
            "expected 4 numbers, one for each output, got [0, 3]",
            "There are two inputs and four outputs. Of which do you return a list?",
        ),
        "doubled in place": Mistake(
            tried(start="x"),
            "it changed its arguments",
            "Print x after your function has run. Which line has changed it?",
        ),
    },
)


def trained(
    rate: str = "0.03",
    steps: str = "200",
    step: str = "(high - low) / top",
    loss: str = "(x @ error.T).square().sum()",
    back: str = "/ alpha.exp()",
    returned: str = "best",
    sign: str = "loss",
) -> str:
    """A solution of question 4, parts of it written otherwise."""
    return f"""
def train_scales(weight, x, bits):
    top = 2**bits - 1
    alpha = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([alpha], lr={rate})
    best, least = torch.zeros(weight.shape[1]), float("inf")
    for _ in range({steps}):
        scaled = weight * alpha.exp()
        low = scaled.amin(1, keepdim=True).clamp(max=0)
        high = scaled.amax(1, keepdim=True).clamp(min=0)
        step = {step}
        zero = (-low / step).round().detach()
        codes = scaled / step
        codes = (codes + (codes.round() - codes).detach() + zero).clamp(0, top) - zero
        error = codes * step {back} - weight
        loss = {loss}
        if loss.item() < least:
            best, least = alpha.detach().clone(), loss.item()
        optimizer.zero_grad()
        ({sign}).backward()
        optimizer.step()
    return {returned}
"""


TRAIN = Answers(
    right={
        "by Adam": trained(),
        "with a smaller rate and more steps": trained(rate="0.02", steps="300"),
    },
    wrong={
        "never trained": Mistake(
            trained(steps="0"),
            "at 3 bits 100% of the squared error of round-to-nearest is left",
            "How many steps does your loop take? Print alpha at the end: at 0 this is round-to-nearest.",
        ),
        "uphill": Mistake(
            trained(sign="-loss", returned="alpha.detach()"),
            "of the squared error of round-to-nearest is left",
            "Print the loss of every tenth step. In which direction does it go?",
        ),
        "the step alone": Mistake(
            trained(loss="step.sum()", returned="alpha.detach()"),
            "of the squared error of round-to-nearest is left",
            "Your loss knows nothing of x. Are small steps an aim of their own?",
        ),
        "scales, not their logarithms": Mistake(
            trained(returned="best.exp() * 3"),
            "of the squared error of round-to-nearest is left",
            "The test takes the exponential of what you return. Which α would give no scale at all?",
        ),
        "the sign of all scales turned": Mistake(
            trained(returned="-best"),
            "of the squared error of round-to-nearest is left",
            "Columns that should grow shrink in your result. Where has the sign been turned?",
        ),
        "one number for all columns": Mistake(
            trained(returned="best.mean().expand(len(best))"),
            "of the squared error of round-to-nearest is left",
            "A scale that all columns of a row share: what does a grid that follows its range make of it?",
        ),
        "one for each output": Mistake(
            trained(returned="best.new_zeros(len(weight) + 1)"),
            "expected a logarithm for each input, shape (2,), got (3,)",
            "Columns are scaled, not rows. How many columns are there?",
        ),
        "a rate beyond all bounds": Mistake(
            trained(rate="1e4", returned="alpha.detach() / 0 * 0"),
            "some of the logarithms are not finite",
            "How far does Adam go in a step at your rate, and what is the exponential of that?",
        ),
        "a list": Mistake(
            trained(returned="best.tolist()"),
            "expected a logarithm for each input, shape (2,), got list",
            "The question asks for a tensor, which can be added and folded.",
        ),
    },
)


def proved(
    made: str = "copy.deepcopy(one).double().eval()",
    found: str = "(a - b).abs().max() / a.abs().max()",
) -> str:
    """A solution of question 5, parts of it written otherwise."""
    return f"""
def difference(model, other, ids):
    with torch.no_grad():
        made = [{made} for one in (model, other)]
        a, b = (one(ids).logits for one in made)
    return {found}
"""


PROVE = Answers(
    right={
        "as a tensor": proved(),
        "by the norm of infinity": proved(
            found="torch.dist(a, b, float('inf')).item() / a.flatten().norm(float('inf')).item()"
        ),
    },
    wrong={
        "in float32": Mistake(
            proved("copy.deepcopy(one).eval()"),
            "of a model and its folded copy in float32 expected",
            "How many digits has float32, and how large is what you measure?",
        ),
        "with dropout": Mistake(
            proved("copy.deepcopy(one).double()"),
            "called twice with the same arguments, it gave two answers",
            "Call your function twice. What in a model in train mode is drawn anew?",
        ),
        "the mean": Mistake(
            proved(found="(a - b).abs().mean() / a.abs().max()"),
            "twice as large expected 1, got",
            "One logit that is far off is hidden by a thousand that are right. Which word stands in the question?",
        ),
        "not relative": Mistake(
            proved(found="(a - b).abs().max()"),
            "twice as large expected 1, got",
            "Are 0.01 much? By what would you divide to know?",
        ),
        "relative to the other": Mistake(
            proved(found="(a - b).abs().max() / b.abs().max()"),
            "twice as large expected 1, got 0.5",
            "Which of the two models is the measure?",
        ),
        "relative at each place": Mistake(
            proved(found="((a - b).abs() / b.abs()).max()"),
            "twice as large expected 1, got 0.5",
            "A logit may be nearly 0. The largest difference is divided by one number. Which?",
        ),
        "squares": Mistake(
            proved(found="((a - b).square().max() / a.square().max() / 4)"),
            "twice as large expected 1, got 0.25",
            "Where does the question have a square, or a 4?",
        ),
        "the mean logit below": Mistake(
            proved(found="(a - b).abs().max() / a.abs().mean()"),
            "twice as large expected 1, got",
            "What is divided by is the largest logit. Which one did you take?",
        ),
        "the models themselves": Mistake(
            proved("one.double().eval()"),
            "it changed its arguments",
            "Which dtype has the model after your function has run?",
        ),
    },
)

ANSWERS = {"fold": FOLD, "heads": HEADS, "find": FIND, "train": TRAIN, "prove": PROVE}
