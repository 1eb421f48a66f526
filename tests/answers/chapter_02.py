"""Answers to the exercises of chapter 2: digits, the interleaving, and one row of a table that is never built."""

from tests.answers import Answers, Wrong

DIGITS = Answers(
    right={
        "divmod from the last mode": """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        number, digit = divmod(number, mode)
        result.append(digit)
    return tuple(reversed(result))
""",
        "how often each place fits": """
def digits(number, modes):
    return tuple(number // math.prod(modes[k + 1 :]) % mode for k, mode in enumerate(modes))
""",
        "torch, made into ints": """
def digits(number, modes):
    return tuple(int(d) for d in torch.unravel_index(torch.tensor(number), tuple(modes)))
""",
    },
    wrong={
        "a list": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        number, digit = divmod(number, mode)
        result.append(digit)
    return result[::-1]
""",
            "expected a tuple of ints for 0 in modes (2, 2, 2), got [0, 0, 0]",
        ),
        "the least significant first": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        number, digit = divmod(number, mode)
        result.append(digit)
    return tuple(result)
""",
            "for 1 in modes (2, 2, 2) expected (0, 0, 1), got (1, 0, 0)",
        ),
        "divided by the first mode first": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in modes:
        number, digit = divmod(number, mode)
        result.append(digit)
    return tuple(reversed(result))
""",
            "for 15376 in modes (32, 31, 31) expected (16, 0, 0), got",
        ),
        "floats": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        result.append(float(number % mode))
        number = number // mode
    return tuple(reversed(result))
""",
            "expected digits that are ints for 0 in modes (2, 2, 2), got (0.0, 0.0, 0.0)",
        ),
        "divided without rounding down": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        result.append(number % mode)
        number = number / mode
    return tuple(reversed(result))
""",
            "expected digits that are ints for 0 in modes (2, 2, 2), got (0.0, 0.0, 0)",
        ),
        "the quotient taken for the digit": Wrong(
            """
def digits(number, modes):
    result = []
    for mode in reversed(modes):
        digit, number = divmod(number, mode)
        result.append(digit)
    return tuple(reversed(result))
""",
            "for 1 in modes (2, 2, 2) expected (0, 0, 1), got (0, 0, 0)",
        ),
        "binary hard-coded": Wrong(
            """
def digits(number, modes):
    return tuple(int(bit) for bit in f"{number:0{len(modes)}b}")
""",
            "for 15376 in modes (32, 31, 31) expected (16, 0, 0), got",
        ),
        "three modes hard-coded": Wrong(
            """
def digits(number, modes):
    _, b, c = modes
    return (number // (b * c), number // c % b, number % c)
""",
            "raised ValueError: not enough values to unpack",
        ),
        "counted from one": Wrong(
            """
def digits(number, modes):
    return tuple(number // math.prod(modes[k + 1 :]) % mode + 1 for k, mode in enumerate(modes))
""",
            "for 0 in modes (2, 2, 2) expected (0, 0, 0), got (1, 1, 1)",
        ),
    },
)

INTERLEAVE = Answers(
    right={
        "reshape, permute, reshape": """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    tensor = matrix.reshape(*row_modes, *column_modes)
    tensor = tensor.permute([axis for k in range(d) for axis in (k, d + k)])
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
        "one column mode moved at a time": """
def interleave(matrix, row_modes, column_modes):
    tensor = matrix.reshape(*row_modes, *column_modes)
    for k in range(len(row_modes)):
        tensor = tensor.movedim(len(row_modes) + k, 2 * k + 1)
    for k in range(len(row_modes)):
        tensor = tensor.flatten(k, k + 1)
    return tensor
""",
    },
    wrong={
        "not permuted": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    return matrix.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "with row modes (2, 2) and column modes (2, 2) the values are off by",
        ),
        "the column mode before the row mode": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    tensor = matrix.reshape(*row_modes, *column_modes)
    tensor = tensor.permute([axis for k in range(d) for axis in (d + k, k)])
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "with row modes (2, 2) and column modes (2, 2) the values are off by",
        ),
        "the pairs are not joined": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    tensor = matrix.reshape(*row_modes, *column_modes)
    return tensor.permute([axis for k in range(d) for axis in (k, d + k)])
""",
            "with row modes (2, 2) and column modes (2, 2) expected shape (4, 4), got (2, 2, 2, 2)",
        ),
        "two modes hard-coded": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    tensor = matrix.reshape(*row_modes, *column_modes).permute(0, 2, 1, 3)
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "raised RuntimeError: permute",
        ),
        "up to three modes hard-coded": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    order = {1: (0, 1), 2: (0, 2, 1, 3), 3: (0, 3, 1, 4, 2, 5)}[len(row_modes)]
    tensor = matrix.reshape(*row_modes, *column_modes).permute(order)
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "raised KeyError: 4",
        ),
        "columns split before rows": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    tensor = matrix.reshape(*column_modes, *row_modes)
    tensor = tensor.permute([axis for k in range(d) for axis in (k, d + k)])
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "with row modes (2, 3) and column modes (4, 5) the values are off by",
        ),
        "columns in the opposite order": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    tensor = matrix.reshape(*row_modes, *column_modes)
    tensor = tensor.permute([axis for k in range(d) for axis in (k, 2 * d - 1 - k)])
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "with row modes (2, 2) and column modes (2, 2) the values are off by",
        ),
        "the matrix is scaled in place": Wrong(
            """
