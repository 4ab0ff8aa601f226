import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation.summary import average_members, split_summaries
from cxr.models.members import Member


def table_of(images: int) -> pd.DataFrame:
    table = pd.DataFrame({"image": [f"{row}.png" for row in range(images)], "patient": np.arange(images) // 2})
    return table.assign(**dict.fromkeys(CLASSES, np.uint8(0)), split=["train", "val"] * (images // 2))


def test_a_class_that_a_member_was_not_trained_on_has_unknown_labels() -> None:
    one, other = np.full((4, 15), 0.2), np.full((4, 15), 0.4)
    other[:, 3] = np.nan
    predictions = average_members(table_of(4), {Member("a", 1): one, Member("a", 2): other})
    assert (predictions.labels == np.where(np.arange(15) == 3, UNKNOWN, 0)).all()
    np.testing.assert_allclose(np.delete(predictions.probabilities, 3, axis=1), 0.3)
    subset = predictions.subset(np.array([True, False, False, True]))
    assert list(subset.table["image"]) == ["0.png", "3.png"]
    assert [len(values) for values in (subset.labels, subset.probabilities)] == [2, 2]
    assert [len(values) for values in subset.by_member.values()] == [2, 2]


def test_splits_are_counted_with_and_without_images() -> None:
    table = table_of(6).assign(sex=list("MFMMFF"), age=[10, 30, 50, 70, 90, np.nan], view="PA")
    table.loc[[0, 2, 3], "Mass"] = np.array([1, 1, UNKNOWN], np.uint8)
    splits = split_summaries(table)
    assert {name: (split.images, split.patients) for name, split in splits.items()} == {
        "train": (3, 3),
        "val": (3, 3),
        "test": (0, 0),
    }
    assert [split.positives["Mass"] for split in splits.values()] == [2, 0, 0]
    assert [splits[name].groups["sex"] for name in ("train", "val")] == [{"F": 1, "M": 2}, {"F": 2, "M": 1}]
    assert splits["test"].groups == {}
