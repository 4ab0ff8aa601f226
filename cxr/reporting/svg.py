"""The report's figures as small inline SVG, the same bytes for the same numbers.

Colours and dashes are left to the page's classes, so that one figure suits light and dark. Nothing is told by colour
alone: lines differ in dash and mark as well, by their place in `STYLES`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from cxr.evaluation.schema import Interval

# Line 0 is drawn solid with discs, line 1 dashed with rings, and so on: the page's classes line-0, line-1 …
STYLES = 5
# Units of a panel's own drawing; the page scales it.
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 26, 194, 18, 158, 200, 188
_STRIP_WIDTH, _STRIP_HEIGHT, _STRIP_MARGIN = 200, 22, 10
_STEPS = (1, 2, 5, 10, 20)
_SMALLEST_SPAN = 1e-6  # values that differ by less are drawn as equal


class Axis(NamedTuple):
    """A scale from `low` to `high`, with a number at each of `ticks`."""

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float, start: float, end: float) -> float:
        """Where `value` lies when the axis is drawn from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


class Line(NamedTuple):
    """Points in the order in which they are joined."""

    x: Sequence[float]
    y: Sequence[float]
    style: int = 0  # below STYLES
    is_marked: bool = False  # whether each point shows


class Panel(NamedTuple):
    """What one set of axes shows."""

    x: Axis
    y: Axis
    lines: Sequence[Line]
    point: tuple[float, float] | None = None  # a single place that matters
    is_diagonal: bool = False  # whether y = x is drawn, as chance or as perfect calibration


def share_axis(name: str) -> Axis:
    """From 0 to 1."""
    return Axis(name, 0, 1, (0, 0.5, 1))


def fitting_axis(name: str, values: Iterable[float], most: int = 4) -> Axis:
    """An axis that holds all of the finite `values`, with at most `most` + 1 round ticks, its ends among them."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = high - low if high - low > _SMALLEST_SPAN else max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (multiple * power for multiple in _STEPS):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first <= most:
            break
    ticks = tuple(round(place * step, 12) for place in range(first, last + 1))
    return Axis(name, ticks[0], ticks[-1], ticks)


def draw_panel(panel: Panel, label: str) -> Markup:
    """Lines on a pair of axes; `label` is what a reader who cannot see the figure is told."""
    parts = [_frame(panel.x, panel.y)]
    if panel.is_diagonal:
        parts.append(tag("path", class_="chance", d=f"M{_LEFT} {_BOTTOM}L{_RIGHT} {_TOP}"))
    parts += [_line(panel, line) for line in panel.lines]
    if panel.point:
        parts.append(mark(3, *_at(panel, *panel.point)))
    return _figure("panel", _WIDTH, _HEIGHT, label, parts)


def draw_interval(entry: Interval, axis: Axis, reference: float | None = None) -> Markup:
    """A row of an interval plot: a square at the value, a line from low to high, a dash at the `reference`."""
    value, low, high = entry.value, entry.low, entry.high
    middle, parts = _STRIP_HEIGHT / 2, []
    if reference is not None:
        x = _along(axis, reference)
        parts.append(tag("path", class_="chance", d=f"M{x} 0V{_STRIP_HEIGHT}"))
    if low is not None and high is not None:
        ends = f"M{_along(axis, low)} {middle}H{_along(axis, high)}"
        caps = "".join(f"M{_along(axis, end)} {middle - 4}v8" for end in (low, high))
        parts.append(tag("path", class_="reach", d=ends + caps))
    if value is not None:
        parts.append(mark(1, float(_along(axis, value)), middle))
    return _figure("strip", _STRIP_WIDTH, _STRIP_HEIGHT, format_ci(entry), parts)


def draw_scale(axis: Axis) -> Markup:
    """The numbers that the rows of `draw_interval` are read by, for the head of their column."""
    texts = [
        tag("text", f"{tick:g}", x=_along(axis, tick), y=_STRIP_HEIGHT - 8, text_anchor="middle") for tick in axis.ticks
    ]
    ticks = [tag("path", class_="axis", d=f"M{_along(axis, tick)} {_STRIP_HEIGHT - 4}v4") for tick in axis.ticks]
    return _figure("strip", _STRIP_WIDTH, _STRIP_HEIGHT, f"{axis.name}, {axis.low:g} to {axis.high:g}", texts + ticks)


def draw_key(style: int, *, is_marked: bool = True) -> Markup:
    """A sample of a line, to stand before its name; the name says it all, so readers aloud skip the sample."""
    line = tag("path", class_=f"line line-{style}", d="M2 7H34")
    marks = [mark(style, 18, 7)] if is_marked else []
    return tag("svg", line, *marks, class_="key", viewBox="0 0 36 14", aria_hidden="true")


def mark(style: int, x: float, y: float) -> Markup:
    """A disc, a square, a triangle, a ring or a cross at (x, y)."""
    shapes = (
        f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
        f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
        f"M{x:.1f} {y - 3.6:.1f}l3.6 6.4h-7.2z",
        f"M{x - 3.4:.1f} {y:.1f}a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
        f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6",
    )
    return tag("path", class_=f"mark mark-{style}", d=shapes[style])


def format_ci(entry: Interval, digits: int = 3) -> str:
    """A value with its 95 % interval; says so where either is undefined."""
    value, low, high = entry.value, entry.low, entry.high
    if value is None:
        return "not defined"
    interval = "no interval" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{value:.{digits}f} ({interval})".replace("-", "−")


def tag(name: str, *content: str, **attributes: object) -> Markup:
    """An element; all that is not Markup is escaped. In attributes' names `_` is `-`, and one at the end is dropped."""
    given = (Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(given), Markup("").join(content))  # noqa: S704 (names are our own)


