"""Assignment 3: answers about a linear layer whose weight is an interleaved TT-matrix."""

from tests.answers import Answers, Mistake


def left_to_right(cost: str = "2 * rows * done * rest * r * n * m * s", start: str = "0", answer: str = "flops") -> str:
    """A solution of question 1, parts of it written otherwise."""
    return f"""
from math import prod


def left_to_right(in_modes, out_modes, ranks, rows):
    flops = {start}
    for k, (n, m) in enumerate(zip(in_modes, out_modes)):
        r, s = ranks[k], ranks[k + 1]
        done, rest = prod(out_modes[:k]), prod(in_modes[k + 1 :])
        flops += {cost}
    return {answer}
"""


LEFT_TO_RIGHT = Answers(
    right={
        "mode by mode": left_to_right(),
        "by recursion, from the last core": """
def left_to_right(in_modes, out_modes, ranks, rows):
    if not in_modes:
        return 0
    row_size = 1
    for n in in_modes[1:]:
        row_size = row_size * n
    here = 2 * rows * row_size * ranks[0] * in_modes[0] * out_modes[0] * ranks[1]
    return here + left_to_right(in_modes[1:], out_modes[1:], ranks[1:], rows * out_modes[0])
""",
    },
    wrong={
        "multiply-adds counted once": Mistake(
            left_to_right("rows * done * rest * r * n * m * s"),
            "96 FLOPs, got 48",
            "You have counted multiply-adds. How many FLOPs does the question count for each of them?",
        ),
        "the rows forgotten": Mistake(
            left_to_right("2 * done * rest * r * n * m * s"),
            "FLOPs, got",
            "Ask for 1 row and for 10. Should both cost the same?",
        ),
        "the right bond forgotten": Mistake(
            left_to_right("2 * rows * done * rest * r * n * m"),
            "96 FLOPs, got 72",
            "On paper, how many columns has the matrix of the first core? It leaves more behind than its output mode.",
        ),
        "the left bond forgotten": Mistake(
            left_to_right("2 * rows * done * rest * n * m * s"),
            "96 FLOPs, got 72",
            "On paper, how many rows has the matrix of the second core? It sums over more than its input mode.",
        ),
        "the mode of the core counted twice": Mistake(
            left_to_right("2 * rows * done * prod(in_modes[k:]) * r * n * m * s"),
            "96 FLOPs, got 240",
            "When it is the turn of core k, over which input mode does it sum? See how often n_k stands in your "
            "product.",
        ),
        "inputs done instead of outputs": Mistake(
            left_to_right("2 * rows * prod(in_modes[:k]) * rest * r * n * m * s"),
            "FLOPs, got",
            "What does a core leave in the batch in place of its input mode?",
        ),
        "the outputs that are done forgotten": Mistake(
            left_to_right("2 * rows * rest * r * n * m * s"),
            "got 72",
            "Your first step is right. What has the first core left in the batch that the second step has to carry?",
        ),
        "right to left": Mistake(
            left_to_right("2 * rows * prod(in_modes[:k]) * prod(out_modes[k + 1 :]) * r * n * m * s"),
            "got 80",
            "80 is what the other end would cost. When it is the turn of the first core, what is done already, and "
            "what is still to come?",
        ),
        "the formula of chapter 3": Mistake(
            left_to_right("2 * rows * (prod(in_modes[k:]) + prod(out_modes[: k + 1])) * r * s"),
            "FLOPs, got",
            "The cores of chapter 3 have one mode each. How many modes has a core here, and which sum does that "
            "change?",
        ),
        "the first core for nothing": Mistake(
            left_to_right("(k > 0) * 2 * rows * done * rest * r * n * m * s"),
            "got 48",
            "On paper both steps take the same. For which of the two does your code add 0?",
        ),
        "one step after the other, but not added": Mistake(
            left_to_right().replace("flops += ", "flops = "),
            "96 FLOPs, got 48",
            "Print `flops` after each core. Is the last of these numbers the cost of them all?",
        ),
        "two cores only": Mistake(
            """
def left_to_right(in_modes, out_modes, ranks, rows):
    (n1, n2), (m1, m2), r = in_modes, out_modes, ranks[1]
    return 2 * rows * r * m1 * n2 * (n1 + m2)
""",
            "raised ValueError",
            "For a layer of three cores, how many numbers does `in_modes` hold? And how many names do you unpack it "
            "into?",
        ),
        "the case on paper": Mistake(
            "\ndef left_to_right(in_modes, out_modes, ranks, rows):\n    return 96\n",
            "FLOPs, got 96",
            "96 is the cost of one layer with one row. Which of your lines reads `rows`?",
        ),
        "takes the lists apart": Mistake(
            """
def left_to_right(in_modes, out_modes, ranks, rows):
    in_modes, flops, done = list(in_modes), 0, rows
    for m in out_modes:
        n, rest = in_modes.pop(0), 1
        for later in in_modes:
            rest *= later
        r = ranks[0]
        if isinstance(ranks, list):
            ranks.pop(0)
        else:
            ranks = ranks[1:]
        flops += 2 * done * rest * r * n * m * ranks[0]
        done *= m
    return flops
""",
            "it changed its arguments",
            "`pop` takes numbers out of the list of whoever called you. What does the second call find in it?",
        ),
        "as words": Mistake(
            left_to_right(answer="f'{flops:,}'"),
            "expected 96 FLOPs, got '96'",
            "'96' is text. Which of '96' and '144' is the smaller one for Python?",
        ),
        "the library": Mistake(
            """
def left_to_right(in_modes, out_modes, ranks, rows):
    layer = ttq.TTLinear(6, 4, rank=2, in_modes=in_modes, out_modes=out_modes)
    return ttq.flops(layer, rows)
""",
            "write it yourself: TTLinear was called",
            "`ttq.flops` counts for you, and a `TTLinear` has another format. Which sizes does one product in this "
            "layer have?",
        ),
    },
)


