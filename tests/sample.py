"""A small chapter that passes every check, for tests to spoil. It needs no library; its outputs are typed in."""

from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

WIDGET = "application/vnd.jupyter.widget-view+json"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="  # one pixel

OPENING = """# 1 · Doubling: what does twice as much look like?

| | |
|---|---|
| **You will be able to** | double a number and say what came out |
| **You need** | nothing |
| **It runs in** | about 2 s on two CPU cores |
| **Before / after** | [2 · Halving](02_halving.ipynb) · [a page](https://example.org/a/page) |
"""

STAND_IN = """from types import SimpleNamespace


class CheckFailed(AssertionError):
    def _render_traceback_(self):
        return [f"CheckFailed: {self}"]


def doubled(function):
    try:
        answer = function(3)
    except NotImplementedError:
        raise CheckFailed("not written yet") from None
    if answer != 6:
        raise CheckFailed(f"twice 3 is 6, not {answer}")


explore = SimpleNamespace(doubling=lambda: "a widget")
ttq = SimpleNamespace(check=SimpleNamespace(doubled=doubled), explore=explore)"""

FOLDS = """<details><summary>Hint</summary>Add it to itself.</details>
<details><summary>Solution</summary>

```python
def {name}(x):
    return x + x
```
</details>"""

FILLER = "These words stand for the prose that a chapter is made of, " * 5


def prose(text: str):
    return new_markdown_cell(f"{text}\n\n{FILLER}")


def code(source: str, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def printed(text: str):
    return new_output("stream", name="stdout", text=text)


def picture():
    shown = {"image/png": DOT, "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_output("display_data", shown, metadata={"image/png": {"alt": "Twice against once: 2 at 1."}})


def exercise(name: str) -> list:
    line = "CheckFailed: not written yet"
    failed = new_output("error", ename="CheckFailed", evalue="not written yet", traceback=[line])
    return [
        prose(f"**{name}** (●●○○○, 10 minutes). Write it."),
        code(f'def {name}(x):\n    raise NotImplementedError("your turn")', tags=["exercise"]),
        code(f"ttq.check.doubled({name})", failed, tags=["raises-exception"]),
        new_markdown_cell(FOLDS.format(name=name)),
    ]


def chapter():
    widget = {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": "4" * 32}, "text/plain": "VBox()"}
    notebook = new_notebook(
        cells=[
            new_markdown_cell(OPENING),
            prose("## Twice one"),
            code(STAND_IN),
            code("print(f'twice a third is {2 / 3:.4f}')", printed("twice a third is 0.6667\n")),
            prose("## Explore"),
            code("ttq.explore.doubling()", new_output("execute_result", widget)),
            code("'a picture'", picture()),
            prose("## Exercises"),
            *exercise("double"),
            *exercise("twice"),
            prose("## Recap and further reading"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    renumber(notebook)
    return notebook


def renumber(notebook) -> None:
    """Execution counts as a fresh run would leave them."""
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(ran, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def write(notebook, path: Path) -> Path:
    """As it is, faults and all: nbformat.write would repair some of them."""
    path.write_text(writes(notebook), encoding="utf-8")
    return path
