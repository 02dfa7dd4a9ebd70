"""Describes a matplotlib figure by what it shows, in the words of E2B's clients."""

import datetime
import math
import re

from matplotlib import colors, dates
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.patches import Wedge

MAX_POINTS = 100_000
_UNIT = re.compile(r"\s*[(\[]([^()\[\]]+)[)\]]\s*$")


def describe_figure(figure):
    """One chart, a `superchart` of several, or None where there is nothing to tell."""
    charts = [chart for chart in map(_describe_axes, figure.get_axes()) if chart is not None]
    if len(charts) == 0:
        return None
    if len(charts) == 1:
        return charts[0]
    return {"type": "superchart", "title": _figure_title(figure), "elements": charts}


def _figure_title(figure):
    title = getattr(figure, "_suptitle", None)
    return title.get_text() if title is not None else ""


def _describe_axes(axes):
    if not axes.has_data() and not axes.patches:
        return None
    for describe in (_pie, _boxes, _bars, _scatter, _lines):
        chart = describe(axes)
        if chart is not None:
            return {**chart, "title": axes.get_title()}
    return {"type": "unknown", "elements": [], "title": axes.get_title()}


def _pie(axes):
    wedges = [patch for patch in axes.patches if isinstance(patch, Wedge)]
    if not wedges:
        return None
    labels = [text.get_text() for text in axes.texts]
    # With percentages there are two texts to each wedge: its label, then the share.
    step = 2 if len(labels) >= 2 * len(wedges) and all("%" in text for text in labels[1::2][: len(wedges)]) else 1
    elements = [
        {
            "label": wedge.get_label() or _at(labels, index * step),
            "angle": _number(abs(wedge.theta2 - wedge.theta1)),
            "radius": _number(wedge.r),
        }
        for index, wedge in enumerate(wedges)
    ]
    return {"type": "pie", "elements": elements}


def _at(items, index):
    return items[index] if index < len(items) else ""


def _bars(axes):
    containers = [one for one in axes.containers if isinstance(one, BarContainer) and len(one.patches) > 0]
    if not containers:
        return None
    elements = []
    for index, container in enumerate(containers):
        is_upright = container.orientation != "horizontal"
        group = _label(container.get_label()) or (f"Group {index}" if len(containers) > 1 else "")
        for patch in container.patches:
            elements.append(
                {
                    "label": _tick_label(axes.xaxis if is_upright else axes.yaxis, _middle(patch, is_upright)),
                    "value": _number(patch.get_height() if is_upright else patch.get_width()),
                    "group": group,
                }
            )
    return {"type": "bar", "elements": elements, **_labels(axes)}


def _middle(patch, is_upright):
    if is_upright:
        return patch.get_x() + patch.get_width() / 2
    return patch.get_y() + patch.get_height() / 2


def _tick_label(axis, position):
    """What is written at the nearest tick, if a name stands there; else the position itself."""
    ticks = list(zip(axis.get_majorticklocs(), [text.get_text() for text in axis.get_majorticklabels()]))
    named = [(abs(place - position), text) for place, text in ticks if text]
    if named:
        distance, text = min(named)
        if distance <= 0.5:
            return text
    return str(_coordinate(axis, position))


def _boxes(axes):
    """Five lines make a box: the box itself or a patch, two whiskers, two caps, and its median; outliers are loose points."""
    if len(axes.lines) < 5:
        return None
    for place, value in ((0, 1), (1, 0)):
        lines = [(line, [_floats(line, place), _floats(line, value)]) for line in axes.lines]
        elements = [_box(axes, box, lines, place) for box in _box_outlines(axes, lines, place, value)]
        if elements and all(element is not None for element in elements):
            return {"type": "box_and_whisker", "elements": elements, **_labels(axes)}
    return None


def _floats(line, index):
    return [float(number) for number in line.get_data(orig=False)[index]]


def _box_outlines(axes, lines, place, value):
    """Closed rectangles as [places, values]: lines of five points, or patches where the boxes are filled."""
    found = [points for _, points in lines if _is_closed(points)]
    if found:
        return found
    for patch in axes.patches:
        vertices = patch.get_path().vertices if type(patch).__name__ == "PathPatch" else ()
        if len(vertices) >= 5:
            found.append([[float(point[place]) for point in vertices[:5]], [float(point[value]) for point in vertices[:5]]])
    return found


