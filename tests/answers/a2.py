"""Assignment 2: answers about an affine quantizer that learns its step and its zero point."""

from tests.answers import Answers, Mistake

TO_CODES = '''
def to_codes(x, step, zero_point, bits):
    """The codes of x, in its shape, as torch.uint8."""
    return ((x / step).round() + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)
'''
FROM_CODES = '''

def from_codes(codes, step, zero_point):
    """The values that these codes stand for."""
    return (codes.float() - zero_point) * step
'''
CODES = Answers(
    right={
        "clipped before it is shifted, at the limits of the levels": """
def to_codes(x, step, zero_point, bits):
    low, high = -zero_point, 2**bits - 1 - zero_point
    return (torch.clip(torch.round(x / step), low, high) + zero_point).type(torch.uint8)


def from_codes(codes, step, zero_point):
    return step * (codes.to(torch.int64) - zero_point).double()
""",
        "numpy, and a table of levels": """
import numpy as np


def to_codes(x, step, zero_point, bits):
    codes = np.clip(np.rint(x.numpy() / step) + zero_point, 0, 2**bits - 1)
    return torch.from_numpy(codes.astype(np.uint8))


def from_codes(codes, step, zero_point):
    levels = torch.tensor([(code - zero_point) * step for code in range(256)])
    return levels[codes.long()]
""",
    },
    wrong={
        "cast to uint8 before it is clipped": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return ((x / step).round() + zero_point).to(torch.int64).to(torch.uint8).clamp(0, 2**bits - 1)
"""
            + FROM_CODES,
            "below the range",
            "Which code has −1.7 before anything is clipped, and what does `uint8` make of that number?",
        ),
        "subtracted in uint8": Mistake(
            TO_CODES
            + """

def from_codes(codes, step, zero_point):
    return (codes - zero_point) * step
""",
            "from_codes: what comes back of the code of x = -0.3",
            "What is code 1 minus zero point 2 in `uint8`? Print `codes - zero_point` by itself.",
        ),
        "cut off instead of rounded": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return ((x / step).int() + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)
"""
            + FROM_CODES,
            "the code of x = 0.9, inside the range",
            "0.9 is 1.8 steps. Which whole number is nearest to that, and which one does `.int()` give?",
        ),
        "clipped as the signed grid of chapter 4": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    levels = (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()
    return (levels + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)
"""
            + FROM_CODES,
            "the code of x = 3, above the range",
            "This clips to −4 … 3 steps, as a centred grid does. How many steps above 0 is the highest level when the "
            "zero point is 2?",
        ),
        "one level too many": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return ((x / step).round() + zero_point).clamp(0, 2**bits).to(torch.uint8)
"""
            + FROM_CODES,
            "expected 7, got 8",
            "The codes begin at 0. How many of them does your function allow at 3 bits?",
        ),
        "the zero point forgotten": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return (x / step).round().clamp(0, 2**bits - 1).to(torch.uint8)
"""
            + FROM_CODES,
            "expected 4, got 2",
            "Which code has to stand for the number 0, and which one does your function give for x = 0?",
        ),
        "floating-point codes": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return ((x / step).round() + zero_point).clamp(0, 2**bits - 1)
"""
            + FROM_CODES,
            "expected a tensor of torch.uint8",
            "The numbers are right, but each of them takes 8 bytes. In which form are codes to be stored?",
        ),
        "changes x": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return x.div_(step).round_().add_(zero_point).clamp_(0, 2**bits - 1).to(torch.uint8)
"""
            + FROM_CODES,
            "it changed its arguments",
            "The underscore in `div_` writes the result into `x`. What does the caller find in `x` afterwards?",
        ),
        "flattened": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    codes = [min(max(round(float(v) / step) + zero_point, 0), 2**bits - 1) for v in x.flatten()]
    return torch.tensor(codes, dtype=torch.uint8)
"""
            + FROM_CODES,
            "and shape (12, 7)",
            "Your loop goes through one long list of numbers. Which shape had `x` before that?",
        ),
        "three bits only": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return ((x / step).round() + zero_point).clamp(0, 7).to(torch.uint8)
