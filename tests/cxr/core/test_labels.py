import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES, FINDINGS, NO_FINDING, UNKNOWN, fill_unknown, label_matrix


def test_the_classes_are_the_findings_and_no_finding_in_alphabetical_order() -> None:
    assert len(FINDINGS) == 14
    assert set(CLASSES) == {*FINDINGS, NO_FINDING}
    assert list(CLASSES) == sorted(CLASSES)


def test_missing_labels_become_unknown() -> None:
    table = pd.DataFrame({name: pd.array([0, 1, None], "UInt8") for name in CLASSES} | {"age": [1, 2, 3]})
    filled = fill_unknown(table)
    assert list(filled["age"]) == [1, 2, 3]
    labels = label_matrix(filled)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0] * 15, [1] * 15, [UNKNOWN] * 15]


def test_the_columns_of_the_label_matrix_are_in_the_order_of_the_classes() -> None:
    table = pd.DataFrame({name: [number] for number, name in enumerate(CLASSES)})
    assert label_matrix(table[list(reversed(CLASSES))]).tolist() == [list(range(15))]
