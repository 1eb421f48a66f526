"""What all layers of trains share: their cores.

Cores are parameters `core0`, `core1`, … so that a quantizer can be put on any of them with
`torch.nn.utils.parametrize`; the layers know nothing of quantization.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class TTLayer(nn.Module):
    """What `TTLinear` and `TTMEmbedding` share: cores named core0, core1, … and their initialization."""

    def _make_cores(self, shapes: Sequence[tuple[int, ...]], device=None, dtype=None) -> None:
        self.order = len(shapes)
        self.ranks = (*(shape[0] for shape in shapes), 1)
        for k, shape in enumerate(shapes):
            core = torch.empty(shape, device=device, dtype=dtype)
            if not core.is_floating_point():
                raise TypeError(f"dtype must be a floating-point type, got {core.dtype}")
            self.register_parameter(f"core{k}", nn.Parameter(core))

    @property
    def cores(self) -> list[Tensor]:
        """The cores as the forward pass sees them: through their parametrizations, where they have any."""
        return [getattr(self, f"core{k}") for k in range(self.order)]

    @torch.no_grad()
    def set_cores(self, cores: Sequence[Tensor]) -> None:
        """Copy `cores` (shapes as they are here) into the layer's own, whatever their dtype or device.

        Raises:
            ValueError: another number of cores, or a core of another shape. None has been changed then.
        """
        if len(cores) != self.order:
            raise ValueError(f"the layer has {self.order} cores, got {len(cores)}")
        for k, (own, core) in enumerate(zip(self.cores, cores)):
            if own.shape != core.shape:
                raise ValueError(f"core{k} must have shape {tuple(own.shape)}, got {tuple(core.shape)}")
        for k, core in enumerate(cores):
            own = getattr(self, f"core{k}")
            if parametrize.is_parametrized(self, f"core{k}"):  # then `own` is computed: write what it comes from
                setattr(self, f"core{k}", core.to(own))
            else:
                own.copy_(core)

    @property
    def weight(self) -> Tensor:
        """The dense weight, in the shape that the dense layer has; computed, for whoever reads it: it cannot be set."""
        raise NotImplementedError

    @torch.no_grad()
    def _init_cores(self, std: float) -> None:
        """Gaussian cores whose product has entries of standard deviation `std`.

        An entry of the product sums r_1 ⋯ r_{d-1} independent terms, each a product of d core entries, so its
        variance is (r_1 ⋯ r_{d-1}) · σ^{2d} when every core entry has variance σ².
        """
        if self.core0.is_meta:
            return  # shapes only, which plans are weighed by: there is nothing to fill
        sigma = (std**2 / prod(self.ranks)) ** (0.5 / self.order)
        self.set_cores([torch.randn_like(core) * sigma for core in self.cores])

    def _saving(self, dense: int) -> str:
        stored = sum(core.numel() for core in self.cores)
        return f"ranks={self.ranks}, {stored} numbers for {dense} ({dense / stored:.1f}×)"
