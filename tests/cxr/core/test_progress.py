import sys

import pytest

from cxr.core import progress
from tests.fixtures.terminal import assert_time_left, play_terminal


def test_a_terminal_shows_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    terminal = play_terminal(monkeypatch)
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert_time_left(terminal.getvalue(), "read")


def test_what_is_done_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = play_terminal(monkeypatch)
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert not terminal.getvalue().strip()


def test_a_file_gets_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    assert not sys.stderr.isatty()
    assert list(progress.progress(iter("abc"), "read", 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