def cheapest(**parts: str) -> str:
    """A solution of question 2, parts of it written otherwise."""
    usual = {"left": "2 * rows * prod(outs[:k]) * prod(ins[k + 1 :]) * size"}
    usual |= {"right": "2 * rows * prod(ins[:k]) * prod(outs[k + 1 :]) * size"}
    usual |= {
        "merge": "2 * prod(ins[:k]) * prod(outs[:k]) * size * (k > 0)",
        "last": "2 * rows * prod(ins) * prod(outs)",
    }
    usual |= {"best": "min", "answer": "name, costs[name]"}
    return """
from math import prod


def cheapest(ins, outs, ranks, rows):
    costs = {{"left to right": 0, "right to left": 0, "weight first": {last}}}
    for k in range(len(ins)):
        size = ranks[k] * ins[k] * outs[k] * ranks[k + 1]
        costs["left to right"] += {left}
        costs["right to left"] += {right}
        costs["weight first"] += {merge}
    name = {best}(costs, key=costs.get)
    return {answer}
""".format(**usual | parts)


CHEAPEST = Answers(
    right={
        "all in one loop": cheapest(),
        "the transposed layer, and a list of pairs": """
def cheapest(in_modes, out_modes, ranks, rows):
    merging, width = 0, 1
    for n, m, r, s in zip(in_modes, out_modes, ranks, ranks[1:]):
        if width > 1:
            merging = merging + 2 * width * r * (n * m * s)
        width = width * n * m
    pairs = [
        (left_to_right(in_modes, out_modes, ranks, rows), "left to right"),
        (left_to_right(in_modes[::-1], out_modes[::-1], ranks[::-1], rows), "right to left"),
        (merging + rows * 2 * width, "weight first"),
    ]
    pairs.sort()
    return [pairs[0][1], pairs[0][0]]
""",
    },
    wrong={
        "the dearest": Mistake(
            cheapest(best="max"),
            "but another order takes",
            "On paper right to left takes 80 FLOPs for one row. Why does your code prefer the order that it names?",
        ),
        "only the name": Mistake(
            cheapest(answer="name"),
            "expected one of the names",
            "You say which order is the cheapest. What does it cost?",
        ),
        "only the FLOPs": Mistake(
            cheapest(answer="costs[name]"),
            "expected one of the names",
            "You say what the cheapest order costs. Which of the three is it?",
        ),
        "in the other order": Mistake(
            cheapest(answer="costs[name], name"),
            "expected one of the names",
            "Both answers are there. Which one does the question put first?",
        ),
        "a name of its own": Mistake(
            cheapest(answer="'dense', costs[name]"),
            "expected one of the names",
            "The number is that of one of the three orders. Does any of them have the name that you return?",
        ),
        "merging for nothing": Mistake(
            cheapest(merge="0"),
            "weight first takes 144 FLOPs, got 48",
            "Your cost of weight first begins when W is there. What did it take to make W?",
        ),
        "merging for each row": Mistake(
            cheapest(merge="2 * rows * prod(ins[:k]) * prod(outs[:k]) * size * (k > 0)"),
            "another order takes 4,896",
            "How often is W made for a batch of 100 rows? Look for what has no B in it.",
        ),
        "the first core is merged, too": Mistake(
            cheapest(merge="2 * prod(ins[:k]) * prod(outs[:k]) * size"),
            "weight first takes 4,896 FLOPs, got 4,912",
            "You are 16 FLOPs above the number on paper. What is the first core multiplied with in your code?",
        ),
        "the last product forgotten": Mistake(
            cheapest(last="0"),
            "weight first takes 4,896 FLOPs, got 96",
            "96 is the cost of W alone. What has to be done with W for each row?",
        ),
        "right to left as left to right": Mistake(
            cheapest(right="2 * rows * prod(outs[:k]) * prod(ins[k + 1 :]) * size"),
            "another order takes 80",
            "In your code both directions cost the same. If the last core goes first, which modes are done when core "
            "k has its turn?",
        ),
        "right to left with inputs and outputs exchanged": Mistake(
            cheapest(right="2 * rows * prod(outs[:k]) * prod(outs[k + 1 :]) * size"),
            "right to left takes",
            "From the right, the cores before k have not had their turn. Are their modes in the batch still inputs, "
            "or outputs already?",
        ),
        "always weight first": Mistake(
            cheapest(answer="'weight first', costs['weight first']"),
            "weight first takes 144 FLOPs, but another",
            "Compare all three costs for one row, as on paper. Is weight first the smallest?",
        ),
        "never weight first": Mistake(
            cheapest(best="[costs.pop('weight first'), min][1]"),
            "but another order takes 4,896",
            "For a hundred rows there is an order that takes 4,896. Among how many orders does your code choose?",
        ),
        "multiply-adds counted once": Mistake(
            cheapest(answer="name, costs[name] // 2"),
            "takes 80 FLOPs, got 40",
            "The order is right, and its cost is half of that on paper. Which unit has question 1?",
        ),
        "the ranks turned round in place": Mistake(
            """
def cheapest(in_modes, out_modes, ranks, rows):
    forwards = left_to_right(in_modes, out_modes, ranks, rows)
    lists = [list(in_modes), list(out_modes), ranks if isinstance(ranks, list) else list(ranks)]
    for values in lists:
        values.reverse()
    costs = {"left to right": forwards, "right to left": left_to_right(*lists, rows)}
    merging, width = 0, 1
    for n, m, r, s in zip(in_modes, out_modes, lists[2][::-1], lists[2][-2::-1]):
        merging += 2 * width * n * m * r * s * (width > 1)
        width *= n * m
    costs["weight first"] = merging + 2 * rows * width
    name = min(costs, key=costs.get)
    return name, costs[name]
""",
            "it changed its arguments",
            "`reverse()` turns the caller's own list round. Print `ranks` before and after your call.",
        ),
    },
)


