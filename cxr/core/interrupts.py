"""Ctrl-C ends a program with one message, also while it imports its modules: programs import this module first.

The program then ends by the signal SIGINT (exit code 130 in a shell), so that a shell script that runs it stops too.
"""

import os
import signal
import sys
from types import TracebackType


def report_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print the exception that ends the program: a line for KeyboardInterrupt, the traceback for all others.

    The `finally` clauses of the program have run before, and have removed unfinished files.
    """
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print("error: interrupted", file=sys.stderr, flush=True)
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def exit_on_sigterm() -> None:
    """Let SIGTERM end the program with exit code 143, after its `finally` clauses have removed unfinished files."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


sys.excepthook = report_interrupt
