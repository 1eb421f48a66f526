"""What a layer or a model has and takes: parameters, bytes, FLOPs; and how far off an approximation is."""

from dataclasses import dataclass
from html import escape
from math import prod

import torch
from torch import Tensor, nn

from .checkpoint import stored_sizes
from .embeddings import TTMEmbedding, TTMHead
from .fake_quantization import Float16
from .fusion import HalfMergedEmbedding
from .inventory import expert_weights, is_experts, is_linear, is_router, linear_sizes, own_parameters
from .layers import TTLayer, TTLinear
from .packing import header_bytes
from .parametrizing import quantized
from .shapes import whole_number
from .stored import has_plan

EXPERTS_A_TOKEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k")  # what configs call it
RUNS = {"AlbertLayer": lambda layer: layer.config.num_hidden_layers // layer.config.num_hidden_groups}  # one for many
SUMMED = ("parameters", "stored_bytes", "dense_bytes", "flops")
COMPUTING = (TTLinear, TTMEmbedding, TTMHead, HalfMergedEmbedding)
HEADINGS = ("layer", "format", "parameters", "stored bytes", "dense float32 bytes", "ratio")


def relative_error(reference: Tensor, approximation: Tensor) -> float:
    """‖A − B‖ / ‖A‖ in the Frobenius norm: 0 is exact, 1 is as bad as answering zero.

    Raises:
        ValueError: the shapes differ (they are not broadcast), or the reference is zero.
    """
    if reference.shape != approximation.shape:
        raise ValueError(f"shapes must be equal, got {tuple(reference.shape)} and {tuple(approximation.shape)}")
    reference, approximation = (tensor.detach().cpu().double() for tensor in (reference, approximation))
    norm = torch.linalg.vector_norm(reference)
    if not norm:
        raise ValueError("the reference is zero, so no error is relative to it")
    return float(torch.linalg.vector_norm(reference - approximation) / norm)


def count_parameters(module: nn.Module) -> int:
    """How many numbers the parameters of `module` hold, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameter_bytes(module: nn.Module) -> int:
    """How many bytes the parameters of `module` take in memory, shared ones counted once."""
    return sum(parameter.nbytes for parameter in module.parameters())


def flops(layer: nn.Module, rows: int, merged: bool = False) -> int:
    """Floating-point operations of the matrix products in one forward pass of `layer`: 2 for each multiply-add.

    `rows` is the number of input rows (tokens) of a linear layer, and of distinct ids of an embedding. A TTLinear
    merges its sides first; `merged=True` leaves that out, as in eval mode, where it is done once and kept. Each token
    goes through as many experts of a mixture as its config says.
    Agrees with `torch.utils.flop_counter`, but for the bias of a TTLinear, which is added by its last product and, as
    everywhere, not counted.

    Raises:
        TypeError: a layer of another kind.
    """
    rows = whole_number("rows", rows, minimum=0)
    if isinstance(layer, TTLinear):
        return _linear_flops(layer, rows, merged)
    if isinstance(layer, TTMEmbedding):
        return _embedding_flops(layer, rows)
    if isinstance(layer, TTMHead):  # it makes all rows of the table, and multiplies by them
        return _embedding_flops(layer.table, layer.out_features) + 2 * rows * layer.in_features * layer.out_features
    if isinstance(layer, HalfMergedEmbedding):
        return 2 * rows * layer.prefixes.embedding_dim // layer.rank * layer.suffixes.embedding_dim
    if is_linear(layer):
        return 2 * rows * prod(linear_sizes(layer))
    if is_router(layer):
        return 2 * rows * layer.weight.numel()
    if is_experts(layer):
        return 2 * rows * _numbers_a_token(layer)
    if isinstance(layer, nn.Embedding):
        return 0  # a look-up multiplies nothing
    raise TypeError(
        "flops knows linear layers, embeddings, experts, TTLinear and TTMEmbedding, "
        f"got {type(layer).__name__}; for a whole model use torch.utils.flop_counter.FlopCounterMode"
    )


def _numbers_a_token(experts: nn.Module) -> int:
    """How many weights of a mixture each token is multiplied by: those of all experts where its config names no few."""
    shapes = [dict(own_parameters(experts))[name].shape for name in expert_weights(experts)]
    config, count = getattr(experts, "config", None), max(shape[0] for shape in shapes)
    used = next((getattr(config, name) for name in EXPERTS_A_TOKEN if hasattr(config, name)), count)
    return sum(prod(shape) for shape in shapes) * used // count


def _linear_flops(layer: TTLinear, rows: int, merged: bool) -> int:
    half, modes, ranks = len(layer.in_modes), layer.in_modes + layer.out_modes, layer.ranks
    inner, n, m = ranks[half], layer.in_features, layer.out_features
    merging = 0
    if not merged:
        # core k of the left side is multiplied by the n_1 ⋯ n_{k-1} rows merged so far; the right side mirrors that
        merging += sum(2 * prod(modes[: k + 1]) * ranks[k] * ranks[k + 1] for k in range(1, half))
        merging += sum(2 * prod(modes[k:]) * ranks[k] * ranks[k + 1] for k in range(half, len(modes) - 1))
    if layer.thin_is_cheaper(rows):
        return merging + 2 * rows * inner * (n + m)
    return merging + 2 * n * inner * m + 2 * rows * n * m


def _embedding_flops(layer: TTMEmbedding, ids: int) -> int:
    total, merged = 0, layer.merged_cores(ids)
    for k in range(1, layer.order):
        prefixes = prod(layer.vocabulary_modes[: k + 1]) if k < merged else ids
        total += 2 * prefixes * prod(layer.hidden_modes[: k + 1]) * layer.ranks[k] * layer.ranks[k + 1]
    return total


@dataclass(frozen=True)
class ReportRow:
    """What one module stores and computes."""

    layer: str
    format: str
    parameters: int  # the numbers that it holds in memory
    stored_bytes: int  # in the file
    dense_bytes: int  # of the same layer, dense in float32
    flops: int  # of its matrix products

    @property
    def ratio(self) -> float:
        return self.dense_bytes / self.stored_bytes


@dataclass(frozen=True)
class Report:
    """A row for each module that stores something, and one for the header of the file; a table where it is shown."""

    rows: tuple[ReportRow, ...]
    tokens: int

    @property
    def total(self) -> ReportRow:
        """The sums of all rows: `stored_bytes` is the size of the file, `ratio` that of the whole model."""
        return ReportRow("total", "", *(sum(getattr(row, name) for row in self.rows) for name in SUMMED))

    def table(self) -> list[list[str]]:
        """Headings, rows and the total, as text."""
        headings = [*HEADINGS, f"FLOPs for {self.tokens} tokens"]
        rows = [
            [
                row.layer,
                row.format,
                *(f"{getattr(row, name):,}" for name in SUMMED[:3]),
                f"{row.ratio:.1f}×" if row.dense_bytes else "",
                f"{row.flops:,}",
            ]
            for row in (*self.rows, self.total)
        ]
        return [headings, *rows]

    def __str__(self) -> str:
        table = self.table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if k < 2 else cell.rjust(width) for k, (cell, width) in enumerate(zip(row, widths))
            )
            for row in table
        ]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        headings, *rows = ([escape(cell) for cell in row] for row in self.table())
        left = ' style="text-align: left"'

        def line(row: list[str], tag: str) -> str:
            return (
                "<tr>"
                + "".join(f"<{tag}{left if k < 2 else ''}>{cell}</{tag}>" for k, cell in enumerate(row))
                + "</tr>"
            )

        body = "".join(line(row, "td") for row in rows[:-1])
        return f"<table><thead>{line(headings, 'th')}</thead><tbody>{body}{line(rows[-1], 'th')}</tbody></table>"


def report(model: nn.Module, tokens: int = 128) -> Report:
    """What a model weighs on disk and computes in a forward pass over `tokens` tokens, module by module.

    Stored bytes are those of the file that `save` writes, the rows sum to its size. A tied weight counts once, where it
    stands first. FLOPs are those of `flops` in eval mode, each token another word, and of a layer that runs several
    times as often as it runs; attention itself, which has no weights, is not among them.

    Raises:
        ValueError: as `save`, for a compressed model with weights that cannot be stored.
    """
    whole_number("tokens", tokens)
    sizes = stored_sizes(model) if has_plan(model) else _plain_sizes(model)
    header, seen, runs, rows = sizes.pop("header"), set(), _runs(model), []
    for name, module in model.named_modules():
        if name in sizes or isinstance(module, COMPUTING) or is_linear(module):  # a tied head stores nothing
            rows.append(_report_row(name, module, sizes.get(name, 0), tokens * runs.get(name, 1), seen))
    return Report((*rows, ReportRow("header", "safetensors", 0, header, 0, 0)), tokens)


def _runs(model: nn.Module) -> dict[str, int]:
    """How often each module runs in one forward pass, where that is not once."""
    runs = {}
    for name, module in model.named_modules():
        if (count := RUNS.get(type(module).__name__)) is not None:
            runs |= {f"{name}.{inner}" if inner else name: count(module) for inner, _ in module.named_modules()}
    return runs


def _plain_sizes(model: nn.Module) -> dict[str, int]:
    """What `stored_sizes` says of compressed models, for one that has no plan: a plain safetensors file."""
    tensors = dict(model.named_parameters()) | {  # shared ones once
        name: tensor for name, tensor in model.named_buffers() if name in model.state_dict()
    }
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        sizes[module] = sizes.get(module, 0) + tensor.nbytes
    specs = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return {**sizes, "header": header_bytes(specs, {"format": "pt"})}


def _report_row(name: str, module: nn.Module, stored: int, tokens: int, seen: set[int]) -> ReportRow:
    """`seen` are the parameters of rows before: a tied one counts there."""
    own = [parameter for path, parameter in module.named_parameters() if _is_own(path) and id(parameter) not in seen]
    seen |= {id(parameter) for parameter in own}
    parameters = sum(parameter.numel() for parameter in own)
    dense = parameters
    if isinstance(module, TTLinear):
        dense = module.in_features * module.out_features + (0 if module.bias is None else module.out_features)
    elif isinstance(module, TTMEmbedding):
        dense = module.num_embeddings * module.embedding_dim
    counted = isinstance(module, COMPUTING) or any(fits(module) for fits in (is_linear, is_router, is_experts))
    operations = flops(module, tokens, merged=True) if counted else 0
    return ReportRow(name, _format_of(module), parameters, stored, 4 * dense, operations)


def _is_own(path: str) -> bool:
    """Whether a parameter's path inside its module says that it is the module's own, be it under a quantizer."""
    return "." not in path or (path.startswith("parametrizations.") and path.endswith(".original"))


def _format_of(module: nn.Module) -> str:
    """For example "TTLinear rank 12: core 2 bit, bias 8 bit"."""
    words = type(module).__name__.removeprefix("Parametrized")
    if isinstance(module, TTLayer):
        words += f" rank {max(module.ranks)}"
    bits = {}
    for name, quantizer, _ in quantized(module):
        bits[name.rstrip("0123456789")] = 16 if isinstance(quantizer, Float16) else quantizer.recipe.bits
    return f"{words}: {', '.join(f'{name} {width} bit' for name, width in bits.items())}" if bits else words
