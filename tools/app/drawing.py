"""The page's own pieces as HTML, from `fragments.html`, a Jinja template that escapes whatever it is given."""

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
from tools.app.record import Record
from tools.app.words import threshold
from tools.predict.predicting import Answer

_TEMPLATE = Path(__file__).with_name("fragments.html")


class Row(NamedTuple):
    """A class as it stands in the list."""

    name: str
    probability: float
    threshold: float
    is_called: bool
    meaning: list[str]  # of the threshold, sentences


def draw(fragment: str, *content: Any) -> str:
    """The fragment of this name, a macro of the template, filled with `content`."""
    return str(getattr(_fragments(), fragment)(*content))


def rows(answer: Answer, thresholds: dict[str, float], record: Record) -> list[Row]:
    """The classes with a threshold: those that are called first, of these and of the others the most probable first."""
    listed = [
        Row(name, float(probability), thresholds[name], bool(called), threshold(name, thresholds[name], record))
        for name, probability, called in zip(CLASSES, answer.probabilities, answer.called, strict=True)
        if name in thresholds
    ]
    return sorted(listed, key=lambda row: (not row.is_called, -row.probability))


def data_url(pixels: NDArray[np.uint8]) -> str:
    """A picture, uint8 [height, width] or [height, width, 3], as a PNG within its own address."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"


@cache
def _fragments() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).module
