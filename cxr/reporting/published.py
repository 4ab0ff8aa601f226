"""What others report on NIH ChestX-ray14, and what sets our own figures apart from theirs.

Only means over the 14 findings are here: papers leave No Finding out, and a mean over 15 classes is another number.
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

Split = Literal["official", "random"]

# Images in NIH's official test list.
OFFICIAL_TEST = 25_596


class Published(NamedTuple):
    """A mean AUROC over the 14 findings that somebody reports."""

    name: str
    auroc: str  # as they give it
    split: Split
    note: str = ""


PUBLISHED = (
    Published("Wang et al. 2017, who published the data", "0.745", "official"),
    Published("Guendel et al.", "0.807", "official"),
    Published("DenseNet-121 at 512 pixels", "0.816 to 0.819", "official"),
    Published("ResNet-50 from ImageNet", "0.817 ± 0.0015", "official"),
    Published("An ensemble of three networks", "0.822", "official"),
    Published("ResNet-50 from ImageNet, with CheXpert", "0.8225", "official", "more chest X-rays to train on"),
    Published("Swin-B", "0.830", "official", "pretrained on 926,000 chest X-rays"),
    Published("Medical-MAE", "0.830", "official", "its epoch was picked on the test images: too good"),
    Published("Ark-6", "0.8305 ± 0.0009", "official"),
    Published("EVA-X", "0.835", "official", "its epoch was picked on the test images: too good"),
    Published("DenseNet-121 at 256 pixels", "0.816", "random", "21,172 images to train on"),
    Published("CheXclusion", "0.840 ± 0.001", "random"),
    Published("CheXNet", "0.841", "random"),
    Published("The best single networks", "0.850 to 0.853", "random"),
    Published("The best ensembles", "0.854 to 0.861", "random"),
)


class ByFinding(NamedTuple):
    """AUROC of each finding that somebody reports."""

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


def _by_finding(name: str, split: Split, numbers: str) -> ByFinding:
    return ByFinding(name, split, dict(zip(_ORDER, map(float, numbers.split()), strict=True)))


BY_FINDING = (
    _by_finding(
        "AE-CNN",
        "official",
        ".7821 .9008 .8356 .7087 .8379 .7881 .7363 .8684 .7608 .8498 .9221 .8402 .7828 .9242",
    ),
    _by_finding("SwinCheX", "official", ".781 .875 .824 .701 .822 .780 .713 .871 .748 .848 .914 .826 .778 .855"),
    _by_finding(
        "CheXNet",
        "random",
        ".8094 .9248 .8638 .7345 .8676 .7802 .7680 .8887 .7901 .8878 .9371 .8047 .8062 .9164",
    ),
)


class Localised(NamedTuple):
    """Shares of NIH's boxes hit, the mean over the 8 findings that have boxes; None where it is not reported."""

    name: str
    iou: tuple[float, float, float]  # at 0.1, 0.3 and 0.5
    pointing_game: float | None = None


LOCALISED = (
    Localised("Wang et al. 2017", (0.57, 0.21, 0.06)),
    Localised("Grad-CAM++, DenseNet-121 at 512 pixels", (0.62, 0.28, 0.10), 0.544),
    Localised("The best published", (0.81, 0.59, 0.32)),
    Localised("A random map", (0.29, 0.10, 0.03), 0.228),
)


class OurData(NamedTuple):
    """What of our data decides with whose figures ours can be compared."""

    is_synthetic: bool
    is_official: bool  # every image on its side of NIH's official split
    train_images: int
    test_images: int


def about_our_data(sample: pd.DataFrame, official: pd.DataFrame, *, is_synthetic: bool) -> OurData:
    """Look at the images themselves, whatever the parameters say of the split.

    Args:
        sample: with the columns image and split (train, val, test).
        official: NIH's lists, with the columns image and list (train_val, test); may be empty.
        is_synthetic: whether the images are drawn ones.
    """
    listed = sample["image"].map(official.set_index("image")["list"])
    expected = np.where(sample["split"] == "test", "test", "train_val")
    counts = sample["split"].value_counts()
    is_official = bool((listed == expected).all())
    return OurData(is_synthetic, is_official, int(counts.get("train", 0)), int(counts.get("test", 0)))


def differences(ours: OurData, split: Split) -> list[str]:
    """Why our figures are not to be compared with those on this split; empty where nothing speaks against it."""
    if ours.is_synthetic:
        return ["our images are synthetic drawings, theirs are patients"]
    if split == "random":
        theirs = "their test images are a random draw that is not published, so nobody else has the same"
        return [theirs, *(["ours are NIH's official split, which is another population"] if ours.is_official else [])]
    if not ours.is_official:
        return ["our test images are not those of NIH's official split, which is another population"]
    if ours.test_images < OFFICIAL_TEST:
        return [f"we tested on {ours.test_images:,} of the {OFFICIAL_TEST:,} images of the official test list"]
    return []
