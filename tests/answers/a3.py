"""Assignment 3: answers about a linear layer whose weight is an interleaved TT-matrix."""

from tests.answers import Answers, Wrong


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
        "multiply-adds counted once": Wrong(left_to_right("rows * done * rest * r * n * m * s"), "96 FLOPs, got 48"),
        "the rows forgotten": Wrong(left_to_right("2 * done * rest * r * n * m * s"), "FLOPs, got"),
        "the right bond forgotten": Wrong(left_to_right("2 * rows * done * rest * r * n * m"), "96 FLOPs, got 72"),
        "the left bond forgotten": Wrong(left_to_right("2 * rows * done * rest * n * m * s"), "96 FLOPs, got 72"),
        "the mode of the core counted twice": Wrong(
            left_to_right("2 * rows * done * prod(in_modes[k:]) * r * n * m * s"), "96 FLOPs, got 240"
        ),
        "inputs done instead of outputs": Wrong(
            left_to_right("2 * rows * prod(in_modes[:k]) * rest * r * n * m * s"), "FLOPs, got"
        ),
        "the outputs that are done forgotten": Wrong(left_to_right("2 * rows * rest * r * n * m * s"), "got 72"),
        "right to left": Wrong(
            left_to_right("2 * rows * prod(in_modes[:k]) * prod(out_modes[k + 1 :]) * r * n * m * s"), "got 80"
        ),
        "the formula of chapter 3": Wrong(
            left_to_right("2 * rows * (prod(in_modes[k:]) + prod(out_modes[: k + 1])) * r * s"), "FLOPs, got"
        ),
        "the first core for nothing": Wrong(
            left_to_right("(k > 0) * 2 * rows * done * rest * r * n * m * s"), "got 48"
        ),
        "one step after the other, but not added": Wrong(
            left_to_right().replace("flops += ", "flops = "), "96 FLOPs, got 48"
        ),
        "two cores only": Wrong(
            """
def left_to_right(in_modes, out_modes, ranks, rows):
    (n1, n2), (m1, m2), r = in_modes, out_modes, ranks[1]
    return 2 * rows * r * m1 * n2 * (n1 + m2)
""",
            "raised ValueError",
        ),
        "the case on paper": Wrong(
            "\ndef left_to_right(in_modes, out_modes, ranks, rows):\n    return 96\n", "FLOPs, got 96"
        ),
        "takes the lists apart": Wrong(
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
        ),
        "as words": Wrong(left_to_right(answer="f'{flops:,}'"), "expected 96 FLOPs, got '96'"),
        "the library": Wrong(
            """
def left_to_right(in_modes, out_modes, ranks, rows):
    layer = ttq.TTLinear(6, 4, rank=2, in_modes=in_modes, out_modes=out_modes)
    return ttq.flops(layer, rows)
""",
            "write it yourself: TTLinear was called",
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
        "the dearest": Wrong(cheapest(best="max"), "but another order takes"),
        "only the name": Wrong(cheapest(answer="name"), "expected one of the names"),
        "only the FLOPs": Wrong(cheapest(answer="costs[name]"), "expected one of the names"),
        "in the other order": Wrong(cheapest(answer="costs[name], name"), "expected one of the names"),
        "a name of its own": Wrong(cheapest(answer="'dense', costs[name]"), "expected one of the names"),
        "merging for nothing": Wrong(cheapest(merge="0"), "weight first takes 144 FLOPs, got 48"),
        "merging for each row": Wrong(
            cheapest(merge="2 * rows * prod(ins[:k]) * prod(outs[:k]) * size * (k > 0)"), "another order takes 4,896"
        ),
        "the first core is merged, too": Wrong(
            cheapest(merge="2 * prod(ins[:k]) * prod(outs[:k]) * size"), "weight first takes 4,896 FLOPs, got 4,912"
        ),
        "the last product forgotten": Wrong(cheapest(last="0"), "weight first takes 4,896 FLOPs, got 96"),
        "right to left as left to right": Wrong(
            cheapest(right="2 * rows * prod(outs[:k]) * prod(ins[k + 1 :]) * size"), "another order takes 80"
        ),
        "right to left with inputs and outputs exchanged": Wrong(
            cheapest(right="2 * rows * prod(outs[:k]) * prod(outs[k + 1 :]) * size"),
            "right to left takes",
        ),
        "always weight first": Wrong(
            cheapest(answer="'weight first', costs['weight first']"), "weight first takes 144 FLOPs, but another"
        ),
        "never weight first": Wrong(
            cheapest(best="[costs.pop('weight first'), min][1]"), "but another order takes 4,896"
        ),
        "multiply-adds counted once": Wrong(cheapest(answer="name, costs[name] // 2"), "takes 80 FLOPs, got 40"),
        "the ranks turned round in place": Wrong(
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
        "builds the weight": Wrong(
            """
def forward(x, cores):
    weight = torch.ones(1, 1, 1, dtype=x.dtype)
    for core in cores:
        weight = torch.einsum("ijr,rnms->injms", weight, core)
        weight = weight.flatten(2, 3).flatten(0, 1)
    return x @ weight[..., 0]
""",
            "never build a matrix of inputs × outputs",
        ),
        "the library": Wrong(
            "\ndef forward(x, cores):\n    return x @ ttq.tt_matrix_to_matrix(cores)\n",
            "write it yourself: tt_matrix_to_matrix was called",
        ),
        "one row after another, each through the weight": Wrong(
            """
def forward(x, cores):
    weight = cores[0]
    for core in cores[1:]:
        weight = torch.einsum("rijs,snmt->rinjmt", weight, core).flatten(3, 4).flatten(1, 2)
    return torch.stack([row @ weight[0, ..., 0] for row in x])
""",
            "never build a matrix of inputs × outputs",
        ),
        "the transposed weight": Wrong(forward(sum="bprnq,rmns->bpmsq"), "forward: raised"),
        "cores from the wrong end": Wrong(forward(cores="cores[::-1]"), "forward: "),
        "the digits in the wrong order": Wrong(
            forward(sum="bpnrq,rnms->bpmsq", start="x.reshape(len(x), 1, -1, 1)").replace(
                "batch.reshape(b, p, r, core.shape[1], q // core.shape[1])",
                "batch.reshape(b, p, -1, core.shape[0], 1)[:, :, : core.shape[1]]",
            ),
            "forward: ",
        ),
        "outputs joined in front": Wrong(forward(sum="bprnq,rnms->bmpsq"), "the values are off"),
        "the bond in the wrong place": Wrong(
            forward(sum="bprnq,rnms->bpsmq", join="reshape(b, -1, core.shape[3], q // core.shape[1])"),
            "the values are off",
        ),
        "an axis lost for one row": Wrong(forward(answer="batch.squeeze()"), "expected shape (1, 4), got (4,)"),
        "the outputs as modes": Wrong(
            forward(answer="batch.reshape(len(x), *[core.shape[2] for core in cores])"), "expected shape (1, 4)"
        ),
        "two cores only": Wrong(
            """
def forward(x, cores):
    first, second = cores
    x = x.reshape(len(x), first.shape[1], second.shape[1])
    return torch.einsum("bij,rimp,pjns->bmn", x, first, second).flatten(1)
""",
            "raised ValueError",
        ),
        "the first row only": Wrong(forward(answer="batch[:1].reshape(1, -1)"), "got (1,"),
        "in single precision": Wrong(
            forward(answer="batch.reshape(len(x), -1).float()"), "expected torch.float64, as it was given"
        ),
        "changes x": Wrong(forward(start="x.div_(2).reshape(len(x), 1, 1, -1) * 2"), "it changed its arguments"),
        "takes the list apart": Wrong(
            forward().replace("for core in cores:", "while cores:\n        core = cores.pop(0)"),
            "it changed its arguments",
        ),
        "the case on paper": Wrong(
            "\ndef forward(x, cores):\n    return torch.tensor([[1.0, 7, 2, 10]]).double()\n", "expected shape"
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
        "through the gradient of the weight": Wrong(
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
        ),
        "by autograd": Wrong(
            """
def core_gradient(x, gradient, cores, k):
    cores = [core.clone().requires_grad_() for core in cores]
    forward(x, cores).backward(gradient)
    return cores[k].grad
""",
            "write it yourself: torch",
        ),
        "by torch.autograd.grad": Wrong(
            """
from torch.autograd import grad


def core_gradient(x, gradient, cores, k):
    cores = [core.clone().requires_grad_() for core in cores]
    return grad(forward(x, cores), cores[k], gradient)[0]
""",
            "write it yourself: torch.autograd.grad was called",
        ),
        "of the first core always": Wrong(
            core_gradient(before="[]", after="cores[:0:-1]").replace("cores[k].shape", "cores[0].shape"),
            "on paper the gradient of core 1",
        ),
        "the cores on the right forgotten": Wrong(core_gradient(after="[]"), "expected shape"),
        "the cores on the right in the wrong order": Wrong(core_gradient(after="cores[k + 1 :]"), "core_gradient: "),
        "counted from 1": Wrong(
            core_gradient(before="cores[: k - 1]", after="cores[: k - 1 : -1]").replace(
                "cores[k].shape", "cores[k - 1].shape"
            ),
            "core_gradient: ",
        ),
        "of the sum of the outputs": Wrong(core_gradient(gradient="torch.ones_like(gradient)"), "the values are off"),
        "a mean over the rows": Wrong(core_gradient(answer="result / len(x)"), "the values are off"),
        "of the first row only": Wrong(
            core_gradient(x="(x * (torch.arange(len(x)) == 0)[:, None])"), "the values are off"
        ),
        "in the other order of axes": Wrong(core_gradient(last="bprnq,bpmsq->rmns"), "core_gradient: "),
        "a number for each row": Wrong(
            core_gradient(last="bprnq,bpmsq->brnms"), "expected shape (1, 2, 2, 1), got (1, 1"
        ),
        "the core itself counted in": Wrong(core_gradient(answer="result * cores[k]"), "the values are off"),
        "in single precision": Wrong(core_gradient(answer="result.float()"), "expected torch.float64, as it was given"),
        "changes the gradient": Wrong(
            core_gradient(gradient="gradient.mul_(2)", answer="result / 2"), "it changed its arguments"
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
        "forward": Wrong(one_line("forward(gradient, cores)"), "input_gradient: "),
        "the bonds exchanged": Wrong(
            one_line("forward(gradient, [core.permute(3, 2, 1, 0) for core in cores])"), "input_gradient: "
        ),
        "the cores turned round": Wrong(
            one_line("forward(gradient, [core.permute(3, 2, 1, 0) for core in reversed(cores)])"), "input_gradient: "
        ),
        "views instead of a transpose": Wrong(
            one_line(
                "forward(gradient, [core.reshape(len(core), core.shape[2], core.shape[1], -1) for core in cores])"
            ),
            "the values are off",
        ),
        "the first core only": Wrong(
            one_line("forward(gradient, [cores[0].transpose(1, 2), *cores[1:]])"), "input_gradient: "
        ),
        "the weight built": Wrong(
            """
def input_gradient(gradient, cores):
    weight = cores[0]
    for core in cores[1:]:
        weight = torch.einsum("rijs,snmt->rinjmt", weight, core).flatten(3, 4).flatten(1, 2)
    return gradient @ weight[0, ..., 0].T
""",
            "never build a matrix of inputs × outputs",
        ),
        "by autograd": Wrong(
            """
def input_gradient(gradient, cores):
    inputs = 1
    for core in cores:
        inputs *= core.shape[1]
    x = torch.zeros(len(gradient), inputs, dtype=gradient.dtype, requires_grad=True)
    return torch.autograd.grad(forward(x, cores), x, gradient)[0]
""",
            "write it yourself: torch.autograd.grad was called",
        ),
        "the library": Wrong(
            one_line("gradient @ ttq.tt_matrix_to_matrix(cores).T"),
            "write it yourself: tt_matrix_to_matrix was called",
        ),
        "the cores transposed for good": Wrong(
            """
def input_gradient(gradient, cores):
    for k in range(len(cores)):
        cores[k] = cores[k].transpose(1, 2)
    return forward(gradient, cores)
""",
            "it changed its arguments",
        ),
        "a mean over the rows": Wrong(
            one_line("forward(gradient, [core.transpose(1, 2) for core in cores]) / len(gradient)"),
            "the values are off",
        ),
        "in single precision": Wrong(
            one_line("forward(gradient, [core.transpose(1, 2) for core in cores]).float()"), "expected torch.float64"
        ),
        "the case on paper": Wrong(one_line("torch.tensor([[2.0, 2, 4, 4]]).double()"), "expected shape"),
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
        "one core after the other": Wrong(
            """
def descent_step(x, targets, cores, rate):
    cores = list(cores)
    for k in range(len(cores)):
        gradient = 2 * (forward(x, cores) - targets) / targets.numel()
        cores[k] = cores[k] - rate * core_gradient(x, gradient, cores, k)
    return cores
""",
            "core 1 (less its gradient at the old cores), the values are off",
        ),
        "the gradients of cores that are new already": Wrong(
            """
def descent_step(x, targets, cores, rate):
    new = list(cores)
    gradient = 2 * (forward(x, cores) - targets) / targets.numel()
    for k in range(len(new)):
        new[k] = new[k] - rate * core_gradient(x, gradient, new, k)
    return new
""",
            "core 1 (less its gradient at the old cores), the values are off",
        ),
        "uphill": Wrong(descent("2 * (targets - forward(x, cores)) / targets.numel()"), "the values are off"),
        "the 2 forgotten": Wrong(descent("(forward(x, cores) - targets) / targets.numel()"), "the values are off"),
        "the sum instead of the mean": Wrong(descent("2 * (forward(x, cores) - targets)"), "the values are off"),
        "the mean over the rows only": Wrong(
            descent("2 * (forward(x, cores) - targets) / len(x)"), "the values are off"
        ),
        "the targets forgotten": Wrong(descent("2 * forward(x, cores) / targets.numel()"), "the values are off"),
        "no rate": Wrong(
            descent(rest="return [core - core_gradient(x, gradient, cores, k) for k, core in enumerate(cores)]"),
            "the values are off",
        ),
        "in place": Wrong(
            """
def descent_step(x, targets, cores, rate):
    gradient = 2 * (forward(x, cores) - targets) / targets.numel()
    steps = [rate * core_gradient(x, gradient, cores, k) for k in range(len(cores))]
    return [core.sub_(step) for core, step in zip(cores, steps)]
""",
            "it changed its arguments",
        ),
        "the gradients alone": Wrong(
            descent(rest="return [core_gradient(x, gradient, cores, k) for k in range(len(cores))]"),
            "the values are off",
        ),
        "the first core only": Wrong(
            descent(rest="return [cores[0] - rate * core_gradient(x, gradient, cores, 0), *cores[1:]]"),
            "core 1 (less its gradient at the old cores), the values are off",
        ),
        "by autograd": Wrong(
            """
def descent_step(x, targets, cores, rate):
    cores = [core.clone().requires_grad_() for core in cores]
    (forward(x, cores) - targets).square().mean().backward()
    return [core.detach() - rate * core.grad for core in cores]
""",
            "write it yourself: torch",
        ),
        "by an optimizer": Wrong(
            """
def descent_step(x, targets, cores, rate):
    cores = [core.clone().requires_grad_() for core in cores]
    optimizer = torch.optim.SGD(cores, lr=rate)
    torch.nn.functional.mse_loss(forward(x, cores), targets).backward()
    optimizer.step()
    return [core.detach() for core in cores]
""",
            "write it yourself: torch",
        ),
        "the loss, too": Wrong(
            descent(
                rest="return [c - rate * core_gradient(x, gradient, cores, k) for k, c in enumerate(cores)], gradient"
            ),
            "descent_step: ",
        ),
        "a generator": Wrong(
            descent(rest="return (core - rate * core_gradient(x, gradient, cores, k) for k, core in enumerate(cores))"),
            "expected a list of 1 cores, got generator",
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
