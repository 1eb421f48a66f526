"""What a plan can be turned by: the layers of any model in groups, and what one layer gets in plain words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from ...inventory.kinds import heads, is_embedding, is_experts, is_linear, layers, linear_sizes, word_embeddings
from ...inventory.ties import tied
from ...plans.configs import TT, TTM, LayerPlan, TTQConfig
from ...plans.planning import recipe_for
from ...tensors.shapes import factorize

REST, DENSE, LOW_RANK, TWO, THREE = "as the rest", "dense", "low rank", "train of 2", "train of 3"
FORMATS = (REST, DENSE, LOW_RANK, TWO, THREE)  # cores of a table, or on each side of a linear layer
NOTHING = LayerPlan()
CORES = {LOW_RANK: 1, TWO: 2, THREE: 3}
GROUPS = ("words", "positions", "attention", "feed-forward", "experts", "heads", "other tables")


@dataclass(frozen=True)
class Setting:
    """What one layer gets: a format of `FORMATS`, the rank of a train, and the bits of each number; 32 is float32."""

    form: str = REST
    rank: int | None = None
    bits: int = 32

    def __str__(self) -> str:
        if self.form == REST:
            return self.form
        width = "float32" if self.bits == 32 else f"{self.bits} bit{'s' * (self.bits > 1)}"
        return f"{self.form}, {width}" if self.rank is None else f"{self.form}, rank {self.rank}, {width}"


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of `model` that a plan can name, and their groups; known by what they are, not by their names.

    A layer whose weight is tied to another's stands under one name, as in the plan that `compress_` leaves.
    """

    model: nn.Module

    @cached_property
    def all(self) -> dict[str, nn.Module]:
        """By name, in the model's order; of tied ones the table, or else the first."""
        return {name: module for name, module in self.everything.items() if self.leaders.get(name, name) == name}

    @cached_property
    def everything(self) -> dict[str, nn.Module]:
        """By name, tied ones each."""
        return layers(self.model)

    @cached_property
    def leaders(self) -> dict[str, str]:
        """For each layer with a tied weight the one that stands for all."""
        found = {}
        for places in tied(self.model):
            names = [name for name, own in places if own == "weight" and name in self.everything]
            tables = [name for name in names if is_embedding(self.everything[name])]
            found |= dict.fromkeys(names, (tables or names or [""])[0])
        return found

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The names of `all` by group, in the order of `GROUPS`; groups without a layer are left out."""
        words, answers = word_embeddings(self.model), heads(self.model)
        attention = {
            name
            for above, part in self.model.named_modules()
            if "Attention" in type(part).__name__
            for name in (f"{above}.{inner}" for inner, _ in part.named_modules())
        }
        positions = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        found: dict[str, list[str]] = {group: [] for group in GROUPS}
        for name, module in self.all.items():
            if is_embedding(module):
                group = "words" if module in words else "other tables"
                group = "positions" if group != "words" and module.num_embeddings == positions else group
            elif is_experts(module):
                group = "experts"
            else:
                group = "heads" if module in answers else "attention" if name in attention else "feed-forward"
            found[group].append(name)
        return {group: tuple(names) for group, names in found.items() if names}

    def plan(self, layers: Mapping[str, LayerPlan], rest: int) -> TTQConfig:
        """The plan that gives these layers what is said: equal, also in its order, to what `ttq.plan` makes of it."""
        said = {name: layers[name] for name in self.everything if layers.get(name, LayerPlan()) != LayerPlan()}
        led = {self.leaders.get(name, name) for name in said}
        left = (name for name in self.everything if name not in said and self.leaders.get(name, name) not in led)
        return TTQConfig(said, rest, tuple(left) if said else ())

    def formats(self, names: Iterable[str]) -> tuple[str, ...]:
        """The formats that all of these layers can have: experts and tied linear layers stay dense."""
        plain = all(self._can_be_train(name) for name in names)
        return FORMATS if plain else FORMATS[:2]

    def _can_be_train(self, name: str) -> bool:
        module = self.all[name]
        return is_embedding(module) or (is_linear(module) and name not in self.leaders)

    def setting(self, config: TTQConfig, name: str) -> Setting:
        """What a plan gives to a layer."""
        layer = config.layers.get(name, LayerPlan())
        if layer.format is None and layer.quantize in (None, "rest"):
            return Setting()
        bits = getattr(layer.quantize, "bits", 32)
        if layer.format is None:
            return Setting(DENSE, None, bits)
        ranks = layer.format.rank if isinstance(layer.format.rank, tuple) else (layer.format.rank,)
        return Setting(self._form(layer.format), max(ranks), bits)

    @staticmethod
    def _form(form: TT | TTM) -> str:
        """How many cores there are, of a table, or on the side of a linear layer that has more."""
        if isinstance(form, TT):
            cores = max(len(form.in_modes or (0,) * 3), len(form.out_modes or (0,) * 3))
        else:
            rows, columns = form.vocabulary_modes or (0,) * 3, form.hidden_modes or (0,) * 3
            cores = 1 if len(rows) == 2 and rows[1] == columns[0] == 1 else len(rows)
        return next((name for name, count in CORES.items() if count == cores), THREE)

    def layer_plan(self, name: str, setting: Setting, before: LayerPlan = NOTHING) -> LayerPlan:
        """What a plan says of a layer that gets this setting; what `before` said of its inputs stays.

        Raises:
            ValueError: bits that there are not.
        """
        if setting.form == REST:
            return LayerPlan(activations=before.activations)
        if setting.form == DENSE:
            kept = recipe_for(setting.bits, "channel") or "float"
            return LayerPlan(quantize=kept, activations=before.activations)
        return LayerPlan(self._format(name, setting), recipe_for(setting.bits, "tensor"), before.activations)

    def _format(self, name: str, setting: Setting) -> TT | TTM:
        module, cores = self.all[name], CORES[setting.form]
        table = is_embedding(module)
        rows, columns = module.weight.shape if table else linear_sizes(module)
        if cores == 1:
            return TTM(setting.rank, (rows, 1), (1, columns)) if table else TT(setting.rank, (rows,), (columns,))
        if cores == 3:  # what TT and TTM do by themselves
            return (TTM if table else TT)(setting.rank)
        if table:
            return TTM(setting.rank, factorize(rows, cores), factorize(columns, cores)[::-1])
        return TT(setting.rank, factorize(rows, cores)[::-1], factorize(columns, cores))

    def turned(self, config: TTQConfig, names: Iterable[str], **change) -> TTQConfig:
        """The plan in which these layers have another `form`, `rank` or `bits`; the rest of their settings stays.

        What becomes a train gets rank 16 where it had none. Layers that have no rank ignore a change of it, and those
        that belong to the rest ignore one of bits.
        """
        layers = dict(config.layers)
        for name in names:
            old = self.setting(config, name)
            new = replace(old, **change)
            if new.form in CORES:
                new = replace(new, rank=new.rank or 16)
            elif "form" in change:
                new = replace(new, rank=None, bits=32 if new.form == REST else new.bits)
            else:
                new = replace(new, rank=None, bits=new.bits if new.form == DENSE else 32)
            if new != old:
                layers[name] = self.layer_plan(name, new, layers.get(name, LayerPlan()))
        return self.plan(layers, config.rest)

    def common(self, config: TTQConfig, names: Iterable[str]) -> Setting | None:
        """The setting that these layers share; None where they differ."""
        settings = {self.setting(config, name) for name in names}
        return settings.pop() if len(settings) == 1 else None
