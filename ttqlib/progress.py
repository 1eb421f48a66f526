"""A progress bar for work that takes longer than a moment."""

import os

from tqdm.auto import tqdm

DELAY = 2  # seconds before a bar appears


def bar(items=None, delay: float = DELAY, **options) -> tqdm:
    """tqdm's bar over `items`, in a notebook or a terminal, gone when it is done.

    TQDM_DISABLE, tqdm's own switch, turns it off; tqdm's bar for notebooks does not look at it.
    """
    off = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(items, delay=delay, leave=False, disable=off, **options)
