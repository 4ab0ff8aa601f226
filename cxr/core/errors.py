"""How a mistake of the user ends a script: one clear message, exit code 1, no traceback."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """A mistake that the user can mend; its message says what is wrong, where, and what to do."""


def run_as_script(main: Callable[[], None]) -> None:
    """Run `main`; print an `InputError`, or what the system refuses, as `error: …` and exit with 1."""
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}; `dvc repro` makes what a stage reads")
    except OSError as error:
        # A full disk, a file without rights, a broken drive: the machine's, and never a fault of the program.
        sys.exit(f"error: {error.strerror or error}: {error.filename or 'while an output was written'}")


def warn(message: str) -> None:
    """Print a warning to the terminal's error stream."""
    print(f"warning: {message}", file=sys.stderr)


def first_lines(error: Exception) -> str:
    """The first two lines of an exception's message, at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:2])[:300]