def forward(**parts: str) -> str:
    """A solution of question 3, parts of it written otherwise."""
    usual = {"start": "x.reshape(len(x), 1, 1, -1)", "cores": "cores", "sum": "bprnq,rnms->bpmsq"}
    usual |= {"join": "flatten(1, 2)", "answer": "batch.reshape(len(x), -1)"}
    return """
def forward(x, cores):
    batch = {start}
    for core in {cores}:
        b, p, r, q = batch.shape
        batch = batch.reshape(b, p, r, core.shape[1], q // core.shape[1])
        batch = torch.einsum("{sum}", batch, core).{join}
    return {answer}
""".format(**usual | parts)


FORWARD = Answers(
    right={
        "left to right": forward(),
        "plain products of matrices": """
def through(state, core):
    rows, done, bond, to_come = state.shape
    r, n, m, s = core.shape
    state = state.reshape(rows, done, r, n, to_come // n).movedim(4, 2).reshape(-1, r * n)
    state = (state @ core.reshape(r * n, m * s)).reshape(rows, done, to_come // n, m, s)
    return state.permute(0, 1, 3, 4, 2).reshape(rows, done * m, s, to_come // n)


def forward(x, cores):
    state = x.reshape(x.shape[0], 1, 1, x.shape[1])
    for core in cores:
        state = through(state, core)
    return state.reshape(x.shape[0], -1)
""",
        "right to left, with tensordot": """
def forward(x, cores):
    batch = x[:, :, None, None]  # (rows, inputs to come, bond, outputs done)
    for core in reversed(cores):
        r, n, m, s = core.shape
        batch = batch.reshape(len(x), -1, n, s, batch.shape[-1])
        batch = torch.tensordot(batch, core, dims=([2, 3], [1, 3]))  # (rows, p, q, r, m)
        batch = batch.permute(0, 1, 3, 4, 2).flatten(3)
    return batch[:, 0, 0]
""",
        "one einsum, a letter for each index": """
def forward(x, cores):
    d = len(cores)
    i, j, bond = range(1, d + 1), range(d + 1, 2 * d + 1), range(2 * d + 1, 3 * d + 2)
    y, shape = x.reshape(len(x), *[core.shape[1] for core in cores])[..., None], [0, *i, bond[0]]
    for k, core in enumerate(cores):
        after = [a for a in shape if a not in (i[k], bond[k])] + [j[k], bond[k + 1]]
        y, shape = torch.einsum(y, shape, core, [bond[k], i[k], j[k], bond[k + 1]], after), after
    return y.reshape(len(x), -1)
""",
    },
    wrong={
        "builds the weight": Mistake(
            """
def forward(x, cores):
    weight = torch.ones(1, 1, 1, dtype=x.dtype)
    for core in cores:
        weight = torch.einsum("ijr,rnms->injms", weight, core)
        weight = weight.flatten(2, 3).flatten(0, 1)
    return x @ weight[..., 0]
""",
            "never build a matrix of inputs × outputs",
            "Print the shape of `weight` after each core. How many numbers does it hold at the end, and when does x "
            "come in?",
        ),
        "the library": Mistake(
            "\ndef forward(x, cores):\n    return x @ ttq.tt_matrix_to_matrix(cores)\n",
            "write it yourself: tt_matrix_to_matrix was called",
            "That function multiplies all cores before x is there. What can x do with the first core alone?",
        ),
        "one row after another, each through the weight": Mistake(
            """
def forward(x, cores):
    weight = cores[0]
    for core in cores[1:]:
        weight = torch.einsum("rijs,snmt->rinjmt", weight, core).flatten(3, 4).flatten(1, 2)
    return torch.stack([row @ weight[0, ..., 0] for row in x])
""",
            "never build a matrix of inputs × outputs",
            "The rows come one by one, but W is there before the first of them. What could a row do with one core?",
        ),
        "the transposed weight": Mistake(
            forward(sum="bprnq,rmns->bpmsq"),
            "forward: raised",
            "Which axes has a core, in which order? Compare them with the letters of your einsum.",
        ),
        "cores from the wrong end": Mistake(
            forward(cores="cores[::-1]"),
            "forward: ",
            "i₁ is the most significant digit of an input. Which core does it belong to, and which core comes first "
            "in your loop?",
        ),
        "the digits in the wrong order": Mistake(
            forward(sum="bpnrq,rnms->bpmsq", start="x.reshape(len(x), 1, -1, 1)").replace(
                "batch.reshape(b, p, r, core.shape[1], q // core.shape[1])",
                "batch.reshape(b, p, -1, core.shape[0], 1)[:, :, : core.shape[1]]",
            ),
            "forward: ",
            "Number the inputs 0, 1, 2, … and cut them by your `reshape`. Which numbers have the same first digit?",
        ),
        "outputs joined in front": Mistake(
            forward(sum="bprnq,rnms->bmpsq"),
            "the values are off",
            "Is the new output digit more or less significant than those that are done? On which side of them do you "
            "put it?",
        ),
        "the bond in the wrong place": Mistake(
            forward(sum="bprnq,rnms->bpsmq", join="reshape(b, -1, core.shape[3], q // core.shape[1])"),
            "the values are off",
            "Write down the five axes after your einsum. Which ones does `reshape` run together, and which ones "
            "should it?",
        ),
        "an axis lost for one row": Mistake(
            forward(answer="batch.squeeze()"),
            "expected shape (1, 4), got (4,)",
            "`squeeze` takes away every axis of length 1. Which axis has that length when the batch is one row?",
        ),
        "the outputs as modes": Mistake(
            forward(answer="batch.reshape(len(x), *[core.shape[2] for core in cores])"),
            "expected shape (1, 4)",
            "You return the digits of j as axes of their own. How many axes should the output have?",
        ),
        "two cores only": Mistake(
            """
def forward(x, cores):
    first, second = cores
    x = x.reshape(len(x), first.shape[1], second.shape[1])
    return torch.einsum("bij,rimp,pjns->bmn", x, first, second).flatten(1)
""",
            "raised ValueError",
            "Your einsum is written for two cores. What would it look like for three, and what stays the same from "
            "core to core?",
        ),
        "the first row only": Mistake(
            forward(answer="batch[:1].reshape(1, -1)"),
            "got (1,",
            "Compare the number of rows in x and in your result. Which line loses them?",
        ),
        "in single precision": Mistake(
            forward(answer="batch.reshape(len(x), -1).float()"),
            "expected torch.float64, as it was given",
            "All that came in was float64. Which call in your last line makes float32 of it?",
        ),
        "changes x": Mistake(
            forward(start="x.div_(2).reshape(len(x), 1, 1, -1) * 2"),
            "it changed its arguments",
            "`div_` halves the caller's x, and the factor 2 repairs only your own copy. Print `x` before and after.",
        ),
        "takes the list apart": Mistake(
            forward().replace("for core in cores:", "while cores:\n        core = cores.pop(0)"),
            "it changed its arguments",
            "`cores.pop(0)` empties the caller's list. How many cores has the layer after one call?",
        ),
        "the case on paper": Mistake(
            "\ndef forward(x, cores):\n    return torch.tensor([[1.0, 7, 2, 10]]).double()\n",
            "expected shape",
            "(1, 7, 2, 10) is y for one x and two certain cores. Try another x.",
        ),
    },
)


