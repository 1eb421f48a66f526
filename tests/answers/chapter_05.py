"""Answers to the exercises of chapter 5: the error of a product, a front, and a stream of bits."""

from math import prod, sqrt

from tests.answers import Answers, Wrong

NAMES = {"prod": prod, "sqrt": sqrt}

PRODUCT_ERROR = Answers(
    right={
        "what is kept, core after core": """
def product_error(errors):
    kept = 1.0
    for error in errors:
        kept *= 1 - error**2
    return (1 - kept) ** 0.5
""",
        "tensors": """
def product_error(errors):
    squares = torch.tensor(errors, dtype=torch.float64).square()
    return (1 - (1 - squares).prod()).sqrt()
""",
        "logarithms": """
def product_error(errors):
    return math.sqrt(-math.expm1(sum(math.log1p(-(error**2)) for error in errors)))
""",
    },
    wrong={
        "in quadrature": Wrong(
            """
def product_error(errors):
    return sqrt(sum(error**2 for error in errors))
""",
            "for the errors [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] the values are off by",
        ),
        "as if errors were uncorrelated with the core": Wrong(
            """
def product_error(errors):
    return sqrt(prod(1 + error**2 for error in errors) - 1)
""",
            "for the errors [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] the values are off by",
        ),
        "the worst case": Wrong(
            """
def product_error(errors):
    return prod(1 + error for error in errors) - 1
""",
            "for the errors [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] the values are off by",
        ),
        "errors not squared": Wrong(
            """
def product_error(errors):
    return 1 - prod(1 - error for error in errors)
""",
            "for the errors [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] the values are off by",
        ),
        "no root": Wrong(
            """
def product_error(errors):
    return 1 - prod(1 - error**2 for error in errors)
""",
            "for the errors [0.1] the values are off by",
        ),
        "the largest error": Wrong(
            """
def product_error(errors):
    return max(errors)
""",
            "for the errors [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] the values are off by",
        ),
        "six cores hard-coded": Wrong(
            """
def product_error(errors):
    return sqrt(1 - (1 - errors[0] ** 2) ** 6)
""",
            "for the errors [0.1] the values are off by",
        ),
        "one error for all": Wrong(
            """
def product_error(errors):
    mean = sum(errors) / len(errors)
    return sqrt(1 - (1 - mean**2) ** len(errors))
""",
            "for the errors [0.0, 0.3, 0.4] the values are off by",
        ),
        "in single precision": Wrong(
            """
def product_error(errors):
    squares = torch.tensor(errors).half().square()
    return (1 - (1 - squares).prod()).sqrt()
""",
            "for the errors [0.1] the values are off by",
        ),
        "in percent": Wrong(
            """
def product_error(errors):
    return 100 * sqrt(1 - prod(1 - error**2 for error in errors))
""",
            "for the errors [0.1] the values are off by",
        ),
        "empties the list": Wrong(
            """
def product_error(errors):
    kept = 1.0
    while errors:
        kept *= 1 - errors.pop() ** 2
    return sqrt(1 - kept)
""",
            "what it was given must stay as it was",
        ),
        "a list": Wrong(
            """
def product_error(errors):
    return [error * sqrt(len(errors)) for error in errors]
""",
            "expected shape (), got (1,)",
        ),
    },
)

PARETO = Answers(
    right={
        "every pair against every other": """
def pareto(points):
    def beaten(point):
        return any(p != point and p[0] <= point[0] and p[1] <= point[1] for p in points)

    return sorted({point for point in points if not beaten(point)})
""",
        "the least error so far": """
def pareto(points):
    front, least = [], float("inf")
    for stored, error in sorted(points):
        if error < least:
            front.append((stored, error))
            least = error
    return front
""",
        "the best of each size": """
def pareto(points):
    best = {}
    for stored, error in points:
        best[stored] = min(error, best.get(stored, error))
    sizes = sorted(best)
    return [(s, best[s]) for s in sizes if all(best[s] < best[t] for t in sizes if t < s)]
""",
    },
    wrong={
        "all of them": Wrong(
            """
def pareto(points):
    return sorted(points)
""",
            "expected [(1, 0.9), (3, 0.5)], got",
        ),
        "sorted by bytes alone": Wrong(
            """
def pareto(points):
    front = []
    for stored, error in sorted(points, key=lambda point: point[0]):
        if not front or error < front[-1][1]:
            front.append((stored, error))
    return front
""",
            "for [(1, 0.5), (1, 0.4), (1, 0.4)] expected [(1, 0.4)]",
        ),
        "as they come": Wrong(
            """
def pareto(points):
    front = []
    for stored, error in points:
        if not front or error < front[-1][1]:
            front.append((stored, error))
    return front
""",
            "expected [(1, 0.9), (3, 0.5)], got",
        ),
        "the smallest error only": Wrong(
            """
def pareto(points):
    return [min(points, key=lambda point: point[1])]
""",
            "expected [(1, 0.9), (3, 0.5)], got",
        ),
        "the larger first": Wrong(
            """
def pareto(points):
    front = []
    for stored, error in sorted(points):
        if not front or error < front[-1][1]:
            front.append((stored, error))
    return front[::-1]
""",
            "expected [(1, 0.9), (3, 0.5)], got",
        ),
        "equal errors stay": Wrong(
            """
def pareto(points):
    def beaten(point):
        return any(p[0] < point[0] and p[1] < point[1] for p in points)

    return sorted({point for point in points if not beaten(point)})
""",
            "for [(2, 0.3), (1, 0.3), (2, 0.2)] expected [(1, 0.3), (2, 0.2)]",
        ),
        "twice the same": Wrong(
            """
def pareto(points):
    def beaten(point):
        return any(p != point and p[0] <= point[0] and p[1] <= point[1] for p in points)

    return sorted(point for point in points if not beaten(point))
""",
            "for [(1, 0.5), (1, 0.4), (1, 0.4)] expected [(1, 0.4)]",
        ),
        "sorts what it was given": Wrong(
            """
def pareto(points):
    points.sort()
    front = []
    for stored, error in points:
        if not front or error < front[-1][1]:
            front.append((stored, error))
    return front
""",
            "what it was given must stay as it was",
        ),
        "errors alone": Wrong(
            """
def pareto(points):
    front = []
    for stored, error in sorted(points):
        if not front or error < front[-1]:
            front.append(error)
    return front
""",
            "expected [(1, 0.9), (3, 0.5)], got [0.9, 0.5]",
        ),
        "a set": Wrong(
            """
def pareto(points):
    return {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
""",
            "expected [(1, 0.9), (3, 0.5)], got {",
        ),
        "larger errors wanted": Wrong(
            """
def pareto(points):
    front = []
    for stored, error in sorted(points):
        if not front or error > front[-1][1]:
            front.append((stored, error))
    return front
""",
            "expected [(1, 0.9), (3, 0.5)], got",
        ),
    },
)

