"""What evaluate measured of the networks: read from `metrics/`, and held against the decisions that go with them."""

from dataclasses import dataclass
from typing import Any

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS, METRICS
from cxr.evaluation.summary import Report, nan_to_none
from cxr.evaluation.thresholds import Rule
from tools.model_card import read_metrics
from tools.predict.ensemble import Decisions


@dataclass(frozen=True)
class Record:
    """Of the test images; an entry is a value with its 95 % interval: `value`, `low` and `high`, each may be null."""

    synthetic: bool  # whether the images are drawings
    images: int
    patients: int
    rule: Rule  # by which validation chose the thresholds
    mean_auroc: Report  # an entry
    classes_in_mean: int
    labelled: dict[str, int]  # images of which each class is known
    positives: dict[str, int]  # images labelled with each class
    auroc: dict[str, Report]  # an entry of each class
    points: dict[str, Report]  # of each class sensitivity, specificity, ppv and npv, an entry each


def read_record(decisions: Decisions) -> Record:
    """Read `metrics/`.

    Raises:
        InputError: where a file is missing or not what evaluate writes, or is of other networks than `decisions`.
    """
    try:
        metrics = read_metrics(METRICS)
        measured = _thresholds(metrics["operating_points"]), tuple(metrics["members"]["members"])
        record = _record(metrics)
    except FileNotFoundError as error:
        raise InputError(f"there is no {error.filename}; run `dvc repro`") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{METRICS} is not what evaluate writes: {error!r}; run `dvc repro`") from None
    if measured != ([nan_to_none(value) for value in decisions.thresholds], decisions.members):
        raise InputError(f"{METRICS} is of another run than {DECISIONS}: run `dvc repro`, or `dvc checkout`")
    return record


def _thresholds(points: Report) -> list[Any]:
    return [points["classes"][name]["threshold"] for name in CLASSES]


def _record(metrics: dict[str, Report]) -> Record:
    test, intervals, points = metrics["test"], metrics["intervals"], metrics["operating_points"]
    return Record(
        synthetic=metrics["classes"]["synthetic"],
        images=test["test_images"],
        patients=intervals["patients"],
        rule=points["rule"],
        mean_auroc=intervals["auroc"]["mean_15"],
        classes_in_mean=test["auroc"]["classes_in_mean_15"],
        labelled={name: int(metrics["classes"]["classes"][name]["images"]) for name in CLASSES},
        positives={name: int(metrics["classes"]["classes"][name]["positives"]) for name in CLASSES},
        auroc={name: intervals["auroc"][name] for name in CLASSES},
        points={name: points["classes"][name] for name in CLASSES},
    )
