"""What every export has beside its graph: a file of settings, which knows the digests of the others, and a tokenizer.

Nothing here needs torch or transformers: `Predictor` and `Talker` read folders where neither is installed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"


@dataclass(frozen=True)
class Settings:
    """The file of settings of one kind of export.

    Args:
        name: of the file.
        format: the number of its form.
        fields: what it says, beside "format" and "sha256", the digests of the graph and the tokenizer.
        writer: the public function that writes such a folder, for errors.
    """

    name: str
    format: int
    fields: frozenset[str]
    writer: str

    def write(self, folder: Path, config: dict) -> None:
        """Write the file: `config`, and the digests of what lies there."""
        digests = {name: _sha256(folder / name) for name in (GRAPH, TOKENIZER) if (folder / name).exists()}
        text = json.dumps({"format": self.format, **config, "sha256": digests}, indent=1, ensure_ascii=False)
        (folder / self.name).write_text(text + "\n", encoding="utf-8")

    def read(self, folder: Path, older: Callable[[dict, Path], dict] = lambda config, _: config) -> dict:
        """What `write` wrote, after the other files have been compared with their digests.

        `older` makes settings of today of those of an earlier format.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the file is broken, or another one is not the one that it was written with.
        """
        path = folder / self.name
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {self.name}, which {self.writer} writes")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
        if not isinstance(config, dict) or GRAPH not in config.get("sha256", ()):
            config = {}
        config, known = older(config, path), self.fields | {"format", "sha256"}
        if config.get("format") != self.format or {*config} != known:
            raise ValueError(
                f"{path} is not of format {self.format} with the fields {', '.join(sorted(known))}: export again"
            )
        for name, digest in config["sha256"].items():
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}, of which its {self.name} speaks: export again")
            if _sha256(folder / name) != digest:
                raise ValueError(f"{folder / name} is not the one that {self.name} was written with: export again")
        return config


def check_installed(packages: Sequence[str]) -> None:
    """Refuse to begin without what an export needs.

    Raises:
        ModuleNotFoundError: one of these packages is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{package} is missing: python -m pip install -e '.[deploy]' brings it", name=package
            )


def load_tokenizer(path: Path, truncate_to: int | None):
    """Without the padding and the truncation that the last use in training left in the file."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if truncate_to is not None:
        tokenizer.enable_truncation(truncate_to)
    return tokenizer


def _sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
