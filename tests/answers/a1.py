"""Assignment 1: answers about the arithmetic of trains."""

from tests.answers import Answers, Mistake

# What a sweep needs that a wrong answer about something else takes from here.
SWEEP = """
def swept(cores):
    result, rest = [], cores[0]
    for core in cores[1:]:
        q, r = torch.linalg.qr(rest.flatten(0, 1))
        result.append(q.reshape(*rest.shape[:2], -1))
        rest = torch.tensordot(r, core, 1)
    return [*result, rest]
"""
FULL = """
def full(cores):
    tensor = cores[0]
    for core in cores[1:]:
        tensor = torch.tensordot(tensor, core, 1)
    return tensor[0, ..., 0]
"""

MULTIPLY = Answers(
    right={
        "kron of each pair of matrices": """
def multiply(a, b):
    return [torch.stack([torch.kron(x[:, i], y[:, i]) for i in range(x.shape[1])], dim=1) for x, y in zip(a, b)]
""",
        "b outside, a inside": """
def multiply(a, b):
    product = []
    for x, y in zip(a, b):
        core = y[:, None, :, :, None] * x[None, :, :, None, :]
        product.append(core.flatten(3, 4).flatten(0, 1))
    return product
""",
    },
    wrong={
        "cores entry by entry": Mistake(
            """
def multiply(a, b):
    return [x * y for x, y in zip(a, b)]
""",
            "raised RuntimeError",
            "An entry is a product of matrices. Which product of two matrices turns (A₁A₂)(B₁B₂) into one "
            "product of two factors?",
        ),
        "the sum instead": Mistake(
            """
def multiply(a, b):
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
            "the values are off",
            "Blocks side by side do not meet: that adds. For a product every row of `a` meets every row of `b`.",
        ),
        "left and right bonds paired in different orders": Mistake(
            """
def multiply(a, b):
    cores = []
    for x, y in zip(a, b):
        core = torch.einsum("rns,pnq->rpnqs", x, y)
        cores.append(core.reshape(len(x) * len(y), x.shape[1], -1))
    return cores
""",
            "the values are off",
            "Both bonds have to pair the two trains in one order: if a's index comes first on the left, then "
            "also on the right.",
        ),
        "modes multiplied too": Mistake(
            """
def multiply(a, b):
    return [torch.kron(x, y) for x, y in zip(a, b)]
""",
            "with modes (3, 3)",
            "`kron` of the cores also pairs every i with every j. Only places with the same index are wanted: "
            "one `kron` for each i.",
        ),
        "the library's TT-SVD": Mistake(
            """
from ttqlib import tt_svd, tt_to_tensor


def multiply(a, b):
    return tt_svd(tt_to_tensor(a) * tt_to_tensor(b), 6)
""",
            "write it yourself: tt_to_tensor was called",
            "`tt_to_tensor` leaves the train, and `tt_svd` has to find the way back. What can be done with core k of "
            "`a` and core k of `b` alone?",
        ),
        "TensorLy": Mistake(
            """
import tensorly
from tensorly.decomposition import tensor_train

tensorly.set_backend("pytorch")


def multiply(a, b):
    product = tensorly.tt_to_tensor(a) * tensorly.tt_to_tensor(b)
    return list(tensor_train(product, 6))
""",
            "write it yourself: tensorly's tt_to_tensor was called",
            "Another library's functions are not your own work, either. Which small matrices does the formula "
            "multiply for each index i?",
        ),
        "the tensor, multiplied out": Mistake(
            FULL
            + """

def multiply(a, b):
    rest, cores = (full(a) * full(b)).reshape(1, -1), []
    for x in a[:-1]:
        u, s, vh = torch.linalg.svd(rest.reshape(len(rest) * x.shape[1], -1), full_matrices=False)
        keep = int((s > 1e-12 * s[0]).sum())
        cores.append(u[:, :keep].reshape(-1, x.shape[1], keep))
        rest = s[:keep, None] * vh[:keep]
    return [*cores, rest[..., None]]
""",
            "more memory than there is",
            "How many entries has a tensor of 40 modes of size 3? The formula never needs more than two cores at once.",
        ),
        "changes its argument": Mistake(
            """
def multiply(a, b):
    for k, (x, y) in enumerate(zip(a, b)):
        a[k] = torch.einsum("rns,pnq->rpnsq", x, y).reshape(len(x) * len(y), x.shape[1], -1)
    return a
""",
            "must stay as it was",
            "`a[k] = …` writes into the caller's list. Where else could the new cores be collected?",
        ),
        "always float32": Mistake(
            """
def multiply(a, b):
    cores = []
    for x, y in zip(a, b):
        core = torch.einsum("rns,pnq->rpnsq", x.float(), y.float())
        cores.append(core.reshape(len(x) * len(y), x.shape[1], -1))
    return cores
""",
            "expected cores in torch.float64, as it was given, got torch.float32",
            "`float()` makes float32 of float64. Which dtype had the cores that came in?",
        ),
        "only the case that is seen": Mistake(
            """
def multiply(a, b):
    n = torch.arange(3.0, dtype=torch.float64)
    one = torch.ones_like(n)
    return [torch.stack([n * n, 2 * n, one], -1)[None], torch.stack([one, n, n * n])[..., None]]
""",
            "expected cores (r, n, r') that fit together",
            "Try a train of your own, with other modes, and multiply both out.",
        ),
        "keeps the first answer": Mistake(
            """
known = []


def multiply(a, b):
    if not known:
        for x, y in zip(a, b):
            known.append(torch.einsum("rns,pnq->rpnsq", x, y).reshape(len(x) * len(y), x.shape[1], -1))
    return known
""",
            "expected cores (r, n, r') that fit together",
            "A list outside of the function lives on. What does the second call find in it?",
        ),
        "ranks padded with zeros": Mistake(
            """
def multiply(a, b):
    cores = []
    for k, (x, y) in enumerate(zip(a, b)):
        core = torch.einsum("rns,pnq->rpnsq", x, y).reshape(len(x) * len(y), x.shape[1], -1)
        left, right = int(k > 0), int(k < len(a) - 1)
        cores.append(torch.nn.functional.pad(core, (0, right, 0, 0, 0, left)))
    return cores
""",
            "ranks multiply",
            "The tensor is right, the train too large. Which rows and columns are always zero?",
        ),
    },
)

INNER = Answers(
    right={
        "one matrix product for each index": """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x, y in zip(a, b):
        carried = sum(x[:, i].T @ carried @ y[:, i] for i in range(x.shape[1]))
    return carried.squeeze()
""",
        "from the right": """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x, y in zip(reversed(a), reversed(b)):
        half = x @ carried
        carried = half.flatten(1) @ y.flatten(1).T
    return carried[0, 0]
""",
    },
    wrong={
        "the product train": Mistake(
            """
def inner(a, b):
    row = a[0].new_ones(1, 1)
    for x, y in zip(a, b):
        core = torch.einsum("rns,pnq->rpnsq", x, y).reshape(len(x) * len(y), x.shape[1], -1)
        row = row @ core.sum(1)
    return row[0, 0]
""",
            "more memory than there is",
            "It is right for small ranks. How many numbers has one core of the product of two trains of rank 200?",
        ),
        "multiplied out": Mistake(
            FULL
            + """

def inner(a, b):
    return (full(a) * full(b)).sum()
""",
            "more memory than there is",
            "Right, but every entry of both tensors is held at once. What can be summed as soon as the first two "
            "cores have met?",
        ),
        "the library": Mistake(
            """
def inner(a, b):
    return (ttq.tt_to_tensor(a) * ttq.tt_to_tensor(b)).sum()
""",
            "write it yourself: tt_to_tensor was called",
            "`tt_to_tensor` builds all entries only to add them up. What does the formula carry along instead?",
        ),
        "TensorLy": Mistake(
            """
from tensorly import tenalg, tt_to_tensor


def inner(a, b):
    return tenalg.inner(tt_to_tensor(a), tt_to_tensor(b))
""",
            "write it yourself: tensorly's",
            "TensorLy's `inner` gets two whole tensors here. Write down the shape of C before and after one step "
            "instead.",
        ),
        "the product of the sums": Mistake(
            """
def inner(a, b):
    def total(cores):
        row = cores[0].new_ones(1, 1)
        for core in cores:
            row = row @ core.sum(1)
        return row[0, 0]

    return total(a) * total(b)
""",
            "the values are off",
            "Do it for two vectors of length 2. Is (a₁ + a₂)(b₁ + b₂) the same as a₁b₁ + a₂b₂?",
        ),
        "each core by itself": Mistake(
            """
def inner(a, b):
    result = a[0].new_ones(())
    for x, y in zip(a, b):
        result = result * torch.einsum("rns,pnq->", x, y)
    return result
""",
            "the values are off",
            "The bonds are summed over inside the product, not core by core. What has to be carried to the next core?",
        ),
        "the root of it": Mistake(
            """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x, y in zip(a, b):
        carried = torch.einsum("rp,rns,pnq->sq", carried, x, y)
    return carried[0, 0].abs().sqrt()
""",
            "the values are off",
            "That would be a norm. The question asks for the sum itself.",
        ),
        "a matrix of one number": Mistake(
            """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x, y in zip(a, b):
        carried = torch.einsum("rp,rns,pnq->sq", carried, x, y)
    return carried
""",
            "expected shape (), got (1, 1)",
            "C ends as a 1 × 1 matrix. How many axes should the answer have?",
        ),
        "the second train forgotten": Mistake(
            """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x in a:
        carried = torch.einsum("rp,rns,pnq->sq", carried, x, x)
    return carried[0, 0]
""",
            "the values are off",
            "`b` is never used. What would ⟨a, b⟩ be if b were zero?",
        ),
        "sums up between calls": Mistake(
            """
carried = torch.ones(1, 1, dtype=torch.float64)


def inner(a, b):
    global carried
    for x, y in zip(a, b):
        carried = torch.einsum("rp,rns,pnq->sq", carried, x, y)
    return carried[0, 0]
""",
            "called twice with the same arguments",
            "`carried` lives outside of the function. What does it hold when the second call begins?",
        ),
        "only the cases that are seen": Mistake(
            """
def inner(a, b):
    return torch.tensor(48.0 if len(b[0][0, 0]) == 2 else 18.0, dtype=torch.float64)
""",
            "the values are off",
            "Try two trains of your own, multiplied out, against your function.",
        ),
        "scales its argument": Mistake(
            """
def inner(a, b):
    carried = a[0].new_ones(1, 1)
    for x, y in zip(a, b):
        x *= 2
        carried = torch.einsum("rp,rns,pnq->sq", carried, x, y) / 2
    return carried[0, 0]
""",
            "must stay as it was",
            "`x *= 2` doubles the caller's core, and halving your own result does not undo it. Print the core before "
            "and after.",
        ),
    },
)

LEFT_ORTHOGONAL = Answers(
    right={
        "with SVD": """
def left_orthogonal(cores):
    cores = list(cores)
    for k in range(len(cores) - 1):
        left, mode, _ = cores[k].shape
        u, s, vh = torch.linalg.svd(cores[k].reshape(left * mode, -1), full_matrices=False)
        cores[k] = u.reshape(left, mode, -1)
        cores[k + 1] = torch.einsum("rs,snq->rnq", s[:, None] * vh, cores[k + 1])
    return cores
""",
        "Gram-Schmidt, twice": """
def left_orthogonal(cores):
    cores = [core.clone() for core in cores]
    for k in range(len(cores) - 1):
        left, mode, right = cores[k].shape
        matrix, basis = cores[k].reshape(left * mode, right), []
        for column in list(matrix.T)[: left * mode]:
            for _ in range(2):
                for done in basis:
                    column = column - (done @ column) * done
            basis.append(column / column.norm())
        q = torch.stack(basis, dim=1)
        cores[k] = q.reshape(left, mode, -1)
        cores[k + 1] = torch.tensordot(q.T @ matrix, cores[k + 1], 1)
    return cores
""",
    },
    wrong={
        "R is dropped": Mistake(
            """
def left_orthogonal(cores):
    result = []
    for core in cores[:-1]:
        q, r = torch.linalg.qr(core.flatten(0, 1))
        result.append(q.reshape(*core.shape[:2], -1))
    return [*result, cores[-1]]
""",
            "the last core, up to signs: the values are off",
            "Q alone is another tensor. Where must R go so that the product stays?",
        ),
        "the last core too": Mistake(
            """
def left_orthogonal(cores):
    result, rest = [], torch.ones(1, 1, dtype=cores[0].dtype)
    for core in cores:
        core = torch.tensordot(rest, core, 1)
        q, rest = torch.linalg.qr(core.flatten(0, 1))
        result.append(q.reshape(*core.shape[:2], -1))
    return result
""",
            "the last core, up to signs: the values are off",
            "The norm has to stay somewhere: stop before the last core.",
        ),
        "to the other side": Mistake(
            """
def left_orthogonal(cores):
    cores = list(cores)
    for k in range(len(cores) - 1, 0, -1):
        q, r = torch.linalg.qr(cores[k].flatten(1).T)
        cores[k] = q.T.reshape(-1, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ r.T
    return cores
""",
            "needs orthonormal columns",
            "This makes rows orthonormal, from the right. It is as useful, but the question asks for the left.",
        ),
        "columns of length one": Mistake(
            """
def left_orthogonal(cores):
    cores = list(cores)
    for k in range(len(cores) - 1):
        length = cores[k].flatten(0, 1).norm(dim=0)
        cores[k] = cores[k] / length
        cores[k + 1] = length[:, None, None] * cores[k + 1]
    return cores
""",
            "needs orthonormal columns",
            "Length one is half of it: are two columns also orthogonal to each other?",
        ),
        "cores of norm one": Mistake(
            """
def left_orthogonal(cores):
    result, scale = [], 1.0
    for core in cores[:-1]:
        result.append(core / core.norm())
        scale = scale * core.norm()
    return [*result, scale * cores[-1]]
""",
            "needs orthonormal columns",
            "A core of norm one is no orthonormal matrix. Compute QᵀQ.",
        ),
        "rows instead of columns": Mistake(
            """
def left_orthogonal(cores):
    cores = list(cores)
    for k in range(len(cores) - 1):
        left, mode, right = cores[k].shape
        q, r = torch.linalg.qr(cores[k].reshape(left, mode * right))
        cores[k] = q.reshape(-1, mode, right) if q.numel() == left * mode * right else cores[k]
    return cores
""",
            "needs orthonormal columns",
            "Which two axes belong to the rows? Those on the left: (r n, r'), not (r, n r').",
        ),
        "a complete QR": Mistake(
            """
def left_orthogonal(cores):
    result, rest = [], cores[0]
    for core in cores[1:]:
        q, r = torch.linalg.qr(rest.flatten(0, 1), mode="complete")
        result.append(q.reshape(*rest.shape[:2], -1))
        rest = torch.tensordot(r, core, 1)
    return [*result, rest]
""",
            "no rank may grow",
            "A complete Q has columns that R multiplies by zero. Nobody needs them, and the rank grows.",
        ),
        "the library": Mistake(
            """
def left_orthogonal(cores):
    return ttq.canonical_form(cores, len(cores) - 1)
""",
            "write it yourself: canonical_form was called",
            "`canonical_form` is the whole sweep. Take its first step by hand: what becomes of Q, and what of R?",
        ),
        "TT-SVD of the tensor": Mistake(
            """
def left_orthogonal(cores):
    return ttq.tt_svd(ttq.tt_to_tensor(cores), [len(core) for core in cores] + [1])
""",
            "write it yourself: tt_to_tensor was called",
            "This multiplies the train out and cuts it anew. Which decomposition of the first core alone gives "
            "orthonormal columns?",
        ),
        "changes its argument": Mistake(
            """
def left_orthogonal(cores):
    for k in range(len(cores) - 1):
        q, r = torch.linalg.qr(cores[k].flatten(0, 1))
        cores[k] = q.reshape(*cores[k].shape[:2], -1)
        cores[k + 1] = torch.tensordot(r, cores[k + 1], 1)
    return cores
""",
            "must stay as it was",
            "`cores[k] = …` writes into the list that you were given. What does the caller hold after your sweep?",
        ),
        "R from the wrong side": Mistake(
            """
def left_orthogonal(cores):
    result, rest = [], cores[0]
    for core in cores[1:]:
        q, r = torch.linalg.qr(rest.flatten(0, 1))
        result.append(q.reshape(*rest.shape[:2], -1))
        rest = torch.tensordot(r.T, core, 1)
    return [*result, rest]
""",
            "for a",
            "A = QR, so R stands on the left of the next core: its second axis meets the first of that core.",
        ),
        "only the first core": Mistake(
            """
def left_orthogonal(cores):
    q, r = torch.linalg.qr(cores[0].flatten(0, 1))
    return [q.reshape(*cores[0].shape[:2], -1), torch.tensordot(r, cores[1], 1), *cores[2:]]
""",
            "needs orthonormal columns",
            "After the first step the second core has changed, and is the next to be decomposed.",
        ),
    },
)

NORM = Answers(
    right={
        "a sweep of its own": SWEEP
        + """

def norm(cores):
    return swept(cores)[-1].square().sum().sqrt()
""",
        "only R is carried": """
def norm(cores):
    rest = torch.ones(1, 1, dtype=cores[0].dtype)
    for core in cores:
        core = torch.tensordot(rest, core, 1)
        rest = torch.linalg.qr(core.flatten(0, 1), mode="r").R
    return rest.abs().squeeze()
""",
    },
    wrong={
        "the root of the inner product": Mistake(
            """
def norm(cores):
    return inner(cores, cores).abs().sqrt()
""",
            "keeps half of the digits",
            "Right on paper. Print ⟨T,T⟩ for a difference of about 10⁻¹⁰: how many of its digits are true?",
        ),
        "the inner product": Mistake(
            """
def norm(cores):
    return inner(cores, cores)
""",
            "expected 5 √5",
            "Its root is missing; and mind the digits that the root of an inner product loses.",
        ),
        "the product of the cores' norms": Mistake(
            """
def norm(cores):
    result = cores[0].norm()
    for core in cores[1:]:
        result = result * core.norm()
    return result
""",
            "train expected",
            "That is an upper bound. When is it the norm? Look at what `left_orthogonal` gives.",
        ),
        "the last core as it came": Mistake(
            """
def norm(cores):
    return cores[-1].norm()
""",
            "expected 5 √5",
            "Only after the sweep are the others orthonormal.",
        ),
        "the first core after the sweep": Mistake(
            """
def norm(cores):
    return left_orthogonal(cores)[0].norm()
""",
            "expected 5 √5",
            "The first one is orthonormal now: its norm is the root of its rank. Where did R go in the end?",
        ),
        "the largest singular value": Mistake(
            """
def norm(cores):
    last = left_orthogonal(cores)[-1]
    return torch.linalg.svdvals(last.flatten(1)).max() if len(last) > 1 else last.norm()
""",
            "train expected",
            "That is another norm, of a matrix. Here all squared entries are added.",
        ),
        "the sum of absolute values": Mistake(
            """
def norm(cores):
    return left_orthogonal(cores)[-1].abs().sum()
""",
            "expected 5 √5",
            "Squares, then the root: 3 and 4 give 5, not 7.",
        ),
        "the library": Mistake(
            """
def norm(cores):
    return ttq.tt_to_tensor(cores).norm()
""",
            "write it yourself: tt_to_tensor was called",
            "A train exists so that its tensor need not be built. In which core is the norm after question 3?",
        ),
        "in float32": Mistake(
            """
def norm(cores):
    return left_orthogonal([core.float() for core in cores])[-1].norm()
""",
            "expected",
            "Half of the digits are gone at once. Keep the dtype.",
        ),
        "one number in a matrix": Mistake(
            """
def norm(cores):
    return left_orthogonal(cores)[-1].norm().reshape(1, 1)
""",
            "expected one number",
            "The number is right, but it sits in a 1 × 1 matrix. What does your last call do to it?",
        ),
    },
)

TT_ROUND = Answers(
    right={
        "QR from the right, SVD from the left": """
def tt_round(cores, rank):
    cores = list(cores)
    for k in range(len(cores) - 1, 0, -1):
        q, r = torch.linalg.qr(cores[k].flatten(1).T)
        cores[k] = q.T.reshape(-1, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ r.T
    for k in range(len(cores) - 1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(0, 1), full_matrices=False)
        cores[k] = u[:, :rank].reshape(*cores[k].shape[:2], -1)
        cores[k + 1] = torch.tensordot(s[:rank, None] * vh[:rank], cores[k + 1], 1)
    return cores
""",
        "projections on the leading right directions": SWEEP
        + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1, 0, -1):
        matrix = cores[k].flatten(1)
        _, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        kept = vh[: min(rank, len(vh))]
        cores[k] = kept.unflatten(1, cores[k].shape[1:])
        cores[k - 1] = torch.einsum("rns,sm->rnm", cores[k - 1], matrix @ kept.T)
    return cores
""",
    },
    wrong={
        "cores cut with scissors": Mistake(
            """
def tt_round(cores, rank):
    inner = range(len(cores))
    return [core[: rank if k else 1, :, : rank if k < len(cores) - 1 else 1] for k, core in enumerate(cores)]
""",
            "the error is",
            "The first r directions of a bond are not the largest ones. What brings the largest to the front?",
        ),
        "no first sweep": Mistake(
            """
def tt_round(cores, rank):
    cores = list(cores)
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
    return cores
""",
            "the error is",
            "The singular values of one core say nothing while its neighbours are not orthonormal. Which sweep "
            "makes them so?",
        ),
        "both sweeps in one direction": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(0, 1), full_matrices=False)
        cores[k] = u[:, :rank].reshape(*cores[k].shape[:2], -1)
        cores[k + 1] = torch.tensordot(s[:rank, None] * vh[:rank], cores[k + 1], 1)
    return cores
""",
            "the error is",
            "After the sweep to the right, the centre is at the right end. The SVDs have to begin there.",
        ),
        "the smallest are kept": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        cores[k] = vh[-rank:].reshape(-1, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, -rank:] * s[-rank:])
    return cores
""",
            "diagonal, rank 1: the values are off",
            "`svd` sorts falling: the largest stand in front.",
        ),
        "singular values forgotten": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ u[:, :keep]
    return cores
""",
            "diagonal, rank 1: the values are off",
            "U V without Σ is another matrix. Where does Σ go?",
        ),
        "the library": Mistake(
            """
def tt_round(cores, rank):
    return ttq.tt_svd(ttq.tt_to_tensor(cores), rank)
""",
            "write it yourself: tt_to_tensor was called",
            "`tt_svd` needs the whole tensor. Which matrix does step 2 of the question decompose, and how large is it?",
        ),
        "imported before": Mistake(
            """
from ttqlib.tensors.gauge import canonical_form as sweep


def tt_round(cores, rank):
    cores = sweep(cores, len(cores) - 1)
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
    return cores
""",
            "write it yourself: canonical_form was called",
            "A function of the library stays one under another name. Which question have you answered with the same "
            "sweep?",
        ),
        "the library, and the error caught": Mistake(
            """
def tt_round(cores, rank):
    for _ in range(2):
        try:
            return ttq.tt_svd(ttq.tt_to_tensor(cores), rank)
        except Exception:
            pass
""",
            "write it yourself",
            "The call is seen even where its error is caught. Which of the two steps do you have a function for "
            "already?",
        ),
        "multiplied out": Mistake(
            FULL
            + """

def tt_round(cores, rank):
    rest, result = full(cores).reshape(1, -1), []
    for core in cores[:-1]:
        u, s, vh = torch.linalg.svd(rest.reshape(len(rest) * core.shape[1], -1), full_matrices=False)
        keep = min(rank, len(s))
        result.append(u[:, :keep].reshape(-1, core.shape[1], keep))
        rest = s[:keep, None] * vh[:keep]
    return [*result, rest[..., None]]
""",
            "more memory than there is",
            "It is right while the tensor fits into memory. How many numbers does your first SVD get for 40 modes of "
            "size 3?",
        ),
        "one bond is left as it was": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1, 1, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
    return cores
""",
            "the values are off",
            "Count the bonds of a train of three cores, and the steps of your loop.",
        ),
        "divides by the norm": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    scale = cores[-1].norm()
    cores[-1] = cores[-1] / scale
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
    return [cores[0] * scale, *cores[1:]]
""",
            "raised _LinAlgError",
            "What is the norm of a train of zeros?",
        ),
        "keeps the norm of the tensor": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    scale = cores[-1].norm()
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
    cores[0] = cores[0] * scale / cores[0].norm().clamp_min(1e-300)
    return cores
""",
            "diagonal, rank 1: the values are off",
            "The nearest tensor of low rank is shorter than the one it is near to: what was cut is orthogonal to "
            "what stays.",
        ),
        "padded to the rank": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    for k in range(len(cores) - 1, 0, -1):
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        kept = torch.zeros(rank, vh.shape[1], dtype=vh.dtype)
        kept[:keep] = vh[:keep]
        carried = torch.zeros(len(u), rank, dtype=vh.dtype)
        carried[:, :keep] = u[:, :keep] * s[:keep]
        cores[k], cores[k - 1] = kept.reshape(rank, *cores[k].shape[1:]), cores[k - 1] @ carried
    return cores
""",
            "no rank may grow",
            "At most this rank: where there are fewer singular values, fewer are kept.",
        ),
        "two cores at least": Mistake(
            SWEEP
            + """

def tt_round(cores, rank):
    cores = swept(cores)
    k = len(cores) - 1
    while True:
        u, s, vh = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        keep = min(rank, len(s))
        cores[k] = vh[:keep].reshape(keep, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ (u[:, :keep] * s[:keep])
        k -= 1
        if k == 0:
            return cores
""",
            "raised IndexError",
            "Try a train of one core: how often does your loop run?",
        ),
    },
)

BOUNDS = """
def error_bounds(cores, rank):
    cores, lost = swept(cores), []
    for k in range(len(cores) - 1, 0, -1):
        u, s, _ = torch.linalg.svd(cores[k].flatten(1), full_matrices=False)
        lost.append({lost})
        cores[k - 1] = cores[k - 1] @ (u{cut} * s{cut})
    lost = torch.stack(lost)
    return {result}
"""


def bounds(lost: str = "s[rank:].norm()", cut: str = "", result: str = "lost.max(), lost.norm()") -> str:
    return SWEEP + "\n" + BOUNDS.format(lost=lost, cut=cut, result=result)


ERROR_BOUNDS = Answers(
    right={
        "from the left": """
def error_bounds(cores, rank):
    cores = list(cores)
    for k in range(len(cores) - 1, 0, -1):
        q, r = torch.linalg.qr(cores[k].flatten(1).T)
        cores[k] = q.T.reshape(-1, *cores[k].shape[1:])
        cores[k - 1] = cores[k - 1] @ r.T
    squares = []
    for k in range(len(cores) - 1):
        values = torch.linalg.svdvals(cores[k].flatten(0, 1))
        squares.append(float(values[rank:].square().sum()))
        q, r = torch.linalg.qr(cores[k].flatten(0, 1))
        cores[k + 1] = torch.tensordot(r, cores[k + 1], 1)
    return [max(squares) ** 0.5, sum(squares) ** 0.5]
""",
        "in plain numbers": bounds(result="(float(max(lost)), float(sum(one**2 for one in lost)) ** 0.5)"),
    },
    wrong={
        "errors added": Mistake(
            bounds(result="lost.max(), lost.sum()"),
            "expected the most error to be",
            "The errors of the cuts are orthogonal to each other, so their squares add.",
        ),
        "no root": Mistake(
            bounds(result="lost.max(), lost.square().sum()"),
            "expected the most error to be 2,",
            "The bound is a norm: the root of the sum of squares.",
        ),
        "the smallest cut": Mistake(
            bounds(result="lost.min(), lost.norm()"),
            "expected the least error to be",
            "Every cut alone has to be paid, so also the dearest one: the largest.",
        ),
        "the other way round": Mistake(
            bounds(result="lost.norm(), lost.max()"),
            "expected the least error to be",
            "(least, most), as the names say.",
        ),
        "only the largest that is lost": Mistake(
            bounds(lost="s[rank] if rank < len(s) else 0 * s[0]"),
            "expected the least error to be",
            "All singular values that are cut off count, not the first of them.",
        ),
        "what is kept": Mistake(
            bounds(lost="s[:rank].norm()"),
            "expected the least error to be 2,",
            "`s[:rank]` stays; the error is what goes.",
        ),
        "one singular value too many": Mistake(
            bounds(lost="s[rank - 1 :].norm()"),
            "expected the least error to be 2,",
            "`s[rank:]` begins with the first that is lost; indices begin at 0.",
        ),
        "spectra of the train that was cut": Mistake(
            bounds(cut="[:, :rank]"),
            "raised",
            "How many axes has `s`, and how many does `s[:, :rank]` ask for? And is the next spectrum to be that of a "
            "train that is cut already?",
        ),
        "spectra after cutting": Mistake(
            bounds().replace("(u * s)", "(u[:, :rank] * s[:rank])"),
            "expected the",
            "The bounds are about the tensor as it was given. Do you cut before you look at the next bond?",
        ),
        "relative to the norm": Mistake(
            bounds(result="lost.max() / cores[0].norm(), lost.norm() / cores[0].norm()"),
            "expected the least error to be 2,",
            "The question asks for the error itself; dividing is up to the caller.",
        ),
        "no sweep before": Mistake(
            bounds().replace("swept(cores), []", "list(cores), []"),
            "expected the least error to be",
            "While the other cores are not orthonormal, the singular values of one core are not those of the "
            "unfolding.",
        ),
        "the measured error": Mistake(
            """
def error_bounds(cores, rank):
    gone = inner(cores, cores) - inner(tt_round(cores, rank), tt_round(cores, rank))
    return gone.abs().sqrt(), gone.abs().sqrt()
""",
            "expected the",
            "One measured error is no bound, and a difference of two squares loses digits.",
        ),
        "the library": Mistake(
            """
def error_bounds(cores, rank):
    tensor = ttq.tt_to_tensor(cores)
    lost = torch.stack([values[rank:].norm() for values in ttq.singular_values(tensor)])
    return lost.max(), lost.norm()
""",
            "write it yourself: tt_to_tensor was called",
            "`singular_values` takes the whole tensor. In which matrices of question 5 did you meet the same spectra?",
        ),
        "one number": Mistake(bounds(result="lost.norm()"), "expected two numbers", "A pair: (least, most)."),
    },
)

ANSWERS = {
    "multiply": MULTIPLY,
    "inner": INNER,
    "left_orthogonal": LEFT_ORTHOGONAL,
    "norm": NORM,
    "tt_round": TT_ROUND,
    "error_bounds": ERROR_BOUNDS,
}
