"""Pick the images that take part.

Reads: `raw_dir` (NIH's or CheXpert's table, its own split where it has one, and that each drawn image is there).
Writes: `data/sample.csv` (image, patient, age, sex, view, then 15 columns of 0, 1 or, where unknown, nothing) and
    `data/official.csv` (image and list, train_val or test; no rows where `raw_dir` has no lists).
Alone: `python -m stages.sample`
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import write_csv
from cxr.core.params import read_params
from cxr.core.paths import OFFICIAL, SAMPLE
from cxr.core.tables import label_matrix, name_some, write_sample
from cxr.datasets.params import Sample, SampleParams
from cxr.datasets.registry import read_lists, read_table
from cxr.datasets.stratified_split import stratified_group_split
from cxr.images.raw_images import RawImages


def main() -> None:
    """Draw the images and write their rows."""
    params = read_params(SampleParams)
    table = read_table(params.raw_dir, params.chexpert)
    drawn = draw(table, params.sample, params.data_seed)
    _check_images(drawn["image"], params.raw_dir)
    lists = read_lists(params.raw_dir)
    write_sample(drawn, SAMPLE)
    write_csv(lists[lists["image"].isin(drawn["image"])].sort_values("image"), OFFICIAL)
    print(f"{SAMPLE}: {len(drawn):,} of {len(table):,} images, {drawn['patient'].nunique():,} patients")


def draw(table: pd.DataFrame, sample: Sample, seed: int) -> pd.DataFrame:
    """Draw `sample.size` distinct rows that keep each class's share, or all rows where there are fewer.

    The draw depends on the seed and the set of rows, not on their order.

    Raises:
        InputError: where an excluded image is not in the table, or nothing is left.
    """
    unknown = sorted(set(sample.exclude) - set(table["image"]))
    if unknown:
        raise InputError(f"sample.exclude names images that the table does not have: {name_some(unknown)}")
    table = table[~table["image"].isin(sample.exclude)].sort_values("image", ignore_index=True)
    if table.empty:
        raise InputError("sample.exclude leaves no image")
    if sample.size >= len(table):
        return table
    images = np.arange(len(table))
    bins = stratified_group_split(images, label_matrix(table), [sample.size, len(table) - sample.size], seed)
    return table[bins == 0].reset_index(drop=True)


def _check_images(names: pd.Series, raw_dir: Path) -> None:
    with RawImages(raw_dir) as images:
        missing = [name for name in names if name not in images]
    if missing:
        raise InputError(
            f"{raw_dir} lacks {len(missing):,} of the {len(names):,} images drawn: {name_some(missing)}; "
            "complete the download, or leave these out with sample.exclude"
        )


if __name__ == "__main__":
    run_as_script(main)
