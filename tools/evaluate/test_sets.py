"""Test sets for `tools.compare`: a folder that `tools.evaluate` wrote, or a CSV table of predictions."""

from pathlib import Path

import pandas as pd

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES
from cxr.core.paths import PREDICTIONS, SAMPLE
from tools.evaluate import measure
from tools.evaluate.labels import LabelSet
from tools.evaluate.predictions import match_predictions, read_predictions
from tools.revisions import TestSet, parse_test_set, read_test_set


def read_pair(a: str, b: str, labels: LabelSet | None) -> tuple[TestSet, TestSet]:
    """Read two test sets; a CSV table without `labels` gets those of the other one.

    Args:
        a: a revision, a folder that `tools.evaluate` wrote, or a CSV table of predictions.
        b: likewise.
        labels: of the images in CSV tables.

    Raises:
        InputError: if one cannot be read, or two CSV tables have no labels.
    """
    tables = [is_table(name) for name in (a, b)]
    if all(tables) and labels is None:
        raise InputError(f"{a} and {b} are tables without labels; add --labels DATA")
    if tables[0]:
        second = read_one(b, labels)
        return read_table_of_predictions(a, labels or labels_of(second)), second
    first = read_one(a, labels)
    return first, read_table_of_predictions(b, labels or labels_of(first)) if tables[1] else read_one(b, labels)


def is_table(name: str) -> bool:
    """Return whether `name` is a CSV file, not a revision."""
    return name.lower().endswith(".csv") and Path(name).is_file()


def read_one(name: str, labels: LabelSet | None) -> TestSet:
    """Read a folder, a revision, or, with `labels`, a CSV table."""
    if labels and is_table(name):
        return read_table_of_predictions(name, labels)
    folder = Path(name)
    if not (folder / measure.EXTERNAL).is_file():
        return read_test_set(name)
    files = {PREDICTIONS: folder / measure.PREDICTIONS, SAMPLE: folder / measure.SAMPLE}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise InputError(f"there is no {missing[0]}; run tools.evaluate again")
    return parse_test_set(name, None, lambda path: files[path].read_bytes())


def read_table_of_predictions(name: str, labels: LabelSet) -> TestSet:
    """Read a CSV table of probabilities; warn of what is left out."""
    predictions, notes = read_predictions(Path(name), is_logits=False)
    table, probabilities, more = match_predictions(predictions, labels, Path(name))
    for note in (*notes, *more):
        warn(note)
    index = pd.Index(table["image"])
    images = pd.DataFrame(probabilities, columns=list(CLASSES), index=index)
    images.insert(0, "patient", table["patient"].to_numpy())
    return TestSet(name, None, images, table.set_index("image")[list(CLASSES)])


def labels_of(test: TestSet) -> LabelSet:
    """Return the labels of a test set."""
    table = test.labels[list(CLASSES)].assign(patient=test.images["patient"]).reset_index()
    no_lists = pd.DataFrame({"image": [], "list": []}, dtype=str)
    return LabelSet(table, test.name, test.name, Path(), synthetic=False, official=no_lists, notes=())