"""
            + FROM_CODES,
            "and 2 bits: expected 3",
            "`bits` is not used. From which number of bits does the 7 in your code follow?",
        ),
        "a quantizer of PyTorch": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    back = torch.fake_quantize_per_tensor_affine(x, step, zero_point, 0, 2**bits - 1)
    return (back / step + zero_point).round().to(torch.uint8)
"""
            + FROM_CODES,
            "write it yourself: torch.fake_quantize_per_tensor_affine was called",
            "That function rounds and clips for you. Which operations of the formula for q would stand in your code "
            "instead of the call?",
        ),
        "values as whole numbers": Mistake(
            TO_CODES
            + """

def from_codes(codes, step, zero_point):
    return ((codes.int() - zero_point) * step).int()
""",
            "from_codes: expected a floating-point tensor",
            "The step is 0.5. What is left of the values −0.5 and 2.5 when they are cast to whole numbers?",
        ),
        "the zero point taken off after scaling": Mistake(
            TO_CODES
            + """

def from_codes(codes, step, zero_point):
    return codes.float() * step - zero_point
""",
            "from_codes: what comes back",
            "Which value do you give for code 2, the zero point? Which value has it to be?",
        ),
        "the five numbers on paper": Mistake(
            """
def to_codes(x, step, zero_point, bits):
    return torch.tensor([4, 1, 2, 7, 0], dtype=torch.uint8)


def from_codes(codes, step, zero_point):
    return torch.tensor([1.0, -0.5, 0.0, 2.5, -1.0])
""",
            "expected a tensor of torch.uint8 and shape (40,)",
            "These are the codes of five given numbers. Which of your lines reads `x`?",
        ),
    },
)

WIDEST = """
def widest(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = ((high - low) / (2**bits - 1)).item() or 1.0
    return step, round((-low / step).item())

"""
SEARCH = """
def best_start(x, bits):
    top, best = 2**bits - 1, None
    for zero_point in {zero_points}:
        for fraction in {fractions}:
            step = widest(x, bits)[0] * float(fraction)
            back = ((x / step + zero_point).round().clamp(0, top) - zero_point) * step
            error = float({error})
            if best is None or error < best[0]:
                best = (error, step, zero_point)
    return {answer}
"""
USUAL = {"zero_points": "range(top + 1)", "fractions": "torch.logspace(0.3, -1.2, 120)"}
USUAL |= {"error": "(back - x).square().sum()", "answer": "best[1], best[2]"}


def search(**changes: str) -> str:
    return WIDEST + SEARCH.format(**USUAL | changes)


