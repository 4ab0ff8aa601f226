"""Published results on NIH ChestX-ray14, and the conditions under which a run is comparable with them.

Means are over the 14 findings, as in most papers; a mean over 15 classes is not comparable.
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr.datasets.registry import NIH

Split = Literal["official", "random"]

# The length of NIH's official test list.
OFFICIAL_TEST_IMAGES = 25_596


class MeanResult(NamedTuple):
    """A published mean AUROC over the 14 findings."""

    name: str
    auroc: str  # as published
    split: Split
    note: str = ""
    source: str = ""  # DOI or arXiv number of the publication; empty if it was not recorded


MEAN_RESULTS = (
    MeanResult("Wang et al. 2017 (data set paper)", "0.745", "official", source="doi:10.1109/CVPR.2017.369"),
    MeanResult("Guendel et al. 2018", "0.807", "official", source="arXiv:1803.04565"),
    MeanResult("DenseNet-121 at 512 pixels", "0.816 to 0.819", "official"),
    MeanResult("ResNet-50 from ImageNet", "0.817 ± 0.0015", "official"),
    MeanResult("Ensemble of three networks", "0.822", "official"),
    MeanResult("ResNet-50 from ImageNet, with CheXpert", "0.8225", "official", "additional training images"),
    MeanResult("Swin-B", "0.830", "official", "pretrained on 926,000 chest X-rays"),
    MeanResult(
        "Medical-MAE", "0.830", "official", "epoch selected on the test images, so too high", "arXiv:2210.12843"
    ),
    MeanResult("Ark-6", "0.8305 ± 0.0009", "official", source="arXiv:2310.09507"),
    MeanResult("EVA-X", "0.835", "official", "epoch selected on the test images, so too high", "arXiv:2405.05237"),
    MeanResult("DenseNet-121 at 256 pixels", "0.816", "random", "21,172 training images"),
    MeanResult("CheXclusion", "0.840 ± 0.001", "random", source="arXiv:2003.00827"),
    MeanResult("CheXNet", "0.841", "random", source="arXiv:1711.05225"),
    MeanResult("Best single networks", "0.850 to 0.853", "random"),
    MeanResult("Best ensembles", "0.854 to 0.861", "random", "0.861 was searched on the test images, so too high"),
)


class FindingResults(NamedTuple):
    """Published AUROC of each finding."""

    name: str
    split: Split
    auroc: dict[str, float]


_ORDER = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


def _finding_results(name: str, split: Split, numbers: str) -> FindingResults:
    return FindingResults(name, split, dict(zip(_ORDER, map(float, numbers.split()), strict=True)))


FINDING_RESULTS = (
    _finding_results(
        "AE-CNN",
        "official",
        ".7821 .9008 .8356 .7087 .8379 .7881 .7363 .8684 .7608 .8498 .9221 .8402 .7828 .9242",
    ),
    _finding_results("SwinCheX", "official", ".781 .875 .824 .701 .822 .780 .713 .871 .748 .848 .914 .826 .778 .855"),
    _finding_results(
        "CheXNet",
        "random",
        ".8094 .9248 .8638 .7345 .8676 .7802 .7680 .8887 .7901 .8878 .9371 .8047 .8062 .9164",
    ),
)


class BoxResult(NamedTuple):
    """Published hit rates on NIH's boxes, means over the 8 findings with boxes; None if not reported."""

    name: str
    iou: tuple[float, float, float]  # at 0.1, 0.3 and 0.5
    pointing_game: float | None = None


BOX_RESULTS = (
    BoxResult("Wang et al. 2017", (0.57, 0.21, 0.06)),
    BoxResult("Grad-CAM++, DenseNet-121 at 512 pixels", (0.62, 0.28, 0.10), 0.544),
    BoxResult("Best published", (0.81, 0.59, 0.32)),
    BoxResult("Random map", (0.29, 0.10, 0.03), 0.228),
)


class RunData(NamedTuple):
    """The properties of a run's data that determine whether its results are comparable."""

    name: str  # of the data set
    is_synthetic: bool
    is_official: bool  # whether every image is in its part of NIH's official split
    train_images: int
    test_images: int


def describe_data(sample: pd.DataFrame, official: pd.DataFrame, *, name: str, is_synthetic: bool) -> RunData:
    """Describe the data from the images in each split, independently of `split.method`.

    Args:
        sample: with the columns image and split (train, val, test).
        official: NIH's lists, with the columns image and list (train_val, test); may be empty.
        name: of the data set.
        is_synthetic: whether the images are synthetic.
    """
    listed = sample["image"].map(official.set_index("image")["list"])
    expected = np.where(sample["split"] == "test", "test", "train_val")
    counts = sample["split"].value_counts()
    is_official = bool((listed == expected).all())
    return RunData(name, is_synthetic, is_official, int(counts.get("train", 0)), int(counts.get("test", 0)))


def reasons_not_comparable(data: RunData, split: Split) -> list[str]:
    """Return the reasons why a run is not comparable with results on `split`; empty if it is comparable."""
    if data.is_synthetic:
        return ["this run uses synthetic images"]
    if data.name != NIH:
        return [f"this run uses other data ({data.name})"]
    if split == "random":
        unpublished = "the published results use random test sets that are not available"
        return [unpublished, *(["this run uses NIH's official split"] if data.is_official else [])]
    if not data.is_official:
        return ["this run does not use NIH's official split"]
    if data.test_images < OFFICIAL_TEST_IMAGES:
        return [f"this run is tested on {data.test_images:,} of the {OFFICIAL_TEST_IMAGES:,} official test images"]
    return []
