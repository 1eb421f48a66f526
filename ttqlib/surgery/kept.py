"""Which layers a smaller model keeps, and which of its teacher's layers each of them then belongs to: lists of numbers.

Places are counted from 0, as in the names of transformers' modules (`encoder.layer.0`). Hidden states are counted from
0 too, but number 0 is what the embeddings give: layer k gives number k + 1. `layer_map` is there so that nobody has to
remember that.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..tensors.shapes import whole_number

RULES = ("every other", "every other from 0", "first", "last", "ends")


def kept_layers(depth: int, count: int, rule: str | Mapping[int, float] = "every other") -> list[int]:
    """The places, from 0 and in order, of the `count` layers of `depth` that are kept.

    Args:
        rule: "every other": evenly spread, the last layer of each share, 1 3 5 7 9 11 of 12 for 6: the start of XTC's
            6-layer students (arXiv 2206.01859; the list stands in DeepSpeed's tutorial on compression, §3.2.1).
            "every other from 0": the first layer of each share, 0 2 4 6 8 10; DistilBERT takes one layer of two (Sanh
            et al., arXiv 1910.01108, §3). "first", "last", "ends": the layers next to the embeddings, those next to
            the head, or both, so that the middle goes; top, bottom and symmetric dropping of Poor Man's BERT (Sajjad
            et al., arXiv 2004.03844), whose alternate dropping is "every other".
            A mapping from each place to a number, as `ttq.layer_costs` and `ttq.layer_similarity` return it: the
            places that come first in it are dropped first.

    Raises:
        ValueError: an unknown rule, a mapping of other places, or more layers than there are, or none.
    """
    depth, count = whole_number("depth", depth), whole_number("count", count)
    if count > depth:
        raise ValueError(f"of {depth} layers 1 to {depth} can be kept, got count={count}")
    if isinstance(rule, Mapping):
        if sorted(rule) != list(range(depth)):
            raise ValueError(f"the mapping must name each of the places 0 … {depth - 1} once, got {list(rule)}")
        return sorted(list(rule)[depth - count :])
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))} or a mapping of places, got {rule!r}")
    near = {"first": count, "last": 0, "ends": (count + 1) // 2}  # how many next to the embeddings
    if rule in near:
        return [*range(near[rule]), *range(depth - count + near[rule], depth)]
    if rule == "every other from 0":
        return [share * depth // count for share in range(count)]
    return [share * depth // count - 1 for share in range(1, count + 1)]


def layer_map(keep: Sequence[int]) -> dict[int, int]:
    """`layer_map` of `DistillTrainer` for a student of the layers `keep` of its teacher, and that teacher.

    Hidden state 0, what the embeddings give, belongs to 0; layer k of the student, counted from 1, to the layer that
    it was copied from: `layer_map([1, 3])` is {0: 0, 1: 2, 2: 4}.

    Raises:
        ValueError: as `reduce_layers`, of places.
    """
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(checked_places(keep), 1)}


def checked_places(keep: Sequence[int], depth: int | None = None) -> list[int]:
    """The places as whole numbers, if layers of these places can be kept.

    Raises:
        ValueError: there are none, one is no whole number or of no layer, one comes twice, or they are not in order.
    """
    example = "such as keep=[1, 3, 5], counted from 0"
    if isinstance(keep, str | bytes) or not hasattr(keep, "__iter__"):
        raise ValueError(f"keep must be a list of places, {example}, got {keep!r}")
    places = [whole_number("each place in keep", place, minimum=0) for place in keep]
    if not places:
        raise ValueError(f"keep is empty, but a model needs a layer: {example}")
    wrong = [place for place in places if depth is not None and place >= depth]
    if wrong:
        there = "" if depth is None else f" … {depth - 1}"
        raise ValueError(f"there is no layer {wrong[0]}: the places are 0{there}, got keep={places}")
    if twice := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"layer {twice[0]} cannot be kept twice, got keep={places}")
    if any(lower > upper for lower, upper in pairwise(places)):
        raise ValueError(f"layers keep their order, got keep={places}: write {sorted(places)}")
    return places
