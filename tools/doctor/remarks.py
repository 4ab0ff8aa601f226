"""What is said of one thing that was looked at."""

from typing import Literal, NamedTuple

INSTALL = "`pip install -r requirements.txt`"
SET_UP = f"`make repro` installs all, or in an environment of yours {INSTALL}"


class Remark(NamedTuple):
    """One line of the answer."""

    level: Literal["ok", "warning", "problem"]  # a problem is what `dvc repro` would fail at
    about: str
    said: str  # where it is not ok, with what to do

    def __str__(self) -> str:
        """The line; what takes several is indented below the first."""
        return f"{self.level:<9}{self.about:<13}" + self.said.replace("\n", "\n" + " " * 22)