START = Answers(
    right={
        "the steps of chapter 4, by way of codes": """
def squared_error(x, step, zero_point, bits):
    return (from_codes(to_codes(x, step, zero_point, bits), step, zero_point) - x).square().sum()


def best_start(x, bits):
    if not x.any():
        return 1.0, 0
    steps = (x.abs().max() * torch.logspace(-2, 0, 200)).tolist()
    pairs = [(step, zero_point) for zero_point in range(2**bits) for step in steps]
    return pairs[torch.stack([squared_error(x, *pair, bits) for pair in pairs]).argmin()]
""",
        "steps spaced evenly": search(fractions="torch.linspace(1.3, 0.05, 251)"),
        "both ends of the range drawn in": """
def best_start(x, bits):
    low, high, top = min(float(x.min()), 0.0), max(float(x.max()), 0.0), 2**bits - 1
    if low == high:
        return 0.1, 0
    ends = [0.95**k for k in range(-4, 60)] + [0.0]
    ranges = {(low * a, high * b) for a in ends for b in ends} - {(0.0, 0.0)}
    candidates = {((b - a) / top, round(-a / ((b - a) / top))) for a, b in ranges if b - a > 1e-3 * (high - low)}
    steps, zeros = torch.tensor(sorted(candidates), dtype=torch.float64).T[..., None]
    errors = []
    for s, z in zip(steps.split(100), zeros.split(100)):
        codes = ((x.flatten() / s).round() + z).clamp(0, top)
        errors.append(((codes - z) * s - x.flatten()).square().sum(1))
    k = torch.cat(errors).argmin()
    return float(steps[k]), int(zeros[k])
""",
    },
    wrong={
        "minimum and maximum": Mistake(
            WIDEST + "\ndef best_start(x, bits):\n    return widest(x, bits)\n",
            "above the least",
            "Nearly nothing is clipped here. Add one outlier of 12 to numbers around 0, and print the step that all "
            "the others get.",
        ),
        "both ends drawn in by the same factor": Mistake(
            WIDEST
            + """
def best_start(x, bits):
    step, zero_point = widest(x, bits)
    top, best = 2**bits - 1, None
    for fraction in torch.logspace(0.3, -1.2, 120):
        s = step * float(fraction)
        back = (((x / s).round() + zero_point).clamp(0, top) - zero_point) * s
        error = float((back - x).square().sum())
        best = min(best or (error, s), (error, s))
    return best[1], zero_point
""",
            "above the least",
            "Your zero point stays that of the widest range. With one outlier above 0, which end of the range should "
            "move, and does the other end stay?",
        ),
        "the zero point in the middle": Mistake(
            search(zero_points="[2 ** (bits - 1)]"),
            "zero point 1; got",
            "Only one zero point is tried. If all numbers were positive, how many of your codes would be used?",
        ),
        "absolute steps": Mistake(
            search(fractions="torch.logspace(-1, 0.4, 150) / widest(x, bits)[0]"),
            "above the least",
            "Your steps lie between 0.1 and 2.5, whatever `x` is. Multiply `x` by 0.01: which of them still fit?",
        ),
        "a zero point between two codes": Mistake(
            """
def best_start(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1) * 0.9
    return step, -low / step
""",
            "the zero point is a code, a whole number from 0 to 3, got",
            "Codes are whole numbers. Which code would x = 0 get with the zero point 1.4?",
        ),
        "zero points beyond the codes": Mistake(
            search(zero_points="range(-9, 25)"),
            "the zero point is a code",
            "A zero point of −3 is among your candidates. Which code stands for the number 0 then?",
        ),
        "in the other order": Mistake(
            search(answer="best[2], best[1]"),
            "the zero point is a code",
            "Print what you return for the four numbers of the visible test. Which of the two is the step, and in "
            "which place was it asked for?",
        ),
        "a step of 0 for zeros": Mistake(
            search()
            + """

def widest(x, bits):
    return ((x.max().clamp(min=0) - x.min().clamp(max=0)) / (2**bits - 1)).item(), 0
""",
            "a step is positive and finite, got 0",
            "How wide is the range of a tensor of zeros? And what is `x / step` for that step?",
        ),
        "the largest error instead of the squares": Mistake(
            search(error="(back - x).abs().max()"),
            "above the least",
            "One single entry decides the largest error. Which entries have a say in the error that the question "
            "names?",
        ),
        "one bit too many": Mistake(
            search(zero_points="range(2**bits)").replace("top, best = 2**bits - 1", "top, best = 2 ** (bits + 1) - 1"),
            "above the least",
            "With your `top`, how many levels has a grid of 2 bits?",
        ),
        "the sum of signed errors": Mistake(
            search(error="(back - x).sum().abs()"),
            "above the least",
            "An error of +1 and one of −1 add up to 0 in your search. Is a grid with both of them a good one?",
        ),
        "the step alone": Mistake(
            search(answer="best[1]"),
            "expected two numbers, the step and the zero point, got float",
            "Your search finds two numbers and returns one of them. Can the codes be made without the other?",
        ),
        "takes the library's step": Mistake(
            """
def best_start(x, bits):
    return ttq.LSQ(bits).build(x).step.item(), 2 ** (bits - 1)
""",
            "write it yourself: LSQ was called",
            "`LSQ` does the search here, and for a centred grid. How would you try one step and one zero point "
            "yourself?",
        ),
        "centres x in its place": Mistake(
            search().replace("    top, best", "    x -= x.mean()\n    top, best"),
            "it changed its arguments",
            "`x -= …` changes the tensor that you were given. And does a grid for centred numbers fit those that came "
            "in?",
        ),
    },
)


