"""Answers to the exercises of chapter 13: shared weights, patches as rows, the speed of several workers."""

from tests.answers import Answers, Wrong


def counted(
    stored: str = "sum({name: a * b for name, a, b, _ in places}.values())",
    flops: str = "sum(2 * tokens * a * b * times for _, a, b, times in places)",
) -> str:
    return f"""
def numbers_and_flops(places, tokens):
    return {stored}, {flops}
"""


NUMBERS_AND_FLOPS = Answers(
    right={
        "a dictionary of weights": counted(),
        "a set of what was seen": """
def numbers_and_flops(places, tokens):
    seen, stored, flops = set(), 0, 0
    for name, inputs, outputs, times in places:
        if name not in seen:
            stored += inputs * outputs
        seen.add(name)
        flops += 2 * inputs * outputs * times * tokens
    return stored, flops
""",
    },
    wrong={
        "a tied table twice": Wrong(counted(stored="sum(a * b for _, a, b, _ in places)"), "tied head, numbers stored"),
        "stored as often as it runs": Wrong(
            counted(stored="sum({name: a * b * max(1, t) for name, a, b, t in places}.values())"),
            "twelve times, numbers stored",
        ),
        "a look-up multiplies": Wrong(
            counted(flops="sum(2 * tokens * a * b * max(1, times) for _, a, b, times in places)"), "tied head, FLOPs"
        ),
        "one FLOP for a multiplication and an addition": Wrong(
            counted(flops="sum(tokens * a * b * times for _, a, b, times in places)"), "one matrix, FLOPs"
        ),
        "one token": Wrong(counted(flops="sum(2 * a * b * t for _, a, b, t in places)"), "tied head, FLOPs"),
        "computed once where it is stored once": Wrong(
            counted(flops="sum({n: 2 * tokens * a * b * t for n, a, b, t in places}.values())"),
            "written down three times, FLOPs",
        ),
        "experts all run": Wrong(
            counted(flops="sum(2 * tokens * a * b * -(-t // 1) for _, a, b, t in places)"), "eight experts, FLOPs"
        ),
        "equal sizes are equal weights": Wrong(
            counted(stored="sum({(a, b): a * b for _, a, b, _ in places}.values())"), "numbers stored"
        ),
        "numbers alone": Wrong(
            """
def numbers_and_flops(places, tokens):
    return sum({name: a * b for name, a, b, _ in places}.values())
""",
            "expected two numbers",
        ),
    },
)

PATCHES = """
def rows_of_patches(pictures, patch):
    b, c, h, w = pictures.shape
    cut = pictures.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute({order}).reshape(b, -1, c * patch * patch)
"""


def cut(order: str = "0, 2, 4, 1, 3, 5") -> str:
    return PATCHES.format(order=order)


ROWS_OF_PATCHES = Answers(
    right={
        "reshape and permute": cut(),
        "unfold along two axes": """
def rows_of_patches(pictures, patch):
    cut = pictures.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, C, h, w, p, p)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
""",
        "loops": """
def rows_of_patches(pictures, patch):
    _, _, height, width = pictures.shape
    rows = []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            rows.append(pictures[:, :, top : top + patch, left : left + patch].flatten(1))
    return torch.stack(rows, dim=1)
""",
    },
    wrong={
        "nothing moved": Wrong(
            """
def rows_of_patches(pictures, patch):
    b, c, h, w = pictures.shape
    return pictures.reshape(b, (h // patch) * (w // patch), c * patch * patch)
""",
            "the values are off",
        ),
        "channels last": Wrong(cut("0, 2, 4, 3, 5, 1"), "for 2 of 3 × 4 × 6"),
        "column by column": Wrong(cut("0, 4, 2, 1, 3, 5"), "patches of 2 × 2 the values"),
        "patches lie on their side": Wrong(cut("0, 2, 4, 1, 5, 3"), "patches of 2 × 2 the values"),
        "patches overlap": Wrong(
            """
def rows_of_patches(pictures, patch):
    return torch.nn.functional.unfold(pictures, patch).transpose(1, 2)
""",
            "expected shape (1, 4, 4), got (1, 9, 4)",
        ),
        "features before patches": Wrong(
            """
def rows_of_patches(pictures, patch):
    return torch.nn.functional.unfold(pictures, patch, stride=patch)
""",
            "patches of 2 × 2 the values",
        ),
        "one channel": Wrong(
            """
def rows_of_patches(pictures, patch):
    return torch.nn.functional.unfold(pictures[:, :1], patch, stride=patch).transpose(1, 2)
""",
            "expected shape (2, 6, 12)",
        ),
    },
)


def speed(exchange: str = "2 * (workers - 1) / workers * 32 * numbers / (1e6 * mbit)", rows: str = "workers * batch"):
    return f"""
def samples_a_second(batch, seconds, numbers, workers, mbit):
    return {rows} / (seconds + {exchange})
"""


SAMPLES_A_SECOND = Answers(
    right={
        "one formula": speed(),
        "step by step": """
def samples_a_second(batch, seconds, numbers, workers, mbit):
    gradients = 4 * numbers
    sent = 2 * (workers - 1) * gradients / workers
    bytes_a_second = mbit * 1e6 / 8
    return batch * workers / (seconds + sent / bytes_a_second)
""",
    },
    wrong={
        "bits are bytes": Wrong(speed("2 * (workers - 1) / workers * 4 * numbers / (1e6 * mbit)"), "for 2 workers"),
        "of one worker": Wrong(speed(rows="batch"), "for 2 workers"),
        "every worker sends everything to everybody": Wrong(
            speed("(workers - 1) * 32 * numbers / (1e6 * mbit)"), "for 4 workers"
        ),
        "one round of the ring": Wrong(speed("(workers - 1) / workers * 32 * numbers / (1e6 * mbit)"), "for 2 workers"),
        "one worker sends, too": Wrong(speed("2 * 32 * numbers / (1e6 * mbit)"), "for 1 worker,"),
        "no exchange": Wrong(speed("0"), "for 2 workers"),
        "megabits of 2**20": Wrong(
            speed("2 * (workers - 1) / workers * 32 * numbers / (2**20 * mbit)"), "for 2 workers"
        ),
        "seconds, not samples": Wrong(
            """
def samples_a_second(batch, seconds, numbers, workers, mbit):
    return seconds + 2 * (workers - 1) / workers * 32 * numbers / (1e6 * mbit)
""",
            "for 1 worker,",
        ),
    },
)

ANSWERS = {
    "numbers_and_flops": NUMBERS_AND_FLOPS,
    "rows_of_patches": ROWS_OF_PATCHES,
    "samples_a_second": SAMPLES_A_SECOND,
}
