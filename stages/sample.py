"""Sample the images to use.

Reads: `raw_dir` (the table of NIH or CheXpert, its official split if there is one, and the names of the image files).
Writes: `data/sample.csv` (image, patient, age, sex, view, then 15 columns of 0, 1 or, if unknown, an empty field) and
    `data/official.csv` (image and list: train_val or test; no rows if `raw_dir` has no official split).
Run: `python -m stages.sample`
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, format_names, run_stage
from cxr.core.files import write_csv
from cxr.core.labels import label_matrix
from cxr.core.params import read_params
from cxr.core.paths import OFFICIAL, SAMPLE
from cxr.core.tables import write_sample
from cxr.datasets.params import Sample, SampleParams
from cxr.datasets.registry import read_lists, read_table
from cxr.datasets.stratified_split import stratified_group_split
from cxr.images.raw_images import RawImages


def main() -> None:
    """Sample the images and write their rows of the table."""
    params = read_params(SampleParams)
    table = read_table(params.raw_dir, params.chexpert)
    sample = sample_images(table, params.sample, params.data_seed)
    _check_images(sample["image"], params.raw_dir)
    lists = read_lists(params.raw_dir)
    write_sample(sample, SAMPLE)
    write_csv(lists[lists["image"].isin(sample["image"])].sort_values("image"), OFFICIAL)
    print(f"{SAMPLE}: {len(sample):,} of {len(table):,} images, {sample['patient'].nunique():,} patients")


def sample_images(table: pd.DataFrame, sample: Sample, seed: int) -> pd.DataFrame:
    """Return `sample.size` distinct rows of `table`, keeping the prevalence of each class; all rows if there are fewer.

    The result depends on the seed and the set of rows, not on the order of the rows.

    Raises:
        InputError: if an excluded image is not in the table, or all images are excluded.
    """
    unknown = sorted(set(sample.exclude) - set(table["image"]))
    if unknown:
        raise InputError(f"sample.exclude has images that are not in the table: {format_names(unknown)}")
    table = table[~table["image"].isin(sample.exclude)].sort_values("image", ignore_index=True)
    if table.empty:
        raise InputError("sample.exclude excludes every image; shorten the list")
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
            f"{len(missing):,} of the {len(names):,} sampled images are missing in {raw_dir}: {format_names(missing)}; "
            "complete the download, or add the images to sample.exclude"
        )


if __name__ == "__main__":
    run_stage(main, __doc__)
