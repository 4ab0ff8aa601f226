"""Names of columns in the tables of others, and the classes and fields that they mean."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from cxr.core.errors import InputError, format_names
from cxr.core.files import read_utf8
from cxr.core.labels import CLASSES

_KIND = "probability|prob|prediction|predicted|pred|score|logit|label|p|y"
_AFFIXES = re.compile(rf"^({_KIND})[ _.:-]+|[ _.:-]+({_KIND})$", re.IGNORECASE)
_BY_LETTERS = {re.sub("[^a-z]", "", name.lower()): name for name in CLASSES} | {
    "pleuraleffusion": "Effusion",
    "infiltrate": "Infiltration",
}
_FIELDS = {
    "image": ("image", "imageindex", "imagename", "imageid", "imagepath", "file", "filename", "path"),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "age": ("age", "patientage"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "view": ("view", "viewposition"),
    "split": ("split",),
}


def class_of(name: str) -> str | None:
    """Return the class that `name` means, None if there is none.

    Case, spaces, signs, and affixes such as `prob_` are ignored: `prob_Pleural Thickening` is `Pleural_Thickening`.
    """
    return _BY_LETTERS.get(re.sub("[^a-z]", "", _AFFIXES.sub("", name.strip()).lower()))


def field_of(name: str) -> str | None:
    """Return the field that `name` means: image, patient, age, sex, view or split; None if there is none."""
    letters = re.sub("[^a-z]", "", name.lower())
    return next((field for field, names in _FIELDS.items() if letters in names), None)


def match_columns(path: Path) -> dict[str, str]:
    """Return the class or the field that each column of a CSV table means; columns that mean neither are left out.

    Raises:
        InputError: if there is no such table, two columns mean the same, or no column is an image or a class.
    """
    header = _header(path)
    found = {name: meaning for name in header if (meaning := field_of(name) or class_of(name))}
    if repeated := _repeated(found.values()):
        same = [name for name in header if found.get(name) == repeated]
        raise InputError(f"{path}: the columns {format_names(same)} all mean {repeated}; keep one of them")
    listed = f"its columns are {format_names(header, 20)}"
    if "image" not in found.values():
        raise InputError(f"{path} has no column of image names, such as image; {listed}")
    if not set(found.values()) & set(CLASSES):
        raise InputError(f"{path} has no column of a class, such as Mass; {listed}")
    return found


def _header(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f"there is no {path}; give an existing file")
    try:
        return next(csv.reader(io.StringIO(read_utf8(path), newline="")), [])
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None


def _repeated(names: Iterable[str]) -> str | None:
    seen = set[str]()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
