"""Assignment 6: answers about extreme bits, packed and unpacked."""

from tests.answers import Answers, Mistake


def one_bit(
    signs: str = "torch.where(weight < 0, -1.0, 1.0)", scale: str = "weight.abs().mean(1, keepdim=True)"
) -> str:
    """A solution of question 1, parts of it written otherwise."""
    return f"""
def binarize(weight):
    signs = {signs}
    scale = {scale}
    return signs, scale
"""


BINARY = Answers(
    right={
        "2 c − 1": one_bit("2 * (weight >= 0).float() - 1", "weight.abs().sum(1)[:, None] / weight.shape[1]"),
        "the scale from the derivative": one_bit(scale="(weight * signs).sum(1, keepdim=True) / weight.shape[1]"),
        "row by row": """
def binarize(weight):
    signs, scales = torch.ones_like(weight), []
    for row, sign in zip(weight, signs):
        sign[row < 0] = -1
        scales.append([sum(abs(float(w)) for w in row) / len(row)])
    return signs, torch.tensor(scales)
""",
    },
    wrong={
        "a third level at 0": Mistake(
            one_bit("weight.sign()"),
            "the sign of w = 0",
            "How many different numbers does `weight.sign()` have? How many does one bit have?",
        ),
        "0 is negative": Mistake(
            one_bit("torch.where(weight > 0, 1.0, -1.0)"),
            "the sign of w = 0",
            "Which of your two branches gets the weight 0, and what does the question say of it?",
        ),
        "one scale for all rows": Mistake(
            one_bit(scale="weight.abs().mean().expand(len(weight), 1)"),
            "the scale of a row of mean |w| 0.75",
            "All your scales are one number. Over which numbers is the mean of the first row to be taken?",
        ),
        "a scale for each column": Mistake(
            one_bit(scale="weight.abs().mean(0, keepdim=True)"),
            "the scales must have shape (2, 1)",
            "You take the mean along the axis 0. How many numbers would each output of the layer get then?",
        ),
        "the largest as scale": Mistake(
            one_bit(scale="weight.abs().amax(1, keepdim=True)"),
            "expected 0.75, got 1.5",
            "With α = max|w| nothing is clipped. Put both scales into the squared error of the first row.",
        ),
        "the root of the mean square": Mistake(
            one_bit(scale="weight.square().mean(1, keepdim=True).sqrt()"),
            "expected 0.75, got 0.9354",
            "This keeps the norm of the row. Which α makes −2α Σ|w| + nα² least?",
        ),
        "the mean without its sign taken off": Mistake(
            one_bit(scale="weight.mean(1, keepdim=True)"),
            "expected 0.75, got 0",
            "Half of a row may be negative. What is the sum of wᵢ sᵢ when sᵢ is the sign of wᵢ?",
        ),
        "the scale twice": Mistake(
            one_bit("torch.where(weight < 0, -1.0, 1.0) * weight.abs().mean(1, keepdim=True)"),
            "the sign of w = 0.5",
            "`signs * scales` is to be the weight. How often is your scale in it?",
        ),
        "the axis gone": Mistake(
            one_bit(scale="weight.abs().mean(1)"),
            "the scales must have shape (2, 1), got (2,)",
            "Try `signs * scales` for a weight of 2 × 4. Which axis is missing?",
        ),
        "zeros left out of the mean": Mistake(
            one_bit(scale="weight.abs().sum(1, keepdim=True) / (weight != 0).sum(1, keepdim=True).clamp(min=1)"),
            "expected 0.75, got 1",
            "The weight 0 becomes α as well. Does its error stand in the sum that you minimize?",
        ),
        "the weight itself": Mistake(
            """
def binarize(weight):
    return torch.where(weight < 0, -1.0, 1.0) * weight.abs().mean(1, keepdim=True)
""",
            "expected 2 tensors",
            "You return the product. Which two things would a file store?",
        ),
    },
)