def core_gradient(**parts: str) -> str:
    """A solution of question 4, parts of it written otherwise."""
    usual = {
        "before": "cores[:k]",
        "after": "cores[:k:-1]",
        "x": "x",
        "gradient": "gradient",
        "last": "bprnq,bpmsq->rnms",
    }
    usual |= {"push": "bprnq,rnms->bpmsq", "pull": "bpmsq,rnms->bprnq", "answer": "result"}
    return """
def core_gradient(x, gradient, cores, k):
    left = {x}.reshape(len(x), 1, 1, -1)
    for core in {before}:
        left = left.reshape(*left.shape[:3], core.shape[1], -1)
        left = torch.einsum("{push}", left, core).flatten(1, 2)
    right = {gradient}.reshape(len(x), -1, 1, 1)
    for core in {after}:
        right = right.reshape(len(x), -1, core.shape[2], *right.shape[2:])
        right = torch.einsum("{pull}", right, core).flatten(3)
    left = left.reshape(*left.shape[:3], cores[k].shape[1], -1)
    right = right.reshape(len(x), -1, cores[k].shape[2], *right.shape[2:])
    result = torch.einsum("{last}", left, right)
    return {answer}
""".format(**usual | parts)


CORE_GRADIENT = Answers(
    right={
        "from both ends": core_gradient(),
        "the left side and the right side merged": """
def core_gradient(x, gradient, cores, k):
    def merged(some, bond):
        product = torch.eye(bond, dtype=x.dtype)[:, None, None]
        for core in some:
            product = torch.einsum("rnms,sijt->rnimjt", product, core).flatten(3, 4).flatten(1, 2)
        return product

    left, right = merged(cores[:k], 1), merged(cores[k + 1 :], cores[k].shape[3])
    _, n, m, _ = cores[k].shape
    x = x.reshape(len(x), left.shape[1], n, right.shape[1])
    gradient = gradient.reshape(len(x), left.shape[2], m, right.shape[2])
    x = torch.einsum("bIiJ,aIOr->baOriJ", x, left)[:, 0]
    gradient = torch.einsum("bOoP,sJPc->bOosJc", gradient, right)[..., 0]
    return torch.einsum("bOriJ,bOosJ->rios", x, gradient)
""",
    },
    wrong={
        "through the gradient of the weight": Mistake(
            """
def core_gradient(x, gradient, cores, k):
    def merged(some, bond):
        product = torch.eye(bond, dtype=x.dtype)[:, None, None]
        for core in some:
            product = torch.einsum("rnms,sijt->rnimjt", product, core).flatten(3, 4).flatten(1, 2)
        return product

    left, right = merged(cores[:k], 1)[0], merged(cores[k + 1 :], cores[k].shape[3])[..., 0]
    _, n, m, _ = cores[k].shape
    whole = (x.T @ gradient).reshape(left.shape[0], n, right.shape[1], left.shape[1], m, right.shape[2])
    return torch.einsum("InJOmP,IOr,sJP->rnms", whole, left, right)
""",
            "never build a matrix of inputs × outputs",
            "`x.T @ gradient` is as large as W. Which sums can be done in x alone, and which in the gradient alone, "
            "before the two meet?",
        ),
        "by autograd": Mistake(
            """
def core_gradient(x, gradient, cores, k):
    cores = [core.clone().requires_grad_() for core in cores]
    forward(x, cores).backward(gradient)
    return cores[k].grad
""",
            "write it yourself: torch",
            "`backward` does the whole question. Draw the network of the layer and take out core k: what is connected "
            "with its four loose lines?",
        ),
        "by torch.autograd.grad": Mistake(
            """
from torch.autograd import grad


def core_gradient(x, gradient, cores, k):
    cores = [core.clone().requires_grad_() for core in cores]
    return grad(forward(x, cores), cores[k], gradient)[0]
""",
            "write it yourself: torch.autograd.grad was called",
            "`grad` is autograd as well, whatever name it is imported under. Which sums does the formula have for "
            "core k?",
        ),
        "of the first core always": Mistake(
            core_gradient(before="[]", after="cores[:0:-1]").replace("cores[k].shape", "cores[0].shape"),
            "on paper the gradient of core 1",
            "For k = 1 you return the gradient of core 0. Which of your lines depend on `k`?",
        ),
        "the cores on the right forgotten": Mistake(
            core_gradient(after="[]"),
            "expected shape",
            "Only the cores on the left are used. What do those on the right of k do to the gradient?",
        ),
        "the cores on the right in the wrong order": Mistake(
            core_gradient(after="cores[k + 1 :]"),
            "core_gradient: ",
            "The last axis of the gradient holds its last digit. Which of the cores on the right has to meet it first?",
        ),
        "counted from 1": Mistake(
            core_gradient(before="cores[: k - 1]", after="cores[: k - 1 : -1]").replace(
                "cores[k].shape", "cores[k - 1].shape"
            ),
            "core_gradient: ",
            "Try k = 0. Which cores does `cores[: k - 1]` take?",
        ),
        "of the sum of the outputs": Mistake(
            core_gradient(gradient="torch.ones_like(gradient)"),
            "the values are off",
            "You push ones through the cores. For which loss is ∂L/∂y made of ones?",
        ),
        "a mean over the rows": Mistake(
            core_gradient(answer="result / len(x)"),
            "the values are off",
            "Where does the formula divide by the number of rows? Who decides whether a loss is a mean?",
        ),
        "of the first row only": Mistake(
            core_gradient(x="(x * (torch.arange(len(x)) == 0)[:, None])"),
            "the values are off",
            "Set the first row of x to zero. Does your gradient become zero, and should it?",
        ),
        "in the other order of axes": Mistake(
            core_gradient(last="bprnq,bpmsq->rmns"),
            "core_gradient: ",
            "Compare the shape of your result with that of `cores[k]`. What do the letters behind the arrow say?",
        ),
        "a number for each row": Mistake(
            core_gradient(last="bprnq,bpmsq->brnms"),
            "expected shape (1, 2, 2, 1), got (1, 1",
            "All rows share one core. Which letter behind the arrow should have been summed over?",
        ),
        "the core itself counted in": Mistake(
            core_gradient(answer="result * cores[k]"),
            "the values are off",
            "Double core k. Does y then grow faster with it than before?",
        ),
        "in single precision": Mistake(
            core_gradient(answer="result.float()"),
            "expected torch.float64, as it was given",
            "The core is float64, its gradient has become float32. Which call did that?",
        ),
        "changes the gradient": Mistake(
            core_gradient(gradient="gradient.mul_(2)", answer="result / 2"),
            "it changed its arguments",
            "You halve the result, but the caller's `gradient` stays doubled. Which method wrote into it?",
        ),
    },
)


