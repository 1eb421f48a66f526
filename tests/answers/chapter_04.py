"""Answers to the exercises of chapter 4: a learned step size, stage by stage, and a grid that is not centred."""

from tests.answers import Answers, Wrong

BEST_STEP = Answers(
    right={
        "candidates a constant factor apart": """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() * torch.logspace(-4, 0.3, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
        "coarse first, then finer around the best": """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def error(step):
        return float((step * (x / step).round().clamp(low, high) - x).square().sum())

    step = min((float(x.abs().max()) * 2 * 1.05**-k for k in range(220)), key=error)
    return min((step * 1.002**k for k in range(-25, 26)), key=error)
""",
    },
    wrong={
        "max-abs": Wrong(
            """
def best_step(x, bits):
    return x.abs().max() / (2 ** (bits - 1) - 1)
""",
            "for weights of size 1 at 2 bits δ =",
        ),
        "three standard deviations": Wrong(
            """
def best_step(x, bits):
    return 3 * x.std() / 2 ** (bits - 1)
""",
            "for weights of size 1 at 2 bits δ =",
        ),
        "one σ, which is good at 2 bits": Wrong(
            """
def best_step(x, bits):
    return x.std()
""",
            "for weights of size 0.001 at 3 bits δ =",
        ),
        "candidates of a fixed size": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = torch.logspace(-3, 1, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
            "for weights of size 0.001 at 3 bits δ =",
        ),
        "thirty candidates, evenly spaced": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() / high * torch.linspace(0.1, 1, 30)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
            "for weights of size 1 at 8 bits δ =",
        ),
        "no candidate below a hundredth of max-abs": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() / high * torch.logspace(-2, 0.3, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
            "for weights with an outlier of 180 σ at 2 bits δ =",
        ),
        "no candidate above max-abs": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() / high * torch.logspace(-4, 0, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
            "for weights in two heaps, at 1.5 and 3, at 3 bits δ =",
        ),
        "the least absolute error": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() * torch.logspace(-4, 0.3, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).abs().sum() for step in candidates]
    return candidates[torch.stack(errors).argmin()]
""",
            "above the least",
        ),
        "its place among the candidates": Wrong(
            """
def best_step(x, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    candidates = x.abs().max() * torch.logspace(-4, 0.3, 400)
    errors = [((x / step).clamp(low, high).round() * step - x).square().sum() for step in candidates]
    return torch.stack(errors).argmin()
""",
            "for weights of size 1 at 2 bits δ =",
        ),
        "a step with a minus": Wrong(
            """
def best_step(x, bits):
    return -x.std()
""",
            "a step size is positive and finite",
        ),
        "a step for each weight": Wrong(
            """
def best_step(x, bits):
    return x.abs()
""",
            "expected one number",
        ),
        "the weights divided in place": Wrong(
            """
def best_step(x, bits):
    size = x.std()
    x /= size
    return size
""",
            "what it was given must stay as it was",
        ),
    },
)

STEP_GRADIENT = Answers(
    right={
        "masks": """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    gradient = u.round() - u
    gradient[u < low] = low
    gradient[u > high] = high
    return gradient
""",
        "the level, less u where it lies inside": """
def step_gradient(x, step, bits):
    u = x / step
    inside = u.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return inside.round() - torch.where(u == inside, u, 0)
""",
    },
    wrong={
        "the true derivative": Wrong(
            """
def step_gradient(x, step, bits):
    return (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()
""",
            "for δ = 0.8 at 2 bits the values are off by up to 2",
        ),
        "clipping forgotten": Wrong(
            """
def step_gradient(x, step, bits):
    return (x / step).round() - x / step
""",
            "for δ = 0.8 at 2 bits the values are off by",
        ),
        "zero where it is clipped, as for x": Wrong(
            """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    return torch.where((u >= low) & (u <= high), u.round() - u, 0.0)
""",
            "for δ = 0.8 at 2 bits the values are off by",
        ),
        "the sign turned": Wrong(
            """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    return torch.where(u < low, low, torch.where(u > high, high, u - u.round()))
""",
            "for δ = 0.8 at 2 bits the values are off by",
        ),
        "a range without the lowest level": Wrong(
            """
def step_gradient(x, step, bits):
    high = 2 ** (bits - 1) - 1
    u = x / step
    return torch.where(u < -high, -high, torch.where(u > high, high, u.round() - u))
""",
            "for δ = 0.8 at 2 bits the values are off by",
        ),
        "the residual in units of x": Wrong(
            """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    return step * torch.where(u < low, low, torch.where(u > high, high, u.round() - u))
""",
            "for δ = 0.8 at 2 bits the values are off by",
        ),
        "summed": Wrong(
            """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    u = x / step
    return torch.where(u < low, low, torch.where(u > high, high, u.round() - u)).sum()
""",
            "expected shape (50, 40), got ()",
        ),
        "by autograd": Wrong(
            """
def step_gradient(x, step, bits):
    steps = torch.full_like(x, step).requires_grad_()
    u = (x / steps).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    (steps * (u + (u.round() - u).detach())).sum().backward()
    return steps.grad
""",
            "it asks autograd for a gradient",
        ),
        "x changed in place": Wrong(
            """
def step_gradient(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    x /= step
    return torch.where(x < low, low, torch.where(x > high, high, x.round() - x))
""",
            "what it was given must stay as it was",
        ),
    },
)

