"""The result of one check."""

from typing import Literal, NamedTuple

INSTALL = "`pip install -r requirements.txt`"
SET_UP = f"run `make repro`, which installs all packages, or {INSTALL} in your own environment"


class Check(NamedTuple):
    """The result of one check."""

    level: Literal["ok", "warning", "problem"]  # with a problem, `dvc repro` would fail
    subject: str
    message: str  # with a remedy, unless the level is ok

    def __str__(self) -> str:
        """Return the result as a line; further lines of the message are indented."""
        return f"{self.level:<9}{self.subject:<13}" + self.message.replace("\n", "\n" + " " * 22)
