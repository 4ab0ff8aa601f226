"""Deal the patients into train, val and test.

Reads: `data/sample.csv`, `data/official.csv`.
Writes: `data/split.csv` (image, patient, split).
Alone: `python -m stages.split`
"""

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, run_as_script, warn
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.params import read_params
from cxr.core.paths import OFFICIAL, SAMPLE, SPLIT
from cxr.core.tables import SPLITS, label_matrix, name_some, read_sample
from cxr.datasets.params import Split, SplitParams
from cxr.datasets.stratified_split import allocate_sizes, stratified_group_split

# What a split has whose labels of a class are these.
_FOUND = {(): "no known label of", (0,): "no images with", (1,): "only images with"}


def main() -> None:
    """Deal, check, and write."""
    params = read_params(SplitParams)
    sample = read_sample(SAMPLE)
    if params.split.method == "patient":
        split = split_by_patient(sample, params.split, params.data_seed)
    else:
        split = split_by_lists(sample, pd.read_csv(OFFICIAL, dtype=str), params.split, params.data_seed)
    check(sample, split)
    write_csv(sample[["image", "patient"]].assign(split=split), SPLIT)
    print(f"{SPLIT}: " + ", ".join(f"{(split == name).sum():,} {name}" for name in SPLITS))


def split_by_patient(sample: pd.DataFrame, shares: Split, seed: int) -> pd.Series:
    """Deal whole patients into train, val and test, each class's share kept; returns the split of each row.

    The image counts are exactly `shares` of all wherever the patients allow it, else the nearest found, with a warning.
    """
    sizes = allocate_sizes([shares.train, shares.val, shares.test], len(sample))
    return _deal_patients(sample, sizes, seed).map(lambda number: SPLITS[number])


def split_by_lists(sample: pd.DataFrame, lists: pd.DataFrame, shares: Split, seed: int) -> pd.Series:
    """The data set's test list as test; val dealt from train_val by patient, `shares.val` of its images.

    Raises:
        InputError: where images are in neither list.
    """
    of_image = sample["image"].map(lists.set_index("image")["list"])
    unlisted = list(sample["image"][of_image.isna()])
    if unlisted:
        raise InputError(
            f"{len(unlisted):,} images are in neither train_val_list.txt nor test_list.txt: {name_some(unlisted)}; "
            "add the lists to raw_dir, or set split.method to patient"
        )
    train_val = sample[of_image == "train_val"]
    sizes = allocate_sizes([1 - shares.val, shares.val], len(train_val))
    split = pd.Series("test", index=sample.index)
    split[train_val.index] = _deal_patients(train_val, sizes, seed).map(lambda number: SPLITS[number])
    return split


def check(sample: pd.DataFrame, split: pd.Series) -> None:
    """Fail on what would make every later number wrong; warn of a class that a split has no case of.

    Raises:
        InputError: where a patient is in two splits, an image is there twice, or a split is empty.
    """
    repeated = sorted(set(sample["image"][sample["image"].duplicated()]))
    if repeated:
        raise InputError(f"{SAMPLE}: images are there more than once: {name_some(repeated)}")
    splits_of_patient = split.groupby(sample["patient"]).nunique()
    shared = [str(patient) for patient in splits_of_patient.index[splits_of_patient > 1]]
    if shared:
        raise InputError(f"{len(shared):,} patients are in more than one split: {name_some(shared)}")
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise InputError(f"no image is left for {empty[0]}: change the shares in split, or draw a larger sample")
    _warn_of_one_value(sample, split)


def _warn_of_one_value(sample: pd.DataFrame, split: pd.Series) -> None:
    learned = [label for label in CLASSES if (sample[label] != UNKNOWN).any()]
    if len(learned) < len(CLASSES):
        warn(f"no image has a known label of {', '.join(sorted(set(CLASSES) - set(learned)))}: no network learns these")
    for name in SPLITS:
        for label in learned:
            values = sorted(set(sample[label][split == name]) - {UNKNOWN})
            if len(values) < 2:
                found = _FOUND[tuple(values)]
                warn(f"{name} has {found} {label}: no AUROC of that class there")


def _deal_patients(sample: pd.DataFrame, sizes: list[int], seed: int) -> pd.Series:
    bins = stratified_group_split(sample["patient"].to_numpy(), label_matrix(sample), sizes, seed)
    dealt = [int(count) for count in np.bincount(bins, minlength=len(sizes))]
    if dealt != sizes:
        warn(f"the patients allow no split into exactly {sizes} images; the nearest found is {dealt}")
    return pd.Series(bins, index=sample.index)


if __name__ == "__main__":
    run_as_script(main)