def three_levels(**parts: str) -> str:
    """A solution of question 2, parts of it written otherwise."""
    usual = {"limit": "0.7 * size.mean(1, keepdim=True)", "kept": "size > limit", "count": "kept.sum(1, keepdim=True)"}
    usual |= {"scale": "(size * kept).sum(1, keepdim=True) / count.clamp(min=1)", "levels": "weight.sign() * kept"}
    return """
def ternarize(weight):
    size = weight.abs()
    limit = {limit}
    kept = {kept}
    count = {count}
    scale = {scale}
    return {levels}, scale
""".format(**usual | parts)


TERNARY = Answers(
    right={
        "means of what is kept": three_levels(
            scale="torch.where(kept, size, torch.nan).nanmean(1, keepdim=True).nan_to_num()"
        ),
        "row by row": """
def ternarize(weight):
    levels, scales = torch.zeros_like(weight), torch.zeros(len(weight), 1)
    for number, row in enumerate(weight):
        above = row.abs() > 0.7 * row.abs().mean()
        levels[number, above] = row[above].sign()
        if above.any():
            scales[number] = row[above].abs().mean()
    return levels, scales
""",
        "two comparisons": three_levels(levels="(weight > limit).float() - (weight < -limit).float()"),
    },
    wrong={
        "NaN for a row of zeros": Mistake(
            three_levels(scale="(size * kept).sum(1, keepdim=True) / count"),
            "the scale of a row of zeros only: expected 0, got nan",
            "How many entries of a row of zeros are above its threshold? By what do you divide then?",
        ),
        "one threshold for all rows": Mistake(
            three_levels(limit="0.7 * size.mean()"),
            "the level of w = ",
            "Multiply one row by 1000. Which levels of the other rows change in your code?",
        ),
        "one scale for all rows": Mistake(
            three_levels(scale="((size * kept).sum() / count.sum()).expand(len(weight), 1)"),
            "the scale of a row of mean |w| 0.75",
            "Print your scales. A large row decides for the small ones: over which entries is each mean to be taken?",
        ),
        "the mean of the whole row": Mistake(
            three_levels(scale="size.mean(1, keepdim=True)"),
            "expected 1.25, got 0.75",
            "Entries at level 0 have their error whatever α is. Over which entries does the derivative by α run?",
        ),
        "divided by the length of the row": Mistake(
            three_levels(count="torch.tensor(weight.shape[1])"),
            "expected 1.25, got 0.625",
            "You sum over the kept entries only. How many are they?",
        ),
        "the threshold without its factor": Mistake(
            three_levels(limit="size.mean(1, keepdim=True)"),
            "the level of w = ",
            "Your threshold is the mean itself. Where does the question have 0.7?",
        ),
        "a threshold from the largest": Mistake(
            three_levels(limit="0.7 * size.amax(1, keepdim=True)"),
            "the level of w = 1",
            "What is 0.7 times the largest of the first row? The rule is about another number of the row.",
        ),
        "negative ones lost": Mistake(
            three_levels(levels="kept.float()"),
            "the level of w = -1.5",
            "Which of your levels is −1? Print `kept`.",
        ),
        "binary after all": Mistake(
            three_levels(levels="torch.where(weight < 0, -1.0, 1.0)"),
            "the level of w = 0.5",
            "`kept` decides the scale here. Where does it decide the levels?",
        ),
        "signs of what is dropped": Mistake(
            three_levels(levels="weight.sign() * ~kept"),
            "the level of w = 0.5",
            "`~` turns every truth around. Which entries become 0 in your code, the large or the small ones?",
        ),
        "already multiplied": Mistake(
            three_levels(levels="weight.sign() * kept * scale"),
            "expected -1, got -1.25",
            "Levels are −1, 0 and 1, as a file stores them. What are yours?",
        ),
        "kept at its own size": Mistake(
            three_levels(levels="weight * kept"),
            "expected -1, got -1.5",
            "How many different numbers are in your first result? Two bits tell at most four apart.",
        ),
    },
)


