"""The cells of a chapter that its explorer or its exercises need, so that nothing has to wait for the others."""

import ast
from collections.abc import Collection, Mapping

from nbformat import NotebookNode

EXPLORER = "explorer"  # what every chapter calls its explorer
SHORTER = {  # chapter → what its slice does less of: an explorer is tested by it, not the numbers that it shows
    "06_tt_bert": {'tokenized("validation", 48': 'tokenized("validation", 6'},
    "08_layerwise_distillation": {
        "STEPS = 160": "STEPS = 16",
        "range(32 * STEPS)": "range(1000)",
        "[10, 10, 20, 80, 40]": "[1, 1, 2, 8, 4]",
        "step=40": "step=4",
        "batch_size=80": "batch_size=20",
    },
    "10_extreme_compression": {
        "SHORT, LONG = 16, 64": "SHORT, LONG = 2, 4",
        "select(range(300))": "select(range(100))",
        'splits["validation"]': 'splits["validation"].select(range(80))',
    },
    "11_teq": {'BITS, GROUPS = (2, 3, 4), (32, "channel")': "BITS, GROUPS = (3,), (32,)"},
}
ONLY_TELL = {"print", "display"}  # calls that change nothing


def explorer_slice(notebook: NotebookNode) -> NotebookNode:
    """A notebook with the code cells that make `explorer`; the last of them shows it, as in the chapter.

    Raises:
        ValueError: no cell makes `explorer`.
    """
    makers = [place for place, names in _code(notebook).items() if EXPLORER in names.bound]
    if not makers:
        raise ValueError(f"no cell makes {EXPLORER!r}")
    kept = needed_by(notebook, makers[:1], {EXPLORER})
    return NotebookNode({**notebook, "cells": [notebook.cells[place] for place in kept]})


def shortened(notebook: NotebookNode, changes: Mapping[str, str]) -> NotebookNode:
    """The same notebook, each of these words in its code replaced.

    Raises:
        ValueError: words that are not there exactly once, for what stands there now may take long.
    """
    for old, new in changes.items():
        places = [cell for cell in notebook.cells for _ in range(cell.source.count(old))]
        if len(places) != 1:
            raise ValueError(f"{old!r} must stand in the slice once, it is there {len(places)} times")
        places[0].source = places[0].source.replace(old, new)
    return notebook


def needed_by(notebook: NotebookNode, wanted: Collection[int], names: Collection[str] = ()) -> list[int]:
    """The code cells, as places in `notebook.cells`, without which those at `wanted` cannot run; these among them.

    A cell is needed if it binds a name that a later needed cell reads, or may change what such a name stands for: by
    setting a part of it, or in a statement that is a call with the name in it (`ttq.compress_(model, …)`). What is
    left out wrongly fails loudly when the rest is run. `names` are those that are read after the last cell.
    """
    cells = {place: found for place, found in _code(notebook).items() if place <= max(wanted)}
    modules = set().union(*(found.imported for found in cells.values()))  # calling a function of one changes no module
    kept, needed = [], set(names)
    for place, found in reversed(cells.items()):
        if place in wanted or needed & (found.bound | found.touched - modules):
            kept.insert(0, place)
            needed = needed - found.bound | found.free | found.touched
    return kept


def _code(notebook: NotebookNode) -> dict[int, "Names"]:
    return {place: Names(cell.source) for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"}


class Names(ast.NodeVisitor):
    """What a cell does with the names of the notebook, read in the order in which it runs.

    `bound`: gets a value here. `free`: is read before it has one. `touched`: stands for something older that may be
    changed here. `imported`: is bound by an import.
    """

    def __init__(self, source: str):
        self.bound, self.free, self.touched, self.imported = set(), set(), set(), set()
        self.visit(ast.parse(source))

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.free |= {node.id} - self.bound
        else:
            self.bound.add(node.id)

    def visit_Import(self, node):
        names = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        self.bound |= names
        self.imported |= names

    visit_ImportFrom = visit_Import

    def visit_Assign(self, node):
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node):
        self.free |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)} - self.bound
        self.generic_visit(node)

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_Attribute(self, node):
        if not isinstance(node.ctx, ast.Load):
            self._touch(node.value)
        self.generic_visit(node)

    visit_Subscript = visit_Attribute

    def visit_Expr(self, node):
        call = node.value
        if isinstance(call, ast.Call) and not (isinstance(call.func, ast.Name) and call.func.id in ONLY_TELL):
            self._touch(call)
        self.generic_visit(node)

    def _touch(self, changed):
        self.touched |= {name.id for name in ast.walk(changed) if isinstance(name, ast.Name)} - self.bound

    def visit_FunctionDef(self, node):
        """What a function reads, it reads when it is called: names that are its own do not count."""
        self.bound.add(node.name)
        inner = Names(ast.unparse(ast.Module(node.body, [])))
        self.free |= inner.free - inner.bound - _arguments(node) - self.bound
        for part in (*node.decorator_list, node.args, *filter(None, [node.returns])):
            self.visit(part)

    def visit_Lambda(self, node):
        inner = Names(ast.unparse(node.body))
        self.free |= (
            inner.free
            - {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            - self.bound
        )

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        self.bound.add(node.name)

    def _comprehension(self, node):
        """Its variables are its own."""
        inner = Names("")
        for part in node.generators:
            for piece in (part.iter, part.target, *part.ifs):
                inner.visit(piece)
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                inner.visit(getattr(node, name))
        self.free |= inner.free - self.bound

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _arguments(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    return {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
