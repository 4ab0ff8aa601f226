"""HTML of the page, rendered from the macros of `fragments.html`, a Jinja template that escapes all values."""

from base64 import b64encode
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from cxr.core.labels import CLASSES
from cxr.evaluation.schema import Metrics
from tools.app.text import explain_threshold
from tools.predict.predicting import Prediction

_TEMPLATE = Path(__file__).with_name("fragments.html")


class ClassRow(NamedTuple):
    """A class in the list of predictions."""

    name: str
    probability: float
    threshold: float
    is_predicted: bool
    explanation: list[str]  # sentences about the threshold


def render_macro(macro: str, *arguments: Any) -> str:
    """Return the HTML of a macro of the template."""
    return str(getattr(_macros(), macro)(*arguments))


def class_rows(prediction: Prediction, thresholds: dict[str, float], metrics: Metrics) -> list[ClassRow]:
    """Return the classes with a threshold: predicted positives first, then in descending order of probability."""
    values = zip(CLASSES, prediction.probabilities, prediction.is_predicted, strict=True)
    rows = [
        ClassRow(
            name,
            float(probability),
            thresholds[name],
            bool(is_predicted),
            explain_threshold(name, thresholds[name], metrics),
        )
        for name, probability, is_predicted in values
        if name in thresholds
    ]
    return sorted(rows, key=lambda row: (not row.is_predicted, -row.probability))


def data_url(pixels: NDArray[np.uint8]) -> str:
    """Return an image, uint8 [height, width] or [height, width, 3], as a PNG in a data URL."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).module