def slopes(u="x / step", low="-zero_point", high="2**bits - 1 - zero_point", **parts: str) -> str:
    """A solution of question 3, parts of it written otherwise."""
    usual = {"below": "u < low", "above": "u > high", "inside": "u.round() - u", "at_low": "low", "at_high": "high"}
    usual |= {"of_x": "(~(below | above)).to(x.dtype)", "answer": "of_x, of_step"}
    return """
def gradients(x, step, zero_point, bits):
    u, low, high = {u}, {low}, {high}
    below, above = {below}, {above}
    of_step = {inside}
    of_step = torch.where(below, torch.full_like(u, {at_low}), of_step)
    of_step = torch.where(above, torch.full_like(u, {at_high}), of_step)
    of_x = {of_x}
    return {answer}
""".format(u=u, low=low, high=high, **usual | parts)


SLOPES = Answers(
    right={
        "by cases": slopes(),
        "from the codes of the clipped place": """
def gradients(x, step, zero_point, bits):
    place = x / step + zero_point
    clipped = place.clamp(0, 2**bits - 1)
    inside = (place == clipped).to(x.dtype)
    return inside, clipped.round() - zero_point - inside * (x / step)
""",
    },
    wrong={
        "in the other order": Mistake(
            slopes(answer="of_step, of_x"),
            "∂Q/∂x of x = 0.9",
            "Inside the range Q moves just as x does. Which of your two tensors says so, and in which place was it "
            "asked for?",
        ),
        "the signed limits of chapter 4": Mistake(
            slopes(low="-(2 ** (bits - 1))", high="2 ** (bits - 1) - 1"),
            "below the range",
            "Your lowest level is 4 steps below 0, as on a centred grid. Which level has code 0 when the zero point "
            "is 2?",
        ),
        "saturated as codes at the limits": Mistake(
            slopes(at_low="0", at_high="2**bits - 1"),
            "∂Q/∂δ of x = 3, above the range of δ = 0.5",
            "x = 3 has code 7 and stays there. What is Q = δ (q − z) for δ = 0.5, and what for δ = 0.51?",
        ),
        "saturated entries say nothing": Mistake(
            slopes(at_low="0", at_high="0"),
            "expected 5, got 0",
            "The code of a saturated entry does not move. Does the value that it stands for move when δ grows?",
        ),
        "the residual with the other sign": Mistake(
            slopes(inside="u - u.round()"),
            "∂Q/∂δ of x = 0.9, inside the range",
            "For x = 0.9, u is 1.8. By the definition in the question, is r above or below 0?",
        ),
        "the true derivative inside": Mistake(
            slopes(inside="u.round()"),
            "expected 0.2, got 2",
            "This is the slope of Q while the code stands still. What is left of δ (u + r) when r is held fixed "
            "instead?",
        ),
        "x hears everywhere": Mistake(
            slopes(of_x="torch.ones_like(x)"),
            "∂Q/∂x of x = 3, above the range",
            "Move x from 3 to 3.1. Does Q move as well?",
        ),
        "saturated only when the code is": Mistake(
            slopes(below="u.round() < low", above="u.round() > high"),
            "less than half a step",
            "Take x = 2.6 on this grid: u + z is 7.2. Is that inside the range, by the question's rule and by yours?",
        ),
        "the lower end forgotten": Mistake(
            slopes(below="u < -float('inf')"),
            "below the range",
            "Your function finds no entry below the range. What happens to x = −1.7 on paper?",
        ),
        "summed": Mistake(
            slopes(answer="of_x.sum(), of_step.sum()"),
            "and shape (5,), got a tensor",
            "The question asks what each entry says. In which later question is this added up?",
        ),
        "one of them": Mistake(
            slopes(answer="of_step"),
            "expected ∂Q/∂x and ∂Q/∂δ, in this order, got Tensor",
            "You return one tensor. Which of the two derivatives is it, and where is the other?",
        ),
        "a mask for ∂Q/∂x": Mistake(
            slopes(of_x="~(below | above)"),
            "got a tensor of torch.bool",
            "`True` says that x is heard, not how much. In which dtype were the derivatives asked for?",
        ),
        "by autograd": Mistake(
            """
def gradients(x, step, zero_point, bits):
    x, steps = x.clone().requires_grad_(), torch.full_like(x, step).requires_grad_()
    place = (x / steps + zero_point).clamp(0, 2**bits - 1)
    value = steps * (place + (place.round() - place).detach() - zero_point)
    return torch.autograd.grad(value.sum(), [x, steps])
""",
            "write it yourself: torch.autograd.grad was called",
            "Autograd finds the slopes here. Write Q for an entry inside and for a saturated one, and take both "
            "derivatives on paper.",
        ),
        "changes x": Mistake(
            slopes(u="x.div_(step)"),
            "it changed its arguments",
            "After `x.div_(step)` the caller's tensor holds steps. Compare `x` before and after the call.",
        ),
    },
)


