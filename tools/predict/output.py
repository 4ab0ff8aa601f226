"""Predictions as text, as a table, and as JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS
from cxr.evaluation.schema import nan_to_none
from tools.predict.ensemble import Ensemble
from tools.predict.predicting import Prediction
from tools.predict.reading import Failure

NOT_CLINICAL = "Not for clinical use."
SYNTHETIC = "Trained on synthetic images: these probabilities are meaningless for real radiographs."
# As OWASP lists them under CSV injection.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_PATH_WIDTH = 60  # characters of a path in a line; longer ones are cut at the start
_MOST_PROBABLE = 3  # classes in a line, for networks without thresholds


def printable(text: object) -> str:
    r"""Return `text` on one line: control characters and bytes that are not UTF-8 become escapes (`\n`, `\udcff`)."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))


def csv_name(file: Path) -> str:
    r"""Return the name of an image in a CSV file.

    A relative path that a spreadsheet would take for a formula gets the prefix `./`, so it still names the file. Bytes
    that are not UTF-8 become escapes such as `\udcff`.
    """
    name = str(file)
    prefix = "./" if name.lstrip().startswith(_FORMULA) or name[0].isspace() else ""
    return prefix + name.encode(errors="backslashreplace").decode()


def format_table(prediction: Prediction, ensemble: Ensemble) -> str:
    """Return one image's table of the 15 classes; `*` marks predicted positives."""
    thresholds = ensemble.thresholds
    notes = [*_warnings(prediction), *(f"saliency map: {printable(path)}" for path in prediction.saliency_maps)]
    lines = [printable(prediction.file), *(f"  {note}" for note in notes)]
    lines.append(f"  {'':<20}{'probability':>11}{'threshold':>11}")
    for name, probability, is_predicted in zip(CLASSES, prediction.probabilities, prediction.is_predicted, strict=True):
        threshold = thresholds[name] if thresholds else None
        mark = "*" if is_predicted else " "
        lines.append(f"{mark} {name:<20}{_three_decimals(probability):>11}{_three_decimals(threshold):>11}")
    return "\n".join(lines) + "\n"


def format_line(prediction: Prediction, ensemble: Ensemble, width: int) -> str:
    """Return one image's predicted positives, most probable first; without thresholds, the most probable classes."""
    order = np.argsort(-prediction.probabilities, kind="stable")
    positives = [column for column in order if prediction.is_predicted[column]]
    columns = positives if ensemble.decisions else order[:_MOST_PROBABLE]
    classes = [f"{CLASSES[column]} {prediction.probabilities[column]:.2f}" for column in columns]
    return "  ".join(
        [
            f"{_shorten(printable(prediction.file)):<{width}}",
            ", ".join(classes) or "no predicted positives",
            *_warnings(prediction),
        ]
    )


def column_width(files: Iterable[Path]) -> int:
    """Return the width of the column of `files` in the lines of `format_line`."""
    return max(len(_shorten(printable(file))) for file in files)


def summary(predictions: Sequence[Prediction], failures: Sequence[Failure], ensemble: Ensemble) -> str:
    """Return the number of images, the names of the networks, and notes on the limits of the probabilities."""
    counts = f"{len(predictions):,} image{'s' if len(predictions) != 1 else ''}"
    warned = sum(bool(prediction.warnings) for prediction in predictions)
    for count, text in ((warned, "with warnings"), (len(failures), "unreadable")):
        counts += f", {count:,} {text}" if count else ""
    members = ", ".join(file.stem for file in ensemble.files)
    networks = f"{len(ensemble.files)} networks ({members})" if len(ensemble.files) > 1 else members
    if ensemble.decisions:
        kind = f"Calibrated probabilities of {networks}; * marks probabilities at or above the threshold."
    else:
        kind = f"Uncalibrated probabilities of {networks}; {DECISIONS} has no thresholds for these model files."
    notes = [SYNTHETIC] if ensemble.is_synthetic else []
    if ensemble.prevalence:
        stated = ", ".join(f"{name} {value:g}" for name, value in ensemble.prevalence.items())
        notes.append(f"Corrected to the stated prevalence: {stated}.")
    if ensemble.untrained:
        notes.append(f"Not trained, for lack of labels: {', '.join(ensemble.untrained)}.")
    return "\n".join([f"{counts}. {kind}", *notes, NOT_CLINICAL])


def to_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return one row for each image: file, the 15 probabilities, predicted positives and warnings (joined by `|`)."""
    rows = [
        [csv_name(one.file), *one.probabilities, *("|".join(words) for words in (_positives(one), one.warnings))]
        for one in predictions
    ]
    return pd.DataFrame(rows, columns=["file", *CLASSES, "predicted_positive", "warnings"])


def to_json(predictions: Sequence[Prediction], failures: Sequence[Failure], ensemble: Ensemble) -> dict[str, Any]:
    """Return all results in full precision; `thresholds` is None without thresholds."""
    return {
        "note": NOT_CLINICAL,
        "models": [str(file) for file in ensemble.files],
        "calibrated": ensemble.decisions is not None,
        "synthetic": ensemble.is_synthetic,
        "prevalence": dict(ensemble.prevalence),
        "thresholds": ensemble.thresholds,
        "images": [
            {
                "file": str(one.file),
                "probabilities": dict(zip(CLASSES, map(nan_to_none, one.probabilities), strict=True)),
                "predicted_positive": _positives(one),
                "warnings": list(one.warnings),
                "saliency_maps": [str(path) for path in one.saliency_maps],
            }
            for one in predictions
        ],
        "failed": [{"file": str(failure.file), "reason": failure.reason} for failure in failures],
    }


def _three_decimals(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def _positives(prediction: Prediction) -> list[str]:
    return [name for name, is_predicted in zip(CLASSES, prediction.is_predicted, strict=True) if is_predicted]


def _warnings(prediction: Prediction) -> list[str]:
    return [f"warning: {printable(warning)}" for warning in prediction.warnings]


def _shorten(path: str) -> str:
    return path if len(path) <= _PATH_WIDTH else "…" + path[1 - _PATH_WIDTH :]
