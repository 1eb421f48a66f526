"""safetensors files that are read with suspicion, and the digest that holds a file and its plan together.

What the tensors of a file mean, `stored` knows.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

DIGEST = "ttq"  # the entry of a file's header that holds the digest of plan and tensors
ANY_DIGEST = 64 * "0"  # as long as every other, for who counts bytes
DTYPES = {  # how safetensors calls them; it writes the tensors of the last kind first
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
Spec = tuple[torch.dtype, tuple[int, ...]]  # what is known of a tensor before it is read: its dtype and shape


def digest(plan: Mapping, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a plan and of the names, dtypes, shapes and bytes of all tensors, in hexadecimal digits."""
    sha = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(json.dumps([name, DTYPES[tensor.dtype], list(tensor.shape)]).encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    """The dtypes and shapes of tensors, by name."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def module_bytes(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> dict[str, int]:
    """How many bytes of a safetensors file the tensors of each module take, and how many its "header" takes."""
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in specs.items():
        module = name.rpartition(".")[0]
        sizes[module] = sizes.get(module, 0) + prod(shape) * dtype.itemsize
    return {**sizes, "header": len(_header(specs, metadata))}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file: the same bytes for the same contents, while safetensors' own writer shuffles the metadata."""
    specs = specs_of(tensors)
    with open(path, "wb") as file:
        file.write(_header(specs, metadata))
        for name in _file_order(specs):
            file.write(_bytes(tensors[name]))


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    """What a safetensors file begins with: the length of a JSON text, and the text, filled up to a multiple of 8."""
    entries, end = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name in _file_order(specs):
        dtype, shape = specs[name]
        start, end = end, end + prod(shape) * dtype.itemsize
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _file_order(specs: Mapping[str, Spec]) -> list[str]:
    order = list(DTYPES)
    return sorted(specs, key=lambda name: (-order.index(specs[name][0]), name))


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def read_specs(path: Path) -> dict[str, Spec]:
    """The dtype and shape of each tensor of a safetensors file, without reading it.

    Raises:
        ValueError: it is no whole safetensors file, or holds a kind of number that we never write.
    """
    kinds = {name: dtype for dtype, name in DTYPES.items()}
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        for name, found in slices.items():
            if found.get_dtype() not in kinds:
                raise ValueError(f"{path} holds {some([name])} as {found.get_dtype()}, which ttq.save does not write")
        return {name: (kinds[found.get_dtype()], tuple(found.get_shape())) for name, found in slices.items()}


def read_all(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ValueError: it is no whole safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself.

    Raises:
        ValueError: it is no whole safetensors file.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path):
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {first_line(error)}") from None


def compare(found: Mapping[str, Spec], expected: Mapping[str, Spec]) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Raises:
        ValueError: some are missing, too many, or of another dtype or shape.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"the file lacks {some(missing)}, which this plan makes of this model")
    if extra := sorted(found.keys() - expected.keys()):
        raise ValueError(f"the file holds {some(extra)}, which this plan does not make of this model")
    for name, (dtype, shape) in expected.items():
        kind, wanted = (DTYPES[found[name][0]], found[name][1]), (DTYPES[dtype], tuple(shape))
        if kind != wanted:
            raise ValueError(f"{name} must be {wanted[0]} of shape {wanted[1]}, the file has {kind[0]} of {kind[1]}")


def some(names: Sequence[str]) -> str:
    """A few names as one line: what comes from a file may be long and hold any character."""
    shown = ", ".join(ascii(name[:100]) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more tensors"


def first_line(error: Exception) -> str:
    """What an error says, as one short line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