def zero_point_slope(value: str, mask: str = "(place < 0) | (place > 2**bits - 1)", place: str = "x / step") -> str:
    """A solution of question 4, parts of it written otherwise."""
    return f"""
def zero_point_gradient(x, step, zero_point, bits):
    place = {place} + zero_point
    saturated = {mask}
    return {value}
"""


USUAL_SLOPE = "-step * saturated.to(x.dtype)"
ZERO_POINT_SLOPE = Answers(
    right={
        "where": zero_point_slope("torch.where(saturated, torch.full_like(x, -step), torch.zeros_like(x))"),
        "from the gradients of question 3": """
def zero_point_gradient(x, step, zero_point, bits):
    return step * (gradients(x, step, zero_point, bits)[0] - 1)
""",
    },
    wrong={
        "the other sign": Mistake(
            zero_point_slope("step * saturated.to(x.dtype)"),
            "expected -0.5, got 0.5",
            "A saturated entry keeps its code q. Does δ (q − z) go up or down when z grows?",
        ),
        "the step forgotten": Mistake(
            zero_point_slope("-saturated.to(x.dtype)"),
            "expected -0.5, got -1",
            "z moves by one code. By how much does Q move, in the unit of x?",
        ),
        "inside and saturated exchanged": Mistake(
            zero_point_slope("-step * (~saturated).to(x.dtype)"),
            "inside the range of δ = 0.5",
            "For an entry inside, write z into Q in both places. Do the two cancel here, or for a saturated entry?",
        ),
        "every entry": Mistake(
            zero_point_slope("torch.full_like(x, -step)"),
            "inside the range of δ = 0.5",
            "Give x = 0.9 the zero point 3 instead of 2. Which code does it get, and which number comes back?",
        ),
        "nothing at all": Mistake(
            zero_point_slope("torch.zeros_like(x)"),
            "expected -0.5, got 0",
            "That is right inside the range. What comes back for x = 3, whose code stays 7, with z = 2 and with z = 3?",
        ),
        "the upper end forgotten": Mistake(
            zero_point_slope(USUAL_SLOPE, mask="place < 0"),
            "above the range",
            "Your mask knows `place < 0`. Is x = 3 on paper saturated or not?",
        ),
        "the lower end forgotten": Mistake(
            zero_point_slope(USUAL_SLOPE, mask="place > 2**bits - 1"),
            "below the range",
            "Your mask finds 3.0 on paper. Why does it not find −1.7?",
        ),
        "up on one side, down on the other": Mistake(
            zero_point_slope("step * (1.0 * (place < 0) - 1.0 * (place > 2**bits - 1)).to(x.dtype)"),
            "below the range",
            "At both ends q stands still. What in δ (q − z) could know at which end that is?",
        ),
        "saturated only when the code is": Mistake(
            zero_point_slope(USUAL_SLOPE, mask="(place.round() < 0) | (place.round() > 2**bits - 1)"),
            "less than half a step",
            "You round before you ask. With the grid of question 1, is x = 2.6 saturated by the rule of question 3, "
            "and is it by yours?",
        ),
        "the residual inside": Mistake(
            zero_point_slope("torch.where(saturated, -step, step * (place.round() - place))"),
            "inside the range",
            "The residual is held fixed. How much does a little more z add to q, and how much is left of it in q − z?",
        ),
        "summed": Mistake(
            zero_point_slope("(-step * saturated.to(x.dtype)).sum()"),
            "and shape (5,), got a tensor",
            "Five entries give five answers here. Who asks for their sum, and in which question?",
        ),
        "in single precision": Mistake(
            zero_point_slope("-step * saturated.float()"),
            "got a tensor of torch.float32",
            "`float()` makes float32 of the mask. Which dtype had `x`?",
        ),
        "changes x": Mistake(
            zero_point_slope(USUAL_SLOPE, place="x.div_(step)"),
            "it changed its arguments",
            "Your first line writes into the caller's `x`. Which method there ends in an underscore?",
        ),
        "the five numbers on paper": Mistake(
            """
def zero_point_gradient(x, step, zero_point, bits):
    return torch.tensor([0, 0, 0, -0.5, -0.5], dtype=x.dtype)
""",
            "and shape (40,), got a tensor",
            "You return five numbers for every `x`. Try an `x` with four.",
        ),
        "by autograd": Mistake(
            """
def zero_point_gradient(x, step, zero_point, bits):
    z = torch.full_like(x, zero_point).requires_grad_()
    place = (x / step + z).clamp(0, 2**bits - 1)
    (step * (place + (place.round() - place).detach() - z)).sum().backward()
    return z.grad
""",
            "write it yourself: torch",
            "`backward` is autograd. Your code has Q in terms of z: how does Q change with z where `clamp` holds it, "
            "and where not?",
        ),
    },
)


