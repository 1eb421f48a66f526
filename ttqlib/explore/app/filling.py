"""A budget filled by `allocate`: the weights of a model are loaded, and every layer is tried on some sentences."""

from collections.abc import Callable

import ipywidgets as widgets
import transformers
from torch import Tensor

from ...allocation.budgets import allocate
from ...allocation.candidates import Candidates, measure_candidates
from ...plans.configs import TTQConfig
from ...tasks.sources import load_task
from ..explorer import stops
from .pages import size
from .sources import Source

TIMES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)  # smaller than the dense model
SENTENCES, BATCH, LONGEST = 128, 32, 64
NO_WEIGHTS = (
    "to fill a budget every layer is tried on sentences, and of this model only the shape is here: choose 'your own' "
    "and open a folder with trained weights and their tokenizer"
)


class Filling(widgets.VBox):
    """A budget and a button that fills it; `found(plan)` is called with the plan.

    `attempt(job)` runs a job that may raise ValueError, and shows why. What the layers of a model could be is measured
    when somebody asks for the first time: seconds for a model of a few megabytes, minutes for one of a hundred.
    """

    def __init__(self, attempt: Callable[[Callable], None], found: Callable[[TTQConfig], None]):
        self.budget, self.button = stops("bytes on disk", [("–", 0)], 0), widgets.Button(description="Fill this budget")
        self.note, self._found, self._measured = widgets.HTML(), found, {}
        self.button.add_class("ttq-fill")
        self.button.on_click(lambda _: attempt(self._fill))
        super().__init__([self.budget, self.button, self.note])

    def show(self, source: Source, dense_bytes: int) -> None:
        """Budgets of this model, from half of its bytes down."""
        self.source, self.note.value, self.button.disabled = source, "", source.loaded is None
        budgets = [(f"{size(dense_bytes / times)}, {times}× smaller", dense_bytes // times) for times in TIMES]
        self.budget.options = budgets[::-1]
        self.budget.value = dense_bytes // 24

    def _fill(self) -> None:
        self.note.value = (
            f"Trying every layer on {SENTENCES} sentences: seconds for a small model, minutes for a large one …"
        )
        try:
            candidates = self._candidates()
            plan = allocate(None, self.budget.value, candidates=candidates)
        finally:
            self.note.value = ""
        self._found(plan)
        self.note.value = (
            f"Filled {size(self.budget.value)}: before any training the answers are predicted to lose "
            f"{candidates.loss(plan):.2g} nats of KL on sentences of the embedded reviews. Chapter 12 says how; "
            "<code>ttq.allocate</code> takes sentences of your own."
        )

    def _candidates(self) -> Candidates:
        key = self.source.key
        if key not in self._measured:
            self._measured[key] = measure_candidates(*with_sentences(self.source))
        return self._measured[key]


def with_sentences(source: Source) -> tuple[transformers.PreTrainedModel, list[dict[str, Tensor]]]:
    """A source's model with its weights, and batches of embedded sentences as its own tokenizer encodes them.

    Raises:
        ValueError: its weights or its tokenizer are not there.
    """
    if source.loaded is None:
        raise ValueError(NO_WEIGHTS)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.key)
        model = source.loaded().eval()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{source.key}: {str(error).splitlines()[0][:200]}") from None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    longest = min(LONGEST, getattr(model.config, "max_position_embeddings", None) or LONGEST)
    texts = list(load_task("reviews")["train"]["sentence"][:SENTENCES])
    how = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
    return model, [dict(tokenizer(texts[start : start + BATCH], **how)) for start in range(0, SENTENCES, BATCH)]
