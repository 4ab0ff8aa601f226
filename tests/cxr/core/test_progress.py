import sys

import pytest

from cxr.core import progress
from tests.fixtures.terminal import assert_bar_shown, simulate_terminal


def test_a_terminal_shows_the_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    terminal = simulate_terminal(monkeypatch)
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert_bar_shown(terminal.getvalue(), "read")


def test_a_short_iteration_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = simulate_terminal(monkeypatch)
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert not terminal.getvalue().strip()


def test_output_to_a_file_has_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    assert not sys.stderr.isatty()
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