def residuals(**parts: str) -> str:
    """A solution of question 5 with detached residuals, parts of it written otherwise."""
    usual = {"z": "zero_point + (zero_point.round() - zero_point).detach()", "place": "x / step + z"}
    usual |= {"clipped": "place.clamp(0, 2**bits - 1)", "codes": "clipped + (clipped.round() - clipped).detach()"}
    usual |= {"answer": "step * (codes - z)"}
    return """
def quantize(x, step, zero_point, bits):
    z = {z}
    place = {place}
    clipped = {clipped}
    codes = {codes}
    return {answer}
""".format(**usual | parts)


def function(**parts: str) -> str:
    """A solution of question 5 as an autograd.Function, parts of it written otherwise."""
    usual = {"saved": "x, step, z", "loaded": "x, step, z = ctx.saved_tensors", "of_x": "gradient * of_x"}
    usual |= {"of_step": "(gradient * of_step).sum()", "of_z": "(gradient * of_z).sum()"}
    return """
class Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, zero_point, bits):
        z = zero_point.round()
        ctx.save_for_backward({saved})
        ctx.bits = bits
        return step * (((x / step).round() + z).clamp(0, 2**bits - 1) - z)

    @staticmethod
    def backward(ctx, gradient):
        {loaded}
        of_x, of_step = gradients(x, step, z, ctx.bits)
        of_z = zero_point_gradient(x, step, z, ctx.bits)
        return {of_x}, {of_step}, {of_z}, None


def quantize(x, step, zero_point, bits):
    return Affine.apply(x, step, zero_point, bits)
""".format(**usual | parts)


