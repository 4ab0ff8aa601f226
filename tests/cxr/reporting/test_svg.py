import math
import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cxr.evaluation.schema import Interval
from cxr.reporting.svg import Axis, Line, Panel, draw_interval, draw_panel, fit_axis, tag, unit_axis


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(2, 6))
def test_an_axis_spans_its_values_between_round_ticks(values: list[float], most: int) -> None:
    axis = fit_axis("x", values, most)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= most + 1
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack


def test_an_axis_without_finite_values_is_from_0_to_1() -> None:
    assert fit_axis("x", [math.nan, math.inf])[1:3] == (0, 1)


def test_a_line_is_interrupted_at_missing_values() -> None:
    unit = unit_axis("x")
    drawn = draw_panel(Panel(unit, unit, [Line([0, 0.5, 1, 1], [0, math.nan, 0.5, 1])]), "name")
    (path,) = re.findall(r'class="line line-0" d="(.*?)"', drawn)
    assert re.findall("[ML]", path) == ["M", "M", "L"]


def test_an_interval_is_drawn_on_the_scale_of_its_axis() -> None:
    axis = Axis("x", 0, 1, (0, 1))
    drawn = draw_interval(Interval(value=0.5, low=0, high=1), axis)
    assert 'd="M10.0 11.0H190.0' in drawn
    assert "M97.0 8.0h6v6h-6z" in drawn
    assert 'aria-label="0.500 (0.000 to 1.000)"' in drawn
    undefined = draw_interval(Interval(value=None, low=None, high=None), axis)
    assert 'aria-label="undefined"' in undefined
    assert "mark" not in undefined


@given(st.text())
def test_text_and_attributes_are_escaped(text: str) -> None:
    class Reader(HTMLParser):
        seen: tuple[str, Any] = ("", None)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen = (tag, attrs)

    reader = Reader()
    reader.feed(tag("g", text, aria_label=text))
    assert reader.seen == ("g", [("aria-label", text)])
