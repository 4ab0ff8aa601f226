"""Assign the patients to train, val and test.

Reads: `data/sample.csv`, `data/official.csv`.
Writes: `data/split.csv` (image, patient, split).
Run: `python -m stages.split`
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import numpy as np
import pandas as pd

from cxr.core.errors import InputError, format_names, run_stage, warn
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN, label_matrix
from cxr.core.params import read_params
from cxr.core.paths import OFFICIAL, SAMPLE, SPLIT
from cxr.core.tables import SPLITS, check_patients, read_official, read_sample
from cxr.datasets.params import Split, SplitParams
from cxr.datasets.stratified_split import allocate_sizes, stratified_group_split

# Warnings for a split, by the distinct known labels of a class in it.
_ONE_VALUE = {(): "no known label of", (0,): "no images with", (1,): "only images with"}


def main() -> None:
    """Assign the images to splits, check the split, and write it."""
    params = read_params(SplitParams)
    sample = read_sample(SAMPLE)
    if params.split.method == "patient":
        split = split_by_patient(sample, params.split, params.data_seed)
    else:
        split = split_by_lists(sample, read_official(OFFICIAL), params.split, params.data_seed)
    check_split(sample, split)
    write_csv(sample[["image", "patient"]].assign(split=split), SPLIT)
    print(f"{SPLIT}: " + ", ".join(f"{(split == name).sum():,} {name}" for name in SPLITS))


def split_by_patient(sample: pd.DataFrame, fractions: Split, seed: int) -> pd.Series:
    """Assign whole patients to train, val and test, keeping the prevalence of each class.

    Returns:
        The split of each row (str). The number of images of each split is exactly its fraction of the sample; if the
        patients do not allow this, the nearest numbers found, with a warning.
    """
    sizes = allocate_sizes([fractions.train, fractions.val, fractions.test], len(sample))
    return _assign_patients(sample, sizes, seed)


def split_by_lists(sample: pd.DataFrame, lists: pd.DataFrame, fractions: Split, seed: int) -> pd.Series:
    """Use the official test list as test; assign the patients of train_val to train and val.

    Val gets the fraction `fractions.val` of the train_val images.

    Raises:
        InputError: if images are in neither list.
    """
    list_of_image = sample["image"].map(lists.set_index("image")["list"])
    unlisted = list(sample["image"][list_of_image.isna()])
    if unlisted:
        raise InputError(
            f"{len(unlisted):,} images are in neither train_val_list.txt nor test_list.txt: {format_names(unlisted)}; "
            "add the lists to raw_dir, or set split.method to patient"
        )
    train_val = sample[list_of_image == "train_val"]
    sizes = allocate_sizes([1 - fractions.val, fractions.val], len(train_val))
    split = pd.Series("test", index=sample.index)
    split[train_val.index] = _assign_patients(train_val, sizes, seed)
    return split


def check_split(sample: pd.DataFrame, split: pd.Series) -> None:
    """Check the split of each image, and warn of classes without positive or negative images in a split.

    Raises:
        InputError: if a patient is in two splits, or a split is empty.
    """
    check_patients(sample["patient"], split, SPLIT)
    _warn_of_one_value(sample, split)


def _warn_of_one_value(sample: pd.DataFrame, split: pd.Series) -> None:
    labeled = [label for label in CLASSES if (sample[label] != UNKNOWN).any()]
    if len(labeled) < len(CLASSES):
        unlabeled = ", ".join(sorted(set(CLASSES) - set(labeled)))
        warn(f"no image has a known label of {unlabeled}: the networks are not trained on these classes")
    for name in SPLITS:
        for label in labeled:
            values = tuple(sorted(set(sample[label][split == name]) - {UNKNOWN}))
            if len(values) < 2:
                warn(f"{name} has {_ONE_VALUE[values]} {label}: its AUROC is undefined there")


def _assign_patients(sample: pd.DataFrame, sizes: list[int], seed: int) -> pd.Series:
    """Return the split of each row: the first `len(sizes)` of train, val and test, with `sizes` images."""
    bins = stratified_group_split(sample["patient"].to_numpy(), label_matrix(sample), sizes, seed)
    found = [int(count) for count in np.bincount(bins, minlength=len(sizes))]
    if found != sizes:
        warn(f"the patients allow no split into exactly {sizes} images; the nearest found is {found}")
    return pd.Series(bins, index=sample.index).map(lambda number: SPLITS[number])


if __name__ == "__main__":
    run_stage(main, __doc__)
