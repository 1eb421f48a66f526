"""`TTLinear`: a drop-in replacement for `nn.Linear`.

The format is that of arXiv 2306.01076: 2d cores of order 3, the input modes first and the output modes after them.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..tensors.gauge import balance_norms
from ..tensors.shapes import clip_ranks, fit_modes, whole_number
from ..tensors.tensor_train import at_least_float32, core_ranks, tt_svd
from .base import TTLayer


class TTLinear(TTLayer):
    """y = x W + b, where the weight W, of shape (in_features, out_features), is a tensor train.

    Maps (..., in_features) to (..., out_features), for any leading shape. W reshaped to (n_1, …, n_d, m_1, …, m_d),
    input modes then output modes, has 2d cores of shape (r_{k-1}, mode, r_k). Cutting the train in the middle gives
    W = U V: `sides()`, of shapes (in_features, r_d) and (r_d, out_features). They are merged first, at a cost that
    does not depend on the batch; then x is multiplied by two thin matrices, or by their product where the rank is so
    high that this is cheaper. No intermediate is larger than the input, the output or W.

    In eval mode the merged sides are kept until a core changes. Who writes to parameters through `.data`, as some code
    for moving averages does, changes them behind PyTorch's back: call `.eval()` on the model afterwards.

    Args:
        in_features, out_features: sizes of the last axis of input and output, any whole numbers of at least 1.
        rank: one TT-rank for all bonds or all 2d + 1 of them, clipped to what the modes can use.
        in_modes, out_modes: mode sizes; by default three balanced ones each, the larger ones at the two ends of the
            train, where they meet the smaller rank. A product above the size is padding.
        bias: whether to add a learned bias, as in `nn.Linear`.

    Raises:
        ValueError: a size or rank below 1, or modes that do not multiply out.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int | Sequence[int],
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_features = whole_number("in_features", in_features)
        self.out_features = whole_number("out_features", out_features)
        self.in_modes = fit_modes("in_modes", in_modes, in_features)
        self.out_modes = fit_modes("out_modes", out_modes, out_features, largest="last")
        modes = self.in_modes + self.out_modes
        ranks = clip_ranks(modes, rank)
        self._make_cores(list(zip(ranks, modes, ranks[1:], strict=False)), device, dtype)
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self._cache = None
        self.given = None  # sides that `merged_together` has made for this forward pass
        self.reset_parameters()

    def reset_parameters(self, std: float | None = None) -> None:
        """Random cores that give W entries of standard deviation `std`, by default 1/√in_features; zero bias.

        The default preserves variance: inputs of unit variance give outputs of unit variance.
        """
        self._init_cores(self.in_features**-0.5 if std is None else std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        rank: int | Sequence[int] | None = None,
        tolerance: float | None = None,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
    ) -> "TTLinear":
        """The TT-SVD of a dense layer, its core norms balanced; bias, dtype, device and train/eval mode are kept.

        The cores are trainable, also where the dense weight was frozen. Give either `rank`, or `tolerance`, the
        largest relative error of the weight, as in `tt_svd`.

        Raises:
            ValueError: as `tt_svd`, or modes that do not multiply out.
        """
        weight = linear.weight.detach()
        in_modes = fit_modes("in_modes", in_modes, linear.in_features)
        out_modes = fit_modes("out_modes", out_modes, linear.out_features, largest="last")
        padding = (0, prod(out_modes) - linear.out_features, 0, prod(in_modes) - linear.in_features)
        padded = F.pad(at_least_float32(weight.T), padding)
        cores = tt_svd(padded.reshape(in_modes + out_modes), rank, tolerance)
        layer = cls(
            linear.in_features,
            linear.out_features,
            core_ranks(cores),
            in_modes,
            out_modes,
            bias=linear.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.set_cores(balance_norms(cores))
        if linear.bias is not None:
            with torch.no_grad():
                layer.bias.copy_(linear.bias)
        return layer.train(linear.training)

    @property
    def weight(self) -> Tensor:
        """W transposed, (out_features, in_features), as in `nn.Linear`.

        Some modules read the weights of their linear layers and do not call them: T5's `wo`, Mamba's `dt_proj`,
        PyTorch's own attention and encoder layers. The gradient flows through to the cores.
        """
        u, v = self.sides()
        return (u @ v).T

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The dense layer with the same weight, as the forward pass sees it."""
        u, v = self._merge_sides()
        has_bias = self.bias is not None
        linear = nn.Linear(self.in_features, self.out_features, has_bias, device=u.device, dtype=u.dtype)
        linear.weight.copy_((u @ v).T)
        if has_bias:
            linear.bias.copy_(self.bias)
        return linear.train(self.training)

    def sides(self) -> tuple[Tensor, Tensor]:
        """U, of shape (in_features, r_d), and V, of shape (r_d, out_features), with W = U V.

        In eval mode without gradients they are merged once and kept until a core, or anything that a
        parametrization of a core holds, has changed. In-place writes through `.data` escape PyTorch's version counters,
        by which this is noticed.
        """
        if self.given is not None:
            return self.given
        sources = self._core_tensors()
        if not self._may_cache(sources):
            self._cache = None
            return self._merge_sides()
        parts = list(self.modules())  # the layer and the parametrizations of its cores
        state = [*map(id, parts), *((id(tensor), tensor.data_ptr(), tensor._version) for tensor in sources)]
        if self._cache is None or self._cache[0] != state:
            # holding on to parts, tensors and storages keeps their ids and addresses from being given to others
            alive = [parts, [(tensor, tensor.detach()) for tensor in sources]]
            self._cache = (state, self._merge_sides(), alive)
        return self._cache[1]

    def train(self, mode: bool = True) -> "TTLinear":
        self._cache = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """x W + b, (..., in_features) → (..., out_features), in the dtype of `x`.

        Raises:
            TypeError: `x` is not of floating-point numbers.
            ValueError: its last axis is not `in_features` long.
        """
        if not x.is_floating_point():
            raise TypeError(f"input must be floating-point numbers, got {x.dtype}")
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"the last axis of the input must be in_features={self.in_features}, got {tuple(x.shape)}")
        u, v = self.sides()
        rows = x.reshape(-1, self.in_features)  # 2-D products are the fastest that PyTorch has
        if not self.thin_is_cheaper(len(rows)):
            y = F.linear(rows, (u @ v).T, self.bias)
        elif self.bias is None:
            y = rows @ u @ v
        else:  # (x U, 1) times V over b: with b as one more row no pass over the wide output is needed, back and forth
            h = torch.cat([rows @ u, rows.new_ones(len(rows), 1)], dim=1)  # (rows, r_d + 1)
            y = h @ torch.cat([v, self.bias[None]])
        return y.reshape(*x.shape[:-1], self.out_features)

    def thin_is_cheaper(self, rows: int) -> bool:
        """Whether (x U) V takes no more multiplications than x (U V) for an input of `rows` rows."""
        n, m, r = self.in_features, self.out_features, self.ranks[len(self.in_modes)]
        return rows * r * (n + m) <= n * r * m + rows * n * m

    def extra_repr(self) -> str:
        n, m = self.in_features, self.out_features
        return (
            f"in_features={n}, out_features={m}, bias={self.bias is not None}, "
            f"in_modes={self.in_modes}, out_modes={self.out_modes}, {self._saving(n * m)}"
        )

    def _merge_sides(self) -> tuple[Tensor, Tensor]:
        """In float32 at least, also under autocast: cores rounded to half precision twice would lose twice as much."""
        cores = self.cores
        dtype, device = cores[0].dtype, cores[0].device.type
        autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if dtype.itemsize < 4 or autocasts:
            with torch.autocast(device, enabled=False):
                return tuple(side.to(dtype) for side in self.merged([at_least_float32(core) for core in cores]))
        return self.merged(cores)

    def merged(self, cores: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The sides of cores of this layer's shapes; leading axes, the same for all cores, are those of a batch."""
        half = len(self.in_modes)
        u = cores[0].flatten(-3, -2)  # (…, n_1, r_1)
        for core in cores[1:half]:
            u = (u @ core.flatten(-2)).unflatten(-1, core.shape[-2:]).flatten(-3, -2)  # (…, n_1 ⋯ n_k, r_k)
        v = cores[-1].flatten(-2)  # (…, r_{2d-1}, m_d)
        for core in reversed(cores[half:-1]):
            v = (core.flatten(-3, -2) @ v).unflatten(-2, core.shape[-3:-1]).flatten(-2)  # (…, r_{k-1}, m_k ⋯ m_d)
        if (u.shape[-2], v.shape[-1]) != (self.in_features, self.out_features):  # else nothing to cut off
            u, v = u[..., : self.in_features, :], v[..., : self.out_features]
        return u.mT.contiguous().mT, v  # column after column: autograd then takes the faster way to the gradient of U

    def _may_cache(self, sources: Sequence[Tensor]) -> bool:
        changing = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        return not changing and not any(tensor.is_inference() for tensor in sources)  # those have no version counter

    def _core_tensors(self) -> list[Tensor]:
        """What the cores are made of: the parameters themselves, or what their parametrizations hold."""
        own = [tensor for name, tensor in self._parameters.items() if name != "bias"]
        if not parametrize.is_parametrized(self):
            return own
        return [*own, *self.parametrizations.parameters(), *self.parametrizations.buffers()]

    def __getstate__(self):
        return {**super().__getstate__(), "_cache": None, "given": None}  # no copy or pickle needs them