def _figure(kind: str, width: int, height: int, label: str, parts: Iterable[Markup]) -> Markup:
    return tag("svg", *parts, class_=kind, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _frame(x: Axis, y: Axis) -> Markup:
    """Both axes with their ticks, numbers and names."""
    parts = [tag("path", class_="axis", d=f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}")]
    for tick in x.ticks:
        place = x.place(tick, _LEFT, _RIGHT)
        parts.append(tag("text", _short(tick), x=f"{place:.1f}", y=_BOTTOM + 12, text_anchor="middle"))
    for tick in y.ticks:
        place = y.place(tick, _BOTTOM, _TOP)
        parts.append(tag("path", class_="rule", d=f"M{_LEFT} {place:.1f}H{_RIGHT}"))
        parts.append(tag("text", _short(tick), x=_LEFT - 5, y=f"{place + 3:.1f}", text_anchor="end"))
    parts.append(tag("text", x.name, x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 4, text_anchor="middle"))
    parts.append(tag("text", y.name, x=2, y=9))
    return Markup("").join(parts)


def _line(panel: Panel, line: Line) -> Markup:
    """A gap in the line wherever a number is not finite."""
    path, marks, is_down = [], [], False
    for x, y in zip(line.x, line.y, strict=True):
        is_finite = math.isfinite(x) and math.isfinite(y)
        if is_finite:
            across, down = _at(panel, x, y)
            path.append(f"{'L' if is_down else 'M'}{across:.1f} {down:.1f}")
            marks.append(mark(line.style, across, down))
        is_down = is_finite
    drawn = tag("path", class_=f"line line-{line.style}", d="".join(path))
    return Markup("").join([drawn, *(marks if line.is_marked else [])])


def _at(panel: Panel, x: float, y: float) -> tuple[float, float]:
    return panel.x.place(x, _LEFT, _RIGHT), panel.y.place(y, _BOTTOM, _TOP)


def _along(axis: Axis, value: float) -> str:
    """A place in a strip; what lies beyond the axis is drawn at its end."""
    inside = min(max(value, axis.low), axis.high)
    return f"{axis.place(inside, _STRIP_MARGIN, _STRIP_WIDTH - _STRIP_MARGIN):.1f}"


def _short(tick: float) -> str:
    return f"{tick:g}"