BACKWARD = Answers(
    right={"detached residuals": residuals(), "a Function outside": function()},
    wrong={
        "rounding without a residual": Mistake(
            residuals(codes="clipped.round()"),
            "∂L/∂x (∂L/∂Q times ∂Q/∂x)",
            "The value is right. What is the gradient of `round` for autograd, and what did chapter 4 put around it?",
        ),
        "everything detached": Mistake(
            residuals(answer="(step * (codes - z)).detach()"),
            "has no gradient",
            "`detach` is around the whole result. Of which part of it should autograd see nothing?",
        ),
        "the zero point not rounded": Mistake(
            residuals(z="zero_point"), "the value of x =", "Take a latent zero point of 2.3. What comes back for x = 0?"
        ),
        "no residual for the zero point": Mistake(
            residuals(z="zero_point.round()"),
            "∂L/∂z for δ = 0.5",
            "Two things are rounded here. Around which of them is there no residual?",
        ),
        "the zero point detached": Mistake(
            residuals(z="zero_point.detach().round()"),
            "∂L/∂z is None",
            "No gradient arrives at the zero point. Which call cuts it off on the way back?",
        ),
        "the zero point learned in one of its two places": Mistake(
            residuals(answer="step * (codes - zero_point.round().detach())"),
            "∂L/∂z for δ = 0.5",
            "z stands in Q twice, and the gradients of both places add up. From which place does none come back in "
            "your code?",
        ),
        "the step detached in x / δ": Mistake(
            residuals(place="x / step.detach() + z"),
            "∂L/∂δ for δ = 0.5",
            "δ stands in Q in two places. Which of them does autograd not see?",
        ),
        "not clipped on the way back": Mistake(
            residuals(clipped="place", codes="place + (place.round().clamp(0, 2**bits - 1) - place).detach()"),
            "above the range",
            "The clipping stands inside of what is detached. What does a saturated entry send back to x?",
        ),
        "what the loss says forgotten": Mistake(
            function(of_x="of_x", of_step="of_step.sum()", of_z="of_z.sum()"),
            "∂L/∂x (∂L/∂Q times ∂Q/∂x)",
            "`backward` is given ∂L/∂Q as an argument. Where do you use it?",
        ),
        "a mean instead of a sum": Mistake(
            function(of_step="(gradient * of_step).mean()"),
            "∂L/∂δ for δ = 0.5, zero point 2 and 3 bits: expected",
            "Look at the formula of ∂L/∂δ again. Does it divide by the number of entries?",
        ),
        "the gradients exchanged": Mistake(
            function(of_step="(gradient * of_z).sum()", of_z="(gradient * of_step).sum()"),
            "∂L/∂δ for δ = 0.5",
            "`backward` has to answer in the order of the arguments of `forward`. Which gradient stands in the place "
            "of `step`?",
        ),
        "remembers the last call only": Mistake(
            function(saved="x", loaded="x, step, z = LAST[0]").replace(
                "ctx.bits = bits", "ctx.bits, LAST[0] = bits, (x, step, z)"
            )
            + "\n\nLAST = [None]\n",
            "∂L/∂x (∂L/∂Q times ∂Q/∂x)",
            "Call the function twice, then `backward` on the first result. Whose numbers are in the list outside of "
            "it by then?",
        ),
        "saturated by the latent zero point": Mistake(
            function().replace(
                "z = zero_point.round()\n        ctx.save_for_backward(x, step, z)",
                "z = zero_point.round()\n        ctx.save_for_backward(x, step, zero_point)",
            ),
            "∂L/∂x (∂L/∂Q times ∂Q/∂x)",
            "Which zero point made Q, and which one decides in your `backward` what is saturated?",
        ),
        "PyTorch's own": Mistake(
            """
def quantize(x, step, zero_point, bits):
    one = torch.ones(1)
    return torch._fake_quantize_learnable_per_tensor_affine(x, step * one, zero_point * one, 0, 2**bits - 1, 1.0)
""",
            "write it yourself: torch._fake_quantize_learnable_per_tensor_affine was called",
            "That function brings its own backward pass. Which two of your functions already know what to send back?",
        ),
    },
)


def loop(**parts: str) -> str:
    """A solution of question 6, parts of it written otherwise."""
    usual = {"start": "[v.clone().requires_grad_() for v in (weight, step, zero_point)]", "learned": "[w, s, z]"}
    usual |= {"optimizer": "torch.optim.Adam({learned}, lr=0.03)", "steps": "200", "sign": "", "limits": "True"}
    usual |= {"keep": "loss.item() < least", "answer": "best"}
    parts = usual | parts
    parts["optimizer"] = parts["optimizer"].format(learned=parts["learned"])
    return """
def train(inputs, targets, weight, step, zero_point, bits):
    w, s, z = {start}
    optimizer, least, best = {optimizer}, float("inf"), None
    for number in range({steps}):
        loss = ((inputs @ quantize(w, s, z, bits) - targets) ** 2).sum() / (targets**2).sum()
        if {keep}:
            least, best = loss.item(), (w.detach().clone(), s.detach().clone(), z.detach().clone())
        optimizer.zero_grad()
        ({sign}loss).backward()
        optimizer.step()
        if {limits}:
            s.data.clamp_(min=0.01)
            z.data.clamp_(0, 2**bits - 1)
    return {answer}
""".format(**parts)


