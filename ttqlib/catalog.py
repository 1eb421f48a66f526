"""Catalogs: frozen dataclasses by name, so that JSON can hold one as {"type": its name, …its fields}.

A plan and a schedule are read in another program, perhaps on another machine. So a file names the kind of a recipe, and
a reader builds only what stands in a catalog: ours, and what `register` has put there.
"""

from collections.abc import Mapping, Set
from dataclasses import MISSING, asdict, fields, is_dataclass

_open: list["Catalog"] = []  # to kinds of the user's own


class Catalog:
    """Frozen dataclasses by name. `base`, where there is one, is what a class of the user's own must extend."""

    def __init__(self, *kinds: type, base: type | None = None):
        self.kinds, self.base = {kind.__name__: kind for kind in kinds}, base
        if base is not None:
            _open.append(self)

    def __contains__(self, value) -> bool:
        return self.kinds.get(type(value).__name__) is type(value)

    def to_dict(self, value) -> dict:
        """`value` as plain strings, numbers and lists: what `json.dumps` takes.

        Raises:
            ValueError: its class does not stand here, so that no other program could build it.
        """
        if value not in self:
            remedy = ", or call ttq.register with its class, here and where the file is read" if self.base else ""
            raise ValueError(f"a file cannot hold {value!r}: use one of {', '.join(self.kinds)}{remedy}")
        values = {name: list(entry) if isinstance(entry, tuple) else entry for name, entry in asdict(value).items()}
        return {"type": type(value).__name__, **values}

    def from_dict(self, where: str, data: Mapping):
        """What `to_dict` wrote, or somebody by hand: fields with a default may be left out. `where` is for errors.

        Its own checks see to the values.

        Raises:
            ValueError: no mapping, an unknown type, a field that is unknown, or one without a default that is missing.
        """
        kind = self.kinds.get(mapping(where, data).get("type"))
        if kind is None:
            remedy = "; one of your own must be registered first, by ttq.register" if self.base else ""
            raise ValueError(f"{where}: type must be one of {', '.join(self.kinds)}, got {data.get('type')!r}{remedy}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        del values["type"]
        needed = {field.name for field in fields(kind) if field.default is MISSING}
        check_fields(f"{where} ({kind.__name__})", values, {field.name for field in fields(kind)}, needed)
        return kind(**values)


def register(kind: type) -> type:
    """Let plans and schedules on disk name a recipe or a schedule of your own; stands above its class as a decorator.

    Whoever reads the file must have registered a class of that name too. A cell that is run again replaces its class.

    Raises:
        TypeError: it extends neither `WeightRecipe`, `ActivationRecipe` nor `Schedule`.
        ValueError: it is not a frozen dataclass, or ttqlib or another module has given its name away.
    """
    catalog = next((one for one in _open if isinstance(kind, type) and issubclass(kind, one.base)), None)
    if catalog is None:
        bases = " or ".join(sorted(f"ttq.{one.base.__name__}" for one in _open))
        raise TypeError(f"register takes a class that extends {bases}, got {kind!r}")
    if not is_dataclass(kind) or kind.__hash__ is None:  # as it is where a dataclass can be changed
        raise ValueError(f"{kind.__name__} must be a frozen dataclass: put @dataclass(frozen=True) right above it")
    taken = catalog.kinds.get(kind.__name__)
    if taken is not None and taken.__module__ != kind.__module__:
        raise ValueError(f"the name {kind.__name__} is taken, by {taken.__module__}: choose another")
    catalog.kinds[kind.__name__] = kind
    return kind


def mapping(where: str, data) -> Mapping:
    """`data`, if it is a mapping.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, got {type(data).__name__}")
    return data


def check_fields(where: str, data: Mapping, known: Set[str], needed: Set[str] = frozenset()) -> None:
    """Raise a ValueError where a field is not known, or one that is needed is not there."""
    if unknown := sorted(map(str, data.keys() - known)):
        raise ValueError(f"{where} has the unknown fields {unknown}, known are {sorted(known)}")
    if missing := sorted(needed - data.keys()):
        raise ValueError(f"{where} lacks the fields {missing}")
