"""The figures of the report as inline SVG. The same input gives the same bytes.

CSS classes of the page set colours and dashes, so that a figure fits light and dark mode. Lines also differ in dash and
marker, by their number in `STYLES`, to be distinguishable without colour.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from cxr.evaluation.schema import Interval
from cxr.reporting.text import format_ci

# Styles of lines and markers: the CSS classes line-0 and mark-0 to line-5 and mark-5.
STYLES = 6
# SVG user units; the page scales figures.
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 26, 194, 18, 158, 200, 188
_STRIP_WIDTH, _STRIP_HEIGHT, _STRIP_MARGIN = 200, 22, 10
_STEPS = (1, 2, 5, 10, 20)
_SMALLEST_SPAN = 1e-6  # values that differ by less are treated as equal


class Axis(NamedTuple):
    """An axis from `low` to `high` with labelled `ticks`."""

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def position(self, value: float, start: float, end: float) -> float:
        """Return the coordinate of `value` on an axis from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


class Line(NamedTuple):
    """A line through points, in order."""

    x: Sequence[float]
    y: Sequence[float]
    style: int = 0  # below STYLES
    has_markers: bool = False


class Panel(NamedTuple):
    """The contents of a pair of axes."""

    x: Axis
    y: Axis
    lines: Sequence[Line]
    point: tuple[float, float] | None = None  # shown as a ring
    has_diagonal: bool = False  # y = x


def unit_axis(name: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(name, 0, 1, (0, 0.5, 1))


def fit_axis(name: str, values: Iterable[float], most: int = 4) -> Axis:
    """Return an axis that spans the finite `values`, with round ticks, at most `most` + 1, and ends on ticks."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = high - low if high - low > _SMALLEST_SPAN else max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (multiple * power for multiple in _STEPS):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first <= most:
            break
    ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Axis(name, ticks[0], ticks[-1], ticks)


def draw_panel(panel: Panel, label: str) -> Markup:
    """Draw lines on a pair of axes; `label` describes the figure for screen readers."""
    parts = [_frame(panel.x, panel.y)]
    if panel.has_diagonal:
        parts.append(tag("path", class_="chance", d=f"M{_LEFT} {_BOTTOM}L{_RIGHT} {_TOP}"))
    parts += [_line(panel, line) for line in panel.lines]
    if panel.point:
        parts.append(marker(3, *_at(panel, *panel.point)))
    return _figure("panel", _WIDTH, _HEIGHT, label, parts)


def draw_interval(interval: Interval, axis: Axis, reference: float | None = None) -> Markup:
    """Draw a row of an interval plot: a square at the value, a line from low to high, a dotted line at `reference`."""
    value, low, high = interval.value, interval.low, interval.high
    middle, parts = _STRIP_HEIGHT / 2, []
    if reference is not None:
        x = _along(axis, reference)
        parts.append(tag("path", class_="chance", d=f"M{x} 0V{_STRIP_HEIGHT}"))
    if low is not None and high is not None:
        ends = f"M{_along(axis, low)} {middle}H{_along(axis, high)}"
        caps = "".join(f"M{_along(axis, end)} {middle - 4}v8" for end in (low, high))
        parts.append(tag("path", class_="ci", d=ends + caps))
    if value is not None:
        parts.append(marker(1, float(_along(axis, value)), middle))
    return _figure("strip", _STRIP_WIDTH, _STRIP_HEIGHT, format_ci(interval), parts)


def draw_scale(axis: Axis) -> Markup:
    """Draw the axis of the rows of `draw_interval`, for the head of their column."""
    texts = [
        tag("text", f"{tick:g}", x=_along(axis, tick), y=_STRIP_HEIGHT - 8, text_anchor="middle") for tick in axis.ticks
    ]
    ticks = [tag("path", class_="axis", d=f"M{_along(axis, tick)} {_STRIP_HEIGHT - 4}v4") for tick in axis.ticks]
    return _figure("strip", _STRIP_WIDTH, _STRIP_HEIGHT, f"{axis.name}, {axis.low:g} to {axis.high:g}", texts + ticks)


def draw_legend_key(style: int, *, has_markers: bool = True) -> Markup:
    """Draw the symbol of a line for a legend; hidden from screen readers, which read the text beside it."""
    line = tag("path", class_=f"line line-{style}", d="M2 7H34")
    markers = [marker(style, 18, 7)] if has_markers else []
    return tag("svg", line, *markers, class_="key", viewBox="0 0 36 14", aria_hidden="true")


def marker(style: int, x: float, y: float) -> Markup:
    """Draw a disc, square, triangle, ring, cross or plus at (x, y)."""
    shapes = (
        f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
        f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
        f"M{x:.1f} {y - 3.6:.1f}l3.6 6.4h-7.2z",
        f"M{x - 3.4:.1f} {y:.1f}a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
        f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6",
        f"M{x - 4:.1f} {y:.1f}h8m-4 -4v8",
    )
    return tag("path", class_=f"mark mark-{style}", d=shapes[style])


def tag(name: str, *content: str, **attributes: object) -> Markup:
    """Return an element; text that is not Markup is escaped.

    In the names of attributes, `_` becomes `-`, and a trailing `_` is removed.
    """
    escaped = (Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(escaped), Markup("").join(content))  # noqa: S704 (names of elements are constants)


def _figure(kind: str, width: int, height: int, label: str, parts: Iterable[Markup]) -> Markup:
    return tag("svg", *parts, class_=kind, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _frame(x: Axis, y: Axis) -> Markup:
    """Draw both axes with ticks, tick labels and names."""
    parts = [tag("path", class_="axis", d=f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}")]
    for tick in x.ticks:
        position = x.position(tick, _LEFT, _RIGHT)
        parts.append(tag("text", _short(tick), x=f"{position:.1f}", y=_BOTTOM + 12, text_anchor="middle"))
    for tick in y.ticks:
        position = y.position(tick, _BOTTOM, _TOP)
        parts.append(tag("path", class_="rule", d=f"M{_LEFT} {position:.1f}H{_RIGHT}"))
        parts.append(tag("text", _short(tick), x=_LEFT - 5, y=f"{position + 3:.1f}", text_anchor="end"))
    parts.append(tag("text", x.name, x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 4, text_anchor="middle"))
    parts.append(tag("text", y.name, x=2, y=9))
    return Markup("").join(parts)


def _line(panel: Panel, line: Line) -> Markup:
    """Draw a line, interrupted at points that are not finite."""
    path, markers, is_joined = [], [], False
    for x, y in zip(line.x, line.y, strict=True):
        is_finite = math.isfinite(x) and math.isfinite(y)
        if is_finite:
            across, down = _at(panel, x, y)
            path.append(f"{'L' if is_joined else 'M'}{across:.1f} {down:.1f}")
            markers.append(marker(line.style, across, down))
        is_joined = is_finite
    drawn = tag("path", class_=f"line line-{line.style}", d="".join(path))
    return Markup("").join([drawn, *(markers if line.has_markers else [])])


def _at(panel: Panel, x: float, y: float) -> tuple[float, float]:
    return panel.x.position(x, _LEFT, _RIGHT), panel.y.position(y, _BOTTOM, _TOP)


def _along(axis: Axis, value: float) -> str:
    """Return the coordinate of `value` in a row, clipped to the ends of the axis."""
    inside = min(max(value, axis.low), axis.high)
    return f"{axis.position(inside, _STRIP_MARGIN, _STRIP_WIDTH - _STRIP_MARGIN):.1f}"


def _short(tick: float) -> str:
    return f"{tick:g}"