LEARNED_STEP = Answers(
    right={
        "a Function of its own": """
class Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, bits):
        ctx.save_for_backward(x, step)
        ctx.bits = bits
        return step * (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()

    @staticmethod
    def backward(ctx, arriving):
        x, step = ctx.saved_tensors
        low, high = -(2 ** (ctx.bits - 1)), 2 ** (ctx.bits - 1) - 1
        u = x / step
        for_step = torch.where(u < low, low, torch.where(u > high, high, u.round() - u))
        scale = (x.numel() * high) ** -0.5
        return arriving * ((u >= low) & (u <= high)), (arriving * for_step).sum() * scale, None


def learned_step(x, step, bits):
    return Learned.apply(x, step, bits)
""",
        "with detach alone": """
def learned_step(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = 1 / math.sqrt(x.numel() * high)
    step = step * scale + (step - step * scale).detach()
    u = torch.clamp(x / step, low, high)
    return step * (u + (u.round() - u).detach())
""",
    },
    wrong={
        "nothing detached": Wrong(
            """
def learned_step(x, step, bits):
    return step * (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()
""",
            "in the gradient of x, the values are off by up to",
        ),
        "the gradient of δ not scaled": Wrong(
            """
def learned_step(x, step, bits):
    u = (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return step * (u + (u.round() - u).detach())
""",
            "in the gradient of δ, the values are off by up to",
        ),
        "scaled without the root": Wrong(
            """
def learned_step(x, step, bits):
    high = 2 ** (bits - 1) - 1
    scale = 1 / (x.numel() * high)
    step = step * scale + (step - step * scale).detach()
    u = (x / step).clamp(-(2 ** (bits - 1)), high)
    return step * (u + (u.round() - u).detach())
""",
            "in the gradient of δ, the values are off by up to",
        ),
        "the highest level forgotten in the scale": Wrong(
            """
def learned_step(x, step, bits):
    scale = x.numel() ** -0.5
    step = step * scale + (step - step * scale).detach()
    u = (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return step * (u + (u.round() - u).detach())
""",
            "for δ = 0.5 at 3 bits, in the gradient of δ, the values are off by up to",
        ),
        "δ itself scaled": Wrong(
            """
def learned_step(x, step, bits):
    high = 2 ** (bits - 1) - 1
    step = step * (x.numel() * high) ** -0.5
    u = (x / step).clamp(-(2 ** (bits - 1)), high)
    return step * (u + (u.round() - u).detach())
""",
            "for δ = 0.8 at 2 bits, going forward, the values are off by up to",
        ),
        "x passes also where it is clipped": Wrong(
            """
def learned_step(x, step, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (x.numel() * high) ** -0.5
    step = step * scale + (step - step * scale).detach()
    u = x / step
    return step * (u + (u.clamp(low, high).round() - u).detach())
""",
            "in the gradient of x, the values are off by up to",
        ),
        "δ left out of the gradient": Wrong(
            """
def learned_step(x, step, bits):
    step = step.detach()
    u = (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return step * (u + (u.round() - u).detach())
""",
            "no gradient reaches δ",
        ),
        "all detached": Wrong(
            """
def learned_step(x, step, bits):
    return step.detach() * (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round().detach()
""",
            "no gradient reaches x",
        ),
        "levels come back": Wrong(
            """
def learned_step(x, step, bits):
    u = (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return u + (u.round() - u).detach()
""",
            "going forward, the values are off by up to",
        ),
        "the arriving gradient taken for ones": Wrong(
            """
class Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, bits):
        ctx.save_for_backward(x, step)
        ctx.bits = bits
        return step * (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()

    @staticmethod
    def backward(ctx, arriving):
        x, step = ctx.saved_tensors
        low, high = -(2 ** (ctx.bits - 1)), 2 ** (ctx.bits - 1) - 1
        u = x / step
        for_step = torch.where(u < low, low, torch.where(u > high, high, u.round() - u))
        scale = (x.numel() * high) ** -0.5
        return arriving * ((u >= low) & (u <= high)), for_step.sum() * scale, None


def learned_step(x, step, bits):
    return Learned.apply(x, step, bits)
""",
            "in the gradient of δ, the values are off by up to",
        ),
        "a mean in the place of a sum": Wrong(
            """
class Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, bits):
        ctx.save_for_backward(x, step)
        ctx.bits = bits
        return step * (x / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()

    @staticmethod
    def backward(ctx, arriving):
        x, step = ctx.saved_tensors
        low, high = -(2 ** (ctx.bits - 1)), 2 ** (ctx.bits - 1) - 1
        u = x / step
        for_step = torch.where(u < low, low, torch.where(u > high, high, u.round() - u))
        return arriving * ((u >= low) & (u <= high)), (arriving * for_step).mean(), None


def learned_step(x, step, bits):
    return Learned.apply(x, step, bits)
""",
            "in the gradient of δ, the values are off by up to",
        ),
    },
)

