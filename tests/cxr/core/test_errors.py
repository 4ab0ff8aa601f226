import sys

import pytest

from cxr.core.errors import InputError, first_lines, format_names, run_as_script, run_stage, warn


def run_failing(error: BaseException) -> str:
    """Run a script that raises `error`; return the message with which it exits."""

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_as_script(main)
    return str(caught.value.code)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("lr: missing"), "error: lr: missing"),
        (FileNotFoundError(2, "No such file", "data/a.csv"), "error: data/a.csv not found; run `dvc repro`"),
        (PermissionError(13, "Permission denied", "a.csv"), "error: Permission denied: a.csv"),
        (OSError(28, "No space left on device"), "error: No space left on device: while writing an output"),
    ],
)
def test_an_expected_error_is_one_message(error: BaseException, message: str) -> None:
    assert run_failing(error).startswith(message)


def test_a_defect_of_the_program_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_as_script(main)


def test_a_warning_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    warn("no boxes")
    assert capsys.readouterr() == ("", "warning: no boxes\n")


def test_long_messages_of_exceptions_are_cut() -> None:
    assert first_lines(ValueError(" first\n second\nthird")) == "first second"
    assert first_lines(ValueError()) == "ValueError"
    assert len(first_lines(ValueError("x" * 1000))) == 300


def test_long_lists_of_names_are_cut() -> None:
    assert format_names(list("abcde")) == "a, b, c, d, e"
    assert format_names(["x"] * 2005) == "x, x, x, x, x and 2,000 more"


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--lr=0.1", 2), ("0.1", 2)])
def test_a_stage_with_arguments_does_not_run(
    argument: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stages.train", argument])
    with pytest.raises(SystemExit) as caught:
        run_stage(lambda: pytest.fail("the stage ran"), "Train the networks.")
    assert caught.value.code == code
    printed = capsys.readouterr()
    assert "Train the networks." in printed.out or "unrecognized arguments" in printed.err
