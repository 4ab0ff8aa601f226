"""What two revisions say of their test images: predictions and labels, as DVC tracks them."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES
from cxr.core.paths import PREDICTIONS, SAMPLE
from cxr.core.tables import fill_unknown

WORKSPACE = "workspace"


@dataclass(frozen=True)
class TestSet:
    """What a revision says of its test images.

    Attributes:
        name: the revision as the user wrote it.
        commit: its hash; None for the workspace.
        images: indexed by image: patient, then the 15 probabilities.
        labels: indexed by image, in the same order: the 15 classes, 0, 1 or `UNKNOWN`.
    """

    __test__ = False  # for pytest, which takes the name for its own

    name: str
    commit: str | None
    images: pd.DataFrame
    labels: pd.DataFrame

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:7]})" if self.commit else self.name

    def of(self, images: pd.Index) -> "TestSet":
        """The same of some images, in their order."""
        return TestSet(self.name, self.commit, self.images.loc[images], self.labels.loc[images])


def read_test_set(name: str) -> TestSet:
    """Read the predictions and labels of a revision.

    Raises:
        InputError: where there is no DVC repository, no such revision, or a file cannot be had or is another table.
    """
    try:
        here = Repo()
        # Remotes are those of today: an old commit may not know where its data have been pushed since.
        config = {"core": here.config["core"], "remote": here.config["remote"]}
        files = DVCFileSystem(here.root_dir, rev=None if name == WORKSPACE else name, config=config)
        commit = None if name == WORKSPACE else files.repo.get_rev()
    except DvcException as error:
        raise InputError(f"{name}: {error}") from None
    return parse_test_set(name, commit, lambda path: _read(files, path, name, commit))


def _read(files: DVCFileSystem, path: Path, name: str, commit: str | None) -> bytes:
    if not files.exists(path.as_posix()):
        raise InputError(f"{name} has no {path}: its pipeline makes none")
    try:
        content: bytes = files.read_bytes(path.as_posix())
    except (DvcException, OSError, ImportError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
        first = f"git checkout {commit[:7]} && " if commit else ""
        raise InputError(
            f"{path} of {name} is neither in DVC's cache nor in a remote that can be reached{reason}\n"
            f"  if it was pushed somewhere:  {first}dvc pull {PREDICTIONS} {SAMPLE}\n"
            f"  to make it again:            {first}dvc repro"
        ) from None
    return content


def parse_test_set(name: str, commit: str | None, read: Callable[[Path], bytes]) -> TestSet:
    """Make a `TestSet` of the two files; InputError where they are not tables of one run."""
    types = {"image": str, "split": str, "patient": np.int64} | dict.fromkeys(CLASSES, np.float64)
    predictions = _parse(read(PREDICTIONS), types, f"{PREDICTIONS} of {name}")
    sample = fill_unknown(_parse(read(SAMPLE), {"image": str} | dict.fromkeys(CLASSES, "UInt8"), f"{SAMPLE} of {name}"))
    test = predictions[predictions["split"] == "test"].drop(columns="split").set_index("image")
    labels = sample.set_index("image")
    if not labels.index.is_unique or not test.index.is_unique or not test.index.isin(labels.index).all():
        raise InputError(f"{name}: {PREDICTIONS} is not of the images in {SAMPLE}; was one of them made later?")
    return TestSet(name, commit, test, labels.loc[test.index])


def _parse(content: bytes, types: dict[str, Any], name: str) -> pd.DataFrame:
    try:
        empty = {column: [""] for column in CLASSES}
        return pd.read_csv(BytesIO(content), usecols=list(types), dtype=types, keep_default_na=False, na_values=empty)
    except ValueError as error:
        raise InputError(f"{name} is not the table that `evaluate` or `sample` writes: {error}") from None


def share(a: TestSet, b: TestSet) -> tuple[TestSet, TestSet]:
    """Both on the images that both have in test, with a warning for each thing in which they differ there.

    Raises:
        InputError: where there is no such image.
    """
    shared = a.images.index.intersection(b.images.index)
    if shared.empty:
        raise InputError(f"{a} and {b} have no test image in common: nothing can be compared")
    only_a, only_b = len(a.images) - len(shared), len(b.images) - len(shared)
    if only_a or only_b:
        warn(
            f"the test sets differ: {len(shared):,} images are in both, {only_a:,} only in {a.name}, {only_b:,} only "
            f"in {b.name}; compared on those in both"
        )
    a, b = a.of(shared), b.of(shared)
    for what, differs in (
        ("labels", (a.labels != b.labels).any(axis=1)),
        ("patients", a.images["patient"] != b.images["patient"]),
    ):
        if differs.any():
            warn(f"{differs.sum():,} shared images have other {what} in {a.name}; those of {b.name} are taken")
    return a, b