AFFINE_QUANTIZE = Answers(
    right={
        "codes and a zero point": """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    if step == 0:
        return torch.zeros_like(x)
    zero_point = (-low / step).round()
    codes = ((x / step).round() + zero_point).clamp(0, 2**bits - 1)
    return (codes - zero_point) * step
""",
        "levels, in Python's own numbers": """
def affine_quantize(x, bits):
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    if low == high:
        return 0 * x
    step = (high - low) / (2**bits - 1)
    lowest = round(low / step)
    return torch.clamp((x / step).round(), lowest, lowest + 2**bits - 1) * step
""",
    },
    wrong={
        "symmetric": Wrong(
            """
def affine_quantize(x, bits):
    high = 2 ** (bits - 1) - 1
    step = x.abs().max() / high
    return (x / step).round().clamp(-high - 1, high) * step
""",
            "for weights around 0 at 4 bits the values are off by",
        ),
        "a range that need not hold 0": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min(), x.max()
    step = (high - low) / (2**bits - 1)
    return ((x - low) / step).round() * step + low
""",
            "the values are off by",
        ),
        "0 is no level": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    return ((x - low) / step).round() * step + low
""",
            "for weights around 0 at 4 bits the values are off by",
        ),
        "2^b steps": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / 2**bits
    zero_point = (-low / step).round()
    return (((x / step).round() + zero_point).clamp(0, 2**bits - 1) - zero_point) * step
""",
            "for weights around 0 at 4 bits the values are off by",
        ),
        "NaN where all is zero": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return (((x / step).round() + zero_point).clamp(0, 2**bits - 1) - zero_point) * step
""",
            "for weights that are all zero at 4 bits the values are off by up to nan",
        ),
        "codes": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return ((x / step).round() + zero_point).clamp(0, 2**bits - 1)
""",
            "for weights around 0 at 4 bits the values are off by",
        ),
        "a range for each row": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return (((x / step).round() + zero_point).clamp(0, 2**bits - 1) - zero_point) * step
""",
            "for weights around 0 at 4 bits the values are off by",
        ),
        "always four bits": Wrong(
            """
def affine_quantize(x, bits):
    bits = 4
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return (((x / step).round() + zero_point).clamp(0, 2**bits - 1) - zero_point) * step
""",
            "for weights around 3 at 3 bits the values are off by",
        ),
        "x changed in place": Wrong(
            """
def affine_quantize(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / (2**bits - 1)
    zero_point = (-low / step).round()
    return x.div_(step).round_().add_(zero_point).clamp_(0, 2**bits - 1).sub_(zero_point).mul_(step)
""",
            "what it was given must stay as it was",
        ),
    },
)

ANSWERS = {
    "best_step": BEST_STEP,
    "step_gradient": STEP_GRADIENT,
    "learned_step": LEARNED_STEP,
    "affine_quantize": AFFINE_QUANTIZE,
}
