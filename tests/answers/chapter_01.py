"""Answers to the exercises of chapter 1: an entry of a train, what a train costs, and the sum of two."""

from tests.answers import Answers, Wrong

TT_ENTRY = Answers(
    right={
        "a row that grows no longer": """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core, i in zip(cores, index):
        row = row @ core[:, i]
    return row[0, 0]
""",
        "from the right, as a plain number": """
def tt_entry(cores, index):
    column = torch.ones(1, dtype=cores[-1].dtype)
    for core, i in zip(reversed(cores), reversed(index)):
        column = (core[:, i, :] * column).sum(dim=-1)
    return column.item()
""",
        "linalg.multi_dot": """
def tt_entry(cores, index):
    return torch.linalg.multi_dot([core[:, i] for core, i in zip(cores, index)]).squeeze()
""",
    },
    wrong={
        "builds the whole tensor": Wrong(
            """
def tt_entry(cores, index):
    return ttq.tt_to_tensor(cores)[tuple(index)]
""",
            "asked for more memory than there is",
        ),
        "always the first entry": Wrong(
            """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core in cores:
        row = row @ core[:, 0]
    return row[0, 0]
""",
            "at index (1, 2, 3) of a 2 × 3 × 4 train the values are off by",
        ),
        "a matrix, not a number": Wrong(
            """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core, i in zip(cores, index):
        row = row @ core[:, i]
    return row
""",
            "at index (0, 0, 0) of a 2 × 3 × 4 train expected shape (), got (1, 1)",
        ),
        "counted from one": Wrong(
            """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core, i in zip(cores, index):
        row = row @ core[:, i - 1]
    return row[0, 0]
""",
            "at index (0, 0, 0) of a 2 × 3 × 4 train the values are off by",
        ),
        "the wrong axis": Wrong(
            """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core, i in zip(cores, index):
        row = row @ core[i]
    return row[0, 0]
""",
            "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        ),
        "entries multiplied, not matrices": Wrong(
            """
def tt_entry(cores, index):
    product = 1.0
    for core, i in zip(cores, index):
        product = product * core[:, i].sum()
    return product
""",
            "at index (0, 0, 0) of a 2 × 3 × 4 train the values are off by",
        ),
        "the last core is forgotten": Wrong(
            """
def tt_entry(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core, i in zip(cores[:-1], index):
        row = row @ core[:, i]
    return row[0, 0]
""",
            "at index (0, 0, 0) of a 2 × 3 × 4 train the values are off by",
        ),
        "three cores hard-coded": Wrong(
            """
def tt_entry(cores, index):
    i, j, k = index
    return (cores[0][:, i] @ cores[1][:, j] @ cores[2][:, k])[0, 0]
""",
            "raised ValueError: not enough values to unpack",
        ),
    },
)

TT_STORAGE = Answers(
    right={
        "the smallest of three": """
from math import prod


def tt_storage(modes, rank):
    ranks = [min(rank, prod(modes[:k]), prod(modes[k:])) for k in range(len(modes) + 1)]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
        "two sweeps": """
def tt_storage(modes, rank):
    d = len(modes)
    ranks = [1] + [rank] * (d - 1) + [1]
    for k in range(1, d):
        ranks[k] = min(ranks[k], ranks[k - 1] * modes[k - 1])
    for k in range(d - 1, 0, -1):
        ranks[k] = min(ranks[k], ranks[k + 1] * modes[k])
    total = 0
    for k in range(d):
        total += ranks[k] * modes[k] * ranks[k + 1]
    return total
""",
    },
    wrong={
        "ranks not clipped": Wrong(
            """
def tt_storage(modes, rank):
    ranks = [1] + [rank] * (len(modes) - 1) + [1]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
            "for modes (2, 2, 2, 2, 2, 2, 2, 2, 2, 2) and rank 5 expected 320, got 420",
        ),
        "clipped from the left only": Wrong(
            """
def tt_storage(modes, rank):
    ranks = [min(rank, math.prod(modes[:k])) for k in range(len(modes))] + [1]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
            "for modes (2, 2, 2, 2, 2, 2, 2, 2, 2, 2) and rank 5 expected 320, got 370",
        ),
        "clipped by the neighbouring modes only": Wrong(
            """
def tt_storage(modes, rank):
    inner = [min(rank, left, right) for left, right in zip(modes, modes[1:])]
    ranks = [1, *inner, 1]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
            "for modes (2, 2, 2, 2, 2, 2, 2, 2, 2, 2) and rank 5 expected 320, got 72",
        ),
        "the full tensor": Wrong(
            """
def tt_storage(modes, rank):
    return math.prod(modes)
""",
            "for modes (10, 10, 10) and rank 2 expected 80, got 1000",
        ),
        "r² times the sum, at the ends too": Wrong(
            """
def tt_storage(modes, rank):
    return rank**2 * sum(modes)
""",
            "for modes (10, 10, 10) and rank 2 expected 80, got 120",
        ),
        "cut one mode too late": Wrong(
            """
def tt_storage(modes, rank):
    ranks = [1] + [min(rank, math.prod(modes[: k + 1]), math.prod(modes[k:])) for k in range(1, len(modes))] + [1]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
            "for modes (2, 2, 2, 2, 2, 2, 2, 2, 2, 2) and rank 5 expected 320, got 358",
        ),
        "a float": Wrong(
            """
def tt_storage(modes, rank):
    ranks = [min(rank, math.prod(modes[:k]), math.prod(modes) / math.prod(modes[:k])) for k in range(len(modes) + 1)]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, ranks[1:]))
""",
            "for modes (10, 10, 10) and rank 2 expected the whole number 80, got 80.0",
        ),
    },
)

TT_ADD = Answers(
    right={
        "blocks in a core of zeros": """
def tt_add(a, b):
    cores = []
    for k, (x, y) in enumerate(zip(a, b)):
        left = 1 if k == 0 else x.shape[0] + y.shape[0]
        right = 1 if k == len(a) - 1 else x.shape[2] + y.shape[2]
        core = x.new_zeros(left, x.shape[1], right)
        core[: x.shape[0], :, : x.shape[2]] += x
        core[left - y.shape[0] :, :, right - y.shape[2] :] += y
        cores.append(core)
    return cores
""",
        "torch.cat and block_diag": """
def tt_add(a, b):
    first = torch.cat([a[0], b[0]], dim=2)
    last = torch.cat([a[-1], b[-1]], dim=0)
    inner = []
    for x, y in zip(a[1:-1], b[1:-1]):
        slices = [torch.block_diag(x[:, i], y[:, i]) for i in range(x.shape[1])]
        inner.append(torch.stack(slices, dim=1))
    return [first, *inner, last]
""",
        "inner cores of another dtype": """
def tt_add(a, b):
    inner = []
    for x, y in zip(a[1:-1], b[1:-1]):
        core = torch.zeros(x.shape[0] + y.shape[0], x.shape[1], x.shape[2] + y.shape[2])
        core[: x.shape[0], :, : x.shape[2]] = x
        core[x.shape[0] :, :, x.shape[2] :] = y
        inner.append(core)
    return [torch.cat([a[0], b[0]], dim=2), *inner, torch.cat([a[-1], b[-1]])]
""",
        "rounded after it": """
def tt_add(a, b):
    first, last = torch.cat([a[0], b[0]], dim=2), torch.cat([a[-1], b[-1]], dim=0)
    inner = [
        torch.cat(
            [torch.cat([x, x.new_zeros(len(x), x.shape[1], y.shape[2])], 2),
             torch.cat([y.new_zeros(len(y), x.shape[1], x.shape[2]), y], 2)]
        )
        for x, y in zip(a[1:-1], b[1:-1])
    ]
    return ttq.tt_round([first, *inner, last], tolerance=1e-12)
""",
    },
    wrong={
        "TT-SVD of the tensor": Wrong(
            """
def tt_add(a, b):
    total = ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b)
    ranks = [p + q for p, q in zip(ttq.core_ranks(a), ttq.core_ranks(b))]
    return ttq.tt_svd(total, [1, *ranks[1:-1], 1])
