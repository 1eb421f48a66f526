"""What the app holds: a model, its plan and one to compare with; with undo and redo, as a file and as a link."""

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...catalog import check_fields, mapping
from ...plans.configs import Shared, TTQConfig
from .layers import Layers

FORMAT = 1  # of the file
LONGEST = 1_000_000  # characters of a file that is restored: no plan of a real model comes near
STEPS = 200  # that can be undone


@dataclass(frozen=True)
class Sheet:
    """One moment of the app: the key of a model, its plan, and the plan put beside it, if there is one."""

    source: str
    plan: TTQConfig
    beside: TTQConfig | None = None

    def to_json(self) -> str:
        """The file that restores it: one line."""
        beside = None if self.beside is None else self.beside.to_dict()
        return json.dumps({"ttq_app": FORMAT, "source": self.source, "plan": self.plan.to_dict(), "beside": beside})

    @classmethod
    def from_json(cls, text: str) -> "Sheet":
        """What `to_json` wrote.

        Raises:
            ValueError: it is no such file, with what is wrong in one line.
        """
        if len(text) > LONGEST:
            raise ValueError(f"a plan has at most {LONGEST:,} characters, this file has {len(text):,}")
        try:
            data = mapping("the file", json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"this is no JSON file of the app: {str(error)[:100]}") from None
        if data.get("ttq_app") != FORMAT or isinstance(data.get("ttq_app"), bool):
            raise ValueError(f"this is no file of this app: ttq_app must be {FORMAT}, got {data.get('ttq_app')!r}")
        check_fields("the file", data, {"ttq_app", "source", "plan", "beside"}, {"source", "plan"})
        if not isinstance(data["source"], str):
            raise ValueError(f"source must be a string, got {data['source']!r}")
        beside = data.get("beside")
        beside = None if beside is None else TTQConfig.from_dict(beside)
        return cls(data["source"], TTQConfig.from_dict(data["plan"]), beside)

    def to_link(self) -> str:
        """The same as the end of an address: letters, digits, - and _."""
        return base64.urlsafe_b64encode(zlib.compress(self.to_json().encode(), 9)).decode().rstrip("=")

    @classmethod
    def from_link(cls, link: str) -> "Sheet":
        """What `to_link` gave; a whole address that ends in it will do.

        Raises:
            ValueError: it is none, or was cut off.
        """
        code = link.strip().rpartition("plan=")[2]
        try:
            packed = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(packed, LONGEST + 1)  # a small link may unpack to a gigabyte
            if not unpacker.eof:
                raise ValueError("cut off or too long")
            text = text.decode()
        except (binascii.Error, zlib.error, ValueError) as error:  # UnicodeError is one
            raise ValueError(f"this link holds no plan ({error}): copy the whole of it") from None
        return cls.from_json(text)


@dataclass(frozen=True)
class History:
    """The sheet as it is, those before it and those that were undone."""

    now: Sheet
    past: tuple[Sheet, ...] = ()
    future: tuple[Sheet, ...] = ()

    def then(self, sheet: Sheet) -> "History":
        """After a step to another sheet: what was undone is gone. To the same one there is no step."""
        return self if sheet == self.now else History(sheet, (*self.past, self.now)[-STEPS:])

    def undo(self) -> "History":
        """One step back, if there is one."""
        return History(self.past[-1], self.past[:-1], (self.now, *self.future)) if self.past else self

    def redo(self) -> "History":
        """One step forth again, if there is one."""
        return History(self.future[0], (*self.past, self.now), self.future[1:]) if self.future else self

    def turned(self, plan: TTQConfig) -> "History":
        """After a step to another plan for the same model."""
        return self.then(replace(self.now, plan=plan))


def differences(layers: Layers, one: TTQConfig, other: TTQConfig) -> Iterator[tuple[str, str, str]]:
    """Where two plans differ: the group or layer, what the first gives it and what the other does.

    A group whose layers are all alike in both plans is one line; otherwise each layer that differs is one.
    """
    for group, names in layers.groups.items():
        pair = layers.common(one, names), layers.common(other, names)
        changed = [name for name in names if _said(one, name) != _said(other, name)]
        if changed and None not in pair and pair[0] != pair[1]:
            yield group, str(pair[0]), str(pair[1])
        else:
            for name in changed:
                texts = [str(layers.setting(config, name)) for config in (one, other)]
                if texts[0] == texts[1]:  # modes, scales or inputs, which a setting does not tell
                    texts = [_written(_said(config, name)) for config in (one, other)]
                yield name, *texts
    if one.rest != other.rest:
        yield "rest", f"{one.rest} bits", f"{other.rest} bits"


def _said(config: TTQConfig, name: str):
    return config.layers.get(name)


def _written(layer) -> str:
    return "nothing" if layer is None else repr(layer)


def restored(sheet: Sheet, layers: Layers) -> Sheet:
    """The same sheet with plans in the order of the model, after a look at whether they are for it.

    Raises:
        ValueError: a plan names a layer that the model has not, or lets layers share.
    """
    plans: Mapping[str, TTQConfig | None] = {"plan": sheet.plan, "beside": sheet.beside}
    for config in filter(None, plans.values()):
        if unknown := [name for name in config.layers if name not in layers.all]:
            raise ValueError(f"the plan names {unknown[0]!r}, which is no layer of {sheet.source}")
        if sharing := [name for name, layer in config.layers.items() if isinstance(layer.format, Shared)]:
            raise ValueError(
                f"the plan lets {sharing[0]} share with other layers (ttq.Shared), but the app turns and weighs each "
                "layer by itself: ttq.compress_ and ttq.report take such a plan"
            )
    return replace(sheet, **{k: c and layers.plan(c.layers, c.rest) for k, c in plans.items()})
