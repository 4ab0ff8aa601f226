"""User errors and warnings: a script ends with one clear message and exit code 1, without a traceback."""

import argparse
import sys
from collections.abc import Callable, Sequence

import cxr.core.interrupts  # noqa: F401 (for programs that do not import it first)


class InputError(Exception):
    """An error that the user can fix. Its message states what is wrong, where, and what to do."""


def run_as_script(main: Callable[[], None]) -> None:
    """Run `main`; print an `InputError` or `OSError` as `error: …` and exit with code 1.

    Ctrl-C is left to `cxr.core.interrupts`.
    """
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} not found; run `dvc repro` to create the inputs of a stage")
    except OSError as error:
        # A full disk or missing permissions: the user can fix these, and a traceback would not help.
        sys.exit(f"error: {error.strerror or error}: {error.filename or 'while writing an output'}")


def run_stage(main: Callable[[], None], description: str | None) -> None:
    """Run the `main` of a stage, which has no options: its parameters are in `params.yaml`.

    Args:
        main: what to run.
        description: the text of `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog="A stage has no options: set its parameters in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    run_as_script(main)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    print(f"warning: {message}", file=sys.stderr)


def first_lines(error: Exception) -> str:
    """Return the first two lines of an exception's message, joined by a space and cut to 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:2])[:300]


def format_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first `limit` names, joined by commas, and the number of the remaining ones."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