def grouped(**parts: str) -> str:
    """A solution of question 3, parts of it written otherwise."""
    usual = {"groups": "weight.reshape(len(weight), -1, size)", "low": "groups.amin(2).clamp(max=0)"}
    usual |= {"high": "groups.amax(2).clamp(min=0)", "top": "2**bits - 1", "zero": "(-low / steps).round()"}
    usual |= {"steps": "torch.where(high > low, (high - low) / top, 1.0)", "clip": "clamp(0, top)"}
    usual |= {"codes": "(groups / steps[..., None]).round() + zero_points[..., None]", "dtype": "to(torch.uint8)"}
    return """
def to_groups(weight, size, bits):
    top = {top}
    groups = {groups}
    low, high = {low}, {high}
    steps = {steps}
    zero_points = {zero}
    codes = ({codes}).{clip}
    return codes.reshape(weight.shape).{dtype}, steps, zero_points
""".format(**usual | parts)


GROUPS = Answers(
    right={
        "clipped before it is shifted": grouped(
            codes="torch.maximum(torch.minimum((groups / steps[..., None]).round(), "
            "(top - zero_points)[..., None]), -zero_points[..., None]) + zero_points[..., None]"
        ),
        "group by group": """
def to_groups(weight, size, bits):
    rows, columns = weight.shape
    codes = torch.zeros(rows, columns, dtype=torch.uint8)
    steps, zeros = torch.ones(rows, columns // size), torch.zeros(rows, columns // size)
    for row in range(rows):
        for group in range(columns // size):
            part = weight[row, group * size : (group + 1) * size]
            low, high = min(0.0, float(part.min())), max(0.0, float(part.max()))
            if high > low:
                steps[row, group] = (high - low) / (2**bits - 1)
            zeros[row, group] = round(-low / float(steps[row, group]))
            code = (part / steps[row, group]).round() + zeros[row, group]
            codes[row, group * size : (group + 1) * size] = code.clamp(0, 2**bits - 1).to(torch.uint8)
    return codes, steps, zeros
""",
    },
    wrong={
        "0 need not be a level": Mistake(
            grouped(low="groups.amin(2)", high="groups.amax(2)"),
            "the step of a group from 0.25 to 0.75",
            "The group (¼, ¾) has no 0 in it. From where to where does its widened range go?",
        ),
        "a step of 0": Mistake(
            grouped(steps="(high - low) / top"),
            "any positive step will do, got 0",
            "What is the step of a group of zeros, and what do you divide by it?",
        ),
        "one level too many": Mistake(
            grouped(top="2**bits"),
            "expected 0.5, got 0.375",
            "Four codes have three steps between them. How many steps has your range?",
        ),
        "one grid for each row": Mistake(
            grouped(
                low="groups.amin((1, 2))[:, None].clamp(max=0).expand(groups.shape[:2])",
                high="groups.amax((1, 2))[:, None].clamp(min=0).expand(groups.shape[:2])",
            ),
            "the step of a group from 0 to 1.5",
            "Both groups of the first row have one step in your code. Whose smallest and largest weights made it?",
        ),
        "groups down the columns": Mistake(
            grouped(groups="weight.T.reshape(len(weight), -1, size)"),
            "the step of a group",
            "Print your groups of the weight on paper. Do the two numbers of a group follow each other in a row?",
        ),
        "groups of the wrong number": Mistake(
            grouped(groups="weight.reshape(len(weight), size, -1)"),
            "the steps must have shape",
            "`size` is how many weights a group has. In your `reshape` it is how many of what?",
        ),
        "the zero point not rounded": Mistake(
            grouped(zero="-low / steps"),
            "the zero point of a group",
            "A zero point is a code. Print yours for 3 bits: are they whole numbers?",
        ),
        "the zero point of the other end": Mistake(
            grouped(zero="(high / steps).round()"),
            "the zero point of a group from 0 to 1.5: expected 0",
            "The smallest number of the range has the code 0. How many steps above it lies 0?",
        ),
        "the zero point forgotten": Mistake(
            grouped(codes="(groups / steps[..., None]).round()"),
            "the code of w = 3",
            "Which code has the weight 0 in the group (3, −1½), and which one do you give it?",
        ),
        "cut off instead of rounded": Mistake(
            grouped(codes="(groups / steps[..., None]).floor() + zero_points[..., None]"),
            "the code of w = ",
            "Take a weight 0.9 steps above 0. Which level is nearest, and which one does `floor` give?",
        ),
        "symmetric": Mistake(
            grouped(low="-groups.abs().amax(2)", high="groups.abs().amax(2)"),
            "the step of a group from 0 to 1.5",
            "Your range goes as far down as up. Which numbers of the group (0, 1½) lie below 0?",
        ),
        "codes as floats": Mistake(
            grouped(dtype="float()"),
            "codes are stored as torch.uint8",
            "How many bytes does one of your codes take?",
        ),
    },
)

