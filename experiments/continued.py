"""The same ten prompts, gone on with greedily by a float model and by two of few bits: texts, side by side.

    python experiments/continued.py                               # float, round-to-nearest, clip+gptq; three minutes
    python experiments/continued.py --recipe teq+clip+rounding    # another best one, of teq.py
    python experiments/continued.py --record                      # into data/results/continued.json

The models are those that teq.py keeps, 3 bits in groups of 64: what is missing is named with the command that makes it.
The prompts were written here; nothing was tuned on them. A row has all texts of a model, and `tokens_alike`, how many
tokens go by, on average, before its text leaves that of the float model. A few words are no score: perplexity is.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import teq
import torch
from results import RUNS, add_options, check_runs, place, record, row_of
from runs import fingerprint
from torch import nn
from torch.nn.utils import parametrize
from transformers import LlamaForCausalLM
from transformers.utils import logging

import ttqlib as ttq

TASK, SPLIT, NEW = "ten prompts", "continued", 32
FEW = {"bits": 3, "group": "64"}
PROMPTS = (
    "The old lighthouse keeper climbed the stairs and",
    "Water boils at a lower temperature on a mountain because",
    "To make a good cup of tea, first",
    "In Python, a list differs from a tuple because",
    "My grandmother kept her letters in a tin box, and every winter",
    "The three largest planets of the solar system are",
    "A triangle with sides of 3, 4 and 5 has an area of",
    "Dear neighbour, I am writing to you because the dog",
    "When the train stopped in the middle of the forest,",
    "The main reason why people sleep is",
)


def kept(runs: Path, recipe: str | None) -> Path:
    """Where teq.py keeps the model of this recipe; None stands for the float model.

    Raises:
        FileNotFoundError: there is none.
    """
    settings = teq.Compression() if recipe is None else teq.Compression(**FEW, recipe=recipe)
    folder = runs / settings.folder / "seed-0" / "model"
    if not (folder / "config.json").exists():
        how = "" if recipe is None else f" --bits {FEW['bits']} --group {FEW['group']} --recipe {recipe}"
        raise FileNotFoundError(f"this model is not there yet: type python experiments/teq.py{how}")
    return folder


@torch.no_grad()
def continuations(model: nn.Module, tokenizer, new: int = NEW) -> list[list[int]]:
    """The likeliest `new` tokens after each prompt, or fewer where one ends the text."""
    found = []
    with parametrize.cached():
        for prompt in PROMPTS:
            asked = tokenizer(prompt, return_tensors="pt")
            said = model.generate(**asked, max_new_tokens=new, do_sample=False)[0]
            found.append(said[asked["input_ids"].shape[1] :].tolist())
    return found


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common from their beginning on."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def row(
    method: str, bits: int, said: list[list[int]], plain: list[list[int]], sizes: tuple[int, int], tokenizer
) -> dict:
    shared = [alike(own, other) for own, other in zip(said, plain)]
    texts = [
        {"prompt": prompt, "continuation": tokenizer.decode(ids, skip_special_tokens=True)}
        for prompt, ids in zip(PROMPTS, said)
    ]
    made = row_of({"tokens_alike": [sum(shared) / len(shared)]}, None, bits, [0], *sizes)
    settings = {"new": NEW} | (FEW if bits < 32 else {})
    return made | {"task": TASK, "split": SPLIT, "method": method, "settings": settings, "texts": texts}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="clip+gptq", help="of teq.py, beside round-to-nearest")
    parser.add_argument("--models", type=Path, default=RUNS / "teq", help="where teq.py keeps its runs")
    add_options(parser, "continued")
    options = parser.parse_args(arguments)
    check_runs(parser, options)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    methods = {"dense": None, "rtn": "rtn", options.recipe: options.recipe}
    try:
        teq.Compression(**FEW, recipe=options.recipe)  # which refuses what is no recipe
        folders = {method: kept(options.models, recipe) for method, recipe in methods.items()}
    except (ValueError, FileNotFoundError) as problem:
        parser.error(str(problem))
    tokenizer, plain = ttq.smollm2_tokenizer(), None
    sizes = {method: sum(one.stat().st_size for one in folder.iterdir()) for method, folder in folders.items()}
    for method, folder in folders.items():
        began = time.perf_counter()
        said = continuations(LlamaForCausalLM.from_pretrained(folder).eval(), tokenizer)
        plain = plain or said
        bits = 32 if method == "dense" else FEW["bits"]
        found = row(method, bits, said, plain, (sizes[method], sizes["dense"]), tokenizer)
        digest = fingerprint({SPLIT: list(PROMPTS)})
        record(place("continued", options), found, time.perf_counter() - began, TASK, digest)
        print(line(found))


def line(row: Mapping) -> str:
    texts = "\n".join(f"  {one['prompt']} …{one['continuation']!r}" for one in row["texts"])
    return f"{row['method']}: {row['metrics']['tokens_alike']['mean']:.1f} tokens as float\n{texts}"


if __name__ == "__main__":
    main()
