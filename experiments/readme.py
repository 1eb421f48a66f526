"""Writes the table of README.md between its markers, from data/results/: `python experiments/readme.py`."""

from pathlib import Path

from results import load

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"


def speed_table(rows: list[dict]) -> str:
    """Tensor-train layers beside dense ones, one line a size."""
    dense = {row["task"]: row for row in rows if row["method"] == "dense"}
    lines = [
        "| layer, forward and backward | TT-rank | fewer bytes | faster | memory of a step, dense → TT |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["method"] == "tt":
            before, after = (r["metrics"]["peak_bytes"]["mean"] / 2**20 for r in (dense[row["task"]], row))
            speedup = row["metrics"]["speedup"]
            lines.append(
                f"| {row['task']} | {row['rank']} | {row['ratio']:.0f}× "
                f"| {speedup['mean']:.1f}× ± {speedup['sd']:.1f} | {before:.0f} → {after:.0f} MiB |"
            )
    machines = " and ".join(sorted({row["machine"] for row in rows}))
    note = f"Float32, 1 024 tokens for a linear layer, 2 048 ids for an embedding; on {machines}."
    return "\n".join([*lines, "", note, ""])


def with_table(readme: str, table: str) -> str:
    """`readme` with the text between the markers replaced by `table`."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), speed_table(load("speed"))))