PACK_BITS = Answers(
    right={
        "text of zeros and ones": """
def pack_bits(codes, bits):
    stream = "".join(f"{code:0{bits}b}"[::-1] for code in codes)
    stream += "0" * (-len(stream) % 8)
    return bytes(int(stream[k : k + 8][::-1], 2) for k in range(0, len(stream), 8))
""",
        "bit after bit": """
def pack_bits(codes, bits):
    packed = bytearray((bits * len(codes) + 7) // 8)
    for k in range(bits * len(codes)):
        packed[k // 8] |= (codes[k // bits] >> (k % bits) & 1) << (k % 8)
    return bytes(packed)
""",
        "a buffer that runs over": """
def pack_bits(codes, bits):
    out, held, filled = [], 0, 0
    for code in codes:
        held |= code << filled
        filled += bits
        while filled >= 8:
            out.append(held & 255)
            held, filled = held >> 8, filled - 8
    return bytes(out + [held] * (filled > 0))
""",
    },
    wrong={
        "highest bit first": Wrong(
            """
def pack_bits(codes, bits):
    stream = "".join(f"{code:0{bits}b}" for code in codes)
    stream += "0" * (-len(stream) % 8)
    return bytes(int(stream[k : k + 8], 2) for k in range(0, len(stream), 8))
""",
            "for [1, 0, 3, 2] at 2 bits expected the bytes [177]",
        ),
        "last code first": Wrong(
            """
def pack_bits(codes, bits):
    number = 0
    for code in codes:
        number = number << bits | code
    return number.to_bytes((bits * len(codes) + 7) // 8, "little")
""",
            "for [1, 0, 3, 2] at 2 bits expected the bytes [177]",
        ),
        "a byte each": Wrong(
            """
def pack_bits(codes, bits):
    return bytes(codes)
""",
            "for [1, 0, 3, 2] at 2 bits expected the bytes [177], got [1, 0, 3, 2]",
        ),
        "bytes the other way round": Wrong(
            """
def pack_bits(codes, bits):
    number = sum(code << (bits * k) for k, code in enumerate(codes))
    return number.to_bytes((bits * len(codes) + 7) // 8, "big")
""",
            "for [5, 2, 7, 1, 6] at 3 bits expected the bytes",
        ),
        "always a byte more": Wrong(
            """
def pack_bits(codes, bits):
    number = sum(code << (bits * k) for k, code in enumerate(codes))
    return number.to_bytes(bits * len(codes) // 8 + 1, "little")
""",
            "for [1, 0, 3, 2] at 2 bits expected the bytes [177], got [177, 0]",
        ),
        "the last byte cut off": Wrong(
            """
def pack_bits(codes, bits):
    number = sum(code << (bits * k) for k, code in enumerate(codes))
    return number.to_bytes(bits * len(codes) // 8, "little")
""",
            "raised OverflowError",
        ),
        "no code across two bytes": Wrong(
            """
def pack_bits(codes, bits):
    each, packed = 8 // bits, []
    for start in range(0, len(codes), each):
        group = codes[start : start + each]
        packed.append(sum(code << (bits * k) for k, code in enumerate(group)))
    return bytes(packed)
""",
            "for [5, 2, 7, 1, 6] at 3 bits expected the bytes",
        ),
        "two bits hard-coded": Wrong(
            """
def pack_bits(codes, bits):
    number = sum(code << (2 * k) for k, code in enumerate(codes))
    return number.to_bytes((2 * len(codes) + 7) // 8, "little")
""",
            "for [1, 1, 0] at 1 bits expected the bytes [3], got [5]",
        ),
        "a list": Wrong(
            """
def pack_bits(codes, bits):
    number = sum(code << (bits * k) for k, code in enumerate(codes))
    return list(number.to_bytes((bits * len(codes) + 7) // 8, "little"))
""",
            "expected the bytes [177], got the list [177]",
        ),
        "one large number": Wrong(
            """
def pack_bits(codes, bits):
    return sum(code << (bits * k) for k, code in enumerate(codes))
""",
            "expected the bytes [177], got the int 177",
        ),
        "shifted in place": Wrong(
            """
def pack_bits(codes, bits):
    for k in range(len(codes)):
        codes[k] <<= bits * k
    return sum(codes).to_bytes((bits * len(codes) + 7) // 8, "little")
""",
            "what it was given must stay as it was",
        ),
    },
)

ANSWERS = {"product_error": PRODUCT_ERROR, "pareto": PARETO, "pack_bits": PACK_BITS}
