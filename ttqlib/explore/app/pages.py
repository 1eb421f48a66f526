"""What the app says, as HTML: pure functions of numbers, in the colours of the page's theme."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ...measures.roofline import Machine
from .costs import TOKENS, Cost
from .evidence import MARKS, Evidence, Quality
from .layers import Layers
from .measured import Measured

OWN = "The ring and the upright line are this plan; a dashed line, if there is one, is the plan put beside it."
EDGE = "A dot on the lower edge of the picture is 12 points or more behind the dense model. Dashed: dense, and 1 less."
SIGNS = {mark: text[0] for mark, text in MARKS.items()}
BUDGETS = (100, 150, 200, 250, 300, 400, 600, 1000, 2000, 3000, 5000)  # kB


def size(stored_bytes: float) -> str:
    """Bytes as somebody says them."""
    if stored_bytes >= 1e9:
        return f"{stored_bytes / 1e9:,.2f} GB"
    return f"{stored_bytes / 1e6:,.1f} MB" if stored_bytes >= 1e6 else f"{stored_bytes / 1e3:,.1f} kB"


def times(ratio: float) -> str:
    """How many times smaller."""
    return f"{ratio:.1f}×" if ratio < 20 else f"{ratio:.0f}×"


def quality_text(evidence: Evidence | None, quality: Quality | None) -> str:
    """What is known of a plan's quality, its mark first."""
    if evidence is None or quality is None:
        return f"{SIGNS['unknown']} quality unknown: no run of this model lies in data/results"
    task, sign = evidence.task, SIGNS[quality.mark]
    if quality.value is None:
        return f"{sign} {task.name} unknown: nothing near this plan was measured"
    error = "" if quality.error is None else f" ± {quality.error:.1f} (its usual error)"
    words = (
        f"{sign} {task.name} {quality.value:.1f} %{error} on {_split(task.chosen_on)}, {quality.mark}, {quality.source}"
    )
    if quality.row is not None:
        words += "; " + ", ".join(
            f"{gap:+.1f} points against dense on {_split(split)}" for split, gap in _gaps(quality.row).items()
        )
    return words


def _gaps(row: Measured) -> dict[str, float]:
    return {split: round(-gap, 1) + 0.0 for split, gap in row.behind.items()}


def _split(name: str) -> str:
    return name.replace("held_out", "held-out rows")  # of SST-2 many are phrases (chapter 8)


def summary(cost: Cost, dense: tuple[int, Cost], machine: Machine, quality: str) -> str:
    """The line above everything: bytes, FLOPs, time, memory, quality. `dense`: bytes of the dense folder, its cost."""
    before, other = dense
    facts = {
        "on disk": f"<b>{size(cost.stored_bytes)}</b>, {times(before / cost.stored_bytes)} smaller than {size(before)} "
        f"({cost.stored_bytes:,} bytes)",
        f"FLOPs for {TOKENS} tokens": f"{cost.flops / 1e9:,.3g} billion, {other.flops / cost.flops:.1f}× fewer",
        "time of its products": f"{_milliseconds(cost, machine)} ms at best on this machine (dense "
        f"{_milliseconds(other, machine)} ms)",
        "memory to train it": f"{size(cost.training_bytes)} with AdamW, without activations (dense "
        f"{size(other.training_bytes)})",
        "quality": escape(quality),
    }
    return "".join(f"<div class='ttq-fact'><b>{name}</b> <span>{text}</span></div>" for name, text in facts.items())


def _milliseconds(cost: Cost, machine: Machine) -> str:
    found = 1e3 * cost.seconds(machine)
    return f"{found:.1f}" if found < 20 else f"{found:,.0f}"


