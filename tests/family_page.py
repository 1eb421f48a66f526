"""The page of families, `docs/families.md`, and a look at all of them in one go.

python -m tests.family_page [part of a name]    tries every step, exports too, and says where the table is wrong
python -m tests.family_page --write             writes the page from the table in tests/families.py
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import transformers

from tests.families import FAMILIES, GROUPS, REASONS, Family
from tests.family_steps import STEPS, expected, fits, outcome

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
MARKS = {"works": "✓", "does not apply": ""}
OPENING = """\
# Families of models

Every row is a class of `transformers`, made small and random; every column is a step of this library. The table is
written by `python -m tests.family_page --write` from `tests/families.py`, and `tests/test_families.py` tries every
cell but most exports: a ✓ is a step that works, a number is one that is refused, in one line and before anything
changes, for the reason below. A refusal that begins to work fails the test as well. An empty cell is a step that the
model has not. An export takes ten seconds: of those that work `make test` tries three, and
`python -m tests.family_page` tries all.
"""


def page() -> str:
    """The text of docs/families.md."""
    reasons = list(dict.fromkeys(reason for family in FAMILIES.values() for reason in family.refused.values()))
    lines = [OPENING, "| step | what must hold |", "|---|---|"]
    lines += [f"| {step} | {function.__doc__.splitlines()[0]} |" for step, function in STEPS.items()]
    for heading, families in GROUPS.items():
        lines += ["", f"## {heading}", "", f"| {' | '.join(['model', *STEPS])} |", f"|---{'|:-:' * len(STEPS)}|"]
        lines += [f"| {' | '.join([family.name, *_marks(family, reasons)])} |" for family in families]
    lines += ["", "## Why a step is refused", ""]
    lines += [f"{number}. {REASONS[reason]}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, ""])


def _marks(family: Family, reasons: list[str]) -> list[str]:
    return [_mark(family, step, reasons) for step in STEPS]


def _mark(family: Family, step: str, reasons: list[str]) -> str:
    if step in family.refused:
        return str(1 + reasons.index(family.refused[step]))
    return MARKS[expected(family, step)]


def main(arguments: list[str]) -> int:
    if "--write" in arguments:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    part = next((argument for argument in arguments if not argument.startswith("--")), "")
    wanted = [step for step in STEPS if step != "export_onnx" or "--quick" not in arguments]
    wrong = works = 0
    for name, family in FAMILIES.items():
        if part not in name:
            continue
        print(name, flush=True)
        for step in wanted:
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                found = outcome(family, step, Path(folder))
            spent = time.process_time() - began
            works += found == "works"
            if not fits(found, expected(family, step)):
                wrong += 1
                print(f"    {step:14} {found}", flush=True)
            if "--times" in arguments:
                print(f"    {step:14} {spent:.2f} s", flush=True)
    print(f"{works} steps work, {wrong} are not what the table says")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
