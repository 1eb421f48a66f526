"""Answers to the exercises of chapter 3: a layer of trains, stage by stage."""

from tests.answers import Answers, Wrong

CORE_SCALE = Answers(
    right={
        "the root of a root": """
def core_scale(ranks, std):
    return (std / math.prod(ranks) ** 0.5) ** (1 / (len(ranks) - 1))
""",
        "by logarithms, bond after bond": """
def core_scale(ranks, std):
    logarithm = math.log(std)
    for rank in ranks[1:-1]:
        logarithm -= math.log(rank) / 2
    return torch.tensor(logarithm / (len(ranks) - 1), dtype=torch.float64).exp()
""",
    },
    wrong={
        "the square root forgotten": Wrong(
            """
def core_scale(ranks, std):
    return (std / math.prod(ranks)) ** (1 / (len(ranks) - 1))
""",
            "for ranks (1, 4, 1) and std 0.5 the values are off by",
        ),
        "ranks forgotten": Wrong(
            """
def core_scale(ranks, std):
    return std ** (1 / (len(ranks) - 1))
""",
            "for ranks (1, 4, 1) and std 0.5 the values are off by",
        ),
        "one core too many": Wrong(
            """
def core_scale(ranks, std):
    return (std / math.prod(ranks) ** 0.5) ** (1 / len(ranks))
""",
            "for ranks (1, 1) and std 0.5 the values are off by",
        ),
        "bonds counted as cores": Wrong(
            """
def core_scale(ranks, std):
    return (std / math.prod(ranks) ** 0.5) ** (1 / max(1, len(ranks) - 2))
""",
            "for ranks (1, 4, 1) and std 0.5 the values are off by",
        ),
        "always six cores": Wrong(
            """
def core_scale(ranks, std):
    return (std / math.prod(ranks) ** 0.5) ** (1 / 6)
""",
            "for ranks (1, 1) and std 0.5 the values are off by",
        ),
        "the middle rank for all bonds": Wrong(
            """
def core_scale(ranks, std):
    cores = len(ranks) - 1
    return (std / max(ranks) ** ((cores - 1) / 2)) ** (1 / cores)
""",
            "for ranks (1, 12, 30, 30, 30, 12, 1) and std 0.02 the values are off by",
        ),
        "the ranks changed in place": Wrong(
            """
def core_scale(ranks, std):
    cores = len(ranks) - 1
    if isinstance(ranks, list):
        ranks.sort()
    return (std / math.prod(ranks) ** 0.5) ** (1 / cores)
""",
            "what it was given must stay as it was",
        ),
    },
)

