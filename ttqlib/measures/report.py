"""`report`: what a model weighs on disk and computes, module by module."""

from dataclasses import dataclass
from html import escape

from torch import nn

from ..inventory.kinds import is_experts, is_linear, is_router
from ..layers.base import TTLayer
from ..layers.embedding import TTMEmbedding, TTMHead
from ..layers.linear import TTLinear
from ..layers.thin import HalfMergedEmbedding
from ..quantizers.fake_quantization import Float16
from ..quantizers.parametrizing import quantized
from ..storage.checkpoint import stored_sizes
from ..storage.files import module_bytes, specs_of
from ..surgery.compress import has_plan
from ..tensors.shapes import whole_number
from .costs import flops

RUNS = {"AlbertLayer": lambda layer: layer.config.num_hidden_layers // layer.config.num_hidden_groups}  # one for many
SUMMED = ("parameters", "stored_bytes", "dense_bytes", "flops")
COMPUTING = (TTLinear, TTMEmbedding, TTMHead, HalfMergedEmbedding)
HEADINGS = ("layer", "format", "parameters", "stored bytes", "dense float32 bytes", "ratio")


@dataclass(frozen=True)
class ReportRow:
    """What one module stores and computes."""

    layer: str
    format: str
    parameters: int  # its numbers, packed or not
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
                f"{row.ratio:.1f}×" if row.dense_bytes and row.stored_bytes else "",  # a tied one is stored elsewhere
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
    return module_bytes(specs_of(tensors), {"format": "pt"})


def _report_row(name: str, module: nn.Module, stored: int, tokens: int, seen: set[int]) -> ReportRow:
    """`seen` are the parameters of rows before: a tied one counts there."""
    own = [parameter for path, parameter in module.named_parameters() if _is_own(path)]
    own += [latent for _, _, latent in quantized(module)]  # of a model that is packed in memory they are no parameters
    own = [parameter for number, parameter in {id(one): one for one in own}.items() if number not in seen]
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
