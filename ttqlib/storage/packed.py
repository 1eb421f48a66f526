"""Models that stay packed in memory: codes side by side in bytes, made numbers where a layer reads its weight.

A finished model computes with few bits, but the ordinary load gives every weight a latent one in floating point, which
only training needs. Here the codes stay, and a layer's weight exists while the layer computes. In memory the codes of a
row fill whole bytes, as many as fit: of 1, 2 and 4 bits as in a file, of 3 bits two a byte, of more bits one.
"""

import ctypes
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..inventory.kinds import is_embedding, is_linear
from ..quantizers.fake_quantization import join, split
from ..quantizers.parametrizing import quantized
from ..quantizers.recipes import WeightQuantizer
from .stored import fill_

LARGEST = 2**22  # numbers of a weight for which memory is kept: 16 MiB
BLOCK = 2**14  # bytes that are looked up at a time
ADVICE = "its weights are packed, for answers only: load it without packed=True"


class PackedWeight(WeightQuantizer):
    """Stands where torch keeps the latent weight and its quantizer, and is both: what it holds are codes and scales.

    Its forward pass gives the weight, to the bit what the ordinary load computes with, as a new tensor.
    """

    def __init__(
        self,
        quantizer: WeightQuantizer,
        latent: Tensor,
        codes: Tensor,
        scales: Mapping[str, Tensor],
        device: torch.device | None = None,
    ):
        nn.Module.__init__(self)
        self.recipe, self.layout, self.held, self.registered = quantizer.recipe, quantizer.layout, quantizer.held, True
        self.names, self.shape = tuple(scales), latent.shape
        device = device or latent.device
        # transformers asks a model's parameters for its dtype and its device; `module.to` changes them here, too
        self.like = nn.Parameter(latent.new_empty(0, device=device), requires_grad=False)
        self._latent = (nn.Parameter(torch.empty_like(latent, device="meta"), requires_grad=False),)  # no parameter
        rows = self.layout.rows(codes)
        rows = rows.flatten(1) if rows.ndim > 1 else rows.reshape(1, -1)
        self.width = rows.shape[1]
        packed = torch.from_numpy(side_by_side(rows.cpu().numpy(), self.recipe.bits))
        self.bytes = nn.Buffer(packed.to(device))  # (rows, bytes of a row)
        for name, values in scales.items():
            setattr(self, name, nn.Buffer(values.to(device, copy=True)))  # or the whole file stays mapped

    def __getitem__(self, index: int) -> "PackedWeight":
        """As in torch's list of parametrizations, where the quantizer comes first."""
        return [self][index]

    @property
    def original(self) -> Tensor:
        """The like of the latent weight: its shape and dtype, on the meta device, since it has no values."""
        return self._latent[0]

    def forward(self, room: Tensor | None = None) -> Tensor:
        """The weight, in its shape and in the dtype of the model; made in `room`, where it stays until the next one.

        Raises:
            ValueError: a gradient is asked for.
        """
        if self.like.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"this model cannot train: {ADVICE}")
        rows = self._values(self.bytes, self._read(), room)
        return self.layout.weight(rows.reshape(self._rows_shape()), self.shape).to(self.like.dtype).contiguous()

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of a table, (N,) → (N, width); the others stay packed.

        Raises:
            IndexError: an id outside the table.
        """
        held = self._read().items()
        scales = {name: values.index_select(0, ids) if values.ndim else values for name, values in held}
        return self._values(self.bytes.index_select(0, ids), scales).to(self.like.dtype)

    def scales(self, weight: Tensor | None = None) -> dict[str, Tensor]:
        return self._read()

    def codes(self, weight: Tensor | None = None) -> Tensor:
        """All codes, uint8, in the shape of the weight: what a file stores."""
        shifts = self.recipe.bits * torch.arange(_codes_of_a_byte(self.recipe.bits), device=self.bytes.device)
        codes = (self.bytes[..., None] >> shifts.to(torch.uint8)) & (2**self.recipe.bits - 1)
        rows = codes.flatten(1)[:, : self.width]
        return self.layout.weight(rows.reshape(self._rows_shape()), self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        raise ValueError(f"a weight of this model cannot be set: {ADVICE}")

    def train(self, mode: bool = True) -> "PackedWeight":
        if mode:
            raise ValueError(f"this model cannot train: {ADVICE}")
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True) -> "PackedWeight":
        super()._apply(fn, recurse)  # for `module.to`: the latent weight that is not there follows in its dtype
        if self.original.dtype != self.like.dtype:
            self._latent = (nn.Parameter(self.original.to(self.like.dtype), requires_grad=False),)
        return self

    def _read(self) -> dict[str, Tensor]:
        """The scales as they are applied; one that a quantizer holds is read in its own way."""
        values = {name: getattr(self, name) for name in self.names}
        return {**values, "scale": self.step} if self.held else values

    def _rows_shape(self) -> torch.Size:
        """The shape of what `layout.rows` makes of the weight."""
        return self.layout.rows(self.original).shape

    def _values(self, packed: Tensor, scales: Mapping[str, Tensor], room: Tensor | None = None) -> Tensor:
        """level × scale of some rows of bytes, (N, width), as `WeightQuantizer.decode` has it."""
        recipe, scale = self.recipe, scales["scale"][..., None]
        lowest = recipe.lowest(scales)  # one number, or one for each group
        fixed = lowest if isinstance(lowest, int) else 0
        levels = _levels(packed, recipe.bits, recipe.spacing, fixed, room)[:, : self.width].to(scale.dtype)
        groups = split(levels, recipe.per) if scale.ndim == 3 and scale.shape[1] > 1 else levels
        if groups is levels and scale.ndim == 3:  # one group a row
            scale, lowest = scale[..., 0], lowest if isinstance(lowest, int) else lowest[..., 0]
        if not isinstance(lowest, int):
            groups.add_(lowest)
        groups.mul_(scale)
        return levels if groups is levels else join(groups, levels.shape)


Aside = list[tuple[nn.Module, str, parametrize.ParametrizationList]]


class _Absent(nn.Module):
    """Stands where a packed weight will be: what finds memory for the others finds an empty parameter here."""

    def __init__(self, latent: Tensor):
        super().__init__()
        self.original = nn.Parameter(latent.new_empty(0), requires_grad=False)
        self.shape = latent.shape

    def forward(self) -> Tensor:
        """For a model that starts its weights at random, which changes nothing here."""
        return self.original.new_empty(self.shape, device="meta")


def set_aside_(model: nn.Module) -> Aside:
    """Take what will be packed out of a compressed model on the meta device, before there is memory for its weights.

    That memory, freed again, would be where the C library scatters what the model computes. `pack_` puts back what is
    returned: modules, the names of their weights, and what stood there.
    """
    aside = [
        (module, name, module.parametrizations[name])
        for module in model.modules()
        for name, quantizer, _ in quantized(module)
        if isinstance(quantizer, WeightQuantizer)
    ]
    for module, name, stack in aside:
        module.parametrizations[name] = _Absent(stack.original)
    return aside


def pack_(model: nn.Module, tensors: Mapping[str, Tensor], aside: Aside) -> nn.Module:
    """Put `checked_tensors` into the compressed model that they are for, as `fill_` does, but quantized ones packed.

    `aside` comes from `set_aside_`. The model is returned, in eval mode: it only answers. Weights rounded to 16 bits
    and what is not quantized are as ever, and a `TTLinear` keeps its merged sides as ever. `fuse_` unpacks everything,
    `save` writes the same file.
    """
    made: dict[Tensor, PackedWeight] = {}
    devices: dict[Tensor, torch.device] = {}
    for module, name, stack in aside:
        devices[stack.original] = module.parametrizations[name].original.device
        module.parametrizations[name] = stack
    fill_(
        model,
        tensors,
        lambda quantizer, latent, *values: made.update(
            {latent: PackedWeight(quantizer, latent, *values, device=devices[latent])}
        ),
    )
    for module in list(model.modules()):
        for name, _, latent in list(quantized(module)):
            if latent in made:
                module.parametrizations[name] = made[latent]
                if name == "weight" and is_embedding(module):
                    type(module).forward = _look_up  # of a class that parametrize has made for this module alone
                elif name == "weight" and is_linear(module):
                    type(module).forward = _multiply
    model.eval().requires_grad_(False)
    model.train = partial(_train, model)  # a refusal deep inside would leave some layers in training mode
    _give_back()
    return model


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise ValueError(f"this {type(model).__name__.removeprefix('Parametrized')} cannot train: {ADVICE}")
    return type(model).train(model, mode)


def _give_back() -> None:
    """Hand to the system what unpacking has taken, which glibc keeps for the next time; other C libraries see to it."""
    with suppress(AttributeError, TypeError, OSError):  # no such function; on Windows CDLL takes no None
        ctypes.CDLL(None).malloc_trim(0)


def _look_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    """The forward pass of a packed table: what its own class does, with a table of the rows in the order asked for."""
    rows = table.parametrizations["weight"].rows(ids.flatten())
    stand_in = _stand_in(table, {"weight": rows}, num_embeddings=len(rows), padding_idx=None)
    return type(stand_in).forward(stand_in, torch.arange(len(rows), device=ids.device).view(ids.shape))


def _multiply(linear: nn.Module, *inputs, **named) -> Tensor:
    """The forward pass of a packed linear layer: what its own class does, with a weight that is there meanwhile."""
    held = linear.parametrizations["weight"]
    room = None if torch.is_grad_enabled() else _room.of(held)  # the way back would need the weight once more
    stand_in = _stand_in(linear, {"weight": held(room), "bias": linear.bias})
    return type(stand_in).forward(stand_in, *inputs, **named)


def _stand_in(module: nn.Module, parameters: Mapping[str, Tensor | None], **changed) -> nn.Module:
    """One of the module's own class as it was before parametrize, with these parameters."""
    kind = parametrize.type_before_parametrizations(module)
    stand_in = kind.__new__(kind)
    stand_in.__dict__ = {**vars(module), "_parameters": dict(parameters), **changed}
    return stand_in