def one_line(body: str) -> str:
    return f"\ndef input_gradient(gradient, cores):\n    return {body}\n"


INPUT_GRADIENT = Answers(
    right={
        "the cores of the transpose": one_line("forward(gradient, [core.permute(0, 2, 1, 3) for core in cores])"),
        "from the last core to the first": """
def input_gradient(gradient, cores):
    batch = gradient[:, :, None, None]  # (rows, outputs to come, bond, inputs done)
    for core in reversed(cores):
        batch = batch.reshape(len(batch), -1, core.shape[2], *batch.shape[2:])
        batch = torch.einsum("bpmsq,rnms->bprnq", batch, core).flatten(3)
    return batch[:, 0, 0]
""",
    },
    wrong={
        "forward": Mistake(
            one_line("forward(gradient, cores)"),
            "input_gradient: ",
            "This multiplies ∂L/∂y with W. Which matrix stands in the formula?",
        ),
        "the bonds exchanged": Mistake(
            one_line("forward(gradient, [core.permute(3, 2, 1, 0) for core in cores])"),
            "input_gradient: ",
            "A transpose exchanges i and j. Which axes of a core hold them, and which hold the bonds?",
        ),
        "the cores turned round": Mistake(
            one_line("forward(gradient, [core.permute(3, 2, 1, 0) for core in reversed(cores)])"),
            "input_gradient: ",
            "Your train reads the digits from the last to the first. With which digit does `reshape` begin in the "
            "gradient?",
        ),
        "views instead of a transpose": Mistake(
            one_line(
                "forward(gradient, [core.reshape(len(core), core.shape[2], core.shape[1], -1) for core in cores])"
            ),
            "the values are off",
            "`reshape` leaves all numbers in their order. Try it on a 2 × 3 matrix: is the result its transpose?",
        ),
        "the first core only": Mistake(
            one_line("forward(gradient, [cores[0].transpose(1, 2), *cores[1:]])"),
            "input_gradient: ",
            "You have exchanged i₁ and j₁. Which pairs of digits are left?",
        ),
        "the weight built": Mistake(
            """
def input_gradient(gradient, cores):
    weight = cores[0]
    for core in cores[1:]:
        weight = torch.einsum("rijs,snmt->rinjmt", weight, core).flatten(3, 4).flatten(1, 2)
    return gradient @ weight[0, ..., 0].T
""",
            "never build a matrix of inputs × outputs",
            "The numbers are right, but W was built for them. Could you transpose it while it is still a train?",
        ),
        "by autograd": Mistake(
            """
def input_gradient(gradient, cores):
    inputs = 1
    for core in cores:
        inputs *= core.shape[1]
    x = torch.zeros(len(gradient), inputs, dtype=gradient.dtype, requires_grad=True)
    return torch.autograd.grad(forward(x, cores), x, gradient)[0]
""",
            "write it yourself: torch.autograd.grad was called",
            "Autograd applies Wᵀ for you. Predict first: what does one core of Wᵀ look like?",
        ),
        "the library": Mistake(
            one_line("gradient @ ttq.tt_matrix_to_matrix(cores).T"),
            "write it yourself: tt_matrix_to_matrix was called",
            "`tt_matrix_to_matrix` builds W so that `.T` can be written. What would `.T` mean for one core?",
        ),
        "the cores transposed for good": Mistake(
            """
def input_gradient(gradient, cores):
    for k in range(len(cores)):
        cores[k] = cores[k].transpose(1, 2)
    return forward(gradient, cores)
""",
            "it changed its arguments",
            "`cores[k] = …` changes the caller's list. What does the next call of `forward` compute with it?",
        ),
        "a mean over the rows": Mistake(
            one_line("forward(gradient, [core.transpose(1, 2) for core in cores]) / len(gradient)"),
            "the values are off",
            "Each row of x has its own gradient. Does it change when another row joins the batch?",
        ),
        "in single precision": Mistake(
            one_line("forward(gradient, [core.transpose(1, 2) for core in cores]).float()"),
            "expected torch.float64",
            "∂L/∂y came in float64. What does your last call make of ∂L/∂x?",
        ),
        "the case on paper": Mistake(
            one_line("torch.tensor([[2.0, 2, 4, 4]]).double()"),
            "expected shape",
            "(2, 2, 4, 4) belongs to one gradient. What should come back when it is doubled?",
        ),
    },
)


