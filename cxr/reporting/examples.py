"""Example images for the report: correct, incorrect and borderline predictions, with saliency maps.

A fixed rule selects the most extreme predictions, so the same probabilities give the same images.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.calibration import logit
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.metrics import Labels, PerClass, Scores
from cxr.evaluation.summary import Predictions
from cxr.inference.ensemble import mean_saliency_maps
from cxr.inference.saliency import METHODS, supported_methods
from cxr.models.classifier import Classifier
from cxr.models.image_store import ImageStore
from cxr.reporting.overlay import overlay

SIDE = 256  # pixels of an image in the report
# The number of images of each kind, in the order of the report.
KINDS = {"true positive": 2, "false positive": 1, "false negative": 1, "borderline": 2}
_COLUMNS = [CLASSES.index(name) for name in FINDINGS]
Map = NDArray[np.float64]


class Example(NamedTuple):
    """An image, and the class for which it is an example."""

    kind: str  # a key of `KINDS`
    row: int  # of the test images
    column: int  # of the class


class Examples(NamedTuple):
    """The example images with the saliency maps of their classes."""

    chosen: list[Example]
    images: NDArray[np.uint8]  # [chosen, side, side]
    maps: list[Map | None]  # each [side, side], 0 or more; None if there are no maps
    method: str  # of the maps, a key of `METHODS`
    problem: str = ""  # why there are no maps


def collect_examples(
    test: Predictions,
    decisions: Decisions,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    classifiers: list[Classifier],
) -> Examples:
    """Choose examples and compute their saliency maps: attention if all networks have it, else LayerCAM.

    Args:
        test: the test images.
        decisions: calibration and thresholds.
        images: of all splits, uint8 [images, side, side].
        rows: indices of the test images in `images`.
        classifiers: the networks of the ensemble.
    """
    calibrated = decisions.calibration.apply(test.probabilities)
    chosen = choose_examples(test.labels, calibrated, decisions.calibrated_thresholds)
    chosen_rows = rows[[example.row for example in chosen]]
    method = "attention" if "attention" in supported_methods(classifiers) else "layer_cam"
    store = ImageStore(images, chosen_rows, next(classifiers[0].parameters()).device)
    columns = np.array([example.column for example in chosen], np.int64)
    try:
        maps = [*mean_saliency_maps(METHODS[method], classifiers, store, columns, len(chosen))]
    except InputError as error:
        return Examples(chosen, images[chosen_rows], [None] * len(chosen), method, str(error))
    return Examples(chosen, images[chosen_rows], [*maps], method)


def choose_examples(labels: Labels, probabilities: Scores, thresholds: PerClass) -> list[Example]:
    """Choose images of findings, each image at most once and each finding at most once for each kind.

    True and false positives have the highest probabilities, false negatives the lowest; borderline images have the
    logits closest to that of the threshold. There are fewer examples than `KINDS` if there are too few images.

    Args:
        labels: uint8 [images, 15].
        probabilities: [images, 15].
        thresholds: [15]; a probability at or above the threshold is predicted positive.
    """
    positive, negative, predicted_positive = labels == 1, labels == 0, probabilities >= thresholds
    candidates = {
        "true positive": (positive & predicted_positive, -probabilities),
        "false positive": (negative & predicted_positive, -probabilities),
        "false negative": (positive & ~predicted_positive, probabilities),
        "borderline": (positive | negative, np.abs(logit(probabilities) - logit(thresholds))),
    }
    chosen: list[Example] = []
    for kind, count in KINDS.items():
        chosen += _first(kind, count, *candidates[kind], used={example.row for example in chosen})
    return chosen


def image_url(gray: NDArray[np.uint8]) -> str:
    """Return a gray image, uint8 [side, side], enlarged to `SIDE`, as the data URL of a PNG."""
    return _data_url(_enlarge(gray))


def overlay_url(gray: NDArray[np.uint8], saliency: Map) -> str | None:
    """Return the image with its saliency map over it as the data URL of a PNG; None for a map of zeros."""
    if not saliency.any():
        return None
    return _data_url(Image.fromarray(overlay(np.asarray(_enlarge(gray)), saliency)))


def _first(kind: str, count: int, allowed: NDArray[np.bool_], order: Scores, used: Iterable[int]) -> Iterator[Example]:
    """Yield the first `count` of the `allowed` by rising `order`, both [images, 15], without the images `used`."""
    rows_used, columns_used = set(used), set[int]()
    rows, columns = np.nonzero(allowed[:, _COLUMNS])
    for index in np.argsort(order[:, _COLUMNS][rows, columns], kind="stable"):
        row, column = int(rows[index]), _COLUMNS[columns[index]]
        if count and row not in rows_used and column not in columns_used:
            rows_used.add(row)
            columns_used.add(column)
            count -= 1
            yield Example(kind, row, column)


def _enlarge(gray: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _data_url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"
