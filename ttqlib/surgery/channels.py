"""Groups of channels whose scale can move from one layer into the next and leave a model's answers as they are.

Where an output channel of one layer, the producer, is the only thing that some input channels of linear layers, the
consumers, are proportional to, the producer may divide that channel by s and the consumers multiply what belongs to it
by s. Three such places are known from TEQ (arXiv 2310.10944) and its forerunners: a norm and the linear layers behind
it; values and the output of attention; the "up" half of a gated feed-forward and "down".

Nothing is known here by name. A model is run, and what a layer takes is followed back to the layers that gave it:

1. *Who gives what to whom.* Linear layers and norms give tensors of their own in one run; autograd's graph says from
   which of them the input of another is made. A producer whose output goes anywhere but into linear layers is none:
   that is where a residual stream begins. So a post-norm BERT has almost no group: the output of its norms is what the
   next layers add to, and its feed-forward has a GELU between, which no scale passes. Values are what remains.
2. *Channel by channel.* Each producer's output is doubled, in as many runs as its channels' numbers have bits, where
   that bit is set. An input channel that doubles in just those runs, and exactly, belongs to the channel of that
   number. A text of one token attends to itself alone, whatever its query and key: so even of a fused layer (GPT-2's
   `c_attn`) only the values are seen. Of a fused gate and up (Phi's `gate_up_proj`) each half is tried by itself.
3. *The proof.* All groups are scaled by random powers of two, by which floating-point numbers are multiplied without
   rounding, and a real text is read: the answers must be the same. What does not pass is left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..inventory.kinds import is_linear, linear_sizes
from ..inventory.ties import tied
from .calibration import eval_mode
from .norms import is_norm, norm_offset

TEXTS, TOKENS = 32, 8  # of the probes: texts of one token, and tokens of the longer texts
ANSWER = ""  # where what no layer takes goes: the model's own output
DEPENDS = 1e-6  # by what share of the largest the answers may differ: powers of two are exact, other roundings are not


@dataclass(frozen=True, eq=False)
class EquivalentGroup:
    """Channels that can be scaled: those of one producer, and what belongs to them in its consumers.

    `channels` (n,) are the output channels of the layer `producer`; `consumers` says for each linear layer, by name,
    which of the n scales each of its inputs belongs to, (in_features,).
    """

    producer: str
    channels: Tensor
    consumers: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """How many scales the group has."""
        return len(self.channels)

    def __repr__(self) -> str:
        return f"{self.producer} → {', '.join(self.consumers)}: {self.size} channels"


@torch.no_grad()
def equivalent_groups(model: nn.Module, ids: Tensor | None = None) -> list[EquivalentGroup]:
    """The groups of channels of a model that can be scaled and leave its answers as they are, in the model's order.

    `ids` (B, T) of tokens to probe it with, drawn by default; the model reads `input_ids` and answers `logits` or
    hidden states. Weights that stand in two places, as a tied head, layers that run more than once, and layers under
    parametrizations are left out.

    Raises:
        ValueError: the model is an encoder-decoder.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"equivalent groups are found in models of one stack, a {type(model).__name__} is an encoder-decoder"
        )
    if ids is None:
        known = model.get_input_embeddings().weight.shape[0]
        ids = torch.randint(known, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    ids = ids.to(device)
    with eval_mode(model):
        sites = _sites(model)
        single = ids.flatten()[: TEXTS * TOKENS, None]
        given = _calls(model, sites, single)
        sources, taken = _sources(model, sites, single, given)
        groups = list(_candidates(model, sites, single, taken, given, sources))
        return _proved(model, groups, ids[:2])


def _answer(model: nn.Module, ids: Tensor) -> Tensor:
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return output.logits if "logits" in output else output[0]


# ---------------------------------------------------------------------------------------------------- one run, watched


def _sites(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that may give or take: linear ones, and those with one weight a channel and nothing inside, as norms."""
    return {
        name: module
        for name, module in model.named_modules()
        if not parametrize.is_parametrized(module) and (is_linear(module) or is_norm(module))
    }


def _calls(model, sites: dict, ids: Tensor) -> dict[str, Tensor]:
    """Random numbers of the shapes that layers give in a run. Those not called once with a tensor leave `sites`.

    Random, so that no channel is silent behind a ReLU, as some of a trained model are.
    """
    given, odd, generator = {}, set(), torch.Generator().manual_seed(2)

    def watch(name: str, module, args, output):
        if name in given or len(args) != 1 or not isinstance(output, Tensor):
            odd.add(name)
        else:
            given[name] = torch.randn(output.shape, generator=generator).to(output)

    with ExitStack() as hooks:
        for name, module in sites.items():
            hooks.callback(module.register_forward_hook(partial(watch, name)).remove)
        _answer(model, ids)
    for name in [name for name in sites if name in odd or name not in given]:
        del sites[name]
    return given


@contextmanager
def _giving(sites: Mapping[str, nn.Module], answer: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Inside, a layer computes nothing: it gives `answer(name, input)`."""
    before = {name: vars(module).get("forward") for name, module in sites.items()}
    try:
        for name, module in sites.items():
            module.forward = partial(answer, name)
        yield
    finally:
        for name, module in sites.items():
            del module.forward
            if before[name] is not None:
                module.forward = before[name]


# ------------------------------------------------------------------------------------------------ who gives to whom


def _sources(model, sites, ids: Tensor, given) -> tuple[dict[str, set[str]], dict[str, Tensor]]:
    """For each layer those that its input is made of, without another layer between, and that input.

    For the `ANSWER` as well.
    """
    leaves, inputs = {}, {}

    def answer(name: str, x: Tensor) -> Tensor:
        inputs[name], leaf = x, given[name].detach().requires_grad_()
        leaves[leaf] = name
        return leaf.clone()  # which a model may write to

    with torch.enable_grad(), _giving(sites, answer):
        inputs[ANSWER] = _answer(model, ids)
    sources = {name: {leaves[leaf] for leaf in _leaves(x) if leaf in leaves} for name, x in inputs.items()}
    return sources, {name: x.detach() for name, x in inputs.items()}


def _leaves(x: Tensor) -> Iterator[Tensor]:
    """The tensors that `x` was computed from, as autograd knows them."""
    todo, seen = [x.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        todo += [following for following, _ in node.next_functions]


# --------------------------------------------------------------------------------------------------- channel by channel


def _candidates(model, sites, ids, taken, given, sources) -> Iterator[EquivalentGroup]:
    """Groups of producers that linear layers alone take from, and whose channels they are proportional to."""
    shared = {name for places in tied(model) for name, _ in places}
    users = {name: [user for user, made_of in sources.items() if name in made_of] for name in sites}
    fitting = {
        name: used
        for name, used in users.items()
        if used and not {name, *used} & shared and all(user != ANSWER and is_linear(sites[user]) for user in used)
    }
    found: dict[str, dict[str, Tensor]] = {}
    for half in (None, 1, 0):  # of a fused layer the half that comes last is "up" in all that are known
        for apart in _apart({name: used for name, used in fitting.items() if name not in found}):
            for name, numbers in _numbers(model, sites, ids, taken, given, apart, half).items():
                if numbers.keys() == set(fitting[name]):
                    found[name] = numbers
    for name in sites:
        if name in found and (is_linear(sites[name]) or norm_offset(sites[name]) is not None):
            channels = torch.cat(list(found[name].values())).unique()
            consumers = {user: torch.searchsorted(channels, numbers) for user, numbers in found[name].items()}
            yield EquivalentGroup(name, channels, consumers)


def _apart(fitting: Mapping[str, Sequence[str]]) -> list[dict[str, Sequence[str]]]:
    """Producers in sets, in each of which no two give to one layer: these can be looked at in one run."""
    sets: list[dict[str, Sequence[str]]] = []
    for name, used in fitting.items():
        free = next((one for one in sets if not {user for others in one.values() for user in others} & {*used}), None)
        if free is None:
            sets.append(free := {})
        free[name] = used
    return sets


def _numbers(model, sites, ids, taken, given, apart, half) -> dict[str, dict[str, Tensor]]:
    """For each producer and layer that takes from it the producer's channel that each input is proportional to.

    Where an input is proportional to none, the layer is left out.
    """
    widths = [given[name].shape[-1] for name in apart]
    numbers = {user: torch.zeros(taken[user].shape[-1], dtype=torch.long) for used in apart.values() for user in used}
    alive = set(numbers)
    for bit in [None, *range(ceil(log2(max(widths, default=1))))]:
        seen: dict[str, Tensor] = {}

        def answer(name: str, x: Tensor, bit=bit, seen=seen) -> Tensor:
            seen[name] = x
            return given[name] * _doubling(given[name], bit, half) if name in apart else given[name].clone()

        with _giving(sites, answer):
            _answer(model, ids)
        for user in list(alive):
            before, now = taken[user].flatten(0, -2), seen[user].flatten(0, -2)
            doubled, same = (now == 2 * before).all(0).cpu(), (now == before).all(0).cpu()
            if (doubled & same).any() or not (doubled if bit is None else doubled | same).all():
                alive.discard(user)
            elif bit is not None:
                numbers[user] += doubled.long() << bit
    return {name: {user: numbers[user] for user in used if user in alive} for name, used in apart.items()}


def _doubling(output: Tensor, bit: int | None, half: int | None) -> Tensor:
    """2 for the channels whose numbers have this bit (None: for all), of one half of them (None: of both), else 1."""
    width = output.shape[-1]
    number = torch.arange(width, device=output.device)
    chosen = number >= 0 if bit is None else (number >> bit) % 2 == 1
    if half is not None:
        chosen &= (number >= width // 2) == bool(half)
    return 1 + chosen.to(output.dtype)


# ------------------------------------------------------------------------------------------------------------ the proof


def _proved(model: nn.Module, groups: list[EquivalentGroup], ids: Tensor) -> list[EquivalentGroup]:
    """Those of the groups that can all be scaled at once; where not, each half of them by itself."""
    if not groups or _holds(model, groups, ids):
        return groups
    if len(groups) == 1:
        return []
    middle = len(groups) // 2
    return _proved(model, groups[:middle], ids) + _proved(model, groups[middle:], ids)


def _holds(model: nn.Module, groups: Sequence[EquivalentGroup], ids: Tensor) -> bool:
    """Whether the answers are as before where producers give their channels divided, and consumers get them times s."""
    expected, generator = _answer(model, ids), torch.Generator().manual_seed(1)

    def divide(factors: Tensor, module, args, output: Tensor) -> Tensor:
        return output / factors.to(output)

    def multiply(factors: Tensor, module, args):
        return (args[0] * factors.to(args[0]),)

    with ExitStack() as hooks:
        for group in groups:
            producer = model.get_submodule(group.producer)
            scales = 2.0 ** torch.randint(-1, 2, (group.size,), generator=generator)
            width = producer.weight.shape[0] if not is_linear(producer) else linear_sizes(producer)[1]
            factors = torch.ones(width).index_copy(0, group.channels, scales)
            hooks.callback(producer.register_forward_hook(partial(divide, factors)).remove)
            for user, numbers in group.consumers.items():
                hook = model.get_submodule(user).register_forward_pre_hook(partial(multiply, scales[numbers]))
                hooks.callback(hook.remove)
        found = _answer(model, ids)
    return bool((found - expected).abs().max() <= DEPENDS * expected.abs().max())