def _is_closed(points):
    places, values = points
    return len(places) == 5 and places[0] == places[4] and values[0] == values[4] and len(set(places)) == 2


def _box(axes, box, lines, place):
    low, high = min(box[0]), max(box[0])
    first, third = min(box[1]), max(box[1])
    inner = [(line, places, values) for line, (places, values) in lines if _is_within(places, low, high)]
    drawn = [(places, values) for line, places, values in inner if _is_drawn(line)]
    outliers = [value for line, _, values in inner if not _is_drawn(line) for value in values]
    medians = [
        values[0]
        for places, values in drawn
        if len(values) == 2 and values[0] == values[1] and first <= values[0] <= third and max(places) - min(places) >= (high - low) * 0.99
    ]
    ends = [value for _, values in drawn for value in values]
    if not medians or not ends:
        return None
    return {
        "label": _tick_label(axes.xaxis if place == 0 else axes.yaxis, (low + high) / 2),
        "min": _number(min(ends)),
        "first_quartile": _number(first),
        "median": _number(medians[0]),
        "third_quartile": _number(third),
        "max": _number(max(ends)),
        "outliers": [_number(value) for value in outliers],
    }


def _is_within(places, low, high):
    return len(places) > 0 and low - 1e-9 <= min(places) and max(places) <= high + 1e-9


def _is_drawn(line):
    return line.get_linestyle() not in ("None", "none", "", " ")


def _scatter(axes):
    collections = [one for one in axes.collections if isinstance(one, PathCollection)]
    if not collections:
        return None
    elements = []
    for index, collection in enumerate(collections):
        points = collection.get_offsets()[:MAX_POINTS]
        label = _label(collection.get_label()) or _color_name(collection) or f"Group {index}"
        elements.append(_points(axes, label, [point[0] for point in points], [point[1] for point in points]))
    return {"type": "scatter", "elements": elements, **_scales(axes), **_labels(axes)}


def _color_name(collection):
    faces = collection.get_facecolor()
    return colors.to_hex(faces[0]) if len(faces) == 1 else ""


def _lines(axes):
    if len(axes.lines) == 0:
        return None
    elements = [
        _points(axes, _label(line.get_label()) or f"Line {index}", *line.get_data(orig=False))
        for index, line in enumerate(axes.lines)
    ]
    return {"type": "line", "elements": elements, **_scales(axes), **_labels(axes)}


def _points(axes, label, xs, ys):
    pairs = zip(list(xs)[:MAX_POINTS], list(ys)[:MAX_POINTS])
    return {"label": label, "points": [[_coordinate(axes.xaxis, x), _coordinate(axes.yaxis, y)] for x, y in pairs]}


def _label(text):
    """Names that begin with an underscore are matplotlib's own."""
    return "" if text is None or str(text).startswith("_") else str(text)


def _labels(axes):
    x, y = axes.get_xlabel(), axes.get_ylabel()
    return {"x_label": x or None, "y_label": y or None, "x_unit": _unit(x), "y_unit": _unit(y)}


def _unit(label):
    found = _UNIT.search(label)
    return found.group(1) if found else None


def _scales(axes):
    scales = {}
    for name, axis, limits in (("x", axes.xaxis, axes.get_xlim()), ("y", axes.yaxis, axes.get_ylim())):
        low, high = sorted(limits)
        ticks = [place for place in axis.get_majorticklocs() if low <= place <= high]
        scales[f"{name}_ticks"] = [_coordinate(axis, place) for place in ticks]
        scales[f"{name}_tick_labels"] = [str(text) for text in axis.get_major_formatter().format_ticks(ticks)]
        scales[f"{name}_scale"] = _scale(axis)
    return scales


def _scale(axis):
    if _is_date(axis):
        return "datetime"
    if type(axis.converter).__name__ == "StrCategoryConverter":
        return "categorical"
    return axis.get_scale()


def _is_date(axis):
    return isinstance(axis.converter, (dates.DateConverter, dates._SwitchableDateConverter))


def _coordinate(axis, value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if _is_date(axis):
        return dates.num2date(value).isoformat()
    return _number(value)


def _number(value):
    """JSON has neither NaN nor infinity."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if math.isnan(number) or math.isinf(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