""",
            "asked for more memory than there is",
        ),
        "the first train": Wrong(
            """
def tt_add(a, b):
    return a
""",
            "for two 2 × 3 × 4 trains the values are off by",
        ),
        "cores added entry by entry": Wrong(
            """
def tt_add(a, b):
    return [x + y for x, y in zip(a, b)]
""",
            "for two 2 × 3 × 4 trains the values are off by",
        ),
        "the tensor, not its cores": Wrong(
            """
def tt_add(a, b):
    return ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b)
""",
            "expected cores (r, n, r') that fit together, with modes (2, 3, 4)",
        ),
        "ranks that need not be": Wrong(
            """
def tt_add(a, b):
    return ttq.tt_svd(ttq.tt_to_tensor(a) + ttq.tt_to_tensor(b), 10**6)
""",
            "ranks add up to [3, 3] for 2 × 3 × 4 trains, got [2, 4]",
        ),
        "blocks at the ends too": Wrong(
            """
def tt_add(a, b):
    cores = []
    for x, y in zip(a, b):
        core = x.new_zeros(x.shape[0] + y.shape[0], x.shape[1], x.shape[2] + y.shape[2])
        core[: x.shape[0], :, : x.shape[2]] = x
        core[x.shape[0] :, :, x.shape[2] :] = y
        cores.append(core)
    return cores