STREAM = "((codes[:, None].int() >> torch.arange(bits)) & 1).flatten()"


def into_bytes(**parts: str) -> str:
    """A solution of `pack`, parts of it written otherwise."""
    usual = {"stream": STREAM, "missing": "-len(stream) % 8", "order": "torch.arange(8)", "dtype": "to(torch.uint8)"}
    return """
def pack(codes, bits):
    stream = {stream}
    stream = torch.cat([stream, stream.new_zeros({missing})]).reshape(-1, 8)
    return (stream << {order}).sum(1).{dtype}
""".format(**usual | parts)


def out_of_bytes(**parts: str) -> str:
    """A solution of `unpack`, parts of it written otherwise."""
    usual = {"order": "torch.arange(8)", "used": "stream[: count * bits]", "places": "torch.arange(bits)"}
    usual |= {"answer": "codes.to(torch.uint8)"}
    return """

def unpack(packed, bits, count):
    stream = ((packed[:, None].int() >> {order}) & 1).flatten()
    codes = ({used}.reshape(-1, bits) << {places}).sum(1)
    return {answer}
""".format(**usual | parts)


BYTES = Answers(
    right={
        "one large number": """
def pack(codes, bits):
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    size = -(-len(codes) * bits // 8)
    return torch.tensor(list(number.to_bytes(size, "little")), dtype=torch.uint8)


def unpack(packed, bits, count):
    number = int.from_bytes(bytes(packed.tolist()), "little")
    return torch.tensor([(number >> (bits * k)) % 2**bits for k in range(count)], dtype=torch.uint8)
""",
        "NumPy's bits": """
import numpy as np


def pack(codes, bits):
    stream = np.unpackbits(codes.numpy()[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream.reshape(-1), bitorder="little"))


def unpack(packed, bits, count):
    stream = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(stream, axis=1, bitorder="little").reshape(-1))
""",
        "as in the hint": into_bytes() + out_of_bytes(),
    },
    wrong={
        "a byte for each code": Mistake(
            "\ndef pack(codes, bits):\n    return codes.clone()\n" + out_of_bytes(),
            "5 codes of 2 bits take 2 bytes, got 5",
            "Five codes of 2 bits are ten bits. How many bytes are that?",
        ),
        "the highest bit of a byte first": Mistake(
            into_bytes(order="torch.arange(7, -1, -1)") + out_of_bytes(),
            "byte 0 must be 00111001",
            "The first bit of the stream is worth 1. What is it worth in your byte?",
        ),
        "the highest bit of a code first": Mistake(
            into_bytes(stream="((codes[:, None].int() >> torch.arange(bits).flip(0)) & 1).flatten()") + out_of_bytes(),
            "byte 0 must be 00111001",
            "Write down the two bits of code 1 as they come in your stream. Which one is the lowest?",
        ),
        "codes from the last to the first": Mistake(
            into_bytes(stream=STREAM.replace("codes[:", "codes.flip(0)[:")) + out_of_bytes(),
            "byte 0 must be 00111001",
            "The first code fills the lowest bits of the first byte. Which code lies there in yours?",
        ),
        "whole codes in each byte": Mistake(
            """
def pack(codes, bits):
    each = 8 // bits
    rows = torch.cat([codes, codes.new_zeros(-len(codes) % each)]).reshape(-1, each).int()
    return (rows << (bits * torch.arange(each))).sum(1).to(torch.uint8)
"""
            + out_of_bytes(),
            "codes of 3 bits take 3 bytes, got 4",
            "With 3 bits two bits of each byte stay empty in your code. Where does the third code of 3 bits begin?",
        ),
        "a byte too many": Mistake(
            into_bytes(missing="8 - len(stream) % 8") + out_of_bytes(),
            "8 codes of 1 bits take 1 bytes, got 2",
            "How many zeros do you add when the stream has 8 bits already?",
        ),
        "the last byte cut off": Mistake(
            into_bytes().replace(
                "stream = torch.cat([stream, stream.new_zeros(-len(stream) % 8)])",
                "stream = stream[: len(stream) // 8 * 8]",
            )
            + out_of_bytes(),
            "5 codes of 2 bits take 2 bytes, got 1",
            "Ten bits fill one byte and a bit more. What becomes of the last code?",
        ),
        "bytes as whole numbers": Mistake(
            into_bytes(dtype="int()") + out_of_bytes(),
            "expected a row of bytes, torch.uint8, got torch.int32",
            "The values are right. How many bytes does each element of your tensor take?",
        ),
        "the filling comes back": Mistake(
            into_bytes() + out_of_bytes(used="stream[: len(stream) // bits * bits]"),
            "unpack: what comes back of 5 codes of 2 bits must have shape (5,), got (8,)",
            "Your `count` is not used. How would you know that the last three codes are none?",
        ),
        "back with the highest bit first": Mistake(
            into_bytes() + out_of_bytes(places="torch.arange(bits).flip(0)"),
            "unpack: 5 codes of 2 bits: code 0 must be 1, got 2",
            "In the stream of a code the lowest bit comes first. What is the first one worth in a code of yours?",
        ),
        "bytes read from the other end": Mistake(
            into_bytes() + out_of_bytes(order="torch.arange(7, -1, -1)"),
            "unpack: 5 codes of 2 bits: code 0",
            "Which bit of the first byte belongs to the first code? Which one do you take first?",
        ),
        "codes as long numbers": Mistake(
            into_bytes() + out_of_bytes(answer="codes"),
            "unpack: expected codes, torch.uint8, got torch.int64",
            "A sum of whole numbers has another dtype than what was summed. Which one did `pack` take?",
        ),
        "two bits only": Mistake(
            into_bytes(stream=STREAM.replace("arange(bits)", "arange(2)")) + out_of_bytes(),
            "1 bits take 1 bytes, got 2",
            "Where does `bits` stand in your `pack`? The 2 was right for the first test alone.",
        ),
    },
)


