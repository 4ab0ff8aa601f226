"""Answers as a person reads them, as a table, and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES
from cxr.evaluation.summary import nan_to_none
from tools.predict.ensemble import Ensemble
from tools.predict.predicting import Answer
from tools.predict.reading import Failure

NOT_CLINICAL = "Not for clinical use: these numbers may guide no diagnosis."
OF_DRAWINGS = "Learned from synthetic drawings: of real images these numbers say nothing."
_NAME_WIDTH = 60  # characters of a file's path in a line; longer ones lose their beginning


def in_full(answer: Answer, ensemble: Ensemble) -> str:
    """A table of the 15 classes; those at or above their threshold are marked by `*`."""
    thresholds = thresholds_of(ensemble)
    remarks = [*_flags(answer), *(f"heat map: {path}" for path in answer.heat_maps)]
    lines = [str(answer.file), *(f"  {remark}" for remark in remarks)]
    lines.append(f"  {'':<20}{'probability':>11}{'threshold':>11}")
    for name, probability, is_called in zip(CLASSES, answer.probabilities, answer.called, strict=True):
        likely, limit = _digits(probability), _digits(thresholds[name] if thresholds else None)
        lines.append(f"{'*' if is_called else ' '} {name:<20}{likely:>11}{limit:>11}")
    return "\n".join(lines) + "\n"


def in_a_line(answer: Answer, ensemble: Ensemble, width: int) -> str:
    """The classes that are called, most probable first; without thresholds the three most probable ones."""
    order = np.argsort(-answer.probabilities, kind="stable")
    shown = [column for column in order if answer.called[column]] if ensemble.decisions else order[:3]
    words = [f"{CLASSES[column]} {answer.probabilities[column]:.2f}" for column in shown] or ["nothing called"]
    return "  ".join([f"{_short(str(answer.file)):<{width}}", ", ".join(words), *_flags(answer)])


def width_of(files: Iterable[Any]) -> int:
    """The width of the column of these files."""
    return max(len(_short(str(file))) for file in files)


def closing(answers: Sequence[Answer], failures: Sequence[Failure], ensemble: Ensemble) -> str:
    """What was done, what the numbers are, and what they are not."""
    said = f"{len(answers):,} image{'s' if len(answers) != 1 else ''}"
    for count, what in ((sum(bool(answer.flags) for answer in answers), "flagged"), (len(failures), "unreadable")):
        said += f", {count:,} {what}" if count else ""
    members = ", ".join(file.stem for file in ensemble.files)
    many = f"{len(ensemble.files)} networks ({members})" if len(ensemble.files) > 1 else members
    if ensemble.decisions:
        nature = f"Calibrated probabilities of {many}; a class is called (*) from its threshold on."
    else:
        nature = f"Uncalibrated probabilities of {many}, without thresholds: no decisions.json was made for just these."
    remarks = [OF_DRAWINGS] if ensemble.is_synthetic else []
    if ensemble.untrained:
        remarks.append(f"Not learned, for want of labels: {', '.join(ensemble.untrained)}.")
    return "\n".join([f"{said}. {nature}", *remarks, NOT_CLINICAL])


def thresholds_of(ensemble: Ensemble) -> dict[str, float | None] | None:
    """The threshold of each class, after calibration, None of a class that has none; None where there are none."""
    if ensemble.decisions is None:
        return None
    after = ensemble.decisions.calibration.apply(ensemble.decisions.thresholds[None])[0]
    return dict(zip(CLASSES, map(nan_to_none, after), strict=True))


def as_table(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row an answer: file, the 15 probabilities, called and flags (each joined by |)."""
    rows = [
        [str(answer.file), *answer.probabilities, "|".join(_called(answer)), "|".join(answer.flags)]
        for answer in answers
    ]
    return pd.DataFrame(rows, columns=["file", *CLASSES, "called", "flags"])


def as_json(answers: Sequence[Answer], failures: Sequence[Failure], ensemble: Ensemble) -> dict[str, Any]:
    """All of it in full precision; `thresholds` is null where there are none."""
    return {
        "note": NOT_CLINICAL,
        "models": [str(file) for file in ensemble.files],
        "calibrated": ensemble.decisions is not None,
        "synthetic": ensemble.is_synthetic,
        "thresholds": thresholds_of(ensemble),
        "images": [
            {
                "file": str(answer.file),
                "probabilities": dict(zip(CLASSES, map(nan_to_none, answer.probabilities), strict=True)),
                "called": _called(answer),
                "flags": list(answer.flags),
                "heat_maps": [str(path) for path in answer.heat_maps],
            }
            for answer in answers
        ],
        "failed": [{"file": str(failure.file), "reason": failure.reason} for failure in failures],
    }


def _digits(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def _called(answer: Answer) -> list[str]:
    return [name for name, is_called in zip(CLASSES, answer.called, strict=True) if is_called]


def _flags(answer: Answer) -> list[str]:
    return [f"flagged: {flag}" for flag in answer.flags]


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]
