"""The report's sample images: told right, told wrong, and on the edge, with where the networks saw the finding.

They are extremes, picked by a rule and not by a person: the same probabilities give the same images.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.calibration import logit
from cxr.evaluation.localisation import PEAK_FRACTION
from cxr.evaluation.metrics import Labels, PerClass, Scores
from cxr.inference.ensemble import mean_saliency_maps
from cxr.inference.saliency import METHODS, supported_methods
from cxr.models.classifier import Classifier
from cxr.models.image_store import ImageStore

SIDE = 256  # pixels of a picture on the page
# Of each kind so many images, in this order.
KINDS = {"right": 2, "false alarm": 1, "missed": 1, "unsure": 2}
_COLUMNS = [CLASSES.index(name) for name in FINDINGS]
_HEAT = (230, 97, 1)  # orange: told from gray by any eye
_STRENGTH = 0.55  # share of the colour where the map is highest
Map = NDArray[np.float64]


class Example(NamedTuple):
    """An image to show, and the class that it is shown for."""

    kind: str  # one of KINDS
    place: int  # row of the labels
    column: int  # of the class


class Predicted(NamedTuple):
    """The test images, and what the ensemble says of them."""

    table: pd.DataFrame  # image and patient
    labels: Labels  # uint8 [images, 15]
    before: Scores  # probabilities before calibration, [images, 15]
    after: Scores  # and after it
    thresholds: PerClass  # from where on a class is called, of probabilities after calibration, [15]


class Examples(NamedTuple):
    """The images to show, and where the networks saw the class of each."""

    chosen: list[Example]
    pixels: NDArray[np.uint8]  # [chosen, side, side]
    maps: list[Map | None]  # each [side, side], 0 or more; None where there is none
    story: str  # the method of the maps, one of METHODS, or why there are none


def choose_examples(labels: Labels, probabilities: Scores, thresholds: PerClass) -> list[Example]:
    """Pick images of findings, no image twice and no finding twice of a kind; fewer where there are no more.

    Right are the most probable of those rightly called; a false alarm is the most probable of those wrongly called, and
    missed the least probable of those wrongly not called; unsure are those whose log-odds are nearest the threshold's.

    Args:
        labels: uint8 [images, 15].
        probabilities: [images, 15].
        thresholds: from where on a class is called, [15].
    """
    present, absent, called = labels == 1, labels == 0, probabilities >= thresholds
    candidates = {
        "right": (present & called, -probabilities),
        "false alarm": (absent & called, -probabilities),
        "missed": (present & ~called, probabilities),
        "unsure": (present | absent, np.abs(logit(probabilities) - logit(thresholds))),
    }
    chosen: list[Example] = []
    for kind, count in KINDS.items():
        chosen += _first(kind, count, *candidates[kind], taken={one.place for one in chosen})
    return chosen


def collect_examples(
    predicted: Predicted, images: NDArray[np.uint8], rows: NDArray[np.int64], classifiers: list[Classifier]
) -> Examples:
    """Choose samples and map them, by the networks' attention where all have it, else by LayerCAM.

    A network that cannot be mapped costs the maps and nothing else.

    Args:
        predicted: of the test images.
        images: of all splits, uint8 [images, side, side].
        rows: where in `images` the test images are.
        classifiers: the members' networks.
    """
    chosen = choose_examples(predicted.labels, predicted.after, predicted.thresholds)
    ours = rows[[one.place for one in chosen]]
    method = "attention" if "attention" in supported_methods(classifiers) else "layer_cam"
    pixels = ImageStore(images, ours, next(classifiers[0].parameters()).device)
    columns = np.array([one.column for one in chosen], np.int64)
    try:
        maps: list[Map | None] = [*mean_saliency_maps(METHODS[method], classifiers, pixels, columns, len(chosen))]
    except InputError as error:
        maps, method = [None] * len(chosen), f"There are no maps: {error}."
    return Examples(chosen, images[ours], maps, method)


def image_data_url(pixels: NDArray[np.uint8]) -> str:
    """A gray image, uint8 [side, side], as the page shows it: a PNG in a data URL."""
    return _data_url(_enlarged(pixels))


def overlay_data_url(pixels: NDArray[np.uint8], heat: Map) -> str | None:
    """The same under its map, orange by the map's height, with a line around all of half its height and more.

    The line is white and black, to be seen without colour, and on bone as on air. None for a map of zeros.
    """
    if not heat.any():
        return None
    gray = np.asarray(_enlarged(pixels), np.float64)[..., None]
    height = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    share = (height / height.max())[..., None]
    picture = gray + _STRENGTH * share * (np.array(_HEAT) - gray)
    inside = share[..., 0] >= PEAK_FRACTION
    picture[_edge(inside)] = 255
    picture[_edge(~inside)] = 0
    return _data_url(Image.fromarray(picture.round().astype(np.uint8)))


def _first(kind: str, count: int, allowed: NDArray[np.bool_], order: Scores, taken: Iterable[int]) -> Iterator[Example]:
    """The first `count` of the `allowed` by rising `order`, both [images, 15], none of an image that is `taken`."""
    places, findings = set(taken), set[int]()
    rows, columns = np.nonzero(allowed[:, _COLUMNS])
    for index in np.argsort(order[:, _COLUMNS][rows, columns], kind="stable"):
        place, column = int(rows[index]), _COLUMNS[columns[index]]
        if count and place not in places and column not in findings:
            places.add(place)
            findings.add(column)
            count -= 1
            yield Example(kind, place, column)


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which pixels of `inside` have a neighbour, by a side, that is not."""
    padded = np.pad(inside, 1, mode="edge")
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~around


def _data_url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"
