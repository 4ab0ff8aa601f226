"""Test-set predictions and labels of a revision: a commit, a DVC experiment or the workspace."""

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
from cxr.core.labels import CLASSES, fill_unknown
from cxr.core.paths import PREDICTIONS, SAMPLE

WORKSPACE = "workspace"


@dataclass(frozen=True)
class TestSet:
    """Predictions and labels of a revision's test images.

    Attributes:
        name: the revision as the user gave it.
        commit: its hash; None for the workspace.
        images: indexed by image: patient, then the 15 probabilities.
        labels: indexed by image, in the same order: the 15 classes, 0, 1 or `UNKNOWN`.
    """

    __test__ = False  # keeps pytest from collecting the class

    name: str
    commit: str | None
    images: pd.DataFrame
    labels: pd.DataFrame

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:7]})" if self.commit else self.name

    def subset(self, images: pd.Index) -> "TestSet":
        """Return the test set of some images, in their order."""
        return TestSet(self.name, self.commit, self.images.loc[images], self.labels.loc[images])


def read_test_set(name: str) -> TestSet:
    """Read the predictions and labels of a revision from the workspace, the DVC cache or a remote.

    Raises:
        InputError: if the working directory is in no DVC repository, the revision does not exist, or a file is missing
            or malformed.
    """
    try:
        repo = Repo()
        # Use the current remotes: an old commit may not list the remote that its data were pushed to later.
        config = {"core": repo.config["core"], "remote": repo.config["remote"]}
        files = DVCFileSystem(repo.root_dir, rev=None if name == WORKSPACE else name, config=config)
        commit = None if name == WORKSPACE else files.repo.get_rev()
    except DvcException as error:
        raise InputError(f"{name}: {error}") from None
    return parse_test_set(name, commit, lambda path: _read(files, path, name, commit))


def parse_test_set(name: str, commit: str | None, read: Callable[[Path], bytes]) -> TestSet:
    """Build a `TestSet` from the contents of `data/predictions.csv` and `data/sample.csv`, which `read` returns.

    Raises:
        InputError: if a file is malformed, or the files are from different runs.
    """
    types = {"image": str, "split": str, "patient": np.int64} | dict.fromkeys(CLASSES, np.float64)
    predictions = _parse(read(PREDICTIONS), types, f"{PREDICTIONS} of {name}")
    sample = fill_unknown(_parse(read(SAMPLE), {"image": str} | dict.fromkeys(CLASSES, "UInt8"), f"{SAMPLE} of {name}"))
    test = predictions[predictions["split"] == "test"].drop(columns="split").set_index("image")
    labels = sample.set_index("image")
    if not labels.index.is_unique or not test.index.is_unique or not test.index.isin(labels.index).all():
        raise InputError(f"{name}: {PREDICTIONS} does not match {SAMPLE}; run `dvc repro` on that revision")
    return TestSet(name, commit, test, labels.loc[test.index])


def shared_images(a: TestSet, b: TestSet) -> tuple[TestSet, TestSet]:
    """Return both test sets reduced to the images that they share, in the same order.

    Warns if the test sets differ, or if the labels or patients of a shared image do.

    Raises:
        InputError: if no image is shared.
    """
    shared = a.images.index.intersection(b.images.index)
    if shared.empty:
        raise InputError(f"{a} and {b} have no test image in common and cannot be compared")
    only_a, only_b = len(a.images) - len(shared), len(b.images) - len(shared)
    if only_a or only_b:
        warn(
            f"the test sets differ: {len(shared):,} images are in both, {only_a:,} only in {a.name}, {only_b:,} only "
            f"in {b.name}; only the shared images are compared"
        )
    a, b = a.subset(shared), b.subset(shared)
    for column, differs in (
        ("labels", (a.labels != b.labels).any(axis=1)),
        ("patients", a.images["patient"] != b.images["patient"]),
    ):
        if differs.any():
            warn(f"the {column} of {differs.sum():,} shared images differ; those of {b.name} are used")
    return a, b


def _read(files: DVCFileSystem, path: Path, name: str, commit: str | None) -> bytes:
    if not files.exists(path.as_posix()):
        raise InputError(f"{name} has no {path}: its pipeline does not write this file")
    try:
        content: bytes = files.read_bytes(path.as_posix())
    except (DvcException, OSError, ImportError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
        checkout = f"git checkout {commit[:7]} && " if commit else ""
        raise InputError(
            f"{path} of {name} is neither in the DVC cache nor in a reachable remote{reason}\n"
            f"  if it was pushed:  {checkout}dvc pull {PREDICTIONS} {SAMPLE}\n"
            f"  otherwise:         {checkout}dvc repro"
        ) from None
    return content


def _parse(content: bytes, types: dict[str, Any], name: str) -> pd.DataFrame:
    try:
        empty = {column: [""] for column in CLASSES}
        return pd.read_csv(BytesIO(content), usecols=list(types), dtype=types, keep_default_na=False, na_values=empty)
    except ValueError as error:
        raise InputError(f"{name} is not a table that `evaluate` or `sample` writes: {error}") from None