TRAINING = Answers(
    right={
        "the best that has come by": loop(),
        "the last, with a rate that falls": loop(
            keep="True",
            optimizer="torch.optim.Adam({learned}, lr=0.04)",
            steps="300",
        ).replace(
            "        optimizer.step()",
            "        optimizer.param_groups[0]['lr'] = 0.04 * (1 - number / 300)\n        optimizer.step()",
        ),
        "plain gradient descent with a rate for each": loop(
            optimizer="torch.optim.SGD([{{'params': [w]}}, {{'params': [s, z], 'lr': 0.01}}], lr=0.2, momentum=0.9)"
        ),
    },
    wrong={
        "nothing is trained": Mistake(
            "\ndef train(inputs, targets, weight, step, zero_point, bits):\n    return weight, step, zero_point\n",
            "the weight has not moved",
            "What comes in goes out. Which line of yours would compute the loss, and which would make it smaller?",
        ),
        "the weight alone": Mistake(
            loop(learned="[w]"),
            "the step has not moved",
            "Print the step before and after. Which tensors does your optimizer know?",
        ),
        "the zero point left out": Mistake(
            loop(learned="[w, s]"),
            "the zero point has not moved",
            "Two of the four levels serve a few negative weights. Which number would have to move to change that, and "
            "does your optimizer know it?",
        ),
        "the weight left out": Mistake(
            loop(learned="[s, z]"),
            "the weight has not moved",
            "Only the grid is learned. Which tensor could move so that errors of different weights make up for each "
            "other?",
        ),
        "uphill": Mistake(
            loop(sign="-", keep="True"),
            "is left on average",
            "Print the loss after every step. Does the optimizer make smaller what you want smaller?",
        ),
        "three steps": Mistake(
            loop(steps="3"), "is left on average", "Plot the losses. Have they stopped falling when your loop ends?"
        ),
        "a rate that is far too high": Mistake(
            loop(optimizer="torch.optim.Adam({learned}, lr=3.0)", keep="True"),
            "is left on average",
            "One step of Adam moves a weight by about the learning rate. How large are the weights?",
        ),
        "the floating-point answer as weight": Mistake(
            loop(answer="torch.linalg.lstsq(inputs, targets).solution + 1e-9, best[1] * 2, best[2]"),
            "is left on average",
            "This weight is the best one without a grid. What is its loss after `quantize`?",
        ),
        "trains what it was given": Mistake(
            loop(start="[v.requires_grad_() for v in (weight, step, zero_point)]"),
            "it changed its arguments",
            "The optimizer writes into the tensors that it is handed. Whose tensors are these?",
        ),
        "the zero point beyond the codes": Mistake(
            loop(answer="best[0], best[1], best[2] - 4"),
            "0 has to stay a level: the zero point lies from 0 to 3",
            "Print the zero point that you return. Is there a code for the number 0?",
        ),
        "a negative step": Mistake(
            loop(answer="best[0], -best[1], best[2]"),
            "a step is positive",
            "With your step, which code stands for the largest number? After which line is it no longer positive?",
        ),
        "the loss instead of a step": Mistake(
            loop(answer="best[0], least, best[2]"),
            "the step: expected a tensor",
            "Print the three things that you return, with their types. The second one is no tensor: what is it?",
        ),
        "two of the three": Mistake(
            loop(answer="best[:2]"),
            "expected the weight, the step and the zero point",
            "Three trained tensors are asked for. Which of them would be missing for the test to compute Q?",
        ),
        "with the library": Mistake(
            loop().replace("quantize(w, s, z, bits)", "ttq.LSQ(bits).with_step(s)(w)"),
            "write it yourself: LSQ was called",
            "`LSQ` knows a step, but no zero point. Which function of yours learns both?",
        ),
    },
)

ANSWERS = {
    "codes": CODES,
    "start": START,
    "slopes": SLOPES,
    "zero_point_slope": ZERO_POINT_SLOPE,
    "backward": BACKWARD,
    "training": TRAINING,
}