def descent(gradient: str = "2 * (forward(x, cores) - targets) / targets.numel()", rest: str = "") -> str:
    """A solution of question 6, parts of it written otherwise."""
    rest = rest or "return [core - rate * core_gradient(x, gradient, cores, k) for k, core in enumerate(cores)]"
    return f"""
def descent_step(x, targets, cores, rate):
    gradient = {gradient}
    {rest}
"""


DESCENT = Answers(
    right={
        "in a list": descent(),
        "all gradients first, then a tuple": """
def descent_step(x, targets, cores, rate):
    off = forward(x, cores) - targets
    gradients = [core_gradient(x, off, cores, k) for k in range(len(cores))]
    return tuple(torch.sub(core, g, alpha=2 * rate / off.numel()) for core, g in zip(cores, gradients))
""",
    },
    wrong={
        "one core after the other": Mistake(
            """
def descent_step(x, targets, cores, rate):
    cores = list(cores)
    for k in range(len(cores)):
        gradient = 2 * (forward(x, cores) - targets) / targets.numel()
        cores[k] = cores[k] - rate * core_gradient(x, gradient, cores, k)
    return cores
""",
            "core 1 (less its gradient at the old cores), the values are off",
            "When the gradient of core 1 is computed, which core 0 does it see: the old one, or the one that has "
            "moved?",
        ),
        "the gradients of cores that are new already": Mistake(
            """
def descent_step(x, targets, cores, rate):
    new = list(cores)
    gradient = 2 * (forward(x, cores) - targets) / targets.numel()
    for k in range(len(new)):
        new[k] = new[k] - rate * core_gradient(x, gradient, new, k)
    return new
""",
            "core 1 (less its gradient at the old cores), the values are off",
            "Print what `core_gradient` is given when k is 1. Are all of these the old cores?",
        ),
        "uphill": Mistake(
            descent("2 * (targets - forward(x, cores)) / targets.numel()"),
            "the values are off",
            "Compute the loss before and after your step. In which order does the derivative subtract y and t?",
        ),
        "the 2 forgotten": Mistake(
            descent("(forward(x, cores) - targets) / targets.numel()"),
            "the values are off",
            "What is the derivative of (y − t)² by y?",
        ),
        "the sum instead of the mean": Mistake(
            descent("2 * (forward(x, cores) - targets)"),
            "the values are off",
            "Repeat every row of the batch. Does the loss of the question change, and does your gradient?",
        ),
        "the mean over the rows only": Mistake(
            descent("2 * (forward(x, cores) - targets) / len(x)"),
            "the values are off",
            "The loss divides by B m. How many numbers is that for 1 row and 2 outputs, and by how many do you divide?",
        ),
        "the targets forgotten": Mistake(
            descent("2 * forward(x, cores) / targets.numel()"),
            "the values are off",
            "Let the targets be just what the layer gives. How far should the cores move, and how far do yours?",
        ),
        "no rate": Mistake(
            descent(rest="return [core - core_gradient(x, gradient, cores, k) for k, core in enumerate(cores)]"),
            "the values are off",
            "Call it with rate 0. Do the cores stay as they were?",
        ),
        "in place": Mistake(
            """
def descent_step(x, targets, cores, rate):
    gradient = 2 * (forward(x, cores) - targets) / targets.numel()
    steps = [rate * core_gradient(x, gradient, cores, k) for k in range(len(cores))]
    return [core.sub_(step) for core, step in zip(cores, steps)]
""",
            "it changed its arguments",
            "`sub_` writes into the caller's cores. Can the caller still go back to them?",
        ),
        "the gradients alone": Mistake(
            descent(rest="return [core_gradient(x, gradient, cores, k) for k in range(len(cores))]"),
            "the values are off",
            "These are slopes. What does the question want a new core to be made of?",
        ),
        "the first core only": Mistake(
            descent(rest="return [cores[0] - rate * core_gradient(x, gradient, cores, 0), *cores[1:]]"),
            "core 1 (less its gradient at the old cores), the values are off",
            "Print how far each core has moved. Which of them have learned nothing?",
        ),
        "by autograd": Mistake(
            """
def descent_step(x, targets, cores, rate):
    cores = [core.clone().requires_grad_() for core in cores]
    (forward(x, cores) - targets).square().mean().backward()
    return [core.detach() - rate * core.grad for core in cores]
""",
            "write it yourself: torch",
            "`backward` finds what your question 4 finds. What do you have to give to `core_gradient`?",
        ),
        "by an optimizer": Mistake(
            """
def descent_step(x, targets, cores, rate):
    cores = [core.clone().requires_grad_() for core in cores]
    optimizer = torch.optim.SGD(cores, lr=rate)
    torch.nn.functional.mse_loss(forward(x, cores), targets).backward()
    optimizer.step()
    return [core.detach() for core in cores]
""",
            "write it yourself: torch",
            "`SGD` needs gradients from autograd and takes the step for you. What does it subtract from each core?",
        ),
        "the loss, too": Mistake(
            descent(
                rest="return [c - rate * core_gradient(x, gradient, cores, k) for k, c in enumerate(cores)], gradient"
            ),
            "descent_step: ",
            "You return a pair. What would the caller get who takes it for the list of cores?",
        ),
        "a generator": Mistake(
            descent(rest="return (core - rate * core_gradient(x, gradient, cores, k) for k, core in enumerate(cores))"),
            "expected a list of 1 cores, got generator",
            "A generator has computed nothing yet, and can be read only once. How many cores can be counted in it?",
        ),
    },
)

ANSWERS = {
    "left_to_right": LEFT_TO_RIGHT,
    "cheapest": CHEAPEST,
    "forward": FORWARD,
    "core_gradient": CORE_GRADIENT,
    "input_gradient": INPUT_GRADIENT,
    "descent": DESCENT,
}