class _Room(threading.local):
    """Memory in which a layer's weight exists while the layer computes: a thread's own, the same for all layers.

    A new piece for each weight leaves holes of all sizes in the process, several times a weight's size together.
    """

    def __init__(self):
        with torch.inference_mode(False):  # a tensor of that mode could not be written to outside of it
            self.levels = torch.empty(LARGEST)  # of which only what is written to takes memory

    def of(self, held: PackedWeight) -> Tensor | None:
        """Room for the levels of a weight, float32; none of them where it would be kept for a whole table."""
        count = held.bytes.numel() * _codes_of_a_byte(held.recipe.bits)
        if held.bytes.device.type != "cpu" or count > LARGEST:
            return None
        return self.levels


_room = _Room()


# ------------------------------------------------------------------------------------------------------------- bytes


def _codes_of_a_byte(bits: int) -> int:
    return 8 // bits


def side_by_side(rows: np.ndarray, bits: int) -> np.ndarray:
    """Codes, uint8 (rows, width), as bytes of several codes each, the first code in the lowest bits."""
    count = _codes_of_a_byte(bits)
    packed = np.zeros((len(rows), -(-rows.shape[1] // count)), np.uint8)
    some = max(1, BLOCK // max(1, rows.shape[1]))  # at a time, so that little else takes memory
    for first in range(0, len(rows), some):
        for place in range(count):
            codes = rows[first : first + some, place::count]
            packed[first : first + some, : codes.shape[1]] |= codes << (bits * place)
    return packed


def _levels(packed: Tensor, bits: int, spacing: int, lowest: int, room: Tensor | None) -> Tensor:
    """The levels that bytes stand for: (rows, bytes) → float32 (rows, codes), in `room` if there is one."""
    if bits > 4:  # one code a byte
        return packed.float().mul_(spacing).add_(lowest)
    table = _table(bits, spacing, lowest)
    if packed.device.type != "cpu":
        return torch.from_numpy(table).to(packed.device)[packed.int()].flatten(1)
    shape = (*packed.shape, table.shape[1])
    levels = torch.empty(shape) if room is None else room[: math.prod(shape)].view(shape)
    codes, numbers = packed.reshape(-1).numpy(), levels.flatten(0, 1).numpy()
    for start in range(0, len(codes), BLOCK):  # NumPy looks up by indices of eight bytes each, which it makes first
        # NumPy copies a few numbers at a time as fast as memory is; "clip" spares it a look at indices that always fit
        np.take(table, codes[start : start + BLOCK], axis=0, out=numbers[start : start + BLOCK], mode="clip")
    return levels.flatten(1)


@cache
def _table(bits: int, spacing: int, lowest: int) -> np.ndarray:
    """The levels of the codes in each of the 256 bytes: float32 (256, codes of a byte)."""
    codes = (np.arange(256)[:, None] >> (bits * np.arange(_codes_of_a_byte(bits)))) & (2**bits - 1)
    return (spacing * codes + lowest).astype(np.float32)