def interleave(matrix, row_modes, column_modes):
    d = len(row_modes)
    matrix /= matrix.abs().max()
    tensor = matrix.reshape(*row_modes, *column_modes)
    tensor = tensor.permute([axis for k in range(d) for axis in (k, d + k)])
    return tensor.reshape([m * n for m, n in zip(row_modes, column_modes)])
""",
            "what it was given must stay as it was",
        ),
    },
)

EMBEDDING_ROW = Answers(
    right={
        "slices picked, then multiplied": """
def embedding_row(cores, index):
    picked = []
    for core in reversed(cores):
        index, digit = divmod(index, core.shape[1])
        picked.append(core[:, digit])
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for piece in reversed(picked):
        row = torch.tensordot(row, piece, dims=1).flatten(0, 1)
    return row.flatten()
""",
        "from the right, in one loop": """
def embedding_row(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core in reversed(cores):
        index, digit = index // core.shape[1], index % core.shape[1]
        row = torch.einsum("ahb,bx->ahx", core[:, digit], row).flatten(1)
    return row[0]
""",
        "a train of slices": """
def embedding_row(cores, index):
    places = torch.unravel_index(torch.tensor(index), tuple(core.shape[1] for core in cores))
    return ttq.tt_to_tensor([core[:, int(place)] for core, place in zip(cores, places)]).flatten()
""",
    },
    wrong={
        "builds the table": Wrong(
            """
def embedding_row(cores, index):
    return ttq.tt_matrix_to_matrix(cores)[index]
""",
            "asked for more memory than there is",
        ),
        "the next row": Wrong(
            """
def embedding_row(cores, index):
    places = torch.unravel_index(torch.tensor(index + 1), tuple(core.shape[1] for core in cores))
    return ttq.tt_to_tensor([core[:, int(place)] for core, place in zip(cores, places)]).flatten()
""",
            "for row 0 of a table with 2 × 3 rows the values are off by",
        ),
        "digits the other way round": Wrong(
            """
def embedding_row(cores, index):
    row = torch.ones(1, 1, dtype=cores[0].dtype)
    for core in cores:
        index, digit = divmod(index, core.shape[1])
        row = torch.tensordot(row, core[:, digit], dims=1).flatten(0, 1)
    return row.flatten()
""",
            "for row 2 of a table with 2 × 3 rows the values are off by",
        ),
        "columns in the wrong order": Wrong(
            """
def embedding_row(cores, index):
    places = torch.unravel_index(torch.tensor(index), tuple(core.shape[1] for core in cores))
    row = ttq.tt_to_tensor([core[:, int(place)] for core, place in zip(cores, places)])
    return row.permute(*reversed(range(row.ndim))).flatten()
""",
            "for row 0 of a table with 2 × 3 rows the values are off by",
        ),
        "a matrix with one row": Wrong(
            """
def embedding_row(cores, index):
    places = torch.unravel_index(torch.tensor(index), tuple(core.shape[1] for core in cores))
    return ttq.tt_to_tensor([core[:, int(place)] for core, place in zip(cores, places)]).reshape(1, -1)
""",
            "for row 0 of a table with 2 × 3 rows expected shape (4,), got (1, 4)",
        ),
        "the hidden modes are not joined": Wrong(
            """
def embedding_row(cores, index):
    places = torch.unravel_index(torch.tensor(index), tuple(core.shape[1] for core in cores))
    return ttq.tt_to_tensor([core[:, int(place)] for core, place in zip(cores, places)])
""",
            "for row 0 of a table with 2 × 3 rows expected shape (4,), got (2, 2)",
        ),
        "a column, not a row": Wrong(
            """
def embedding_row(cores, index):
    picked = []
    for core in reversed(cores):
        index, digit = divmod(index, core.shape[2])
        picked.insert(0, core[:, :, digit])
    return ttq.tt_to_tensor(picked).flatten()
""",
            "for row 0 of a table with 2 × 3 rows expected shape (4,), got (6,)",
        ),
        "three cores hard-coded": Wrong(
            """
def embedding_row(cores, index):
    a, b, c = cores
    rest, z = divmod(index, c.shape[1])
    x, y = divmod(rest, b.shape[1])
    return ttq.tt_to_tensor([a[:, x], b[:, y], c[:, z]]).flatten()
""",
            "raised ValueError: not enough values to unpack",
        ),
    },
)

ANSWERS = {"digits": DIGITS, "interleave": INTERLEAVE, "embedding_row": EMBEDDING_ROW}