""",
            "expected cores (r, n, r') that fit together, with modes (2, 3, 4); got shapes [(2, 2, ",
        ),
        "all four blocks filled": Wrong(
            """
def tt_add(a, b):
    cores = []
    for k, (x, y) in enumerate(zip(a, b)):
        if k == 0:
            core = torch.cat([x, y], dim=2)
        elif k == len(a) - 1:
            core = torch.cat([x, y], dim=0)
        else:
            core = x.new_ones(x.shape[0] + y.shape[0], x.shape[1], x.shape[2] + y.shape[2])
            core[: x.shape[0], :, : x.shape[2]] = x
            core[x.shape[0] :, :, x.shape[2] :] = y
        cores.append(core)
    return cores
""",
            "for two 2 × 3 × 4 trains the values are off by",
        ),
        "the modes joined, not the ranks": Wrong(
            """
def tt_add(a, b):
    return [torch.cat([x, y], dim=1) for x, y in zip(a, [core[:, :0] for core in a])] + [b[-1]]
""",
            "expected cores (r, n, r') that fit together, with modes (2, 3, 4)",
        ),
        "changes the train it was given": Wrong(
            """
def tt_add(a, b):
    first, last = torch.cat([a[0], b[0]], dim=2), torch.cat([a[-1], b[-1]], dim=0)
    for k in range(1, len(a) - 1):
        slices = [torch.block_diag(a[k][:, i], b[k][:, i]) for i in range(a[k].shape[1])]
        a[k] = torch.stack(slices, dim=1)
    a[0], a[-1] = first, last
    return a
""",
            "what it was given must stay as it was",
        ),
        "three modes hard-coded": Wrong(
            """
def tt_add(a, b):
    middle = [torch.block_diag(a[1][:, i], b[1][:, i]) for i in range(a[1].shape[1])]
    return [torch.cat([a[0], b[0]], 2), torch.stack(middle, 1), torch.cat([a[-1], b[-1]], 0)]
""",
            "expected cores (r, n, r') that fit together, with modes (5, 4)",
        ),
    },
)

ANSWERS = {"tt_entry": TT_ENTRY, "tt_storage": TT_STORAGE, "tt_add": TT_ADD}