def bars(layers: Layers, plan, cost: Cost, dense: Cost) -> str:
    """A row for each group: what it gets, its bytes before and after, and its share of the whole then and now."""
    lines = []
    for part, after in cost.parts.items():
        before, names = dense.parts[part], layers.groups.get(part, ())
        shared = layers.common(plan, names) if names else None
        told = (
            str(shared) if shared else f"{len(names)} layers, not all alike" if names else _rest_text(part, plan.rest)
        )
        shares = [100 * value / total for value, total in ((before, dense.stored_bytes), (after, cost.stored_bytes))]
        drawn = "".join(
            f"<div class='ttq-bar ttq-{name}' style='width:{max(share, 0.3):.1f}%'></div>"
            for name, share in zip(("before", "after"), shares)
        )
        count = f" ({len(names)})" if names else ""
        cells = [f"<th scope='row'>{part}{count}</th><td>{told}</td>"]
        cells += [f"<td class='ttq-number'>{size(value)}<br><small>{share:.0f} %</small></td>"
                  for value, share in zip((before, after), shares)]  # fmt: skip
        lines.append(f"<tr>{''.join(cells)}<td class='ttq-bars' aria-hidden='true'>{drawn}</td></tr>")
    heads = ["group (layers)", "what it gets", "before", "after"]
    top = "".join(f"<th scope='col'>{head}</th>" for head in heads)
    note = "<small>share: ░ before, █ after</small>"
    return (
        f"<div class='ttq-wide' tabindex='0' role='region' aria-label='bytes by group'><table class='ttq-table'>"
        f"<thead><tr>{top}<td>{note}</td></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _rest_text(part: str, rest: int) -> str:
    if part == "files":
        return "header of the weights, config.json"
    return "norms, biases, what no group holds: " + ("float32" if rest == 32 else f"{rest} bits")


def comparison(pair: Sequence[tuple[Cost, str]], found: Iterable[tuple[str, str, str]], dense_bytes: int) -> str:
    """Two plans side by side, and every difference by name. Each of the pair is its cost and what is known of it."""
    head = "<tr><td></td><th scope='col'>this plan</th><th scope='col'>put beside</th></tr>"
    facts = {
        "on disk": [f"{size(cost.stored_bytes)}, {times(dense_bytes / cost.stored_bytes)}" for cost, _ in pair],
        "FLOPs": [f"{cost.flops / 1e9:,.3g} billion" for cost, _ in pair],
        "quality": [escape(text) for _, text in pair],
    }
    lines = [_row(name, *texts) for name, texts in facts.items()]
    changes = [_row(name, escape(one), escape(other)) for name, one, other in found]
    lines += changes or [_row("differences", "none", "none")]
    return (
        "<div class='ttq-scroll ttq-pair' tabindex='0' role='region' aria-label='two plans'><table class='ttq-table'>"
        f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(name: str, *texts: str) -> str:
    cells = "".join(f"<td>{text}</td>" for text in texts)
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>"


def marks() -> str:
    """What the marks mean."""
    texts = [*MARKS.values(), OWN, EDGE]
    return "".join(f"<div>{escape(text)}</div>" for text in texts)


# ---------------------------------------------------------------------------------------------- the picture of plans


def points(evidence: Evidence) -> list[dict]:
    """Every measured row, for the picture and the table: numbers to sort by, and words."""
    most = max((row.seeds for row in evidence.rows), default=0)
    return [_point(number, row, evidence, most) for number, row in enumerate(evidence.rows)]


def _point(number: int, row: Measured, evidence: Evidence, most: int) -> dict:
    task = evidence.task
    score, once = (row.scores.get(split) for split in (task.chosen_on, task.read_once))
    cells = [
        (size(row.stored_bytes), row.stored_bytes),
        (times(row.ratio), row.ratio),
        (str(row), str(row)),
        (f"{score:.1f}", score),
        (f"{-row.behind[task.chosen_on] + 0.0:+.1f}", -row.behind[task.chosen_on]),
        ("–" if once is None else f"{once:.1f}", -1 if once is None else once),
        ("–" if once is None else f"{-row.behind[task.read_once] + 0.0:+.1f}", -99 if once is None
         else -row.behind[task.read_once]),
        (str(row.seeds), row.seeds),
        (row.how, row.how),
    ]  # fmt: skip
    told = f"{row}: {cells[0][0]}, {cells[1][0]} smaller, {task.name} {score:.1f} % on {_split(task.chosen_on)}"
    told += "" if once is None else f", {once:.1f} % on {task.read_once}"
    return {
        "x": row.stored_bytes,
        "y": score,
        "trial": row.seeds < most,
        "told": f"{told}, {row.seeds} seed{'s' * (row.seeds > 1)}",
        "cells": [text for text, _ in cells],
        "keys": [key for _, key in cells],
    }


def budgets(evidence: Evidence) -> list[tuple[str, int]]:
    """Round sizes and their kilobytes; in each of them some measured plan fits."""
    room = [kilobytes for kilobytes in BUDGETS if 1000 * kilobytes >= evidence.rows[0].stored_bytes]
    return [(size(1000 * kilobytes), kilobytes) for kilobytes in room]


def columns(evidence: Evidence) -> list[str]:
    """The heads of the table of measured plans."""
    task = evidence.task
    scored = [f"{task.name}, %, {_split(task.chosen_on)}", "points against dense"]
    scored += [f"{task.name}, %, {task.read_once}", "points against dense"]
    return ["on disk", "times smaller", "plan", *scored, "seeds", "trained"]


def here(cost: Cost, quality: Quality) -> dict:
    """Where the plan stands in the picture: a line where its quality is unknown."""
    return {"x": cost.stored_bytes, "y": quality.value, "mark": quality.mark, "error": quality.error}


def goal(evidence: Evidence) -> Mapping[str, float]:
    """The score of the dense model on the split of choices."""
    row, split = evidence.rows[0], evidence.task.chosen_on
    return {"dense": row.scores[split] + row.behind[split]}
