"""Writes what pages say of data/results/: `python experiments/readme.py`.

That is the table of README.md and those of docs/results.md, each between its markers, and the picture docs/results.svg.
"""

import argparse

import headline
from results import ROOT, load
from tables import TABLES, table

README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"


def tables(rows: dict[str, list[dict]]) -> str:
    """All tables of docs/results.md."""
    return "".join(one(rows[name]) for name, made in TABLES.items() for one in made)


def short_table(rows: dict[str, list[dict]]) -> str:
    """README's table, of a dozen lines."""
    columns = ["task", "model", "bytes", "fewer", "scores", "a sentence"]
    return table(columns, headline.headline(rows), headline.NOTE)


def with_table(page: str, made: str) -> str:
    """`page` with the text between the markers replaced by the table that was made."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + made + END + rest.split(END)[1]


def pages(rows: dict[str, list[dict]]) -> dict:
    """The pages that hold a table, by path, as they must read."""
    made = {README: short_table(rows), RESULTS: tables(rows)}
    return {path: with_table(path.read_text(encoding="utf-8"), text) for path, text in made.items()}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    found = {name: load(name) for name in TABLES}
    for path, text in pages(found).items():
        path.write_text(text, encoding="utf-8")
    headline.draw(found)
