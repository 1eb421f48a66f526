"""Answers to the exercises of chapter 7: bits for the rest, standard errors, the smallest good row."""

from tests.answers import Answers, Wrong

REST_BITS = Answers(
    right={
        "in bytes first": """
def rest_bits(dense, cores, rest, bits, ratio):
    allowed = 4 * dense / ratio
    return 8 * (allowed - cores * bits / 8) / rest
""",
        "a tensor": """
def rest_bits(dense, cores, rest, bits, ratio):
    budget = torch.tensor(32 * dense / ratio, dtype=torch.float64)
    return (budget - bits * cores) / rest
""",
    },
    wrong={
        "no less than nothing": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return max(0, (32 * dense / ratio - bits * cores) / rest)
""",
            "100 in the rest and 10× the values are off by up to 40: expected -40, got 0",
        ),
        "bytes taken for bits": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return (4 * dense / ratio - bits * cores / 8) / rest
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "cores forgotten": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return 32 * dense / ratio / rest
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "cores in 32 bits": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return (32 * dense / ratio - 32 * cores) / rest
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "the dense model in numbers": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return (dense / ratio - bits * cores) / rest
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "all bits of the rest, not those of a number": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return 32 * dense / ratio - bits * cores
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "rounded to whole bits": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return int((32 * dense / ratio - bits * cores) / rest)
""",
            "for 15,000,000 numbers, 146,000 in cores of 4 bits, 181,000 in the rest and 60× the values are off by",
        ),
        "the ratio upside down": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return (32 * dense * ratio - bits * cores) / rest
""",
            "for 1,000,000 numbers, 10,000 in cores of 2 bits, 6,000 in the rest and 100× the values are off by",
        ),
        "text": Wrong(
            """
def rest_bits(dense, cores, rest, bits, ratio):
    return f"{(32 * dense / ratio - bits * cores) / rest:.0f} bits"
""",
            "expected a tensor of shape (), got str",
        ),
    },
)

STANDARD_ERRORS = Answers(
    right={
        "two variances of means": """
def standard_errors(one, other, seeds):
    variances = [metric["sd"] ** 2 / seeds for metric in (one, other)]
    return (one["mean"] - other["mean"]) / math.sqrt(sum(variances))
""",
        "the hypotenuse": """
def standard_errors(one, other, seeds):
    apart = math.hypot(one["sd"], other["sd"])
    return (one["mean"] - other["mean"]) * seeds**0.5 / apart
""",
    },
    wrong={
        "seeds forgotten": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / (one["sd"] ** 2 + other["sd"] ** 2) ** 0.5
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "without a sign": Wrong(
            """
def standard_errors(one, other, seeds):
    return abs(one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / seeds) ** 0.5
""",
            "for 80 ± 1 and 83 ± 2, 5 seeds, the values are off by",
        ),
        "the other minus the one": Wrong(
            """
def standard_errors(one, other, seeds):
    difference = other["mean"] - one["mean"]
    return difference / ((one["sd"] ** 2 + other["sd"] ** 2) / seeds) ** 0.5
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "deviations added": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] + other["sd"]) / seeds**0.5)
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "a pooled deviation, not an error": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / 2) ** 0.5
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "the deviation of the first alone": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / (one["sd"] / seeds**0.5)
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "divided by the seeds, not their root": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) ** 0.5 / seeds)
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "one seed too few": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / (seeds - 1)) ** 0.5
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "no root": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / seeds)
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "whether, not how far": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / seeds) ** 0.5 > 2
""",
            "for 92.6 ± 0.25 and 91.9 ± 0.18, 3 seeds, the values are off by",
        ),
        "three seeds hard-coded": Wrong(
            """
def standard_errors(one, other, seeds):
    return (one["mean"] - other["mean"]) / ((one["sd"] ** 2 + other["sd"] ** 2) / 3) ** 0.5
""",
            "for 80 ± 1 and 83 ± 2, 5 seeds, the values are off by",
        ),
    },
)

SMALLEST_WITHIN = Answers(
    right={
        "a loop": """
def smallest_within(rows, points):
    dense = [r for r in rows if r["split"] == "test" and r["method"] == "dense"][0]["metrics"]
    best = None
    for row in rows:
        good = row["split"] == "test"
        for name in ("intent_accuracy", "slot_f1"):
            good = good and row["metrics"][name]["mean"] >= dense[name]["mean"] - points
        if good and (best is None or row["ratio"] > best["ratio"]):
            best = row
    return best
""",
        "sorted first": """
def smallest_within(rows, points):
    tested = sorted((r for r in rows if r["split"] == "test"), key=lambda r: -r["ratio"])
    (dense,) = (r for r in tested if r["method"] == "dense")
    for row in tested:
        metrics = zip(dense["metrics"].values(), row["metrics"].values())
        if all(one["mean"] - other["mean"] <= points for one, other in metrics):
            return row
""",
    },
    wrong={
        "of validation": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "validation"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.5 points expected the row of ratio 200, got ratio 900",
        ),
        "of any split": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"]]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.5 points expected the row of ratio 200, got ratio",
        ),
        "only intents": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy",))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "expected the row of ratio",
        ),
        "only slots": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("slot_f1",))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.4 points expected the row of ratio 20, got ratio",
        ),
        "the mean of the two": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return 0.5 * sum(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.4 points expected the row of ratio 20, got ratio",
        ),
        "one of the two is enough": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return min(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "expected the row of ratio",
        ),
        "better is as bad as worse": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(abs(dense[name]["mean"] - row["metrics"][name]["mean"]) for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.4 points expected the row of ratio 20, got ratio",
        ),
        "less than, not at most": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) < points), key=lambda row: row["ratio"])
""",
            "within 0.5 points expected the row of ratio 200, got ratio",
        ),
        "the best, not the smallest": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["metrics"]["slot_f1"]["mean"])
""",
            "within 0.5 points expected the row of ratio 200, got ratio 20",
        ),
        "the largest, not the smallest": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return min((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "within 0.5 points expected the row of ratio 200, got ratio",
        ),
        "the first row is the dense one": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = rows[0]["metrics"]

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])
""",
            "expected the row of ratio",
        ),
        "a ratio, not the row": Wrong(
            """
def smallest_within(rows, points):
    rows = [row for row in rows if row["split"] == "test"]
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")

    def gap(row):
        return max(dense[name]["mean"] - row["metrics"][name]["mean"] for name in ("intent_accuracy", "slot_f1"))

    return max((row for row in rows if gap(row) <= points), key=lambda row: row["ratio"])["ratio"]
""",
            "within 0.5 points expected the row of ratio 200, got float",
        ),
        "throws other rows away": Wrong(
            """
def smallest_within(rows, points):
    for row in list(rows):
        if row["split"] != "test":
            rows.remove(row)
    dense = next(row["metrics"] for row in rows if row["method"] == "dense")
    names = ("intent_accuracy", "slot_f1")
    good = [r for r in rows if all(dense[n]["mean"] - r["metrics"][n]["mean"] <= points for n in names)]
    return max(good, key=lambda row: row["ratio"])
""",
            "what it was given must stay as it was",
        ),
    },
)

ANSWERS = {"rest_bits": REST_BITS, "standard_errors": STANDARD_ERRORS, "smallest_within": SMALLEST_WITHIN}