TT_FORWARD = Answers(
    right={
        "left to right": """
def tt_forward(x, cores, order):
    state = x[:, None]
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], core.shape[1], -1)
        state = torch.einsum("braz,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
    return state[:, 0]
""",
        "sides first": """
def tt_forward(x, cores, order):
    u, v = torch.ones(1, 1, dtype=x.dtype), torch.ones(1, 1, dtype=x.dtype)
    for core in cores[:order]:
        u = (u @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[order:]):
        v = (core.flatten(0, 1) @ v).reshape(core.shape[0], -1)
    return (x @ u) @ v
""",
    },
    wrong={
        "the whole weight": Wrong(
            """
def tt_forward(x, cores, order):
    weight = ttq.tt_to_tensor(cores)
    return x @ weight.reshape(x.shape[1], -1)
""",
            "it builds the weight, which has 10¹² entries here",
        ),
        "the product of the sides": Wrong(
            """
def tt_forward(x, cores, order):
    u = ttq.tt_to_tensor([*cores[:order], torch.eye(cores[order].shape[0], dtype=x.dtype)[..., None]])
    u = u.reshape(-1, cores[order].shape[0])
    v = torch.ones(1, 1, dtype=x.dtype)
    for core in reversed(cores[order:]):
        v = (core.flatten(0, 1) @ v).reshape(core.shape[0], -1)
    return x @ (u @ v)
""",
            "it builds the weight, which has 10¹² entries here",
        ),
        "half of the cores are inputs, always": Wrong(
            """
def tt_forward(x, cores, order):
    state, order = x[:, None], len(cores) // 2
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], core.shape[1], -1)
        state = torch.einsum("braz,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
    return state[:, 0]
""",
            "input modes (2, 3) and output modes (4,) expected shape (1, 4), got (1, 36)",
        ),
        "one row only": Wrong(
            """
def tt_forward(x, cores, order):
    state = x[:1, None]
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], core.shape[1], -1)
        state = torch.einsum("braz,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
    return state[:, 0]
""",
            "expected shape (4, 4), got (1, 4)",
        ),
        "the last input mode first": Wrong(
            """
def tt_forward(x, cores, order):
    state = x[:, None]
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], -1, core.shape[1])
        state = torch.einsum("brza,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
    return state[:, 0]
""",
            "input modes (2, 3) and output modes (4,) the values are off by",
        ),
        "output modes in the wrong order": Wrong(
            """
def tt_forward(x, cores, order):
    state = x[:, None]
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], core.shape[1], -1)
        state = torch.einsum("braz,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsaz", state, core).flatten(2)
    return state[:, 0]
""",
            "input modes (2, 2, 3) and output modes (3, 2, 2) the values are off by",
        ),
        "a bond too many at the end": Wrong(
            """
def tt_forward(x, cores, order):
    state = x[:, None]
    for core in cores[:order]:
        state = state.reshape(*state.shape[:2], core.shape[1], -1)
        state = torch.einsum("braz,ras->bsz", state, core)
    for core in cores[order:]:
        state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
    return state
""",
            "expected shape (1, 4), got (1, 1, 4)",
        ),
        "a core changed in place": Wrong(
            """
def tt_forward(x, cores, order):
    u, v = torch.ones(1, 1, dtype=x.dtype), torch.ones(1, 1, dtype=x.dtype)
    for core in cores[:order]:
        u = (u @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[order:]):
        v = (core.flatten(0, 1) @ v).reshape(core.shape[0], -1)
    cores.reverse()
    return (x @ u) @ v
""",
            "what it was given must stay as it was",
        ),
    },
)

