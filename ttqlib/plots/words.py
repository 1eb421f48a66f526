"""A panel in words, read off what is drawn in it: for those who cannot see a figure."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

LISTED = 6  # points of a series that are all read out; of more, the ends, the middle and what goes beyond the ends
BEYOND = 0.02  # of the range: how far an extreme has to lie beyond both ends to be read out


def panel(axes: Axes) -> str:
    """Its title, what is drawn upright against what is drawn level, and each series with its numbers."""
    names = [_with_scale(axis) for axis in (axes.yaxis, axes.xaxis)]
    head = ": ".join(filter(None, (axes.get_title(), " against ".join(filter(None, names)))))
    series = [*_bars(axes), *_measured(axes), *_lines(axes), *_clouds(axes)]
    return ". ".join(filter(None, (head, "; ".join(series)))).replace("\n", " ")


def number(value: float) -> str:
    """Three digits, and whole thousands."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _with_scale(axis: Axis) -> str:
    name = axis.get_label().get_text()
    return f"{name} (logarithmic)" if name and axis.get_scale() == "log" else name


def _at(axis: Axis, value: float) -> str:
    """The name that stands on the axis at this value, or the number."""
    if isinstance(axis.get_major_formatter(), StrCategoryFormatter):
        return axis.get_major_formatter().format_ticks([value])[0]
    if isinstance(axis.get_major_locator(), FixedLocator):
        places = [float(place) for place in axis.get_ticklocs()]
        if value in places:
            return axis.get_majorticklabels()[places.index(value)].get_text() or number(value)
    return number(value)


def _bars(axes: Axes) -> Iterator[str]:
    for drawn in axes.containers:
        if isinstance(drawn, BarContainer):
            upright = drawn.orientation == "vertical"
            places = [
                bar.get_x() + bar.get_width() / 2 if upright else bar.get_y() + bar.get_height() / 2 for bar in drawn
            ]
            names = [_at(axes.xaxis if upright else axes.yaxis, round(place)) for place in places]
            values = [f"{name} {number(value)}" for name, value in zip(names, drawn.datavalues, strict=True)]
            yield _labelled(drawn.get_label(), ", ".join(values))


def _measured(axes: Axes) -> Iterator[str]:
    """Points with their deviations: on lines that have names, what each line has there; else y at x."""
    for drawn in axes.containers:
        if isinstance(drawn, ErrorbarContainer):
            points = list(map(tuple, drawn.lines[0].get_xydata()))
            if isinstance(axes.yaxis.get_major_locator(), FixedLocator) and not axes.yaxis.get_label().get_text():
                said = ", ".join(f"{_at(axes.yaxis, y)} {number(x)}" for x, y in points)
            else:
                said = _course(axes, sorted(points))
            yield _labelled(drawn.get_label(), said)


def _lines(axes: Axes) -> Iterator[str]:
    measured = {drawn.lines[0] for drawn in axes.containers if isinstance(drawn, ErrorbarContainer)}
    for line in axes.get_lines():
        if line not in measured and not line.get_label().startswith("_"):
            points = list(map(tuple, line.get_xydata()))
            yield _labelled(line.get_label(), _mark(axes, line, points) or _course(axes, points))


def _mark(axes: Axes, line: Line2D, points: Sequence[tuple[float, float]]) -> str:
    """Of an upright line across the panel, where it stands."""
    across = line.get_transform() == axes.get_xaxis_transform(which="grid")
    return f"an upright line at {_at(axes.xaxis, points[0][0])}" if across else ""


def _clouds(axes: Axes) -> Iterator[str]:
    for cloud in axes.collections:
        label = str(cloud.get_label())
        if label and not label.startswith("_"):
            yield _labelled(label, _course(axes, sorted(map(tuple, cloud.get_offsets().tolist()))))


def _course(axes: Axes, points: Sequence[tuple[float, float]]) -> str:
    """A few points one by one; of many the first, the middle, the last, and extremes that lie between them."""
    told = list(points)
    if len(points) > LISTED:
        values = [y for _, y in points]
        margin = BEYOND * (max(values) - min(values))
        between = [
            (extreme, points[values.index(value)])
            for extreme, value, beyond in (
                ("lowest", min(values), min(values) < min(values[0], values[-1]) - margin),
                ("highest", max(values), max(values) > max(values[0], values[-1]) + margin),
            )
            if beyond
        ]
        ends = f"from {_point(axes, points[0])} over {_point(axes, points[len(points) // 2])} "
        ends += f"to {_point(axes, points[-1])}"
        return ", ".join([ends, *(f"{extreme} {_point(axes, point)}" for extreme, point in between)])
    return ", ".join(_point(axes, point) for point in told)


def _point(axes: Axes, point: tuple[float, float]) -> str:
    return f"{number(point[1])} at {_at(axes.xaxis, point[0])}"


def _labelled(label: str, said: str) -> str:
    return said if str(label).startswith("_") else f"{label}: {said}"
