"""Files of results, as chapters ask them: rows by what they are of, points behind the dense model, numbers as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path


@dataclass(frozen=True)
class Results:
    """The rows of a file in data/results/, which `experiments/` has written: mappings with `metrics` and `settings`."""

    rows: Sequence[Mapping]

    @classmethod
    def read(cls, path: str | PathLike) -> "Results":
        """The rows of a JSON file `{"rows": [...]}`.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return cls(json.loads(Path(path).read_text(encoding="utf-8"))["rows"])

    def where(self, **wanted) -> list[Mapping]:
        """The rows whose fields, or else settings, have these values, smallest ratio first.

        Raises:
            ValueError: no row has a field or a setting of that name.
        """
        known = {name for row in self.rows for name in (*row, *(row["settings"] or {}))}
        if unknown := sorted(wanted.keys() - known):
            raise ValueError(f"no row has {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        found = [row for row in self.rows if all(_said(row, name) == value for name, value in wanted.items())]
        return sorted(found, key=lambda row: row["ratio"])

    def one(self, **wanted) -> Mapping:
        """The only row with these values.

        Raises:
            ValueError: there is none, or several, or no row has a field or a setting of that name.
        """
        found = self.where(**wanted)
        if len(found) != 1:
            raise ValueError(f"expected one row with {wanted}, found {len(found)}: ask for fewer or more of its fields")
        return found[0]

    def twin(self, row: Mapping, split: str) -> Mapping:
        """The row of the same models on another split.

        Raises:
            ValueError: they were not scored there.
        """
        same = ("task", "method", "plan", "seeds", "settings")
        return self.one(split=split, **{name: row[name] for name in same})

    def behind(self, row: Mapping, metric: str = "accuracy") -> float:
        """By how many points a row lacks to the dense model of its own task, split and held-out rows.

        Raises:
            ValueError: there is no row of that model, or several.
        """
        settings = row["settings"] or {}
        taught = {name: settings[name] for name in ("hold_out", "teacher") if name in settings}
        dense = self.one(method="dense", task=row["task"], split=row["split"], **taught)
        return self.mean(dense, metric) - self.mean(row, metric)

    def means(self, metric: str, **wanted) -> dict[str, float]:
        """The mean of a metric by method, of the rows with these values that have it."""
        return {row["method"]: self.mean(row, metric) for row in self.where(**wanted) if metric in row["metrics"]}

    @staticmethod
    def mean(row: Mapping, metric: str = "accuracy") -> float:
        """The mean of a row's metric over its seeds.

        Raises:
            ValueError: the row has no such metric.
        """
        if metric not in row["metrics"]:
            raise ValueError(f"the row has no {metric}; it has {', '.join(row['metrics'])}")
        return row["metrics"][metric]["mean"]

    @classmethod
    def text(cls, row: Mapping, metric: str = "accuracy") -> str:
        """The mean with one digit, and the deviation of several seeds behind it: `88.9 ± 0.4`."""
        shown, deviation = f"{cls.mean(row, metric):.1f}", row["metrics"][metric]["sd"]
        return shown if deviation is None else f"{shown} ± {deviation:.1f}"


def _said(row: Mapping, name: str):
    return row[name] if name in row else (row["settings"] or {}).get(name)
