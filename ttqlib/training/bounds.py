"""What the numbers and words of a schedule may be."""

from math import inf


def entries(value) -> tuple:
    """The entries of a list with one for each stage, or the one value that stands for all."""
    return value if isinstance(value, tuple) else (value,)


def check_choice(name: str, value, allowed) -> None:
    """Raise a ValueError where `value` is none of those that are `allowed`."""
    if value not in allowed or not isinstance(value, type(next(iter(allowed)))):  # 1 equals True, but is no answer
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_number(name: str, value, at_least: float = -inf, above: float = -inf, below: float = inf) -> None:
    """Raise a ValueError where `value` is no number, or lies outside of its bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (at_least <= value < below and above < value):
        bounds = {"of at least": at_least, "above": above, "below": below}
        said = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if abs(bound) < inf)
        raise ValueError(f"{name} must be a number {said}, got {value!r}")