def stays_packed(**parts: str) -> str:
    """A solution of question 5, parts of it written otherwise."""
    usual = {"source": "linear.weight.detach()", "codes": "pack((levels.flatten() + 1).to(torch.uint8), 2)"}
    usual |= {"hold": 'self.register_buffer("codes", codes)', "more": "pass", "shape": "self.rows, self.columns"}
    usual |= {"bias": "None if linear.bias is None else linear.bias.detach().clone()", "first": "pass"}
    usual |= {"levels": "unpack(self.codes, 2, self.rows * self.columns).float() - 1"}
    usual |= {"weight": "levels.reshape({shape}) * self.scale", "answer": "x @ weight.T", "keep": "pass"}
    parts = usual | parts
    parts["weight"] = parts["weight"].format(**parts)
    return """
class StaysPacked(torch.nn.Module):
    def __init__(self, linear):
        super().__init__()
        levels, scale = ternarize({source})
        self.rows, self.columns = levels.shape
        codes = {codes}
        {hold}
        self.register_buffer("scale", scale)
        self.register_buffer("bias", {bias})
        {more}

    def forward(self, x):
        {first}
        levels = {levels}
        weight = {weight}
        {keep}
        y = {answer}
        return y if self.bias is None else y + self.bias


def packed_linear(linear):
    return StaysPacked(linear)
""".format(**parts)