CORE_GRADIENT = Answers(
    right={
        "left, right, and the gradient between them": """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[k + 1 :]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = gradient.reshape(len(left), cores[k].shape[1], -1)
    return torch.einsum("la,lnr,br->anb", left, middle, right)
""",
        "one core after the other peeled off the gradient": """
def core_gradient(cores, gradient, k):
    state = gradient.reshape(1, -1)
    for core in cores[:k]:
        r, n, s = core.shape
        state = core.flatten(0, 1).T @ state.reshape(r * n, -1)
    for core in reversed(cores[k + 1 :]):
        r, n, s = core.shape
        state = state.reshape(-1, n * s) @ core.flatten(1).T
    return state.reshape(cores[k].shape)
""",
    },
    wrong={
        "autograd": Wrong(
            """
def core_gradient(cores, gradient, k):
    cores = [core.clone().requires_grad_() for core in cores]
    (ttq.tt_to_tensor(cores) * gradient).sum().backward()
    return cores[k].grad
""",
            "it asks autograd for a gradient",
        ),
        "autograd, switched on again": Wrong(
            """
def core_gradient(cores, gradient, k):
    with torch.enable_grad():
        core = cores[k].detach().clone().requires_grad_()
        whole = ttq.tt_to_tensor([*cores[:k], core, *cores[k + 1 :]])
        return torch.autograd.grad(whole, core, gradient)[0]
""",
            "it asks autograd for a gradient",
        ),
        "a letter for every mode": Wrong(
            """
def core_gradient(cores, gradient, k):
    import string

    letters, count = string.ascii_letters, len(cores)
    terms = [letters[j] + letters[count + 1 + j] + letters[j + 1] for j in range(count)]
    others = [core for j, core in enumerate(cores) if j != k]
    names = ",".join([letters[count + 1 : 2 * count + 1], *(term for j, term in enumerate(terms) if j != k)])
    spare = {0: letters[0], count - 1: letters[count]}
    result = torch.einsum(f"{names}->{terms[k].replace(spare.get(k, ' '), '')}", gradient, *others)
    return result.reshape(cores[k].shape)
""",
            "raised IndexError",
        ),
        "the first core's, always": Wrong(
            """
def core_gradient(cores, gradient, k):
    right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in reversed(cores[1:]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    return (gradient.reshape(cores[0].shape[1], -1) @ right.T)[None]
""",
            "for core 1 of a 2 × 3 × 4 train expected shape",
        ),
        "the right part merged from its left end": Wrong(
            """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in cores[k + 1 :]:
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = gradient.reshape(len(left), cores[k].shape[1], -1)
    return torch.einsum("la,lnr,br->anb", left, middle, right)
""",
            "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        ),
        "bonds swapped": Wrong(
            """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[k + 1 :]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = gradient.reshape(len(left), cores[k].shape[1], -1)
    return torch.einsum("la,lnr,br->bna", left, middle, right)
""",
            "for core 0 of a 2 × 3 × 4 train expected shape",
        ),
        "the gradient taken for ones": Wrong(
            """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[k + 1 :]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = torch.ones_like(gradient).reshape(len(left), cores[k].shape[1], -1)
    return torch.einsum("la,lnr,br->anb", left, middle, right)
""",
            "for core 0 of a 2 × 3 × 4 train the values are off by",
        ),
        "the core itself taken along": Wrong(
            """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[k + 1 :]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = gradient.reshape(len(left), cores[k].shape[1], -1)
    return torch.einsum("la,lnr,br->anb", left, middle, right) * cores[k]
""",
            "for core 0 of a 2 × 3 × 4 train the values are off by",
        ),
        "the gradient turned into another shape": Wrong(
            """
def core_gradient(cores, gradient, k):
    left = right = torch.ones(1, 1, dtype=gradient.dtype)
    for core in cores[:k]:
        left = (left @ core.flatten(1)).reshape(-1, core.shape[2])
    for core in reversed(cores[k + 1 :]):
        right = (core.flatten(0, 1) @ right).reshape(core.shape[0], -1)
    middle = gradient.reshape(-1, cores[k].shape[1], len(left)).permute(2, 1, 0)
    return torch.einsum("la,lnr,br->anb", left, middle, right)
""",
            "for core 0 of a 2 × 3 × 4 train the values are off by",
        ),
    },
)

# what the chapter asks for, with a place in it for each slip
LAYER = """
class Layer(torch.nn.Module):
    def __init__(self, in_modes, out_modes, rank):
        super().__init__()
        modes, self.order = (*in_modes, *out_modes), len(in_modes)
        ranks = [1]
        for k in range(1, len(modes)):
            ranks.append(min(rank, math.prod(modes[:k]), math.prod(modes[k:])))
        ranks.append(1)
        sigma = (math.prod(in_modes) ** -0.5 / math.prod(ranks) ** 0.5) ** (1 / len(modes))
        shapes = zip(ranks, modes, ranks[1:])
        self.cores = torch.nn.ParameterList(sigma * torch.randn(shape) for shape in shapes)
        self.bias = torch.nn.Parameter(torch.zeros(math.prod(out_modes)))

    def sides(self):
        u, v = self.cores[0][0], self.cores[-1][..., 0]
        for core in self.cores[1 : self.order]:
            u = (u @ core.flatten(1)).reshape(-1, core.shape[2])
        for core in reversed([*self.cores][self.order : -1]):
            v = (core.flatten(0, 1) @ v).reshape(core.shape[0], -1)
        return u, v

    def forward(self, x):
        u, v = self.sides()
        return x @ u @ v + self.bias


def tt_layer(in_modes, out_modes, rank):
    return Layer(in_modes, out_modes, rank)
"""


def slip(old: str, new: str) -> str:
    """The layer with one of its lines written otherwise."""
    assert LAYER.count(old) == 1, old
    return LAYER.replace(old, new)


TT_LAYER = Answers(
    right={
        "sides first": LAYER,
        "left to right, with names of its own": """
from torch import nn


class Train(nn.Module):
    def __init__(self, in_modes, out_modes, rank):
        super().__init__()
        self.inputs = len(in_modes)
        modes = [*in_modes, *out_modes]
        bonds = [1, *[rank] * (len(modes) - 1), 1]
        size = math.prod(in_modes) ** (-0.5 / len(modes)) * math.prod(bonds) ** (-0.5 / len(modes))
        for k, mode in enumerate(modes):
            self.register_parameter(f"core{k}", nn.Parameter(torch.randn(bonds[k], mode, bonds[k + 1]) * size))
        self.bias = nn.Parameter(torch.zeros(math.prod(out_modes)))

    @property
    def cores(self):
        return [parameter for name, parameter in self.named_parameters() if name.startswith("core")]

    def forward(self, x):
        state = x.reshape(-1, 1, x.shape[-1])
        for core in self.cores[: self.inputs]:
            state = torch.einsum("braz,ras->bsz", state.unflatten(2, (core.shape[1], -1)), core)
        for core in self.cores[self.inputs :]:
            state = torch.einsum("brz,ras->bsza", state, core).flatten(2)
        return state.reshape(*x.shape[:-1], -1) + self.bias


def tt_layer(in_modes, out_modes, rank):
    return Train(in_modes, out_modes, rank)
""",
    },
    wrong={
        "a dense layer": Wrong(
            """
def tt_layer(in_modes, out_modes, rank):
    return torch.nn.Linear(math.prod(in_modes), math.prod(out_modes))
""",
            "expected cores (r, n, r') that fit together",
        ),
        "a function, no module": Wrong(
            """
def tt_layer(in_modes, out_modes, rank):
    return lambda x: x
""",
            "expected an nn.Module, got function",
        ),
        "cores in a plain list of tensors": Wrong(
            slip(
                "torch.nn.ParameterList(sigma * torch.randn(shape) for shape in shapes)",
                "[sigma * torch.randn(shape) for shape in shapes]",
            ),
            "an optimizer has to find cores and bias among layer.parameters()",
        ),
        "entries not scaled": Wrong(
            slip("sigma * torch.randn", "torch.randn"), "expected a weight of standard deviation 0.088 at the start"
        ),
        "0.02 for every entry, as in BERT": Wrong(
            slip("sigma * torch.randn", "0.02 * torch.randn"),
            "expected a weight of standard deviation 0.088 at the start",
        ),
        "always the same start": Wrong(
            slip(
                "sigma * torch.randn(shape)", "sigma * torch.randn(shape, generator=torch.Generator().manual_seed(0))"
            ),
            "expected cores drawn at random",
        ),
        "merged once, when it is made": Wrong(
            slip(
                "    def sides(self):",
                "        self.kept = tuple(side.detach() for side in self.sides())\n\n    def sides(self):",
            ).replace("u, v = self.sides()", "u, v = (side.to(x.dtype) for side in self.kept)"),
            "for an input of shape (5, 6), the values are off by",
        ),
        "the bias forgotten": Wrong(
            slip("x @ u @ v + self.bias", "x @ u @ v"), "for an input of shape (6,), the values are off by"
        ),
        "a random bias": Wrong(
            slip("torch.nn.Parameter(torch.zeros(", "torch.nn.Parameter(torch.randn("),
            "expected a bias that starts at zero",
        ),
        "W kept as a parameter too": Wrong(
            slip(
                "    def sides(self):",
                "        self.weight = torch.nn.Parameter(self.sides()[0] @ self.sides()[1])\n\n    def sides(self):",
            ),
            "cores and bias, got",
        ),
        "a batch of rows and nothing else": Wrong(
            slip("return x @ u @ v + self.bias", "return torch.einsum('bn,nr,rm->bm', x, u, v) + self.bias"),
            "raised ValueError",
        ),
        "the cores cut off from autograd": Wrong(
            slip("return u, v", "return u.detach(), v.detach()"), "no gradient reaches core 0"
        ),
        "the whole weight in every pass": Wrong(
            slip("x @ u @ v", "x @ (u @ v)"), "it builds the weight, which has 10¹² entries here"
        ),
        "ranks above the one asked for": Wrong(
            slip("min(rank, ", "min(2 * rank, "), "expected ranks of at most 2, got"
        ),
    },
)

ANSWERS = {
    "core_scale": CORE_SCALE,
    "tt_forward": TT_FORWARD,
    "core_gradient": CORE_GRADIENT,
    "tt_layer": TT_LAYER,
}