LAYER = Answers(
    right={
        "a class outside": stays_packed(),
        "other codes, parameters that do not train": stays_packed(
            codes="pack((1 - levels.flatten()).to(torch.uint8), 2)",
            hold="self.codes = torch.nn.Parameter(codes, requires_grad=False)",
            levels="1 - unpack(self.codes, 2, self.rows * self.columns).float()",
        ),
        "scales after the product": stays_packed(
            weight="levels.reshape({shape})", answer="x @ weight.T * self.scale.T"
        ),
    },
    wrong={
        "keeps what it unpacked": Mistake(
            stays_packed(keep="self.unpacked = weight"),
            "for a weight of 8 numbers its tensors take 50 bytes",
            "Between two calls your layer holds the whole weight in float32. Which line keeps it?",
        ),
        "keeps the float layer": Mistake(
            stays_packed(more="self.linear = linear"),
            "for a weight of 8 numbers its tensors take 58 bytes",
            "Where in your module does the weight of 32 bits still hang?",
        ),
        "a byte for each code": Mistake(
            stays_packed(codes="(levels.flatten() + 1).to(torch.uint8)", levels="self.codes.float() - 1"),
            "take 24 bytes",
            "A level takes a byte in your module. Which function of question 4 puts four into one?",
        ),
        "a stream for each row": Mistake(
            stays_packed(
                codes="torch.stack([pack((row + 1).to(torch.uint8), 2) for row in levels])",
                levels="torch.stack([unpack(row, 2, self.columns) for row in self.codes]).float() - 1",
            ),
            "for a weight of 35 numbers its tensors take",
            "With seven columns each row of yours ends in two empty bits. How many streams are asked for?",
        ),
        "codes that are not saved": Mistake(
            stays_packed(hold="self.codes = codes"),
            "its state dict holds 16 of its 18 bytes",
            "Print `layer.state_dict()`. What is missing there, and how does a module learn of a tensor?",
        ),
        "the bias forgotten": Mistake(
            stays_packed(bias="None"),
            "its outputs are off by",
            "Compare with `linear` for an input of zeros. What should come out?",
        ),
        "subtracted in uint8": Mistake(
            stays_packed(levels="(unpack(self.codes, 2, self.rows * self.columns) - 1).float()"),
            "its outputs are off by",
            "What is code 0 minus 1 in `uint8`? Print your levels.",
        ),
        "binary instead of ternary": Mistake(
            stays_packed().replace(
                "ternarize(linear.weight.detach())",
                "torch.where(linear.weight < 0, -1.0, 1.0), linear.weight.detach().abs().mean(1, keepdim=True)",
            ),
            "its outputs are off by",
            "Which of your levels is 0? Question 5 asks for the levels and scales of question 2.",
        ),
        "the shape the other way round": Mistake(
            stays_packed(weight="levels.reshape(self.columns, self.rows).T * self.scale"),
            "its outputs are off by",
            "The levels were flattened row by row. How many numbers has a row, and how many in your `reshape`?",
        ),
        "made without an input's leading axes": Mistake(
            stays_packed(first="x = x.reshape(-1, self.columns)"),
            "its output must have shape (2, 4, 5)",
            "`nn.Linear` takes (2, 4, 7) to (2, 4, 5). What does your layer make of the two sentences of four tokens?",
        ),
        "scales in double precision": Mistake(
            stays_packed(
                more="self.scale = self.scale.double()", weight="levels.reshape({shape}) * self.scale.float()"
            ),
            "for a weight of 8 numbers its tensors take 26 bytes",
            "How many bytes does one of your scales take, and how many may it?",
        ),
        "the weight itself": Mistake(
            """
def packed_linear(linear):
    levels, scale = ternarize(linear.weight.detach())
    return levels * scale
""",
            "expected a module, got Tensor",
            "A tensor cannot be called. What would compute the output of the layer?",
        ),
    },
)

ANSWERS = {"binary": BINARY, "ternary": TERNARY, "groups": GROUPS, "bytes": BYTES, "layer": LAYER}
